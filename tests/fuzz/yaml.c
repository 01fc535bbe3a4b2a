/* YAML of people: every value that was read has a line within the text. */
#include "installer/yaml.h"

#include "tests/fuzz/fuzz.h"

static void look(const struct yaml *yaml, const cJSON *value, size_t size)
{
	HOLDS(yaml_line(yaml, value) <= size + 1);
	for (const cJSON *child = value->child; child; child = child->next)
		look(yaml, child, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_yaml struct yaml yaml = { 0 };
	if (yaml_parse((const char *)data, size, 65536, "input", &error, &yaml) < 0)
		HOLDS(error_is_set(&error));
	else
		look(&yaml, yaml.documents, size);
	return 0;
}
