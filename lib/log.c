/* Log lines. See log.h. */
#include "ambient/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ambient/clock.h"

#define LINE_MAX_BYTES 4096
/* What stands before and after a line's own text: its time, how often it was repeated, its end. */
#define AROUND_MAX 96

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
	size_t length, limit;
};

static void append(struct line *line, const char *text, size_t length)
{
	size_t room = line->limit - 8 - line->length;
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
		if (strlen(escaped) > line->limit - 16 - line->length)
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

/* Of what kinds lines were written a moment ago. A kind that finds its place taken pushes the other one out: what is held of
 * that one is written first. */
#define REPEATS_MAX 32
#define REPEAT_SECONDS 1

struct log_repeats {
	struct repeat {
		uint64_t kind;
		double written; /* CLOCK_MONOTONIC */
		unsigned int held;
		char *last; /* of those that are held, without its time */
	} kinds[REPEATS_MAX];
};

struct log_repeats *log_repeats_new(void)
{
	return calloc(1, sizeof(struct log_repeats));
}

/* FNV-1a. The same thing takes another time each time: milliseconds do not count. */
static uint64_t kind_of(const char *text)
{
	uint64_t kind = 0xcbf29ce484222325;
	for (const char *c = text; *c; c++) {
		size_t digits = strspn(c, "0123456789.");
		if (digits && strncmp(c + digits, " ms", 3) == 0)
			c += digits;
		for (size_t i = 0; i == 0 || i < digits; i++)
			kind = (kind ^ (unsigned char)c[i]) * 0x100000001b3;
		c += digits > 1 ? digits - 1 : 0;
	}
	return kind;
}

/* Ends the line and writes it; `rest` is what comes after its time. `repeated` 0: it stands for itself. */
static void write_line(const struct log *log, const char *rest, unsigned int repeated)
{
	/* RFC 3339, UTC. */
	char stamp[40], milliseconds[8], count[16];
	struct timespec now;
	struct tm utc;
	struct line line = { .limit = sizeof line.text };
	bool is_json = log->format == LOG_FORMAT_JSON;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(milliseconds, sizeof milliseconds, ".%03dZ", (int)(now.tv_nsec / 1000000) % 1000);
	snprintf(count, sizeof count, "%u", repeated);
	strcat(stamp, milliseconds);
	append_text(&line, is_json ? "{\"time\":\"" : "");
	append_text(&line, stamp);
	append_text(&line, is_json ? "\"," : "\t");
	append_text(&line, rest);
	if (repeated) {
		append_text(&line, is_json ? ",\"repeated\":\"" : " repeated=");
		append_text(&line, count);
		append_text(&line, is_json ? "\"" : "");
	}
	if (is_json)
		line.text[line.length++] = '}';
	line.text[line.length++] = '\n';
	ssize_t written;
	do
		written = write(log->fd, line.text, line.length);
	while (written < 0 && errno == EINTR);
}

static void tell(const struct log *log, struct repeat *repeat)
{
	if (repeat->held)
		write_line(log, repeat->last, repeat->held);
	free(repeat->last);
	*repeat = (struct repeat){ .kind = repeat->kind, .written = repeat->held ? clock_seconds() : repeat->written };
}

void log_tell_repeats(const struct log *log, bool is_end)
{
	double now = clock_seconds();
	for (size_t i = 0; log->repeats && i < REPEATS_MAX; i++)
		if (log->repeats->kinds[i].held && (is_end || now - log->repeats->kinds[i].written >= REPEAT_SECONDS))
			tell(log, &log->repeats->kinds[i]);
}

void log_repeats_free(struct log_repeats *repeats)
{
	for (size_t i = 0; repeats && i < REPEATS_MAX; i++)
		free(repeats->kinds[i].last);
	free(repeats);
}

/* Whether the line is held back, to be told later. */
static bool hold(const struct log *log, const char *rest)
{
	uint64_t kind = kind_of(rest);
	struct repeat *repeat = &log->repeats->kinds[0];
	double now = clock_seconds();
	for (struct repeat *other = repeat; other < log->repeats->kinds + REPEATS_MAX; other++) {
		if (other->kind == kind) {
			repeat = other;
			break;
		}
		if (other->written < repeat->written)
			repeat = other;
	}
	if (repeat->kind == kind && (repeat->held || now - repeat->written < REPEAT_SECONDS)) {
		char *last = strdup(rest);
		if (!last)
			return false;
		free(repeat->last);
		repeat->last = last;
		repeat->held++;
		/* Those that are due are told together with this one. */
		if (now - repeat->written >= REPEAT_SECONDS)
			tell(log, repeat);
		return true;
	}
	tell(log, repeat);
	*repeat = (struct repeat){ .kind = kind, .written = now };
	return false;
}

void log_write(const struct log *log, enum log_level level, const struct log_field *fields, const char *format, ...)
{
	if (level < log->level || log->fd < 0)
		return;
	int saved = errno;
	char message[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);

	struct line line = { .limit = sizeof line.text - AROUND_MAX };
	if (log->format == LOG_FORMAT_JSON) {
		append_text(&line, "\"level\":");
		append_quoted(&line, level_names[level]);
		append_text(&line, ",\"program\":");
		append_quoted(&line, log->program);
		append_text(&line, ",\"msg\":");
		append_quoted(&line, message);
		for (const struct log_field *field = fields; field && field->key; field++) {
			/* Half a field would break the line. */
			if (line.length + strlen(field->key) + 32 > line.limit)
				break;
			append_text(&line, ",");
			append_quoted(&line, field->key);
			append_text(&line, ":");
			append_quoted(&line, field->value ? field->value : "");
		}
	} else {
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
	line.text[line.length] = '\0';
	bool is_a_decision = level == LOG_LEVEL_INFO && fields && fields->key;
	if (!log->repeats || level == LOG_LEVEL_DEBUG || is_a_decision || !hold(log, line.text))
		write_line(log, line.text, 0);
	errno = saved;
}
