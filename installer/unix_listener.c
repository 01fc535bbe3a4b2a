/* A listening socket that stays at its path. See unix_listener.h. */
#include "installer/unix_listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/file.h"
#include "installer/socket_path.h"

/* How often the path is looked at without being told: what inotify misses (a directory that was moved away, or no inotify at
 * all because the user's instances are used up, as happens on real nodes) is found by this. */
static const struct timeval slow_look = { .tv_sec = 2 };

struct unix_listener {
	struct event_base *base;
	const struct log *log;
	struct unix_listener_events events;
	struct unix_listener_limits limits;
	char *path, *directory;

	int fd; /* -1: superseded */
	struct socket_file file;
	struct event *accept_event; /* readable: somebody has connected */
	struct event *refill_event; /* accepts may go on */
	unsigned int accepts_left;
	double accepts_counted_since; /* seconds, CLOCK_MONOTONIC */

	int inotify;
	struct event *inotify_event, *look_event, *bind_event;
	bool is_waiting_to_bind;
	uint64_t binds, refused;
};

static void accept_one(struct unix_listener *listener, int fd)
{
	struct ucred peer = { 0 };
	socklen_t length = sizeof peer;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
		log_write(listener->log, LOG_LEVEL_WARN, NULL,
			  "%s: a connection is closed: the kernel does not tell whose it is: %s", listener->path,
			  strerror(errno));
		close(fd);
		return;
	}
	if (peer.uid != 0) {
		listener->refused++;
		log_write(listener->log, LOG_LEVEL_WARN, NULL,
			  "%s: refused a connection of uid %u (pid %d): only root may talk here", listener->path, peer.uid,
			  (int)peer.pid);
		close(fd);
		return;
	}
	listener->events.accepted(listener->events.data, fd, peer.pid);
}

/* One accepted connection less is allowed in this second; with none left the listener sleeps, the kernel's queue keeps who
 * waits. */
static bool may_accept(struct unix_listener *listener)
{
	if (listener->limits.accepts_per_second == 0)
		return true;
	double now = clock_seconds(), wait = 1 - (now - listener->accepts_counted_since);
	if (wait <= 0) {
		listener->accepts_counted_since = now;
		listener->accepts_left = listener->limits.accepts_per_second;
	} else if (listener->accepts_left == 0) {
		struct timeval delay = { .tv_usec = (suseconds_t)(wait * 1e6) };
		event_del(listener->accept_event);
		event_add(listener->refill_event, &delay);
		return false;
	}
	listener->accepts_left--;
	return true;
}

