/* The mesh as an object: its turns, its timers, its listeners. See mesh.h. */
#include "installer/mesh/mesh.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "installer/mesh/state.h"

/* Pods that are looked at before the loop gets a turn again: plugins and acks wait no longer than these. */
#define PODS_PER_TURN 64

/* How long the tunnel waits for the source before it is told of what is remembered. */
#define PATIENCE 5.0

/* Once the source has listed everything, what stands in the pods is looked at; then nothing holds the snapshot. */
void mesh_consider_snapshot(struct mesh *mesh)
{
	if (mesh->is_stopped || !mesh_is_listed(mesh))
		return;
	if (!mesh->is_kernel_seen) {
		mesh_look_around(mesh);
		mesh->is_kernel_seen = true;
		struct mesh_pod *pod;
		TAILQ_FOREACH(pod, &mesh->pods, all)
		{
			/* Not a first installation: such a pod started while nobody was there to be asked. It comes first. */
			if (mesh->outside.time == 0 || !pod->decision.wanted || !sandbox_is_held(&pod->sandbox) ||
			    pod->sandbox.standing != REDIRECT_STANDING_NOTHING)
				continue;
			mesh->settings.metrics->stale_outside_pods++;
			mesh_queue(pod);
			TAILQ_REMOVE(&mesh->queue, pod, queue);
			TAILQ_INSERT_HEAD(&mesh->queue, pod, queue);
		}
	}
	outside_clear(&mesh->outside);
	tunnel_server_set_ready(mesh->tunnel, true);
	event_del(mesh->patience);
}

static void patience_is_over(evutil_socket_t fd, short what, void *data)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	size_t remembered = 0;
	(void)fd;
	(void)what;
	if (mesh_is_listed(mesh) || mesh->is_stopped)
		return;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	remembered += pod->is_remembered;
	/* An empty snapshot would cut every pod off. */
	if (remembered == 0)
		return;
	log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL,
		  "pods and namespaces can't be listed (%s): the tunnel is told of the %zu pods that are remembered",
		  mesh_source_trouble(mesh) ? mesh_source_trouble(mesh) : "no answer yet", remembered);
	mesh_look_around(mesh);
	tunnel_server_set_ready(mesh->tunnel, true);
}

/* When every pod has had its turn once: what an earlier run left on the host and no pod claims. */
static void prune(struct mesh *mesh)
{
	struct error error = { 0 };
	if (mesh->is_pruned || !mesh->is_kernel_seen || !mesh_is_listed(mesh) || mesh->is_stopped)
		return;
	/* What the predecessor brought in since we read its state is no leftover. */
	mesh_recall_late(mesh);
	if (!TAILQ_EMPTY(&mesh->queue))
		return;
	if (mesh_probes_prune(mesh, &error) < 0) {
		/* The next turn tries again. */
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "what an earlier run left on the host stays for now: %s",
			  error.message);
		return;
	}
	mesh->is_pruned = true;
	mesh_prune_attachments(-1, 0, mesh);
	mesh_take_over_host(mesh);
}

