/* Editing network configurations. See conflist.h. */
#include "installer/host/conflist.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/cni.h"
#include "ambient/json.h"
#include "installer/host/host.h"

static const char *text_of(const cJSON *object, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
	return cJSON_IsString(value) ? value->valuestring : NULL;
}

static bool is_type(const cJSON *plugin, const char *type)
{
	const char *text = text_of(plugin, "type");
	return text && strcmp(text, type) == 0;
}

const cJSON *conflist_find(const cJSON *json, const char *type)
{
	const cJSON *plugin;
	if (is_type(json, type))
		return json;
	cJSON_ArrayForEach (plugin, cJSON_GetObjectItemCaseSensitive(json, "plugins")) {
		if (is_type(plugin, type))
			return plugin;
	}
	return NULL;
}

static int no_memory(struct error *error)
{
	return error_set(error, ENOMEM, "cannot edit a network configuration");
}

/* A chain hands results on, which configurations from 0.3.0 on can. */
static int check_version(const cJSON *json, struct error *error)
{
	enum cni_version version;
	const char *text = text_of(json, "cniVersion");
	const cJSON *entry;
	if (text && cni_version_parse(text, &version))
		return 0;
	cJSON_ArrayForEach (entry, cJSON_GetObjectItemCaseSensitive(json, "cniVersions")) {
		if (cJSON_IsString(entry) && cni_version_parse(entry->valuestring, &version))
			return 0;
	}
	if (!text || text[0] == '\0')
		return error_say(error, EINVAL,
				 "it has no cniVersion, which means 0.1.0, and a chain needs one from 0.3.0 to 1.1.0: "
				 "set cniVersion in it");
	return error_say(error, EINVAL, "its cniVersion is \"%.32s\", and a chain needs one from 0.3.0 to 1.1.0", text);
}

/* Takes all entries of one type out of `plugins`; of ours, the remembered file is kept in `original`. */
static int take_out(cJSON *plugins, const char *type, char **original)
{
	for (int i = cJSON_GetArraySize(plugins); i-- > 0;) {
		const cJSON *plugin = cJSON_GetArrayItem(plugins, i);
		if (!is_type(plugin, type))
			continue;
		const char *remembered = text_of(plugin, CONFLIST_ORIGINAL_KEY);
		if (original && remembered && !*original && !(*original = strdup(remembered)))
			return -1;
		cJSON_DeleteItemFromArray(plugins, i);
	}
	return 0;
}

static cJSON *make_entry(const cJSON *plugin, const char *original)
{
	cleanup_cjson cJSON *entry = cJSON_CreateObject();
	if (!cJSON_AddStringToObject(entry, "type", HOST_PLUGIN_NAME))
		return NULL;
	const cJSON *key;
	cJSON_ArrayForEach (key, plugin) {
		cJSON *copy = cJSON_Duplicate(key, true);
		if (!copy || !cJSON_AddItemToObject(entry, key->string, copy)) {
			cJSON_Delete(copy);
			return NULL;
		}
	}
	if (original && !cJSON_AddStringToObject(entry, CONFLIST_ORIGINAL_KEY, original))
		return NULL;
	return steal_pointer(entry);
}

/* One plugin's configuration as a list of one, as libcni makes it. */
static cJSON *list_of_one(const cJSON *json)
{
	const char *name = text_of(json, "name"), *version = text_of(json, "cniVersion");
	cleanup_cjson cJSON *list = cJSON_CreateObject();
	if (version && !cJSON_AddStringToObject(list, "cniVersion", version))
		return NULL;
	if (!cJSON_AddStringToObject(list, "name", name ? name : ""))
		return NULL;
	cJSON *plugins = cJSON_AddArrayToObject(list, "plugins"), *copy = cJSON_Duplicate(json, true);
	if (!plugins || !copy || !cJSON_AddItemToArray(plugins, copy)) {
		cJSON_Delete(copy);
		return NULL;
	}
	return steal_pointer(list);
}

int conflist_add(const cJSON *json, const cJSON *plugin, const char *original, struct error *error, cJSON **ret_list)
{
	bool is_list = cJSON_GetObjectItemCaseSensitive(json, "plugins") != NULL;
	cleanup_cjson cJSON *list = is_list ? cJSON_Duplicate(json, true) : list_of_one(json);
	cleanup_free char *remembered = NULL;
	if (check_version(json, error) < 0)
		return -1;
	cJSON *plugins = cJSON_GetObjectItemCaseSensitive(list, "plugins");
	if (!list || take_out(plugins, HOST_PLUGIN_NAME, &remembered) < 0 || take_out(plugins, CONFLIST_ISTIO_TYPE, NULL) < 0)
		return no_memory(error);
	if (cJSON_GetArraySize(plugins) == 0)
		return error_say(error, EINVAL, "it has no plugin that makes an interface, which a chain begins with");
	cJSON *entry = make_entry(plugin, original ? original : remembered);
	if (!entry || !cJSON_AddItemToArray(plugins, entry)) {
		cJSON_Delete(entry);
		return no_memory(error);
	}
	*ret_list = steal_pointer(list);
	return 0;
}

