/* Which network configuration a runtime would use. See runtime_order.h.
 *
 * What makes a file valid is what libcni's NetworkConfFromFile and ConfFromFile (containernetworking/cni, libcni/conf.go)
 * accept and go-cni's loadFromConfDir adds. */
#include "installer/host/runtime_order.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"

#define CONFIGURATION_MAX (1 << 20)
#define PUT_AWAY_SUFFIX ".cilium_bak"

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *text, const char *suffix)
{
	size_t length = strlen(text), suffix_length = strlen(suffix);
	return length >= suffix_length && strcmp(text + length - suffix_length, suffix) == 0;
}

enum runtime_file_owner runtime_file_owner(const char *name)
{
	if (starts_with(name, "nerdctl-") || starts_with(name, "87-podman") || starts_with(name, "100-crio-"))
		return RUNTIME_FILE_TOOL;
	if (starts_with(name, "00-multus."))
		return RUNTIME_FILE_MULTUS;
	return RUNTIME_FILE_PRIMARY;
}

/* Go's filepath.Ext: from the last dot, which may be the first character. */
static bool is_configuration(const char *name)
{
	const char *extension = strrchr(name, '.');
	return extension &&
	       (strcmp(extension, ".conf") == 0 || strcmp(extension, ".conflist") == 0 || strcmp(extension, ".json") == 0);
}

static bool has_numbers_in_range(const cJSON *json)
{
	if (cJSON_IsNumber(json) && !isfinite(json->valuedouble))
		return false;
	const cJSON *child;
	cJSON_ArrayForEach (child, json) {
		if (!has_numbers_in_range(child))
			return false;
	}
	return true;
}

/* libcni's readBool: true, false, or these words as a string. */
static int check_switch(const cJSON *list, const char *key, struct error *error, bool *ret_value)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(list, key);
	if (!value || cJSON_IsFalse(value) || (cJSON_IsString(value) && strcasecmp(value->valuestring, "false") == 0))
		return 0;
	if (!cJSON_IsTrue(value) && !(cJSON_IsString(value) && strcasecmp(value->valuestring, "true") == 0))
		return error_set(error, 0, "%s: expected true or false, found %s", key, json_type_name(value));
	*ret_value = true;
	return 0;
}

static int check_plugin(const cJSON *plugin, const char *where, struct error *error)
{
	const char *type = NULL, *name = NULL, *version = NULL;
	const cJSON *ipam = NULL, *dns = NULL, *capabilities = NULL, *capability;
	if (!cJSON_IsObject(plugin))
		return error_set(error, 0, "%s: expected an object, found %s", where[0] ? where : "the file",
				 json_type_name(plugin));
	if (json_get_string(plugin, "type", where, error, &type) < 0 ||
	    json_get_string(plugin, "name", where, error, &name) < 0 ||
	    json_get_string(plugin, "cniVersion", where, error, &version) < 0 ||
	    json_get_object(plugin, "ipam", where, error, &ipam) < 0 ||
	    json_get_object(plugin, "dns", where, error, &dns) < 0 ||
	    json_get_object(plugin, "capabilities", where, error, &capabilities) < 0)
		return -1;
	cJSON_ArrayForEach (capability, capabilities) {
		if (!cJSON_IsBool(capability))
			return error_set(error, 0, "%s%scapabilities.%s: expected true or false, found %s", where,
					 where[0] ? "." : "", capability->string, json_type_name(capability));
	}
	if (!type || type[0] == '\0') {
		bool is_list = cJSON_GetObjectItemCaseSensitive(plugin, "plugins") != NULL;
		return error_set(error, 0, "%s%stype: expected the plugin's name, found nothing%s", where, where[0] ? "." : "",
				 is_list ? " (a list of plugins must be in a file that ends with .conflist)" : "");
	}
	return 0;
}

static int check_list(const cJSON *list, struct error *error)
{
	if (!cJSON_IsObject(list))
		return error_set(error, 0, "the file: expected an object, found %s", json_type_name(list));
	const cJSON *name = cJSON_GetObjectItemCaseSensitive(list, "name");
	const cJSON *version = cJSON_GetObjectItemCaseSensitive(list, "cniVersion");
	const cJSON *plugins = cJSON_GetObjectItemCaseSensitive(list, "plugins"), *plugin;
	bool value = false, only_inlined = false;
	if (!cJSON_IsString(name))
		return error_set(error, 0, "name: expected a string, found %s", json_type_name(name));
	if (version && !cJSON_IsString(version))
		return error_set(error, 0, "cniVersion: expected a string, found %s", json_type_name(version));
	if (check_switch(list, "disableCheck", error, &value) < 0 || check_switch(list, "disableGC", error, &value) < 0 ||
	    check_switch(list, "loadOnlyInlinedPlugins", error, &only_inlined) < 0)
		return -1;
	/* Absent is fine where drop-in files hold the plugins. */
	if (!plugins)
		return 0;
	if (!cJSON_IsArray(plugins))
		return error_set(error, 0, "plugins: expected a list, found %s", json_type_name(plugins));
	if (cJSON_GetArraySize(plugins) == 0)
		return error_set(error, 0, "plugins: the list is empty");
	size_t index = 0;
	cJSON_ArrayForEach (plugin, plugins) {
		char where[32];
		snprintf(where, sizeof where, "plugins[%zu]", index++);
		if (check_plugin(plugin, where, error) < 0)
			return -1;
	}
	return 0;
}

