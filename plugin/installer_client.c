/* Asking the node agent. See installer_client.h.
 *
 * A socket that is not there, or refuses, is decided at once: nobody is waited for who may never come. A connection that is lost
 * in the middle (the agent restarts) is made again until timeoutSeconds have passed; then, and on every refusal, the rules that
 * this call put in are taken away again and the runtime tries later. */
#include "plugin/installer_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/outside.h"
#include "ambient/redirect.h"
#include "ambient/wire.h"
#include "plugin/sandbox.h"

#define RETRY_NANOSECONDS 50000000L

/* One ADD's conversation. `outcome` of a round. */
enum outcome {
	OUTCOME_DONE,	/* the pod may start */
	OUTCOME_FAILED, /* with code and error */
	OUTCOME_AWAY,	/* nobody is there */
	OUTCOME_LOST,	/* the connection was lost in the middle */
};

struct conversation {
	struct call *call;
	const struct attachment *attachment;
	int netns;
	long deadline; /* milliseconds of CLOCK_MONOTONIC */
	bool is_applied; /* rules are in the namespace */
	enum cni_code code;
};

static long now_milliseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int open_connection(const struct call *call, long timeout, struct error *error, int *ret_connection)
{
	cleanup_free char *path = NULL;
	if (file_join(call->config.run_dir, WIRE_SOCKET, error, &path) < 0)
		return -1;
	return wire_connect(path, timeout, error, ret_connection);
}

static bool is_nobody(int number)
{
	return number == ENOENT || number == ECONNREFUSED || number == ENOTDIR;
}

/* Sends with the log lines that have gathered. */
static int send_with_remarks(struct call *call, int connection, struct wire_message *message, int descriptor, struct error *error)
{
	message->log = call->remarks[0] ? call->remarks : NULL;
	int result = wire_send(connection, message, descriptor, error);
	message->log = NULL;
	if (result == 0)
		call->remarks[0] = '\0';
	return result;
}

/* Whether an error of sending or receiving means that the agent went away (and may be back in a moment). */
static enum outcome broken(struct conversation *conversation, const struct error *problem, struct error *error)
{
	if (problem->number == ECONNRESET || problem->number == EPIPE)
		return OUTCOME_LOST;
	if (problem->number == EAGAIN) {
		conversation->code = CNI_TRY_AGAIN_LATER;
		error_set(error, 0,
			  "the node agent (ambient-installer) did not answer within %ld s (timeoutSeconds); the runtime will try again; see "
			  "its log",
			  conversation->call->config.timeout_seconds);
	} else {
		conversation->code = problem->number == EPERM ? CNI_IO_FAILURE : CNI_TRY_AGAIN_LATER;
		error_set(error, 0, "cannot talk to the node agent (ambient-installer): %s", problem->message);
	}
	return OUTCOME_FAILED;
}

static int apply(struct conversation *conversation, const struct redirect *redirect, struct error *error)
{
	cleanup_redirect_session struct redirect_session *session = NULL;
	if (redirect_session_open(conversation->netns, error, &session) < 0 ||
	    redirect_apply(session, redirect, REDIRECT_STAGE_FULL, error) < 0)
		return -1;
	conversation->is_applied = true;
	return 0;
}

static enum outcome refused(struct conversation *conversation, const struct wire_message *result, struct error *error)
{
	conversation->code = (enum cni_code)result->code;
	error_set(error, 0, "%s%s%s", result->message, result->details ? ": " : "", result->details ? result->details : "");
	return OUTCOME_FAILED;
}

