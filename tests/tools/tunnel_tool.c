/* The tunnel's server as a command, for tests:
 *
 *     tunnel_tool SOCKET [KEY=NUMBER...]     hello, answer, window, accepts, absence: see struct tunnel_limits
 *
 * Commands on standard input, a line each; everything that the server tells, and the answer to a command that asks, is one JSON
 * object a line on standard output.
 *
 *     add UID NAMESPACE NAME SERVICE_ACCOUNT NETNS_PATH    tunnel_add; "-" as account is an empty one
 *     delete UID                                           tunnel_delete
 *     put UID NAMESPACE NAME SERVICE_ACCOUNT NETNS_PATH    into the snapshot; "-" as path: a Keep
 *     drop UID                                             out of the snapshot
 *     again ADD...                                         like add, and once more from inside its own answer
 *     ready 0|1      close      state      statistics      descriptors N (RLIMIT_NOFILE)      unprivileged
 *
 * The end of standard input ends the program as tunnel_server_free does it. */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "ambient/cleanup.h"
#include "installer/tunnel/server.h"

#define PODS_MAX 4096

struct pod {
	char *uid, *namespace_name, *name, *account, *path;
};

struct tool {
	struct event_base *base;
	struct tunnel_server *server;
	struct pod pods[PODS_MAX];
	size_t pod_count;
	struct pod again; /* uid NULL: none */
	char input[65536];
	size_t input_length;
};

static void print_object(cJSON *object)
{
	char *text = cJSON_PrintUnformatted(object);
	printf("%s\n", text);
	fflush(stdout);
	free(text);
	cJSON_Delete(object);
}

static cJSON *event_object(const char *event)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "event", event);
	return object;
}

static void print_problem(const char *command, const char *uid, const struct error *error)
{
	cJSON *object = event_object("failed");
	cJSON_AddStringToObject(object, "command", command);
	cJSON_AddStringToObject(object, "uid", uid);
	cJSON_AddStringToObject(object, "error", error->message);
	cJSON_AddNumberToObject(object, "number", error->number);
	print_object(object);
}

static void with_workload(struct tool *tool, const struct pod *pod, struct tunnel_snapshot *snapshot)
{
	cleanup_close int netns = strcmp(pod->path, "-") == 0 ? -1 : open(pod->path, O_RDONLY | O_CLOEXEC);
	const struct tunnel_workload workload = { .uid = pod->uid,
						  .name = pod->name,
						  .namespace_name = pod->namespace_name,
						  .service_account = strcmp(pod->account, "-") == 0 ? "" : pod->account,
						  .netns = netns };
	struct error error = { 0 };
	if ((snapshot ? tunnel_snapshot_add(snapshot, &workload, &error) : tunnel_add(tool->server, &workload, &error)) < 0)
		print_problem(snapshot ? "put" : "add", pod->uid, &error);
}

static void on_snapshot(void *data, struct tunnel_snapshot *snapshot)
{
	struct tool *tool = data;
	print_object(event_object("snapshot"));
	for (size_t i = 0; i < tool->pod_count; i++)
		with_workload(tool, &tool->pods[i], snapshot);
}

static void free_pod(struct pod *pod)
{
	free(pod->uid);
	free(pod->namespace_name);
	free(pod->name);
	free(pod->account);
	free(pod->path);
	*pod = (struct pod){ 0 };
}

static void on_answered(void *data, enum tunnel_request_kind kind, const char *uid, enum tunnel_outcome outcome,
			const struct error *error)
{
	struct tool *tool = data;
	cJSON *object = event_object("answered");
	cJSON_AddStringToObject(object, "kind", tunnel_request_kind_name(kind));
	cJSON_AddStringToObject(object, "uid", uid);
	cJSON_AddStringToObject(object, "outcome", tunnel_outcome_name(outcome));
	cJSON_AddStringToObject(object, "error", error ? error->message : "");
	cJSON_AddNumberToObject(object, "number", error ? error->number : 0);
	print_object(object);
	if (tool->again.uid && strcmp(tool->again.uid, uid) == 0) {
		struct pod pod = tool->again;
		tool->again = (struct pod){ 0 };
		with_workload(tool, &pod, NULL);
		free_pod(&pod);
	}
}

