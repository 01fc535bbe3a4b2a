/* config: what is in force and where each value came from; with --reference, every key there is. */
#include <stdio.h>

#include "ambient/json.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/print.h"

int command_config(int argc, char **argv)
{
	bool is_json = false, wants_reference = false;
	const struct command_option own[] = {
		OPTION_OUTPUT(&is_json),
		{ .name = "reference", .is_given = &wants_reference },
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	if (options_parse(argc, argv, own, &config_options, NULL) < 0)
		return EXIT_STATUS_USAGE;
	if (wants_reference) {
		installer_config_print_reference(stdout);
		return EXIT_STATUS_DONE;
	}
	if (config_options_load(&config_options, &error, &config) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (!is_json) {
		print_warnings(argv[0], &config);
		installer_config_print(&config, stdout);
		return EXIT_STATUS_DONE;
	}
	cleanup_cjson cJSON *json = installer_config_to_json(&config);
	if (print_json(json) == 0)
		return EXIT_STATUS_DONE;
	return command_failed(argv[0], &(struct error){ .message = "there is no memory" }, EXIT_STATUS_FAILED);
}
