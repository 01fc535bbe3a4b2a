/* A pod's network namespace, held open while anything of ours is in it.
 *
 * Sockets stay in the namespace: the session, through which rules are read and changed, the watch, which hears others change
 * them, and for a pod that istio-cni had the one that removed its rules. They are kept, since closing a netfilter socket soon
 * after something was destroyed in its namespace waits for the kernel (12 to 36 ms): so they are also closed a second late.
 * They keep a dead namespace alive: a pod that goes lets go of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"
#include "installer/netns/netns_path.h"
#include "installer/mesh/state.h"

#define CLOSE_AFTER 1.0

/* Somebody who changes a pod's rules all the time is answered at once this many times a window, then once a second. */
#define REPAIR_WINDOW 10.0
#define REPAIRS_PER_WINDOW 50
#define REPAIR_PAUSE 1.0

/* What was open in a namespace that was let go. */
struct closing {
	TAILQ_ENTRY(closing) all;
	struct redirect_session *session;
	struct drift_watch *watch;
	struct nft_socket *taken_over;
	double due;
};

static void close_now(const struct closing *closing)
{
	redirect_session_close(closing->session);
	drift_watch_free(closing->watch);
	nft_socket_close(closing->taken_over);
}

static void close_later(struct mesh *mesh, const struct closing *open)
{
	drift_watch_stop(open->watch);
	struct closing *closing = malloc(sizeof *closing);
	if (!closing) {
		close_now(open);
		return;
	}
	*closing = *open;
	closing->due = clock_seconds() + CLOSE_AFTER;
	if (TAILQ_EMPTY(&mesh->closings))
		mesh_arm(mesh->close, CLOSE_AFTER);
	TAILQ_INSERT_TAIL(&mesh->closings, closing, all);
}

static void close_first(struct mesh *mesh)
{
	struct closing *closing = TAILQ_FIRST(&mesh->closings);
	TAILQ_REMOVE(&mesh->closings, closing, all);
	close_now(closing);
	free(closing);
}

void sandbox_close_due(evutil_socket_t fd, short what, void *data)
{
	struct mesh *mesh = data;
	(void)fd;
	(void)what;
	double now = clock_seconds();
	while (!TAILQ_EMPTY(&mesh->closings) && TAILQ_FIRST(&mesh->closings)->due <= now)
		close_first(mesh);
	if (!TAILQ_EMPTY(&mesh->closings))
		mesh_arm(mesh->close, TAILQ_FIRST(&mesh->closings)->due - now);
}

void sandbox_close_all(struct mesh *mesh)
{
	while (!TAILQ_EMPTY(&mesh->closings))
		close_first(mesh);
}

bool sandbox_is_held(const struct sandbox *sandbox)
{
	return sandbox->session != NULL;
}

static void changed(void *data, const struct drift *drift)
{
	struct mesh_pod *pod = data;
	struct sandbox *sandbox = &pod->sandbox;
	uint32_t own = drift->kind == DRIFT_NFTABLES ? redirect_session_port(sandbox->session)
						     : redirect_session_route_port(sandbox->session);
	/* What the kernel does by itself (port 0) counts: lo going down takes the route along. */
	if (drift->port != 0 && drift->port == own)
		return;
	/* The plugin writes there until it reports. */
	if (pod->arrival && sandbox->standing == REDIRECT_STANDING_NOTHING)
		return;
	sandbox->is_suspect = true;
	sandbox->suspicion = drift->kind;
	mesh_queue(pod);
}

int sandbox_look(struct mesh_pod *pod, struct error *error)
{
	struct sandbox *sandbox = &pod->sandbox;
	if (redirect_look(sandbox->session, error, &sandbox->standing) < 0 || sandbox_take_over(pod, error) < 0)
		return -1;
	sandbox->is_looked_at = true;
	/* What exactly stands is not known: the first comparison tells. */
	sandbox->is_suspect = sandbox->standing != REDIRECT_STANDING_NOTHING;
	return 0;
}

