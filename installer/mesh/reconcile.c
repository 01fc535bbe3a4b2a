/* The order of steps: which one of a pod is next.
 *
 * In, for a pod that runs (a new one is the plugin's, arrival.c):
 *
 *     namespace held -> probe address registered, routes and table with the guard in -> the tunnel's Add accepted ->
 *     redirects, one transaction -> annotation enabled
 *
 * As long as the tunnel has not accepted the pod its traffic goes on as before: redirects without listeners would refuse every
 * connection. Once the redirects stood they stay, whatever the tunnel does, until the pod is released: the other way its
 * traffic would leave in plain text.
 *
 * Out:
 *
 *     redirects out, one transaction -> annotation off -> drain -> the tunnel's Del -> the rest of the rules, probe address
 *
 * New connections go direct at once; what the tunnel carries lives on by marks, route and listeners until the drain ends. The
 * drain begins with the patch that succeeded, since until then peers send HBONE. The guard goes last, after the listeners. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "installer/netns/listening.h"
#include "installer/mesh/state.h"

/* Peers go on with HBONE until istiod has told them. */
#define DRAIN_LEAST 3.0
#define DRAIN_LOOK 0.25

#define LISTENERS_LOOK 1.0

static bool may_try(const struct mesh_pod *pod, enum metrics_step step)
{
	return pod->retry_after == 0 || pod->last_error_step != step || pod->retry_after <= clock_seconds();
}

static bool failed(struct mesh_pod *pod, enum metrics_step step, const struct error *error)
{
	mesh_failed(pod, step, error);
	return false;
}

/* Each step returns whether the next one may be taken. */

static bool step_namespace(struct mesh_pod *pod)
{
	struct error error = { 0 };
	if (sandbox_is_held(&pod->sandbox))
		return true;
	if (pod->is_torn_down || !may_try(pod, METRICS_STEP_NAMESPACE))
		return false;
	if (pod->sandbox.netns_path) {
		if (sandbox_reopen(pod, &error) == 0) {
			mesh_step_succeeded(pod, METRICS_STEP_NAMESPACE);
			return true;
		}
		if (error.number != ENOENT)
			return failed(pod, METRICS_STEP_NAMESPACE, &error);
		sandbox_forget(pod);
	}
	mesh_locate_soon(pod);
	return false;
}

static bool step_look(struct mesh_pod *pod)
{
	struct sandbox *sandbox = &pod->sandbox;
	struct error error = { 0 };
	if (!sandbox->is_looked_at) {
		if (!may_try(pod, METRICS_STEP_RULES))
			return false;
		if (sandbox_look(pod, &error) < 0)
			return failed(pod, METRICS_STEP_RULES, &error);
	}
	if (sandbox->standing != REDIRECT_STANDING_NOTHING && sandbox->is_suspect) {
		if (sandbox_repair(pod, &error) < 0)
			return failed(pod, METRICS_STEP_RULES, &error);
	}
	if (sandbox->standing == REDIRECT_STANDING_FULL)
		pod->is_enrolled = true;
	return true;
}

static bool step_probe(struct mesh_pod *pod)
{
	struct error error = { 0 };
	if (!may_try(pod, METRICS_STEP_PROBE))
		return false;
	if (mesh_probe_put(pod, &error) < 0)
		return failed(pod, METRICS_STEP_PROBE, &error);
	mesh_step_succeeded(pod, METRICS_STEP_PROBE);
	return true;
}

static void enrolled(struct mesh_pod *pod)
{
	if (pod->is_enrolled)
		return;
	pod->is_enrolled = true;
	double seconds = pod->began ? clock_seconds() - pod->began : 0;
	pod->began = 0;
	histogram_observe(&pod->mesh->settings.metrics->reconcile_seconds, seconds);
	mesh_log(pod, LOG_LEVEL_INFO, "enrol", "the pod is in the mesh after %.1f ms: %s", seconds * 1000,
		 pod->decision.reason);
	mesh_event(pod, false, "Enrolled", pod->decision.reason);
}