int conflist_remove(const cJSON *list, struct error *error, cJSON **ret_json, char **ret_original)
{
	cleanup_cjson cJSON *copy = cJSON_Duplicate(list, true);
	cleanup_free char *original = NULL;
	cJSON *plugins = cJSON_GetObjectItemCaseSensitive(copy, "plugins");
	const cJSON *entry = conflist_find(list, HOST_PLUGIN_NAME);
	if (!copy || take_out(plugins, HOST_PLUGIN_NAME, &original) < 0)
		return no_memory(error);
	int count = cJSON_GetArraySize(plugins);
	if (count == 0 || text_of(entry, CONFLIST_COPY_KEY)) {
		*ret_json = NULL;
		*ret_original = NULL;
		return 0;
	}
	/* Somebody made more of it: then it stays a list. */
	if (original && count == 1) {
		*ret_json = cJSON_DetachItemFromArray(plugins, 0);
		*ret_original = steal_pointer(original);
		return 0;
	}
	*ret_json = steal_pointer(copy);
	*ret_original = NULL;
	return 0;
}

int conflist_remove_type(const cJSON *json, const char *type, struct error *error, cJSON **ret_json)
{
	if (is_type(json, type)) {
		*ret_json = NULL;
		return 0;
	}
	cleanup_cjson cJSON *copy = cJSON_Duplicate(json, true);
	cJSON *plugins = cJSON_GetObjectItemCaseSensitive(copy, "plugins");
	if (!copy || take_out(plugins, type, NULL) < 0)
		return no_memory(error);
	*ret_json = plugins && cJSON_GetArraySize(plugins) == 0 ? NULL : steal_pointer(copy);
	return 0;
}

int conflist_stand_alone(const cJSON *plugin, const char *name, bool is_list, struct error *error, cJSON **ret_json)
{
	cleanup_cjson cJSON *entry = make_entry(plugin, NULL), *json = cJSON_CreateObject();
	/* 1.0.0: what every meta plugin of these years understands. */
	if (!entry || !cJSON_AddStringToObject(json, "cniVersion", "1.0.0") || !cJSON_AddStringToObject(json, "name", name))
		return no_memory(error);
	if (is_list) {
		cJSON *plugins = cJSON_AddArrayToObject(json, "plugins");
		if (!plugins || !cJSON_AddItemToArray(plugins, entry))
			return no_memory(error);
		entry = NULL;
	} else {
		while (entry->child) {
			cJSON *key = cJSON_DetachItemViaPointer(entry, entry->child);
			if (!cJSON_AddItemToObject(json, key->string, key)) {
				cJSON_Delete(key);
				return no_memory(error);
			}
		}
	}
	*ret_json = steal_pointer(json);
	return 0;
}

int conflist_mark_copy(cJSON *list, const char *of, struct error *error)
{
	cJSON *entry = (cJSON *)conflist_find(list, HOST_PLUGIN_NAME);
	cJSON_DeleteItemFromObjectCaseSensitive(entry, CONFLIST_ORIGINAL_KEY);
	if (!cJSON_AddStringToObject(entry, CONFLIST_COPY_KEY, of))
		return no_memory(error);
	return 0;
}

/* cJSON compares a shortened number with some tolerance, and writes 1e+15 for an integer, which Go reads into no int. */
static bool write_numbers_exactly(cJSON *json)
{
	if (cJSON_IsNumber(json)) {
		char text[32];
		double value = json->valuedouble;
		if (value == trunc(value) && fabs(value) < 9223372036854775808.0) {
			snprintf(text, sizeof text, "%.0f", value);
		} else {
			for (int digits = 15; digits <= 17; digits++) {
				snprintf(text, sizeof text, "%.*g", digits, value);
				if (strtod(text, NULL) == value)
					break;
			}
		}
		json->valuestring = cJSON_malloc(strlen(text) + 1);
		if (!json->valuestring)
			return false;
		memcpy(json->valuestring, text, strlen(text) + 1);
		json->type = cJSON_Raw;
		return true;
	}
	for (cJSON *child = json->child; child; child = child->next)
		if (!write_numbers_exactly(child))
			return false;
	return true;
}

char *conflist_print(const cJSON *json)
{
	cleanup_cjson cJSON *copy = cJSON_Duplicate(json, true);
	if (!copy || !write_numbers_exactly(copy))
		return NULL;
	cleanup_free char *text = cJSON_Print(copy);
	char *line = NULL;
	return text && asprintf(&line, "%s\n", text) >= 0 ? line : NULL;
}

bool conflist_equal(const cJSON *a, const cJSON *b)
{
	cleanup_free char *a_text = conflist_print(a), *b_text = conflist_print(b);
	return a_text && b_text && strcmp(a_text, b_text) == 0;
}

char *conflist_file_name(const char *name)
{
	const char *extension = strrchr(name, '.');
	char *result = NULL;
	if (!extension || strcmp(extension, ".conflist") == 0)
		return strdup(name);
	return asprintf(&result, "%.*s.conflist", (int)(extension - name), name) < 0 ? NULL : result;
}
