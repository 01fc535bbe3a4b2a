/* inotify on a folder that may not exist yet, may go, and may be made again: while it is missing, its nearest ancestor is
 * watched. Private to installer/folder/. */
#ifndef AMBIENT_INSTALLER_FOLDER_WATCH_H
#define AMBIENT_INSTALLER_FOLDER_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "ambient/error.h"

struct folder_watch {
	int fd;		      /* readable: something happened */
	int folder, ancestor; /* watches, -1: none */
};

struct folder_watch_listener {
	/* A file of the folder; `mask` as in inotify(7). */
	void (*file)(void *data, const char *name, uint32_t mask);
	/* Events were lost, or the folder is another one: anything may have changed. */
	void (*everything)(void *data);
	void *data;
};

int folder_watch_open(struct error *error, struct folder_watch *ret_watch);
void folder_watch_close(struct folder_watch *watch);

/* Watches the folder, or where it would appear. To be called before each look into it: what happens after that is an event.
 * A folder that is missing is no error. */
int folder_watch_renew(struct folder_watch *watch, const char *path, const struct folder_watch_listener *listener,
		       struct error *error);

/* Reads what happened, without waiting. */
void folder_watch_read(struct folder_watch *watch, const struct folder_watch_listener *listener);

#endif