/* Applies what was decided, reports it and waits for the result. */
static enum outcome follow(struct conversation *conversation, int connection, const struct redirect *redirect, struct error *error)
{
	struct error problem = { 0 }, apply_problem = { 0 };
	struct wire_message report = { .kind = WIRE_REPORT };
	cleanup_wire_message struct wire_message result = { 0 };
	cleanup_close int descriptor = -1;
	if (apply(conversation, redirect, &apply_problem) < 0)
		report.message = apply_problem.message;
	if (send_with_remarks(conversation->call, connection, &report, -1, &problem) < 0 && !report.message)
		return broken(conversation, &problem, error);
	if (report.message) {
		conversation->code = CNI_CANNOT_REDIRECT;
		error_set(error, 0, "cannot redirect pod %s/%s: %s", conversation->attachment->pod_namespace,
			  conversation->attachment->pod_name, apply_problem.message);
		return OUTCOME_FAILED;
	}
	if (wire_receive(connection, &problem, &result, &descriptor) < 0)
		return broken(conversation, &problem, error);
	if (result.kind != WIRE_RESULT) {
		error_set(&problem, EPROTO, "it sent another message than the result");
		return broken(conversation, &problem, error);
	}
	return result.code == 0 ? OUTCOME_DONE : refused(conversation, &result, error);
}

static enum outcome converse(struct conversation *conversation, struct error *error)
{
	struct call *call = conversation->call;
	struct error problem = { 0 };
	cleanup_close int connection = -1, descriptor = -1;
	cleanup_wire_message struct wire_message answer = { 0 };
	/* Borrowed: the request is only encoded. */
	struct wire_message request = { .kind = WIRE_ADD, .attachment = *conversation->attachment };
	long left = conversation->deadline - now_milliseconds();
	if (open_connection(call, left > 1 ? left : 1, &problem, &connection) < 0)
		return is_nobody(problem.number) ? OUTCOME_AWAY : broken(conversation, &problem, error);
	if (send_with_remarks(call, connection, &request, conversation->netns, &problem) < 0 ||
	    wire_receive(connection, &problem, &answer, &descriptor) < 0)
		return broken(conversation, &problem, error);
	if (answer.kind == WIRE_RESULT && answer.code != 0)
		return refused(conversation, &answer, error);
	if (answer.kind != WIRE_DECISION) {
		error_set(&problem, EPROTO, "it sent another message than a decision");
		return broken(conversation, &problem, error);
	}
	if (answer.verdict == WIRE_VERDICT_SKIP) {
		call_remark(call, LOG_LEVEL_DEBUG, "pod %s/%s is outside the mesh: %s", conversation->attachment->pod_namespace,
			    conversation->attachment->pod_name, answer.reason ? answer.reason : "no reason given");
		return OUTCOME_DONE;
	}
	return follow(conversation, connection, &answer.redirect, error);
}

/* Whether the pod may start although the agent is away. */
static bool may_start(struct call *call, const struct attachment *attachment, struct error *error)
{
	const struct plugin_config *config = &call->config;
	cleanup_outside struct outside outside = { 0 };
	struct error problem = { 0 };
	if (strcmp(attachment->pod_namespace, config->installer_namespace) == 0 &&
	    strncmp(attachment->pod_name, config->installer_pod_prefix, strlen(config->installer_pod_prefix)) == 0) {
		call_remark(call, LOG_LEVEL_INFO, "pod %s/%s starts: it is the node agent", attachment->pod_namespace,
			    attachment->pod_name);
		return true;
	}
	if (plugin_config_excludes(config, attachment->pod_namespace))
		return true;
	if (!config->waits_when_away && outside_read(config->run_dir, &problem, &outside) == 0 &&
	    outside_is_listed(&outside, attachment->pod_namespace)) {
		call_remark(call, LOG_LEVEL_INFO,
			    "pod %s/%s starts without asking: the node agent is away, and its namespace was outside the mesh",
			    attachment->pod_namespace, attachment->pod_name);
		return true;
	}
	const char *why = "its namespace is not known to be outside the mesh";
	if (config->waits_when_away)
		why = "whenAway is closed";
	else if (problem.number == ENOENT)
		why = "nothing is known yet about the namespaces of this node (no outside.json)";
	else if (error_is_set(&problem))
		why = problem.message;
	error_set(error, 0,
		  "pod %s/%s has to wait: the node agent (ambient-installer) is not running on this node, and %s; see kubectl get pods -n %s "
		  "-l k8s-app=istio-cni-node; the runtime will try again",
		  attachment->pod_namespace, attachment->pod_name, why, config->installer_namespace);
	return false;
}

