/* Log lines, as text for people or JSON for machines, to one descriptor. Programs own a `struct log`; library code has none. */
#ifndef AMBIENT_LOG_H
#define AMBIENT_LOG_H

#include <stdbool.h>

#include "ambient/error.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_repeats;

struct log {
	int fd;
	enum log_level level;
	enum log_format format;
	const char *program;	     /* "ambient-cni"; borrowed */
	struct log_repeats *repeats; /* NULL: every line is written */
};

/* What keeps a log from saying the same thing twice a second. A warning or an error, and an information that is about nothing
 * in particular (without fields), is held back where the same line, but for a number of milliseconds in it, was written less
 * than a second ago; `log_tell_repeats`, called once a second, writes the last of those that were held, with their number as
 * the field "repeated". An information about something, as of a pod's decision, is written each time, and so is what is there
 * to debug. */
struct log_repeats *log_repeats_new(void); /* NULL: no memory */
void log_repeats_free(struct log_repeats *repeats);
void log_tell_repeats(const struct log *log, bool is_end); /* is_end: of all that were held, whenever */

/* One key and value; a list ends with {NULL}. Values are strings, escaped as the format needs. */
struct log_field {
	const char *key, *value;
};

/* One write(2) a line, cut at 4 KiB: lines of concurrent processes never mix. errno is kept. */
void log_write(const struct log *log, enum log_level level, const struct log_field *fields, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

int log_level_parse(const char *text, struct error *error, enum log_level *ret_level);
const char *log_level_name(enum log_level level);

#endif