int sandbox_hold_unseen(struct mesh_pod *pod, int netns, struct error *error)
{
	struct mesh *mesh = pod->mesh;
	struct sandbox *sandbox = &pod->sandbox;
	struct netns_id id = { 0 };
	cleanup_redirect_session struct redirect_session *session = NULL;
	struct drift_watch *watch = NULL;
	cleanup_close int copy = fcntl(netns, F_DUPFD_CLOEXEC, 3);
	if (copy < 0)
		return error_set(error, errno, "cannot hold the network namespace");
	if (netns_identify(copy, error, &id) < 0 || redirect_session_open(copy, error, &session) < 0)
		return -1;
	if (netns_id_equal(id, mesh->host))
		return error_say(error, EPERM, "the pod's network namespace is the host's own");
	if (drift_watch_new(mesh->base, copy, changed, pod, error, &watch) < 0)
		return -1;
	sandbox_let_go(pod);
	if (!netns_id_equal(id, sandbox->id)) {
		sandbox->is_taken_over = false;
		sandbox->was_ours &= sandbox->id.inode == 0;
	}
	sandbox->id = id;
	sandbox->netns = steal_fd(&copy);
	sandbox->session = steal_pointer(session);
	sandbox->watch = watch;
	sandbox->is_looked_at = false;
	return 0;
}

int sandbox_hold(struct mesh_pod *pod, int netns, struct error *error)
{
	return sandbox_hold_unseen(pod, netns, error) < 0 ? -1 : sandbox_look(pod, error);
}

int sandbox_open_path(const struct mesh *mesh, const char *path, struct netns_id expected, struct error *error, int *ret_netns)
{
	const struct mesh_settings *settings = &mesh->settings;
	cleanup_close int netns = -1;
	struct netns_id id = { 0 };
	/* A path as the runtime sees it; the agent may see the host's folders elsewhere. */
	if (netns_path_open(path, settings->proc_dir, settings->netns_dir, &mesh->host, error, &netns) < 0 ||
	    netns_identify(netns, error, &id) < 0)
		return -1;
	if (!netns_id_equal(id, expected))
		return error_say(error, ENOENT, "%s leads to another namespace by now", path);
	*ret_netns = steal_fd(&netns);
	return 0;
}

int sandbox_reopen(struct mesh_pod *pod, struct error *error)
{
	cleanup_close int netns = -1;
	if (!pod->sandbox.netns_path || pod->sandbox.id.inode == 0)
		return error_say(error, ENOENT, "no network namespace is remembered");
	if (sandbox_open_path(pod->mesh, pod->sandbox.netns_path, pod->sandbox.id, error, &netns) < 0) {
		/* Whatever is wrong with the path, the namespace is looked for elsewhere. */
		if (!error_may_pass(error->number))
			error->number = ENOENT;
		return -1;
	}
	if (sandbox_hold(pod, netns, error) < 0)
		return -1;
	mesh_addresses_settle(pod);
	return 0;
}

void sandbox_let_go(struct mesh_pod *pod)
{
	struct sandbox *sandbox = &pod->sandbox;
	const struct closing open = { .session = sandbox->session, .watch = sandbox->watch, .taken_over = sandbox->taken_over };
	if (open.session || open.watch || open.taken_over)
		close_later(pod->mesh, &open);
	sandbox->session = NULL;
	sandbox->watch = NULL;
	sandbox->taken_over = NULL;
	if (sandbox->netns >= 0)
		close(sandbox->netns);
	sandbox->netns = -1;
	sandbox->is_suspect = false;
}

void sandbox_forget(struct mesh_pod *pod)
{
	struct sandbox *sandbox = &pod->sandbox;
	sandbox_let_go(pod);
	free(sandbox->container_id);
	free(sandbox->network);
	free(sandbox->netns_path);
	free(sandbox->addresses);
	redirect_clear(&sandbox->in_force);
	*sandbox = (struct sandbox){ .netns = -1 };
	redirect_init(&sandbox->in_force);
}

int sandbox_apply(struct mesh_pod *pod, enum redirect_stage stage, const struct redirect *redirect, struct error *error)
{
	struct sandbox *sandbox = &pod->sandbox;
	struct redirect copy = { 0 };
	if (redirect_copy(redirect, error, &copy) < 0)
		return -1;
	if (redirect_apply(sandbox->session, redirect, stage, error) < 0) {
		redirect_clear(&copy);
		/* All or nothing, but which? */
		sandbox->is_looked_at = false;
		return -1;
	}
	redirect_clear(&sandbox->in_force);
	sandbox->in_force = copy;
	sandbox->standing = stage == REDIRECT_STAGE_FULL ? REDIRECT_STANDING_FULL : REDIRECT_STANDING_GUARD;
	sandbox->was_ours = false;
	sandbox->is_suspect = false;
	sandbox->verified = time(NULL);
	pod->is_attachment_stale = true;
	mesh_remember_enrolled(pod->mesh);
	return 0;
}

