/* HTTP servers with bounds. See listen.h.
 *
 * evhttp does not tell how many connections it has nor when one ends, as long as no request has come. So each connection's
 * descriptor is noted with its socket's inode when it has been accepted, and as long as the descriptor leads to that socket,
 * the connection is open. */
#include "installer/observe/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "installer/socket_path.h"

#define VISITORS_MAX 32
#define VISITOR_SECONDS 10
#define BACKLOG 32
#define HEADERS_LIMIT 16384
#define BODY_LIMIT 4096

struct visitor {
	int fd;
	ino_t inode; /* of the socket; 0: nobody */
	double since;
	struct bufferevent *arriving; /* accepted a moment ago, and its descriptor is not noted yet: a reference of our own */
};

struct http_listener {
	struct event_base *base;
	const struct listen_address *address; /* NULL: a path */
	const char *what;
	const struct log *log;
	struct evhttp *http;
	struct evconnlistener *accepting; /* owned by http; NULL: not yet */
	struct evhttp_bound_socket *bound;
	struct event *again; /* the address was in use */
	http_answer answer;
	void *data;
	struct visitor visitors[VISITORS_MAX];
	struct event *arrived, *sweep;

	char *path;
	struct socket_file file; /* of the socket at `path` */
	struct event *look;	 /* whether it is still there */
	bool failed_to_return;	 /* and was told */
};

static const struct timeval look_interval = { .tv_sec = 2 };

static bool is_somebody(const struct visitor *visitor)
{
	return visitor->inode != 0 || visitor->arriving;
}

static bool is_open(const struct visitor *visitor)
{
	struct stat status;
	return visitor->arriving || (visitor->inode != 0 && fstat(visitor->fd, &status) == 0 && S_ISSOCK(status.st_mode) &&
				     status.st_ino == visitor->inode);
}

/* evhttp sees the end of the connection, and frees it. */
static void show_out(struct visitor *visitor)
{
	if (visitor->arriving) {
		shutdown(bufferevent_getfd(visitor->arriving), SHUT_RDWR);
		bufferevent_decref(visitor->arriving);
	} else if (is_open(visitor)) {
		shutdown(visitor->fd, SHUT_RDWR);
	}
	*visitor = (struct visitor){ 0 };
}

static void note_arrivals(evutil_socket_t fd, short what, void *data)
{
	struct http_listener *listener = data;
	(void)fd;
	(void)what;
	for (size_t i = 0; i < VISITORS_MAX; i++) {
		struct visitor *visitor = &listener->visitors[i];
		struct stat status;
		if (!visitor->arriving)
			continue;
		visitor->fd = bufferevent_getfd(visitor->arriving);
		visitor->inode = fstat(visitor->fd, &status) == 0 ? status.st_ino : 0;
		bufferevent_decref(steal_pointer(visitor->arriving));
	}
	evconnlistener_enable(listener->accepting);
}

static void sweep(evutil_socket_t fd, short what, void *data)
{
	struct http_listener *listener = data;
	const struct timeval second = { .tv_sec = 1 };
	bool is_any_left = false;
	(void)fd;
	(void)what;
	for (size_t i = 0; i < VISITORS_MAX; i++) {
		struct visitor *visitor = &listener->visitors[i];
		if (!is_somebody(visitor))
			continue;
		if (!is_open(visitor))
			*visitor = (struct visitor){ 0 };
		else if (clock_seconds() - visitor->since >= VISITOR_SECONDS)
			show_out(visitor);
		is_any_left |= is_somebody(visitor);
	}
	if (is_any_left)
		evtimer_add(listener->sweep, &second);
}

/* A free place; the longest-standing visitor leaves for it where there is none. */
static struct visitor *make_place(struct http_listener *listener)
{
	struct visitor *oldest = &listener->visitors[0];
	for (size_t i = 0; i < VISITORS_MAX; i++) {
		struct visitor *visitor = &listener->visitors[i];
		if (!is_open(visitor)) {
			*visitor = (struct visitor){ 0 };
			return visitor;
		}
		if (visitor->since < oldest->since)
			oldest = visitor;
	}
	/* Whoever else waits is accepted when this one has really gone. */
	evconnlistener_disable(listener->accepting);
	show_out(oldest);
	return oldest;
}

static struct bufferevent *receive_visitor(struct event_base *base, void *data)
{
	struct http_listener *listener = data;
	const struct timeval at_once = { 0 }, second = { .tv_sec = 1 };
	struct bufferevent *bufferevent = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
	if (!bufferevent)
		return NULL;
	bufferevent_incref(bufferevent);
	*make_place(listener) = (struct visitor){ .since = clock_seconds(), .arriving = bufferevent };
	evtimer_add(listener->arrived, &at_once);
	if (!evtimer_pending(listener->sweep, NULL))
		evtimer_add(listener->sweep, &second);
	return bufferevent;
}

