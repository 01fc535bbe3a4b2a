/* Editing somebody's network configuration: with us and without us again, everything else is what it was, and editing twice
 * is the same as once. */
#include "installer/host/conflist.h"

#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

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
	HOLDS(text && json_parse(text, strlen(text), SIZE_MAX, "written", &error, &other) == 0 && conflist_equal(list, other));
	HOLDS(conflist_remove(list, &error, &without, &original) == 0 && without);
	if (!is_list) {
		HOLDS(original && strcmp(original, "10-a.conf") == 0 && conflist_equal(without, json));
		return 0;
	}
	/* The same as without us and istio-cni from the beginning. */
	if (conflist_remove_type(json, CONFLIST_ISTIO_TYPE, &error, &clean_of_istio) == 0 && clean_of_istio &&
	    conflist_remove(clean_of_istio, &error, &clean, &dropped) == 0 && clean)
		HOLDS(conflist_equal(without, clean));
	return 0;
}