static void run(evutil_socket_t fd, short what, void *data)
{
	struct mesh *mesh = data;
	struct error error = { 0 };
	(void)fd;
	(void)what;
	for (int turn = 0; turn < PODS_PER_TURN && !TAILQ_EMPTY(&mesh->queue); turn++) {
		struct mesh_pod *pod = TAILQ_FIRST(&mesh->queue);
		TAILQ_REMOVE(&mesh->queue, pod, queue);
		pod->is_queued = false;
		mesh_reconcile(pod);
	}
	/* One transaction for all of them. What fails is tried again by the set, which says when it is done. */
	if (mesh->probes && probe_set_flush(mesh->probes, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL,
			  "the host's probe rules can't be changed, it is tried again: %s", error.message);
	if (!TAILQ_EMPTY(&mesh->queue))
		mesh_arm(mesh->run, 0);
	else
		prune(mesh);
	mesh_release_count_left(mesh);
}

static void trouble(void *data, enum source_kind kind, const char *reason)
{
	struct mesh *mesh = data;
	bool is_news =
		(reason != NULL) != (mesh->trouble[kind] != NULL) || (reason && strcmp(reason, mesh->trouble[kind]) != 0);
	if (!is_news)
		return;
	log_write(mesh->settings.log, reason ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, NULL, "%s: %s",
		  kind == SOURCE_POD ? "pods" : "namespaces", reason ? reason : "the source is well again");
	free(mesh->trouble[kind]);
	mesh->trouble[kind] = reason ? strdup(reason) : NULL;
	mesh_arrivals_look(mesh);
}

const char *mesh_source_trouble(const struct mesh *mesh)
{
	return mesh->trouble[SOURCE_POD] ? mesh->trouble[SOURCE_POD] : mesh->trouble[SOURCE_NAMESPACE];
}

static void superseded(void *data)
{
	struct mesh *mesh = data;
	mesh_stop(mesh);
	tunnel_server_close_connections(mesh->tunnel);
}

struct source_listener mesh_source_listener(struct mesh *mesh)
{
	return (struct source_listener){ .list_started = mesh_list_started,
					 .put = mesh_put,
					 .gone = mesh_gone,
					 .list_finished = mesh_list_finished,
					 .trouble = trouble,
					 .data = mesh };
}

struct tunnel_listener mesh_tunnel_listener(struct mesh *mesh)
{
	return (struct tunnel_listener){ .snapshot = mesh_tunnel_snapshot,
					 .answered = mesh_tunnel_answered,
					 .connections_changed = mesh_tunnel_connections_changed,
					 .superseded = superseded,
					 .data = mesh };
}

void mesh_set_source(struct mesh *mesh, const struct source *source)
{
	mesh->source = *source;
}

void mesh_set_tunnel(struct mesh *mesh, struct tunnel_server *tunnel)
{
	mesh->tunnel = tunnel;
}

void mesh_set_observer(struct mesh *mesh, const struct mesh_observer *observer)
{
	mesh->observer = *observer;
}

bool mesh_is_synced(const struct mesh *mesh)
{
	return mesh_is_listed(mesh) && mesh->is_kernel_seen;
}

int mesh_new(struct event_base *base, const struct mesh_settings *settings, struct error *error, struct mesh **ret_mesh)
{
	struct mesh *mesh = calloc(1, sizeof *mesh);
	if (!mesh)
		return error_set(error, ENOMEM, "cannot make the mesh");
	mesh->base = base;
	mesh->settings = *settings;
	TAILQ_INIT(&mesh->pods);
	TAILQ_INIT(&mesh->queue);
	TAILQ_INIT(&mesh->namespaces);
	TAILQ_INIT(&mesh->arrivals);
	TAILQ_INIT(&mesh->closings);
	mesh->run = evtimer_new(base, run, mesh);
	mesh->locate = evtimer_new(base, mesh_locate, mesh);
	mesh->save = evtimer_new(base, mesh_save, mesh);
	mesh->close = evtimer_new(base, sandbox_close_due, mesh);
	mesh->prune_attachments = evtimer_new(base, mesh_prune_attachments, mesh);
	mesh->patience = evtimer_new(base, patience_is_over, mesh);
	if (!mesh->run || !mesh->locate || !mesh->save || !mesh->close || !mesh->prune_attachments || !mesh->patience) {
		error_set(error, ENOMEM, "cannot make the mesh");
	} else if (netns_identify(settings->host_netns, error, &mesh->host) == 0 && mesh_probes_open(mesh, error) == 0) {
		mesh_recall(mesh);
		mesh_arm(mesh->patience, PATIENCE);
		*ret_mesh = mesh;
		return 0;
	}
	mesh_free(mesh);
	return -1;
}

void mesh_free(struct mesh *mesh)
{
	if (!mesh)
		return;
	mesh_arrivals_end(mesh);
	if (mesh->save && event_pending(mesh->save, EV_TIMEOUT, NULL))
		mesh_save(-1, 0, mesh);
	while (!TAILQ_EMPTY(&mesh->pods))
		mesh_forget_pod(TAILQ_FIRST(&mesh->pods));
	mesh_forget_namespaces(mesh);
	sandbox_close_all(mesh);
	struct event *events[] = { mesh->run, mesh->locate, mesh->save, mesh->close, mesh->prune_attachments, mesh->patience };
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
		if (events[i])
			event_free(events[i]);
	}
	probe_set_close(mesh->probes);
	aws_branch_eni_close(mesh->aws);
	outside_clear(&mesh->outside);
	for (int kind = 0; kind < SOURCE_KIND_COUNT; kind++)
		free(mesh->trouble[kind]);
	free(mesh);
}

void mesh_stop(struct mesh *mesh)
{
	if (mesh->is_stopped)
		return;
	log_write(mesh->settings.log, LOG_LEVEL_INFO, NULL, "a successor has taken over: pods are its concern now");
	mesh_arrivals_hand_on(mesh);
	mesh->is_stopped = true;
	/* With its watch: it would take the successor's changes for somebody else's. */
	probe_set_close(mesh->probes);
	mesh->probes = NULL;
}

bool mesh_is_stopped(const struct mesh *mesh)
{
	return mesh->is_stopped;
}

int mesh_pause(struct mesh *mesh, const char *namespace_name, const char *name, long seconds, struct error *error)
{
	struct mesh_pod *pod = mesh_find_pod_by_name(mesh, namespace_name, name);
	if (!pod)
		return error_say(error, ENOENT, "there is no pod %s/%s on this node", namespace_name, name);
	pod->paused_until = seconds > 0 ? clock_seconds() + (double)seconds : 0;
	if (seconds > 0) {
		char message[96];
		snprintf(message, sizeof message, "repair of the pod's redirection is paused for %ld s by hand", seconds);
		mesh_log(pod, LOG_LEVEL_WARN, "pause", "%s", message);
		mesh_event(pod, true, "RepairPaused", message);
	} else {
		mesh_log(pod, LOG_LEVEL_INFO, "pause", "the pod's redirection is repaired again");
	}
	mesh_queue(pod);
	return 0;
}
