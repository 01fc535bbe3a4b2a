/* Reading JSON over cJSON: bounded, and with messages that say where something is and what was expected. Each reader leaves
 * `ret_` untouched and returns 0 when the key is absent or null. `where` is the object's place ("plugins[1]", "redirect", or
 * "" for the top); texts, objects and lists are borrowed from the object. A message reads: redirect.exclude.outboundPorts[2]:
 * expected a port or a range "a-b", found "x". */
#ifndef AMBIENT_JSON_H
#define AMBIENT_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"

static inline void cleanup_cjsonp(cJSON **json)
{
	cJSON_Delete(*json);
}
#define cleanup_cjson __attribute__((cleanup(cleanup_cjsonp)))

/* Parses exactly one value; anything but white space after it, nesting deeper than 64, more than `limit` bytes or a number that
 * no double holds is an error.
 * The message gives line and column. `what` names the text ("network configuration on standard input"). */
int json_parse(const char *text, size_t length, size_t limit, const char *what, struct error *error, cJSON **ret_json);

/* cJSON_AddItemToArray that takes `item` in any case: where there is no array or no item, it is freed and false returned. */
bool json_append(cJSON *array, cJSON *item);

int json_get_string(const cJSON *object, const char *key, const char *where, struct error *error, const char **ret_value);
int json_get_bool(const cJSON *object, const char *key, const char *where, struct error *error, bool *ret_value);
/* An integer within [minimum, maximum]; a fraction is an error. */
int json_get_integer(const cJSON *object, const char *key, const char *where, long minimum, long maximum, struct error *error,
		     long *ret_value);
int json_get_object(const cJSON *object, const char *key, const char *where, struct error *error, const cJSON **ret_value);
int json_get_array(const cJSON *object, const char *key, const char *where, struct error *error, const cJSON **ret_value);

/* "a string", "a number", "true", "an object": for messages. */
const char *json_type_name(const cJSON *value);

#endif
