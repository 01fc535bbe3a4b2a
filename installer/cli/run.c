/* run: the node agent. */
#include <stdio.h>

#include "installer/agent.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"

int command_run(int argc, char **argv)
{
	static const struct option options[] = { CONFIG_OPTIONS, { NULL, 0, NULL, 0 } };
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == '?')
			return EXIT_STATUS_USAGE;
		if (config_options_take(&config_options, option, optarg, &error) < 0) {
			fprintf(stderr, "ambient-installer %s: %s\n", argv[0], error.message);
			return EXIT_STATUS_USAGE;
		}
	}
	if (optind != argc) {
		fprintf(stderr, "ambient-installer %s: wrong arguments; see ambient-installer %s --help\n", argv[0], argv[0]);
		return EXIT_STATUS_USAGE;
	}
	if (config_options_load(&config_options, &error, &config) < 0 || agent_run(&config, &error) < 0) {
		fprintf(stderr, "ambient-installer %s: %s\n", argv[0], error.message);
		return EXIT_STATUS_FAILED;
	}
	return EXIT_STATUS_DONE;
}