/* The mode of the socket's file keeps others out; this does so for a descriptor that somebody handed on. */
static bool is_root(struct evhttp_request *request)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	socklen_t length = sizeof peer;
	struct bufferevent *bufferevent = evhttp_connection_get_bufferevent(evhttp_request_get_connection(request));
	return getsockopt(bufferevent_getfd(bufferevent), SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == 0;
}

static void requested(struct evhttp_request *request, void *data)
{
	struct http_listener *listener = data;
	evhttp_add_header(evhttp_request_get_output_headers(request), "Connection", "close");
	if (listener->path && !is_root(request))
		evhttp_send_error(request, 403, "only root may ask here");
	else
		listener->answer(request, listener->data);
}

static int make_server(struct http_listener *listener, struct error *error)
{
	listener->http = evhttp_new(listener->base);
	listener->arrived = evtimer_new(listener->base, note_arrivals, listener);
	listener->sweep = evtimer_new(listener->base, sweep, listener);
	if (!listener->http || !listener->arrived || !listener->sweep)
		return error_set(error, ENOMEM, "cannot serve HTTP");
	evhttp_set_max_headers_size(listener->http, HEADERS_LIMIT);
	evhttp_set_max_body_size(listener->http, BODY_LIMIT);
	evhttp_set_timeout(listener->http, VISITOR_SECONDS);
	/* All of them, so that the answer to a wrong one is ours. */
	evhttp_set_allowed_methods(listener->http, EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |
							   EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
	evhttp_set_bevcb(listener->http, receive_visitor, listener);
	evhttp_set_gencb(listener->http, requested, listener);
	return 0;
}

/* Takes the socket. */
static int serve(struct http_listener *listener, int fd, struct error *error)
{
	struct evconnlistener *accepting =
		evconnlistener_new(listener->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, BACKLOG, fd);
	if (!accepting) {
		int number = errno;
		close(fd);
		return error_set(error, number, "cannot listen");
	}
	struct evhttp_bound_socket *bound = evhttp_bind_listener(listener->http, accepting);
	if (!bound) {
		evconnlistener_free(accepting);
		return error_set(error, ENOMEM, "cannot serve HTTP");
	}
	/* libevent says nothing when it can't wait for the socket: a second time costs nothing, and does. */
	if (evconnlistener_enable(accepting) < 0) {
		evhttp_del_accept_socket(listener->http, bound);
		return error_set(error, ENOSPC, "cannot wait for connections (see /proc/sys/fs/epoll/max_user_watches)");
	}
	if (listener->bound)
		evhttp_del_accept_socket(listener->http, listener->bound);
	listener->bound = bound;
	listener->accepting = accepting;
	return 0;
}

/* Without an address of its own it listens on all of both families, where the kernel has both. */
static int bind_address(const struct listen_address *address, struct error *error, int *ret_fd)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(address->port), .sin6_addr = in6addr_any };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(address->port) };
	bool is_six = address->host[0] == '\0' || inet_pton(AF_INET6, address->host, &six.sin6_addr) == 1;
	if (!is_six && inet_pton(AF_INET, address->host, &four.sin_addr) != 1)
		return error_set(error, EINVAL, "\"%s\" is no address", address->host);
	cleanup_close int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0 && is_six && address->host[0] == '\0') {
		is_six = false;
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	}
	if (fd < 0)
		return error_set(error, errno, "cannot open a socket");
	const int on = 1, off = 0;
	const struct sockaddr *where = is_six ? (const struct sockaddr *)&six : (const struct sockaddr *)&four;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    (is_six && address->host[0] == '\0' && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0))
		return error_set(error, errno, "cannot prepare a socket");
	if (bind(fd, where, is_six ? sizeof six : sizeof four) < 0 || listen(fd, BACKLOG) < 0)
		return error_set(error, errno, "cannot listen");
	*ret_fd = steal_fd(&fd);
	return 0;
}

static void try_again(struct http_listener *listener)
{
	const struct timeval second = { .tv_sec = 1 };
	evtimer_add(listener->again, &second);
}

static void listen_again(evutil_socket_t fd, short what, void *data)
{
	struct http_listener *listener = data;
	struct error error = { 0 };
	(void)fd;
	(void)what;
	int listening = -1;
	if (bind_address(listener->address, &error, &listening) == 0 && serve(listener, listening, &error) == 0)
		log_write(listener->log, LOG_LEVEL_INFO, NULL, "listen.%s: %s is free now and is listened at", listener->what,
			  listener->address->text);
	else
		try_again(listener);
}

