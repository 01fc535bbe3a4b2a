/* Releasing a sandbox. See sandbox.h. */
#include "plugin/sandbox.h"

#include <errno.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"

/* Whether another attachment stands for the same namespace. */
struct search {
	const char *container_id, *interface;
	struct netns_id netns;
	bool found;
};

static int look_for_other(void *data, struct attachment *attachment, struct error *error)
{
	(void)error;
	struct search *search = data;
	bool is_same = strcmp(attachment->container_id, search->container_id) == 0 &&
		       strcmp(attachment->interface, search->interface) == 0;
	if (!is_same && attachment->is_enrolled && attachment->netns.device == search->netns.device &&
	    attachment->netns.inode == search->netns.inode)
		search->found = true;
	return 0;
}

static int release(struct call *call, const char *container_id, const char *interface, int netns, struct error *error)
{
	if (netns >= 0) {
		cleanup_redirect_session struct redirect_session *session = NULL;
		struct search search = { .container_id = container_id, .interface = interface };
		if (netns_identify(netns, error, &search.netns) < 0 ||
		    attachment_list(call->config.run_dir, look_for_other, NULL, &search, error) < 0)
			return -1;
		if (!search.found && (redirect_session_open(netns, error, &session) < 0 || redirect_remove(session, error) < 0))
			return error_wrap(error, "cannot remove the rules of container %s", container_id);
	}
	return attachment_remove(call->config.run_dir, container_id, interface, error);
}

int sandbox_release(struct call *call, int netns, struct error *error)
{
	return release(call, call->container_id, call->interface, netns, error);
}

int sandbox_release_remembered(struct call *call, const struct attachment *attachment, struct error *error)
{
	cleanup_close int netns = -1;
	struct netns_id id = { 0 };
	bool is_there = attachment->netns_path && netns_open(attachment->netns_path, NULL, &netns) == 0 &&
			netns_refuse_own(netns, NULL) == 0 && netns_identify(netns, NULL, &id) == 0 &&
			id.device == attachment->netns.device && id.inode == attachment->netns.inode;
	return release(call, attachment->container_id, attachment->interface, is_there ? netns : -1, error);
}
