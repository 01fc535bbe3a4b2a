/* Asking the node agent. See installer_client.h.
 *
 * A socket that is not there, or refuses, is decided at once: nobody is waited for who may never come. A connection that is
 * lost in the middle (the agent restarts) is made again until timeoutSeconds have passed; then, and on every refusal, the rules
 * that this call put in are taken away again and the runtime tries later. */
#include "plugin/installer_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/file.h"
#include "ambient/outside.h"
#include "ambient/redirect.h"
#include "ambient/wire.h"
#include "plugin/sandbox.h"

#define RETRY_NANOSECONDS 50000000L

/* One ADD's conversation. `outcome` of a round. */
enum outcome {
	OUTCOME_DONE,	 /* the pod may start, in the mesh */
	OUTCOME_OUTSIDE, /* the pod may start, outside */
	OUTCOME_FAILED,	 /* with code and error */
	OUTCOME_AWAY,	 /* nobody is there */
	OUTCOME_LOST,	 /* the connection was lost in the middle */
};

struct conversation {
	struct call *call;
	const struct attachment *attachment;
	int netns;
	int64_t deadline; /* milliseconds of CLOCK_MONOTONIC */
	bool is_applied;  /* rules are in the namespace */
	bool is_answered; /* the agent was there and said no, or the kernel did: no silence */
	enum cni_code code;
};

/* Waits for a packet until `deadline`. */
static int receive(int connection, int64_t deadline, struct error *error, struct wire_message *ret_message)
{
	cleanup_close int descriptor = -1;
	for (;;) {
		int64_t left = deadline - clock_milliseconds();
		struct pollfd poll_set = { .fd = connection, .events = POLLIN };
		int ready = poll(&poll_set, 1, left > 0 ? (int)left : 0);
		if (ready > 0)
			return wire_receive(connection, error, ret_message, &descriptor);
		if (ready == 0)
			return error_set(error, EAGAIN, "no message came");
		if (errno != EINTR)
			return error_set(error, errno, "cannot wait for a message");
	}
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
	return number == ENOENT || number == ECONNREFUSED || number == ENOTDIR || number == ENOTSOCK;
}

/* Sends with the log lines that have gathered. */
static int send_with_remarks(struct call *call, int connection, struct wire_message *message, int descriptor,
			     struct error *error)
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
			  "the node agent (ambient-installer) did not answer within %ld s (timeoutSeconds); the runtime will "
			  "try again; see its log",
			  conversation->call->config.timeout_seconds);
	} else {
		bool is_permission = problem->number == EPERM || problem->number == EACCES;
		conversation->code = problem->number == ENAMETOOLONG ? CNI_INVALID_CONFIGURATION
				     : is_permission		     ? CNI_IO_FAILURE
								     : CNI_TRY_AGAIN_LATER;
		error_set(error, 0, "cannot talk to the node agent (ambient-installer): %s", problem->message);
	}
	return OUTCOME_FAILED;
}

static int apply(struct conversation *conversation, const struct redirect *redirect, struct error *error)
{
	struct call *call = conversation->call;
	double began = clock_seconds();
	cleanup_redirect_session struct redirect_session *session = NULL;
	if (redirect_session_open(conversation->netns, error, &session) < 0 ||
	    redirect_apply(session, redirect, REDIRECT_STAGE_FULL, error) < 0)
		return -1;
	conversation->is_applied = true;
	call_remark(call, LOG_LEVEL_DEBUG, "redirected container %s, interface %s, namespace %s, in %.1f ms",
		    call->container_id, call->interface, call->netns_path, (clock_seconds() - began) * 1000);
	return 0;
}

static enum outcome refused(struct conversation *conversation, const struct wire_message *result, struct error *error)
{
	/* 3 would tell the runtime that there is nothing to clean up. */
	conversation->code = result->code == CNI_UNKNOWN_CONTAINER ? CNI_INTERNAL : (enum cni_code)result->code;
	conversation->is_answered = true;
	error_set(error, 0, "%s%s%s", result->message, result->details ? ": " : "", result->details ? result->details : "");
	return OUTCOME_FAILED;
}

/* Applies what was decided, reports it and waits for the result. */
static enum outcome follow(struct conversation *conversation, int connection, const struct redirect *redirect,
			   struct error *error)
{
	struct error problem = { 0 }, apply_problem = { 0 };
	struct wire_message report = { .kind = WIRE_REPORT };
	cleanup_wire_message struct wire_message result = { 0 };
	if (apply(conversation, redirect, &apply_problem) < 0)
		report.message = apply_problem.message;
	if (send_with_remarks(conversation->call, connection, &report, -1, &problem) < 0 && !report.message)
		return broken(conversation, &problem, error);
	if (report.message) {
		conversation->code = CNI_CANNOT_REDIRECT;
		conversation->is_answered = true;
		error_set(error, 0, "cannot redirect pod %s/%s: %s", conversation->attachment->pod_namespace,
			  conversation->attachment->pod_name, apply_problem.message);
		return OUTCOME_FAILED;
	}
	if (receive(connection, conversation->deadline, &problem, &result) < 0)
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
	cleanup_close int connection = -1;
	cleanup_wire_message struct wire_message answer = { 0 };
	/* Borrowed: the request is only encoded. */
	int64_t left = conversation->deadline - clock_milliseconds();
	left = left > 1 ? left : 1;
	struct wire_message request = { .kind = WIRE_ADD,
					.attachment = *conversation->attachment,
					.timeout_milliseconds = left };
	if (open_connection(call, left, &problem, &connection) < 0)
		return is_nobody(problem.number) ? OUTCOME_AWAY : broken(conversation, &problem, error);
	if (send_with_remarks(call, connection, &request, conversation->netns, &problem) < 0 ||
	    receive(connection, conversation->deadline, &problem, &answer) < 0)
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
		return OUTCOME_OUTSIDE;
	}
	return follow(conversation, connection, &answer.redirect, error);
}