enum cni_code installer_add(struct call *call, const struct attachment *attachment, int netns, struct error *error)
{
	struct conversation conversation = {
		.call = call,
		.attachment = attachment,
		.netns = netns,
		.deadline = now_milliseconds() + call->config.timeout_seconds * 1000,
		.code = CNI_INTERNAL,
	};
	enum outcome outcome;
	bool was_there = false;
	for (;;) {
		outcome = converse(&conversation, error);
		was_there |= outcome == OUTCOME_LOST;
		bool may_come_back = outcome == OUTCOME_LOST || (outcome == OUTCOME_AWAY && was_there);
		if (!may_come_back || now_milliseconds() >= conversation.deadline)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_NANOSECONDS }, NULL);
	}
	if (outcome == OUTCOME_AWAY && !was_there) {
		if (may_start(call, attachment, error))
			return CNI_OK;
		conversation.code = CNI_TRY_AGAIN_LATER;
	} else if (outcome == OUTCOME_LOST || outcome == OUTCOME_AWAY) {
		error_set(error, 0, "the node agent (ambient-installer) closed the connection and was not back within %ld s "
				    "(timeoutSeconds); the runtime will try again",
			  call->config.timeout_seconds);
		conversation.code = CNI_TRY_AGAIN_LATER;
	}
	if (outcome == OUTCOME_DONE)
		return CNI_OK;
	struct error problem = { 0 };
	if (conversation.is_applied && sandbox_release(call, netns, &problem) < 0)
		log_write(&call->log, LOG_LEVEL_WARN, NULL, "%s", problem.message);
	return conversation.code;
}

/* One request, one result; whatever goes wrong is only said. */
static void tell(struct call *call, struct wire_message *request, int descriptor)
{
	cleanup_close int connection = -1, unexpected = -1;
	cleanup_wire_message struct wire_message result = { 0 };
	struct error problem = { 0 };
	if (open_connection(call, call->config.timeout_seconds * 1000, &problem, &connection) < 0 ||
	    send_with_remarks(call, connection, request, descriptor, &problem) < 0 ||
	    wire_receive(connection, &problem, &result, &unexpected) < 0) {
		log_write(&call->log, is_nobody(problem.number) ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, NULL,
			  "the node agent was not told: %s", problem.message);
		return;
	}
	if (result.kind != WIRE_RESULT || result.code != 0)
		log_write(&call->log, LOG_LEVEL_WARN, NULL, "the node agent did not agree: %s",
			  result.message ? result.message : "it sent another message than a result");
}

void installer_del(struct call *call, const struct attachment *attachment, int netns)
{
	struct wire_message request = { .kind = WIRE_DEL, .attachment = *attachment };
	tell(call, &request, netns);
}

void installer_gc(struct call *call)
{
	struct wire_message request = { .kind = WIRE_GC, .network = (char *)call->config.name };
	size_t count = (size_t)cJSON_GetArraySize(call->config.valid_attachments);
	cleanup_free struct wire_valid_attachment *valid = calloc(count ? count : 1, sizeof *valid);
	const cJSON *entry;
	if (!valid)
		return;
	cJSON_ArrayForEach(entry, call->config.valid_attachments)
	{
		valid[request.valid_count++] = (struct wire_valid_attachment){
			.container_id = cJSON_GetObjectItemCaseSensitive(entry, "containerID")->valuestring,
			.interface = cJSON_GetObjectItemCaseSensitive(entry, "ifname")->valuestring,
		};
	}
	request.valid = valid;
	tell(call, &request, -1);
}
