/* YAML and JSON into cJSON: the core schema's scalars, structure, lines, and what is refused. */
#include "tests/unit/cmocka_headers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/yaml.h"

#define LIMIT (1 << 20)

static int parse(const char *text, struct error *error, struct yaml *yaml)
{
	return yaml_parse(text, strlen(text), LIMIT, "test.yaml", error, yaml);
}

/* A text and its documents as JSON. */
static const char *const readings[][2] = {
	{ "", "[]" },
	{ "# only a comment\n", "[]" },
	{ "---\n", "[null]" },
	{ "a: 1\n---\nb: 2\n...\n--- [x]\n", "[{\"a\":1},{\"b\":2},[\"x\"]]" },
	/* scalars of the core schema */
	{ "[null, Null, NULL, ~, ]", "[[null,null,null,null]]" },
	{ "{a: , b: 1}", "[{\"a\":null,\"b\":1}]" },
	{ "[true, True, TRUE, false, False, FALSE]", "[[true,true,true,false,false,false]]" },
	{ "[yes, no, on, off, y, tRue]", "[[\"yes\",\"no\",\"on\",\"off\",\"y\",\"tRue\"]]" },
	{ "[0, -7, +7, 0600, 0o600, 0x1F, 12e3, 1., .5, -0.25e-1]", "[[0,-7,7,600,384,31,12000,1,0.5,-0.025]]" },
	{ "[1_000, 0b1, 0o8, 0x, +, -, ., e3, 1e, 1.2.3, 10:30, 2026-01-01, 0x-1]",
	  "[[\"1_000\",\"0b1\",\"0o8\",\"0x\",\"+\",\"-\",\".\",\"e3\",\"1e\",\"1.2.3\",\"10:30\",\"2026-01-01\",\"0x-1\"]]" },
	{ "['true', \"1\", 'null', \"\"]", "[[\"true\",\"1\",\"null\",\"\"]]" },
	{ "[!!str 1, ! 2, !!int \"3\", !!bool 'true', !!null '', !!float 1.5]", "[[\"1\",\"2\",3,true,null,1.5]]" },
	{ "a: |\n  one\n  two\nb: >\n  one\n  two\n", "[{\"a\":\"one\\ntwo\\n\",\"b\":\"one two\\n\"}]" },
	/* keys are as written */
	{ "1: a\ntrue: b\nnull: c\n\"<<\": d\n", "[{\"1\":\"a\",\"true\":\"b\",\"null\":\"c\",\"<<\":\"d\"}]" },
	/* anchors and aliases */
	{ "a: &x {b: [1]}\nc: *x\nd: [*x, &x 2, *x]\n", "[{\"a\":{\"b\":[1]},\"c\":{\"b\":[1]},\"d\":[{\"b\":[1]},2,2]}]" },
	/* JSON */
	{ "{\"a\":[1,2.5,{\"b\":\"x\\u00e9\\/\"}],\"c\":null}", "[{\"a\":[1,2.5,{\"b\":\"x\u00e9/\"}],\"c\":null}]" },
	{ "{\"a\":\"\\ud83d\\ude00\"}", "[{\"a\":\"\U0001f600\"}]" },
	{ "\t{\n\t\t\"a\":\t1\n\t}\n", "[{\"a\":1}]" },
};

static void texts_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof readings / sizeof readings[0]; i++) {
		struct error error = { 0 };
		cleanup_yaml struct yaml yaml = { 0 };
		if (parse(readings[i][0], &error, &yaml) < 0)
			fail_msg("%s: %s", readings[i][0], error.message);
		cleanup_free char *found = cJSON_PrintUnformatted(yaml.documents);
		assert_string_equal(found, readings[i][1]);
	}
}

static const char *const refused[][2] = {
	{ "a: 1\na: 2\n", "test.yaml, line 2: the key \"a\" is there already, on line 1" },
	{ "a:\n  b: 1\n  c: 2\n  b: 3\n", "test.yaml, line 4: the key \"b\" is there already, on line 2" },
	{ "{\"a\": 1,\n\"a\": 2}", "test.yaml, line 2: the key \"a\" is there already" },
	{ "a: [1\nb: 2\n", "test.yaml, line 2 column 2: " },
	{ "a:\n\t- 1\n", "test.yaml, line 2 column 1: " },
	{ "a: b: c\n", "test.yaml, line 1 column 5: " },
	{ "a: \xff\n", "test.yaml, line 1 column 4: " },
	{ "x\n a: 1", "test.yaml, line 2" },
	{ "a: *nobody\n", "test.yaml, line 1 column 4: no anchor &nobody stands before the alias" },
	{ "a: &x 1\n---\nb: *x\n", "line 3 column 4: no anchor &x" },
	{ "a: &x [1, *x]\n", "test.yaml, line 1 column 11: the alias *x holds itself" },
	{ "a: &x {b: 1}\nc:\n  <<: *x\n", "test.yaml, line 3 column 3: merge keys (<<) are not read" },
	{ "[1]: 2\n", "test.yaml, line 1 column 1: a list as a key, expected a scalar" },
	{ "? {a: 1}\n: 2\n", "column 3: a mapping as a key" },
	{ "a: &x 1\n*x : 2\n", "test.yaml, line 2 column 1: an alias as a key" },
	{ "&x a: 1\n", "an anchor on a key" },
	{ "a: .inf\n", "line 1 column 4: expected a finite number, found .inf" },
	{ "a: 1e999\n", "expected a finite number" },
	{ "a: !!int x\n", "\"x\" can't be read as tag:yaml.org,2002:int" },
	{ "a: !!binary aGk=\n", "can't be read as tag:yaml.org,2002:binary" },
	{ "a: !mine {}\n", "a mapping can't be read as !mine" },
	{ "a: \"x\\0y\"\n", "line 1 column 4: a NUL character in a string" },
	{ "{\"a\":\"\\ud83d\\ude00\",}", "test.yaml, line 1" },
};

