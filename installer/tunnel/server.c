/* The server that the node tunnel dials. See server.h.
 *
 * What the mesh is told is collected while sockets are read and requests made, and told from one place, tell(), at the top of
 * the event loop: so the listener may call whatever it likes, and nothing below it on the stack changes under its hands. */
#include "installer/tunnel/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "installer/tunnel/server_parts.h"
#include "installer/unix_listener.h"

const double tunnel_answer_bounds[TUNNEL_ANSWER_BUCKETS] = { 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5 };

const char *tunnel_request_kind_name(enum tunnel_request_kind kind)
{
	static const char *const names[] = { [TUNNEL_ADD] = "add",
					     [TUNNEL_DELETE] = "delete",
					     [TUNNEL_SNAPSHOT_ADD] = "snapshot-add",
					     [TUNNEL_KEEP] = "keep",
					     [TUNNEL_SNAPSHOT_SENT] = "snapshot-sent" };
	return names[kind];
}

const char *tunnel_outcome_name(enum tunnel_outcome outcome)
{
	static const char *const names[] = {
		[TUNNEL_ACCEPTED] = "accepted", [TUNNEL_REFUSED] = "refused", [TUNNEL_LOST] = "lost",
		[TUNNEL_LATE] = "late",		[TUNNEL_ABSENT] = "absent",   [TUNNEL_SUPERSEDED] = "superseded",
	};
	return names[outcome];
}

const struct tunnel_limits *server_limits(const struct tunnel_server *server)
{
	return &server->limits;
}

const struct log *server_log(const struct tunnel_server *server)
{
	return server->log;
}

uint8_t *server_receive_buffer(struct tunnel_server *server)
{
	return server->receive_buffer;
}

struct tunnel_statistics *server_counters(struct tunnel_server *server)
{
	return &server->statistics;
}

static bool is_up(const struct connection *connection)
{
	return connection->state == CONNECTION_NEW || connection->state == CONNECTION_LIVE;
}

static struct connection *newest(const struct tunnel_server *server)
{
	struct connection *connection;
	TAILQ_FOREACH(connection, &server->connections, link)
	if (is_up(connection))
		return connection;
	return NULL;
}

static void tell_soon(struct tunnel_server *server)
{
	static const struct timeval at_once = { 0 };
	if (!evtimer_pending(server->tell_event, NULL))
		event_add(server->tell_event, &at_once);
}

void server_finish(struct tunnel_server *server, struct request *request)
{
	if (request->entries > 0)
		return;
	if (!request->is_told) {
		request_free(request);
		return;
	}
	if (request->kind == TUNNEL_DELETE && request->outcome == TUNNEL_ABSENT)
		request->outcome = TUNNEL_ACCEPTED;
	if (request->netns >= 0)
		close(steal_fd(&request->netns));
	TAILQ_INSERT_TAIL(&server->outcomes, request, link);
	tell_soon(server);
}

void server_settle(struct tunnel_server *server, struct connection *connection, struct entry *entry,
		   enum tunnel_outcome outcome, const struct error *error)
{
	struct request *request = entry->request;
	server->statistics.requests[request->kind][outcome]++;
	if (request->kind == TUNNEL_SNAPSHOT_ADD && connection && connection != newest(server) && !connection->was_newest)
		request->is_told = false;
	request_note_outcome(request, outcome, error);
	request->entries--;
	free(entry);
	server_finish(server, request);
}

void server_said_hello(struct tunnel_server *server, struct connection *connection)
{
	log_write(server->log, LOG_LEVEL_INFO, NULL, "%s connected%s", connection->name,
		  server->is_ready ? "" : ": its snapshot waits until the pods of this node are known");
	server->are_connections_changed = true;
	tell_soon(server);
}

void server_connection_ended(struct tunnel_server *server, struct connection *connection, bool was_up)
{
	struct connection *other;
	TAILQ_REMOVE(&server->connections, connection, link);
	TAILQ_INSERT_TAIL(&server->ended, connection, link);
	/* It was the newest if every tunnel that is up is older. */
	other = newest(server);
	connection->was_newest = was_up && (!other || other->accepted <= connection->accepted);
	if (connection->was_newest && other && other->state == CONNECTION_LIVE)
		other->wants_snapshot_again = true;
	server->are_connections_changed |= was_up;
	tell_soon(server);
}

