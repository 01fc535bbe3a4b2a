/* Single configuration files. See configuration_file.h. */
#include "installer/host/configuration_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/host/conflist.h"
#include "installer/host/replace.h"

int configuration_file_write(int directory, const char *name, const cJSON *json, mode_t mode, const struct stat *expected,
			     struct error *error)
{
	cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
	cleanup_free char *text = conflist_print(json);
	if (!text)
		return error_set(error, ENOMEM, "cannot write %s", name);
	if (replacement_begin(directory, name, mode, error, &replacement) < 0 ||
	    replacement_write(&replacement, text, strlen(text), error) < 0 || replacement_sync(&replacement, error) < 0)
		return -1;
	return replacement_commit(&replacement, expected, error);
}

int configuration_file_remove(int directory, const char *name, const struct stat *expected, struct error *error)
{
	struct stat status;
	if (fstatat(directory, name, &status, 0) < 0 && errno == ENOENT &&
	    fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (!replacement_same_file(&status, expected))
		return error_say(error, EAGAIN, "%s was written by somebody else at the same moment", name);
	if (unlinkat(directory, name, 0) < 0 && errno != ENOENT)
		return error_set(error, errno, "cannot remove %s", name);
	return 0;
}

/* The name comes from a file: it must be that of a single configuration which this list can be made of. */
static bool is_original_of(const char *original, const char *list)
{
	cleanup_free char *name = conflist_file_name(original);
	return !strchr(original, '/') && strcmp(original, list) != 0 && name && strcmp(name, list) == 0;
}

int configuration_file_take_out(int directory, const struct runtime_file *file, const cJSON *json,
				const struct runtime_directory *files, struct error *error)
{
	cleanup_cjson cJSON *rest = NULL;
	cleanup_free char *original = NULL;
	const struct stat *expected = file->is_link ? NULL : &file->status;
	mode_t mode = file->status.st_mode & 07777;
	if (conflist_remove(json, error, &rest, &original) < 0)
		return -1;
	if (!rest)
		return configuration_file_remove(directory, file->name, &file->status, error);
	if (!original)
		return configuration_file_write(directory, file->name, rest, mode, expected, error);
	if (!is_original_of(original, file->name))
		return error_say(error, EINVAL, "%s remembers to have been \"%.64s\", which can't be: edit it by hand",
				 file->name, original);
	if (!runtime_directory_find(files, original) &&
	    configuration_file_write(directory, original, rest, mode, NULL, error) < 0)
		return -1;
	return configuration_file_remove(directory, file->name, &file->status, error);
}
