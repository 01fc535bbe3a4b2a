/* The rooms of installer/host for tests, without a cluster and without the installer's configuration:
 *
 *   host_tool watch OPTIONS       keeps binary and configuration in place; a line of JSON for each state and event; ends with
 *                                 standard input
 *   host_tool install OPTIONS     once; prints the state
 *   host_tool uninstall OPTIONS   prints what is gone
 *   host_tool choose CONFDIR      what containerd and CRI-O would use
 *   host_tool upgrade QUESTION    keep, uninstall or ask-again, and the reason
 *   host_tool migrate detect|remove NETNS pod|host
 *
 * OPTIONS and QUESTION are JSON objects with the names of the structs' members. */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "installer/host/host.h"
#include "installer/host/migrate.h"
#include "installer/host/runtime_order.h"
#include "installer/host/upgrade.h"

static int fail(const struct error *error)
{
	fprintf(stderr, "%s\n", error->message);
	return 1;
}

static void print_json(cJSON *json)
{
	cleanup_free char *text = cJSON_PrintUnformatted(json);
	puts(text);
	fflush(stdout);
	cJSON_Delete(json);
}

static const char *text_of(const cJSON *json, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));
}

static struct host_options read_options(const cJSON *json)
{
	const cJSON *mode = cJSON_GetObjectItemCaseSensitive(json, "conf_mode");
	return (struct host_options){
		.bin_dir = text_of(json, "bin_dir"),
		.conf_dir = text_of(json, "conf_dir"),
		.bin_source = text_of(json, "bin_source"),
		.conf_file = text_of(json, "conf_file"),
		.conf_mode = mode ? (mode_t)mode->valueint : 0600,
		.chained = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(json, "chained")),
		.own_config = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "own_config")),
		.own_config_file =
			text_of(json, "own_config_file") ? text_of(json, "own_config_file") : "02-ambient-cni.conflist",
		.plugin = cJSON_GetObjectItemCaseSensitive(json, "plugin"),
		.results_dir = text_of(json, "results_dir"),
	};
}

static cJSON *state_to_json(const struct host_state *state)
{
	cJSON *json = cJSON_CreateObject(), *results = cJSON_CreateObject();
	cJSON_AddBoolToObject(json, "ready", state->ready);
	cJSON_AddBoolToObject(json, "binary_ready", state->binary_ready);
	cJSON_AddBoolToObject(json, "configuration_ready", state->configuration_ready);
	cJSON_AddStringToObject(json, "reason", state->reason);
	cJSON_AddStringToObject(json, "file", state->file);
	for (int file = 0; file < HOST_FILE_COUNT; file++) {
		cJSON *counts = cJSON_AddObjectToObject(results, host_file_name((enum host_file)file));
		for (int result = 0; result < HOST_RESULT_COUNT; result++)
			cJSON_AddNumberToObject(counts, host_result_name((enum host_result)result),
						(double)state->results[file][result]);
	}
	cJSON_AddItemToObject(json, "results", results);
	return json;
}

static void print_state(void *data, const struct host_state *state)
{
	(void)data;
	print_json(state_to_json(state));
}

static void print_event(void *data, enum log_level level, const char *reason, const char *message)
{
	cJSON *json = cJSON_CreateObject();
	(void)data;
	cJSON_AddStringToObject(json, "event", reason);
	cJSON_AddStringToObject(json, "level", log_level_name(level));
	cJSON_AddStringToObject(json, "message", message);
	print_json(json);
}

static void on_input(evutil_socket_t fd, short what, void *data)
{
	char byte;
	(void)what;
	if (read(fd, &byte, 1) <= 0)
		event_base_loopbreak(data);
}

static int watch(const cJSON *json)
{
	struct error error = { 0 };
	struct host *host = NULL;
	const struct host_options options = read_options(json);
	const struct host_callbacks callbacks = { .state_changed = print_state, .event = print_event };
	struct event_base *base = event_base_new();
	struct event *input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, base);
	event_add(input, NULL);
	if (host_new(base, &options, &callbacks, NULL, &error, &host) < 0)
		return fail(&error);
	event_base_dispatch(base);
	host_free(host);
	event_free(input);
	event_base_free(base);
	return 0;
}

static int install(const cJSON *json)
{
	struct error error = { 0 };
	struct host_state state;
	const struct host_options options = read_options(json);
	const struct host_callbacks callbacks = { .event = print_event };
	if (host_install_once(&options, &callbacks, NULL, &error, &state) < 0)
		return fail(&error);
	print_json(state_to_json(&state));
	return 0;
}

