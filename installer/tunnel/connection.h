/* One tunnel that is connected: its hello, its queue, the window of requests that are sent and not answered, its deadline.
 *
 * A connection that has ended stays allocated, without its socket, until the server frees it from the top of the event loop:
 * nobody on the stack holds a pointer to something freed. */
#ifndef AMBIENT_INSTALLER_TUNNEL_CONNECTION_H
#define AMBIENT_INSTALLER_TUNNEL_CONNECTION_H

#include <event2/event.h>

#include "installer/tunnel/request.h"

#define CONNECTION_BUCKETS 256

enum connection_state {
	CONNECTION_SILENT, /* no hello yet */
	CONNECTION_NEW,	   /* its snapshot is to be asked: everything waits behind it */
	CONNECTION_LIVE,
	CONNECTION_ENDED,
};

struct connection {
	TAILQ_ENTRY(connection) link; /* the server's, newest first */
	struct tunnel_server *server;
	enum connection_state state;
	int fd;
	pid_t pid;		   /* 0: the peer is in a pid namespace that we don't see */
	char name[32];		   /* for the log */
	bool wants_snapshot_again; /* became the newest again: it must learn what went to the other one */
	bool is_snapshot_accepted;
	bool was_newest;	  /* when it ended */
	bool was_reset, can_send; /* ECONNRESET was read; sending makes sense */
	struct entry_list waiting, unanswered;
	size_t waiting_count, unanswered_count;
	struct entry *buckets[CONNECTION_BUCKETS]; /* of those that wait, by uid */
	int64_t accepted, progress;		   /* ns, CLOCK_MONOTONIC: when it came; the previous answer */
	unsigned int retry_milliseconds;
	struct event *read_event, *write_event, *deadline_event, *retry_event;
};
TAILQ_HEAD(connection_list, connection);

/* Takes the socket over, also on failure. */
int connection_new(struct tunnel_server *server, struct event_base *base, int fd, pid_t pid, struct error *error,
		   struct connection **ret_connection);
void connection_free(struct connection *connection);

/* Puts a request at the end of the queue; connection_send sends what the window lets. */
int connection_queue(struct connection *connection, struct request *request, struct error *error);
void connection_send(struct connection *connection);

/* A snapshot goes before all that waits. `entries` is empty afterwards. */
void connection_queue_first(struct connection *connection, struct entry_list *entries);

/* Ends what waits for `uid` and is of one of the kinds (bits by 1 << kind): superseded. */
void connection_supersede(struct connection *connection, const char *uid, unsigned int kinds);

/* A Delete of `uid` is sent and not answered. */
bool connection_is_deleting(const struct connection *connection, const char *uid);

/* Closes the socket and ends every request in it. Those sent become `sent` with the reason. */
void connection_end(struct connection *connection, enum tunnel_outcome sent, const char *reason);

/* What the connection needs of its server. */
const struct tunnel_limits *server_limits(const struct tunnel_server *server);
const struct log *server_log(const struct tunnel_server *server);
uint8_t *server_receive_buffer(struct tunnel_server *server); /* TUNNEL_RECEIVE_MAX bytes */
struct tunnel_statistics *server_counters(struct tunnel_server *server);
void server_said_hello(struct tunnel_server *server, struct connection *connection);
/* The entry is out of the connection's queue and is freed; `connection` NULL: it was in none. */
void server_settle(struct tunnel_server *server, struct connection *connection, struct entry *entry,
		   enum tunnel_outcome outcome, const struct error *error);
/* Takes the connection off the list before its entries are settled; and what waits may go elsewhere. */
void server_connection_ended(struct tunnel_server *server, struct connection *connection, bool was_up);
bool server_move(struct tunnel_server *server, struct entry *entry);

#endif
