/* The network configuration on the plugin's standard input, prevResult included: a result of every version can be converted
 * again, and has the version that was asked for. */
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "plugin/call.h"
#include "tests/fuzz/fuzz.h"

static void convert(const struct plugin_config *config, enum cni_version version)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *result = NULL, *again = NULL;
	if (cni_result_convert(config->previous_result, version, &error, &result) < 0) {
		HOLDS(error_is_set(&error));
		return;
	}
	HOLDS(strcmp(cJSON_GetObjectItemCaseSensitive(result, "cniVersion")->valuestring, cni_version_name(version)) == 0);
	HOLDS(cni_result_convert(result, version, &error, &again) == 0);
	struct call call = { .container_id = "c", .interface = "eth0", .config = *config };
	cleanup_attachment struct attachment attachment = { 0 };
	enum cni_code code;
	if (call_describe(&call, result, -1, &error, &attachment, &code) == 0)
		HOLDS(attachment.addresses_count <= ATTACHMENT_ADDRESSES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = NULL;
	enum cni_code code;
	struct plugin_config config = { 0 };
	if (json_parse((const char *)data, size, 1 << 20, "input", &error, &json) < 0)
		return 0;
	plugin_config_version(json, &error, &config.cni_version, &code);
	error = (struct error){ 0 };
	if (plugin_config_read(json, &error, &config) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	plugin_config_excludes(&config, "shop");
	for (enum cni_version version = 0; version < CNI_VERSION_COUNT; version++)
		convert(&config, version);
	plugin_config_clear(&config);
	return 0;
}
