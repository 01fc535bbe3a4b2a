/* status: the agent's health, and the pods of this node that are in the mesh, on their way, or should be. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/json.h"
#include "installer/cli/admin_client.h"
#include "installer/cli/commands.h"
#include "installer/cli/print.h"

static void print_line(const char *name, bool is_well, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void print_line(const char *name, bool is_well, const char *format, ...)
{
	char text[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	enum colour colour = is_well ? COLOUR_NONE : COLOUR_BAD;
	printf("  %-8s %s%s%s\n", name, colour_begin(colour), text, colour_end(colour));
}

static void print_tunnel(const cJSON *agent)
{
	const cJSON *connections = json_at(agent, "tunnel.connections"), *one;
	char age[AGE_MAX];
	if (cJSON_GetArraySize(connections) == 0) {
		print_line("tunnel", false, "none is connected at %s; running pods stay as they are, new ones of the mesh wait",
			   json_text(agent, "tunnel.socket"));
		return;
	}
	cJSON_ArrayForEach (one, connections) {
		bool is_accepted = json_truth(one, "snapshotAccepted");
		print_line("tunnel", true, "connected for %s%s%s", print_seconds((long)json_number(one, "seconds"), age),
			   is_accepted ? "" : ", has not accepted the snapshot yet",
			   json_number(one, "unanswered") > 0 ? ", requests are under way" : "");
	}
}

static void print_agent(const cJSON *agent)
{
	bool is_ready = json_truth(agent, "ready"), installs = json_truth(agent, "host.install");
	const char *trouble = json_text(agent, "source.trouble");
	enum colour colour = is_ready ? COLOUR_GOOD : COLOUR_BAD;
	char age[AGE_MAX];
	printf("%s%s%s: %s%s%s, version %s, running for %s\n", colour_begin(COLOUR_STRONG), json_text(agent, "node"),
	       colour_end(COLOUR_STRONG), colour_begin(colour), is_ready ? "ready" : "not ready", colour_end(colour),
	       json_text(agent, "version"), print_age(json_text(agent, "since"), age));
	if (!is_ready)
		print_line("because", false, "%s", json_text(agent, "reason"));
	print_line("source", trouble[0] == '\0', "%s (%s)%s%s", json_text(agent, "source.kind"),
		   json_text(agent, "source.from"), trouble[0] ? ": " : "", trouble);
	print_tunnel(agent);
	print_line("plugin", json_truth(agent, "plugin.listens"), "its socket in %s %s", json_text(agent, "plugin.runDir"),
		   json_truth(agent, "plugin.listens") ? "listens" : "does not listen");
	if (!installs)
		print_line("host", json_truth(agent, "host.rules"),
			   "the plugin is left to somebody else (host.install is false)");
	else if (json_truth(agent, "host.ready"))
		print_line("host", true, "plugin in place, %s names it", json_text(agent, "host.file"));
	else
		print_line("host", false, "%s", json_text(agent, "host.reason"));
	if (!json_truth(agent, "host.rules"))
		print_line("probes", false, "the host's rules for probes do not stand");
	print_line("pods", json_number(agent, "pods.failed") == 0,
		   "%g enabled, %g pending, %g releasing, %g failed, %g outside the mesh", json_number(agent, "pods.enabled"),
		   json_number(agent, "pods.pending"), json_number(agent, "pods.releasing"), json_number(agent, "pods.failed"),
		   json_number(agent, "pods.none"));
}

static const char *why(const cJSON *pod)
{
	static const char *const keys[] = { "lastError", "waitingFor", "warning", "reason" };
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		if (json_text(pod, keys[i])[0])
			return json_text(pod, keys[i]);
	return "";
}

/* Failed ones first, then those on their way; else by name. */
static int compare(const void *a, const void *b)
{
	static const char *const order[] = { "failed", "pending", "releasing", "enabled", "none" };
	const cJSON *one = *(const cJSON *const *)a, *other = *(const cJSON *const *)b;
	size_t ranks[2] = { 0, 0 };
	for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
		ranks[0] = strcmp(json_text(one, "state"), order[i]) == 0 ? i : ranks[0];
		ranks[1] = strcmp(json_text(other, "state"), order[i]) == 0 ? i : ranks[1];
	}
	if (ranks[0] != ranks[1])
		return ranks[0] < ranks[1] ? -1 : 1;
	int by_namespace = strcmp(json_text(one, "namespace"), json_text(other, "namespace"));
	return by_namespace ? by_namespace : strcmp(json_text(one, "name"), json_text(other, "name"));
}

