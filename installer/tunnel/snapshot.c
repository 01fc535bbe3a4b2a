/* The snapshot that a tunnel gets when it has connected: every pod of the mesh on this node, then an end. See server.h.
 *
 * A tunnel that becomes the newest again, since a newer one went, gets one more: Adds alone, of what went to the other one. */
#include <errno.h>
#include <stdlib.h>

#include "installer/tunnel/server_parts.h"

struct tunnel_snapshot {
	struct tunnel_server *server;
	struct connection *connection;
	struct entry_list entries;
	bool is_again; /* without Keeps and without an end */
};

/* An entry of a snapshot: a Keep where the namespace is not at hand or can't be kept at hand. */
static int new_entry(enum tunnel_request_kind kind, const char *uid, const struct tunnel_message *message, int netns,
		     struct error *error, struct entry **ret_entry)
{
	struct entry *entry = calloc(1, sizeof *entry);
	if (!entry)
		return error_set(error, ENOMEM, "cannot tell the tunnel of workload %.64s", uid);
	if (request_new(kind, uid, message, netns, error, &entry->request) < 0) {
		free(entry);
		return -1;
	}
	entry->request->entries = 1;
	entry->hash = request_hash(uid);
	*ret_entry = entry;
	return 0;
}

/* Tells of an Add of a snapshot that was never queued. */
static void tell_absent(struct tunnel_server *server, const char *uid, const struct error *error)
{
	struct request *request;
	struct tunnel_message none = { 0 };
	if (request_new(TUNNEL_SNAPSHOT_ADD, uid, &none, -1, NULL, &request) < 0)
		return;
	server->statistics.requests[TUNNEL_SNAPSHOT_ADD][TUNNEL_ABSENT]++;
	request_note_outcome(request, TUNNEL_ABSENT, error);
	server_finish(server, request);
}

int tunnel_snapshot_add(struct tunnel_snapshot *snapshot, const struct tunnel_workload *workload, struct error *error)
{
	struct tunnel_message message;
	struct entry *entry = NULL;
	if (snapshot->is_again && workload->netns < 0)
		return 0;
	if (snapshot->is_again && connection_is_deleting(snapshot->connection, workload->uid)) {
		/* It would come before the Delete that waits; whoever still wants it asks for it behind that one. */
		struct error problem = { 0 };
		error_say(&problem, EAGAIN, "a Delete of the workload is on its way");
		tell_absent(snapshot->server, workload->uid, &problem);
		return 0;
	}
	if (workload->netns >= 0) {
		struct error problem = { 0 };
		if (tunnel_encode_add(workload, error, &message) < 0)
			return -1;
		if (new_entry(TUNNEL_SNAPSHOT_ADD, workload->uid, &message, workload->netns, &problem, &entry) < 0) {
			tell_absent(snapshot->server, workload->uid, &problem);
			if (snapshot->is_again)
				return 0;
		}
	}
	bool is_add = entry != NULL;
	if (!is_add) {
		if (tunnel_encode_keep(workload->uid, error, &message) < 0 ||
		    new_entry(TUNNEL_KEEP, workload->uid, &message, -1, error, &entry) < 0)
			return -1;
	}
	/* An Add of the same workload that waits behind the snapshot would only repeat it. */
	if (is_add)
		connection_supersede(snapshot->connection, workload->uid, 1u << TUNNEL_ADD);
	TAILQ_INSERT_TAIL(&snapshot->entries, entry, link);
	return 0;
}

void server_ask_snapshot(struct tunnel_server *server, struct connection *connection)
{
	struct tunnel_snapshot snapshot = { .server = server,
					    .connection = connection,
					    .is_again = connection->wants_snapshot_again };
	TAILQ_INIT(&snapshot.entries);
	connection->wants_snapshot_again = false;
	server->listener.snapshot(server->listener.data, &snapshot);
	struct entry *end = NULL;
	struct error error = { 0 };
	if (!snapshot.is_again) {
		struct tunnel_message message;
		tunnel_encode_snapshot_sent(&message);
		if (new_entry(TUNNEL_SNAPSHOT_SENT, "", &message, -1, &error, &end) < 0)
			/* The tunnel dials again, and perhaps then there is memory. */
			connection_end(connection, TUNNEL_LOST, error.message);
		else
			TAILQ_INSERT_TAIL(&snapshot.entries, end, link);
	}
	if (connection->state == CONNECTION_ENDED) { /* the listener has closed it meanwhile */
		struct entry *entry;
		error = (struct error){ 0 };
		error_say(&error, ENOTCONN, "no tunnel connected: it went while its snapshot was made");
		while ((entry = TAILQ_FIRST(&snapshot.entries))) {
			TAILQ_REMOVE(&snapshot.entries, entry, link);
			server_settle(server, connection, entry, TUNNEL_ABSENT, &error);
		}
		return;
	}
	connection_queue_first(connection, &snapshot.entries);
	connection->state = CONNECTION_LIVE;
	connection_send(connection);
}