/* Whether what the tunnel listens on bears the redirects of a pod that runs. */
static bool may_redirect(struct mesh_pod *pod)
{
	struct error error = { 0 };
	if (!may_try(pod, METRICS_STEP_TUNNEL))
		return false;
	if (mesh_look_at_families(pod, &pod->wanted, &error) != MESH_FAMILIES_SERVED)
		return failed(pod, METRICS_STEP_TUNNEL, &error);
	mesh_step_succeeded(pod, METRICS_STEP_TUNNEL);
	return true;
}

static bool step_rules(struct mesh_pod *pod)
{
	struct sandbox *sandbox = &pod->sandbox;
	struct error error = { 0 };
	size_t addresses = 0;
	mesh_pod_addresses(pod, &addresses);
	bool is_accepted = pod->tunnel == POD_TUNNEL_ACCEPTED && (addresses == 0 || mesh_probe_holds(pod));
	bool is_full = pod->is_enrolled || (is_accepted && may_redirect(pod));
	enum redirect_standing target = is_full ? REDIRECT_STANDING_FULL : REDIRECT_STANDING_GUARD;
	if (sandbox->standing == target && redirect_equal(&sandbox->in_force, &pod->wanted)) {
		mesh_step_succeeded(pod, METRICS_STEP_RULES);
		return true;
	}
	if (!may_try(pod, METRICS_STEP_RULES))
		return false;
	if (sandbox->standing == REDIRECT_STANDING_NOTHING && !mesh_remember_entering(pod))
		return false;
	bool is_change = sandbox->standing == target;
	if (sandbox_apply(pod, is_full ? REDIRECT_STAGE_FULL : REDIRECT_STAGE_GUARD, &pod->wanted, &error) < 0)
		return failed(pod, METRICS_STEP_RULES, &error);
	mesh_step_succeeded(pod, METRICS_STEP_RULES);
	pod->is_entering = false;
	if (is_change)
		mesh_log(pod, LOG_LEVEL_INFO, "rules", "the pod's redirection follows a changed annotation or setting");
	if (is_full)
		enrolled(pod);
	return true;
}

static bool step_tunnel(struct mesh_pod *pod)
{
	struct error error = { 0 };
	if (pod->tunnel == POD_TUNNEL_ACCEPTED)
		return true;
	/* With none connected the next one's snapshot names the pod. */
	if (pod->tunnel == POD_TUNNEL_ADDING || tunnel_connections(pod->mesh->tunnel) == 0 ||
	    !may_try(pod, METRICS_STEP_TUNNEL))
		return false;
	return mesh_tunnel_add(pod, &error) < 0 ? failed(pod, METRICS_STEP_TUNNEL, &error) : false;
}

static void step_annotation(struct mesh_pod *pod)
{
	if (pod->sandbox.standing != REDIRECT_STANDING_FULL) {
		/* An annotation of an earlier life: after a reboot of the node, say. */
		bool is_waiting = pod->failures > 0 && pod->last_error_step == METRICS_STEP_TUNNEL;
		if (pod->annotation && pod->tunnel != POD_TUNNEL_ADDING && (pod->tunnel != POD_TUNNEL_ACCEPTED || is_waiting))
			mesh_annotate(pod, NULL);
	} else if (pod->tunnel == POD_TUNNEL_ACCEPTED) {
		mesh_annotate(pod, "enabled");
	} else if (pod->tunnel == POD_TUNNEL_REFUSED) {
		mesh_annotate(pod, "pending");
	}
}