static void on_connection(evutil_socket_t fd, short what, void *data)
{
	(void)what;
	struct unix_listener *listener = data;
	if (!may_accept(listener))
		return;
	int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (connection >= 0) {
		accept_one(listener, connection);
		return;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return;
	/* Out of descriptors or memory: a loop that is told at once again would be busy. */
	log_write(listener->log, LOG_LEVEL_ERROR, NULL, "%s: cannot accept a connection: %s", listener->path, strerror(errno));
	struct timeval delay = { .tv_sec = 1 };
	event_del(listener->accept_event);
	event_add(listener->refill_event, &delay);
}

static void on_refill(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct unix_listener *listener = data;
	if (listener->accept_event)
		event_add(listener->accept_event, NULL);
}

static void stop_accepting(struct unix_listener *listener)
{
	if (listener->accept_event)
		event_free(listener->accept_event);
	listener->accept_event = NULL;
	event_del(listener->refill_event);
	if (listener->fd >= 0)
		close(listener->fd);
	listener->fd = -1;
}

/* Puts a socket at the path, in place of ours if there is one. */
static int bind_path(struct unix_listener *listener, bool replace, struct error *error)
{
	cleanup_close int fd = -1;
	struct socket_file file;
	if (file_make_directory(listener->directory, error) < 0 ||
	    socket_path_bind(listener->path, SOCK_SEQPACKET, replace, error, &file, &fd) < 0)
		return error_wrap(error, "cannot listen at %s", listener->path);
	struct event *accept_event = event_new(listener->base, fd, EV_READ | EV_PERSIST, on_connection, listener);
	if (!accept_event || event_add(accept_event, NULL) < 0) {
		if (accept_event)
			event_free(accept_event);
		unlink(listener->path);
		return error_set(error, ENOMEM, "cannot listen at %s", listener->path);
	}
	/* Who connected to the socket that was unlinked is still our guest. */
	if (listener->fd >= 0) {
		int connection;
		while ((connection = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
			accept_one(listener, connection);
		stop_accepting(listener);
	}
	listener->fd = steal_fd(&fd);
	listener->accept_event = accept_event;
	listener->file = file;
	listener->binds++;
	return 0;
}

/* A watch of the directory that the path is in now: after it was removed and made again it is another one. */
static void watch_directory(struct unix_listener *listener)
{
	if (listener->inotify >= 0)
		inotify_add_watch(listener->inotify, listener->directory,
				  IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF |
					  IN_ONLYDIR);
}

static enum socket_path_state look_at_path(const struct unix_listener *listener)
{
	return socket_path_look(listener->path, &listener->file);
}

static void look(struct unix_listener *listener)
{
	if (listener->fd < 0)
		return;
	switch (look_at_path(listener)) {
	case SOCKET_PATH_OURS:
	case SOCKET_PATH_UNKNOWN:
		break;
	case SOCKET_PATH_FOREIGN_SOCKET:
		log_write(listener->log, LOG_LEVEL_INFO, NULL, "%s: somebody else listens there now", listener->path);
		stop_accepting(listener);
		event_del(listener->look_event);
		event_del(listener->bind_event);
		if (listener->inotify_event)
			event_del(listener->inotify_event);
		listener->events.superseded(listener->events.data);
		break;
	case SOCKET_PATH_GONE:
	case SOCKET_PATH_OTHER:
		if (!listener->is_waiting_to_bind) {
			struct timeval delay = clock_span(listener->limits.absence_milliseconds);
			listener->is_waiting_to_bind = event_add(listener->bind_event, &delay) == 0;
		}
		break;
	}
}

static void on_bind_again(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct unix_listener *listener = data;
	listener->is_waiting_to_bind = false;
	enum socket_path_state state = look_at_path(listener);
	if (state == SOCKET_PATH_GONE || state == SOCKET_PATH_OTHER) {
		struct error error = { 0 };
		if (bind_path(listener, state == SOCKET_PATH_OTHER, &error) == 0)
			log_write(listener->log, LOG_LEVEL_WARN, NULL, "%s was %s by somebody else: bound again",
				  listener->path, state == SOCKET_PATH_GONE ? "removed" : "replaced");
		else if (error.number != EEXIST)
			log_write(listener->log, LOG_LEVEL_ERROR, NULL, "%s; tried again every %d s", error.message,
				  (int)slow_look.tv_sec);
		watch_directory(listener);
	}
	look(listener);
}

static void on_slow_look(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	look(data);
}

static void on_inotify(evutil_socket_t fd, short what, void *data)
{
	(void)what;
	/* What happened is of no interest: the path is looked at. */
	char buffer[4096];
	while (read(fd, buffer, sizeof buffer) > 0)
		;
	look(data);
}

static void start_watching(struct unix_listener *listener)
{
	listener->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (listener->inotify >= 0)
		listener->inotify_event =
			event_new(listener->base, listener->inotify, EV_READ | EV_PERSIST, on_inotify, listener);
	if (!listener->inotify_event || event_add(listener->inotify_event, NULL) < 0)
		log_write(listener->log, LOG_LEVEL_WARN, NULL, "%s: no inotify (%s): it is looked at every %d s instead",
			  listener->path, strerror(errno), (int)slow_look.tv_sec);
	watch_directory(listener);
}

int unix_listener_new(struct event_base *base, const char *path, const struct unix_listener_events *events,
		      const struct unix_listener_limits *limits, const struct log *log, struct error *error,
		      struct unix_listener **ret_listener)
{
	const char *slash = strrchr(path, '/');
	if (path[0] != '/' || slash[1] == '\0')
		return error_say(error, EINVAL, "cannot listen at \"%s\": expected the absolute path of a socket", path);
	struct unix_listener *listener = calloc(1, sizeof *listener);
	if (!listener)
		return error_set(error, ENOMEM, "cannot listen at %s", path);
	listener->base = base;
	listener->log = log;
	listener->events = *events;
	listener->limits = *limits;
	listener->fd = listener->inotify = -1;
	listener->path = strdup(path);
	listener->directory = slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	listener->refill_event = evtimer_new(base, on_refill, listener);
	listener->bind_event = evtimer_new(base, on_bind_again, listener);
	listener->look_event = event_new(base, -1, EV_PERSIST, on_slow_look, listener);
	if (!listener->path || !listener->directory || !listener->refill_event || !listener->bind_event ||
	    !listener->look_event || event_add(listener->look_event, &slow_look) < 0) {
		unix_listener_free(listener);
		return error_set(error, ENOMEM, "cannot listen at %s", path);
	}
	if (bind_path(listener, true, error) < 0) {
		unix_listener_free(listener);
		return -1;
	}
	start_watching(listener);
	*ret_listener = listener;
	return 0;
}

void unix_listener_free(struct unix_listener *listener)
{
	if (!listener)
		return;
	if (listener->fd >= 0 && look_at_path(listener) == SOCKET_PATH_OURS)
		unlink(listener->path);
	if (listener->refill_event)
		stop_accepting(listener);
	struct event *events[] = { listener->refill_event, listener->bind_event, listener->look_event,
				   listener->inotify_event };
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++)
		if (events[i])
			event_free(events[i]);
	if (listener->inotify >= 0)
		close(listener->inotify);
	free(listener->path);
	free(listener->directory);
	free(listener);
}

uint64_t unix_listener_binds(const struct unix_listener *listener)
{
	return listener->binds;
}

uint64_t unix_listener_refused(const struct unix_listener *listener)
{
	return listener->refused;
}
