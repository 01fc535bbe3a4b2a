/* Editing network configurations of others: numbers and the order of keys are kept, entries are found by type, and what can't
 * be chained says why. tests/host does the same on files. */
#include "tests/unit/cmocka_headers.h"

#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/host/conflist.h"

static cJSON *parse(const char *text)
{
	cJSON *json = cJSON_Parse(text);
	assert_non_null(json);
	return json;
}

/* One line, so that it can be compared. */
static char *print(const cJSON *json)
{
	char *text = conflist_print(json), *to = text;
	assert_non_null(text);
	for (const char *from = text; *from; from++)
		if (*from != '\n' && *from != '\t')
			*to++ = *from;
	*to = '\0';
	return text;
}

static void assert_json(const cJSON *json, const char *expected)
{
	cleanup_free char *text = print(json);
	cleanup_cjson cJSON *wanted = parse(expected);
	cleanup_free char *wanted_text = print(wanted);
	assert_string_equal(text, wanted_text);
}

static void add(const char *before, const char *original, const char *after)
{
	cleanup_cjson cJSON *json = parse(before), *plugin = parse("{\"runDir\":\"/r\"}"), *list = NULL;
	struct error error = { 0 };
	if (conflist_add(json, plugin, original, &error, &list) < 0)
		fail_msg("%s", error.message);
	assert_json(list, after);
}

static void we_come_last_and_once(void **state)
{
	(void)state;
	add("{\"z\":1,\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"a\"}],\"name\":\"n\"}", NULL,
	    "{\"z\":1,\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\",\"runDir\":\"/"
	    "r\"}],\"name\":\"n\"}");
	add("{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"ambient-cni\",\"x\":1},{\"type\":\"a\"},{\"type\":\"istio-"
	    "cni\"},"
	    "{\"type\":\"ambient-cni\"}]}",
	    NULL, "{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\",\"runDir\":\"/r\"}]}");
	/* A single plugin, with the file that it was. */
	add("{\"type\":\"a\",\"name\":\"n\",\"cniVersion\":\"0.3.1\"}", "1.conf",
	    "{\"cniVersion\":\"0.3.1\",\"name\":\"n\",\"plugins\":[{\"type\":\"a\",\"name\":\"n\",\"cniVersion\":\"0.3.1\"},"
	    "{\"type\":\"ambient-cni\",\"runDir\":\"/r\",\"ambient-cni.io/original\":\"1.conf\"}]}");
	/* What it was is remembered through later edits. */
	add("{\"cniVersion\":\"0.3.1\",\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\",\"ambient-cni.io/"
	    "original\":\"1.conf\"}]}",
	    NULL,
	    "{\"cniVersion\":\"0.3.1\",\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\",\"runDir\":\"/r\","
	    "\"ambient-cni.io/original\":\"1.conf\"}]}");
	/* One of several versions will do. */
	add("{\"cniVersions\":[\"0.1.0\",\"1.0.0\"],\"plugins\":[{\"type\":\"a\"}]}", NULL,
	    "{\"cniVersions\":[\"0.1.0\",\"1.0.0\"],\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\",\"runDir\":\"/"
	    "r\"}]}");
}

static void what_cannot_be_chained_says_why(void **state)
{
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "{\"plugins\":[{\"type\":\"a\"}]}", "no cniVersion" },
		{ "{\"cniVersion\":\"\",\"plugins\":[{\"type\":\"a\"}]}", "no cniVersion" },
		{ "{\"cniVersion\":\"0.2.0\",\"plugins\":[{\"type\":\"a\"}]}", "\"0.2.0\"" },
		{ "{\"cniVersions\":[\"0.1.0\"],\"plugins\":[{\"type\":\"a\"}]}", "no cniVersion" },
		{ "{\"cniVersion\":\"1.0.0\",\"plugins\":[]}", "no plugin" },
		{ "{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"istio-cni\"}]}", "no plugin" },
		{ "{\"cniVersion\":\"1.0.0\",\"plugins\":[{\"type\":\"ambient-cni\"}]}", "no plugin" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_cjson cJSON *json = parse(cases[i].text), *list = NULL;
		struct error error = { 0 };
		assert_int_equal(conflist_add(json, NULL, NULL, &error, &list), -1);
		assert_non_null(strstr(error.message, cases[i].words));
		assert_null(list);
	}
}

