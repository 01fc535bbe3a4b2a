/* YAML into cJSON. See yaml.h.
 *
 * libyaml delivers events; a stack of open lists and mappings, as deep as is allowed, turns them into values without recursion.
 * What a text may cost is bounded: its bytes by the caller, the nesting, the number of values, and what aliases copy (a
 * "billion laughs" is a few lines whose aliases multiply). */
#include "installer/yaml.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/yaml_scalar.h"

#define DEPTH_MAX 64
#define VALUES_MAX 1000000
#define ANCHORS_MAX 1000
#define COPIED_BYTES_MAX (1 << 20)

/* An open list or mapping. */
struct frame {
	cJSON *container;
	char *key; /* of the mapping's next value; NULL: a key is expected */
	size_t key_line;
};

struct anchor {
	char *name;
	const cJSON *value;
};

struct reader {
	const char *what;
	struct error *error;
	struct yaml yaml;
	size_t lines_room;
	struct frame stack[DEPTH_MAX];
	size_t depth;
	struct anchor *anchors; /* of this document */
	size_t anchors_count;
	size_t copied_bytes;
};

static void reader_clear(struct reader *reader)
{
	yaml_clear(&reader->yaml);
	for (size_t i = 0; i < reader->depth; i++)
		free(reader->stack[i].key);
	for (size_t i = 0; i < reader->anchors_count; i++)
		free(reader->anchors[i].name);
	free(reader->anchors);
}

static void event_delete(yaml_event_t *event)
{
	yaml_event_delete(event);
}

static void parser_delete(yaml_parser_t *parser)
{
	yaml_parser_delete(parser);
}

static int no_memory(const struct reader *reader)
{
	return error_set(reader->error, ENOMEM, "cannot read %s", reader->what);
}

#define fail_at(reader, mark, format, ...)                                                                                     \
	error_set((reader)->error, 0, "%s, line %zu column %zu: " format, (reader)->what, (mark)->line + 1,                    \
		  (mark)->column + 1 __VA_OPT__(, ) __VA_ARGS__)

static int remember_line(struct reader *reader, const cJSON *value, size_t line)
{
	struct yaml *yaml = &reader->yaml;
	if (yaml->lines_count == reader->lines_room) {
		size_t room = reader->lines_room ? reader->lines_room * 2 : 64;
		struct yaml_line *lines = reallocarray(yaml->lines, room, sizeof *lines);
		if (!lines)
			return no_memory(reader);
		yaml->lines = lines;
		reader->lines_room = room;
	}
	yaml->lines[yaml->lines_count++] = (struct yaml_line){ value, line };
	return 0;
}

/* Puts a value where the events say that it belongs. Takes it, also on failure. */
static int place(struct reader *reader, cJSON *new_value, const yaml_mark_t *mark)
{
	cleanup_cjson cJSON *value = new_value;
	size_t line = mark->line + 1;
	if (!value)
		return no_memory(reader);
	if (reader->yaml.lines_count >= VALUES_MAX)
		return fail_at(reader, mark, "more than %d values", VALUES_MAX);
	struct frame *frame = reader->depth > 0 ? &reader->stack[reader->depth - 1] : NULL;
	if (frame && frame->key)
		line = frame->key_line;
	if (remember_line(reader, value, line) < 0)
		return -1;
	bool is_placed;
	if (!frame)
		is_placed = cJSON_AddItemToArray(reader->yaml.documents, value);
	else if (frame->key)
		is_placed = cJSON_AddItemToObject(frame->container, frame->key, value);
	else
		is_placed = cJSON_AddItemToArray(frame->container, value);
	if (!is_placed)
		return no_memory(reader);
	steal_pointer(value);
	if (frame) {
		free(frame->key);
		frame->key = NULL;
	}
	return 0;
}

static bool expects_key(const struct reader *reader)
{
	if (reader->depth == 0)
		return false;
	const struct frame *frame = &reader->stack[reader->depth - 1];
	return cJSON_IsObject(frame->container) && !frame->key;
}

