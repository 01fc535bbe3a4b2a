/* A pod's own redirection: the node's defaults with the pod's annotations over them.
 *
 * Booleans are read as Istio reads them (Go's strconv.ParseBool). Lists become the JSON that redirect_from_json reads, so that
 * an annotation and a configuration obey the same rules and give the same messages. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/mesh/selection.h"

static bool parse_bool(const char *text, bool *ret_value)
{
	static const char *const yes[] = { "1", "t", "T", "TRUE", "true", "True" };
	static const char *const no[] = { "0", "f", "F", "FALSE", "false", "False" };
	for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
		if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
			*ret_value = strcmp(text, yes[i]) == 0;
			return true;
		}
	}
	return false;
}

static void warn(char *warning, const char *annotation, const char *value, const char *why)
{
	size_t used = strlen(warning);
	snprintf(warning + used, SELECTION_WARNING_MAX - used, "%sannotation %s=\"%s\" is ignored: %s", used ? "; " : "",
		 annotation, value, why);
}

static void apply_bool(const struct pod *pod, const char *annotation, bool *value, char *warning)
{
	const char *text = labels_get(&pod->annotations, annotation);
	if (text && !parse_bool(text, value))
		warn(warning, annotation, text, "expected true or false");
}

/* "a, b" -> ["a", "b"]; an empty text gives an empty list. NULL: no memory. */
static cJSON *split_list(const char *text)
{
	cleanup_free char *copy = strdup(text);
	cJSON *list = cJSON_CreateArray();
	char *state = NULL;
	for (char *item = copy ? strtok_r(copy, ", \t", &state) : NULL; item && list; item = strtok_r(NULL, ", \t", &state)) {
		if (!cJSON_AddItemToArray(list, cJSON_CreateString(item))) {
			cJSON_Delete(list);
			list = NULL;
		}
	}
	if (!copy) {
		cJSON_Delete(list);
		return NULL;
	}
	return list;
}

/* Reads one annotation as {KEY: list} (or {"exclude": {KEY: list}}) over the redirect; a bad value leaves it as it was. */
static int apply_list(const struct pod *pod, const char *annotation, const char *parent, const char *key, struct error *error,
		      struct redirect *redirect, char *warning)
{
	const char *text = labels_get(&pod->annotations, annotation);
	if (!text)
		return 0;
	cleanup_cjson cJSON *object = cJSON_CreateObject();
	cJSON *owner = parent ? cJSON_AddObjectToObject(object, parent) : object;
	cJSON *list = split_list(text);
	if (!owner || !list || !cJSON_AddItemToObject(owner, key, list)) {
		cJSON_Delete(list);
		return error_set(error, ENOMEM, "cannot read annotation %s", annotation);
	}
	struct error bad = { 0 };
	if (redirect_from_json(object, annotation, &bad, redirect) < 0)
		warn(warning, annotation, text, bad.message);
	return 0;
}

int selection_redirect(const struct selection *selection, const struct pod *pod, struct error *error,
		       struct redirect *ret_redirect, char *ret_warning)
{
	static const struct {
		const char *annotation, *key;
	} exclusions[] = {
		{ ANNOTATION_EXCLUDE_OUTBOUND_PORTS, "outboundPorts" },
		{ ANNOTATION_EXCLUDE_OUTBOUND_RANGES, "outboundRanges" },
		{ ANNOTATION_EXCLUDE_INBOUND_PORTS, "inboundPorts" },
		{ ANNOTATION_EXCLUDE_INTERFACES, "interfaces" },
	};
	cleanup_redirect struct redirect redirect = { 0 };
	char warning[SELECTION_WARNING_MAX] = "";
	if (redirect_copy(selection->defaults, error, &redirect) < 0)
		return -1;

	apply_bool(pod, ANNOTATION_DNS_CAPTURE, &redirect.dns_capture, warning);
	apply_bool(pod, ANNOTATION_BYPASS_INBOUND, &redirect.bypass_inbound, warning);
	if (apply_list(pod, ANNOTATION_VIRTUAL_INTERFACES, NULL, "virtualInterfaces", error, &redirect, warning) < 0)
		return -1;
	for (size_t i = 0; i < sizeof exclusions / sizeof exclusions[0]; i++) {
		const char *text = labels_get(&pod->annotations, exclusions[i].annotation);
		if (text && !selection->allow_pod_exclusions)
			warn(warning, exclusions[i].annotation, text, "the node's setting allowPodExclusions is false");
		else if (apply_list(pod, exclusions[i].annotation, "exclude", exclusions[i].key, error, &redirect, warning) < 0)
			return -1;
	}
	*ret_redirect = redirect;
	redirect = (struct redirect){ 0 };
	strcpy(ret_warning, warning);
	return 0;
}
