/* Every pod out of the mesh: what an uninstallation does to pods and to the host. A pod whose annotation can't be removed stays
 * enrolled, since its peers go on with HBONE; it is stranded, and counted. */
#include "installer/mesh/state.h"

void mesh_release_count_left(struct mesh *mesh)
{
	struct mesh_pod *pod;
	if (!mesh->released)
		return;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (!pod->is_stranded && (mesh_has_traces(pod) || pod->is_remembered))
			return;
	}
	void (*released)(void *, size_t) = mesh->released;
	mesh->released = NULL;
	released(mesh->released_data, mesh->stranded);
}

/* What is drained at an uninstallation, at most: a pod's grace period is short. */
#define LAST_DRAIN 10

void mesh_release_all(struct mesh *mesh, void (*done)(void *data, size_t stranded), void *data)
{
	struct mesh_pod *pod;
	mesh->released = done;
	mesh->released_data = data;
	mesh->settings.selection.releases_all = true;
	if (mesh->settings.release_drain_seconds > LAST_DRAIN)
		mesh->settings.release_drain_seconds = LAST_DRAIN;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		mesh_decide(pod);
		mesh_queue(pod);
	}
	mesh_arm(mesh->run, 0);
}

/* What is left of a pod whose peers know that it is out: its drain is cut short, its Del's answer is not waited for. */
static void release_now(struct mesh_pod *pod)
{
	struct error error = { 0 };
	bool is_in_tunnel = pod->tunnel != POD_TUNNEL_UNKNOWN && pod->tunnel != POD_TUNNEL_DELETED;
	if (is_in_tunnel && pod->tunnel != POD_TUNNEL_DELETING && tunnel_delete(pod->mesh->tunnel, pod->uid, &error) < 0)
		mesh_log(pod, LOG_LEVEL_ERROR, "release", "%s", error.message);
	if (sandbox_is_held(&pod->sandbox) && sandbox_remove(pod, &error) < 0)
		mesh_log(pod, LOG_LEVEL_ERROR, "release", "%s", error.message);
	mesh_probe_remove(pod);
}

void mesh_release_give_up(struct mesh *mesh)
{
	struct mesh_pod *pod;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		struct error error = { 0 };
		bool is_unseen = pod->is_remembered && !pod->object;
		if (pod->is_stranded || (!mesh_has_traces(pod) && !is_unseen))
			continue;
		pod->is_stranded = true;
		if (!is_unseen && (!pod->annotation || !pod->object)) {
			release_now(pod);
			continue;
		}
		mesh->stranded++;
		mesh_log(pod, LOG_LEVEL_ERROR, "release", "the annotation could not be removed: the pod stays in the mesh");
		if (sandbox_is_held(&pod->sandbox) && pod->sandbox.standing == REDIRECT_STANDING_GUARD &&
		    sandbox_apply(pod, REDIRECT_STAGE_FULL, sandbox_expected(pod), &error) < 0)
			mesh_log(pod, LOG_LEVEL_ERROR, "release", "%s", error.message);
	}
	mesh_arm(mesh->run, 0);
}

void mesh_remove_host_rules(struct mesh *mesh)
{
	struct error error = { 0 };
	mesh->is_stopped = true;
	if (mesh->aws && aws_branch_eni_remove_all(mesh->aws, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_ERROR, NULL, "%s", error.message);
	/* With its watch: else it would repair what goes now. */
	probe_set_close(mesh->probes);
	mesh->probes = NULL;
}