static bool step_forget_in_tunnel(struct mesh_pod *pod)
{
	struct error error = { 0 };
	switch (pod->tunnel) {
	case POD_TUNNEL_UNKNOWN: /* the next snapshot does not name it */
	case POD_TUNNEL_DELETED:
		return true;
	case POD_TUNNEL_DELETING:
		return false;
	default:
		break;
	}
	if (!may_try(pod, METRICS_STEP_TUNNEL))
		return false;
	if (tunnel_delete(pod->mesh->tunnel, pod->uid, &error) < 0)
		return failed(pod, METRICS_STEP_TUNNEL, &error);
	pod->tunnel = POD_TUNNEL_DELETING;
	return false;
}

static void enrol(struct mesh_pod *pod)
{
	if (pod->is_releasing) {
		pod->is_releasing = false;
		pod->began = 0;
		mesh_log(pod, LOG_LEVEL_INFO, "release", "the pod belongs to the mesh again: %s", pod->decision.reason);
	}
	pod->drain_began = 0;
	pod->is_drained = pod->is_listened_to = false;
	pod->is_annotation_off = false;
	if (!pod->is_enrolled && pod->began == 0)
		pod->began = clock_seconds();
	if (!step_namespace(pod)) {
		if (pod->is_torn_down) {
			step_forget_in_tunnel(pod);
			return;
		}
		/* What was remembered and is not found yet has its rules, as far as we know. */
		if (pod->is_remembered || !pod->mesh->is_kernel_seen)
			return;
		step_annotation(pod);
		return;
	}
	if (step_look(pod) && step_probe(pod) && step_rules(pod))
		step_tunnel(pod);
	if (!pod->is_entering)
		step_annotation(pod);
}

/* Whether what the tunnel carries has come to its end, or has had its time. */
static bool step_drain(struct mesh_pod *pod)
{
	double now = clock_seconds(), most = (double)pod->mesh->settings.release_drain_seconds;
	struct carried carried = { 0 };
	struct error error = { 0 };
	/* A pod that has ended has no connections; one that was never accepted had none carried. */
	if (pod->is_drained || most <= 0 || !pod->was_accepted || (pod->object && pod->object->has_ended))
		return true;
	if (pod->drain_began == 0) {
		pod->drain_began = now;
		pod->drain_look = now + (DRAIN_LEAST < most ? DRAIN_LEAST : most);
		mesh_log(pod, LOG_LEVEL_DEBUG, "drain", "what the tunnel carries is let come to its end, at most %.0f s", most);
	}
	if (now < pod->drain_look) {
		mesh_queue_after(pod, pod->drain_look - now);
		return false;
	}
	double elapsed = now - pod->drain_began;
	if (listening_count_carried(pod->sandbox.netns, &error, &carried) < 0) {
		/* Who can't look waits the full time. */
		mesh_log(pod, LOG_LEVEL_DEBUG, "drain", "%s", error.message);
		carried.connections = elapsed < most;
	}
	if (carried.connections > 0 && elapsed < most) {
		/* A look walks the machine's connection table: the longer it takes, the rarer. */
		double wait = elapsed / 8 > DRAIN_LOOK ? elapsed / 8 : DRAIN_LOOK;
		pod->drain_look = now + (elapsed + wait < most ? wait : most - elapsed);
		mesh_queue_after(pod, pod->drain_look - now);
		return false;
	}
	if (carried.connections > 0)
		mesh_log(pod, LOG_LEVEL_WARN, "drain",
			 "after %.0f s (releaseDrainSeconds) the tunnel is told to end the %zu connections that it still "
			 "carries",
			 most, carried.connections);
	pod->is_drained = true;
	return true;
}

/* Whether the guard may go: where no tunnel is connected that could be told, not as long as one listens in the pod. Else a
 * connection to its listeners would be one to the tunnel itself, over and over. When it is back, its snapshot names the pod,
 * and the Del follows; when it has ended, so have they. */