/* Pods that are never in the mesh: nobody's silence holds them, the agent's own among them. */
static bool is_never_selected(struct call *call, const struct attachment *attachment)
{
	const struct plugin_config *config = &call->config;
	if (strcmp(attachment->pod_namespace, config->installer_namespace) == 0 &&
	    strncmp(attachment->pod_name, config->installer_pod_prefix, strlen(config->installer_pod_prefix)) == 0) {
		call_remark(call, LOG_LEVEL_INFO, "pod %s/%s starts: it is the node agent", attachment->pod_namespace,
			    attachment->pod_name);
		return true;
	}
	return plugin_config_excludes(config, attachment->pod_namespace);
}

/* Whether another pod may start although the agent is away. */
static bool may_start(struct call *call, const struct attachment *attachment, struct error *error)
{
	const struct plugin_config *config = &call->config;
	cleanup_outside struct outside outside = { 0 };
	struct error problem = { 0 };
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
		  "pod %s/%s has to wait: the node agent (ambient-installer) is not running on this node, and %s; see kubectl "
		  "get pods -n %s -l k8s-app=istio-cni-node; the runtime will try again",
		  attachment->pod_namespace, attachment->pod_name, why, config->installer_namespace);
	return false;
}

enum cni_code installer_add(struct call *call, const struct attachment *attachment, int netns, struct error *error)
{
	struct conversation conversation = {
		.call = call,
		.attachment = attachment,
		.netns = netns,
		.deadline = clock_milliseconds() + call->config.timeout_seconds * 1000,
		.code = CNI_INTERNAL,
	};
	enum outcome outcome;
	bool was_there = false;
	for (;;) {
		outcome = converse(&conversation, error);
		was_there |= outcome == OUTCOME_LOST;
		bool may_come_back = outcome == OUTCOME_LOST || (outcome == OUTCOME_AWAY && was_there);
		if (!may_come_back || clock_milliseconds() >= conversation.deadline)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_NANOSECONDS }, NULL);
	}
	bool is_away = outcome == OUTCOME_AWAY && !was_there;
	if (outcome != OUTCOME_DONE && outcome != OUTCOME_OUTSIDE && !conversation.is_answered &&
	    (is_never_selected(call, attachment) || (is_away && may_start(call, attachment, error))))
		outcome = OUTCOME_OUTSIDE;
	if (outcome == OUTCOME_AWAY || outcome == OUTCOME_LOST) {
		conversation.code = CNI_TRY_AGAIN_LATER;
		/* Where it never was there, may_start has said why the pod waits. */
		error_say(error, 0,
			  "the node agent (ambient-installer) closed the connection and was not back within %ld s "
			  "(timeoutSeconds); the runtime will try again",
			  call->config.timeout_seconds);
	}
	if (outcome == OUTCOME_DONE)
		return CNI_OK;

	/* Without an answer that puts it there, nothing of ours stays: what this call did goes, and what one that was killed
	 * left. */
	struct error problem = { 0 };
	bool took_back = (conversation.is_applied && outcome != OUTCOME_OUTSIDE
				  ? sandbox_release(call, attachment->netns, netns, &problem)
				  : sandbox_remove_leftovers(call, netns, &problem)) == 0;
	if (outcome != OUTCOME_OUTSIDE) {
		if (!took_back)
			log_write(&call->log, LOG_LEVEL_WARN, NULL, "%s", problem.message);
		return conversation.code;
	}
	if (took_back)
		return CNI_OK;
	error_set(error, 0, "pod %s/%s: %s", attachment->pod_namespace, attachment->pod_name, problem.message);
	return CNI_CANNOT_REDIRECT;
}

static int ask(struct call *call, struct wire_message *request, int descriptor, int64_t deadline, struct error *error,
	       struct wire_message *ret_result)
{
	cleanup_close int connection = -1;
	int64_t left = deadline - clock_milliseconds();
	if (open_connection(call, left > 1 ? left : 1, error, &connection) < 0 ||
	    send_with_remarks(call, connection, request, descriptor, error) < 0)
		return -1;
	return receive(connection, deadline, error, ret_result);
}

/* One request, one result; whatever goes wrong is only said. A connection that is lost in the middle is made once more: an
 * agent that was not told takes the removal of the rules for drift. */
static void tell(struct call *call, struct wire_message *request, int descriptor)
{
	cleanup_wire_message struct wire_message result = { 0 };
	struct error problem = { 0 };
	int64_t deadline = clock_milliseconds() + call->config.timeout_seconds * 1000;
	int asked = ask(call, request, descriptor, deadline, &problem, &result);
	if (asked < 0 && problem.number == ECONNRESET && clock_milliseconds() < deadline) {
		nanosleep(&(struct timespec){ .tv_nsec = RETRY_NANOSECONDS }, NULL);
		problem = (struct error){ 0 };
		asked = ask(call, request, descriptor, deadline, &problem, &result);
	}
	if (asked < 0) {
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
	cJSON_ArrayForEach (entry, call->config.valid_attachments) {
		valid[request.valid_count++] = (struct wire_valid_attachment){
			.container_id = cJSON_GetObjectItemCaseSensitive(entry, "containerID")->valuestring,
			.interface = cJSON_GetObjectItemCaseSensitive(entry, "ifname")->valuestring,
		};
	}
	request.valid = valid;
	tell(call, &request, -1);
}
