/* Editing somebody's network configuration: with us and without us again, everything else is what it was, and editing twice
 * is the same as once. */
#include "installer/host/conflist.h"

#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

/* To the last bit of a number and in the same order: what the product compares with prints both, and may lose the same twice.
 */
static bool exactly(const cJSON *a, const cJSON *b)
{
	if ((a->type & 0xff) != (b->type & 0xff) || (cJSON_IsNumber(a) && a->valuedouble != b->valuedouble) ||
	    (cJSON_IsString(a) && strcmp(a->valuestring, b->valuestring) != 0))
		return false;
	const cJSON *x = a->child, *y = b->child;
	for (; x && y; x = x->next, y = y->next)
		if ((x->string && strcmp(x->string, y->string) != 0) || !exactly(x, y))
			return false;
	return !x && !y;
}

static bool is_of(const cJSON *plugin, const char *type)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(plugin, "type"));
	return text && strcmp(text, type) == 0;
}

/* Everything of the list but our entries and istio-cni's. */
static bool keeps(const cJSON *list, const cJSON *without)
{
	const cJSON *plugins = cJSON_GetObjectItemCaseSensitive(list, "plugins");
	const cJSON *x = list->child, *y = without->child;
	for (; x && y; x = x->next, y = y->next)
		if (strcmp(x->string, y->string) != 0 || (x != plugins && !exactly(x, y)))
			return false;
	const cJSON *entry, *kept = cJSON_GetObjectItemCaseSensitive(without, "plugins")->child;
	cJSON_ArrayForEach (entry, plugins) {
		if (is_of(entry, "ambient-cni") || is_of(entry, "istio-cni"))
			continue;
		if (!kept || !exactly(entry, kept))
			return false;
		kept = kept->next;
	}
	return !x && !y && !kept;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = NULL, *plugin = cJSON_Parse("{\"runDir\":\"/r\"}"), *list = NULL, *twice = NULL;
	cleanup_cjson cJSON *without = NULL, *other = NULL, *clean = NULL, *clean_of_istio = NULL;
	cleanup_free char *original = NULL, *dropped = NULL, *text = NULL;
	if (json_parse((const char *)data, size, 65536, "input", &error, &json) < 0 || !cJSON_IsObject(json))
		return 0;
	bool is_list = cJSON_GetObjectItemCaseSensitive(json, "plugins") != NULL;
	if (conflist_add(json, plugin, is_list ? NULL : "10-a.conf", &error, &list) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	HOLDS(conflist_find(list, "ambient-cni") && !conflist_find(list, CONFLIST_ISTIO_TYPE));
	HOLDS(conflist_add(list, plugin, is_list ? NULL : "10-a.conf", &error, &twice) == 0 && conflist_equal(list, twice));
	/* What is written is what was meant. */
	text = conflist_print(list);
	HOLDS(text && json_parse(text, strlen(text), SIZE_MAX, "written", &error, &other) == 0 && exactly(list, other));
	HOLDS(conflist_remove(list, &error, &without, &original) == 0 && without);
	if (!is_list) {
		HOLDS(original && strcmp(original, "10-a.conf") == 0 && exactly(without, json));
		return 0;
	}
	/* One that was made of a single plugin's file is that again. */
	HOLDS(original || keeps(json, without));
	/* The same as without us and istio-cni from the beginning. */
	if (conflist_remove_type(json, CONFLIST_ISTIO_TYPE, &error, &clean_of_istio) == 0 && clean_of_istio &&
	    conflist_remove(clean_of_istio, &error, &clean, &dropped) == 0 && clean)
		HOLDS(conflist_equal(without, clean));
	return 0;
}