static bool step_listeners(struct mesh_pod *pod)
{
	bool was_listened_to = pod->is_listened_to;
	pod->is_listened_to = false;
	if (pod->sandbox.standing == REDIRECT_STANDING_NOTHING || tunnel_connections(pod->mesh->tunnel) > 0 ||
	    listening_look_for_tunnel(pod->sandbox.netns, NULL, &pod->is_listened_to) < 0 || !pod->is_listened_to)
		return true;
	if (!was_listened_to)
		mesh_log(pod, LOG_LEVEL_INFO, "release",
			 "no tunnel is connected that could be told, and one listens in the pod: "
			 "the guard stays before its ports until it is back or has ended");
	mesh_queue_after(pod, LISTENERS_LOOK);
	return false;
}

void mesh_begin_anew(struct mesh_pod *pod)
{
	pod->is_enrolled = pod->is_releasing = pod->was_accepted = false;
	pod->is_entering = pod->is_written = false;
	pod->is_annotation_off = pod->is_drained = pod->is_listened_to = false;
	pod->drain_began = 0;
	pod->began = 0;
}

void mesh_leave_sandbox(struct mesh_pod *pod)
{
	mesh_probe_remove(pod);
	sandbox_forget(pod);
	mesh_begin_anew(pod);
	/* An Add of the new namespace replaces the old one; where none comes, a Del is needed. */
	bool is_known = pod->tunnel != POD_TUNNEL_UNKNOWN && pod->tunnel != POD_TUNNEL_DELETED;
	pod->tunnel = is_known ? POD_TUNNEL_KEPT : POD_TUNNEL_UNKNOWN;
}

static void finish_release(struct mesh_pod *pod)
{
	bool was_releasing = pod->is_releasing;
	double seconds = pod->began ? clock_seconds() - pod->began : 0;
	mesh_probe_remove(pod);
	sandbox_let_go(pod);
	mesh_begin_anew(pod);
	mesh_succeeded(pod);
	if (was_releasing) {
		mesh_log(pod, LOG_LEVEL_INFO, "release", "the pod is out of the mesh after %.1f ms: %s", seconds * 1000,
			 pod->decision.reason);
		mesh_event(pod, false, "Released", pod->decision.reason);
	}
	if (!pod->object && !pod->arrival)
		mesh_forget_pod(pod);
	else if (pod->annotation)
		mesh_queue(pod);
}

static void release(struct mesh_pod *pod)
{
	struct sandbox *sandbox = &pod->sandbox;
	struct error error = { 0 };
	if (pod->is_stranded)
		return;
	pod->is_entering = false;
	double wait = mesh_mirror_wait(pod);
	if (wait > 0) {
		mesh_queue_after(pod, wait);
		return;
	}
	if (sandbox_is_held(sandbox) && sandbox->standing != REDIRECT_STANDING_NOTHING && !pod->is_releasing) {
		pod->is_releasing = true;
		pod->began = clock_seconds();
		pod->since = time(NULL);
		mesh_log(pod, LOG_LEVEL_INFO, "release", "the pod leaves the mesh: %s", pod->decision.reason);
	}
	if (sandbox_is_held(sandbox) && (!sandbox->is_looked_at || sandbox->standing == REDIRECT_STANDING_FULL)) {
		if (!may_try(pod, METRICS_STEP_RULES))
			return;
		if ((!sandbox->is_looked_at && sandbox_look(pod, &error) < 0) ||
		    (sandbox->standing == REDIRECT_STANDING_FULL &&
		     sandbox_apply(pod, REDIRECT_STAGE_GUARD, sandbox_expected(pod), &error) < 0)) {
			failed(pod, METRICS_STEP_RULES, &error);
			return;
		}
	}
	pod->is_enrolled = false;
	/* What is carried needs marks and routes until its end. What an earlier run left is not known so well. */
	if (sandbox_is_held(sandbox) && sandbox->standing == REDIRECT_STANDING_GUARD && sandbox->is_suspect &&
	    sandbox->verified && may_try(pod, METRICS_STEP_RULES) && sandbox_repair(pod, &error) < 0)
		failed(pod, METRICS_STEP_RULES, &error);
	if (!pod->is_annotation_off) {
		if (pod->object && !mesh_annotate(pod, NULL))
			return;
		pod->is_annotation_off = true;
	}
	bool is_in = sandbox_is_held(sandbox) && (sandbox->standing != REDIRECT_STANDING_NOTHING || sandbox->was_ours);
	if ((is_in && (!step_drain(pod) || !step_listeners(pod))) || !step_forget_in_tunnel(pod))
		return;
	if (is_in) {
		if (!may_try(pod, METRICS_STEP_RULES))
			return;
		if (sandbox_remove(pod, &error) < 0) {
			failed(pod, METRICS_STEP_RULES, &error);
			return;
		}
	}
	finish_release(pod);
}

