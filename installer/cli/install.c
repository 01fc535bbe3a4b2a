/* install: what the node agent does to the host, once and by hand. */
#include <stdio.h>
#include <string.h>

#include "ambient/json.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/print.h"
#include "installer/host/host.h"
#include "installer/host_setup.h"

static void tell_event(void *data, enum log_level level, const char *reason, const char *message)
{
	const bool *is_json = data;
	/* What keeps us from being ready is the last line anyway. */
	if (*is_json || strcmp(reason, "HostNotReady") == 0)
		return;
	fprintf(level >= LOG_LEVEL_WARN ? stderr : stdout, "%s\n", message);
}

int command_install(int argc, char **argv)
{
	bool is_json = false;
	const struct command_option own[] = { OPTION_OUTPUT(&is_json), { 0 } };
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	cleanup_host_setup struct host_setup setup = { 0 };
	const struct host_callbacks callbacks = { .event = tell_event };
	struct host_state state = { 0 };
	struct error error = { 0 };
	if (options_parse(argc, argv, own, &config_options, NULL) < 0)
		return EXIT_STATUS_USAGE;
	if (config_options_load(&config_options, &error, &config) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	print_warnings(argv[0], &config);
	if (!config.host.install) {
		fprintf(stderr, "ambient-installer %s: host.install is false: nothing is installed\n", argv[0]);
		return EXIT_STATUS_FAILED;
	}
	if (host_setup_make(&config, &error, &setup) < 0 ||
	    host_install_once(&setup.options, &callbacks, &is_json, &error, &state) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (is_json) {
		cleanup_cjson cJSON *json = cJSON_CreateObject();
		cJSON_AddBoolToObject(json, "ready", state.ready);
		cJSON_AddBoolToObject(json, "binary", state.binary_ready);
		cJSON_AddBoolToObject(json, "configuration", state.configuration_ready);
		cJSON_AddStringToObject(json, "file", state.file);
		cJSON_AddStringToObject(json, "reason", state.reason);
		if (print_json(json) < 0)
			return EXIT_STATUS_FAILED;
	} else if (state.ready) {
		printf("ready: %s/" HOST_PLUGIN_NAME " and %s/%s are in place\n", setup.options.bin_dir, setup.options.conf_dir,
		       state.file);
	} else {
		fprintf(stderr, "ambient-installer %s: not ready: %s\n", argv[0], state.reason);
	}
	return state.ready ? EXIT_STATUS_DONE : EXIT_STATUS_FAILED;
}
