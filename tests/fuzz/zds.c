/* What a tunnel sends: its hello, and its answers. */
#include <string.h>

#include "installer/tunnel/message.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 }, refusal = { 0 };
	struct tunnel_message message;
	int version = 0;
	bool is_accepted = false;
	if (tunnel_decode_hello(data, size, &error, &version) < 0)
		HOLDS(error_is_set(&error));
	error = (struct error){ 0 };
	if (tunnel_decode_answer(data, size, &error, &is_accepted, &refusal) < 0)
		HOLDS(error_is_set(&error));
	else
		HOLDS(is_accepted || refusal.number == 121 /* EREMOTEIO */);
	/* Names as they come from the API: what is encoded fits. */
	char *text = strndup((const char *)data, size);
	const struct tunnel_workload workload = {
		.uid = text, .name = text, .namespace_name = text, .service_account = text, .netns = -1
	};
	if (tunnel_encode_add(&workload, &error, &message) == 0)
		HOLDS(message.length > 0 && message.length <= TUNNEL_SEND_MAX);
	free(text);
	return 0;
}