bool server_move(struct tunnel_server *server, struct entry *entry)
{
	struct connection *connection = newest(server);
	if (entry->request->kind != TUNNEL_ADD || !connection || connection_queue(connection, entry->request, NULL) < 0)
		return false;
	entry->request->entries--;
	free(entry);
	event_active(connection->write_event, EV_WRITE, 0);
	return true;
}

static void on_accepted(void *data, int fd, pid_t pid)
{
	struct tunnel_server *server = data;
	struct connection *connection;
	struct error error = { 0 };
	if (connection_new(server, server->base, fd, pid, &error, &connection) < 0) {
		log_write(server->log, LOG_LEVEL_ERROR, NULL, "%s", error.message);
		return;
	}
	server->statistics.connections_accepted++;
	TAILQ_INSERT_HEAD(&server->connections, connection, link);
}

static void on_superseded(void *data)
{
	struct tunnel_server *server = data;
	server->is_superseded = true;
	tell_soon(server);
}

static struct connection *wanting_snapshot(struct tunnel_server *server)
{
	struct connection *connection;
	TAILQ_FOREACH(connection, &server->connections, link)
	if (connection->state == CONNECTION_NEW || (connection->state == CONNECTION_LIVE && connection->wants_snapshot_again))
		return connection;
	return NULL;
}

static void free_ended(struct tunnel_server *server)
{
	struct connection *connection;
	while ((connection = TAILQ_FIRST(&server->ended))) {
		TAILQ_REMOVE(&server->ended, connection, link);
		connection_free(connection);
	}
}

static void tell_outcomes(struct tunnel_server *server)
{
	/* What comes meanwhile is told in the loop's next turn. */
	struct request_list batch = TAILQ_HEAD_INITIALIZER(batch);
	TAILQ_CONCAT(&batch, &server->outcomes, link);
	struct request *request;
	while ((request = TAILQ_FIRST(&batch))) {
		TAILQ_REMOVE(&batch, request, link);
		struct error error = { 0 };
		if (request->outcome != TUNNEL_ACCEPTED)
			error_say(&error, request->problem_number, "%s",
				  request->problem ? request->problem : tunnel_outcome_name(request->outcome));
		server->listener.answered(server->listener.data, request->kind, request->uid, request->outcome,
					  request->outcome == TUNNEL_ACCEPTED ? NULL : &error);
		request_free(request);
	}
}

static void tell(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct tunnel_server *server = data;
	free_ended(server);
	if (server->are_connections_changed) {
		server->are_connections_changed = false;
		server->listener.connections_changed(server->listener.data, tunnel_connections(server));
	}
	tell_outcomes(server);
	struct connection *connection;
	while (server->is_ready && (connection = wanting_snapshot(server)))
		server_ask_snapshot(server, connection);
	if (server->is_superseded && !server->was_told_superseded) {
		server->was_told_superseded = true;
		server->listener.superseded(server->listener.data);
	}
}

int tunnel_server_new(struct event_base *base, const char *path, const struct tunnel_listener *listener,
		      const struct tunnel_limits *limits, const struct log *log, struct error *error,
		      struct tunnel_server **ret_server)
{
	struct tunnel_server *server = calloc(1, sizeof *server);
	if (!server)
		return error_set(error, ENOMEM, "cannot serve the tunnel");
	server->base = base;
	server->log = log;
	server->listener = *listener;
	server->limits = limits ? *limits : (struct tunnel_limits)TUNNEL_LIMITS_DEFAULT;
	TAILQ_INIT(&server->connections);
	TAILQ_INIT(&server->ended);
	TAILQ_INIT(&server->outcomes);
	server->path = strdup(path);
	server->tell_event = evtimer_new(base, tell, server);
	if (!server->path || !server->tell_event) {
		tunnel_server_free(server);
		return error_set(error, ENOMEM, "cannot serve the tunnel");
	}
	const struct unix_listener_events events = { .accepted = on_accepted, .superseded = on_superseded, .data = server };
	const struct unix_listener_limits socket_limits = { .accepts_per_second = server->limits.accepts_per_second,
							    .absence_milliseconds = server->limits.absence_milliseconds };
	if (unix_listener_new(base, path, &events, &socket_limits, log, error, &server->socket) < 0) {
		tunnel_server_free(server);
		return error_wrap(error, "cannot serve the tunnel");
	}
	*ret_server = server;
	return 0;
}

