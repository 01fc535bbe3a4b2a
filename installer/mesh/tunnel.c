/* What the mesh asks of the tunnel, and what the tunnel's answers and its coming and going mean for the pods. See
 * tunnel/server.h. */
#include "installer/mesh/state.h"

/* Borrowed from the pod. */
static struct tunnel_workload workload_of(const struct mesh_pod *pod)
{
	return (struct tunnel_workload){
		.uid = pod->uid,
		.name = pod->name,
		.namespace_name = pod->namespace_name,
		.service_account = pod->service_account,
		.netns = pod->sandbox.netns,
	};
}

int mesh_tunnel_add(struct mesh_pod *pod, struct error *error)
{
	const struct tunnel_workload workload = workload_of(pod);
	if (tunnel_add(pod->mesh->tunnel, &workload, error) < 0)
		return -1;
	pod->tunnel = POD_TUNNEL_ADDING;
	pod->is_in_snapshot = false;
	pod->adds_unanswered++;
	return 0;
}

void mesh_tunnel_delete(struct mesh_pod *pod)
{
	pod->tunnel = tunnel_delete(pod->mesh->tunnel, pod->uid, NULL) == 0 ? POD_TUNNEL_DELETING : POD_TUNNEL_KEPT;
}

void mesh_tunnel_answered(void *data, enum tunnel_request_kind kind, const char *uid, enum tunnel_outcome outcome,
			  const struct error *error)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod = mesh_find_pod(mesh, uid);
	if (!pod)
		return;
	if (kind == TUNNEL_DELETE) {
		if (pod->tunnel == POD_TUNNEL_DELETING) {
			/* Without an answer the listeners may still stand; the guard may not go before them. */
			bool is_answered = outcome != TUNNEL_LOST && outcome != TUNNEL_LATE;
			pod->tunnel = is_answered ? POD_TUNNEL_DELETED : POD_TUNNEL_REFUSED;
			if (outcome == TUNNEL_REFUSED)
				mesh_log(pod, LOG_LEVEL_WARN, "tunnel", "the tunnel refused a Del: %s", error->message);
			mesh_queue(pod);
		}
		return;
	}
	if (kind == TUNNEL_ADD && pod->adds_unanswered > 0)
		pod->adds_unanswered--;
	if (pod->tunnel != POD_TUNNEL_ADDING || outcome == TUNNEL_SUPERSEDED)
		return;
	/* What an earlier one is answered with, maybe of another sandbox, says nothing of the last. */
	if ((kind == TUNNEL_SNAPSHOT_ADD) != pod->is_in_snapshot || (kind == TUNNEL_ADD && pod->adds_unanswered > 0))
		return;
	switch (outcome) {
	case TUNNEL_ACCEPTED:
		pod->tunnel = POD_TUNNEL_ACCEPTED;
		pod->was_accepted = true;
		mesh_step_succeeded(pod, METRICS_STEP_TUNNEL);
		break;
	case TUNNEL_REFUSED:
		pod->tunnel = POD_TUNNEL_REFUSED;
		if (!pod->arrival)
			mesh_failed(pod, METRICS_STEP_TUNNEL, error);
		break;
	default: /* no answer: the next snapshot asks again */
		pod->tunnel = POD_TUNNEL_UNKNOWN;
		break;
	}
	if (pod->arrival)
		mesh_arrival_tunnel(pod->arrival, outcome, error);
	else
		mesh_queue(pod);
}

void mesh_tunnel_snapshot(void *data, struct tunnel_snapshot *snapshot)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	size_t count = 0;
	/* It was the predecessor's, which stopped before it let go of it. */
	mesh_recall_late(mesh);
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		struct error error = { 0 };
		/* A new pod's rules are the plugin's report away; then its Add follows by itself. */
		bool is_held = sandbox_is_held(&pod->sandbox);
		bool may_be_in = pod->is_remembered || (pod->is_unseen && pod->sandbox.was_ours);
		if (is_held ? pod->sandbox.standing == REDIRECT_STANDING_NOTHING : !may_be_in)
			continue;
		/* On its last way out, its Del is what the tunnel needs; it may have come in again since that was answered. */
		if (pod->tunnel == POD_TUNNEL_DELETING || (pod->tunnel == POD_TUNNEL_DELETED && !pod->decision.wanted))
			continue;
		const struct tunnel_workload workload = workload_of(pod);
		if (tunnel_snapshot_add(snapshot, &workload, &error) < 0) {
			mesh_failed(pod, METRICS_STEP_TUNNEL, &error);
			continue;
		}
		count++;
		/* A Keep is not answered: the pod's Add follows when its namespace is found. */
		pod->tunnel = workload.netns >= 0 ? POD_TUNNEL_ADDING : POD_TUNNEL_KEPT;
		pod->is_in_snapshot = workload.netns >= 0;
	}
	log_write(mesh->settings.log, LOG_LEVEL_INFO, NULL, "a tunnel connected and is told of %zu pods", count);
}

void mesh_tunnel_connections_changed(void *data, size_t count)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	if (mesh->is_stopped)
		return;
	if (count == 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL,
			  "no tunnel is connected: pods of the mesh stay as they are, new ones wait (kubectl get pods -n %s -l "
			  "app=ztunnel)",
			  mesh->settings.selection.system_namespace);
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		/* What it accepted it may have forgotten by now; redirects and annotation stay. */
		if (count == 0 && (pod->tunnel == POD_TUNNEL_ACCEPTED || pod->tunnel == POD_TUNNEL_KEPT))
			pod->tunnel = POD_TUNNEL_UNKNOWN;
		if (pod->decision.wanted)
			mesh_queue(pod);
	}
	mesh_arrivals_look(mesh);
}
