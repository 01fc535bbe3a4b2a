/* Whether a new pod belongs to the mesh: the answer to an ADD's question. See arrival.c.
 *
 * It is given from the store. A pod that the watch has not shown yet is read once from the source; where the source is away,
 * what is known of the namespace decides, as it would in the plugin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "installer/mesh/arrival_parts.h"

static bool is_outside(const struct mesh *mesh, const char *namespace_name)
{
	const struct mesh_namespace *entry = mesh_find_namespace(mesh, namespace_name);
	if (entry)
		return selection_namespace_is_outside(&mesh->settings.selection, entry->object) && !entry->has_enrolled_pod;
	return !mesh_is_listed(mesh) && outside_is_listed(&mesh->outside, namespace_name);
}

static void wait_for(struct mesh_arrival *arrival, const char *what)
{
	arrival->stage = ARRIVAL_WAITS;
	snprintf(arrival->waits_for, sizeof arrival->waits_for, "%s", what);
}

void mesh_arrival_decide_without_pod(struct mesh_arrival *arrival, const char *why)
{
	char reason[1400];
	if (is_outside(arrival->mesh, arrival->attachment.pod_namespace) && !arrival->mesh->settings.is_closed_when_away) {
		snprintf(reason, sizeof reason, "its namespace is outside the mesh, and %s", why);
		mesh_arrival_skip(arrival, reason);
		return;
	}
	snprintf(reason, sizeof reason, "%s, and its namespace is not known to be outside the mesh; the runtime will try again",
		 why);
	mesh_arrival_finish(arrival, CNI_TRY_AGAIN_LATER, reason);
}

static void pod_was_read(void *data, enum source_outcome outcome, const cJSON *object, const struct error *error)
{
	struct mesh_arrival *arrival = data;
	struct mesh *mesh = arrival->mesh;
	struct error problem = { 0 };
	cleanup_pod struct pod *pod = NULL;
	const char *uid = arrival->attachment.pod_uid;
	char why[1200];
	arrival->request = NULL;
	arrival->has_read = true;
	/* What the watch has shown meanwhile may be the later, and what it shows comes in order. */
	const struct mesh_pod *shown =
		mesh_find_pod_of_sandbox(mesh, arrival->attachment.pod_namespace, arrival->attachment.pod_name, uid);
	if (shown && shown->object) {
		mesh_arrival_decide(arrival);
		return;
	}
	if (outcome == SOURCE_DONE) {
		int result = pod_from_json(object, &problem, &pod);
		if (result == 0 && uid && !pod_is_called(pod, uid)) {
			/* A successor of the name may run on another node: it is no concern of ours. */
			mesh_arrival_decide_without_pod(arrival, "the source knows only another pod of this name");
			return;
		}
		if (result == 0 && mesh_put_pod(mesh, &pod, &problem, NULL) == 0) {
			mesh_arrival_decide(arrival);
			return;
		}
		snprintf(why, sizeof why, "the source's object of it can't be used (%s)", problem.message);
	} else if (outcome == SOURCE_GONE) {
		snprintf(why, sizeof why, "the source knows no pod of this name");
	} else {
		snprintf(why, sizeof why, "the source can't be asked (%s)", error->message);
	}
	mesh_arrival_decide_without_pod(arrival, why);
}

/* Another pod whose namespace this is, held by us: so it is no inode that was given out again. NULL: nobody's. A successor of
 * the same name may be handed the sandbox of its static pod. */
static const struct mesh_pod *find_owner(const struct mesh_arrival *arrival, const struct mesh_pod *pod)
{
	struct netns_id id = { 0 };
	const struct mesh_pod *other;
	if (netns_identify(arrival->netns, NULL, &id) < 0)
		return NULL;
	TAILQ_FOREACH(other, &arrival->mesh->pods, all)
	{
		if (sandbox_is_held(&other->sandbox) && !other->is_torn_down && netns_id_equal(other->sandbox.id, id) &&
		    (strcmp(other->name, pod->name) != 0 || strcmp(other->namespace_name, pod->namespace_name) != 0))
			return other;
	}
	return NULL;
}