void tunnel_server_set_ready(struct tunnel_server *server, bool is_ready)
{
	server->is_ready = is_ready;
	if (is_ready)
		tell_soon(server);
}

int tunnel_add(struct tunnel_server *server, const struct tunnel_workload *workload, struct error *error)
{
	struct tunnel_message message;
	struct request *request;
	if (workload->netns < 0)
		return error_say(error, EINVAL, "a workload without a network namespace can't be added");
	struct connection *connection = newest(server);
	if (tunnel_encode_add(workload, error, &message) < 0 ||
	    request_new(TUNNEL_ADD, workload->uid, &message, connection ? workload->netns : -1, error, &request) < 0)
		return -1;
	if (!connection) {
		struct error absent = { 0 };
		error_say(&absent, ENOTCONN,
			  "no tunnel connected: ztunnel dials %s once it has its first configuration from istiod",
			  server->path);
		server->statistics.requests[TUNNEL_ADD][TUNNEL_ABSENT]++;
		request_note_outcome(request, TUNNEL_ABSENT, &absent);
		server_finish(server, request);
		return 0;
	}
	connection_supersede(connection, workload->uid, 1u << TUNNEL_ADD | 1u << TUNNEL_DELETE);
	if (connection_queue(connection, request, error) < 0) {
		request_free(request);
		return -1;
	}
	connection_send(connection);
	return 0;
}

int tunnel_delete(struct tunnel_server *server, const char *uid, struct error *error)
{
	struct tunnel_message message;
	struct request *request;
	if (tunnel_encode_delete(uid, error, &message) < 0 ||
	    request_new(TUNNEL_DELETE, uid, &message, -1, error, &request) < 0)
		return -1;
	/* The caller's stake: the request is not finished before it stands everywhere. */
	request->entries++;
	struct connection *connection, *next;
	for (connection = TAILQ_FIRST(&server->connections); connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		if (!is_up(connection))
			continue;
		connection_supersede(connection, uid, 1u << TUNNEL_ADD | 1u << TUNNEL_SNAPSHOT_ADD | 1u << TUNNEL_KEEP);
		if (connection_queue(connection, request, error) < 0) {
			/* This tunnel would keep the workload for ever: it hears at its next snapshot. */
			connection_end(connection, TUNNEL_LOST, "out of memory");
			continue;
		}
		connection_send(connection);
	}
	request->entries--;
	server_finish(server, request);
	return 0;
}

size_t tunnel_connections(const struct tunnel_server *server)
{
	size_t count = 0;
	const struct connection *connection;
	TAILQ_FOREACH(connection, &server->connections, link)
	count += is_up(connection);
	return count;
}

bool tunnel_connection_state(const struct tunnel_server *server, size_t index, struct tunnel_connection_state *ret_state)
{
	const struct connection *connection;
	TAILQ_FOREACH(connection, &server->connections, link)
	{
		if (!is_up(connection) || index-- > 0)
			continue;
		*ret_state = (struct tunnel_connection_state){
			.pid = connection->pid,
			.is_snapshot_accepted = connection->is_snapshot_accepted,
			.waiting = connection->waiting_count,
			.unanswered = connection->unanswered_count,
			.seconds = (double)(clock_nanoseconds() - connection->accepted) / 1e9,
		};
		return true;
	}
	return false;
}

const struct tunnel_statistics *tunnel_server_statistics(struct tunnel_server *server)
{
	server->statistics.binds = unix_listener_binds(server->socket);
	server->statistics.connections_refused = unix_listener_refused(server->socket);
	return &server->statistics;
}

void tunnel_server_close_connections(struct tunnel_server *server)
{
	struct connection *connection;
	/* Oldest first: what waits in an older one would move to a newer one, and from the last nowhere. */
	while ((connection = TAILQ_LAST(&server->connections, connection_list)))
		connection_end(connection, TUNNEL_LOST, "we closed it");
}

void tunnel_server_free(struct tunnel_server *server)
{
	if (!server)
		return;
	if (server->socket)
		unix_listener_free(server->socket);
	tunnel_server_close_connections(server);
	free_ended(server);
	struct request *request;
	while ((request = TAILQ_FIRST(&server->outcomes))) {
		TAILQ_REMOVE(&server->outcomes, request, link);
		request_free(request);
	}
	if (server->tell_event)
		event_free(server->tell_event);
	free(server->path);
	free(server);
}