static int uninstall(const cJSON *json)
{
	struct error error = { 0 };
	struct host_uninstalled uninstalled;
	const struct host_options options = read_options(json);
	int result = host_uninstall(&options, &error, &uninstalled);
	cJSON *answer = cJSON_CreateObject();
	cJSON_AddBoolToObject(answer, "configuration_gone", uninstalled.configuration_gone);
	cJSON_AddBoolToObject(answer, "binary_gone", uninstalled.binary_gone);
	cJSON_AddStringToObject(answer, "remark", uninstalled.remark);
	print_json(answer);
	return result < 0 ? 1 : 0;
}

static void add_choice(cJSON *json, const char *key, const struct runtime_file *file)
{
	cJSON_AddItemToObject(json, key, file ? cJSON_CreateString(file->name) : cJSON_CreateNull());
}

static int choose(const char *conf_dir)
{
	struct error error = { 0 };
	cleanup_runtime_directory struct runtime_directory directory = { 0 };
	struct runtime_choice choice;
	if (runtime_directory_read(conf_dir, &error, &directory) < 0)
		return fail(&error);
	runtime_directory_choose(&directory, &choice);
	cJSON *json = cJSON_CreateObject();
	add_choice(json, "containerd", choice.containerd);
	add_choice(json, "crio", choice.crio);
	add_choice(json, "stops_at", choice.stops_at);
	cJSON_AddStringToObject(json, "problem", choice.stops_at ? choice.stops_at->problem : "");
	print_json(json);
	return 0;
}

static int upgrade(const cJSON *json)
{
	static const char *const names[] = {
		[UPGRADE_KEEP] = "keep", [UPGRADE_UNINSTALL] = "uninstall", [UPGRADE_ASK_AGAIN] = "ask-again"
	};
	const cJSON *refused = cJSON_GetObjectItemCaseSensitive(json, "refused_seconds");
	const cJSON *status = cJSON_GetObjectItemCaseSensitive(json, "status");
	const struct upgrade_question question = {
		.safe_upgrade = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(json, "safe_upgrade")),
		.status = status ? status->valueint : 0,
		.daemon_set = cJSON_GetObjectItemCaseSensitive(json, "daemon_set"),
		.node = cJSON_GetObjectItemCaseSensitive(json, "node"),
		.refused_seconds = refused ? refused->valuedouble : 0,
	};
	char reason[512];
	enum upgrade_verdict verdict = upgrade_decide(&question, reason, sizeof reason);
	cJSON *answer = cJSON_CreateObject();
	cJSON_AddStringToObject(answer, "verdict", names[verdict]);
	cJSON_AddStringToObject(answer, "reason", reason);
	print_json(answer);
	return 0;
}

static int migrate(const char *verb, const char *path, const char *where)
{
	struct error error = { 0 };
	struct migrate_found found = { 0 };
	cleanup_close int netns = -1;
	struct nft_socket *socket = NULL;
	enum migrate_place place = strcmp(where, "host") == 0 ? MIGRATE_HOST : MIGRATE_POD;
	if (netns_open(path, &error, &netns) < 0 ||
	    (strcmp(verb, "remove") == 0 ? migrate_remove(netns, place, &error, &found, &socket)
					 : migrate_detect(netns, place, &error, &found)) < 0)
		return fail(&error);
	nft_socket_close(socket);
	cJSON *answer = cJSON_CreateObject();
	cJSON_AddBoolToObject(answer, "nftables", found.nftables);
	cJSON_AddBoolToObject(answer, "iptables", found.iptables);
	cJSON_AddBoolToObject(answer, "ipsets", found.ipsets);
	cJSON_AddBoolToObject(answer, "legacy", found.legacy);
	cJSON_AddStringToObject(answer, "legacy_command", found.legacy_command);
	print_json(answer);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const cJSON *json);
	} verbs[] = { { "watch", watch }, { "install", install }, { "uninstall", uninstall }, { "upgrade", upgrade } };
	if (argc == 3 && strcmp(argv[1], "choose") == 0)
		return choose(argv[2]);
	if (argc == 5 && strcmp(argv[1], "migrate") == 0)
		return migrate(argv[2], argv[3], argv[4]);
	for (size_t i = 0; argc == 3 && i < sizeof verbs / sizeof verbs[0]; i++) {
		if (strcmp(argv[1], verbs[i].name) != 0)
			continue;
		struct error error = { 0 };
		cleanup_cjson cJSON *json = NULL;
		if (json_parse(argv[2], strlen(argv[2]), 1 << 20, "the argument", &error, &json) < 0)
			return fail(&error);
		return verbs[i].run(json);
	}
	fputs("usage: host_tool watch|install|uninstall|choose|upgrade|migrate ...\n", stderr);
	return 2;
}
