/* The table of rules as data: intervals are merged, what counts says so by its name, and the stages hold what they promise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "lib/redirect_ruleset.h"

static struct address_range range4(const char *address, uint8_t prefix_length)
{
	struct address_range range = { .family = AF_INET, .prefix_length = prefix_length };
	assert_int_equal(inet_pton(AF_INET, address, &range.ipv4), 1);
	return range;
}

static struct address_range range6(const char *address, uint8_t prefix_length)
{
	struct address_range range = { .family = AF_INET6, .prefix_length = prefix_length };
	assert_int_equal(inet_pton(AF_INET6, address, &range.ipv6), 1);
	return range;
}

static unsigned int port_of(const uint8_t *key)
{
	return (unsigned int)key[0] << 8 | key[1];
}

static void overlapping_ports_are_merged(void **state)
{
	(void)state;
	struct port_range ports[] = { { 80, 90 }, { 443, 443 },	    { 85, 100 }, { 101, 101 },
				      { 82, 84 }, { 65535, 65535 }, { 1, 1 } };
	struct redirect redirect = { .exclude = { .inbound_ports = ports, .inbound_ports_count = 7 } };
	cleanup_ruleset struct ruleset ruleset = { 0 };
	assert_int_equal(ruleset_make(&redirect, REDIRECT_STAGE_FULL, NULL, &ruleset), 0);
	const struct ruleset_set *set = &ruleset.sets[SET_EXCLUDED_INBOUND_PORTS];
	static const unsigned int expected[][2] = { { 1, 1 }, { 80, 101 }, { 443, 443 }, { 65535, 65535 } };
	assert_int_equal(set->elements_count, 4);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(port_of(set->elements[i].first), expected[i][0]);
		assert_int_equal(port_of(set->elements[i].last), expected[i][1]);
	}
}

static void nested_ranges_are_merged_by_family(void **state)
{
	(void)state;
	struct address_range ranges[] = { range4("10.0.0.0", 8), range4("10.1.0.0", 16), range4("11.0.0.0", 8),
					  range6("fd00::", 8),	 range6("fd00::1", 128), range4("255.255.255.255", 32) };
	struct redirect redirect = { .ipv6 = true, .exclude = { .outbound_ranges = ranges, .outbound_ranges_count = 6 } };
	cleanup_ruleset struct ruleset ruleset = { 0 };
	assert_int_equal(ruleset_make(&redirect, REDIRECT_STAGE_FULL, NULL, &ruleset), 0);
	const struct ruleset_set *ipv4 = &ruleset.sets[SET_EXCLUDED_OUTBOUND_IPV4];
	assert_int_equal(ipv4->elements_count, 2);
	assert_memory_equal(ipv4->elements[0].first, ((uint8_t[]){ 10, 0, 0, 0 }), 4);
	assert_memory_equal(ipv4->elements[0].last, ((uint8_t[]){ 11, 255, 255, 255 }), 4);
	assert_int_equal(ruleset.sets[SET_EXCLUDED_OUTBOUND_IPV6].elements_count, 1);
}

static void the_whole_address_space_is_one_interval(void **state)
{
	(void)state;
	struct address_range ranges[] = { range4("0.0.0.0", 0), range4("10.0.0.0", 8) };
	struct redirect redirect = { .exclude = { .outbound_ranges = ranges, .outbound_ranges_count = 2 } };
	cleanup_ruleset struct ruleset ruleset = { 0 };
	assert_int_equal(ruleset_make(&redirect, REDIRECT_STAGE_FULL, NULL, &ruleset), 0);
	assert_int_equal(ruleset.sets[SET_EXCLUDED_OUTBOUND_IPV4].elements_count, 1);
}

static void an_interface_named_twice_is_one_element(void **state)
{
	(void)state;
	char names[][IFNAMSIZ] = { "net1", "net0", "net1" };
	struct redirect redirect = { .virtual_interfaces = names, .virtual_interfaces_count = 3 };
	cleanup_ruleset struct ruleset ruleset = { 0 };
	assert_int_equal(ruleset_make(&redirect, REDIRECT_STAGE_FULL, NULL, &ruleset), 0);
	assert_int_equal(ruleset.sets[SET_VIRTUAL_INTERFACES].elements_count, 2);
	assert_string_equal((const char *)ruleset.sets[SET_VIRTUAL_INTERFACES].elements[0].first, "net0");
}

/* Everything switched on, and everything off. */
static void names_tell_what_is_counted(void **state)
{
	(void)state;
	char names[][IFNAMSIZ] = { "net1" };
	struct port_range ports[] = { { 80, 90 } };
	struct address_range ranges[] = { range4("10.0.0.0", 8), range6("fd00::", 8) };
	const struct redirect everything = {
		.ipv6 = true,
		.dns_capture = true,
		.virtual_interfaces = names,
		.virtual_interfaces_count = 1,
		.exclude = { .outbound_ports = ports,
			     .outbound_ports_count = 1,
			     .inbound_ports = ports,
			     .inbound_ports_count = 1,
			     .outbound_ranges = ranges,
			     .outbound_ranges_count = 2,
			     .interfaces = names,
			     .interfaces_count = 1 },
	};
	const struct redirect variants[] = { everything, { .bypass_inbound = true }, { .ipv6 = true } };
	for (size_t variant = 0; variant < sizeof variants / sizeof variants[0]; variant++) {
		cleanup_ruleset struct ruleset ruleset = { 0 };
		assert_int_equal(ruleset_make(&variants[variant], REDIRECT_STAGE_FULL, NULL, &ruleset), 0);
		assert_true(ruleset.rules_count <= RULESET_RULES_MAX);
		for (size_t i = 0; i < ruleset.rules_count; i++) {
			const struct ruleset_rule *rule = &ruleset.rules[i];
			const char *outcome = redirect_outcome_name(rule->outcome);
			size_t counts = 0;
			for (size_t statement = 0; statement < rule->statements_count; statement++)
				counts += rule->statements[statement].kind == COUNT;
			assert_int_equal(counts, rule->outcome == REDIRECT_OUTCOME_NONE ? 0 : 1);
			if (rule->outcome != REDIRECT_OUTCOME_NONE) {
				assert_int_equal(strcspn(rule->name, ":"), strlen(outcome));
				assert_memory_equal(rule->name, outcome, strlen(outcome));
			}
			/* Messages and counters name a rule: no two share a name. */
			for (size_t other = 0; other < i; other++)
				assert_string_not_equal(ruleset.rules[other].name, rule->name);
		}
	}
}

