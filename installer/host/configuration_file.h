/* Single configuration files: written, removed, and taken back to what they were. Names are relative to an open directory. */
#ifndef AMBIENT_INSTALLER_HOST_CONFIGURATION_FILE_H
#define AMBIENT_INSTALLER_HOST_CONFIGURATION_FILE_H

#include <cjson/cJSON.h>
#include <sys/stat.h>

#include "ambient/error.h"
#include "installer/host/runtime_order.h"

/* `expected`: see replacement_commit. */
int configuration_file_write(int directory, const char *name, const cJSON *json, mode_t mode, const struct stat *expected,
			     struct error *error);

/* Removes the file if it is still that one; where somebody wrote it meanwhile it stays (EAGAIN). Absent is no error. */
int configuration_file_remove(int directory, const char *name, const struct stat *expected, struct error *error);

/* Takes us out of a file whose content is `json`: what is left of a list is written back; a .conf or .json that became this
 * list is written again and the list removed, unless its owner wrote it anew (`files`); a file of ours alone is removed. */
int configuration_file_take_out(int directory, const struct runtime_file *file, const cJSON *json,
				const struct runtime_directory *files, struct error *error);

#endif
