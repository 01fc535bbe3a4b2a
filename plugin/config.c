/* Reading the network configuration. See config.h. A key of ours with a wrong type is an error; keys that others add are none.
 */
#include "plugin/config.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "ambient/json.h"

#define TIMEOUT_MAX 300

int plugin_config_version(const cJSON *json, struct error *error, enum cni_version *ret_version, enum cni_code *ret_code)
{
	const char *text = "0.1.0";
	*ret_code = CNI_INVALID_CONFIGURATION;
	if (json_get_string(json, "cniVersion", "", error, &text) < 0)
		return -1;
	*ret_code = CNI_INCOMPATIBLE_VERSION;
	if (cni_version_parse(text, ret_version))
		return 0;
	bool is_given = cJSON_IsString(cJSON_GetObjectItemCaseSensitive(json, "cniVersion"));
	return error_set(error, 0, "cniVersion: expected 0.3.0, 0.3.1, 0.4.0, 1.0.0 or 1.1.0, found \"%.32s\"%s", text,
			 is_given ? "" : " (which a configuration without cniVersion has)");
}

static int read_choice(const cJSON *json, const char *key, const char *first, const char *second, struct error *error,
		       bool *ret_is_second)
{
	const char *text = first;
	if (json_get_string(json, key, "", error, &text) < 0)
		return -1;
	if (strcmp(text, first) != 0 && strcmp(text, second) != 0)
		return error_set(error, 0, "%s: expected \"%s\" or \"%s\", found \"%.64s\"", key, first, second, text);
	*ret_is_second = strcmp(text, second) == 0;
	return 0;
}

/* The specification's rule. */
static int check_name(const char *name, struct error *error)
{
	if (name[0] == '\0')
		return error_set(error, 0, "name: expected the network's name, found nothing");
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && (c == name || !strchr("_.-", *c)))
			return error_set(
				error, 0,
				"name: expected letters, digits, '_', '.' and '-', a letter or digit first, found \"%.64s\"",
				name);
	return 0;
}

static int check_strings(const cJSON *array, const char *key, struct error *error)
{
	size_t index = 0;
	const cJSON *entry;
	cJSON_ArrayForEach (entry, array) {
		if (!cJSON_IsString(entry))
			return error_set(error, 0, "%s[%zu]: expected a string, found %s", key, index, json_type_name(entry));
		index++;
	}
	return 0;
}

static int check_valid_attachments(const cJSON *array, struct error *error)
{
	size_t index = 0;
	const cJSON *entry;
	cJSON_ArrayForEach (entry, array) {
		if (!cJSON_IsString(cJSON_GetObjectItemCaseSensitive(entry, "containerID")) ||
		    !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(entry, "ifname")))
			return error_set(error, 0,
					 "cni.dev/valid-attachments[%zu]: expected an object with containerID and ifname",
					 index);
		index++;
	}
	return 0;
}

/* With the installer only its type counts: the redirection comes from there. */
static int read_redirect(const cJSON *json, bool is_always, struct error *error, struct plugin_config *config)
{
	const cJSON *redirect = NULL;
	if (json_get_object(json, "redirect", "", error, &redirect) < 0)
		return -1;
	return redirect && is_always ? redirect_from_json(redirect, "redirect", error, &config->redirect) : 0;
}

int plugin_config_read(const cJSON *json, struct error *error, struct plugin_config *ret_config)
{
	__attribute__((cleanup(plugin_config_clear))) struct plugin_config config = {
		.cni_version = ret_config->cni_version,
		.name = "",
		.run_dir = "/var/run/ambient-cni",
		.installer_pod_prefix = "istio-cni-node-",
		.timeout_seconds = 5,
		.log_file = "",
	};
	const char *level = "info", *system_namespace = "istio-system", *type = NULL;
	bool is_always = false;
	redirect_init(&config.redirect);
	if (json_get_string(json, "name", "", error, &config.name) < 0 || json_get_string(json, "type", "", error, &type) < 0 ||
	    read_choice(json, "enrollment", "installer", "always", error, &is_always) < 0 ||
	    json_get_string(json, "runDir", "", error, &config.run_dir) < 0 ||
	    json_get_string(json, "systemNamespace", "", error, &system_namespace) < 0 ||
	    json_get_string(json, "installerNamespace", "", error, &config.installer_namespace) < 0 ||
	    json_get_string(json, "installerPodPrefix", "", error, &config.installer_pod_prefix) < 0 ||
	    json_get_array(json, "excludeNamespaces", "", error, &config.exclude_namespaces) < 0 ||
	    check_strings(config.exclude_namespaces, "excludeNamespaces", error) < 0 ||
	    json_get_integer(json, "timeoutSeconds", "", 1, TIMEOUT_MAX, error, &config.timeout_seconds) < 0 ||
	    read_choice(json, "whenAway", "outside", "closed", error, &config.waits_when_away) < 0 ||
	    json_get_string(json, "logLevel", "", error, &level) < 0 ||
	    json_get_string(json, "logFile", "", error, &config.log_file) < 0 ||
	    json_get_array(json, "cni.dev/valid-attachments", "", error, &config.valid_attachments) < 0 ||
	    check_valid_attachments(config.valid_attachments, error) < 0 || read_redirect(json, is_always, error, &config) < 0)
		return -1;
	if (check_name(config.name, error) < 0)
		return -1;
	if (config.run_dir[0] != '/')
		return error_set(error, 0, "runDir: expected an absolute path, found \"%.128s\"", config.run_dir);
	if (config.log_file[0] != '\0' && config.log_file[0] != '/')
		return error_set(error, 0, "logFile: expected an absolute path or nothing, found \"%.128s\"", config.log_file);
	/* The node agent runs beside the tunnel unless told otherwise. */
	if (!config.installer_namespace)
		config.installer_namespace = system_namespace;
	/* Looked into by ADD only: for all other verbs it may be anything. */
	config.previous_result = cJSON_GetObjectItemCaseSensitive(json, "prevResult");
	if (cJSON_IsNull(config.previous_result))
		config.previous_result = NULL;
	if (log_level_parse(level, error, &config.log_level) < 0)
		return error_wrap(error, "logLevel");
	config.enrollment = is_always ? ENROLLMENT_ALWAYS : ENROLLMENT_INSTALLER;
	*ret_config = config;
	config = (struct plugin_config){ 0 };
	return 0;
}

void plugin_config_clear(struct plugin_config *config)
{
	redirect_clear(&config->redirect);
}

bool plugin_config_excludes(const struct plugin_config *config, const char *namespace_name)
{
	if (!config->exclude_namespaces)
		return strcmp(namespace_name, "kube-system") == 0;
	const cJSON *entry;
	cJSON_ArrayForEach (entry, config->exclude_namespaces) {
		if (strcmp(entry->valuestring, namespace_name) == 0)
			return true;
	}
	return false;
}