static int read_json(const char *path, struct error *error, cJSON **ret_json)
{
	cleanup_free char *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	size_t length = 0;
	if (file_read(path, CONFIGURATION_MAX, error, &text, &length) < 0)
		return -1;
	if (text[strspn(text, " \t\r\n")] == '\0' && strlen(text) == length)
		return error_set(error, 0, "%s is empty", path);
	/* cJSON passes a byte order mark over, Go does not. */
	if (starts_with(text, "\xef\xbb\xbf"))
		return error_set(error, 0, "%s begins with a byte order mark, which no runtime reads", path);
	if (json_parse(text, length, CONFIGURATION_MAX, path, error, &json) < 0)
		return -1;
	if (!has_numbers_in_range(json))
		return error_set(error, 0, "%s holds a number that is out of range", path);
	*ret_json = steal_pointer(json);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char **names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
}

static int add_name(const char *name, struct error *error, char ***names, size_t *count)
{
	char **grown = realloc(*names, (*count + 1) * sizeof *grown);
	if (!grown)
		return error_set(error, ENOMEM, "cannot list configurations");
	*names = grown;
	grown[*count] = strdup(name);
	if (!grown[*count])
		return error_set(error, ENOMEM, "cannot list configurations");
	++*count;
	return 0;
}

/* The names in a directory that `wants` accepts and that are no directories, sorted by their bytes. */
static int list_names(const char *path, bool (*wants)(const char *name), struct error *error, char ***ret_names,
		      size_t *ret_count)
{
	char **names = NULL;
	size_t count = 0;
	cleanup_closedir DIR *stream = opendir(path);
	if (!stream)
		return error_set(error, errno, "cannot list %s", path);
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (!entry && errno != 0) {
			error_set(error, errno, "cannot list %s", path);
			break;
		}
		if (!entry) {
			if (count > 1)
				qsort(names, count, sizeof *names, compare_names);
			*ret_names = names;
			*ret_count = count;
			return 0;
		}
		if (!wants(entry->d_name))
			continue;
		struct stat status;
		if (fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0 || S_ISDIR(status.st_mode))
			continue;
		if (add_name(entry->d_name, error, &names, &count) < 0)
			break;
	}
	free_names(names, count);
	return -1;
}

static bool is_drop_in(const char *name)
{
	return ends_with(name, ".conf");
}

/* CONFDIR/NETWORK/ *.conf: one plugin each. */
static int read_drop_ins(const char *conf_dir, const cJSON *list, struct error *error, cJSON **ret_drop_ins)
{
	bool only_inlined = false;
	const char *network = cJSON_GetObjectItemCaseSensitive(list, "name")->valuestring;
	if (check_switch(list, "loadOnlyInlinedPlugins", error, &only_inlined) < 0 || only_inlined)
		return 0;
	/* A name that leads elsewhere is nothing that we follow. */
	if (network[0] == '\0' || network[0] == '.' || strchr(network, '/'))
		return 0;
	cleanup_free char *directory = NULL;
	char **names = NULL;
	size_t count = 0;
	struct error problem = { 0 };
	if (file_join(conf_dir, network, error, &directory) < 0)
		return -1;
	if (list_names(directory, is_drop_in, &problem, &names, &count) < 0)
		return problem.number == ENOENT || problem.number == ENOTDIR ? 0 : error_set(error, 0, "%s", problem.message);
	cleanup_cjson cJSON *drop_ins = cJSON_CreateArray();
	int result = drop_ins ? 0 : error_set(error, ENOMEM, "cannot read %s", directory);
	for (size_t i = 0; i < count && result == 0; i++) {
		cleanup_free char *path = NULL;
		cJSON *json = NULL;
		result = file_join(directory, names[i], error, &path);
		if (result == 0)
			result = read_json(path, error, &json);
		if (result == 0 && !cJSON_AddItemToArray(drop_ins, json))
			result = -1;
		if (result == 0 && check_plugin(json, "", error) < 0)
			result = error_wrap(error, "%s", path);
	}
	free_names(names, count);
	if (result == 0 && cJSON_GetArraySize(drop_ins) > 0)
		*ret_drop_ins = steal_pointer(drop_ins);
	return result;
}

