/* A command's line. See options.h. */
#include "installer/cli/options.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "installer/cli/print.h"

#define CHART_CONFIG "/etc/ambient-cni/config.yaml"
#define OWN_MAX 8

/* What getopt_long returns for them: above every letter. An option of the command's own without a letter is OWN and its place.
 */
enum { CONFIG = 0x100, SET, OWN };

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

int config_options_load_agents(const struct config_options *options, struct error *error, struct installer_config *ret_config)
{
	struct config_options effective = *options; /* borrows */
	if (!effective.path && access(CHART_CONFIG, R_OK) == 0)
		effective.path = CHART_CONFIG;
	return config_options_load(&effective, error, ret_config);
}

static int take_config(struct config_options *options, const char *path, struct error *error)
{
	if (options->path)
		return error_set(error, 0, "--config is given twice (%s, %s)", options->path, path);
	options->path = path;
	return 0;
}

static int take_set(struct config_options *options, const char *assignment, struct error *error)
{
	const char **set = reallocarray(options->set, options->set_count + 1, sizeof *set);
	if (!set)
		return error_set(error, ENOMEM, "cannot keep --set");
	options->set = set;
	options->set[options->set_count++] = assignment;
	return 0;
}

static int take_own(const struct command_option *option, const char *argument, struct error *error)
{
	if (option->is_given)
		*option->is_given = true;
	else if (option->text)
		*option->text = argument;
	else if (strcmp(argument, "json") == 0 || strcmp(argument, "text") == 0)
		*option->is_json = argument[0] == 'j';
	else
		return error_set(error, 0, "--%s: expected text or json, found \"%.32s\"", option->name, argument);
	return 0;
}

static int value_of(const struct command_option *own, size_t index)
{
	return own[index].letter ? own[index].letter : OWN + (int)index;
}

/* What getopt_long asks for. */
struct tables {
	struct option names[OWN_MAX + 3];
	char letters[2 * OWN_MAX + 1];
};

static void make_tables(const struct command_option *own, bool has_config, struct tables *ret_tables)
{
	struct tables tables = { 0 };
	struct option *name = tables.names;
	char *letter = tables.letters;
	for (size_t i = 0; own[i].name; i++) {
		bool has_argument = !own[i].is_given;
		assert(i < OWN_MAX);
		*name++ =
			(struct option){ own[i].name, has_argument ? required_argument : no_argument, NULL, value_of(own, i) };
		if (own[i].letter)
			*letter++ = own[i].letter;
		if (own[i].letter && has_argument)
			*letter++ = ':';
	}
	if (has_config) {
		*name++ = (struct option){ "config", required_argument, NULL, CONFIG };
		*name++ = (struct option){ "set", required_argument, NULL, SET };
	}
	*ret_tables = tables;
}

int options_parse(int argc, char **argv, const struct command_option *own, struct config_options *config_options,
		  const char **operand)
{
	struct error error = { 0 };
	struct tables tables;
	int result = 0;
	make_tables(own, config_options, &tables);
	optind = 0; /* getopt's way to begin anew */
	for (int option; result == 0 && (option = getopt_long(argc, argv, tables.letters, tables.names, NULL)) != -1;) {
		if (option == '?') /* getopt has said so */
			return -1;
		if (option == CONFIG)
			result = take_config(config_options, optarg, &error);
		else if (option == SET)
			result = take_set(config_options, optarg, &error);
		for (size_t i = 0; own[i].name; i++)
			if (option == value_of(own, i))
				result = take_own(&own[i], optarg, &error);
	}
	if (result < 0) {
		command_misused(argv[0], "%s", error.message);
		return -1;
	}
	if (operand && optind < argc)
		*operand = argv[optind++];
	if (optind < argc) {
		command_misused(argv[0], "the argument \"%.300s\" is one too many", argv[optind]);
		return -1;
	}
	return 0;
}
