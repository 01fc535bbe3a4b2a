/* What is remembered in runDir: attachments and the namespaces outside the mesh. Nothing is lost on a full disk, a file that
 * can't be understood is set aside, and no name from outside leads out of the directory. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/outside.h"

static int make_directory(void **state)
{
	char *directory = strdup("/tmp/ambient-remembered-XXXXXX");
	*state = directory;
	return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
	free(*state);
	return system(command);
}

static struct attachment example(const char *container_id)
{
	struct attachment attachment = { .network = "podnet",
					 .container_id = (char *)container_id,
					 .interface = "eth0",
					 .netns = { .device = 4, .inode = 4026531840 },
					 .is_enrolled = true };
	redirect_init(&attachment.redirect);
	return attachment;
}

static void an_attachment_is_remembered(void **state)
{
	struct attachment attachment = example("c1");
	cleanup_attachment struct attachment read = { 0 };
	bool found = true;
	assert_int_equal(attachment_read(*state, "c1", "eth0", NULL, &read, &found), 0);
	assert_false(found);
	attachment.redirect.bypass_inbound = true;
	assert_int_equal(attachment_write(*state, &attachment, NULL), 0);
	assert_int_equal(attachment_read(*state, "c1", "eth0", NULL, &read, &found), 0);
	assert_true(found && read.is_enrolled && read.redirect.bypass_inbound);
	assert_true(read.netns.inode == 4026531840);
	assert_null(read.pod_uid);
	for (int i = 0; i < 2; i++)
		assert_int_equal(attachment_remove(*state, "c1", "eth0", NULL), 0);
	assert_int_equal(attachment_remove("/nonexistent", "c1", "eth0", NULL), 0);
}

static void names_lead_nowhere_else(void **state)
{
	static const char *const bad_ids[] = { "", "../c1", "a/b", ".hidden", "a b", "a:b", "a\nb", "-x" };
	static const char *const bad_interfaces[] = { "", ".", "..", "a/b", "a:b", "a b", "0123456789abcdef" };
	for (size_t i = 0; i < sizeof bad_ids / sizeof bad_ids[0]; i++)
		assert_int_equal(attachment_remove(*state, bad_ids[i], "eth0", NULL), -1);
	for (size_t i = 0; i < sizeof bad_interfaces / sizeof bad_interfaces[0]; i++)
		assert_int_equal(attachment_remove(*state, "c1", bad_interfaces[i], NULL), -1);
	assert_true(attachment_container_id_is_valid("a1_b.c-d"));
	assert_true(attachment_interface_is_valid("eth0.100@x"));
}

static int count_one(void *data, struct attachment *attachment, struct error *error)
{
	(void)error;
	(void)attachment;
	++*(int *)data;
	return 0;
}

static int corrupt_files;
static void count_corrupt(void *data, const char *message)
{
	(void)data;
	assert_non_null(strstr(message, "set aside"));
	corrupt_files++;
}

static void what_cannot_be_understood_is_set_aside(void **state)
{
	static const char *const contents[] = { "", "{", "{}", "{\"version\":2}", "[]", "{\"version\":1,\"network\":\"n\"}" };
	char path[128], aside[160];
	struct attachment attachment = example("good");
	assert_int_equal(attachment_write(*state, &attachment, NULL), 0);
	snprintf(path, sizeof path, "%s/attachments/bad:eth0.json", (char *)*state);
	snprintf(aside, sizeof aside, "%s.corrupt", path);
	for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
		cleanup_attachment struct attachment read = { 0 };
		struct error error = { 0 };
		bool found = true;
		assert_int_equal(file_write(path, contents[i], strlen(contents[i]), 0600, NULL), 0);
		assert_int_equal(attachment_read(*state, "bad", "eth0", &error, &read, &found), -1);
		assert_non_null(strstr(error.message, path));
		assert_int_equal(access(aside, F_OK), 0);
		assert_int_equal(attachment_read(*state, "bad", "eth0", NULL, &read, &found), 0);
		assert_false(found);

		int count = 0;
		corrupt_files = 0;
		assert_int_equal(file_write(path, contents[i], strlen(contents[i]), 0600, NULL), 0);
		assert_int_equal(attachment_list(*state, count_one, count_corrupt, &count, NULL), 0);
		assert_int_equal(count, 1);
		assert_int_equal(corrupt_files, 1);
	}
}

static void a_full_disk_keeps_the_old_file(void **state)
{
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("none", *state, "tmpfs", 0, "size=64k"), 0);
	char path[128], fill[128];
	snprintf(path, sizeof path, "%s/file", (char *)*state);
	snprintf(fill, sizeof fill, "%s/fill", (char *)*state);
	assert_int_equal(file_write(path, "old", 3, 0600, NULL), 0);
	static char large[200000];
	struct error error = { 0 };
	assert_int_equal(file_write(path, large, sizeof large, 0600, &error), -1);
	assert_int_equal(error.number, ENOSPC);
	cleanup_free char *text = NULL;
	size_t length = 0;
	assert_int_equal(file_read(path, 100, NULL, &text, &length), 0);
	assert_string_equal(text, "old");
	/* Nothing half written is left. */
	char command[160];
	snprintf(command, sizeof command, "test \"$(ls '%s')\" = file", (char *)*state);
	assert_int_equal(system(command), 0);
	assert_int_equal(umount(*state), 0);
}

