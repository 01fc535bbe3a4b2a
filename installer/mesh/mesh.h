/* The mesh on this node: which pods belong to it, and the way of each pod in and out.
 *
 * Theory of operation. Sources, plugins, the tunnel and the kernel only say that something is different now; what is to be
 * done is decided in one place (reconcile.c), which compares what a pod should be (its object's labels) with what it is (rules
 * seen in the kernel, the tunnel's answer, the host's probe set, its annotation) and does the next missing steps. Every step
 * can be taken again, and what fails is tried again (5 ms doubling to 5 s, without limit). So a restart at any point converges,
 * and nothing waits for anything but what it needs.
 *
 *   mesh.c        the object, its queue of pods to look at, the listeners of source and tunnel
 *   selection.c   which pods belong to the mesh; pod_redirect.c: a pod's own annotations
 *   store.c       pods and namespaces as the source has them; object.c: what of them is kept; missed.c, mirror.c: pods that
 *                 a list did not name, and static pods
 *   addresses.c   which addresses are a pod's
 *   queue.c       a pod's turn, now or later, and what is said of it
 *   reconcile.c   the order of steps in and out
 *   sandbox.c     a pod's network namespace held open: rules in it, drift (drift.c), closing later; take_over.c: what istio-cni
 *                 left in it
 *   tunnel.c      what is asked of the tunnel, and its answers; families.c, listening.c: where it listens in a pod
 *   probes.c      the pods' addresses in the host's set of those that are probed (probe_set.h)
 *   annotate.c    ambient.istio.io/redirection
 *   locate.c      finding the namespaces of pods that run already (finder.h)
 *   remember.c    what a restart needs: runDir/enrolled.json, runDir/outside.json
 *   arrival.c     a new pod: an ADD of the plugin, from the question to the result; arrival_decide.c answers the question
 *   detach.c      DEL and GC
 *   release_all.c every pod out: an uninstallation
 *   view.c        what people and machines are shown */
#ifndef AMBIENT_INSTALLER_MESH_MESH_H
#define AMBIENT_INSTALLER_MESH_MESH_H

#include <cjson/cJSON.h>
#include <event2/event.h>
#include <stdbool.h>

#include "ambient/attachment.h"
#include "ambient/cni.h"
#include "ambient/log.h"
#include "installer/mesh/selection.h"
#include "installer/metrics.h"
#include "installer/source.h"
#include "installer/tunnel/server.h"

/* All borrowed, for the mesh's lifetime. */
struct mesh_settings {
	struct selection selection;
	long release_drain_seconds;
	const char *run_dir;
	const char *proc_dir;  /* the host's /proc */
	const char *netns_dir; /* where the runtime keeps namespaces by name, as we see it */
	int host_netns;	       /* the host's network namespace */
	bool aws_branch_eni;
	bool is_closed_when_away; /* whenAway closed: what can't be told is not started */
	const struct log *log;
	struct metrics *metrics;
};

/* What the mesh tells about a pod, for Events of the Kubernetes kind. Texts are borrowed. */
struct mesh_observer {
	void (*pod_event)(void *data, const struct pod *pod, bool is_warning, const char *reason, const char *message);
	void *data;
};

struct mesh;
int mesh_new(struct event_base *base, const struct mesh_settings *settings, struct error *error, struct mesh **ret_mesh);
/* Closes everything and leaves rules, host rules and files as they are: a successor, or the next start, goes on from there. */
void mesh_free(struct mesh *mesh); /* NULL is fine */

void mesh_set_observer(struct mesh *mesh, const struct mesh_observer *observer);

/* Listeners to hand to the source and the tunnel server, and these then to the mesh, before the loop runs. */
struct source_listener mesh_source_listener(struct mesh *mesh);
struct tunnel_listener mesh_tunnel_listener(struct mesh *mesh);
void mesh_set_source(struct mesh *mesh, const struct source *source);
void mesh_set_tunnel(struct mesh *mesh, struct tunnel_server *tunnel);

