/* A Kubernetes list in pieces. However it is cut, the same items come and the same rest. The first byte says how it is cut. */
#include "installer/kube/list_scanner.h"

#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

struct seen {
	size_t count, bytes;
};

static bool take(void *data, const cJSON *item)
{
	struct seen *seen = data;
	cleanup_free char *text = cJSON_PrintUnformatted(item);
	seen->count++;
	seen->bytes += strlen(text);
	return true;
}

static int scan(const char *bytes, size_t size, size_t piece, struct seen *ret_seen, char **ret_rest)
{
	struct error error = { 0 };
	struct kube_list_scanner scanner = { .item = take, .data = ret_seen, .limit = 4096 };
	cleanup_cjson cJSON *list = NULL;
	int status = 0;
	for (size_t at = 0; status == 0 && at < size; at += piece)
		status = kube_list_scanner_take(&scanner, bytes + at, size - at < piece ? size - at : piece, &error);
	if (status == 0)
		status = kube_list_scanner_finish(&scanner, &error, &list);
	HOLDS(status == 0 || error_is_set(&error));
	*ret_rest = list ? cJSON_PrintUnformatted(list) : strdup("");
	kube_list_scanner_clear(&scanner);
	return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole = { 0 }, cut = { 0 };
	cleanup_free char *rest = NULL, *cut_rest = NULL;
	if (size == 0)
		return 0;
	int status = scan((const char *)data + 1, size - 1, size, &whole, &rest);
	HOLDS(scan((const char *)data + 1, size - 1, data[0] % 16 + 1U, &cut, &cut_rest) == status);
	HOLDS(whole.count == cut.count && whole.bytes == cut.bytes && strcmp(rest, cut_rest) == 0);
	return 0;
}
