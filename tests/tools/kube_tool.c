/* The Kubernetes source as a program, for tests: prints what the listener is told as JSON lines, and does what it reads as
 * JSON lines from standard input.
 *
 *     kube_tool [--kubeconfig FILE | --service-host HOST --service-port PORT --directory DIRECTORY] [--node NAME]
 *               [--silence MS] [--backoff MS] [--page N] [--server-seconds N] [--idle MS] [--reload MS] [--stop-at WORD]
 *
 * Commands: {"do": "annotate" | "get_pod" | "get_daemon_set" | "get_node" | "remove_taint" | "event" | "statistics" |
 * "cancel_all" | "quit", "id": ANY, ...}. Without --node there is no source, only single requests. */
#include <event2/buffer.h>
#include <event2/event.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/kube/requests.h"
#include "installer/kube/source.h"

struct question {
	struct tool *tool;
	cJSON *id;
	struct source_request *source_request;
	struct question *next;
};

struct tool {
	struct event_base *base;
	struct kube_client *client;
	struct source source;
	bool has_source;
	struct evbuffer *input;
	struct question *questions; /* to the source, unanswered */
	struct log log;
	const char *stop_at; /* source and client are freed inside of the listener's function of this name */
};

static void print(cJSON *object)
{
	cleanup_free char *text = cJSON_PrintUnformatted(object);
	puts(text);
	fflush(stdout);
	cJSON_Delete(object);
}

static const char *const kinds[] = { [SOURCE_NAMESPACE] = "namespace", [SOURCE_POD] = "pod" };

static void stop_at(struct tool *tool, const char *what)
{
	if (!tool->stop_at || strcmp(tool->stop_at, what) != 0)
		return;
	tool->source.free(tool->source.self);
	tool->has_source = false;
	kube_client_free(tool->client);
	tool->client = NULL;
	event_base_loopbreak(tool->base);
}

static void told(struct tool *tool, const char *what, enum source_kind kind, const cJSON *object)
{
	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "told", what);
	cJSON_AddStringToObject(line, "kind", kinds[kind]);
	if (object) {
		cJSON_AddItemToObject(line, "metadata",
				      cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(object, "metadata"), true));
		cJSON_AddBoolToObject(line, "has_spec", cJSON_GetObjectItemCaseSensitive(object, "spec") != NULL);
	}
	print(line);
	stop_at(tool, what);
}

static void list_started(void *data, enum source_kind kind)
{
	told(data, "list_started", kind, NULL);
}

/* An object with the label "too-much" can't be taken in. */
static bool put(void *data, enum source_kind kind, const cJSON *object)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	const cJSON *labels = cJSON_GetObjectItemCaseSensitive(metadata, "labels");
	told(data, "put", kind, object);
	return !cJSON_GetObjectItemCaseSensitive(labels, "too-much");
}

static void gone(void *data, enum source_kind kind, const cJSON *object)
{
	told(data, "gone", kind, object);
}

static void list_finished(void *data, enum source_kind kind)
{
	told(data, "list_finished", kind, NULL);
}

static void trouble(void *data, enum source_kind kind, const char *reason)
{
	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "told", reason ? "trouble" : "well");
	cJSON_AddStringToObject(line, "kind", kinds[kind]);
	if (reason)
		cJSON_AddStringToObject(line, "reason", reason);
	print(line);
	stop_at(data, reason ? "trouble" : "well");
}

static struct question *new_question(struct tool *tool, const cJSON *command)
{
	struct question *question = calloc(1, sizeof *question);
	question->tool = tool;
	question->id = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(command, "id"), true);
	question->next = tool->questions;
	tool->questions = question;
	return question;
}

static void free_question(struct question *question)
{
	struct question **at = &question->tool->questions;
	while (*at != question)
		at = &(*at)->next;
	*at = question->next;
	cJSON_Delete(question->id);
	free(question);
}

static cJSON *answer_line(struct question *question, const cJSON *object, const struct error *error)
{
	cJSON *line = cJSON_CreateObject();
	cJSON_AddItemToObject(line, "answer", question->id ? cJSON_Duplicate(question->id, true) : cJSON_CreateNull());
	cJSON_AddItemToObject(line, "object", object ? cJSON_Duplicate(object, true) : cJSON_CreateNull());
	cJSON_AddStringToObject(line, "error", error ? error->message : "");
	return line;
}

