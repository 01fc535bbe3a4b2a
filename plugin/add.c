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

static enum cni_code add_always(struct call *call, int netns, struct error *error)
{
	cleanup_attachment struct attachment attachment = { 0 };
	cleanup_redirect_session struct redirect_session *session = NULL;
	if (call_describe(call, netns, error, &attachment) < 0 ||
	    redirect_copy(&call->config.redirect, error, &attachment.redirect) < 0)
		return CNI_INTERNAL;
	attachment.is_enrolled = true;
	if (redirect_session_open(netns, error, &session) < 0 ||
	    redirect_apply(session, &attachment.redirect, REDIRECT_STAGE_FULL, error) < 0) {
		error_wrap(error, "cannot redirect container %s", call->container_id);
		return CNI_CANNOT_REDIRECT;
	}
	if (attachment_write(call->config.run_dir, &attachment, error) < 0) {
		error_wrap(error, "cannot remember the attachment in runDir");
		sandbox_release(call, netns, NULL);
		return CNI_IO_FAILURE;
	}
	call_remark(call, LOG_LEVEL_DEBUG, "redirected container %s, interface %s, namespace %s", call->container_id,
		    call->interface, call->netns_path);
	return CNI_OK;
}

static enum cni_code add_with_installer(struct call *call, int netns, struct error *error)
{
	cleanup_attachment struct attachment attachment = { 0 };
	if (call_describe(call, netns, error, &attachment) < 0)
		return CNI_INTERNAL;
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
		return CNI_INVALID_CONFIGURATION;
	if (call_open_netns(call, error, &netns, &code) < 0)
		return code;
	code = call->config.enrollment == ENROLLMENT_ALWAYS ? add_always(call, netns, error) :
							      add_with_installer(call, netns, error);
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
		if (call_describe(call, netns, &ignored, &attachment) == 0)
			installer_del(call, &attachment, netns);
	}
	sandbox_release(call, netns, NULL);
}
