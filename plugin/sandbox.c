/* Releasing a sandbox. See sandbox.h.
 *
 * A namespace is known by device and inode, never by its path alone: a path may name another sandbox by now. Even an inode is
 * given out again after its namespace has gone, so that the remembered attachments have the last word: rules stay while any
 * other attachment stands for the namespace, which is what keeps a late DEL of an old sandbox off the new one. */
#include "plugin/sandbox.h"

#include <errno.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"

/* Opens a namespace by path unless it is the host's or not the one that is meant (`expected`, NULL: any). */
static int open_by_path(const char *path, const struct netns_id *expected, struct error *error)
{
	cleanup_close int netns = -1;
	struct netns_id id = { 0 };
	if (netns_open(path, error, &netns) < 0 || netns_refuse_own(netns, error) < 0 || netns_identify(netns, error, &id) < 0)
		return -1;
	if (expected && expected->inode != 0 && !netns_id_equal(id, *expected))
		return error_say(error, ESTALE, "%s leads to another namespace by now", path);
	return steal_fd(&netns);
}

int sandbox_open(struct call *call, const struct attachment *remembered, struct error *error, int *ret_netns)
{
	struct error unknown = { 0 };
	const char *const paths[] = { call->netns_path, remembered ? remembered->netns_path : NULL };
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		struct error problem = { 0 };
		if (!paths[i])
			continue;
		int netns = open_by_path(paths[i], remembered ? &remembered->netns : NULL, &problem);
		if (netns >= 0) {
			*ret_netns = netns;
			return 0;
		}
		if (error_may_pass(problem.number))
			error_copy(&unknown, &problem);
		call_remark(call, LOG_LEVEL_DEBUG, "nothing to release there: %s", problem.message);
	}
	if (error_is_set(&unknown))
		return error_copy(error, &unknown);
	*ret_netns = -1;
	return 0;
}

/* Whether an attachment other than (container_id, interface) stands for the same namespace. */
struct search {
	const char *container_id, *interface; /* NULL: none is passed over */
	struct netns_id netns;
	bool found;
	bool is_any; /* whether or not its namespace is there, or it is enrolled */
};

static int look_for_other(void *data, struct attachment *attachment, struct error *error)
{
	struct error problem = { 0 };
	struct search *search = data;
	if (search->found || !netns_id_equal(attachment->netns, search->netns))
		return 0;
	if (search->container_id && strcmp(attachment->container_id, search->container_id) == 0 &&
	    strcmp(attachment->interface, search->interface) == 0)
		return 0;
	search->is_any = true;
	if (!attachment->is_enrolled)
		return 0;
	/* One whose namespace has gone, and whose inode was given out again, stands for nothing. */
	cleanup_close int still_there =
		attachment->netns_path ? open_by_path(attachment->netns_path, &search->netns, &problem) : -1;
	if (still_there < 0 && error_may_pass(problem.number))
		return error_copy(error, &problem);
	search->found = still_there >= 0 || !attachment->netns_path;
	return 0;
}

/* `remembered`: the namespace that the attachment names, 0, 0 where it is not known. */
static int release(struct call *call, const char *container_id, const char *interface, struct netns_id remembered, int netns,
		   struct error *error)
{
	const char *run_dir = call->config.run_dir;
	struct search search = { .container_id = container_id, .interface = interface, .netns = remembered };
	if (netns >= 0 && netns_identify(netns, error, &search.netns) < 0)
		return -1;
	/* All attachments are read only where the mark does not say that this one stands there alone: nearly never. */
	bool has_no_other = attachment_is_alone(run_dir, search.netns, container_id, interface);
	if (netns >= 0) {
		cleanup_redirect_session struct redirect_session *session = NULL;
		if (!has_no_other && attachment_list(run_dir, look_for_other, NULL, &search, error) < 0)
			return -1;
		if (!search.found && (redirect_session_open(netns, error, &session) < 0 || redirect_remove(session, error) < 0))
			return error_wrap(error, "cannot remove the rules of container %s", container_id);
		has_no_other = !search.is_any;
	}
	if (attachment_remove(run_dir, container_id, interface, error) < 0)
		return -1;
	if (has_no_other)
		attachment_unmark(run_dir, search.netns);
	return 0;
}

int sandbox_release(struct call *call, struct netns_id remembered, int netns, struct error *error)
{
	return release(call, call->container_id, call->interface, remembered, netns, error);
}

int sandbox_release_remembered(struct call *call, const struct attachment *attachment, struct error *error)
{
	struct error problem = { 0 };
	cleanup_close int netns =
		attachment->netns_path ? open_by_path(attachment->netns_path, &attachment->netns, &problem) : -1;
	if (netns < 0 && error_may_pass(problem.number))
		return error_copy(error, &problem);
	return release(call, attachment->container_id, attachment->interface, attachment->netns, netns, error);
}

int sandbox_remove_leftovers(struct call *call, int netns, struct error *error)
{
	cleanup_redirect_session struct redirect_session *session = NULL;
	struct search search = { 0 };
	bool touched = false;
	/* Where we can't even look, no ADD ever wrote: a pod outside the mesh starts on a kernel without nftables. */
	struct error problem = { 0 };
	if (redirect_session_open(netns, &problem, &session) < 0 || redirect_is_touched(session, &problem, &touched) < 0)
		return error_may_pass(problem.number) ? error_copy(error, &problem) : 0;
	/* The attachments are read only where there can be a table of ours: nearly never. */
	if (touched && (netns_identify(netns, error, &search.netns) < 0 ||
			attachment_list(call->config.run_dir, look_for_other, NULL, &search, error) < 0))
		return -1;
	if (search.found)
		return 0;
	if (redirect_remove(session, error) == 0)
		return 0;
	/* Without a table the rule and the route alone redirect nothing. */
	return touched ? error_wrap(error, "cannot remove what an earlier ADD left") : 0;
}