static void source_answered(void *data, enum source_outcome outcome, const cJSON *object, const struct error *error)
{
	static const char *const outcomes[] = { "done", "gone", "failed" };
	struct question *question = data;
	cJSON *line = answer_line(question, object, error);
	cJSON_AddStringToObject(line, "outcome", outcomes[outcome]);
	print(line);
	free_question(question);
}

static void client_answered(void *data, int status, const cJSON *object, const struct error *error)
{
	struct question *question = data;
	cJSON *line = answer_line(question, object, error);
	cJSON_AddNumberToObject(line, "status", status);
	print(line);
	free_question(question);
}

static const char *text(const cJSON *command, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(command, key));
}

static void print_statistics(struct tool *tool)
{
	const struct kube_statistics *statistics = kube_client_statistics(tool->client);
	cJSON *line = cJSON_CreateObject(), *requests = cJSON_AddObjectToObject(line, "requests");
	for (enum kube_result result = 0; result < KUBE_RESULT_COUNT; result++)
		cJSON_AddNumberToObject(requests, kube_result_name(result), (double)statistics->requests[result]);
	for (enum source_kind kind = 0; kind < SOURCE_KIND_COUNT; kind++) {
		char key[64];
		snprintf(key, sizeof key, "%s_events", kinds[kind]);
		cJSON_AddNumberToObject(line, key, (double)statistics->watch_events[kind]);
		snprintf(key, sizeof key, "%s_lists", kinds[kind]);
		cJSON_AddNumberToObject(line, key, (double)statistics->watch_lists[kind]);
	}
	cJSON_AddNumberToObject(line, "watch_restarts", (double)statistics->watch_restarts);
	cJSON_AddNumberToObject(line, "connections", (double)statistics->connections);
	cJSON_AddNumberToObject(line, "open_connections", statistics->open_connections);
	cJSON_AddBoolToObject(line, "statistics", true);
	print(line);
}

static void obey(struct tool *tool, const cJSON *command)
{
	const char *verb = text(command, "do");
	const char *namespace_name = text(command, "namespace"), *name = text(command, "name");
	struct error error = { 0 };
	int status = 0;
	struct kube_request *request;
	struct kube_taint_removal *removal;
	if (strcmp(verb, "quit") == 0) {
		event_base_loopbreak(tool->base);
		return;
	}
	if (strcmp(verb, "statistics") == 0) {
		print_statistics(tool);
		return;
	}
	if (strcmp(verb, "cancel_all") == 0) {
		while (tool->questions) {
			tool->source.cancel(tool->source.self, tool->questions->source_request);
			free_question(tool->questions);
		}
		return;
	}
	struct question *question = new_question(tool, command);
	if (strcmp(verb, "annotate") == 0)
		status = tool->source.annotate_pod(tool->source.self, namespace_name, name, text(command, "uid"),
						   text(command, "key"), text(command, "value"), source_answered, question,
						   &error, &question->source_request);
	else if (strcmp(verb, "get_pod") == 0)
		status = tool->source.get_pod(tool->source.self, namespace_name, name, source_answered, question, &error,
					      &question->source_request);
	else if (strcmp(verb, "get_daemon_set") == 0)
		status = kube_get_daemon_set(tool->client, namespace_name, name, client_answered, question, &error, &request);
	else if (strcmp(verb, "get_node") == 0)
		status = kube_get_node(tool->client, name, client_answered, question, &error, &request);
	else if (strcmp(verb, "remove_taint") == 0)
		status = kube_remove_taint(tool->client, name, text(command, "key"), client_answered, question, &error,
					   &removal);
	else if (strcmp(verb, "event") == 0)
		status = kube_create_event(tool->client,
					   &(struct kube_event){ .namespace_name = namespace_name,
								 .name = name,
								 .uid = text(command, "uid"),
								 .is_warning = true,
								 .reason = text(command, "reason"),
								 .message = text(command, "message"),
								 .node_name = "a" },
					   client_answered, question, &error, &request);
	else
		status = error_set(&error, 0, "unknown command %s", verb);
	if (status < 0) {
		fprintf(stderr, "kube_tool: %s\n", error.message);
		exit(1);
	}
}

