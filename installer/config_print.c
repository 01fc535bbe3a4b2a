/* Showing the configuration: what is in force and where each value came from, and the reference of all keys. */
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/config_keys.h"

static const char *const origin_names[] = {
	[CONFIG_ORIGIN_DEFAULT] = "default",
	[CONFIG_ORIGIN_ENVIRONMENT] = "environment",
	[CONFIG_ORIGIN_FILE] = "file",
	[CONFIG_ORIGIN_SET] = "set",
};

static bool add_setting(cJSON *settings, const struct installer_config *config, size_t index)
{
	const struct config_origin *origin = &config->origins[index];
	cJSON *setting = cJSON_AddObjectToObject(settings, config_keys[index].name);
	cJSON *value = cJSON_Duplicate(config->values[index], true);
	if (!setting || !value || !cJSON_AddItemToObject(setting, "value", value)) {
		cJSON_Delete(value);
		return false;
	}
	return cJSON_AddStringToObject(setting, "origin", origin_names[origin->kind]) &&
	       (origin->line == 0 || cJSON_AddNumberToObject(setting, "line", (double)origin->line)) &&
	       (!origin->variable || cJSON_AddStringToObject(setting, "variable", origin->variable));
}

cJSON *installer_config_to_json(const struct installer_config *config)
{
	cleanup_cjson cJSON *json = cJSON_CreateObject();
	if (config->path[0] ? !cJSON_AddStringToObject(json, "file", config->path) : !cJSON_AddNullToObject(json, "file"))
		return NULL;
	cJSON *settings = cJSON_AddObjectToObject(json, "settings");
	for (size_t i = 0; i < config->keys_count; i++)
		if (!add_setting(settings, config, i))
			return NULL;
	cJSON *warnings = cJSON_AddArrayToObject(json, "warnings");
	for (size_t i = 0; i < config->warnings_count; i++)
		if (!cJSON_AddItemToArray(warnings, cJSON_CreateString(config->warnings[i])))
			return NULL;
	return warnings ? steal_pointer(json) : NULL;
}

static void describe_origin(const struct installer_config *config, const struct config_origin *origin, char *text, size_t size)
{
	switch (origin->kind) {
	case CONFIG_ORIGIN_DEFAULT:
		snprintf(text, size, "default");
		return;
	case CONFIG_ORIGIN_ENVIRONMENT:
		snprintf(text, size, "environment variable %s", origin->variable);
		return;
	case CONFIG_ORIGIN_FILE:
		snprintf(text, size, origin->line ? "%s, line %zu" : "%s", config->path, origin->line);
		return;
	case CONFIG_ORIGIN_SET:
		snprintf(text, size, "--set");
		return;
	}
}

/* The lines are YAML that --config reads. */
void installer_config_print(const struct installer_config *config, FILE *out)
{
	for (size_t i = 0; i < config->keys_count; i++) {
		char origin[300];
		cleanup_free char *value = cJSON_PrintUnformatted(config->values[i]);
		describe_origin(config, &config->origins[i], origin, sizeof origin);
		int width = fprintf(out, "%s: %s", config_keys[i].name, value ? value : "");
		fprintf(out, "%*s # %s\n", width < 62 ? 62 - width : 0, "", origin);
	}
}

/* A bar would end the cell of a table. */
static void print_cell(FILE *out, const char *text)
{
	for (; *text; text++)
		fprintf(out, *text == '|' ? "\\%c" : "%c", *text);
	fputs(" | ", out);
}

static void print_row(const struct config_key *key, FILE *out)
{
	char expected[256], value[1024];
	config_key_expected(key, expected, sizeof expected);
	/* JSON's text is code; the empty one is a word. */
	if (!key->default_value)
		snprintf(value, sizeof value, "%s%s%s%s", key->variable ? "environment variable `" : "",
			 key->variable ? key->variable : "", key->variable ? "`, else " : "", key->default_words);
	else if (strcmp(key->default_value, "\"\"") == 0)
		snprintf(value, sizeof value, "empty");
	else
		snprintf(value, sizeof value, "`%s`", key->default_value);
	fprintf(out, "| `%s` | ", key->name);
	print_cell(out, expected);
	print_cell(out, value);
	fprintf(out, "%s |\n", key->description);
}

void installer_config_print_reference(FILE *out)
{
	fputs("# Configuration of the node agent\n\n"
	      "<!-- Made by `ambient-installer config --reference`; a test compares the two. -->\n\n"
	      "`--config FILE` names a YAML or JSON file. `--set KEY=VALUE` sets one key and wins over the file:\n"
	      "`--set host.binDir=/opt/cni/bin`; a list or an object is given as JSON: `--set "
	      "'excludeNamespaces=[\"kube-system\"]'`.\n"
	      "A dotted key is a key inside an object (`host: {binDir: ...}`) and may be written either way; an object sets "
	      "the keys\n"
	      "that are in it. From the environment come only `NODE_NAME`, `POD_NAME`, `POD_NAMESPACE` and the\n"
	      "`KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT` of a pod.\n\n"
	      "A wrong type or value stops the start; the message names file, line and what was expected. A key that is not "
	      "known is\n"
	      "passed over with a warning, so that an older version starts with a newer one's file; inside "
	      "`enablementSelectors` it\n"
	      "stops the start, because a selector without one of its requirements matches more pods than was meant.\n\n"
	      "`ambient-installer config` prints what is in force and where each value came from, as YAML that `--config` "
	      "reads.\n\n"
	      "| key | accepts | default | meaning |\n|---|---|---|---|\n",
	      out);
	for (size_t i = 0; i < config_keys_count; i++)
		print_row(&config_keys[i], out);
}
