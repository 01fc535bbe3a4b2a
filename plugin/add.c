/* ADD: the pod's namespace enters redirection.
 *
 * With enrollment always nobody is asked. With the installer, its decision is followed, and success is told only when the
 * tunnel has acknowledged (installer_client.c). An ADD that fails takes back what it did; one that is killed leaves rules that
 * the next ADD replaces and a DEL removes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/redirect.h"
#include "plugin/call.h"
#include "plugin/installer_client.h"
#include "plugin/sandbox.h"

/* Whatever this call, or one before it that was killed, did in the namespace. What fails here has a cause that the ADD's error
 * names already; the runtime knows of no attachment, so there is none. */
static void take_back(struct call *call, int netns)
{
	struct error problem = { 0 };
	if (sandbox_release(call, (struct netns_id){ 0 }, netns, &problem) == 0)
		return;
	log_write(&call->log, LOG_LEVEL_WARN, NULL, "%s", problem.message);
	attachment_remove(call->config.run_dir, call->container_id, call->interface, NULL);
}

/* The attachment is written before the rules: then a DEL finds what a killed ADD left even without CNI_NETNS, and a late DEL
 * of an older sandbox sees that somebody stands for this namespace. */
static enum cni_code add_always(struct call *call, const cJSON *result, int netns, struct error *error)
{
	cleanup_attachment struct attachment attachment = { 0 };
	cleanup_redirect_session struct redirect_session *session = NULL;
	enum cni_code code = CNI_OK;
	if (call_describe(call, result, netns, error, &attachment, &code) < 0)
		return code;
	if (redirect_copy(&call->config.redirect, error, &attachment.redirect) < 0)
		return CNI_INTERNAL;
	attachment.is_enrolled = true;
	if (attachment_write(call->config.run_dir, &attachment, error) < 0) {
		error_wrap(error, "cannot remember the attachment in runDir");
		take_back(call, netns);
		return CNI_IO_FAILURE;
	}
	if (redirect_session_open(netns, error, &session) < 0 ||
	    redirect_apply(session, &attachment.redirect, REDIRECT_STAGE_FULL, error) < 0) {
		error_wrap(error, "cannot redirect container %s", call->container_id);
		take_back(call, netns);
		return CNI_CANNOT_REDIRECT;
	}
	call_remark(call, LOG_LEVEL_DEBUG, "redirected container %s, interface %s, namespace %s", call->container_id,
		    call->interface, call->netns_path);
	return CNI_OK;
}

static enum cni_code add_with_installer(struct call *call, const cJSON *result, int netns, struct error *error)
{
	cleanup_attachment struct attachment attachment = { 0 };
	enum cni_code code = CNI_OK;
	if (call_describe(call, result, netns, error, &attachment, &code) < 0)
		return code;
	if (!attachment.pod_namespace || !attachment.pod_name) {
		call_remark(call, LOG_LEVEL_DEBUG, "container %s is no pod: CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME",
			    call->container_id);
		return CNI_OK;
	}
	return installer_add(call, &attachment, netns, error);
}

enum cni_code verb_add(struct call *call, struct error *error, cJSON **ret_result)
{
	cleanup_close int netns = -1;
	cleanup_cjson cJSON *result = NULL;
	enum cni_code code = CNI_OK;
	if (cni_result_convert(call->config.previous_result, call->config.cni_version, error, &result) < 0)
		return CNI_DECODING_FAILURE;
	if (call_open_netns(call, error, &netns, &code) < 0)
		return code;
	code = call->config.enrollment == ENROLLMENT_ALWAYS ? add_always(call, result, netns, error)
							    : add_with_installer(call, result, netns, error);
	if (code == CNI_OK)
		*ret_result = steal_pointer(result);
	return code;
}

void verb_add_take_back(struct call *call)
{
	cleanup_close int netns = -1;
	enum cni_code code;
	if (call_open_netns(call, NULL, &netns, &code) < 0)
		return;
	if (call->config.enrollment == ENROLLMENT_INSTALLER) {
		struct error ignored = { 0 };
		cleanup_attachment struct attachment attachment = { 0 };
		if (call_describe(call, NULL, netns, &ignored, &attachment, &code) == 0)
			installer_del(call, &attachment, netns);
	}
	take_back(call, netns);
}
