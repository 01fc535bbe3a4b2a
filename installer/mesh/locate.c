/* Finding the network namespaces of pods that run already and that nobody remembers: one scan of the host's processes serves
 * all that wait. A pod that is not found is looked for again, later and later. One whose namespace is held, but is reported at
 * other addresses, is looked for whenever something is reported of it: only a namespace with these takes the place of the held
 * one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/netns/finder.h"
#include "installer/netns/netns_path.h"
#include "installer/mesh/state.h"

/* A scan of a busy node's processes costs some ten milliseconds. */
#define TOGETHER 0.02
/* After a scan that failed. */
#define LOOK_AGAIN_AFTER 1.0

static const char *named_path(const struct mesh_pod *pod)
{
	/* Only the node's administrator writes to a folder; anybody who makes pods writes to Kubernetes. */
	bool is_trusted = pod->mesh->source.self && !pod->mesh->source.annotate_pod;
	return is_trusted && pod->object ? labels_get(&pod->object->annotations, ANNOTATION_NETNS) : NULL;
}

static bool can_be_located(const struct mesh_pod *pod)
{
	size_t count = 0;
	mesh_pod_addresses(pod, &count);
	return !pod->is_torn_down && (named_path(pod) || count > 0) && !(pod->object && pod->object->host_network);
}

void mesh_locate_soon(struct mesh_pod *pod)
{
	/* Without an address it has no sandbox yet, or none that could be told from another's. */
	if (!can_be_located(pod))
		return;
	pod->is_to_be_located = true;
	if (!event_pending(pod->mesh->locate, EV_TIMEOUT, NULL))
		mesh_arm(pod->mesh->locate, TOGETHER);
}

/* Two pods of one namespace would each put right what the other does. */
static int refuse_foreign(const struct mesh_pod *pod, int netns, struct error *error)
{
	struct netns_id id = { 0 };
	const struct mesh_pod *other;
	if (netns_identify(netns, error, &id) < 0)
		return -1;
	TAILQ_FOREACH(other, &pod->mesh->pods, all)
	{
		if (other != pod && sandbox_is_held(&other->sandbox) && netns_id_equal(other->sandbox.id, id))
			return error_say(error, EBUSY, "the network namespace is that of pod %s/%s (uid %s)",
					 other->namespace_name, other->name, other->uid);
	}
	return 0;
}

static void hold(struct mesh_pod *pod, int netns)
{
	struct error error = { 0 };
	bool is_foreign = refuse_foreign(pod, netns, &error) < 0;
	if (is_foreign || sandbox_hold(pod, netns, &error) < 0) {
		sandbox_let_go(pod);
		pod->is_unseen = !is_foreign;
		mesh_failed(pod, METRICS_STEP_NAMESPACE, &error);
		return;
	}
	pod->is_unseen = false;
	if (pod->failures > 0 && pod->last_error_step == METRICS_STEP_NAMESPACE)
		mesh_succeeded(pod);
}

static bool is_reported_elsewhere(const struct mesh_pod *pod)
{
	return pod->sandbox.is_doubted && pod->object && pod->object->addresses_count > 0;
}

/* Where the reported addresses are is known now: in another namespace, or in this one, which has got them meanwhile. */
static void settle_doubt(struct mesh_pod *pod, const struct finder_wish *found)
{
	if (netns_id_equal(found->id, pod->sandbox.id)) {
		if (sandbox_is_held(&pod->sandbox)) {
			mesh_addresses_take(pod);
		} else {
			pod->sandbox.is_doubted = false;
			pod->sandbox.addresses_count = 0;
		}
	} else {
		mesh_log(pod, LOG_LEVEL_INFO, "namespace", "the pod has another sandbox by now, which no ADD told of");
		mesh_leave_sandbox(pod);
		pod->is_remembered = false;
	}
	if (!sandbox_is_held(&pod->sandbox))
		hold(pod, found->netns);
	mesh_remember_enrolled(pod->mesh);
}

static void hold_named(struct mesh_pod *pod, const char *path)
{
	const struct mesh *mesh = pod->mesh;
	struct error error = { 0 };
	cleanup_close int netns = -1;
	if (netns_path_open(path, mesh->settings.proc_dir, mesh->settings.netns_dir, &mesh->host, &error, &netns) < 0) {
		error_wrap(&error, "annotation " ANNOTATION_NETNS "=%s", path);
		mesh_failed(pod, METRICS_STEP_NAMESPACE, &error);
		return;
	}
	struct finder_wish named = { .netns = netns };
	if (is_reported_elsewhere(pod) && netns_identify(netns, NULL, &named.id) == 0)
		settle_doubt(pod, &named);
	else
		hold(pod, netns);
	/* So that a restart finds it, even when the object is gone meanwhile. */
	if (sandbox_is_held(&pod->sandbox) && !pod->sandbox.netns_path)
		pod->sandbox.netns_path = strdup(path);
}

