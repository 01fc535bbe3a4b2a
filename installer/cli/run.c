/* run: the node agent. */
#include "installer/agent.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/print.h"

int command_run(int argc, char **argv)
{
	const struct command_option own[] = { { 0 } };
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	if (options_parse(argc, argv, own, &config_options, NULL) < 0)
		return EXIT_STATUS_USAGE;
	if (config_options_load(&config_options, &error, &config) < 0 || agent_run(&config, &error) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	return EXIT_STATUS_DONE;
}
