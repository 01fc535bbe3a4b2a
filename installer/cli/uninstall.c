/* uninstall: what the node agent does to the host and its pods is undone, by hand, on this node or on all. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "ambient/netns.h"
#include "ambient/wire.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/print.h"
#include "installer/cli/uninstall_all_nodes.h"
#include "installer/host/host.h"
#include "installer/host/release.h"
#include "installer/host_setup.h"
#include "installer/probes/probe_set.h"
#include "installer/succession.h"

#define ALL_NODES_SECONDS 300
#define ANNOTATION "ambient.istio.io/redirection"

/* A node agent that runs would put everything back. */
static bool agent_runs(const char *run_dir)
{
	cleanup_free char *path = NULL;
	return file_join(run_dir, WIRE_SOCKET, NULL, &path) < 0 || !succession_is_vacant(path);
}

/* What is to be done, and what was: for people as it happens and for machines at the end. */
struct uninstallation {
	const char *name; /* of the command */
	bool is_json;
	struct installer_config config;
	cJSON *released, *problems;
	size_t problems_count;
};

static void uninstallation_clear(struct uninstallation *work)
{
	installer_config_clear(&work->config);
}

static void note_problem(struct uninstallation *work, const char *text)
{
	work->problems_count++;
	if (work->is_json)
		cJSON_AddItemToArray(work->problems, cJSON_CreateString(text));
	else
		fprintf(stderr, "ambient-installer %s: %s\n", work->name, text);
}

static void note(const struct uninstallation *work, const char *text)
{
	if (!work->is_json)
		puts(text);
}

static void tell_released(void *data, const char *pod, const char *path, const char *problem)
{
	struct uninstallation *work = data;
	char line[2048];
	if (problem) {
		snprintf(line, sizeof line, "cannot release %s: %s", pod ? pod : path, problem);
		note_problem(work, line);
		return;
	}
	snprintf(line, sizeof line, "released %s", pod ? pod : path);
	note(work, line);
	cJSON_AddItemToArray(work->released, cJSON_CreateString(pod ? pod : path));
}

static void release_pods(struct uninstallation *work, int host_netns)
{
	const struct installer_config *config = &work->config;
	const struct release_places places = { .run_dir = config->run_dir,
					       .proc_dir = config->host.proc_dir,
					       .netns_dir = config->host.netns_dir,
					       .host_netns = host_netns };
	struct error error = { 0 };
	size_t before = work->problems_count;
	if (release_all(&places, tell_released, work, &error) < 0 && work->problems_count == before)
		note_problem(work, error.message);
}

/* The API server still says that they are captured: their peers would go on with HBONE. */
static void print_annotations(const struct uninstallation *work)
{
	const cJSON *pod;
	bool is_first = true;
	cJSON_ArrayForEach (pod, work->released) {
		const char *slash = strchr(pod->valuestring, '/');
		if (pod->valuestring[0] == '/' || !slash || work->is_json)
			continue;
		if (is_first)
			puts("Their annotation could not be removed from here, and peers go on with HBONE until it is; run:");
		is_first = false;
		printf("kubectl annotate pod -n %.*s %s " ANNOTATION "-\n", (int)(slash - pod->valuestring), pod->valuestring,
		       slash + 1);
	}
}

static int forget_one(void *data, struct attachment *attachment, struct error *error)
{
	return attachment_remove(data, attachment->container_id, attachment->interface, error);
}

/* Only when every pod was released: else it is known which were not. */
static void forget(struct uninstallation *work)
{
	char *run_dir = work->config.run_dir;
	struct error error = { 0 };
	cleanup_free char *outside = NULL, *attachments = NULL;
	if (attachment_list(run_dir, forget_one, NULL, run_dir, &error) < 0)
		note_problem(work, error.message);
	attachment_unmark_all(run_dir);
	if (file_join(run_dir, "outside.json", NULL, &outside) == 0)
		unlink(outside);
	if (file_join(run_dir, "attachments", NULL, &attachments) == 0)
		rmdir(attachments);
}