static const char *cgroup_uid(const struct mesh_pod *pod)
{
	const char *hash = pod->object ? labels_get(&pod->object->annotations, ANNOTATION_STATIC_POD_UID) : NULL;
	return hash ? hash : pod->uid;
}

/* Looks for every pod of the list at once. */
static void scan(struct mesh *mesh, struct mesh_pod **pods, size_t count, bool is_first_look)
{
	struct error error = { 0 };
	cleanup_free struct finder_wish *wishes = calloc(count ? count : 1, sizeof *wishes);
	if (!wishes)
		return;
	for (size_t i = 0; i < count; i++) {
		wishes[i] = (struct finder_wish){ .uid = cgroup_uid(pods[i]), .netns = -1 };
		wishes[i].addresses = mesh_pod_addresses(pods[i], &wishes[i].addresses_count);
		if (is_reported_elsewhere(pods[i])) {
			wishes[i].addresses = pods[i]->object->addresses;
			wishes[i].addresses_count = pods[i]->object->addresses_count;
		}
	}
	int result = count ? finder_scan(mesh->settings.proc_dir, &mesh->host, wishes, count, &error) : 0;
	if (result < 0 && is_first_look)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s; it is tried again", error.message);
	for (size_t i = 0; i < count; i++) {
		struct mesh_pod *pod = pods[i];
		if (result == 0 && wishes[i].result == FINDER_FOUND) {
			if (is_reported_elsewhere(pod))
				settle_doubt(pod, &wishes[i]);
			else
				hold(pod, wishes[i].netns);
			close(wishes[i].netns);
		} else if (sandbox_is_held(&pod->sandbox)) {
			continue;
		} else if (!pod->decision.wanted && result < 0) {
			pod->is_unseen = true;
			mesh_queue_after(pod, LOOK_AGAIN_AFTER);
			continue;
		} else if (!pod->decision.wanted) {
			pod->is_unseen = false;
			mesh_succeeded(pod);
		} else if (!is_first_look) {
			struct error problem = error;
			if (result == 0)
				error_set(&problem, 0, "cannot find the pod's network namespace: %s",
					  finder_result_words(wishes[i].result));
			mesh_failed(pod, METRICS_STEP_NAMESPACE, &problem);
		}
		mesh_queue(pod);
	}
}

static bool is_of_interest(const struct mesh_pod *pod)
{
	if (sandbox_is_held(&pod->sandbox))
		return is_reported_elsewhere(pod);
	/* What is remembered is opened first. */
	return !pod->sandbox.is_doubted || !pod->sandbox.netns_path;
}

void mesh_locate(evutil_socket_t fd, short what, void *data)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	size_t count = 0;
	(void)fd;
	(void)what;
	cleanup_free struct mesh_pod **pods = calloc(mesh->pods_count + 1, sizeof(struct mesh_pod *));
	if (!pods || mesh->is_stopped)
		return;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (!pod->is_to_be_located)
			continue;
		pod->is_to_be_located = false;
		if (pod->arrival || !can_be_located(pod) || !is_of_interest(pod))
			continue;
		if (named_path(pod)) {
			hold_named(pod, named_path(pod));
			mesh_queue(pod);
		} else {
			pods[count++] = pod;
		}
	}
	scan(mesh, pods, count, false);
}

/* The first look: at every pod whose namespace can be told, wanted or not, so that what an earlier run left is known. */
void mesh_look_around(struct mesh *mesh)
{
	struct mesh_pod *pod;
	size_t count = 0;
	cleanup_free struct mesh_pod **pods = calloc(mesh->pods_count + 1, sizeof(struct mesh_pod *));
	if (!pods)
		return;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		struct error error = { 0 };
		if (sandbox_is_held(&pod->sandbox) || pod->arrival)
			continue;
		if (pod->sandbox.netns_path) {
			pod->is_unseen = sandbox_reopen(pod, &error) < 0 && error.number != ENOENT;
			if (sandbox_is_held(&pod->sandbox) && !pod->is_unseen)
				continue;
		}
		if (named_path(pod) && can_be_located(pod))
			hold_named(pod, named_path(pod));
		else if (can_be_located(pod))
			pods[count++] = pod;
	}
	scan(mesh, pods, count, true);
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (!sandbox_is_held(&pod->sandbox))
			continue;
		if (pod->sandbox.standing != REDIRECT_STANDING_NOTHING)
			pod->was_accepted = true;
		else if (!pod->decision.wanted && !pod->is_remembered && !pod->sandbox.was_ours)
			sandbox_let_go(pod);
		mesh_queue(pod);
	}
}
