/* Small files, read whole and written so that nothing is lost: a reader sees the old content or the new, and a full disk or a
 * crash keeps the old. */
#ifndef AMBIENT_FILE_H
#define AMBIENT_FILE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "ambient/error.h"

/* Reads a regular file of at most `limit` bytes: a missing one is ENOENT, a larger one EFBIG, what is no file EINVAL. The text
 * is malloc'ed and ends with a NUL that is not counted. */
int file_read(const char *path, size_t limit, struct error *error, char **ret_text, size_t *ret_length);

/* Writes a temporary file beside `path` (its name ends with .new, which no runtime loads), fsyncs and renames it. */
int file_write(const char *path, const char *text, size_t length, mode_t mode, struct error *error);

/* Whether a name in `directory` is what a writer left that was killed: NAME.PID.new, as file_write and others here call what
 * stands aside, and not written to for ten minutes. A pid would say nothing: the plugin's are of the host, the agent's may be
 * of another pid namespace. */
bool file_is_abandoned(int directory, const char *name);

/* A stream of the names in a directory that is open already, whose descriptor stays the caller's. NULL: errno says why. */
DIR *file_list_directory(int directory);

/* Makes a directory of mode 0700 and its parents of mode 0755 where they are missing. */
int file_make_directory(const char *path, struct error *error);

/* "DIRECTORY/NAME" as a new string. */
int file_join(const char *directory, const char *name, struct error *error, char **ret_path);

#endif
