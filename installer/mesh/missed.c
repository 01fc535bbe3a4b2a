/* A pod of which somebody says that it is gone, or how it is, who may be wrong. It is read once more.
 *
 * A list did not name it while its ADD was under way: it was read by itself for the ADD, maybe after the list was made; and if
 * it is gone, no watch that begins with that list ever says so. It is read when the ADD is over.
 *
 * A patch was answered with 404, which something between us and the server may have said.
 *
 * A list showed the pod while a patch was on its way, and not the patch (annotate.c). */
#include <string.h>

#include "installer/mesh/state.h"

#define READ_AGAIN_AFTER 5.0

static void was_read(void *data, enum source_outcome outcome, const cJSON *object, const struct error *error)
{
	struct mesh_pod *pod = data;
	struct mesh *mesh = pod->mesh;
	struct error problem = { 0 };
	cleanup_pod struct pod *read = NULL;
	pod->missed_request = NULL;
	if (outcome == SOURCE_FAILED)
		mesh_log(pod, LOG_LEVEL_DEBUG, "decide", "cannot read whether the pod is still there: %s", error->message);
	bool is_read = outcome == SOURCE_DONE && pod_from_json(object, &problem, &read) == 0;
	bool is_there = is_read && strcmp(read->uid, pod->uid) == 0;
	/* A patch was not made, then. */
	if (is_there)
		pod->is_annotation_off = false;
	if (outcome == SOURCE_GONE || (is_read && !is_there))
		mesh_pod_is_gone(pod);
	else if (!is_read || mesh_put_pod(mesh, &read, &problem, NULL) < 0)
		mesh_queue_after(pod, READ_AGAIN_AFTER);
}

void mesh_missed_read(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	struct error error = { 0 };
	if (pod->missed_request || pod->arrival)
		return;
	if (!pod->object) {
		pod->is_missed = false;
		return;
	}
	if (mesh->source.get_pod(mesh->source.self, pod->namespace_name, pod->name, was_read, pod, &error,
				 &pod->missed_request) < 0)
		was_read(pod, SOURCE_FAILED, NULL, &error);
}

void mesh_missed_is_over(struct mesh_pod *pod)
{
	if (pod->missed_request)
		pod->mesh->source.cancel(pod->mesh->source.self, pod->missed_request);
	pod->missed_request = NULL;
	pod->is_missed = false;
}