static int uninstall(struct uninstallation *work, const struct host_options *options, struct host_uninstalled *uninstalled)
{
	struct error error = { 0 };
	cleanup_close int host_netns = -1;
	const char *path = work->config.host.network_namespace;
	/* Before anything is done: without it the host's own namespace could be taken for a pod's. */
	if (path[0] != '\0' && netns_open(path, &error, &host_netns) < 0)
		return command_failed(work->name, &error, EXIT_STATUS_FAILED);
	if (work->config.host.install) {
		if (host_uninstall(options, &error, uninstalled) < 0)
			note_problem(work, error.message);
		if (uninstalled->configuration_gone)
			note(work, "no configuration names " HOST_PLUGIN_NAME " any more");
		if (uninstalled->binary_gone)
			note(work, "the plugin is gone");
		if (uninstalled->configuration_gone && uninstalled->remark[0] != '\0')
			note(work, uninstalled->remark);
	}
	release_pods(work, host_netns);
	error = (struct error){ 0 };
	if (probe_set_uninstall(host_netns, &error) < 0)
		note_problem(work, error.message);
	if (work->problems_count == 0)
		forget(work);
	print_annotations(work);
	return work->problems_count == 0 ? EXIT_STATUS_DONE : EXIT_STATUS_FAILED;
}

static int parse_seconds(const char *text, struct error *error, unsigned *ret_seconds)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < 1 || value > 86400)
		return error_set(error, 0, "--timeout: expected seconds, 1 to 86400, found \"%.32s\"", text);
	*ret_seconds = (unsigned)value;
	return 0;
}

int command_uninstall(int argc, char **argv)
{
	__attribute__((cleanup(uninstallation_clear))) struct uninstallation work = { .name = argv[0] };
	bool is_forced = false, is_all_nodes = false;
	const char *timeout = NULL;
	const struct command_option own[] = {
		OPTION_OUTPUT(&work.is_json),
		{ .name = "force", .is_given = &is_forced },
		{ .name = "all-nodes", .is_given = &is_all_nodes },
		{ .name = "timeout", .text = &timeout },
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_host_setup struct host_setup setup = { 0 };
	struct host_uninstalled uninstalled = { 0 };
	struct error error = { 0 };
	unsigned seconds = ALL_NODES_SECONDS;
	if (options_parse(argc, argv, own, &config_options, NULL) < 0)
		return EXIT_STATUS_USAGE;
	if (timeout && parse_seconds(timeout, &error, &seconds) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_USAGE);
	if (timeout && !is_all_nodes)
		return command_misused(argv[0], "--timeout goes with --all-nodes");
	if (is_all_nodes && (is_forced || work.is_json))
		return command_misused(argv[0], "--all-nodes goes with neither --force nor -o json");
	if (config_options_load(&config_options, &error, &work.config) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	print_warnings(argv[0], &work.config);
	if (is_all_nodes && uninstall_all_nodes(&work.config, seconds, &error) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (is_all_nodes)
		return EXIT_STATUS_DONE;
	if (!is_forced && agent_runs(work.config.run_dir)) {
		fprintf(stderr,
			"ambient-installer %s: the node agent runs here and would put everything back: remove its DaemonSet or "
			"stop it first (--force goes on all the same)\n",
			argv[0]);
		return EXIT_STATUS_FAILED;
	}
	if (host_setup_make(&work.config, &error, &setup) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);

	cleanup_cjson cJSON *json = cJSON_CreateObject();
	work.released = cJSON_AddArrayToObject(json, "released");
	work.problems = cJSON_AddArrayToObject(json, "problems");
	int status = uninstall(&work, &setup.options, &uninstalled);
	if (!work.is_json)
		return status;
	cJSON_AddBoolToObject(json, "configurationGone", uninstalled.configuration_gone);
	cJSON_AddBoolToObject(json, "binaryGone", uninstalled.binary_gone);
	cJSON_AddStringToObject(json, "remark", uninstalled.remark);
	return print_json(json) < 0 ? EXIT_STATUS_FAILED : status;
}