static int print_pods(const cJSON *pods, bool shows_all)
{
	int total = cJSON_GetArraySize(pods), width = (int)strlen("POD"), shown = 0;
	const cJSON **list = calloc((size_t)total + 1, sizeof *list), *pod;
	if (!list)
		return -1;
	cJSON_ArrayForEach (pod, pods) {
		int length = (int)(strlen(json_text(pod, "namespace")) + 1 + strlen(json_text(pod, "name")));
		if (!shows_all && !pod_has_traces(pod))
			continue;
		list[shown++] = pod;
		width = length > width ? length : width;
	}
	qsort(list, (size_t)shown, sizeof list[0], compare);
	if (shown > 0)
		printf("\n%s%-*s  %-9s  %-5s  %-6s  %-5s  %-10s  %-7s  %s%s\n", colour_begin(COLOUR_STRONG), width, "POD",
		       "STATE", "RULES", "TUNNEL", "PROBE", "ANNOTATION", "FOR", "WHY", colour_end(COLOUR_STRONG));
	for (int i = 0; i < shown; i++) {
		const char *state = json_text(list[i], "state"), *annotation = json_text(list[i], "annotation");
		enum colour colour = colour_of_state(state);
		char name[600], age[AGE_MAX];
		snprintf(name, sizeof name, "%s/%s", json_text(list[i], "namespace"), json_text(list[i], "name"));
		printf("%-*s  %s%-9s%s  %-5s  %-6s  %-5s  %-10s  %-7s  %s\n", width, name, colour_begin(colour), state,
		       colour_end(colour), json_text(list[i], "rules.stage"),
		       json_truth(list[i], "tunnel.acknowledged") ? "yes" : "no", json_truth(list[i], "probe") ? "yes" : "no",
		       annotation[0] ? annotation : "-", print_age(json_text(list[i], "since"), age), why(list[i]));
	}
	free(list);
	return 0;
}

int command_status(int argc, char **argv)
{
	bool is_json = false, shows_all = false;
	const struct command_option own[] = {
		OPTION_OUTPUT(&is_json),
		{ .name = "all", .letter = 'a', .is_given = &shows_all },
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_admin struct admin admin = { 0 };
	cleanup_cjson cJSON *agent = NULL, *pods = NULL;
	struct error error = { 0 };
	if (options_parse(argc, argv, own, &config_options, NULL) < 0)
		return EXIT_STATUS_USAGE;
	if (admin_find(&config_options, &error, &admin) < 0 || admin_get(&admin, "/status", &error, &agent) < 0 ||
	    admin_get(&admin, "/pods", &error, &pods) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	bool needs_tunnel = json_number(agent, "pods.enabled") + json_number(agent, "pods.pending") > 0;
	bool has_tunnel = cJSON_GetArraySize(json_at(agent, "tunnel.connections")) > 0;
	bool is_well = json_truth(agent, "ready") && json_number(agent, "pods.failed") == 0 &&
		       json_number(agent, "pods.pending") == 0 && (has_tunnel || !needs_tunnel);
	if (is_json) {
		cleanup_cjson cJSON *both = cJSON_CreateObject();
		if (!cJSON_AddItemReferenceToObject(both, "agent", agent) ||
		    !cJSON_AddItemReferenceToObject(both, "pods", pods) || print_json(both) < 0)
			return EXIT_STATUS_FAILED;
	} else {
		print_agent(agent);
		if (print_pods(pods, shows_all) < 0)
			return EXIT_STATUS_FAILED;
	}
	return is_well ? EXIT_STATUS_DONE : EXIT_STATUS_DIFFERENCE;
}