void mesh_arrival_decide(struct mesh_arrival *arrival)
{
	struct mesh *mesh = arrival->mesh;
	struct attachment *attachment = &arrival->attachment;
	struct error error = { 0 };
	if (selection_is_excluded(&mesh->settings.selection, attachment->pod_namespace)) {
		mesh_arrival_skip(arrival, "its namespace is excluded (setting excludeNamespaces)");
		return;
	}
	if (!mesh_is_listed(mesh)) {
		const char *trouble = mesh_source_trouble(mesh);
		if (trouble) {
			char why[600];
			snprintf(why, sizeof why, "pods and namespaces can't be listed (%.400s)", trouble);
			mesh_arrival_decide_without_pod(arrival, why);
		} else {
			wait_for(arrival, "pods and namespaces are still being listed");
		}
		return;
	}
	struct mesh_pod *pod =
		mesh_find_pod_of_sandbox(mesh, attachment->pod_namespace, attachment->pod_name, attachment->pod_uid);
	if (!pod || !pod->object) {
		if (arrival->has_read) {
			mesh_arrival_decide_without_pod(arrival, "the source knows only another pod of this name");
			return;
		}
		wait_for(arrival, "the source has not answered yet");
		arrival->stage = ARRIVAL_READS;
		if (mesh->source.get_pod(mesh->source.self, attachment->pod_namespace, attachment->pod_name, pod_was_read,
					 arrival, &error, &arrival->request) < 0)
			pod_was_read(arrival, SOURCE_FAILED, NULL, &error);
		return;
	}
	/* Host network and sidecars need no namespace's labels, but these are rare: everything waits for them. */
	if (!mesh_find_namespace(mesh, attachment->pod_namespace)) {
		wait_for(arrival, "its namespace has not been seen yet");
		return;
	}
	mesh_decide(pod);
	/* Runtimes of old tell no uid. */
	if (!attachment->pod_uid)
		attachment->pod_uid = strdup(pod->uid);
	if (!pod->decision.wanted) {
		/* Not the sandbox that was: its DEL may come later, or never. */
		if (!sandbox_is_held(&pod->sandbox)) {
			sandbox_remember(pod, attachment);
			pod->is_torn_down = false;
		}
		mesh_arrival_skip(arrival, pod->decision.reason);
		return;
	}
	const struct mesh_pod *owner = find_owner(arrival, pod);
	if (owner) {
		char why[600];
		snprintf(why, sizeof why, "CNI_NETNS is the network namespace of pod %s/%s, which is in the mesh",
			 owner->namespace_name, owner->name);
		mesh_arrival_finish(arrival, CNI_INVALID_NAMESPACE, why);
		return;
	}
	if (pod->arrival && mesh_arrival_is_of(pod->arrival, attachment->container_id)) {
		arrival->stage = ARRIVAL_FOLLOWS;
		return;
	}
	if (pod->arrival)
		mesh_arrival_finish(pod->arrival, CNI_TRY_AGAIN_LATER, "an ADD of another sandbox of the same pod has come");
	/* What is decided now holds for this ADD, whatever changes meanwhile: reconciling follows. */
	redirect_clear(&attachment->redirect);
	if (redirect_copy(&pod->wanted, &error, &attachment->redirect) < 0) {
		mesh_arrival_finish(arrival, CNI_INTERNAL, error.message);
		return;
	}
	arrival->stage = ARRIVAL_APPLIES;
	arrival->pod = pod;
	pod->arrival = arrival;
	arrival->decided = clock_seconds();
	histogram_observe(&mesh->settings.metrics->plugin_request_seconds[METRICS_PHASE_DECISION],
			  arrival->decided - arrival->began);
	arrival->listener.decided(arrival->listener.data, MESH_VERDICT_REDIRECT, pod->decision.reason, &attachment->redirect);
}
