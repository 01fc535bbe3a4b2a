/* Bounded reading over cJSON. See json.h.
 *
 * cJSON reads nested values recursively and stops at its own limit (1000); ours is lower, and is checked before parsing, so
 * that a hostile text costs no stack. */
#include "ambient/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"

#define DEPTH_MAX 64

static void locate(const char *text, const char *position, size_t *ret_line, size_t *ret_column)
{
	size_t line = 1, column = 1;
	for (const char *at = text; at < position; at++) {
		column++;
		if (*at == '\n') {
			line++;
			column = 1;
		}
	}
	*ret_line = line;
	*ret_column = column;
}

static int error_at(struct error *error, const char *what, const char *text, const char *position, const char *problem)
{
	size_t line, column;
	locate(text, position, &line, &column);
	return error_set(error, 0, "%s, line %zu column %zu: %s", what, line, column, problem);
}

/* The place where the nesting gets too deep; NULL: nowhere. Brackets in strings don't count. */
static const char *too_deep(const char *text, size_t length)
{
	size_t depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < length; i++) {
		char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if ((c == '[' || c == '{') && ++depth > DEPTH_MAX) {
			return text + i;
		} else if ((c == ']' || c == '}') && depth > 0) {
			depth--;
		}
	}
	return NULL;
}

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\r' || *at == '\n'))
		at++;
	return at;
}

/* JSON bounds no number, but what is too large for a double would be written again as no number at all. */
static bool all_finite(const cJSON *value)
{
	if (cJSON_IsNumber(value) && !isfinite(value->valuedouble))
		return false;
	for (const cJSON *child = value->child; child; child = child->next)
		if (!all_finite(child))
			return false;
	return true;
}

int json_parse(const char *text, size_t length, size_t limit, const char *what, struct error *error, cJSON **ret_json)
{
	if (length > limit)
		return error_set(error, 0, "%s is larger than %zu bytes", what, limit);
	if (skip_space(text, text + length) == text + length)
		return error_set(error, 0, "%s is empty, expected JSON", what);
	const char *deep = too_deep(text, length);
	if (deep)
		return error_at(error, what, text, deep, "nested deeper than 64 levels");
	const char *nul = memchr(text, '\0', length);
	if (nul)
		return error_at(error, what, text, nul, "a NUL byte, expected JSON");

	const char *end = text;
	/* cJSON does not tell a text that is wrong from memory that is missing; the allocator does. */
	errno = 0;
	cleanup_cjson cJSON *json = cJSON_ParseWithLengthOpts(text, length, &end, false);
	if (!json && errno == ENOMEM)
		return error_set(error, ENOMEM, "cannot read %s", what);
	if (!json)
		return error_at(error, what, text, end, "not valid JSON");
	end = skip_space(end, text + length);
	if (end < text + length)
		return error_at(error, what, text, end, "something follows the JSON value");
	if (!all_finite(json))
		return error_set(error, 0, "%s: a number is larger than any that can be kept", what);
	*ret_json = steal_pointer(json);
	return 0;
}

bool json_append(cJSON *array, cJSON *item)
{
	if (cJSON_AddItemToArray(array, item))
		return true;
	cJSON_Delete(item);
	return false;
}

const char *json_type_name(const cJSON *value)
{
	if (!value)
		return "nothing";
	if (cJSON_IsString(value))
		return "a string";
	if (cJSON_IsNumber(value))
		return "a number";
	if (cJSON_IsTrue(value))
		return "true";
	if (cJSON_IsFalse(value))
		return "false";
	if (cJSON_IsArray(value))
		return "a list";
	if (cJSON_IsObject(value))
		return "an object";
	return "null";
}

/* The member, or NULL where it is absent or null. */
static const cJSON *member(const cJSON *object, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
	return cJSON_IsNull(value) ? NULL : value;
}

static int wrong_type(struct error *error, const char *where, const char *key, const char *expected, const cJSON *found)
{
	return error_set(error, 0, "%s%s%s: expected %s, found %s", where, where[0] ? "." : "", key, expected,
			 json_type_name(found));
}

int json_get_string(const cJSON *object, const char *key, const char *where, struct error *error, const char **ret_value)
{
	const cJSON *value = member(object, key);
	if (value && !cJSON_IsString(value))
		return wrong_type(error, where, key, "a string", value);
	if (value)
		*ret_value = value->valuestring;
	return 0;
}

int json_get_bool(const cJSON *object, const char *key, const char *where, struct error *error, bool *ret_value)
{
	const cJSON *value = member(object, key);
	if (value && !cJSON_IsBool(value))
		return wrong_type(error, where, key, "true or false", value);
	if (value)
		*ret_value = cJSON_IsTrue(value);
	return 0;
}

int json_get_integer(const cJSON *object, const char *key, const char *where, long minimum, long maximum, struct error *error,
		     long *ret_value)
{
	const cJSON *value = member(object, key);
	if (!value)
		return 0;
	char expected[96];
	snprintf(expected, sizeof expected, "an integer from %ld to %ld", minimum, maximum);
	if (!cJSON_IsNumber(value))
		return wrong_type(error, where, key, expected, value);
	if (!(value->valuedouble >= (double)minimum && value->valuedouble <= (double)maximum) ||
	    value->valuedouble != trunc(value->valuedouble))
		return error_set(error, 0, "%s%s%s: expected %s, found %.17g", where, where[0] ? "." : "", key, expected,
				 value->valuedouble);
	*ret_value = (long)value->valuedouble;
	return 0;
}

int json_get_object(const cJSON *object, const char *key, const char *where, struct error *error, const cJSON **ret_value)
{
	const cJSON *value = member(object, key);
	if (value && !cJSON_IsObject(value))
		return wrong_type(error, where, key, "an object", value);
	if (value)
		*ret_value = value;
	return 0;
}

int json_get_array(const cJSON *object, const char *key, const char *where, struct error *error, const cJSON **ret_value)
{
	const cJSON *value = member(object, key);
	if (value && !cJSON_IsArray(value))
		return wrong_type(error, where, key, "a list", value);
	if (value)
		*ret_value = value;
	return 0;
}
