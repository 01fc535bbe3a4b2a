/* A packet between plugin and installer, as both ends read it: what was understood is encoded and understood the same again. */
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/wire.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_wire_message struct wire_message message = { 0 }, again = { 0 };
	cleanup_free char *text = NULL, *text_again = NULL;
	if (wire_decode((const char *)data, size, &error, &message) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	if (wire_encode(&message, &error, &text) < 0)
		return 0; /* escapes and keys that were left out made it longer than a packet */
	HOLDS(wire_decode(text, strlen(text), &error, &again) == 0);
	HOLDS(wire_encode(&again, &error, &text_again) == 0 && strcmp(text, text_again) == 0);
	return 0;
}
