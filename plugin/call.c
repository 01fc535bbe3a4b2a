/* What the verbs share. See call.h. */
#include "plugin/call.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"

void call_remark(struct call *call, enum log_level level, const char *format, ...)
{
	char message[512];
	va_list arguments;
	if (level < call->config.log_level)
		return;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	log_write(&call->log, level, NULL, "%s", message);
	size_t used = strlen(call->remarks);
	snprintf(call->remarks + used, sizeof call->remarks - used, "%s%s: %s", used ? "\n" : "", log_level_name(level),
		 message);
}

static int copy_text(const char *text, struct error *error, char **ret_copy)
{
	if (!text || text[0] == '\0')
		return 0;
	char *copy = strdup(text);
	if (!copy)
		return error_set(error, ENOMEM, "cannot describe the attachment");
	*ret_copy = copy;
	return 0;
}

/* An address belongs to the pod unless its interface is named and stands on the host. */
static bool is_of_pod(const cJSON *result, const cJSON *ip)
{
	const cJSON *index = cJSON_GetObjectItemCaseSensitive(ip, "interface");
	if (!cJSON_IsNumber(index) || index->valueint < 0)
		return true;
	const cJSON *interface = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(result, "interfaces"), index->valueint);
	const cJSON *sandbox = cJSON_GetObjectItemCaseSensitive(interface, "sandbox");
	return !interface || (cJSON_IsString(sandbox) && sandbox->valuestring[0] != '\0');
}

static int copy_addresses(const cJSON *result, struct error *error, struct attachment *attachment)
{
	const cJSON *ips = cJSON_GetObjectItemCaseSensitive(result, "ips"), *ip;
	attachment->addresses = calloc(ATTACHMENT_ADDRESSES_MAX, sizeof *attachment->addresses);
	if (!attachment->addresses)
		return error_set(error, ENOMEM, "cannot describe the attachment");
	cJSON_ArrayForEach (ip, ips) {
		if (!is_of_pod(result, ip))
			continue;
		if (attachment->addresses_count == ATTACHMENT_ADDRESSES_MAX)
			return error_set(error, 0, "prevResult.ips: expected at most %d addresses of the pod, found more",
					 ATTACHMENT_ADDRESSES_MAX);
		/* Without the prefix length. */
		const char *address = cJSON_GetObjectItemCaseSensitive(ip, "address")->valuestring;
		char *copy = strndup(address, strcspn(address, "/"));
		if (!copy)
			return error_set(error, ENOMEM, "cannot describe the attachment");
		attachment->addresses[attachment->addresses_count++] = copy;
	}
	return 0;
}

int call_describe(const struct call *call, const cJSON *result, int netns, struct error *error,
		  struct attachment *ret_attachment, enum cni_code *ret_code)
{
	cleanup_attachment struct attachment attachment = { 0 };
	redirect_init(&attachment.redirect);
	*ret_code = CNI_INTERNAL;
	if (copy_text(call->config.name, error, &attachment.network) < 0 ||
	    copy_text(call->container_id, error, &attachment.container_id) < 0 ||
	    copy_text(call->interface, error, &attachment.interface) < 0 ||
	    copy_text(call->netns_path, error, &attachment.netns_path) < 0 ||
	    (netns >= 0 && netns_identify(netns, error, &attachment.netns) < 0))
		return -1;
	*ret_code = CNI_DECODING_FAILURE;
	if (result && copy_addresses(result, error, &attachment) < 0)
		return -1;
	*ret_code = CNI_INVALID_ENVIRONMENT;
	if (cni_args_get(call->args, "K8S_POD_NAMESPACE", error, &attachment.pod_namespace) < 0 ||
	    cni_args_get(call->args, "K8S_POD_NAME", error, &attachment.pod_name) < 0 ||
	    cni_args_get(call->args, "K8S_POD_UID", error, &attachment.pod_uid) < 0)
		return -1;
	*ret_code = CNI_OK;
	*ret_attachment = attachment;
	attachment = (struct attachment){ 0 };
	return 0;
}

int call_open_netns(const struct call *call, struct error *error, int *ret_netns, enum cni_code *ret_code)
{
	cleanup_close int netns = -1;
	struct error problem = { 0 };
	if (netns_open(call->netns_path, &problem, &netns) < 0) {
		*ret_code = problem.number == ENOENT || problem.number == EINVAL || problem.number == ENOTDIR
				    ? CNI_INVALID_ENVIRONMENT
				    : CNI_IO_FAILURE;
		return error_set(error, 0, "CNI_NETNS: %s", problem.message);
	}
	if (netns_refuse_own(netns, &problem) < 0) {
		*ret_code = problem.number == EPERM ? CNI_INVALID_NAMESPACE : CNI_IO_FAILURE;
		return error_set(error, 0, "CNI_NETNS=%s: %s; a pod in the host's network is never redirected",
				 call->netns_path, problem.message);
	}
	*ret_netns = steal_fd(&netns);
	return 0;
}
