/* CNI_ARGS: a key's value never holds a separator, nor more than a name may. */
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/cni.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const keys[] = { "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "A" };
	cleanup_free char *args = strndup((const char *)data, size);
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		struct error error = { 0 };
		cleanup_free char *value = NULL;
		if (cni_args_get(args, keys[i], &error, &value) == 0 && value)
			HOLDS(value[0] && !strchr(value, ';') && strlen(value) <= 253);
	}
	return 0;
}
