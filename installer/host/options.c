/* The keeper's options: owned copies, and what they may be. See options.h. */
#include "installer/host/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void host_options_clear(struct host_options *options)
{
	free((char *)options->bin_dir);
	free((char *)options->conf_dir);
	free((char *)options->bin_source);
	free((char *)options->conf_file);
	free((char *)options->own_config_file);
	free((char *)options->results_dir);
	cJSON_Delete((cJSON *)options->plugin);
	*options = (struct host_options){ 0 };
}

static bool copy_text(const char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

int host_options_copy(const struct host_options *from, struct error *error, struct host_options *ret_options)
{
	struct host_options copy = { .conf_mode = from->conf_mode,
				     .chained = from->chained,
				     .own_config = from->own_config,
				     .plugin = from->plugin ? cJSON_Duplicate(from->plugin, true) : cJSON_CreateObject() };
	if (!copy_text(&copy.bin_dir, from->bin_dir) || !copy_text(&copy.conf_dir, from->conf_dir) ||
	    !copy_text(&copy.bin_source, from->bin_source) || !copy_text(&copy.conf_file, from->conf_file) ||
	    !copy_text(&copy.own_config_file, from->own_config_file) || !copy_text(&copy.results_dir, from->results_dir) ||
	    !copy.plugin) {
		host_options_clear(&copy);
		return error_set(error, ENOMEM, "cannot keep the host's options");
	}
	*ret_options = copy;
	return 0;
}

static bool is_file_name(const char *name)
{
	const char *extension = name ? strrchr(name, '.') : NULL;
	return extension && !strchr(name, '/') && strlen(name) < 200 &&
	       (strcmp(extension, ".conf") == 0 || strcmp(extension, ".conflist") == 0 || strcmp(extension, ".json") == 0);
}

int host_options_check(const struct host_options *options, struct error *error)
{
	bool has_conf_file = options->conf_file && options->conf_file[0] != '\0';
	bool needs_own = options->chained ? options->own_config : !has_conf_file;
	if (has_conf_file && !is_file_name(options->conf_file))
		return error_set(error, 0,
				 "host.confFile: expected the name of a file without a directory, that ends with .conf, "
				 ".conflist or .json, found \"%.64s\"",
				 options->conf_file);
	if (needs_own && !is_file_name(options->own_config_file))
		return error_set(error, 0,
				 "host.ownConfigFile: expected the name of a file without a directory, that ends with "
				 ".conflist, found \"%.64s\"",
				 options->own_config_file ? options->own_config_file : "");
	const char *extension = needs_own ? strrchr(options->own_config_file, '.') : NULL;
	if (options->chained && extension && strcmp(extension, ".conflist") != 0)
		return error_set(error, 0, "host.ownConfigFile: expected a name that ends with .conflist, found \"%.64s\"",
				 options->own_config_file);
	return 0;
}