static void the_guard_stage_has_no_redirects(void **state)
{
	(void)state;
	const struct redirect redirect = { .ipv6 = true, .dns_capture = true };
	cleanup_ruleset struct ruleset ruleset = { 0 };
	assert_int_equal(ruleset_make(&redirect, REDIRECT_STAGE_GUARD, NULL, &ruleset), 0);
	/* But NAT stays at work. */
	assert_false(ruleset.chains[CHAIN_PREROUTING_REDIRECT] || ruleset.chains[CHAIN_OUTPUT_REDIRECT]);
	assert_true(ruleset.chains[CHAIN_OUTPUT_NAT]);
	for (size_t i = 0; i < ruleset.rules_count; i++)
		for (size_t statement = 0; statement < ruleset.rules[i].statements_count; statement++)
			assert_int_not_equal(ruleset.rules[i].statements[statement].kind, REDIRECT_TO);
	assert_true(ruleset.chains[CHAIN_INPUT]);
	assert_true(ruleset.chains[CHAIN_OUTPUT]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(overlapping_ports_are_merged),
		cmocka_unit_test(nested_ranges_are_merged_by_family),
		cmocka_unit_test(the_whole_address_space_is_one_interval),
		cmocka_unit_test(an_interface_named_twice_is_one_element),
		cmocka_unit_test(names_tell_what_is_counted),
		cmocka_unit_test(the_guard_stage_has_no_redirects),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
