/* The server that the node tunnel (ztunnel) dials: ZDS, as zds.proto says. It knows what was asked of it and nothing of
 * the mesh, which it asks for a snapshot whenever a tunnel has come.
 *
 * A connection begins with the tunnel's hello; then the snapshot goes out, then SnapshotSent, then what changed meanwhile and
 * from then on. Adds go to the newest connection, Deletes to all. The server never tries anything again: whoever asked hears
 * the outcome and decides.
 *
 * Everything is told from the event loop, never from inside a function below. A listener may call every function below, but
 * tunnel_server_free. */
#ifndef AMBIENT_INSTALLER_TUNNEL_SERVER_H
#define AMBIENT_INSTALLER_TUNNEL_SERVER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ambient/error.h"
#include "ambient/log.h"

struct tunnel_server;
struct tunnel_snapshot;

/* A pod as the tunnel knows it. The names must be those that the control plane knows of the pod: with others the tunnel accepts
 * the pod and drops its traffic. All is borrowed for the call: the descriptor is duplicated as long as it is needed. */
struct tunnel_workload {
	const char *uid, *name, *namespace_name, *service_account;
	int netns; /* the pod's network namespace; -1 (in a snapshot only): it belongs, and we don't hold its namespace (yet) */
};

enum tunnel_request_kind {
	TUNNEL_ADD,	     /* tunnel_add */
	TUNNEL_DELETE,	     /* tunnel_delete */
	TUNNEL_SNAPSHOT_ADD, /* an Add of a snapshot */
	TUNNEL_KEEP,	     /* a Keep of a snapshot: never told, only counted */
	TUNNEL_SNAPSHOT_SENT /* the end of a snapshot: never told, only counted */
};
#define TUNNEL_REQUEST_KINDS 5

enum tunnel_outcome {
	TUNNEL_ACCEPTED,
	TUNNEL_REFUSED, /* the tunnel's answer is an error; it stays connected and tries an Add again by itself, telling nobody:
			   ask again to learn of a success, or delete when giving up, since until then it is not ready */
	TUNNEL_LOST,	/* sent, and the connection ended before the answer: no answer. The next snapshot is asked soon */
	TUNNEL_LATE,	/* sent, and not answered in time; the connection was closed: no answer either */
	TUNNEL_ABSENT,	/* not sent: no tunnel is connected (a Delete succeeds then) */
	TUNNEL_SUPERSEDED, /* not sent: a later request for the same uid made it pointless */
};
#define TUNNEL_OUTCOMES 6

/* For metrics and messages: "add", "delete", "snapshot-add", ...; "accepted", "refused", ... */
const char *tunnel_request_kind_name(enum tunnel_request_kind kind);
const char *tunnel_outcome_name(enum tunnel_outcome outcome);

struct tunnel_listener {
	/* The state of the node is wanted now: call tunnel_snapshot_add for every pod that is enrolled, enrolling or releasing,
	 * and nothing else with `snapshot`, which is gone when this returns. The server sends SnapshotSent behind the last: the
	 * tunnel stops what was not named. Asked once for every connection that said hello, not before
	 * tunnel_server_set_ready(true); and once more, without SnapshotSent, of an older connection when the newest one went
	 * and it must learn what it missed. */
	void (*snapshot)(void *data, struct tunnel_snapshot *snapshot);

	/* The outcome of one request: exactly once for each tunnel_add and tunnel_delete that returned 0. A Delete goes to all
	 * connections: refused when one refused it, else accepted when one accepted it or none was there, else what became of
	 * it (a tunnel that is lost keeps the pod's listeners and hears at its next snapshot). Adds of a snapshot are told once
	 * too, as long as their connection is the newest (what an older one says of its snapshot is only counted). `error` is
	 * filled for every outcome but TUNNEL_ACCEPTED (NULL). */
	void (*answered)(void *data, enum tunnel_request_kind kind, const char *uid, enum tunnel_outcome outcome,
			 const struct error *error);

	/* How many tunnels are connected and said hello, whenever that changes; told before the answers that were lost. */
	void (*connections_changed)(void *data, size_t count);

	/* Somebody else has bound a socket at our path: a successor during an upgrade. Told once; from then on the server
	 * accepts nobody. Stop reconciling, then call tunnel_server_close_connections: the tunnels dial the successor. */
	void (*superseded)(void *data);

