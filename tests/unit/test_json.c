/* Bounded JSON: what is refused, and that messages say where. */
#include "tests/unit/cmocka_headers.h"

#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

static void bad_texts_are_refused_with_their_place(void **state)
{
	(void)state;
	char deep[200];
	memset(deep, '[', 100);
	memset(deep + 100, ']', 100);
	const struct {
		const char *text;
		size_t length;
		const char *words;
	} cases[] = {
		{ "", 0, "is empty" },
		{ " \n\t ", 4, "is empty" },
		{ "{", 1, "line 1" },
		{ "{\n \"a\": tru }", 13, "line 2" },
		{ "{} {}", 5, "something follows" },
		{ "{}x", 3, "column 3" },
		{ "[1,]", 4, "not valid" },
		{ "{\"a\":[-1e400]}", 14, "a number is larger" },
		{ "{\"a\" 1}", 7, "not valid" },
		{ "\"a\0b\"", 5, "NUL" },
		{ deep, sizeof deep, "nested deeper" },
		{ "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\": 1}", 35, NULL },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct error error = { 0 };
		cJSON *json = NULL;
		size_t limit = cases[i].words ? 4096 : 34;
		assert_int_equal(json_parse(cases[i].text, cases[i].length, limit, "the text", &error, &json), -1);
		assert_null(json);
		assert_non_null(strstr(error.message, cases[i].words ? cases[i].words : "larger than 34"));
		assert_non_null(strstr(error.message, "the text"));
	}
}

static void a_text_cut_anywhere_is_no_crash(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":[1,2.5e3,{\"b\":\"\\u00e4\\n\\\"[\"}],\"c\":null,\"d\":false}";
	for (size_t length = 0; length < sizeof text; length++) {
		/* Exactly as long as it says: a sanitizer sees the first byte too many. */
		cleanup_free char *cut = malloc(length ? length : 1);
		cleanup_cjson cJSON *json = NULL;
		memcpy(cut, text, length);
		int result = json_parse(cut, length, 4096, "text", NULL, &json);
		assert_int_equal(result, length == sizeof text - 1 ? 0 : -1);
	}
}

static void readers_say_what_they_expected(void **state)
{
	(void)state;
	cleanup_cjson cJSON *json =
		cJSON_Parse("{\"s\":\"x\",\"n\":3,\"f\":1.5,\"b\":true,\"o\":{},\"a\":[],\"z\":null,\"big\":1e300}");
	const char *text = "kept";
	bool flag = false;
	long number = -1;
	const cJSON *item = NULL;
	struct error error = { 0 };
	assert_int_equal(json_get_string(json, "s", "", &error, &text), 0);
	assert_string_equal(text, "x");
	assert_int_equal(json_get_string(json, "z", "", &error, &text) | json_get_string(json, "none", "", &error, &text), 0);
	assert_string_equal(text, "x");
	assert_int_equal(json_get_bool(json, "b", "", &error, &flag), 0);
	assert_true(flag);
	assert_int_equal(json_get_integer(json, "n", "", 0, 10, &error, &number), 0);
	assert_int_equal(number, 3);
	assert_int_equal(json_get_object(json, "o", "", &error, &item) | json_get_array(json, "a", "", &error, &item), 0);

	assert_int_equal(json_get_string(json, "n", "plugins[1]", &error, &text), -1);
	assert_string_equal(error.message, "plugins[1].n: expected a string, found a number");
	static const char *const wrong_integers[] = { "f", "big", "s" };
	for (size_t i = 0; i < 3; i++) {
		error = (struct error){ 0 };
		assert_int_equal(json_get_integer(json, wrong_integers[i], "", 0, 10, &error, &number), -1);
		assert_non_null(strstr(error.message, "an integer from 0 to 10"));
	}
	error = (struct error){ 0 };
	assert_int_equal(json_get_integer(json, "n", "", 4, 10, &error, &number), -1);
	assert_int_equal(number, 3);
	assert_int_equal(json_get_bool(json, "a", "", NULL, &flag), -1);
	assert_int_equal(json_get_object(json, "a", "", NULL, &item), -1);
	assert_int_equal(json_get_array(json, "o", "", NULL, &item), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_texts_are_refused_with_their_place),
		cmocka_unit_test(a_text_cut_anywhere_is_no_crash),
		cmocka_unit_test(readers_say_what_they_expected),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