static void reading_is_bounded(void **state)
{
	char path[128];
	cleanup_free char *text = NULL;
	size_t length = 0;
	struct error error = { 0 };
	snprintf(path, sizeof path, "%s/file", (char *)*state);
	assert_int_equal(file_write(path, "0123456789", 10, 0600, NULL), 0);
	assert_int_equal(file_read(path, 9, &error, &text, &length), -1);
	assert_int_equal(error.number, EFBIG);
	assert_int_equal(file_read(path, 10, NULL, &text, &length), 0);
	assert_int_equal(length, 10);
	/* One whose size the kernel does not know, and that is longer than a first guess. */
	free(steal_pointer(text));
	assert_int_equal(file_read("/proc/self/smaps", 1 << 24, NULL, &text, &length), 0);
	assert_true(length > 8192 && strlen(text) == length);
	error = (struct error){ 0 };
	assert_int_equal(file_read("/proc/self/smaps", 8192, &error, &text, &length), -1);
	assert_int_equal(error.number, EFBIG);
	error = (struct error){ 0 };
	assert_int_equal(file_read(*state, 10, &error, &text, &length), -1);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	error = (struct error){ 0 };
	assert_int_equal(file_read(path, 10, &error, &text, &length), -1);
	assert_non_null(strstr(error.message, "not a regular file"));
}

static void namespaces_outside_are_remembered(void **state)
{
	struct outside_namespace namespaces[] = { { "plain", "u1", false }, { "mixed", "u2", true } };
	const struct outside outside = { .time = 1700000000, .namespaces = namespaces, .count = 2 };
	cleanup_outside struct outside read = { 0 };
	struct error error = { 0 };
	assert_int_equal(outside_read(*state, &error, &read), -1);
	assert_int_equal(error.number, ENOENT);
	assert_int_equal(outside_write(*state, &outside, NULL), 0);
	assert_int_equal(outside_read(*state, NULL, &read), 0);
	assert_true(outside_is_listed(&read, "plain"));
	assert_false(outside_is_listed(&read, "mixed"));
	assert_false(outside_is_listed(&read, "unknown"));
	assert_true(read.time == 1700000000);

	static const char *const contents[] = { "", "{}", "{\"version\":2,\"namespaces\":[]}",
						"{\"version\":1,\"namespaces\":[{}]}", "{\"version\":1,\"namespaces\":[7]}" };
	char path[128];
	snprintf(path, sizeof path, "%s/outside.json", (char *)*state);
	for (size_t i = 0; i < sizeof contents / sizeof contents[0]; i++) {
		cleanup_outside struct outside bad = { 0 };
		assert_int_equal(file_write(path, contents[i], strlen(contents[i]), 0600, NULL), 0);
		assert_int_equal(outside_read(*state, NULL, &bad), -1);
		assert_int_equal(bad.count, 0);
	}
}

static void what_a_killed_writer_left_goes_after_a_while(void **state)
{
	int count = 0;
	char command[512];
	snprintf(command, sizeof command,
		 "cd '%s' && mkdir -p attachments && cd attachments && touch c:eth0.json.77.new && "
		 "touch -d '-1 hour' d:eth0.json.78.new e.other",
		 (char *)*state);
	assert_int_equal(system(command), 0);
	assert_int_equal(attachment_list(*state, count_one, NULL, &count, NULL), 0);
	assert_int_equal(count, 0);
	snprintf(command, sizeof command, "test \"$(ls '%s/attachments' | tr '\\n' ' ')\" = 'c:eth0.json.77.new e.other '",
		 (char *)*state);
	assert_int_equal(system(command), 0);
}

/* What stands in a namespace is known by its mark, and where it is not known that is said. */
static void one_that_stands_alone_is_known(void **state)
{
	struct attachment first = example("c1"), second = example("c2"), elsewhere = example("c3");
	elsewhere.netns.inode++;
	assert_false(attachment_is_alone(*state, first.netns, "c1", "eth0"));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(attachment_write(*state, &first, NULL), 0);
		assert_true(attachment_is_alone(*state, first.netns, "c1", "eth0"));
	}
	assert_false(attachment_is_alone(*state, first.netns, "c1", "eth1"));
	assert_false(attachment_is_alone(*state, elsewhere.netns, "c1", "eth0"));
	assert_false(attachment_is_alone(*state, (struct netns_id){ 0 }, "c1", "eth0"));
	assert_false(attachment_has_other(*state, "c1", "eth0", first.netns));

	assert_int_equal(attachment_write(*state, &second, NULL), 0);
	assert_int_equal(attachment_write(*state, &elsewhere, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_false(attachment_is_alone(*state, first.netns, "c1", "eth0"));
		assert_false(attachment_is_alone(*state, first.netns, "c2", "eth0"));
		assert_true(attachment_is_alone(*state, elsewhere.netns, "c3", "eth0"));
		assert_int_equal(attachment_write(*state, &first, NULL), 0);
	}
	attachment_unmark(*state, first.netns);
	assert_false(attachment_is_alone(*state, first.netns, "c2", "eth0"));
	assert_int_equal(attachment_write(*state, &second, NULL), 0);
	assert_true(attachment_is_alone(*state, first.netns, "c2", "eth0"));
}