int sandbox_remove(struct mesh_pod *pod, struct error *error)
{
	if (redirect_remove(pod->sandbox.session, error) < 0)
		return -1;
	pod->sandbox.standing = REDIRECT_STANDING_NOTHING;
	pod->sandbox.was_ours = false;
	pod->sandbox.is_suspect = false;
	/* It was ours from its ADD on, or was looked at. */
	pod->sandbox.is_taken_over = true;
	pod->is_attachment_stale = true;
	mesh_remember_enrolled(pod->mesh);
	return 0;
}

/* Whether the pod's repairs are not more frequent than a fight allows; if not, when to look again. */
static bool may_repair(struct mesh_pod *pod)
{
	double now = clock_seconds();
	if (pod->paused_until > now) {
		mesh_queue_after(pod, pod->paused_until - now);
		return false;
	}
	if (now - pod->repairs_since > REPAIR_WINDOW) {
		pod->repairs_since = now;
		pod->repairs = 0;
	}
	if (++pod->repairs <= REPAIRS_PER_WINDOW)
		return true;
	if (pod->repairs == REPAIRS_PER_WINDOW + 1) {
		const char *message =
			"somebody changes the pod's redirection again and again; it is put right once a second from now on";
		mesh_log(pod, LOG_LEVEL_WARN, "repair", "%s", message);
		mesh_event(pod, true, "RedirectionContested", message);
	}
	if (now - pod->repairs_since < REPAIR_PAUSE) {
		mesh_queue_after(pod, REPAIR_PAUSE - (now - pod->repairs_since));
		return false;
	}
	/* The window becomes one of a second, with one repair in it. */
	pod->repairs_since = now;
	pod->repairs = REPAIRS_PER_WINDOW + 1;
	return true;
}

const struct redirect *sandbox_expected(const struct mesh_pod *pod)
{
	return pod->sandbox.verified ? &pod->sandbox.in_force : &pod->wanted;
}

int sandbox_repair(struct mesh_pod *pod, struct error *error)
{
	struct sandbox *sandbox = &pod->sandbox;
	struct redirect_difference difference;
	const struct redirect *expected = sandbox_expected(pod);
	enum redirect_stage stage = sandbox->standing == REDIRECT_STANDING_FULL ? REDIRECT_STAGE_FULL : REDIRECT_STAGE_GUARD;
	if (redirect_verify(sandbox->session, expected, stage, error, &difference) < 0)
		return -1;
	if (difference.text[0] == '\0') {
		if (!sandbox->verified) {
			struct redirect copy = { 0 };
			if (redirect_copy(expected, error, &copy) < 0)
				return -1;
			redirect_clear(&sandbox->in_force);
			sandbox->in_force = copy;
			mesh_log(pod, LOG_LEVEL_DEBUG, "adopt", "the rules in the pod are as they should be");
		}
		sandbox->verified = time(NULL);
		sandbox->is_suspect = false;
		mesh_remember_enrolled(pod->mesh);
		return 0;
	}
	bool is_first = !sandbox->verified;
	if (!is_first && !may_repair(pod))
		return 0;
	double began = clock_seconds();
	if (sandbox_apply(pod, stage, expected, error) < 0)
		return error_wrap(error, "cannot repair the redirection (%s)", difference.text);
	if (is_first) {
		mesh_log(pod, LOG_LEVEL_INFO, "adopt", "the rules of an earlier run were replaced: %s", difference.text);
		return 0;
	}
	/* A runtime that takes the network down is not at fault; but as long as the pod may send a packet, rules stand. */
	if (!pod->object || pod->object->is_deleting || pod->object->has_ended) {
		mesh_log(pod, LOG_LEVEL_DEBUG, "repair", "while the pod ends, its redirection was put right: %s",
			 difference.text);
		return 0;
	}
	pod->mesh->settings.metrics
		->drift_repairs[sandbox->suspicion == DRIFT_ROUTING ? METRICS_DRIFT_ROUTES : METRICS_DRIFT_RULES]++;
	mesh_log(pod, LOG_LEVEL_WARN, "repair", "somebody changed the pod's redirection, it was put right in %.1f ms: %s",
		 (clock_seconds() - began) * 1000, difference.text);
	mesh_event(pod, true, "RedirectionRepaired", difference.text);
	return 0;
}