/* Whether pods and namespaces have been listed once, and every pod's namespace was looked at after that. */
bool mesh_is_synced(const struct mesh *mesh);
/* A sentence on what is wrong with the source; NULL: nothing. */
const char *mesh_source_trouble(const struct mesh *mesh);
/* Whether the host's probe rules stand. */
bool mesh_host_rules_stand(const struct mesh *mesh);

/* A successor took over: nothing is reconciled any more, and ADDs under way are handed on to it. */
void mesh_stop(struct mesh *mesh);
bool mesh_is_stopped(const struct mesh *mesh);

/* Releases every pod, whatever its labels say, and takes the host's rules away; `done` is called when all are out, or cannot
 * be: then `stranded` counts those whose annotation could not be removed, which stay enrolled. */
void mesh_release_all(struct mesh *mesh, void (*done)(void *data, size_t stranded), void *data);

/* No more waiting: pods whose annotation is still there, or that the source has not shown, are stranded, and enrolled again;
 * the others' drains are cut short. */
void mesh_release_give_up(struct mesh *mesh);
/* After a release: what the mesh holds on the host goes, and nothing is put back any more. */
void mesh_remove_host_rules(struct mesh *mesh);

/* Stops drift repair of one pod for a time; 0 seconds: repairs again. ENOENT: no such pod. */
int mesh_pause(struct mesh *mesh, const char *namespace_name, const char *name, long seconds, struct error *error);

/* New objects; NULL: no memory. mesh_pod_view gives NULL, too, for a pod that is not known. `verify` looks at the kernel now.
 */
cJSON *mesh_pods_view(struct mesh *mesh);
cJSON *mesh_pod_view(struct mesh *mesh, const char *namespace_name, const char *name, bool verify);
/* Number of pods in each state (mesh_state_name), for metrics. */
enum mesh_state {
	MESH_STATE_NONE,
	MESH_STATE_PENDING,
	MESH_STATE_ENABLED,
	MESH_STATE_RELEASING,
	MESH_STATE_FAILED,
	MESH_STATE_COUNT
};
const char *mesh_state_name(enum mesh_state state);
void mesh_count_states(const struct mesh *mesh, size_t ret_counts[MESH_STATE_COUNT]);

/* A new pod, as the plugin's ADD brings it (arrival.c).
 *
 * Either `decided` comes with MESH_VERDICT_SKIP, and that is all; or with MESH_VERDICT_REDIRECT and a redirect to apply: then
 * the plugin reports by mesh_arrival_reported (NULL: applied), and `finished` comes with the result. `finished` may also refuse
 * before anything was decided. Both may be called from inside mesh_arrival_begin and mesh_arrival_reported. After a skip, and
 * after `finished`, the arrival is over and freed. */
enum mesh_verdict { MESH_VERDICT_REDIRECT, MESH_VERDICT_SKIP };
struct mesh_arrival;
struct mesh_arrival_listener {
	void (*decided)(void *data, enum mesh_verdict verdict, const char *reason, const struct redirect *redirect);
	void (*finished)(void *data, enum cni_code code, const char *message);
	/* A successor has taken over: the plugin is to ask it, which it does when its connection is closed. In place of
	 * `finished`. */
	void (*handed_on)(void *data);
	void *data;
};
/* Takes `attachment` (cleared for the caller, unless it fails) and a duplicate of `netns`. The plugin goes away after `timeout`
 * seconds; 0: it did not say. `ret_arrival` is of no use where it was over before this returned. */
int mesh_arrival_begin(struct mesh *mesh, struct attachment *attachment, int netns, double timeout,
		       const struct mesh_arrival_listener *listener, struct error *error, struct mesh_arrival **ret_arrival);
void mesh_arrival_reported(struct mesh_arrival *arrival, const char *problem);
/* The plugin went away: what was done is taken back. The arrival is freed. */
void mesh_arrival_abandon(struct mesh_arrival *arrival);

/* An attachment is removed (DEL): the pod's current sandbox's last one releases it. */
void mesh_detach(struct mesh *mesh, const struct attachment *attachment);
/* GC: what is not listed is gone. */
struct wire_message;
void mesh_collect(struct mesh *mesh, const struct wire_message *gc);

#endif
