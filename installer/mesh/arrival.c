/* A new pod: an ADD of the plugin, from the question to the result.
 *
 * Whether it belongs to the mesh is decided in arrival_decide.c. Then the order is strict, since nothing runs yet: rules (the
 * plugin's), probe address, the tunnel's Add, success. From the decision to the report the namespace is the plugin's alone.
 * Whatever ends the ADD otherwise takes back what was done here; the plugin takes back what it did.
 *
 * Of ADDs of one sandbox at the same moment the first leads and the others follow: they are answered when it has succeeded, and
 * refused with it, since its plugin takes away rules that are theirs too. An ADD of another sandbox of the pod ends it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/mesh/arrival_parts.h"

/* Of the time that the plugin waits, what is used here before it is told the reason: the rest is for the telling. */
#define PATIENCE_PART 0.8
/* Of a plugin that does not say how long it waits: timeoutSeconds' default. */
#define PLUGIN_TIMEOUT 5.0

static void arrival_free(struct mesh_arrival *arrival)
{
	if (arrival->pod)
		arrival->pod->arrival = NULL;
	if (arrival->request)
		arrival->mesh->source.cancel(arrival->mesh->source.self, arrival->request);
	if (arrival->mesh->next_arrival == arrival)
		arrival->mesh->next_arrival = TAILQ_NEXT(arrival, all);
	TAILQ_REMOVE(&arrival->mesh->arrivals, arrival, all);
	attachment_clear(&arrival->attachment);
	free(arrival->replaced);
	if (arrival->netns >= 0)
		close(arrival->netns);
	if (arrival->deadline)
		event_free(arrival->deadline);
	free(arrival);
}

/* The ADD of a sandbox that has been decided; NULL: none. */
static struct mesh_arrival *find_leader(const struct mesh *mesh, const char *container_id)
{
	struct mesh_arrival *arrival;
	TAILQ_FOREACH(arrival, &mesh->arrivals, all)
	{
		if (arrival->pod && mesh_arrival_is_of(arrival, container_id))
			break;
	}
	return arrival;
}

static struct mesh_arrival *find_follower(const struct mesh *mesh, const char *container_id)
{
	struct mesh_arrival *arrival;
	TAILQ_FOREACH(arrival, &mesh->arrivals, all)
	{
		if (arrival->stage == ARRIVAL_FOLLOWS && mesh_arrival_is_of(arrival, container_id))
			break;
	}
	return arrival;
}

/* What was done here for the pod that does not arrive. */
static void take_back(struct mesh_arrival *arrival)
{
	struct mesh_pod *pod = arrival->pod;
	if (!pod)
		return;
	/* What an earlier ADD of the same sandbox did stays until its own DEL. */
	if (arrival->stage == ARRIVAL_IN_TUNNEL && arrival->is_new_sandbox) {
		/* ztunnel tries a refused Add again and is not ready until then: it has to be told. */
		if (pod->tunnel != POD_TUNNEL_UNKNOWN)
			mesh_tunnel_delete(pod);
		mesh_probe_remove(pod);
		sandbox_forget(pod);
		mesh_begin_anew(pod);
		mesh_remember_enrolled(arrival->mesh);
	}
	if (!sandbox_is_held(&pod->sandbox) && !pod->sandbox.container_id)
		pod->is_torn_down = true;
	/* The plugin takes its rules away. */
	pod->sandbox.is_suspect = sandbox_is_held(&pod->sandbox);
	pod->arrival = NULL;
	arrival->pod = NULL;
	/* Passed over while the ADD was under way. */
	if (pod->sandbox.is_doubted)
		mesh_locate_soon(pod);
	mesh_queue(pod);
}