static void bad_texts_are_refused_with_their_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		struct error error = { 0 };
		struct yaml yaml = { 0 };
		if (parse(refused[i][0], &error, &yaml) != -1)
			fail_msg("%s was read", refused[i][0]);
		assert_null(yaml.documents);
		if (!strstr(error.message, refused[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", refused[i][0], error.message, refused[i][1]);
	}
}

static void what_a_text_may_cost_is_bounded(void **state)
{
	(void)state;
	struct error error = { 0 };
	struct yaml yaml = { 0 };
	char deep[400];

	memset(deep, '[', sizeof deep - 1);
	deep[sizeof deep - 1] = '\0';
	assert_int_equal(parse(deep, &error, &yaml), -1);
	assert_non_null(strstr(error.message, "line 1 column 65: nested deeper than 64 levels"));

	/* A billion laughs. */
	error = (struct error){ 0 };
	assert_int_equal(parse("a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
			       "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
			       "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n"
			       "g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: &h [*g,*g,*g,*g,*g,*g,*g,*g,*g,*g]\n",
			       &error, &yaml),
			 -1);
	assert_non_null(strstr(error.message, "aliases copy more than 1048576 bytes"));

	/* Depth by aliases. */
	error = (struct error){ 0 };
	assert_int_equal(
		parse("a: &a [[[[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]]]]\nb: &b [[[[[[[[[[[[[[[[[[[[*a]]]]]]]]]]]]]]]]]]]]\n"
		      "c: [[[[[[[[[[[[[[[[[[[[[[[[[*b]]]]]]]]]]]]]]]]]]]]]]]]]\n",
		      &error, &yaml),
		-1);
	assert_non_null(strstr(error.message, "line 3 column 29: nested deeper than 64 levels by the alias *b"));

	error = (struct error){ 0 };
	assert_int_equal(yaml_parse("abcdef", 6, 5, "test.yaml", &error, &yaml), -1);
	assert_non_null(strstr(error.message, "test.yaml is larger than 5 bytes"));
	assert_null(yaml.documents);
}

static const cJSON *get(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static void every_value_has_its_line(void **state)
{
	(void)state;
	struct error error = { 0 };
	cleanup_yaml struct yaml yaml = { 0 };
	assert_int_equal(parse("# comment\na: 1\nb:\n  - x\n  -\n    c: y\n    d:\n      e\nf: >\n  long\n---\n- z\n", &error,
			       &yaml),
			 0);
	const cJSON *first = cJSON_GetArrayItem(yaml.documents, 0), *second = cJSON_GetArrayItem(yaml.documents, 1);
	const cJSON *list = get(first, "b");
	assert_int_equal(yaml_line(&yaml, first), 2);
	assert_int_equal(yaml_line(&yaml, get(first, "a")), 2);
	assert_int_equal(yaml_line(&yaml, list), 3);
	assert_int_equal(yaml_line(&yaml, cJSON_GetArrayItem(list, 0)), 4);
	assert_int_equal(yaml_line(&yaml, get(cJSON_GetArrayItem(list, 1), "c")), 6);
	assert_int_equal(yaml_line(&yaml, get(cJSON_GetArrayItem(list, 1), "d")), 7);
	assert_int_equal(yaml_line(&yaml, get(first, "f")), 9);
	assert_int_equal(yaml_line(&yaml, second), 12);
	assert_int_equal(yaml_line(&yaml, NULL), 0);
	const cJSON stranger = { 0 };
	assert_int_equal(yaml_line(&yaml, &stranger), 0);
}

/* Every beginning of a text is read or refused; under the sanitizers this shows that none is read past its end. */
static void a_cut_text_does_no_harm(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof readings / sizeof readings[0]; i++) {
		size_t length = strlen(readings[i][0]);
		for (size_t cut = 0; cut < length; cut++) {
			cleanup_free char *copy = malloc(cut ? cut : 1);
			cleanup_yaml struct yaml yaml = { 0 };
			struct error error = { 0 };
			memcpy(copy, readings[i][0], cut);
			int outcome = yaml_parse(copy, cut, LIMIT, "test.yaml", &error, &yaml);
			assert_true(outcome == 0 ? yaml.documents != NULL : error_is_set(&error));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(texts_are_read),
		cmocka_unit_test(bad_texts_are_refused_with_their_place),
		cmocka_unit_test(what_a_text_may_cost_is_bounded),
		cmocka_unit_test(every_value_has_its_line),
		cmocka_unit_test(a_cut_text_does_no_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
