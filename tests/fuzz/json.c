/* Reading JSON: what was read can be written and read again, is nested no deeper than it costs no stack, and holds no number
 * that would be written as something else. */
#include "ambient/json.h"
#include "ambient/cleanup.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <string.h>

static void look(const cJSON *value, size_t depth)
{
	HOLDS(depth <= 64 || !(cJSON_IsArray(value) || cJSON_IsObject(value)));
	HOLDS(!cJSON_IsNumber(value) || isfinite(value->valuedouble));
	for (const cJSON *child = value->child; child; child = child->next)
		look(child, depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = NULL, *again = NULL;
	if (json_parse((const char *)data, size, 65536, "input", &error, &json) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	look(json, 1);
	cleanup_free char *text = cJSON_PrintUnformatted(json);
	HOLDS(text && json_parse(text, strlen(text), SIZE_MAX, "text", &error, &again) == 0);
	return 0;
}
