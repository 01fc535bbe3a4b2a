/* Reading JSON: what was read can be written and read again. */
#include "ambient/json.h"
#include "ambient/cleanup.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = NULL, *again = NULL;
	if (json_parse((const char *)data, size, 65536, "input", &error, &json) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	cleanup_free char *text = cJSON_PrintUnformatted(json);
	HOLDS(text && json_parse(text, strlen(text), SIZE_MAX, "text", &error, &again) == 0);
	return 0;
}
