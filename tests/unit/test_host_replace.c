/* Files replaced in one step: nobody's work is lost, and leftovers of killed writers are told from files in the making. */
#include "tests/unit/cmocka_headers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/host/replace.h"

struct place {
	char path[64];
	int directory;
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof *place);
	strcpy(place->path, "/tmp/ambient-replace-XXXXXX");
	if (!mkdtemp(place->path))
		return -1;
	place->directory = open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", place->path);
	close(place->directory);
	free(place);
	return system(command);
}

static void write_file(const struct place *place, const char *name, const char *text)
{
	cleanup_close int fd = openat(place->directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void assert_file(const struct place *place, const char *name, const char *text)
{
	char content[64] = "";
	cleanup_close int fd = openat(place->directory, name, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_true(read(fd, content, sizeof content - 1) >= 0);
	assert_string_equal(content, text);
}

static size_t count_files(const struct place *place)
{
	size_t count = 0;
	DIR *stream = opendir(place->path);
	for (const struct dirent *entry; (entry = readdir(stream));)
		count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
	closedir(stream);
	return count;
}

static void begin(const struct place *place, struct replacement *replacement, const char *text)
{
	assert_int_equal(replacement_begin(place->directory, "x", 0640, NULL, replacement), 0);
	assert_int_equal(replacement_write(replacement, text, strlen(text), NULL), 0);
	assert_int_equal(replacement_sync(replacement, NULL), 0);
}

/* Whoever writes in the last moment: after the look, before the exchange. */
static const struct place *writes_at_last;

/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) */
int renameat2(int old_directory, const char *old_name, int new_directory, const char *new_name, unsigned int flags)
{
	if (writes_at_last)
		write_file(writes_at_last, "x", "theirs, in the last moment");
	writes_at_last = NULL;
	return (int)syscall(SYS_renameat2, old_directory, old_name, new_directory, new_name, flags);
}

static void a_new_file(void **state)
{
	const struct place *place = *state;
	cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
	struct stat status;
	begin(place, &replacement, "new");
	assert_int_equal(replacement_commit(&replacement, NULL, NULL), 0);
	assert_file(place, "x", "new");
	assert_int_equal(fstatat(place->directory, "x", &status, 0), 0);
	assert_int_equal(status.st_mode & 07777, 0640);
	assert_int_equal(count_files(place), 1);
}

static void an_expected_file_is_replaced(void **state)
{
	const struct place *place = *state;
	cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
	struct stat status;
	write_file(place, "x", "old");
	assert_int_equal(fstatat(place->directory, "x", &status, 0), 0);
	begin(place, &replacement, "new");
	assert_int_equal(replacement_commit(&replacement, &status, NULL), 0);
	assert_file(place, "x", "new");
	assert_int_equal(count_files(place), 1);
}

static void somebody_elses_work_stays(void **state)
{
	const struct place *place = *state;
	struct stat status;
	write_file(place, "x", "old");
	assert_int_equal(fstatat(place->directory, "x", &status, 0), 0);
	{
		cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
		struct error error = { 0 };
		begin(place, &replacement, "new");
		write_file(place, "x", "theirs, in place");
		assert_int_equal(replacement_commit(&replacement, &status, &error), -1);
		assert_int_equal(error.number, EAGAIN);
	}
	assert_file(place, "x", "theirs, in place");
	assert_int_equal(count_files(place), 1);
	{
		cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
		struct error error = { 0 };
		begin(place, &replacement, "new");
		assert_int_equal(unlinkat(place->directory, "x", 0), 0);
		assert_int_equal(replacement_commit(&replacement, &status, &error), -1);
		assert_int_equal(error.number, EAGAIN);
	}
	assert_int_equal(count_files(place), 0);
	write_file(place, "x", "old");
	assert_int_equal(fstatat(place->directory, "x", &status, 0), 0);
	{
		cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
		struct error error = { 0 };
		begin(place, &replacement, "new");
		writes_at_last = place;
		assert_int_equal(replacement_commit(&replacement, &status, &error), -1);
		assert_int_equal(error.number, EAGAIN);
	}
	assert_file(place, "x", "theirs, in the last moment");
	assert_int_equal(count_files(place), 1);
}

static void what_is_given_up_leaves_nothing(void **state)
{
	const struct place *place = *state;
	struct replacement replacement = { .fd = -1, .lock = -1 };
	begin(place, &replacement, "new");
	assert_int_equal(count_files(place), 1);
	replacement_end(&replacement);
	replacement_end(&replacement);
	assert_int_equal(count_files(place), 0);
}

static void leftovers_go_and_files_in_the_making_stay(void **state)
{
	const struct place *place = *state;
	cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
	write_file(place, ".x.0123456789abcdef" REPLACEMENT_SUFFIX, "half");
	write_file(place, "x" REPLACEMENT_SUFFIX, "not ours: no dot");
	write_file(place, "y", "");
	begin(place, &replacement, "new");
	assert_int_equal(count_files(place), 4);
	replacement_sweep(place->directory);
	assert_int_equal(count_files(place), 3);
	assert_int_equal(replacement_commit(&replacement, NULL, NULL), 0);
	assert_file(place, "x", "new");
}

static void a_long_name(void **state)
{
	const struct place *place = *state;
	cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
	char name[251];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	assert_int_equal(replacement_begin(place->directory, name, 0600, NULL, &replacement), 0);
	assert_int_equal(replacement_sync(&replacement, NULL), 0);
	assert_int_equal(replacement_commit(&replacement, NULL, NULL), 0);
	assert_file(place, name, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_new_file, make_place, remove_place),
		cmocka_unit_test_setup_teardown(an_expected_file_is_replaced, make_place, remove_place),
		cmocka_unit_test_setup_teardown(somebody_elses_work_stays, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_is_given_up_leaves_nothing, make_place, remove_place),
		cmocka_unit_test_setup_teardown(leftovers_go_and_files_in_the_making_stay, make_place, remove_place),
		cmocka_unit_test_setup_teardown(a_long_name, make_place, remove_place),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
