/* Log lines. See log.h. */
#include "ambient/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static const char *const level_names[] = {
	[LOG_LEVEL_DEBUG] = "debug",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_ERROR] = "error",
};

const char *log_level_name(enum log_level level)
{
	return level_names[level];
}

int log_level_parse(const char *text, struct error *error, enum log_level *ret_level)
{
	for (int level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_ERROR; level++) {
		if (strcmp(level_names[level], text) == 0) {
			*ret_level = (enum log_level)level;
			return 0;
		}
	}
	return error_set(error, 0, "expected debug, info, warn or error, found \"%.32s\"", text);
}

/* A line in the making: what does not fit is cut, and there is always room for its end. */
struct line {
	char text[LINE_MAX_BYTES];
	size_t length;
};

static void append(struct line *line, const char *text, size_t length)
{
	size_t room = sizeof line->text - 8 - line->length;
	if (length > room)
		length = room;
	memcpy(line->text + line->length, text, length);
	line->length += length;
}

static void append_text(struct line *line, const char *text)
{
	append(line, text, strlen(text));
}

/* In quotes, escaped as JSON has it; a log in text form uses the same. */
static void append_quoted(struct line *line, const char *text)
{
	append_text(line, "\"");
	for (const char *c = text; *c; c++) {
		char escaped[8];
		if (*c == '"' || *c == '\\')
			snprintf(escaped, sizeof escaped, "\\%c", *c);
		else if (*c == '\n')
			strcpy(escaped, "\\n");
		else if ((unsigned char)*c < 0x20 || *c == 0x7f)
			snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned int)*c);
		else
			snprintf(escaped, sizeof escaped, "%c", *c);
		/* An escape is never cut in half. */
		if (strlen(escaped) > sizeof line->text - 16 - line->length)
			break;
		append_text(line, escaped);
	}
	append_text(line, "\"");
}

static bool needs_quotes(const char *text)
{
	return text[0] == '\0' || strpbrk(text, " \t\n\r\"\\=") != NULL;
}

/* A message for people stays readable: only what would break the line is replaced. */
static void append_message(struct line *line, const char *text)
{
	size_t start = line->length;
	append_text(line, text);
	for (size_t i = start; i < line->length; i++)
		if ((unsigned char)line->text[i] < 0x20 || line->text[i] == 0x7f)
			line->text[i] = ' ';
}

void log_write(const struct log *log, enum log_level level, const struct log_field *fields, const char *format, ...)
{
	if (level < log->level || log->fd < 0)
		return;
	int saved = errno;
	char message[2048], stamp[40], milliseconds[8];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);

	/* RFC 3339, UTC. */
	struct timespec now;
	struct tm utc;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(milliseconds, sizeof milliseconds, ".%03dZ", (int)(now.tv_nsec / 1000000) % 1000);
	strcat(stamp, milliseconds);

	struct line line = { .length = 0 };
	if (log->format == LOG_FORMAT_JSON) {
		append_text(&line, "{\"time\":");
		append_quoted(&line, stamp);
		append_text(&line, ",\"level\":");
		append_quoted(&line, level_names[level]);
		append_text(&line, ",\"program\":");
		append_quoted(&line, log->program);
		append_text(&line, ",\"msg\":");
		append_quoted(&line, message);
		for (const struct log_field *field = fields; field && field->key; field++) {
			/* Half a field would break the line. */
			if (line.length + strlen(field->key) + 32 > sizeof line.text)
				break;
			append_text(&line, ",");
			append_quoted(&line, field->key);
			append_text(&line, ":");
			append_quoted(&line, field->value ? field->value : "");
		}
		append_text(&line, "}");
	} else {
		append_text(&line, stamp);
		append_text(&line, "\t");
		append_text(&line, level_names[level]);
		append_text(&line, "\t");
		append_message(&line, message);
		for (const struct log_field *field = fields; field && field->key; field++) {
			const char *value = field->value ? field->value : "";
			append_text(&line, " ");
			append_text(&line, field->key);
			append_text(&line, "=");
			if (needs_quotes(value))
				append_quoted(&line, value);
			else
				append_message(&line, value);
		}
	}
	line.text[line.length++] = '\n';
	ssize_t written;
	do
		written = write(log->fd, line.text, line.length);
	while (written < 0 && errno == EINTR);
	errno = saved;
}
