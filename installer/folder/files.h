/* The files of a folder and what was read from each of them. Private to installer/folder/.
 *
 * A file is read again when its identity (inode, size, times) is another one or an event named it. Two things keep half
 * written files out: while somebody writes to one, it is read only when it is closed or has been quiet for a while; and one
 * that can't be read keeps the objects that it had. */
#ifndef AMBIENT_INSTALLER_FOLDER_FILES_H
#define AMBIENT_INSTALLER_FOLDER_FILES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "ambient/error.h"
#include "installer/folder/object.h"

struct folder_file {
	char *name;
	struct {
		dev_t device;
		ino_t inode;
		off_t size;
		struct timespec modified, changed;
	} identity;
	bool is_there;	 /* found by the scan that runs */
	bool is_deleted; /* an event said so; counts where the folder is gone too */
	bool is_dirty;
	bool has_been_read;
	int64_t writing_since, quiet_at; /* milliseconds; 0: nobody writes to it */
	char *trouble;			 /* NULL: none */
	struct folder_objects objects;
};

struct folder_files {
	char *path;
	char *node_name;
	struct folder_file *items; /* by name */
	size_t count;
	int64_t next_scan; /* milliseconds, when a file that is written to shall be looked at again; 0: none is */
};

int folder_files_init(const char *path, const char *node_name, struct error *error, struct folder_files *ret_files);
void folder_files_clear(struct folder_files *files);

/* Takes an event of inotify. `now` is of CLOCK_MONOTONIC, in milliseconds. */
void folder_files_changed(struct folder_files *files, const char *name, uint32_t mask, int64_t now);
/* Every file is to be read again. */
void folder_files_all_changed(struct folder_files *files);

/* Looks at the folder and reads what changed. A file's own trouble stays with the file; an error means that the folder as a
 * whole could not be looked at, and every file keeps what it has, but those that were deleted before. */
int folder_files_scan(struct folder_files *files, int64_t now, struct error *error);

#endif