static void another_interface_of_the_container_is_seen(void **state)
{
	struct attachment first = example("c1"), second = example("c1");
	second.interface = "net1";
	assert_int_equal(attachment_write(*state, &first, NULL), 0);
	assert_int_equal(attachment_write(*state, &second, NULL), 0);
	assert_true(attachment_has_other(*state, "c1", "eth0", first.netns));
	assert_int_equal(attachment_remove(*state, "c1", "net1", NULL), 0);
	assert_false(attachment_has_other(*state, "c1", "eth0", first.netns));
}

/* A version without marks left two of a namespace, and comes back for a third. */
static void attachments_without_marks_are_marked(void **state)
{
	struct attachment first = example("c1"), second = example("c2"), later = example("c4"), other = example("c3");
	char command[256];
	later.netns.inode = other.netns.inode = first.netns.inode + 1;
	assert_int_equal(attachment_write(*state, &first, NULL), 0);
	assert_int_equal(attachment_write(*state, &second, NULL), 0);
	snprintf(command, sizeof command, "rm -r '%s/namespaces'", (char *)*state);
	assert_int_equal(system(command), 0);
	assert_false(attachment_is_alone(*state, first.netns, "c1", "eth0"));
	assert_int_equal(attachment_mark_found(*state, &first, NULL), 0);
	assert_false(attachment_is_alone(*state, first.netns, "c1", "eth0"));

	assert_int_equal(attachment_write(*state, &other, NULL), 0);
	assert_false(attachment_is_alone(*state, first.netns, "c1", "eth0"));
	assert_false(attachment_is_alone(*state, first.netns, "c2", "eth0"));
	assert_true(attachment_is_alone(*state, other.netns, "c3", "eth0"));
	assert_int_equal(attachment_mark_found(*state, &later, NULL), 0);
	assert_false(attachment_is_alone(*state, other.netns, "c3", "eth0"));
	attachment_unmark_all(*state);
	snprintf(command, sizeof command, "test \"$(ls '%s')\" = attachments", (char *)*state);
	assert_int_equal(system(command), 0);
}

/* A version without marks came back, left one, and went: the directory is there, and the mark of its attachment is not. */
static void an_attachment_without_mark_is_seen_by_the_next_of_its_container(void **state)
{
	struct attachment first = example("c1"), second = example("c1"), third = example("c2");
	second.interface = "net1";
	assert_int_equal(attachment_write(*state, &first, NULL), 0);
	attachment_unmark(*state, first.netns);
	assert_int_equal(attachment_write(*state, &second, NULL), 0);
	assert_false(attachment_is_alone(*state, second.netns, "c1", "net1"));
	third.netns.inode++;
	assert_int_equal(attachment_write(*state, &third, NULL), 0);
	assert_true(attachment_is_alone(*state, third.netns, "c2", "eth0"));
}

/* Both a directory aside and a link aside; what a process may still write in, and what is no mark, stay. */
static void what_a_killed_marker_left_goes_after_a_while(void **state)
{
	char command[512];
	snprintf(command, sizeof command,
		 "cd '%s' && mkdir namespaces namespaces.77.new namespaces.78.new && ln -s c:eth0 namespaces.77.new/4:5 && "
		 "ln -s + namespaces/4:5 && ln -s + namespaces/4:6.77.new && ln -s + namespaces/4:6.78.new && "
		 "touch -h -d '-1 hour' namespaces/4:5 namespaces/4:6.77.new namespaces.77.new",
		 (char *)*state);
	assert_int_equal(system(command), 0);
	attachment_unmark_abandoned(*state);
	snprintf(command, sizeof command,
		 "cd '%s' && test \"$(ls -d names* namespaces/* | tr '\\n' ' ')\" = "
		 "'namespaces namespaces.78.new namespaces/4:5 namespaces/4:6.78.new '",
		 (char *)*state);
	assert_int_equal(system(command), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, make_directory, remove_directory)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_attachment_is_remembered),
		TEST(names_lead_nowhere_else),
		TEST(what_cannot_be_understood_is_set_aside),
		TEST(what_a_killed_writer_left_goes_after_a_while),
		TEST(one_that_stands_alone_is_known),
		TEST(another_interface_of_the_container_is_seen),
		TEST(attachments_without_marks_are_marked),
		TEST(an_attachment_without_mark_is_seen_by_the_next_of_its_container),
		TEST(what_a_killed_marker_left_goes_after_a_while),
		TEST(reading_is_bounded),
		TEST(namespaces_outside_are_remembered),
		TEST(a_full_disk_keeps_the_old_file),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
