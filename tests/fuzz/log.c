/* Log lines: whatever is said, it stays one line of at most 4 KiB, and with log.format json it is JSON. The input is message,
 * key's value, each up to a NUL. */
#include "ambient/log.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

static void write_and_look(enum log_format format, const char *message, const char *value)
{
	char line[8192];
	cleanup_close int fd = memfd_create("log", MFD_CLOEXEC);
	const struct log log = { .fd = fd, .format = format, .program = "ambient-cni" };
	const struct log_field fields[] = { { "pod", value }, { "again", value }, { NULL, NULL } };
	log_write(&log, LOG_LEVEL_INFO, fields, "%s", message);
	ssize_t length = pread(fd, line, sizeof line, 0);
	HOLDS(length > 0 && length <= 4096 && line[length - 1] == '\n' && !memchr(line, '\n', (size_t)length - 1));
	for (ssize_t i = 0; i < length - 1; i++)
		HOLDS((unsigned char)line[i] >= 0x20 || line[i] == '\t');
	cleanup_cjson cJSON *json = NULL;
	struct error error = { 0 };
	if (format == LOG_FORMAT_JSON)
		HOLDS(json_parse(line, (size_t)length, sizeof line, "line", &error, &json) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_free char *text = malloc(size + 2);
	memcpy(text, data, size);
	text[size] = text[size + 1] = '\0';
	const char *value = text + strlen(text) + 1;
	if (value > text + size + 1)
		value = "";
	write_and_look(LOG_FORMAT_TEXT, text, value);
	write_and_look(LOG_FORMAT_JSON, text, value);
	return 0;
}