static int add_anchor(struct reader *reader, const yaml_char_t *name, const cJSON *value, const yaml_mark_t *mark)
{
	if (!name)
		return 0;
	if (reader->anchors_count >= ANCHORS_MAX)
		return fail_at(reader, mark, "more than %d anchors", ANCHORS_MAX);
	struct anchor *anchors = reallocarray(reader->anchors, reader->anchors_count + 1, sizeof *anchors);
	if (!anchors)
		return no_memory(reader);
	reader->anchors = anchors;
	char *copy = strdup((const char *)name);
	if (!copy)
		return no_memory(reader);
	anchors[reader->anchors_count++] = (struct anchor){ copy, value };
	return 0;
}

static void forget_anchors(struct reader *reader)
{
	for (size_t i = 0; i < reader->anchors_count; i++)
		free(reader->anchors[i].name);
	reader->anchors_count = 0;
}

static int read_scalar(struct reader *reader, const yaml_event_t *event, cJSON **ret_value)
{
	const char *text = (const char *)event->data.scalar.value, *tag = (const char *)event->data.scalar.tag;
	bool is_plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	double number = 0;
	enum yaml_scalar type = YAML_SCALAR_STRING;
	if (tag && strcmp(tag, "!") != 0 && strcmp(tag, YAML_TAG_PREFIX "str") != 0) {
		type = yaml_scalar_resolve(text, &number);
		if (!yaml_scalar_fits(tag, type))
			return fail_at(reader, &event->start_mark, "\"%.64s\" can't be read as %.64s", text, tag);
	} else if (!tag && is_plain) {
		type = yaml_scalar_resolve(text, &number);
	}
	switch (type) {
	case YAML_SCALAR_NULL:
		*ret_value = cJSON_CreateNull();
		return 0;
	case YAML_SCALAR_TRUE:
	case YAML_SCALAR_FALSE:
		*ret_value = cJSON_CreateBool(type == YAML_SCALAR_TRUE);
		return 0;
	case YAML_SCALAR_NUMBER:
		*ret_value = cJSON_CreateNumber(number);
		return 0;
	case YAML_SCALAR_INFINITE:
		return fail_at(reader, &event->start_mark, "expected a finite number, found %.64s (a string needs quotes)",
			       text);
	case YAML_SCALAR_STRING:
		break;
	}
	*ret_value = cJSON_CreateString(text);
	return 0;
}