static bool is_multus(const cJSON *json)
{
	const cJSON *plugin = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(json, "plugins"), 0);
	const cJSON *type = cJSON_GetObjectItemCaseSensitive(plugin ? plugin : json, "type");
	return cJSON_IsString(type) &&
	       (strcmp(type->valuestring, "multus") == 0 || strcmp(type->valuestring, "multus-shim") == 0);
}

/* Fills in what is known of one file; `ret_gone`: it went meanwhile. */
static int read_one(const char *conf_dir, const char *name, struct error *error, struct runtime_file *file, bool *ret_gone)
{
	cleanup_free char *path = NULL;
	struct error problem = { 0 };
	struct stat link;
	*file = (struct runtime_file){ .is_list = ends_with(name, ".conflist"), .owner = runtime_file_owner(name) };
	file->name = strdup(name);
	if (!file->name || file_join(conf_dir, name, error, &path) < 0)
		return error_set(error, ENOMEM, "cannot read %s", name);
	if (lstat(path, &link) < 0) {
		*ret_gone = true;
		return 0;
	}
	file->is_link = S_ISLNK(link.st_mode);
	if (stat(path, &file->status) < 0 && file->is_link) {
		snprintf(file->problem, sizeof file->problem, "%s is a link to nowhere", path);
		return 0;
	}
	cleanup_cjson cJSON *json = NULL;
	if (read_json(path, &problem, &json) < 0) {
		*ret_gone = problem.number == ENOENT;
		snprintf(file->problem, sizeof file->problem, "%.500s", problem.message);
		return 0;
	}
	if ((file->is_list ? check_list(json, &problem) : check_plugin(json, "", &problem)) < 0) {
		snprintf(file->problem, sizeof file->problem, "%s: %.380s", path, problem.message);
		return 0;
	}
	if (file->is_list && read_drop_ins(conf_dir, json, &problem, &file->drop_ins) < 0) {
		snprintf(file->problem, sizeof file->problem, "%.500s", problem.message);
		return 0;
	}
	if (file->is_list && !cJSON_GetObjectItemCaseSensitive(json, "plugins") && !file->drop_ins) {
		snprintf(file->problem, sizeof file->problem, "%s: plugins: expected a list, found nothing", path);
		return 0;
	}
	if (is_multus(json))
		file->owner = RUNTIME_FILE_MULTUS;
	file->json = steal_pointer(json);
	return 0;
}

static void clear_file(struct runtime_file *file)
{
	free(file->name);
	cJSON_Delete(file->json);
	cJSON_Delete(file->drop_ins);
}

static bool is_wanted(const char *name)
{
	return is_configuration(name) || ends_with(name, PUT_AWAY_SUFFIX);
}

int runtime_directory_read(const char *conf_dir, struct error *error, struct runtime_directory *ret_directory)
{
	cleanup_runtime_directory struct runtime_directory directory = { 0 };
	char **names = NULL;
	size_t count = 0;
	if (list_names(conf_dir, is_wanted, error, &names, &count) < 0)
		return -1;
	directory.files = calloc(count + 1, sizeof *directory.files);
	if (!directory.files) {
		free_names(names, count);
		return error_set(error, ENOMEM, "cannot list %s", conf_dir);
	}
	int result = 0;
	for (size_t i = 0; i < count && result == 0; i++) {
		if (!is_configuration(names[i])) {
			result = add_name(names[i], error, &directory.put_away, &directory.put_away_count);
			continue;
		}
		bool gone = false;
		struct runtime_file *file = &directory.files[directory.count];
		result = read_one(conf_dir, names[i], error, file, &gone);
		if (result == 0 && !gone)
			directory.count++;
		else
			clear_file(file);
	}
	free_names(names, count);
	if (result < 0)
		return -1;
	*ret_directory = directory;
	directory = (struct runtime_directory){ 0 };
	return 0;
}

void runtime_directory_clear(struct runtime_directory *directory)
{
	for (size_t i = 0; i < directory->count; i++)
		clear_file(&directory->files[i]);
	free(directory->files);
	free_names(directory->put_away, directory->put_away_count);
	*directory = (struct runtime_directory){ 0 };
}

void runtime_directory_choose(const struct runtime_directory *directory, struct runtime_choice *ret_choice)
{
	struct runtime_choice choice = { 0 };
	for (size_t i = 0; i < directory->count && !choice.crio; i++) {
		const struct runtime_file *file = &directory->files[i];
		if (file->json)
			choice.crio = file;
		else if (!choice.stops_at)
			choice.stops_at = file;
	}
	if (!choice.stops_at)
		choice.containerd = choice.crio;
	*ret_choice = choice;
}

const struct runtime_file *runtime_directory_find(const struct runtime_directory *directory, const char *name)
{
	for (size_t i = 0; i < directory->count; i++)
		if (strcmp(directory->files[i].name, name) == 0)
			return &directory->files[i];
	return NULL;
}
