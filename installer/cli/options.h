/* --config FILE and --set KEY=VALUE, which run, install, uninstall, status and config share.
 *
 *     struct config_options config_options = { 0 };
 *     static const struct option options[] = { CONFIG_OPTIONS, { "output", required_argument, NULL, 'o' }, { 0 } };
 *     while ((option = getopt_long(...)) != -1)
 *         switch (option) {
 *         case CONFIG_OPTION_CONFIG:
 *         case CONFIG_OPTION_SET:
 *             if (config_options_take(&config_options, option, optarg) < 0) ...
 */
#ifndef AMBIENT_INSTALLER_CLI_OPTIONS_H
#define AMBIENT_INSTALLER_CLI_OPTIONS_H

#include <getopt.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/config.h"

/* Above every character, so that they collide with no short option. */
enum { CONFIG_OPTION_CONFIG = 0x100, CONFIG_OPTION_SET };

/* Entries for getopt_long's table. */
#define CONFIG_OPTIONS                                                                                                         \
	{ "config", required_argument, NULL, CONFIG_OPTION_CONFIG },                                                           \
	{                                                                                                                      \
		"set", required_argument, NULL, CONFIG_OPTION_SET                                                              \
	}

/* For usage lines. */
#define CONFIG_OPTIONS_USAGE "[--config FILE] [--set KEY=VALUE]..."

/* Borrows the arguments' texts. Zeroed: nothing given. */
struct config_options {
	const char *path;
	const char **set;
	size_t set_count;
};

/* Takes one of the two options. */
int config_options_take(struct config_options *options, int option, const char *argument, struct error *error);
void config_options_clear(struct config_options *options);
#define cleanup_config_options __attribute__((cleanup(config_options_clear)))

/* Reads the configuration that they name, with the process's environment. */
int config_options_load(const struct config_options *options, struct error *error, struct installer_config *ret_config);

#endif
