/* The redirect object: defaults, round trips, and one sentence for each wrong value. */
#include "tests/unit/cmocka_headers.h"

#include <arpa/inet.h>
#include <string.h>

#include "ambient/json.h"
#include "ambient/redirect.h"

static const char everything[] =
	"{\"ipv6\":false,\"dnsCapture\":false,\"bypassInbound\":true,\"virtualInterfaces\":[\"net1\"],"
	"\"existingConnections\":\"reset\",\"hostProbe\":{\"ipv4\":\"192.0.2.1\",\"ipv6\":\"2001:db8::1\"},"
	"\"exclude\":{\"outboundPorts\":[80,\"90-100\",\"443\"],\"outboundRanges\":[\"10.1.2.3/8\",\"fd00::1\",\"0.0.0.0/0\"],"
	"\"inboundPorts\":[65535],\"interfaces\":[\"eth1\",\"eth2\"]}}";

static void defaults_are_the_documented_ones(void **state)
{
	(void)state;
	cleanup_redirect struct redirect redirect;
	char text[INET6_ADDRSTRLEN];
	redirect_init(&redirect);
	assert_true(redirect.ipv6 && redirect.dns_capture && !redirect.bypass_inbound);
	assert_int_equal(redirect.existing_connections, EXISTING_CONNECTIONS_KEEP);
	assert_string_equal(inet_ntop(AF_INET, &redirect.host_probe_ipv4, text, sizeof text), "169.254.7.127");
	assert_string_equal(inet_ntop(AF_INET6, &redirect.host_probe_ipv6, text, sizeof text),
			    "fd16:9254:7127:1337:ffff:ffff:ffff:ffff");
}

static void read(const char *text, struct redirect *redirect)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = cJSON_Parse(text);
	assert_non_null(json);
	redirect_init(redirect);
	assert_int_equal(redirect_from_json(json, "redirect", &error, redirect), 0);
}

static void what_is_written_reads_as_the_same(void **state)
{
	(void)state;
	cleanup_redirect struct redirect first = { 0 }, second = { 0 }, copy = { 0 };
	read(everything, &first);
	assert_int_equal(first.exclude.outbound_ports_count, 3);
	assert_int_equal(first.exclude.outbound_ports[1].last, 100);
	/* Host bits are masked, a bare address is one address. */
	assert_int_equal(ntohl(first.exclude.outbound_ranges[0].ipv4.s_addr), 0x0a000000);
	assert_int_equal(first.exclude.outbound_ranges[1].prefix_length, 128);

	cleanup_cjson cJSON *json = redirect_to_json(&first);
	redirect_init(&second);
	assert_int_equal(redirect_from_json(json, "redirect", NULL, &second), 0);
	assert_true(redirect_equal(&first, &second));
	assert_int_equal(redirect_copy(&first, NULL, &copy), 0);
	assert_true(redirect_equal(&first, &copy));
	copy.exclude.outbound_ranges[2].prefix_length = 1;
	assert_false(redirect_equal(&first, &copy));
}

static void an_absent_key_leaves_its_value(void **state)
{
	(void)state;
	cleanup_redirect struct redirect redirect = { 0 };
	read(everything, &redirect);
	cleanup_cjson cJSON *json = cJSON_Parse("{\"ipv6\":true,\"exclude\":{\"interfaces\":[]}}");
	assert_int_equal(redirect_from_json(json, "redirect", NULL, &redirect), 0);
	assert_true(redirect.ipv6);
	assert_int_equal(redirect.exclude.interfaces_count, 0);
	assert_int_equal(redirect.exclude.outbound_ports_count, 3);
}