static int read_key(struct reader *reader, const yaml_event_t *event)
{
	struct frame *frame = &reader->stack[reader->depth - 1];
	const char *text = (const char *)event->data.scalar.value;
	if (strcmp(text, "<<") == 0 && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
		return fail_at(reader, &event->start_mark, "merge keys (<<) are not read: write the keys themselves");
	if (event->data.scalar.anchor)
		return fail_at(reader, &event->start_mark, "an anchor on a key is not read");
	frame->key = strdup(text);
	frame->key_line = event->start_mark.line + 1;
	return frame->key ? 0 : no_memory(reader);
}

static int scalar(struct reader *reader, const yaml_event_t *event)
{
	if (memchr(event->data.scalar.value, '\0', event->data.scalar.length))
		return fail_at(reader, &event->start_mark, "a NUL character in a string");
	if (expects_key(reader))
		return read_key(reader, event);
	cJSON *value = NULL;
	if (read_scalar(reader, event, &value) < 0 || place(reader, value, &event->start_mark) < 0)
		return -1;
	return add_anchor(reader, event->data.scalar.anchor, value, &event->start_mark);
}

static int open_container(struct reader *reader, const yaml_event_t *event)
{
	bool is_mapping = event->type == YAML_MAPPING_START_EVENT;
	const yaml_char_t *anchor = is_mapping ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
	const char *tag = (const char *)(is_mapping ? event->data.mapping_start.tag : event->data.sequence_start.tag);
	if (expects_key(reader))
		return fail_at(reader, &event->start_mark, "a %s as a key, expected a scalar", is_mapping ? "mapping" : "list");
	if (tag && strcmp(tag, "!") != 0 && strcmp(tag, is_mapping ? YAML_TAG_PREFIX "map" : YAML_TAG_PREFIX "seq") != 0)
		return fail_at(reader, &event->start_mark, "a %s can't be read as %.64s", is_mapping ? "mapping" : "list", tag);
	if (reader->depth == DEPTH_MAX)
		return fail_at(reader, &event->start_mark, "nested deeper than %d levels", DEPTH_MAX);
	cJSON *value = is_mapping ? cJSON_CreateObject() : cJSON_CreateArray();
	if (place(reader, value, &event->start_mark) < 0 || add_anchor(reader, anchor, value, &event->start_mark) < 0)
		return -1;
	reader->stack[reader->depth++] = (struct frame){ .container = value };
	return 0;
}

static int compare_keys(const void *a, const void *b)
{
	const cJSON *const *first = a, *const *second = b;
	return strcmp((*first)->string, (*second)->string);
}

static size_t line_of(const struct reader *reader, const cJSON *value)
{
	for (size_t i = reader->yaml.lines_count; i > 0; i--)
		if (reader->yaml.lines[i - 1].value == value)
			return reader->yaml.lines[i - 1].line;
	return 0;
}

/* A key that comes twice is found by sorting, not by comparing each with each: a mapping may be large. */
static int check_keys(struct reader *reader, const cJSON *object)
{
	size_t count = 0;
	const cJSON *member;
	cJSON_ArrayForEach (member, object)
		count++;
	if (count < 2)
		return 0;
	cleanup_free const cJSON **members = reallocarray(NULL, count, sizeof *members);
	if (!members)
		return no_memory(reader);
	count = 0;
	cJSON_ArrayForEach (member, object)
		members[count++] = member;
	qsort(members, count, sizeof *members, compare_keys);
	for (size_t i = 1; i < count; i++) {
		if (strcmp(members[i - 1]->string, members[i]->string) != 0)
			continue;
		size_t first = line_of(reader, members[i - 1]), second = line_of(reader, members[i]);
		return error_set(reader->error, 0, "%s, line %zu: the key \"%.64s\" is there already, on line %zu",
				 reader->what, first > second ? first : second, members[i]->string,
				 first > second ? second : first);
	}
	return 0;
}

static int close_container(struct reader *reader)
{
	const cJSON *container = reader->stack[--reader->depth].container;
	return cJSON_IsObject(container) ? check_keys(reader, container) : 0;
}

/* Adds what a copy of the value costs, counting no further than the limit; false: it is nested too deep. */
static bool measure(const cJSON *value, size_t depth, size_t *bytes)
{
	*bytes += sizeof *value + (value->string ? strlen(value->string) : 0) +
		  (value->valuestring ? strlen(value->valuestring) : 0);
	if (*bytes > COPIED_BYTES_MAX || !value->child)
		return true;
	if (depth >= DEPTH_MAX)
		return false;
	for (const cJSON *child = value->child; child; child = child->next)
		if (!measure(child, depth + 1, bytes))
			return false;
	return true;
}

static int alias(struct reader *reader, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;
	const cJSON *value = NULL;
	if (expects_key(reader))
		return fail_at(reader, &event->start_mark, "an alias as a key, expected a scalar");
	for (size_t i = reader->anchors_count; i > 0 && !value; i--) /* the last one of a name counts */
		if (strcmp(reader->anchors[i - 1].name, name) == 0)
			value = reader->anchors[i - 1].value;
	if (!value)
		return fail_at(reader, &event->start_mark, "no anchor &%.64s stands before the alias", name);
	for (size_t i = 0; i < reader->depth; i++)
		if (reader->stack[i].container == value)
			return fail_at(reader, &event->start_mark, "the alias *%.64s holds itself", name);
	if (!measure(value, reader->depth, &reader->copied_bytes))
		return fail_at(reader, &event->start_mark, "nested deeper than %d levels by the alias *%.64s", DEPTH_MAX, name);
	if (reader->copied_bytes > COPIED_BYTES_MAX)
		return fail_at(reader, &event->start_mark, "aliases copy more than %d bytes", COPIED_BYTES_MAX);
	return place(reader, cJSON_Duplicate(value, true), &event->start_mark);
}

static int take_event(struct reader *reader, const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return scalar(reader, event);
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		return open_container(reader, event);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return close_container(reader);
	case YAML_ALIAS_EVENT:
		return alias(reader, event);
	case YAML_DOCUMENT_END_EVENT:
		forget_anchors(reader);
		return 0;
	default:
		return 0;
	}
}