bool mesh_has_traces(const struct mesh_pod *pod)
{
	bool is_in_tunnel = pod->tunnel != POD_TUNNEL_UNKNOWN && pod->tunnel != POD_TUNNEL_DELETED;
	return sandbox_is_held(&pod->sandbox) || pod->is_enrolled || pod->is_releasing || is_in_tunnel || pod->annotation ||
	       pod->patch;
}

enum mesh_state mesh_state_of(const struct mesh_pod *pod)
{
	if (!pod->decision.wanted)
		return pod->is_releasing ? MESH_STATE_RELEASING : MESH_STATE_NONE;
	if (pod->is_enrolled && pod->tunnel != POD_TUNNEL_REFUSED && (pod->tunnel == POD_TUNNEL_ACCEPTED || pod->was_accepted))
		return MESH_STATE_ENABLED;
	return pod->failures > 0 ? MESH_STATE_FAILED : MESH_STATE_PENDING;
}

/* Of a pod that is not wanted, where the look into it failed: looks again. False: that has failed once more. */
static bool step_unseen(struct mesh_pod *pod)
{
	if (!pod->is_unseen)
		return true;
	pod->is_unseen = !pod->is_torn_down && !step_namespace(pod) && (pod->is_to_be_located || pod->retry_after > 0);
	return !pod->is_unseen;
}

void mesh_reconcile(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	/* Until the plugin has reported, the namespace is its own; then the arrival takes the steps. */
	if (mesh->is_stopped || pod->arrival)
		return;
	if (pod->is_missed)
		mesh_missed_read(pod);
	/* One that pods have been listed without waits for namespaces too: what stands in it is looked at after both. */
	bool is_kept = pod->is_remembered && pod->decision.wanted && !mesh_is_listed(mesh);
	if (!mesh_is_listed(mesh) && !is_kept)
		return;
	/* What stands in the kernel is looked at first, of all pods: else a pod that is not wanted and not known to be in would
	 * be passed over. */
	if (!mesh->is_kernel_seen && !is_kept)
		return;
	/* The loop's clock stands still while callbacks run, so that a timer can come before its time: then nothing is tried
	 * yet, and without another one nothing ever would be. */
	double early = pod->retry_after > 0 ? pod->retry_after - clock_seconds() : 0;
	if (early > 0)
		mesh_queue_after(pod, early);
	if (mesh_is_synced(mesh) && (sandbox_is_held(&pod->sandbox) || !pod->decision.wanted))
		pod->is_remembered = false;
	enum mesh_state state = mesh_state_of(pod);
	if (state != pod->shown_state) {
		pod->shown_state = state;
		pod->since = time(NULL);
	}
	if (pod->decision.wanted)
		enrol(pod);
	else if (!step_unseen(pod) && (pod->sandbox.was_ours || !pod->object))
		return;
	else if (mesh_has_traces(pod) || !pod->object)
		release(pod);
	else if (pod->failures > 0 && may_try(pod, METRICS_STEP_NAMESPACE))
		mesh_locate_soon(pod); /* the first look failed: something of ours may be in there */
}
