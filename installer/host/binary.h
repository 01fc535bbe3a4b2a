/* The plugin in the runtime's binary directory.
 *
 * It is copied to a temporary file in the same directory, synced, tried (run with CNI_COMMAND=VERSION, the one program that we
 * ever execute), and renamed over the old one. A runtime that executes the old one at that moment goes on with it. */
#ifndef AMBIENT_INSTALLER_HOST_BINARY_H
#define AMBIENT_INSTALLER_HOST_BINARY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "ambient/error.h"

/* What a look remembers, so that the next one need not read two megabytes when nothing changed. Zeroed at first. */
struct binary_seen {
	bool is_good;
	struct stat source, target;
};

/* Makes `bin_dir`/ambient-cni a copy of `bin_source`/ambient-cni, mode 0755. Writes only when the content differs; a mode that
 * is wrong is put right. The security context is that of the file that is replaced, else of a neighbour; else the directory
 * decides. Where the directory can't be written, a plugin of the same version that stands there is accepted as it is.
 * ENOENT: the directory is not there (yet). */
int binary_install(const char *bin_source, const char *bin_dir, struct binary_seen *seen, struct error *error,
		   bool *ret_written);

/* Absent is no error. */
int binary_remove(const char *bin_dir, struct error *error, bool *ret_removed);

/* Runs `path` with CNI_COMMAND=VERSION, for five seconds at most, and fails unless it answers as a plugin of version 1.0.0
 * does. */
int binary_try(const char *path, struct error *error);

/* The version that the plugin at `path` was built as ("1.2.3"); an error where it is another program. */
int binary_version(const char *path, struct error *error, char *ret_version, size_t size);

/* Whether a result cached in `results_dir` names the plugin `type` (libcni caches the list that made it). A directory that is
 * not there holds none if its parent is; else ENOENT. A file that can't be understood names everybody. */
int binary_is_needed(const char *results_dir, const char *type, struct error *error, bool *ret_needed);

#endif
