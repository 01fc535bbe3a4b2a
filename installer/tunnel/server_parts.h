/* What the parts of the server share. Private to installer/tunnel/server.c and snapshot.c. */
#ifndef AMBIENT_INSTALLER_TUNNEL_SERVER_PARTS_H
#define AMBIENT_INSTALLER_TUNNEL_SERVER_PARTS_H

#include <event2/event.h>

#include "installer/tunnel/connection.h"
#include "installer/tunnel/server.h"

struct tunnel_server {
	struct event_base *base;
	const struct log *log;
	char *path;
	struct tunnel_listener listener;
	struct tunnel_limits limits;
	struct unix_listener *socket;

	struct connection_list connections; /* newest first, those that said no hello included */
	struct connection_list ended;	    /* to be freed by tell() */
	bool is_ready;
	bool is_superseded, was_told_superseded;
	bool are_connections_changed; /* and the listener was not told: one may have taken another's place */
	struct request_list outcomes; /* to be told */
	struct event *tell_event;
	struct tunnel_statistics statistics;
	uint8_t receive_buffer[TUNNEL_RECEIVE_MAX];
};

/* The last place where the request stood is gone: its outcome is told, if nothing else is left of it. */
void server_finish(struct tunnel_server *server, struct request *request);

/* snapshot.c. Asks the listener for the pods, and puts what it says before all that waits. */
void server_ask_snapshot(struct tunnel_server *server, struct connection *connection);

#endif
