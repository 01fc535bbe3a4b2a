/* inotify on a folder that may not exist yet. See watch.h. */
#include "installer/folder/watch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "ambient/cleanup.h"

/* IN_ATTRIB: a file that becomes readable. */
#define FOLDER_EVENTS                                                                                                          \
	(IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF |       \
	 IN_MOVE_SELF | IN_ONLYDIR)
#define ANCESTOR_EVENTS (IN_CREATE | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

/* How often directories may come and go while we look for the nearest one; the caller looks again soon anyway. */
#define TRIES 8

int folder_watch_open(struct error *error, struct folder_watch *ret_watch)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0)
		return error_set(error, errno, "cannot watch a folder%s",
				 errno == EMFILE ? " (see /proc/sys/fs/inotify/max_user_instances)" : "");
	*ret_watch = (struct folder_watch){ .fd = fd, .folder = -1, .ancestor = -1 };
	return 0;
}

void folder_watch_close(struct folder_watch *watch)
{
	if (watch->fd >= 0)
		close(watch->fd);
	*watch = (struct folder_watch){ .fd = -1, .folder = -1, .ancestor = -1 };
}

static void forget(struct folder_watch *watch, int *descriptor)
{
	if (*descriptor >= 0)
		inotify_rm_watch(watch->fd, *descriptor);
	*descriptor = -1;
}

/* The nearest directory above `path` that is there. */
static int watch_ancestor(struct folder_watch *watch, const char *path, struct error *error)
{
	cleanup_free char *above = strdup(path);
	if (!above)
		return error_set(error, ENOMEM, "cannot watch %s", path);
	for (size_t length = strlen(above); length > 1 && above[length - 1] == '/';)
		above[--length] = '\0';
	for (;;) {
		char *slash = strrchr(above, '/');
		const char *directory = !slash ? "." : slash == above ? "/" : above;
		if (slash)
			*slash = '\0';
		int descriptor = inotify_add_watch(watch->fd, directory, ANCESTOR_EVENTS);
		if (descriptor >= 0) {
			if (descriptor != watch->ancestor)
				forget(watch, &watch->ancestor);
			watch->ancestor = descriptor;
			return 0;
		}
		if ((errno != ENOENT && errno != ENOTDIR) || directory != above)
			return error_set(error, errno, "cannot watch %s", directory);
	}
}

int folder_watch_renew(struct folder_watch *watch, const char *path, const struct folder_watch_listener *listener,
		       struct error *error)
{
	/* Adding a watch that is there changes nothing and returns the same descriptor, which is never used again for another
	 * directory: that tells whether it is the same folder still. A watch on an ancestor may come a moment after the next
	 * directory was made; then there is a nearer one, and so on until it stays the same. */
	int before = -1;
	for (int try = 0; try < TRIES; try++) {
		int descriptor = inotify_add_watch(watch->fd, path, FOLDER_EVENTS);
		if (descriptor >= 0) {
			bool is_other = descriptor != watch->folder;
			if (is_other)
				forget(watch, &watch->folder);
			forget(watch, &watch->ancestor);
			watch->folder = descriptor;
			if (is_other)
				listener->everything(listener->data);
			return 0;
		}
		int number = errno;
		forget(watch, &watch->folder);
		if (number != ENOENT && number != ENOTDIR)
			return error_set(error, number, "cannot watch %s%s", path,
					 number == ENOSPC ? " (see /proc/sys/fs/inotify/max_user_watches)" : "");
		if (watch_ancestor(watch, path, error) < 0)
			return -1;
		if (watch->ancestor == before)
			return 0;
		before = watch->ancestor;
	}
	return 0;
}

void folder_watch_read(struct folder_watch *watch, const struct folder_watch_listener *listener)
{
	_Alignas(struct inotify_event) char buffer[16384];
	for (;;) {
		ssize_t length = read(watch->fd, buffer, sizeof buffer);
		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			return;
		for (const char *at = buffer; at < buffer + length;) {
			const struct inotify_event *event = (const void *)at;
			at += sizeof *event + event->len;
			if (event->mask & IN_Q_OVERFLOW)
				listener->everything(listener->data);
			else if (event->mask & IN_IGNORED && event->wd == watch->folder)
				watch->folder = -1;
			else if (event->mask & IN_IGNORED && event->wd == watch->ancestor)
				watch->ancestor = -1;
			else if (event->wd == watch->folder && event->len > 0)
				listener->file(listener->data, event->name, event->mask);
		}
	}
}