	void *data;
};

/* The numbers of zds.md; other ones are for tests. */
struct tunnel_limits {
	unsigned int hello_milliseconds;   /* from a connection to its hello */
	unsigned int answer_milliseconds;  /* from the previous answer, or from sending when none was awaited */
	unsigned int window;		   /* requests sent and not answered yet, for each connection */
	unsigned int accepts_per_second;   /* connections accepted, on the average and at once */
	unsigned int absence_milliseconds; /* between the path's disappearing and our binding it again */
};
#define TUNNEL_LIMITS_DEFAULT                                                                                                  \
	{                                                                                                                      \
		.hello_milliseconds = 5000, .answer_milliseconds = 5000, .window = 32, .accepts_per_second = 5,                \
		.absence_milliseconds = 100,                                                                                   \
	}

/* Listens at `path` (the directory is made where it is missing, what lies there is replaced) and keeps listening there when
 * somebody unlinks it. `listener` is copied, `log` and `base` are borrowed for the server's life; `limits` NULL: the
 * defaults. A descriptor is needed for each Add that waits: raise RLIMIT_NOFILE. */
int tunnel_server_new(struct event_base *base, const char *path, const struct tunnel_listener *listener,
		      const struct tunnel_limits *limits, const struct log *log, struct error *error,
		      struct tunnel_server **ret_server);

/* Until told true, tunnels that connect wait for their snapshot, and requests wait behind it. Begins with false; going back to
 * false holds back the snapshots of connections to come. */
void tunnel_server_set_ready(struct tunnel_server *server, bool is_ready);

/* One pod of a snapshot. A failure (names that no packet holds: EMSGSIZE; bad names: EINVAL) concerns this pod alone and is
 * to be reported by the caller. A descriptor that can't be duplicated fails nothing: a Keep goes out in place of the Add, so
 * that a pod that runs is not cut off, and the outcome TUNNEL_ABSENT is told. */
int tunnel_snapshot_add(struct tunnel_snapshot *snapshot, const struct tunnel_workload *workload, struct error *error);

/* Starts a pod's listeners. A later request for the same uid replaces one that still waits to be sent. */
int tunnel_add(struct tunnel_server *server, const struct tunnel_workload *workload, struct error *error);

/* Stops a pod's listeners; connections that the tunnel carries are drained by it in the background. */
int tunnel_delete(struct tunnel_server *server, const char *uid, struct error *error);

/* How many tunnels are connected and said hello. */
size_t tunnel_connections(const struct tunnel_server *server);

/* For status: one connection, the newest at index 0. Returns false where there is none. */
struct tunnel_connection_state {
	pid_t pid;		    /* of the peer, 0 when it is in no pid namespace of ours */
	bool is_snapshot_accepted;  /* SnapshotSent is answered: the tunnel can be ready */
	size_t waiting, unanswered; /* requests to be sent; sent and not answered */
	double seconds;		    /* since it was accepted */
};
bool tunnel_connection_state(const struct tunnel_server *server, size_t index, struct tunnel_connection_state *ret_state);

/* For metrics, since the start. A Delete that went to two tunnels counts twice. */
#define TUNNEL_ANSWER_BUCKETS 9
struct tunnel_statistics {
	uint64_t requests[TUNNEL_REQUEST_KINDS][TUNNEL_OUTCOMES];
	/* From sending to the answer; buckets[i] counts answers of at most tunnel_answer_bounds[i] seconds that no smaller
	 * bucket holds, the last one those beyond. */
	uint64_t buckets[TUNNEL_ANSWER_BUCKETS + 1];
	double seconds_sum;
	uint64_t answers;
	uint64_t connections_accepted, connections_refused, protocol_errors, binds;
};
extern const double tunnel_answer_bounds[TUNNEL_ANSWER_BUCKETS];
const struct tunnel_statistics *tunnel_server_statistics(struct tunnel_server *server);

/* Ends every connection. What was sent is told as lost, what waited as absent. */
void tunnel_server_close_connections(struct tunnel_server *server);

/* Ends everything; nothing is told any more. The path is removed if it is still ours. */
void tunnel_server_free(struct tunnel_server *server);

#endif