static struct http_listener *listener_new(struct event_base *base, const struct log *log, http_answer answer, void *data)
{
	struct http_listener *listener = calloc(1, sizeof *listener);
	if (!listener)
		return NULL;
	listener->base = base;
	listener->log = log;
	listener->answer = answer;
	listener->data = data;
	return listener;
}

int http_listener_new(struct event_base *base, const struct listen_address *address, const char *what, const struct log *log,
		      http_answer answer, void *data, struct error *error, struct http_listener **ret_listener)
{
	struct http_listener *listener = listener_new(base, log, answer, data);
	int fd = -1;
	if (!listener)
		return error_set(error, ENOMEM, "listen.%s", what);
	listener->address = address;
	listener->what = what;
	listener->again = evtimer_new(base, listen_again, listener);
	if (!listener->again) {
		error_set(error, ENOMEM, "cannot make a timer");
	} else if (make_server(listener, error) == 0) {
		struct error failure = { 0 };
		if (bind_address(address, &failure, &fd) == 0 && serve(listener, fd, &failure) == 0) {
			*ret_listener = listener;
			return 0;
		}
		if (failure.number == EADDRINUSE) {
			log_write(log, LOG_LEVEL_WARN, NULL,
				  "listen.%s: %s is in use by somebody else, it is tried again every second", what,
				  address->text);
			try_again(listener);
			*ret_listener = listener;
			return 0;
		}
		if (error)
			*error = failure;
	}
	http_listener_free(listener);
	return error_wrap(error, "listen.%s: %s", what, address->text);
}

static int bind_path(struct http_listener *listener, bool replace, struct error *error, int *ret_fd)
{
	return socket_path_bind(listener->path, SOCK_STREAM, replace, error, &listener->file, ret_fd);
}

static enum socket_path_state look_at_path(const struct http_listener *listener)
{
	return socket_path_look(listener->path, &listener->file);
}

/* As unix_listener.h has it for plugins: gone, or something else in its place, and it is made again; another socket is a
 * successor's, and the path is not ours any more. */
static void look(evutil_socket_t fd, short what, void *data)
{
	struct http_listener *listener = data;
	struct error error = { 0 };
	enum socket_path_state state = look_at_path(listener);
	int listening = -1;
	(void)fd;
	(void)what;
	if (state == SOCKET_PATH_FOREIGN_SOCKET)
		event_del(listener->look);
	if (state != SOCKET_PATH_GONE && state != SOCKET_PATH_OTHER)
		return;
	if (bind_path(listener, state == SOCKET_PATH_OTHER, &error, &listening) == 0 &&
	    serve(listener, listening, &error) == 0) {
		log_write(listener->log, LOG_LEVEL_WARN, NULL, "%s was %s by somebody else: it is listened at again",
			  listener->path, state == SOCKET_PATH_GONE ? "removed" : "replaced");
		listener->failed_to_return = false;
	} else if (error.number != EEXIST && !listener->failed_to_return) {
		log_write(listener->log, LOG_LEVEL_ERROR, NULL, "%s is gone: %s; tried again every %d s", listener->path,
			  error.message, (int)look_interval.tv_sec);
		listener->failed_to_return = true;
	}
}

int http_listener_new_unix(struct event_base *base, const char *path, const struct log *log, http_answer answer, void *data,
			   struct error *error, struct http_listener **ret_listener)
{
	struct http_listener *listener = listener_new(base, log, answer, data);
	int fd = -1;
	if (!listener)
		return error_set(error, ENOMEM, "cannot listen at %s", path);
	listener->path = strdup(path);
	listener->look = event_new(base, -1, EV_PERSIST, look, listener);
	if (!listener->path || !listener->look || event_add(listener->look, &look_interval) < 0)
		error_set(error, ENOMEM, "cannot keep the path");
	else if (make_server(listener, error) == 0 && bind_path(listener, true, error, &fd) == 0 &&
		 serve(listener, fd, error) == 0) {
		*ret_listener = listener;
		return 0;
	}
	http_listener_free(listener);
	return error_wrap(error, "%s", path);
}

void http_listener_free(struct http_listener *listener)
{
	if (!listener)
		return;
	if (listener->file.inode != 0 && look_at_path(listener) == SOCKET_PATH_OURS)
		unlink(listener->path);
	for (size_t i = 0; i < VISITORS_MAX; i++) {
		if (listener->visitors[i].arriving)
			bufferevent_decref(listener->visitors[i].arriving);
	}
	if (listener->http)
		evhttp_free(listener->http);
	struct event *events[] = { listener->again, listener->arrived, listener->sweep, listener->look };
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
		if (events[i])
			event_free(events[i]);
	}
	free(listener->path);
	free(listener);
}
