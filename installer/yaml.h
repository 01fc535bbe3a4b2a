/* Reading YAML, and so JSON, into cJSON values: bounded, with the line of each value kept for messages.
 *
 * Scalars follow the core schema of YAML 1.2: null, true, false, integers, floats; everything quoted is a string, and so are
 * yes, no, on and off. Anchors and aliases work but may not multiply a text; a key that comes twice in a mapping is an error,
 * as are merge keys (<<), keys that are no scalars, infinities, and tags other than the core schema's. */
#ifndef AMBIENT_INSTALLER_YAML_H
#define AMBIENT_INSTALLER_YAML_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "ambient/error.h"

struct yaml_line {
	const cJSON *value;
	size_t line;
};

/* A text as read. Zeroed: empty. */
struct yaml {
	cJSON *documents;	 /* an array; an empty document is null */
	struct yaml_line *lines; /* by address of the value */
	size_t lines_count;
};

/* Reads a text of at most `limit` bytes. `what` names it in messages: "WHAT, line 3 column 7: ...". */
int yaml_parse(const char *text, size_t length, size_t limit, const char *what, struct error *error, struct yaml *ret_yaml);
void yaml_clear(struct yaml *yaml);
#define cleanup_yaml __attribute__((cleanup(yaml_clear)))

/* The line of a value: where its key stands in a mapping, else where it begins itself. 0: not known. */
size_t yaml_line(const struct yaml *yaml, const cJSON *value);

#endif