static void wrong_values_are_named(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{ "[]", "redirect: expected an object, found a list" },
		{ "{\"ipv6\":1}", "redirect.ipv6: expected true or false, found a number" },
		{ "{\"existingConnections\":\"cut\"}",
		  "redirect.existingConnections: expected \"keep\" or \"reset\", found \"cut\"" },
		{ "{\"virtualInterfaces\":\"eth0\"}", "redirect.virtualInterfaces: expected a list, found a string" },
		{ "{\"virtualInterfaces\":[\"\"]}", "redirect.virtualInterfaces[0]: expected an interface's name" },
		{ "{\"virtualInterfaces\":[\"a/b\"]}", "redirect.virtualInterfaces[0]" },
		{ "{\"virtualInterfaces\":[\"0123456789abcdef\"]}", "redirect.virtualInterfaces[0]" },
		{ "{\"exclude\":{\"outboundPorts\":[80,\"x\"]}}",
		  "redirect.exclude.outboundPorts[1]: expected a port (1 to 65535) or a range \"a-b\", found \"x\"" },
		{ "{\"exclude\":{\"outboundPorts\":[0]}}", "outboundPorts[0]" },
		{ "{\"exclude\":{\"outboundPorts\":[65536]}}", "outboundPorts[0]" },
		{ "{\"exclude\":{\"outboundPorts\":[1.5]}}", "outboundPorts[0]" },
		{ "{\"exclude\":{\"inboundPorts\":[\"9-8\"]}}", "inboundPorts[0]" },
		{ "{\"exclude\":{\"inboundPorts\":[\"1-\"]}}", "inboundPorts[0]" },
		{ "{\"exclude\":{\"inboundPorts\":[\" 1\"]}}", "inboundPorts[0]" },
		{ "{\"exclude\":{\"outboundRanges\":[\"10.0.0.0/33\"]}}",
		  "outboundRanges[0]: expected a range in CIDR notation" },
		{ "{\"exclude\":{\"outboundRanges\":[\"10.0.0/8\"]}}", "outboundRanges[0]" },
		{ "{\"exclude\":{\"outboundRanges\":[\"::/129\"]}}", "outboundRanges[0]" },
		{ "{\"exclude\":{\"outboundRanges\":[\"10.0.0.0/\"]}}", "outboundRanges[0]" },
		{ "{\"exclude\":{\"interfaces\":[7]}}", "interfaces[0]" },
		{ "{\"hostProbe\":{\"ipv4\":\"127.0.0.1\"}}", "redirect.hostProbe.ipv4: expected a unicast IPv4 address" },
		{ "{\"hostProbe\":{\"ipv4\":\"fd00::1\"}}", "redirect.hostProbe.ipv4" },
		{ "{\"hostProbe\":{\"ipv6\":\"ff02::1\"}}", "redirect.hostProbe.ipv6" },
		{ "{\"hostProbe\":{\"ipv6\":\"::ffff:1.2.3.4\"}}", "redirect.hostProbe.ipv6" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_redirect struct redirect redirect = { 0 }, before = { 0 };
		struct error error = { 0 };
		read(everything, &redirect);
		read(everything, &before);
		cleanup_cjson cJSON *json = cJSON_Parse(cases[i][0]);
		assert_non_null(json);
		assert_int_equal(redirect_from_json(json, "redirect", &error, &redirect), -1);
		if (!strstr(error.message, cases[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i][0], error.message, cases[i][1]);
		assert_true(redirect_equal(&redirect, &before));
	}
}

static void too_long_a_list_is_refused(void **state)
{
	(void)state;
	cleanup_redirect struct redirect redirect;
	struct error error = { 0 };
	cleanup_cjson cJSON *json = cJSON_CreateObject();
	cJSON *ports = cJSON_AddArrayToObject(cJSON_AddObjectToObject(json, "exclude"), "outboundPorts");
	for (int i = 0; i < 1025; i++)
		cJSON_AddItemToArray(ports, cJSON_CreateNumber(i + 1));
	redirect_init(&redirect);
	assert_int_equal(redirect_from_json(json, "redirect", &error, &redirect), -1);
	assert_non_null(strstr(error.message, "at most 1024"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_documented_ones), cmocka_unit_test(what_is_written_reads_as_the_same),
		cmocka_unit_test(an_absent_key_leaves_its_value),   cmocka_unit_test(wrong_values_are_named),
		cmocka_unit_test(too_long_a_list_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
