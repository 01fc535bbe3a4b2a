/* A remembered attachment: what was understood is written and understood the same again. */
#include "ambient/attachment.h"

#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = NULL, *written = NULL, *rewritten = NULL;
	cleanup_attachment struct attachment attachment = { 0 }, again = { 0 };
	cleanup_free char *text = NULL, *text_again = NULL;
	if (json_parse((const char *)data, size, 1 << 20, "input", &error, &json) < 0 ||
	    attachment_from_json(json, "input", &error, &attachment) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	HOLDS((written = attachment_to_json(&attachment)) && attachment_from_json(written, "again", &error, &again) == 0);
	HOLDS((rewritten = attachment_to_json(&again)));
	text = cJSON_PrintUnformatted(written);
	text_again = cJSON_PrintUnformatted(rewritten);
	HOLDS(strcmp(text, text_again) == 0);
	HOLDS(attachment_container_id_is_valid(attachment.container_id) && attachment_interface_is_valid(attachment.interface));
	return 0;
}
