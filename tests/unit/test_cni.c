/* CNI: versions, arguments, and results from each type to each version. */
#include "tests/unit/cmocka_headers.h"

#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/cni.h"
#include "ambient/json.h"

static void arguments_are_found_whole(void **state)
{
	(void)state;
	static const char args[] = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=;XK8S_POD_NAME=no";
	static const struct {
		const char *key, *value;
	} cases[] = { { "K8S_POD_NAMESPACE", "shop" },
		      { "K8S_POD_NAME", "cart" },
		      { "K8S_POD_UID", NULL },
		      { "POD_NAME", NULL },
		      { "IgnoreUnknown", "1" } };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_free char *value = NULL;
		assert_int_equal(cni_args_get(args, cases[i].key, NULL, &value), 0);
		if (cases[i].value)
			assert_string_equal(value, cases[i].value);
		else
			assert_null(value);
	}
	static const char *const without[] = { NULL, "", "K", ";;", "K=", "KK=1;;K" };
	for (size_t i = 0; i < sizeof without / sizeof without[0]; i++) {
		char *value = NULL;
		assert_int_equal(cni_args_get(without[i], "K", NULL, &value), 0);
		assert_null(value);
	}
}

static void an_argument_longer_than_any_name_is_refused(void **state)
{
	(void)state;
	char args[300] = "K=";
	struct error error = { 0 };
	cleanup_free char *longest = NULL, *longer = NULL;
	memset(args + 2, 'x', 253);
	assert_int_equal(cni_args_get(args, "K", &error, &longest), 0);
	assert_int_equal(strlen(longest), 253);
	args[255] = 'x';
	assert_int_equal(cni_args_get(args, "K", &error, &longer), -1);
	assert_null(longer);
	assert_non_null(strstr(error.message, "K has 254 characters"));
}

#define IPS10 "\"ips\":[{\"address\":\"10.0.0.2/24\",\"interface\":0},{\"address\":\"fd00::2/64\"}]"
#define IPS04                                                                                                                  \
	"\"ips\":[{\"address\":\"10.0.0.2/24\",\"interface\":0,\"version\":\"4\"},{\"address\":\"fd00::2/"                     \
	"64\",\"version\":\"6\"}]"
#define REST                                                                                                                   \
	"\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":\"/x\"}],\"routes\":[{\"dst\":\"0.0.0.0/"                              \
	"0\"}],\"dns\":{},\"other\":[9007199254740991]"

static void results_are_converted_where_types_differ(void **state)
{
	(void)state;
	static const struct {
		const char *previous;
		enum cni_version version;
		const char *result;
	} cases[] = {
		{ "{\"cniVersion\":\"1.0.0\"," IPS10 "," REST "}", CNI_1_0_0, "{\"cniVersion\":\"1.0.0\"," IPS10 "," REST "}" },
		{ "{\"cniVersion\":\"1.0.0\"," IPS10 "," REST "}", CNI_1_1_0, "{\"cniVersion\":\"1.1.0\"," IPS10 "," REST "}" },
		{ "{\"cniVersion\":\"1.1.0\"," IPS10 "," REST "}", CNI_0_4_0, "{\"cniVersion\":\"0.4.0\"," IPS04 "," REST "}" },
		{ "{\"cniVersion\":\"0.3.1\"," IPS04 "," REST "}", CNI_1_0_0, "{\"cniVersion\":\"1.0.0\"," IPS10 "," REST "}" },
		{ "{\"cniVersion\":\"0.3.0\"," IPS04 "," REST "}", CNI_0_4_0, "{\"cniVersion\":\"0.4.0\"," IPS04 "," REST "}" },
		{ "{" IPS10 "}", CNI_1_0_0, "{\"cniVersion\":\"1.0.0\"," IPS10 "}" },
		{ "{" IPS04 "}", CNI_0_3_1, "{\"cniVersion\":\"0.3.1\"," IPS04 "}" },
		{ "{\"cniVersion\":\"0.2.0\",\"ip4\":{\"ip\":\"10.0.0.2/"
		  "24\",\"gateway\":\"10.0.0.1\",\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}}",
		  CNI_1_0_0,
		  "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.0.0.2/24\",\"gateway\":\"10.0.0.1\"}],"
		  "\"routes\":[{\"dst\":\"0.0.0.0/0\"}]}" },
		{ NULL, CNI_1_1_0, "{\"cniVersion\":\"1.1.0\",\"dns\":{}}" },
		{ NULL, CNI_0_3_0, "{\"cniVersion\":\"0.3.0\",\"dns\":{}}" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_cjson cJSON *previous = cases[i].previous ? cJSON_Parse(cases[i].previous) : NULL;
		cleanup_cjson cJSON *expected = cJSON_Parse(cases[i].result), *result = NULL;
		struct error error = { 0 };
		assert_int_equal(cni_result_convert(previous, cases[i].version, &error, &result), 0);
		cleanup_free char *text = cJSON_PrintUnformatted(result);
		if (!cJSON_Compare(result, expected, true))
			fail_msg("case %zu: %s, expected %s", i, text, cases[i].result);
	}
}

static void a_previous_result_that_is_none_is_refused(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{ "[]", "prevResult: expected an object" },
		{ "{\"cniVersion\":7}", "prevResult.cniVersion: expected a string" },
		{ "{\"cniVersion\":\"2.0.0\"}", "found \"2.0.0\"" },
		{ "{\"ips\":{}}", "prevResult.ips: expected a list" },
		{ "{\"ips\":[1]}", "prevResult.ips[0]: expected an object" },
		{ "{\"routes\":[{},\"x\"]}", "prevResult.routes[1]: expected an object" },
		{ "{\"interfaces\":\"eth0\"}", "prevResult.interfaces: expected a list" },
		{ "{\"ips\":[{\"address\":\"10.0.0.1/24\"},{}]}", "prevResult.ips[1].address" },
		{ "{\"ips\":[{\"address\":\"10.0.0.256/24\"}]}", "10.0.0.256/24" },
		{ "{\"ips\":[{\"address\":\"10.0.0.1/033333\"}]}", "10.0.0.1/033333" },
		{ "{\"ips\":[{\"address\":\"fd00::1/129\"}]}", "fd00::1/129" },
		{ "{\"ips\":[{\"address\":\"fd00::1/-1\"}]}", "fd00::1/-1" },
		{ "{\"cniVersion\":\"0.2.0\",\"ip4\":{\"gateway\":\"10.0.0.1\"}}", "prevResult.ips[0].address" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_cjson cJSON *previous = cJSON_Parse(cases[i][0]), *result = NULL;
		struct error error = { 0 };
		assert_int_equal(cni_result_convert(previous, CNI_1_0_0, &error, &result), -1);
		assert_non_null(strstr(error.message, cases[i][1]));
		assert_null(result);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arguments_are_found_whole),
		cmocka_unit_test(an_argument_longer_than_any_name_is_refused),
		cmocka_unit_test(results_are_converted_where_types_differ),
		cmocka_unit_test(a_previous_result_that_is_none_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
