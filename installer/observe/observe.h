/* What people and their machines see of the node agent: health, metrics, the status page, JSON for the command line, Events.
 *
 * It only looks: everything shown is asked of the rooms that know it at the moment somebody wants it, so nothing here is a copy
 * that can be stale, and an agent that nobody looks at spends nothing on it. What changes anything (the log's level, a pause
 * of a pod's repair) is taken on the admin socket alone, from root.
 *
 *   observe.c       what there is to observe; readiness
 *   listen.c        the HTTP servers: addresses, the admin socket and its peers, bounds
 *   pages.c         what each path answers
 *   overview.c      /status: the agent in one JSON object
 *   events.c        what happened last; Events of the Kubernetes kind, at a bounded rate
 *   metrics_text.c  the text for Prometheus
 *   process.c       the process's own figures
 *   status_page.c   the status page, which is status.html */
#ifndef AMBIENT_INSTALLER_OBSERVE_OBSERVE_H
#define AMBIENT_INSTALLER_OBSERVE_OBSERVE_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/config.h"
#include "installer/host/host.h"
#include "installer/kube/client.h"
#include "installer/mesh/mesh.h"
#include "installer/metrics.h"
#include "installer/tunnel/server.h"

/* Where people connect to the agent: a socket of this name in runDir. */
#define OBSERVE_ADMIN_SOCKET "admin.sock"

/* All borrowed, for the observer's lifetime. */
struct observed {
	const struct installer_config *config;
	struct mesh *mesh;
	const struct metrics *metrics;
	struct tunnel_server *tunnel;
	struct kube_client *client; /* NULL: a folder is the source, and there are no Events */
	const struct log *log;
	bool (*plugin_socket_listens)(void *data); /* false: a successor took its path */
	void (*set_log_level)(void *data, enum log_level level);
	void *data;
};

struct observe;

/* Listens at once. An address that is taken, or a run directory that can't be written, stops the start. */
int observe_new(struct event_base *base, const struct observed *observed, struct error *error, struct observe **ret_observe);
/* Before the rooms that it borrows. NULL is fine. */
void observe_free(struct observe *observe);

/* The host's keeper, where host.install is true: made after the observer, which hears of what its first look finds. */
void observe_set_host(struct observe *observe, const struct host *host);

/* Whether the agent does its work: no successor has taken over, sources synced, host rules, binary and configuration in place.
 * Never the tunnel: an agent that waits for its tunnel must not be restarted for it. False: `reason` is a sentence. */
bool observe_is_ready(const struct observe *observe, char *reason, size_t size);

/* What the mesh tells of pods, for mesh_set_observer. Lives as long as the observer. */
const struct mesh_observer *observe_mesh_observer(struct observe *observe);

/* Something on the host that a person should see: host_callbacks.event. An Event on our node. */
void observe_host_event(struct observe *observe, enum log_level level, const char *reason, const char *message);

#endif
