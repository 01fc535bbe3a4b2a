/* Static pods. Kubelet and runtime know one by its config.hash; the API has a mirror of it, with a uid of its own.
 *
 * Before the mirror is known, the sandbox of an ADD is remembered by the hash. And somebody who deletes the mirror ends
 * nothing: the pod runs on, and the kubelet makes another mirror, with another uid, a moment later. That one takes the sandbox
 * over as it stands; until then nothing is released, else the pod's traffic would leave in plain text for as long as a drain
 * takes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/mesh/state.h"

/* The kubelet looks once a second whether a mirror is missing. */
#define COMES_AGAIN_WITHIN 5.0

/* Of the pod whose ADD came before the mirror was known. */
static void adopt_unseen(struct mesh_pod *pod)
{
	struct mesh_pod *twin = mesh_find_pod(pod->mesh, pod->static_hash);
	if (!twin || twin == pod || twin->object || twin->arrival)
		return;
	sandbox_let_go(twin);
	if (twin->tunnel != POD_TUNNEL_UNKNOWN)
		tunnel_delete(pod->mesh->tunnel, twin->uid, NULL);
	if (!sandbox_is_held(&pod->sandbox) && !pod->sandbox.container_id) {
		sandbox_forget(pod);
		pod->sandbox = twin->sandbox;
		pod->sandbox.is_looked_at = false;
		pod->is_attachment_stale = twin->is_attachment_stale;
		twin->sandbox = (struct sandbox){ .netns = -1 };
	}
	mesh_forget_pod(twin);
}

/* Of the mirror that was before. */
static void adopt_gone(struct mesh_pod *pod)
{
	struct mesh_pod *other;
	struct error error = { 0 };
	if (sandbox_is_held(&pod->sandbox) || pod->sandbox.container_id || pod->arrival)
		return;
	TAILQ_FOREACH(other, &pod->mesh->pods, all)
	{
		if (other != pod && !other->arrival && other->static_hash && sandbox_is_held(&other->sandbox) &&
		    strcmp(other->static_hash, pod->static_hash) == 0 && strcmp(other->name, pod->name) == 0 &&
		    strcmp(other->namespace_name, pod->namespace_name) == 0)
			break;
	}
	if (!other)
		return;
	/* A name is one object's: whether the source has said so yet or not. */
	if (other->object)
		mesh_pod_is_gone(other);
	/* The tunnel is to take this one before it lets go of the other. */
	if (other->is_queued)
		TAILQ_REMOVE(&pod->mesh->queue, other, queue);
	other->is_queued = false;
	mesh_queue(pod);
	mesh_queue(other);
	/* Its watch tells the other pod of changes: it is opened anew. */
	cleanup_close int netns = steal_fd(&other->sandbox.netns);
	sandbox_let_go(other);
	sandbox_forget(pod);
	pod->sandbox = other->sandbox;
	other->sandbox = (struct sandbox){ .netns = -1 };
	redirect_init(&other->sandbox.in_force);
	pod->is_torn_down = false;
	pod->is_attachment_stale = true;
	if (sandbox_hold(pod, netns, &error) < 0)
		mesh_failed(pod, METRICS_STEP_NAMESPACE, &error);
	mesh_begin_anew(other);
	mesh_log(pod, LOG_LEVEL_INFO, "namespace", "the static pod has a new mirror in place of %s", other->uid);
}

void mesh_mirror_seen(struct mesh_pod *pod)
{
	const char *hash = labels_get(&pod->object->annotations, ANNOTATION_STATIC_POD_UID);
	pod->gone_at = 0;
	free(pod->static_hash);
	pod->static_hash = hash ? strdup(hash) : NULL;
	if (!pod->static_hash)
		return;
	adopt_unseen(pod);
	adopt_gone(pod);
}

double mesh_mirror_wait(const struct mesh_pod *pod)
{
	if (!pod->static_hash || pod->gone_at == 0 || !sandbox_is_held(&pod->sandbox) || pod->is_releasing)
		return 0;
	double left = pod->gone_at + COMES_AGAIN_WITHIN - clock_seconds();
	return left > 0 ? left : 0;
}
