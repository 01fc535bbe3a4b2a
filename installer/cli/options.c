/* --config and --set. See options.h. */
#include "installer/cli/options.h"

#include <errno.h>
#include <stdlib.h>

int config_options_take(struct config_options *options, int option, const char *argument, struct error *error)
{
	if (option == CONFIG_OPTION_CONFIG) {
		if (options->path)
			return error_set(error, 0, "--config is given twice (%s, %s)", options->path, argument);
		options->path = argument;
		return 0;
	}
	const char **set = reallocarray(options->set, options->set_count + 1, sizeof *set);
	if (!set)
		return error_set(error, ENOMEM, "cannot keep --set");
	options->set = set;
	options->set[options->set_count++] = argument;
	return 0;
}

void config_options_clear(struct config_options *options)
{
	free((void *)options->set);
	*options = (struct config_options){ 0 };
}

int config_options_load(const struct config_options *options, struct error *error, struct installer_config *ret_config)
{
	const struct installer_config_sources sources = {
		.path = options->path,
		.set = options->set,
		.set_count = options->set_count,
	};
	return installer_config_load(&sources, error, ret_config);
}