/* An ADD's outcome where there is no pod to tell it of, or may be none. */
static void log_outcome(const struct mesh_arrival *arrival, enum log_level level, const char *outcome, const char *reason)
{
	const struct attachment *attachment = &arrival->attachment;
	char name[512];
	snprintf(name, sizeof name, "%s/%s", attachment->pod_namespace, attachment->pod_name);
	const struct log_field fields[] = {
		{ "pod", name }, { "step", "add" }, { attachment->pod_uid ? "uid" : NULL, attachment->pod_uid }, { NULL, NULL }
	};
	log_write(arrival->mesh->settings.log, level, fields, "%s after %.1f ms: %s", outcome,
		  (clock_seconds() - arrival->began) * 1000, reason);
}

static void refuse_followers(struct mesh *mesh, const char *container_id, const char *why)
{
	struct mesh_arrival *arrival;
	char message[1400];
	snprintf(message, sizeof message, "another ADD of the same sandbox was under way, and did not succeed: %s", why);
	while ((arrival = find_follower(mesh, container_id)))
		mesh_arrival_finish(arrival, CNI_TRY_AGAIN_LATER, message);
}

void mesh_arrival_finish(struct mesh_arrival *arrival, enum cni_code code, const char *message)
{
	struct mesh *mesh = arrival->mesh;
	bool has_led = arrival->stage == ARRIVAL_APPLIES || arrival->stage == ARRIVAL_IN_TUNNEL;
	cleanup_free char *container_id = has_led ? steal_pointer(arrival->attachment.container_id) : NULL;
	struct metrics *metrics = mesh->settings.metrics;
	struct mesh_arrival_listener listener = arrival->listener;
	double now = clock_seconds();
	if (code == CNI_OK) {
		histogram_observe(&metrics->plugin_request_seconds[METRICS_PHASE_TUNNEL], now - arrival->reported);
		histogram_observe(&metrics->plugin_request_seconds[METRICS_PHASE_TOTAL], now - arrival->began);
		metrics->plugin_requests[METRICS_VERB_ADD][METRICS_PLUGIN_ENROLLED]++;
	} else {
		metrics->plugin_requests[METRICS_VERB_ADD][METRICS_PLUGIN_REFUSED]++;
		log_outcome(arrival, LOG_LEVEL_WARN, "the pod can't start yet", message);
		if (arrival->pod)
			mesh_event(arrival->pod, true, "EnrolmentFailed", message);
		take_back(arrival);
	}
	arrival_free(arrival);
	listener.finished(listener.data, code, message);
	if (has_led && code != CNI_OK)
		refuse_followers(mesh, container_id, message);
	/* The next of them leads, and the others go on following. */
	while (has_led && code == CNI_OK && !find_leader(mesh, container_id) && (arrival = find_follower(mesh, container_id)))
		mesh_arrival_decide(arrival);
}