static void take_out(const char *before, const char *after, const char *original)
{
	cleanup_cjson cJSON *list = parse(before), *rest = NULL;
	cleanup_free char *name = NULL;
	assert_int_equal(conflist_remove(list, NULL, &rest, &name), 0);
	if (after)
		assert_json(rest, after);
	else
		assert_null(rest);
	if (original)
		assert_string_equal(name, original);
	else
		assert_null(name);
}

static void taking_out_gives_back_what_was(void **state)
{
	(void)state;
	take_out("{\"a\":1,\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\"},{\"type\":\"b\"}]}",
		 "{\"a\":1,\"plugins\":[{\"type\":\"a\"},{\"type\":\"b\"}]}", NULL);
	take_out("{\"plugins\":[{\"type\":\"a\",\"k\":1},{\"type\":\"ambient-cni\",\"ambient-cni.io/original\":\"1.conf\"}]}",
		 "{\"type\":\"a\",\"k\":1}", "1.conf");
	take_out("{\"plugins\":[{\"type\":\"a\"},{\"type\":\"b\"},{\"type\":\"ambient-cni\",\"ambient-cni.io/"
		 "original\":\"1.conf\"}]}",
		 "{\"plugins\":[{\"type\":\"a\"},{\"type\":\"b\"}]}", NULL);
	take_out("{\"plugins\":[{\"type\":\"ambient-cni\"}]}", NULL, NULL);
	take_out("{\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\",\"ambient-cni.io/copy-of\":\"1.conf\"}]}", NULL,
		 NULL);
	/* istio-cni's entry is not ours to take: people may be on their way back. */
	take_out("{\"plugins\":[{\"type\":\"a\"},{\"type\":\"ambient-cni\"},{\"type\":\"istio-cni\"}]}",
		 "{\"plugins\":[{\"type\":\"a\"},{\"type\":\"istio-cni\"}]}", NULL);
}

static void numbers_are_printed_exactly(void **state)
{
	static const char *const numbers[] = {
		"0",   "-7",	"9007199254740992",    "9007199254740991", "-9007199254740991", "1000000000000000",
		"0.1", "1e-07", "0.30000000000000004", "123456.789"
	};
	(void)state;
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		cleanup_cjson cJSON *json = parse(numbers[i]);
		cleanup_free char *text = print(json);
		assert_string_equal(text, numbers[i]);
	}
}

static void equal_is_exact(void **state)
{
	static const struct {
		const char *a, *b;
		bool equal;
	} cases[] = {
		{ "{\"a\":1,\"b\":[1,null]}", "{ \"a\" : 1.0, \"b\" : [ 1, null ] }", true },
		{ "9007199254740991", "9007199254740992", false }, /* cJSON_Compare finds these equal */
		{ "{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", false },
		{ "\"a\\u00e9\"", "\"aé\"", true },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_cjson cJSON *a = parse(cases[i].a), *b = parse(cases[i].b);
		assert_int_equal(conflist_equal(a, b), cases[i].equal);
	}
}

static void file_names(void **state)
{
	static const char *const names[][2] = { { "1.conf", "1.conflist" },	{ "1.json", "1.conflist" },
						{ "1.conflist", "1.conflist" }, { "a.b.conf", "a.b.conflist" },
						{ ".conf", ".conflist" },	{ "none", "none" } };
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		cleanup_free char *name = conflist_file_name(names[i][0]);
		assert_string_equal(name, names[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(we_come_last_and_once),
		cmocka_unit_test(what_cannot_be_chained_says_why),
		cmocka_unit_test(taking_out_gives_back_what_was),
		cmocka_unit_test(numbers_are_printed_exactly),
		cmocka_unit_test(equal_is_exact),
		cmocka_unit_test(file_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
