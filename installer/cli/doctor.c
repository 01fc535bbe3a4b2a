/* doctor: whether this node can do what the node agent needs, before it is installed and when something does not work. Nothing
 * is changed: what must be tried is tried in a network namespace that goes with this process.
 *
 *   doctor_node.c     the kernel, limits, the paths of the configuration
 *   doctor_network.c  the primary CNI, what istio-cni left
 *   doctor_cluster.c  the agent, its tunnel, the API server and what we may do there
 *   doctor_report.c   what they have found, for people and for machines */
#include "installer/cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/json.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/print.h"

#define HOST_MOUNT "/host"

/* On the node itself, not in the agent's container, the host's files stand where they are: defaults say where in a container.
 */
static void leave_host_mount(struct installer_config *config)
{
	const struct {
		const char *key;
		char *path;
	} paths[] = {
		{ "host.binDir", config->host.bin_dir },
		{ "host.confDir", config->host.conf_dir },
		{ "host.procDir", config->host.proc_dir },
		{ "host.netnsDir", config->host.netns_dir },
	};
	cleanup_cjson cJSON *json = installer_config_to_json(config);
	const cJSON *settings = json_at(json, "settings");
	if (access(HOST_MOUNT, F_OK) == 0)
		return;
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		const cJSON *setting = cJSON_GetObjectItemCaseSensitive(settings, paths[i].key);
		char *path = paths[i].path;
		if (strcmp(json_text(setting, "origin"), "default") == 0 &&
		    strncmp(path, HOST_MOUNT "/", strlen(HOST_MOUNT "/")) == 0)
			memmove(path, path + strlen(HOST_MOUNT), strlen(path + strlen(HOST_MOUNT)) + 1);
	}
}

static int examine(struct report *report, struct installer_config *config)
{
	leave_host_mount(config);
	for (size_t i = 0; i < config->warnings_count; i++)
		report_add(report, VERDICT_NOTE, "settings", NULL, "%s", config->warnings[i]);
	if (geteuid() != 0)
		report_add(report, VERDICT_PROBLEM, "rights", "run it again as root",
			   "only root can look at all of this; some findings "
			   "below may come of that");
	doctor_kernel(report);
	doctor_limits(report);
	doctor_paths(report);
	doctor_primary_cni(report);
	doctor_istio_cni(report);
	doctor_agent(report);
	doctor_api(report);
	return report->problems > 0 ? EXIT_STATUS_DIFFERENCE : EXIT_STATUS_DONE;
}

int command_doctor(int argc, char **argv)
{
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	struct report report = { .config = &config };
	const struct command_option own[] = {
		OPTION_OUTPUT(&report.is_json),
		OPTION_KUBECONFIG(&report.kubeconfig),
		{ 0 },
	};
	if (options_parse(argc, argv, own, &config_options, NULL) < 0)
		return EXIT_STATUS_USAGE;
	if (config_options_load_agents(&config_options, &error, &config) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	cleanup_cjson cJSON *findings = report.findings = cJSON_CreateArray();
	int status = examine(&report, &config);
	if (report.is_json)
		return print_json(findings) < 0 ? EXIT_STATUS_FAILED : status;
	if (report.problems > 0)
		printf("\n%zu problem%s found.\n", report.problems, report.problems == 1 ? "" : "s");
	else
		puts("\nNothing stands in the way.");
	return status;
}
