/* The error object: first cause kept, wrapped from the outside, cut and never overrun. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ambient/error.h"

static void first_cause_is_kept(void **state)
{
	(void)state;
	struct error error = { 0 };
	assert_false(error_is_set(&error));
	assert_int_equal(error_set(&error, ENOENT, "cannot open %s", "/a"), -1);
	assert_int_equal(error_set(&error, EIO, "later"), -1);
	assert_int_equal(error.number, ENOENT);
	assert_string_equal(error.message, "cannot open /a: No such file or directory");
}

static void wraps_from_outside(void **state)
{
	(void)state;
	struct error error = { 0 };
	error_set(&error, 0, "no such key");
	assert_int_equal(error_wrap(&error, "reading %s", "file"), -1);
	assert_string_equal(error.message, "reading file: no such key");
	assert_int_equal(error.number, 0);
}

static void long_messages_are_cut(void **state)
{
	(void)state;
	struct error error = { 0 };
	char text[3000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	error_set(&error, EIO, "%s", text);
	error_wrap(&error, "%s", text);
	assert_int_equal(strlen(error.message), sizeof error.message - 1);
}

static void nobody_listens(void **state)
{
	(void)state;
	assert_int_equal(error_set(NULL, EIO, "x"), -1);
	assert_int_equal(error_wrap(NULL, "x"), -1);
	assert_false(error_is_set(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_cause_is_kept),
		cmocka_unit_test(wraps_from_outside),
		cmocka_unit_test(long_messages_are_cut),
		cmocka_unit_test(nobody_listens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
