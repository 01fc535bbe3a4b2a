/* A command's line: --config and --set, which all commands share that read the configuration, options of its own, and at most
 * one operand. What is wrong with a line is said on stderr.
 *
 *     cleanup_config_options struct config_options config_options = { 0 };
 *     bool is_json = false, shows_all = false;
 *     const struct command_option own[] = {
 *             OPTION_OUTPUT(&is_json),
 *             { .name = "all", .letter = 'a', .is_given = &shows_all },
 *             { 0 },
 *     };
 *     if (options_parse(argc, argv, own, &config_options, NULL) < 0)
 *             return EXIT_STATUS_USAGE;
 */
#ifndef AMBIENT_INSTALLER_CLI_OPTIONS_H
#define AMBIENT_INSTALLER_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/config.h"

/* For usage lines. */
#define CONFIG_OPTIONS_USAGE "[--config FILE] [--set KEY=VALUE]..."

/* The arguments of --config and --set, borrowed. Zeroed: nothing given. */
struct config_options {
	const char *path;
	const char **set;
	size_t set_count;
};

void config_options_clear(struct config_options *options);
#define cleanup_config_options __attribute__((cleanup(config_options_clear)))

/* Reads the configuration that they name, with the process's environment. */
int config_options_load(const struct config_options *options, struct error *error, struct installer_config *ret_config);
/* The same for commands that look at the agent of this node: without --config it is the agent's own file, which the chart
 * mounts into its container, where that is there. */
int config_options_load_agents(const struct config_options *options, struct error *error, struct installer_config *ret_config);

/* An option of one command, and where its value goes: just one of the three. What is not given stays as it was. */
struct command_option {
	const char *name;
	char letter;	   /* "-a" is the same; 0: it has no short form */
	bool *is_given;	   /* it takes no argument */
	const char **text; /* it takes one, borrowed; the last one counts */
	bool *is_json;	   /* it takes "text" or "json" */
};

#define OPTION_OUTPUT(wants_json)                                                                                              \
	{                                                                                                                      \
		.name = "output", .letter = 'o', .is_json = (wants_json)                                                       \
	}
#define OPTION_KUBECONFIG(path)                                                                                                \
	{                                                                                                                      \
		.name = "kubeconfig", .text = (path)                                                                           \
	}

/* Reads a command's whole line; argv[0] is the command's name. `own` ends with an option that has no name. `config_options`:
 * NULL where the command reads no configuration. `operand`: NULL where there is none to give; stays as it was where none is
 * given. -1: the line is wrong, and that was said. */
int options_parse(int argc, char **argv, const struct command_option *own, struct config_options *config_options,
		  const char **operand);

#endif