static void on_connections(void *data, size_t count)
{
	(void)data;
	cJSON *object = event_object("connections");
	cJSON_AddNumberToObject(object, "count", (double)count);
	print_object(object);
}

static void on_superseded(void *data)
{
	struct tool *tool = data;
	print_object(event_object("superseded"));
	tunnel_server_close_connections(tool->server);
}

static void print_state(struct tool *tool)
{
	cJSON *object = event_object("state"), *list = cJSON_AddArrayToObject(object, "connections");
	struct tunnel_connection_state state;
	for (size_t i = 0; tunnel_connection_state(tool->server, i, &state); i++) {
		cJSON *connection = cJSON_CreateObject();
		cJSON_AddNumberToObject(connection, "pid", state.pid);
		cJSON_AddBoolToObject(connection, "snapshotAccepted", state.is_snapshot_accepted);
		cJSON_AddNumberToObject(connection, "waiting", (double)state.waiting);
		cJSON_AddNumberToObject(connection, "unanswered", (double)state.unanswered);
		cJSON_AddItemToArray(list, connection);
	}
	print_object(object);
}

static void print_statistics(struct tool *tool)
{
	const struct tunnel_statistics *statistics = tunnel_server_statistics(tool->server);
	cJSON *object = event_object("statistics");
	for (int kind = 0; kind < TUNNEL_REQUEST_KINDS; kind++) {
		cJSON *of_kind = cJSON_AddObjectToObject(object, tunnel_request_kind_name(kind));
		for (int outcome = 0; outcome < TUNNEL_OUTCOMES; outcome++)
			cJSON_AddNumberToObject(of_kind, tunnel_outcome_name(outcome),
						(double)statistics->requests[kind][outcome]);
	}
	uint64_t sum = 0;
	for (int i = 0; i <= TUNNEL_ANSWER_BUCKETS; i++)
		sum += statistics->buckets[i];
	cJSON_AddNumberToObject(object, "answers", (double)statistics->answers);
	cJSON_AddNumberToObject(object, "inBuckets", (double)sum);
	cJSON_AddNumberToObject(object, "seconds", statistics->seconds_sum);
	cJSON_AddNumberToObject(object, "accepted", (double)statistics->connections_accepted);
	cJSON_AddNumberToObject(object, "refused", (double)statistics->connections_refused);
	cJSON_AddNumberToObject(object, "protocolErrors", (double)statistics->protocol_errors);
	cJSON_AddNumberToObject(object, "binds", (double)statistics->binds);
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	cJSON_AddNumberToObject(object, "cpu",
				(double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
					(double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	print_object(object);
}

/* Without the capabilities that lift the limit of descriptors in flight. */
static void drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };
	if (syscall(SYS_capget, &header, data) < 0)
		exit(1);
	data[0].effective &= ~(1u << CAP_SYS_ADMIN | 1u << CAP_SYS_RESOURCE);
	if (syscall(SYS_capset, &header, data) < 0)
		exit(1);
}

static size_t find_pod(const struct tool *tool, const char *uid)
{
	size_t i = 0;
	while (i < tool->pod_count && strcmp(tool->pods[i].uid, uid) != 0)
		i++;
	return i;
}

static void drop_pod(struct tool *tool, const char *uid)
{
	size_t i = find_pod(tool, uid);
	if (i == tool->pod_count)
		return;
	free_pod(&tool->pods[i]);
	tool->pods[i] = tool->pods[--tool->pod_count];
}

static void run(struct tool *tool, char *line)
{
	char *words[6] = { "", "", "", "", "", "" }, *rest = NULL;
	for (int i = 0; i < 6 && (words[i] = strtok_r(i ? NULL : line, " ", &rest)); i++)
		;
	for (int i = 0; i < 6; i++)
		if (!words[i])
			words[i] = "";
	const char *command = words[0];
	struct pod pod = { .uid = strdup(words[1]),
			   .namespace_name = strdup(words[2]),
			   .name = strdup(words[3]),
			   .account = strdup(words[4]),
			   .path = strdup(words[5]) };
	struct error error = { 0 };
	if (strcmp(command, "add") == 0 || strcmp(command, "again") == 0) {
		with_workload(tool, &pod, NULL);
		if (strcmp(command, "again") == 0) {
			free_pod(&tool->again);
			tool->again = pod;
			pod = (struct pod){ 0 };
		}
	} else if (strcmp(command, "put") == 0) {
		drop_pod(tool, pod.uid);
		tool->pods[tool->pod_count++] = pod;
		pod = (struct pod){ 0 };
	} else if (strcmp(command, "drop") == 0) {
		drop_pod(tool, pod.uid);
	} else if (strcmp(command, "delete") == 0) {
		if (tunnel_delete(tool->server, pod.uid, &error) < 0)
			print_problem("delete", pod.uid, &error);
	} else if (strcmp(command, "ready") == 0) {
		tunnel_server_set_ready(tool->server, words[1][0] == '1');
	} else if (strcmp(command, "close") == 0) {
		tunnel_server_close_connections(tool->server);
	} else if (strcmp(command, "state") == 0) {
		print_state(tool);
	} else if (strcmp(command, "statistics") == 0) {
		print_statistics(tool);
	} else if (strcmp(command, "descriptors") == 0) {
		struct rlimit limit;
		getrlimit(RLIMIT_NOFILE, &limit);
		limit.rlim_cur = strtoul(words[1], NULL, 10);
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			exit(1);
	} else if (strcmp(command, "unprivileged") == 0) {
		drop_capabilities();
	} else {
		fprintf(stderr, "tunnel_tool: there is no command %s\n", command);
		exit(2);
	}
	free_pod(&pod);
}

static void on_input(evutil_socket_t fd, short what, void *data)
{
	(void)what;
	struct tool *tool = data;
	ssize_t got = read(fd, tool->input + tool->input_length, sizeof tool->input - tool->input_length);
	if (got <= 0) {
		event_base_loopbreak(tool->base);
		return;
	}
	tool->input_length += (size_t)got;
	char *start = tool->input, *end;
	while ((end = memchr(start, '\n', tool->input_length - (size_t)(start - tool->input)))) {
		*end = '\0';
		run(tool, start);
		start = end + 1;
	}
	tool->input_length -= (size_t)(start - tool->input);
	memmove(tool->input, start, tool->input_length);
}

int main(int argc, char **argv)
{
	struct tunnel_limits limits = TUNNEL_LIMITS_DEFAULT;
	const struct {
		const char *key;
		unsigned int *value;
	} keys[] = { { "hello=", &limits.hello_milliseconds },
		     { "answer=", &limits.answer_milliseconds },
		     { "window=", &limits.window },
		     { "accepts=", &limits.accepts_per_second },
		     { "absence=", &limits.absence_milliseconds } };
	for (int i = 2; i < argc; i++)
		for (size_t key = 0; key < sizeof keys / sizeof keys[0]; key++)
			if (strncmp(argv[i], keys[key].key, strlen(keys[key].key)) == 0)
				*keys[key].value = (unsigned int)strtoul(argv[i] + strlen(keys[key].key), NULL, 10);
	if (argc < 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	const struct log log = {
		.fd = STDERR_FILENO, .level = LOG_LEVEL_DEBUG, .format = LOG_FORMAT_TEXT, .program = "tunnel_tool"
	};
	struct tool *tool = calloc(1, sizeof *tool);
	tool->base = event_base_new();
	const struct tunnel_listener listener = { .snapshot = on_snapshot,
						  .answered = on_answered,
						  .connections_changed = on_connections,
						  .superseded = on_superseded,
						  .data = tool };
	struct error error = { 0 };
	if (tunnel_server_new(tool->base, argv[1], &listener, &limits, &log, &error, &tool->server) < 0) {
		fprintf(stderr, "%s\n", error.message);
		return 1;
	}
	struct event *input = event_new(tool->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, tool);
	event_add(input, NULL);
	print_object(event_object("listening"));
	event_base_dispatch(tool->base);
	event_free(input);
	tunnel_server_free(tool->server);
	event_base_free(tool->base);
	while (tool->pod_count > 0)
		free_pod(&tool->pods[--tool->pod_count]);
	free_pod(&tool->again);
	free(tool);
	return 0;
}
