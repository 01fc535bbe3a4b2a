/* Taking us out of every configuration. See configuration.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "installer/host/configuration.h"
#include "installer/host/configuration_file.h"
#include "installer/host/conflist.h"
#include "installer/host/replace.h"
#include "installer/host/runtime_order.h"

#define CONFIGURATION_MAX (1 << 20)
#define ATTEMPTS 16

/* Cilium brings these back when it goes: they must not name a plugin that is gone by then. */
static int clean_put_away(const char *conf_dir, int directory, const char *name, struct error *error)
{
	cleanup_free char *path = NULL, *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	size_t length = 0;
	struct runtime_file file = { .name = (char *)name, .is_list = true };
	struct runtime_directory none = { 0 };
	if (file_join(conf_dir, name, error, &path) < 0)
		return -1;
	if (stat(path, &file.status) < 0 || file_read(path, CONFIGURATION_MAX, NULL, &text, &length) < 0 ||
	    json_parse(text, length, CONFIGURATION_MAX, path, NULL, &json) < 0 || !conflist_find(json, HOST_PLUGIN_NAME))
		return 0;
	if (conflist_find(json, HOST_PLUGIN_NAME) == json)
		return configuration_file_remove(directory, name, &file.status, error);
	/* The .conf that it was would come back with Cilium's next step only; as a list it works as well. */
	cJSON *entry = (cJSON *)conflist_find(json, HOST_PLUGIN_NAME);
	cJSON_DeleteItemFromObjectCaseSensitive(entry, CONFLIST_ORIGINAL_KEY);
	return configuration_file_take_out(directory, &file, json, &none, error);
}

static int remove_once(const struct host_options *options, int directory, struct error *error)
{
	cleanup_runtime_directory struct runtime_directory files = { 0 };
	if (runtime_directory_read(options->conf_dir, error, &files) < 0)
		return -1;
	int result = 0;
	for (size_t i = 0; i < files.count; i++) {
		const struct runtime_file *file = &files.files[i];
		const cJSON *entry = conflist_find(file->json, HOST_PLUGIN_NAME);
		if (!entry || file->owner == RUNTIME_FILE_MULTUS)
			continue;
		if ((entry == file->json ? configuration_file_remove(directory, file->name, &file->status, error)
					 : configuration_file_take_out(directory, file, file->json, &files, error)) < 0)
			result = -1;
	}
	for (size_t i = 0; i < files.put_away_count; i++)
		if (clean_put_away(options->conf_dir, directory, files.put_away[i], error) < 0)
			result = -1;
	return result;
}

int configuration_remove(const struct host_options *options, struct error *error)
{
	cleanup_close int directory = open(options->conf_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (directory < 0)
		return error_set(error, errno, "cannot open the configuration directory %s", options->conf_dir);
	replacement_sweep(directory);
	/* Somebody who writes at the same moment: again, with what they wrote. */
	for (int attempt = 1;; attempt++) {
		struct error problem = { 0 };
		if (remove_once(options, directory, &problem) == 0)
			return 0;
		if (problem.number != EAGAIN || attempt == ATTEMPTS)
			return error_say(error, problem.number, "%s: %s", options->conf_dir, problem.message);
	}
}