void mesh_arrival_skip(struct mesh_arrival *arrival, const char *reason)
{
	struct mesh *mesh = arrival->mesh;
	struct metrics *metrics = mesh->settings.metrics;
	struct error error = { 0 };
	metrics->plugin_requests[METRICS_VERB_ADD][METRICS_PLUGIN_OUTSIDE]++;
	histogram_observe(&metrics->plugin_request_seconds[METRICS_PHASE_TOTAL], clock_seconds() - arrival->began);
	arrival->listener.decided(arrival->listener.data, MESH_VERDICT_SKIP, reason, NULL);
	log_outcome(arrival, LOG_LEVEL_INFO, "the new pod is outside the mesh", reason);
	mesh_probe_give_away(mesh, &arrival->attachment);
	/* Nobody waits any more. Where the namespace is, is remembered for the day the pod is labelled. */
	if (arrival->attachment.pod_uid && attachment_write(mesh->settings.run_dir, &arrival->attachment, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", error.message);
	arrival_free(arrival);
}

/* False: the arrival is over. */
static bool ask_tunnel(struct mesh_arrival *arrival)
{
	struct mesh_pod *pod = arrival->pod;
	struct error error = { 0 };
	/* A snapshot on its way may have named it already. */
	if (pod->tunnel == POD_TUNNEL_ADDING || pod->tunnel == POD_TUNNEL_ACCEPTED)
		return true;
	if (tunnel_connections(arrival->mesh->tunnel) == 0) {
		snprintf(arrival->waits_for, sizeof arrival->waits_for,
			 "no tunnel is connected to this node's agent (kubectl get pods -n %s -l app=ztunnel)",
			 arrival->mesh->settings.selection.system_namespace);
		return true;
	}
	snprintf(arrival->waits_for, sizeof arrival->waits_for, "the tunnel did not answer");
	if (mesh_tunnel_add(pod, &error) < 0) {
		mesh_arrival_finish(arrival, CNI_TUNNEL_REFUSED, error.message);
		return false;
	}
	return true;
}

static void deadline_passed(evutil_socket_t fd, short what, void *data)
{
	struct mesh_arrival *arrival = data;
	char message[600];
	(void)fd;
	(void)what;
	if (arrival->stage == ARRIVAL_APPLIES) {
		mesh_arrival_finish(arrival, CNI_TRY_AGAIN_LATER, "the plugin did not report");
		return;
	}
	/* Refused alone, its plugin would take away the rules of the one that it follows. */
	if (arrival->stage == ARRIVAL_FOLLOWS) {
		mesh_arrival_finish(find_leader(arrival->mesh, arrival->attachment.container_id), CNI_TRY_AGAIN_LATER,
				    "another ADD of the same sandbox could wait no longer");
		return;
	}
	if (arrival->stage == ARRIVAL_WAITS || arrival->stage == ARRIVAL_READS) {
		mesh_arrival_decide_without_pod(arrival, arrival->waits_for);
		return;
	}
	snprintf(message, sizeof message, "%s; the runtime will try again", arrival->waits_for);
	mesh_arrival_finish(arrival, CNI_TRY_AGAIN_LATER, message);
}

static void hand_on(struct mesh_arrival *arrival)
{
	struct mesh_arrival_listener listener = arrival->listener;
	arrival->mesh->settings.metrics->plugin_requests[METRICS_VERB_ADD][METRICS_PLUGIN_ABANDONED]++;
	take_back(arrival);
	arrival_free(arrival);
	listener.handed_on(listener.data);
}

int mesh_arrival_begin(struct mesh *mesh, struct attachment *attachment, int netns, double timeout,
		       const struct mesh_arrival_listener *listener, struct error *error, struct mesh_arrival **ret_arrival)
{
	if (!attachment->pod_namespace || !attachment->pod_name)
		return error_say(error, EINVAL, "the attachment names no pod");
	struct mesh_arrival *arrival = calloc(1, sizeof *arrival);
	if (!arrival)
		return error_set(error, ENOMEM, "cannot take an ADD");
	arrival->mesh = mesh;
	arrival->listener = *listener;
	arrival->netns = fcntl(netns, F_DUPFD_CLOEXEC, 3);
	arrival->deadline = evtimer_new(mesh->base, deadline_passed, arrival);
	TAILQ_INSERT_TAIL(&mesh->arrivals, arrival, all);
	if (arrival->netns < 0 || !arrival->deadline) {
		error_set(error, arrival->netns < 0 ? errno : ENOMEM, "cannot take an ADD");
		arrival_free(arrival);
		return -1;
	}
	arrival->attachment = *attachment;
	*attachment = (struct attachment){ 0 };
	arrival->began = clock_seconds();
	mesh_arm(arrival->deadline, PATIENCE_PART * (timeout > 0 ? timeout : PLUGIN_TIMEOUT));
	/* Before anything is told: a listener may be told at once. */
	*ret_arrival = arrival;
	if (mesh->is_stopped)
		hand_on(arrival);
	else
		mesh_arrival_decide(arrival);
	return 0;
}

void mesh_arrival_reported(struct mesh_arrival *arrival, const char *problem)
{
	struct mesh *mesh = arrival->mesh;
	struct mesh_pod *pod = arrival->pod;
	struct error error = { 0 };
	struct redirect_difference difference = { 0 };
	if (arrival->stage != ARRIVAL_APPLIES) {
		mesh_arrival_finish(arrival, CNI_INTERNAL, "the plugin reported what it was not asked for");
		return;
	}
	if (problem) {
		mesh_arrival_finish(arrival, CNI_CANNOT_REDIRECT, problem);
		return;
	}
	arrival->reported = clock_seconds();
	histogram_observe(&mesh->settings.metrics->plugin_request_seconds[METRICS_PHASE_APPLY],
			  arrival->reported - arrival->decided);
	/* From here on the new sandbox takes the old one's place everywhere; another interface of the same one changes little.
	 */
	arrival->stage = ARRIVAL_IN_TUNNEL;
	arrival->is_new_sandbox = !sandbox_is_held(&pod->sandbox) || !pod->sandbox.container_id ||
				  strcmp(pod->sandbox.container_id, arrival->attachment.container_id) != 0;
	if (arrival->is_new_sandbox) {
		if (pod->sandbox.container_id)
			arrival->replaced = strdup(pod->sandbox.container_id);
		mesh_leave_sandbox(pod);
	}
	pod->is_torn_down = false;
	pod->is_releasing = false;
	pod->is_drained = false;
	pod->drain_began = 0;
	redirect_clear(&pod->sandbox.in_force);
	if (sandbox_remember(pod, &arrival->attachment) < 0 || sandbox_hold_unseen(pod, arrival->netns, &error) < 0 ||
	    redirect_copy(&arrival->attachment.redirect, &error, &pod->sandbox.in_force) < 0) {
		mesh_arrival_finish(arrival, CNI_INTERNAL, error.message[0] ? error.message : "no memory");
		return;
	}
	pod->sandbox.standing = REDIRECT_STANDING_FULL;
	pod->sandbox.is_looked_at = true;
	if (mesh_probe_put(pod, &error) < 0 || probe_set_flush(mesh->probes, &error) < 0) {
		mesh_arrival_finish(arrival, CNI_INTERNAL, error.message);
		return;
	}
	if (pod->tunnel == POD_TUNNEL_ACCEPTED) {
		mesh_arrival_tunnel(arrival, TUNNEL_ACCEPTED, NULL);
		return;
	}
	/* The report is checked while the tunnel opens its listeners. */
	if (!ask_tunnel(arrival))
		return;
	if (redirect_verify(pod->sandbox.session, &pod->sandbox.in_force, REDIRECT_STAGE_FULL, &error, &difference) < 0) {
		mesh_arrival_finish(arrival, CNI_INTERNAL, error.message);
	} else if (difference.text[0]) {
		char message[700];
		snprintf(message, sizeof message, "the rules that the plugin reported are not there: %s", difference.text);
		mesh_arrival_finish(arrival, CNI_CANNOT_REDIRECT, message);
	} else {
		pod->sandbox.verified = time(NULL);
	}
}

/* The sandbox that was before is out, and its attachment says so before that of the new one says that it is in: of two that are
 * alive, a restart takes the one that is enrolled. */
static int disown_replaced(const struct mesh_arrival *arrival, struct error *error)
{
	const char *run_dir = arrival->mesh->settings.run_dir;
	cleanup_attachment struct attachment replaced = { 0 };
	bool is_found = false;
	if (!arrival->replaced)
		return 0;
	/* One that can't be understood was set aside. */
	if (attachment_read(run_dir, arrival->replaced, arrival->attachment.interface, NULL, &replaced, &is_found) < 0 ||
	    !is_found || !replaced.is_enrolled)
		return 0;
	replaced.is_enrolled = false;
	return attachment_write(run_dir, &replaced, error);
}

void mesh_arrival_tunnel(struct mesh_arrival *arrival, enum tunnel_outcome outcome, const struct error *error)
{
	struct mesh *mesh = arrival->mesh;
	struct mesh_pod *pod = arrival->pod;
	struct error problem = { 0 };
	char message[1200];
	if (arrival->stage != ARRIVAL_IN_TUNNEL)
		return;
	if (outcome == TUNNEL_REFUSED) {
		snprintf(message, sizeof message, "the tunnel refused the pod: %s", error->message);
		mesh_arrival_finish(arrival, CNI_TUNNEL_REFUSED, message);
		return;
	}
	if (outcome != TUNNEL_ACCEPTED) {
		/* It is asked again when one is connected, until the deadline. */
		ask_tunnel(arrival);
		return;
	}
	enum mesh_families families = mesh_look_at_families(pod, &arrival->attachment.redirect, &problem);
	if (families == MESH_FAMILIES_REFUSED) {
		mesh_arrival_finish(arrival, CNI_TUNNEL_REFUSED, problem.message);
		return;
	}
	if (families == MESH_FAMILIES_REFUSED_IN_PART) {
		mesh_log(pod, LOG_LEVEL_WARN, "tunnel", "%s", problem.message);
		mesh_event(pod, true, "FamilyRefused", problem.message);
	}
	arrival->attachment.is_enrolled = true;
	if (disown_replaced(arrival, &problem) < 0 ||
	    attachment_write(mesh->settings.run_dir, &arrival->attachment, &problem) < 0) {
		mesh_arrival_finish(arrival, CNI_IO_FAILURE, problem.message);
		return;
	}
	pod->is_enrolled = true;
	pod->began = 0;
	mesh_succeeded(pod);
	mesh_remember_enrolled(mesh);
	mesh_log(pod, LOG_LEVEL_INFO, "add", "the new pod is in the mesh after %.1f ms: %s",
		 (clock_seconds() - arrival->began) * 1000, pod->decision.reason);
	mesh_event(pod, false, "Enrolled", pod->decision.reason);
	pod->arrival = NULL;
	arrival->pod = NULL;
	mesh_arrival_finish(arrival, CNI_OK, NULL);
	/* The annotation is nothing that the plugin waits for. */
	mesh_queue(pod);
}

void mesh_arrival_abandon(struct mesh_arrival *arrival)
{
	arrival->mesh->settings.metrics->plugin_requests[METRICS_VERB_ADD][METRICS_PLUGIN_ABANDONED]++;
	struct mesh *mesh = arrival->mesh;
	cleanup_free char *led = arrival->pod ? steal_pointer(arrival->attachment.container_id) : NULL;
	if (arrival->pod)
		mesh_log(arrival->pod, LOG_LEVEL_WARN, "add", "the plugin went away before the pod was in the mesh");
	take_back(arrival);
	arrival_free(arrival);
	/* It may have been killed, or may just take its rules away. */
	if (led)
		refuse_followers(mesh, led, "its plugin went away");
}

void mesh_arrivals_look(struct mesh *mesh)
{
	mesh->next_arrival = TAILQ_FIRST(&mesh->arrivals);
	while (mesh->next_arrival) {
		struct mesh_arrival *arrival = mesh->next_arrival;
		mesh->next_arrival = TAILQ_NEXT(arrival, all);
		if (arrival->stage == ARRIVAL_WAITS)
			mesh_arrival_decide(arrival);
		else if (arrival->stage == ARRIVAL_IN_TUNNEL)
			ask_tunnel(arrival);
	}
}

void mesh_arrivals_hand_on(struct mesh *mesh)
{
	while (!TAILQ_EMPTY(&mesh->arrivals))
		hand_on(TAILQ_FIRST(&mesh->arrivals));
}

void mesh_arrivals_end(struct mesh *mesh)
{
	while (!TAILQ_EMPTY(&mesh->arrivals))
		mesh_arrival_finish(TAILQ_FIRST(&mesh->arrivals), CNI_TRY_AGAIN_LATER, "the node agent stops");
}