/* What libyaml says; where it failed to decode the text it gives an offset, else a mark. */
static int parser_failed(const struct reader *reader, const yaml_parser_t *parser, const char *text, size_t length)
{
	const char *problem = parser->problem ? parser->problem : "not valid YAML";
	if (parser->error == YAML_MEMORY_ERROR)
		return no_memory(reader);
	if (parser->error == YAML_READER_ERROR) {
		size_t line = 1, column = 1;
		for (size_t i = 0; i < parser->problem_offset && i < length; i++) {
			column = text[i] == '\n' ? 1 : column + 1;
			line += text[i] == '\n';
		}
		return error_set(reader->error, 0, "%s, line %zu column %zu: %s", reader->what, line, column, problem);
	}
	if (!parser->context)
		return fail_at(reader, &parser->problem_mark, "%s", problem);
	return fail_at(reader, &parser->problem_mark, "%s, %s from line %zu", problem, parser->context,
		       parser->context_mark.line + 1);
}

/* 0, -1, or 1 where the text is not YAML and the error says so. */
static int read_events(struct reader *reader, const char *text, size_t length)
{
	__attribute__((cleanup(parser_delete))) yaml_parser_t parser;
	if (!yaml_parser_initialize(&parser)) {
		memset(&parser, 0, sizeof parser);
		return no_memory(reader);
	}
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
	for (bool is_done = false; !is_done;) {
		__attribute__((cleanup(event_delete))) yaml_event_t event = { 0 };
		if (!yaml_parser_parse(&parser, &event)) {
			parser_failed(reader, &parser, text, length);
			return parser.error == YAML_MEMORY_ERROR ? -1 : 1;
		}
		if (take_event(reader, &event) < 0)
			return -1;
		is_done = event.type == YAML_STREAM_END_EVENT;
	}
	return 0;
}

static int compare_lines(const void *a, const void *b)
{
	uintptr_t first = (uintptr_t)((const struct yaml_line *)a)->value;
	uintptr_t second = (uintptr_t)((const struct yaml_line *)b)->value;
	return (first > second) - (first < second);
}

/* JSON that libyaml refuses: it knows no surrogate pairs ("\ud83d\ude00"), no keys longer than 1024 characters, no tabs before
 * a value. Such a text has no lines. */
static bool read_json(const char *text, size_t length, size_t limit, const char *what, struct yaml *ret_yaml)
{
	size_t start = 0;
	while (start < length && strchr(" \t\r\n", text[start]) && text[start] != '\0')
		start++;
	if (start == length || (text[start] != '{' && text[start] != '['))
		return false;
	struct yaml yaml = { .documents = cJSON_CreateArray() };
	cJSON *json = NULL;
	if (!yaml.documents || json_parse(text, length, limit, what, NULL, &json) < 0 ||
	    !cJSON_AddItemToArray(yaml.documents, json)) {
		yaml_clear(&yaml);
		return false;
	}
	*ret_yaml = yaml;
	return true;
}

int yaml_parse(const char *text, size_t length, size_t limit, const char *what, struct error *error, struct yaml *ret_yaml)
{
	struct error own = { 0 };
	__attribute__((cleanup(reader_clear))) struct reader reader = { .what = what, .error = &own };
	if (length > limit)
		return error_set(error, EFBIG, "%s is larger than %zu bytes", what, limit);
	reader.yaml.documents = cJSON_CreateArray();
	int outcome = reader.yaml.documents ? read_events(&reader, text, length) : no_memory(&reader);
	if (outcome > 0 && read_json(text, length, limit, what, ret_yaml))
		return 0;
	if (outcome != 0)
		return error_copy(error, &own);
	if (reader.yaml.lines)
		qsort(reader.yaml.lines, reader.yaml.lines_count, sizeof *reader.yaml.lines, compare_lines);
	*ret_yaml = reader.yaml;
	reader.yaml = (struct yaml){ 0 };
	return 0;
}

void yaml_clear(struct yaml *yaml)
{
	cJSON_Delete(yaml->documents);
	free(yaml->lines);
	*yaml = (struct yaml){ 0 };
}

size_t yaml_line(const struct yaml *yaml, const cJSON *value)
{
	const struct yaml_line wanted = { .value = value };
	if (!value || yaml->lines_count == 0)
		return 0;
	const struct yaml_line *found = bsearch(&wanted, yaml->lines, yaml->lines_count, sizeof *yaml->lines, compare_lines);
	return found ? found->line : 0;
}
