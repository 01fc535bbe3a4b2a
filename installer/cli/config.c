/* config: what is in force and where each value came from; with --reference, every key there is. */
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"

static int failed(const char *command, const struct error *error, int status)
{
	fprintf(stderr, "ambient-installer %s: %s\n", command, error->message);
	return status;
}

static int print_json(const struct installer_config *config)
{
	cleanup_cjson cJSON *json = installer_config_to_json(config);
	cleanup_free char *text = cJSON_Print(json);
	if (!text)
		return -1;
	puts(text);
	return 0;
}

int command_config(int argc, char **argv)
{
	enum { REFERENCE = 'r', OUTPUT = 'o' };
	static const struct option options[] = {
		CONFIG_OPTIONS,
		{ "output", required_argument, NULL, OUTPUT },
		{ "reference", no_argument, NULL, REFERENCE },
		{ NULL, 0, NULL, 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	const char *output = "text";
	bool wants_reference = false;
	for (int option; (option = getopt_long(argc, argv, "o:", options, NULL)) != -1;) {
		if (option == OUTPUT)
			output = optarg;
		else if (option == REFERENCE)
			wants_reference = true;
		else if (option == '?')
			return EXIT_STATUS_USAGE;
		else if (config_options_take(&config_options, option, optarg, &error) < 0)
			return failed(argv[0], &error, EXIT_STATUS_USAGE);
	}
	bool is_json = strcmp(output, "json") == 0;
	if (optind != argc || (!is_json && strcmp(output, "text") != 0)) {
		fprintf(stderr, "ambient-installer %s: wrong arguments; see ambient-installer %s --help\n", argv[0], argv[0]);
		return EXIT_STATUS_USAGE;
	}
	if (wants_reference) {
		installer_config_print_reference(stdout);
		return EXIT_STATUS_DONE;
	}
	if (config_options_load(&config_options, &error, &config) < 0)
		return failed(argv[0], &error, EXIT_STATUS_FAILED);
	for (size_t i = 0; !is_json && i < config.warnings_count; i++)
		fprintf(stderr, "ambient-installer %s: %s\n", argv[0], config.warnings[i]);
	if (!is_json)
		installer_config_print(&config, stdout);
	else if (print_json(&config) < 0)
		return failed(argv[0], &(struct error){ .message = "there is no memory" }, EXIT_STATUS_FAILED);
	return EXIT_STATUS_DONE;
}