static void readable(evutil_socket_t fd, short what, void *data)
{
	(void)what;
	struct tool *tool = data;
	if (evbuffer_read(tool->input, fd, 65536) <= 0) {
		event_base_loopbreak(tool->base);
		return;
	}
	for (;;) {
		cleanup_free char *line = evbuffer_readln(tool->input, NULL, EVBUFFER_EOL_LF);
		if (!line)
			return;
		cleanup_cjson cJSON *command = cJSON_Parse(line);
		obey(tool, command);
	}
}

static int run(const struct kube_client_options *client_options, const struct kube_source_options *source_options,
	       const char *stop_at_word, struct error *error)
{
	struct tool tool = {
		.base = event_base_new(), .input = evbuffer_new(), .log = *client_options->log, .stop_at = stop_at_word
	};
	struct event *event = event_new(tool.base, STDIN_FILENO, EV_READ | EV_PERSIST, readable, &tool);
	event_add(event, NULL);
	const struct source_listener listener = { .list_started = list_started,
						  .put = put,
						  .gone = gone,
						  .list_finished = list_finished,
						  .trouble = trouble,
						  .data = &tool };
	int status = kube_client_new(tool.base, client_options, error, &tool.client);
	if (status == 0 && source_options->node_name) {
		status = kube_source_new(tool.base, tool.client, source_options, &listener, error, &tool.source);
		tool.has_source = status == 0;
	}
	if (status == 0)
		event_base_dispatch(tool.base);
	if (tool.has_source)
		tool.source.free(tool.source.self);
	kube_client_free(tool.client);
	while (tool.questions)
		free_question(tool.questions);
	event_free(event);
	evbuffer_free(tool.input);
	/* What libevent frees later it frees in the loop. */
	event_base_loop(tool.base, EVLOOP_NONBLOCK);
	event_base_free(tool.base);
	libevent_global_shutdown();
	return status;
}

int main(int argc, char **argv)
{
	static const struct log log = { .fd = STDERR_FILENO, .level = LOG_LEVEL_DEBUG, .program = "kube_tool" };
	struct kube_client_options client = { .log = &log };
	struct kube_source_options source = { .log = &log };
	const char *stop_at_word = NULL;
	for (int i = 1; i + 1 < argc; i += 2) {
		const char *option = argv[i], *value = argv[i + 1];
		if (strcmp(option, "--kubeconfig") == 0)
			client.origin.kubeconfig = value;
		else if (strcmp(option, "--service-host") == 0)
			client.origin.service_host = value;
		else if (strcmp(option, "--service-port") == 0)
			client.origin.service_port = value;
		else if (strcmp(option, "--directory") == 0)
			client.origin.directory = value;
		else if (strcmp(option, "--node") == 0)
			source.node_name = value;
		else if (strcmp(option, "--silence") == 0)
			source.timing.silence_milliseconds = (unsigned)atoi(value);
		else if (strcmp(option, "--backoff") == 0)
			source.timing.backoff_milliseconds = client.backoff_milliseconds = (unsigned)atoi(value);
		else if (strcmp(option, "--page") == 0)
			source.timing.page = (unsigned)atoi(value);
		else if (strcmp(option, "--server-seconds") == 0)
			source.timing.server_seconds = (unsigned)atoi(value);
		else if (strcmp(option, "--idle") == 0)
			client.idle_milliseconds = (unsigned)atoi(value);
		else if (strcmp(option, "--stop-at") == 0)
			stop_at_word = value;
		else if (strcmp(option, "--reload") == 0)
			client.reload_milliseconds = (unsigned)atoi(value);
		else
			return 2;
	}
	struct error error = { 0 };
	if (run(&client, &source, stop_at_word, &error) < 0) {
		fprintf(stderr, "kube_tool: %s\n", error.message);
		return 1;
	}
	return 0;
}
