/* DEL, CHECK, GC and STATUS. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "plugin/call.h"
#include "plugin/installer_client.h"
#include "plugin/sandbox.h"

/* DEL succeeds always that it can, whatever is gone already (sandbox.c says how the right namespace is found). */
enum cni_code verb_del(struct call *call, struct error *error)
{
	cleanup_close int netns = -1;
	cleanup_attachment struct attachment remembered = { 0 }, described = { 0 };
	bool is_remembered = false;
	struct error problem = { 0 };
	if (attachment_read(call->config.run_dir, call->container_id, call->interface, &problem, &remembered, &is_remembered) <
	    0) {
		/* Without CNI_NETNS nothing else says where the rules are. */
		if (error_may_pass(problem.number)) {
			error_copy(error, &problem);
			return CNI_IO_FAILURE;
		}
		call_remark(call, LOG_LEVEL_WARN, "%s", problem.message);
	}
	if (sandbox_open(call, is_remembered ? &remembered : NULL, error, &netns) < 0)
		return CNI_IO_FAILURE;
	/* The installer first: it must not take the removal of the rules for drift. */
	if (call->config.enrollment == ENROLLMENT_INSTALLER) {
		enum cni_code code;
		if (call_describe(call, NULL, netns, &problem, &described, &code) == 0)
			installer_del(call, &described, netns);
		else
			call_remark(call, LOG_LEVEL_WARN, "the node agent was not told: %s", problem.message);
	}
	if (sandbox_release(call, remembered.netns, netns, error) < 0)
		return CNI_IO_FAILURE;
	return CNI_OK;
}

/* CHECK looks at the rules in the pod. A pod that is not enrolled, or was released since, passes. */
enum cni_code verb_check(struct call *call, struct error *error)
{
	cleanup_close int netns = -1;
	cleanup_attachment struct attachment remembered = { 0 };
	cleanup_redirect_session struct redirect_session *session = NULL;
	struct redirect_difference difference;
	bool is_remembered = false;
	enum cni_code code = CNI_OK;
	if (attachment_read(call->config.run_dir, call->container_id, call->interface, error, &remembered, &is_remembered) < 0)
		return CNI_IO_FAILURE;
	bool is_enrolled = is_remembered ? remembered.is_enrolled : call->config.enrollment == ENROLLMENT_ALWAYS;
	if (!is_enrolled)
		return CNI_OK;
	if (call_open_netns(call, error, &netns, &code) < 0)
		return code;
	const struct redirect *redirect = is_remembered ? &remembered.redirect : &call->config.redirect;
	if (redirect_session_open(netns, error, &session) < 0 ||
	    redirect_verify(session, redirect, REDIRECT_STAGE_FULL, error, &difference) < 0)
		return CNI_IO_FAILURE;
	if (difference.text[0] == '\0')
		return CNI_OK;
	error_set(error, 0, "the redirection of container %s is not what it should be: %s", call->container_id,
		  difference.text);
	return CNI_DIFFERENCE;
}

static bool is_valid(const struct call *call, const struct attachment *attachment)
{
	const cJSON *entry;
	cJSON_ArrayForEach (entry, call->config.valid_attachments) {
		const char *container_id = cJSON_GetObjectItemCaseSensitive(entry, "containerID")->valuestring;
		const char *interface = cJSON_GetObjectItemCaseSensitive(entry, "ifname")->valuestring;
		if (strcmp(container_id, attachment->container_id) == 0 && strcmp(interface, attachment->interface) == 0)
			return true;
	}
	return false;
}

static int collect_one(void *data, struct attachment *attachment, struct error *error)
{
	struct call *call = data;
	(void)error;
	/* Other networks' attachments are none of ours. */
	if (strcmp(attachment->network, call->config.name) != 0 || is_valid(call, attachment))
		return 0;
	struct error problem = { 0 };
	if (sandbox_release_remembered(call, attachment, &problem) < 0)
		call_remark(call, LOG_LEVEL_WARN, "cannot collect container %s: %s", attachment->container_id, problem.message);
	else
		call_remark(call, LOG_LEVEL_INFO, "collected container %s, interface %s: no runtime knows it",
			    attachment->container_id, attachment->interface);
	return 0;
}

static void report_corrupt(void *data, const char *message)
{
	call_remark(data, LOG_LEVEL_WARN, "%s", message);
}

/* Without a list of what is valid nothing is collected: cnitool sends none, and means "nothing is known". */
enum cni_code verb_gc(struct call *call, struct error *error)
{
	if (!call->config.valid_attachments)
		return CNI_OK;
	if (call->config.enrollment == ENROLLMENT_INSTALLER)
		installer_gc(call);
	if (attachment_list(call->config.run_dir, collect_one, report_corrupt, call, error) < 0)
		return CNI_IO_FAILURE;
	return CNI_OK;
}

/* Whether the plugin could do its work here: a whole redirection is put into a namespace made for it, which goes with this
 * process. Nothing else tells a missing kernel feature, and nothing of the host's is touched. */
enum cni_code verb_status(struct call *call, struct error *error)
{
	cleanup_close int netns = -1;
	cleanup_redirect_session struct redirect_session *session = NULL;
	(void)call;
	struct redirect redirect;
	redirect_init(&redirect);
	/* In this process itself: it does nothing else afterwards. */
	if (unshare(CLONE_NEWNET) < 0) {
		error_set(error, errno, "cannot make a network namespace to try the rules in (CAP_SYS_ADMIN is needed)");
		return CNI_NOT_AVAILABLE;
	}
	if (netns_open("/proc/thread-self/ns/net", error, &netns) < 0 || redirect_session_open(netns, error, &session) < 0 ||
	    redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, error) < 0) {
		error_wrap(error, "this node can't redirect pods");
		return CNI_NOT_AVAILABLE;
	}
	return CNI_OK;
}
