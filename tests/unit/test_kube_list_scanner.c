/* A Kubernetes list read in pieces: wherever the pieces are cut, each item comes once, whole, and as soon as it can. */
#include "tests/unit/cmocka_headers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/kube/list_scanner.h"

struct seen {
	char text[4096]; /* the items, one a line */
	size_t count, stop_at;
};

static bool item(void *data, const cJSON *value)
{
	struct seen *seen = data;
	cleanup_free char *text = cJSON_PrintUnformatted(value);
	strncat(seen->text, text, sizeof seen->text - strlen(seen->text) - 1);
	strncat(seen->text, "\n", sizeof seen->text - strlen(seen->text) - 1);
	return ++seen->count != seen->stop_at;
}

/* Reads `text` in pieces of `size` bytes, each in memory of its own; prints what stands around the items into `rest`. */
static int read_list(const char *text, size_t size, size_t limit, struct seen *seen, char *rest, struct error *error)
{
	struct kube_list_scanner scanner = { .item = item, .data = seen, .limit = limit };
	int status = 0;
	for (size_t at = 0; at < strlen(text) && status == 0; at += size) {
		size_t length = strlen(text + at) < size ? strlen(text + at) : size;
		cleanup_free char *piece = malloc(length);
		memcpy(piece, text + at, length);
		status = kube_list_scanner_take(&scanner, piece, length, error);
	}
	cleanup_cjson cJSON *list = NULL;
	if (status == 0 && (status = kube_list_scanner_finish(&scanner, error, &list)) == 0 && rest) {
		cleanup_free char *printed = cJSON_PrintUnformatted(list);
		strcpy(rest, printed);
	}
	kube_list_scanner_clear(&scanner);
	return status;
}

static void wherever_it_is_cut(void **state)
{
	(void)state;
	static const struct {
		const char *text, *items, *rest;
	} cases[] = {
		{ "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"a\":1},{\"b\":[{\"c\":2}]}]}\n",
		  "{\"a\":1}\n{\"b\":[{\"c\":2}]}\n",
		  "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[]}" },
		/* Brackets, quotes and the word itself in strings. */
		{ " { \"items\" : [ {\"x\":\"]}\\\\\"} , {\"y\":\"\\\"{[\"} ] , \"metadata\" : { \"items\" : [ {} , 1 ] } } ",
		  "{\"x\":\"]}\\\\\"}\n{\"y\":\"\\\"{[\"}\n", "{\"items\":[],\"metadata\":{\"items\":[{},1]}}" },
		{ "{\"metadata\":{},\"items\":[]}", "", "{\"metadata\":{},\"items\":[]}" },
		{ "{\"items\":null}", "", "{\"items\":null}" },
		/* Not the list's items: a string of that name as a value, another array. */
		{ "{\"a\":\"items\",\"b\":[{\"c\":1}]}", "", "{\"a\":\"items\",\"b\":[{\"c\":1}]}" },
		{ "[{\"items\":[{\"a\":1}]}]", "", "[{\"items\":[{\"a\":1}]}]" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (size_t size = 1; size < 40; size++) {
			struct seen seen = { 0 };
			struct error error = { 0 };
			char rest[1024];
			if (read_list(cases[i].text, size, 1000, &seen, rest, &error) < 0)
				fail_msg("case %zu in pieces of %zu: %s", i, size, error.message);
			assert_string_equal(seen.text, cases[i].items);
			assert_string_equal(rest, cases[i].rest);
		}
	}
}

static void what_is_no_list(void **state)
{
	(void)state;
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "", "" },
		{ "}", "closing brackets" },
		{ "{\"items\":[{\"a\":1}", "" },
		{ "{\"items\":[{\"a\":1", "middle of an object" },
		{ "{\"items\":[{\"a\" 1}]}", "an object of the list" },
		{ "{\"items\":[{]]}", "" },
		{ "{\"items\":[{\"a\":1}]}{", "" },
		{ "{\"items\":[{\"a\":1}]} x", "" },
		{ "\"", "" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (size_t size = 1; size < 30; size++) {
			struct seen seen = { 0 };
			struct error error = { 0 };
			assert_int_equal(read_list(cases[i].text, size, 1000, &seen, NULL, &error), -1);
			assert_non_null(strstr(error.message, cases[i].words));
		}
	}
}

static void memory_is_bounded(void **state)
{
	(void)state;
	enum { LIMIT = 10000 };
	cleanup_free char *text = malloc(3 * LIMIT), *filler = malloc(2 * LIMIT + 1);
	memset(filler, 'x', 2 * LIMIT);
	filler[2 * LIMIT] = '\0';
	static const char *const forms[] = { "{\"items\":[{\"a\":\"%s\"}]}", "{\"a\":\"%s\",\"items\":[]}", "%s" };
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		struct seen seen = { 0 };
		struct error error = { 0 };
		/* NOLINTNEXTLINE(clang-diagnostic-format-nonliteral) */
		snprintf(text, 3 * LIMIT, forms[i], filler);
		assert_int_equal(read_list(text, 1000, LIMIT, &seen, NULL, &error), -1);
		assert_non_null(strstr(error.message, "longer than 10000 bytes"));
	}
}

static void it_stops_where_it_is_told_to(void **state)
{
	(void)state;
	struct seen seen = { .stop_at = 2 };
	struct error error = { 0 };
	assert_int_equal(read_list("{\"items\":[{\"a\":1},{\"b\":2},{\"c\":3}]}", 100, 1000, &seen, NULL, &error), 1);
	assert_int_equal(seen.count, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wherever_it_is_cut),
		cmocka_unit_test(what_is_no_list),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(it_stops_where_it_is_told_to),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
