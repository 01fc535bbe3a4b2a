/* A list, item by item. See list_scanner.h.
 *
 * Outside of strings only brackets count. At depth 1 the latest string before a '[' is the array's key; an object that begins
 * at depth 2 in the array "items" is an item. Anything else goes to the rest, which then reads {...,"items":[,,]} but for the
 * commas, which are left out as well. Text that is no JSON makes nonsense here, and an error in cJSON. */
#include "installer/kube/list_scanner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/json.h"

/* An item's text is kept between items, unless it has grown beyond this. */
#define KEPT_CAPACITY ((size_t)64 * 1024)

static int append(char **text, size_t *length, size_t *capacity, char c, size_t limit, struct error *error)
{
	if (*length + 1 > *capacity) {
		size_t wanted = *capacity ? *capacity * 2 : 4096;
		char *grown = *length < limit ? realloc(*text, wanted) : NULL;
		if (!grown)
			return *length < limit
				       ? error_set(error, ENOMEM, "cannot read a list")
				       : error_say(error, EMSGSIZE, "an object of the list is longer than %zu bytes", limit);
		*text = grown;
		*capacity = wanted;
	}
	(*text)[(*length)++] = c;
	return 0;
}

static int hand_on(struct kube_list_scanner *scanner, struct error *error)
{
	cleanup_cjson cJSON *item = NULL;
	if (json_parse(scanner->text, scanner->length, scanner->limit, "an object of the list", error, &item) < 0)
		return -1;
	scanner->length = 0;
	if (scanner->capacity > KEPT_CAPACITY) {
		free(scanner->text);
		scanner->text = NULL;
		scanner->capacity = 0;
	}
	return scanner->item(scanner->data, item) ? 0 : 1;
}

static bool key_is_items(const struct kube_list_scanner *scanner)
{
	static const char name[] = "items";
	return scanner->key_length == sizeof name - 1 && memcmp(scanner->rest + scanner->key_begin, name, sizeof name - 1) == 0;
}

static int take(struct kube_list_scanner *scanner, char c, struct error *error)
{
	bool was_in_string = scanner->in_string, ends_item = false;
	if (scanner->in_string) {
		if (scanner->is_escaped)
			scanner->is_escaped = false;
		else if (c == '\\')
			scanner->is_escaped = true;
		else if (c == '"')
			scanner->in_string = false;
		if (!scanner->in_string && scanner->depth == 1)
			scanner->key_length = scanner->rest_length - scanner->key_begin;
	} else if (c == '"') {
		scanner->in_string = true;
		if (scanner->depth == 1)
			scanner->key_begin = scanner->rest_length + 1;
	} else if (c == '{' || c == '[') {
		if (scanner->depth == 1 && c == '[' && key_is_items(scanner))
			scanner->in_items = true;
		else if (scanner->in_items && scanner->depth == 2)
			scanner->in_item = true;
		scanner->depth++;
	} else if (c == '}' || c == ']') {
		if (scanner->depth == 0)
			return error_say(error, EPROTO, "the list has more closing brackets than opening ones");
		scanner->depth--;
		ends_item = scanner->in_item && scanner->depth == 2;
		if (scanner->in_items && scanner->depth == 1)
			scanner->in_items = false;
	}

	if (scanner->in_item) {
		if (append(&scanner->text, &scanner->length, &scanner->capacity, c, scanner->limit, error) < 0)
			return -1;
		if (!ends_item)
			return 0;
		scanner->in_item = false;
		return hand_on(scanner, error);
	}
	bool is_comma_of_items = scanner->in_items && !was_in_string && c == ',';
	if (is_comma_of_items)
		return 0;
	return append(&scanner->rest, &scanner->rest_length, &scanner->rest_capacity, c, scanner->limit, error);
}

int kube_list_scanner_take(struct kube_list_scanner *scanner, const char *bytes, size_t length, struct error *error)
{
	for (size_t i = 0; i < length; i++) {
		int status = take(scanner, bytes[i], error);
		if (status != 0)
			return status;
	}
	return 0;
}

int kube_list_scanner_finish(struct kube_list_scanner *scanner, struct error *error, cJSON **ret_list)
{
	if (scanner->in_item)
		return error_say(error, EPROTO, "the list ends in the middle of an object");
	return json_parse(scanner->rest ? scanner->rest : "", scanner->rest_length, scanner->limit, "the list", error,
			  ret_list);
}

void kube_list_scanner_clear(struct kube_list_scanner *scanner)
{
	free(scanner->text);
	free(scanner->rest);
	scanner->text = scanner->rest = NULL;
	scanner->length = scanner->capacity = scanner->rest_length = scanner->rest_capacity = 0;
	scanner->depth = scanner->key_begin = scanner->key_length = 0;
	scanner->in_string = scanner->is_escaped = scanner->in_items = scanner->in_item = false;
}
