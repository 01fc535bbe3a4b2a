/* The node agent's configuration file, as it is read, printed and shown as JSON. */
#include "installer/config.h"

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

static const char *nothing(const char *name)
{
	(void)name;
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_fuzz_file struct fuzz_file file = fuzz_file_make(data, size);
	cleanup_installer_config struct installer_config config = { 0 };
	const struct installer_config_sources sources = { .path = file.path, .environment = nothing };
	if (installer_config_load(&sources, &error, &config) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	cleanup_cjson cJSON *json = installer_config_to_json(&config);
	cleanup_fclose FILE *out = fopen("/dev/null", "w");
	HOLDS(json && out);
	installer_config_print(&config, out);
	return 0;
}
