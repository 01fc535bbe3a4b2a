/* Rules of the host's probe table that libnftnl can't read: of a newer kernel's expression, say. The callback is private, so
 * its file is part of this program. */
#include "tests/unit/cmocka_headers.h"

#include <linux/netfilter/nfnetlink.h>

#include "installer/probes/probe_rules.c" // NOLINT(bugprone-suspicious-include)

static const struct probe_addresses addresses = { .ipv4 = { 0x01010101 } };

/* The message of a rule of ours; with an expression of tomorrow at its end. */
static struct nlmsghdr *our_rule(char *buffer, bool has_more)
{
	struct nftnl_rule *rule = make_rule(&addresses, AF_INET);
	struct nlmsghdr *header =
		nftnl_nlmsg_build_hdr(buffer, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWRULE, NFPROTO_INET, 0, 0);
	nftnl_rule_nlmsg_build_payload(header, rule);
	nftnl_rule_free(rule);
	struct nlattr *attribute, *list = NULL;
	mnl_attr_for_each (attribute, header, sizeof(struct nfgenmsg))
		list = attribute;
	if (!list || mnl_attr_get_type(list) != NFTA_RULE_EXPRESSIONS)
		fail_msg("the expressions are not the last attribute");
	else if (has_more) {
		uint32_t before = header->nlmsg_len;
		struct nlattr *element = mnl_attr_nest_start(header, NFTA_LIST_ELEM);
		mnl_attr_put_strz(header, NFTA_EXPR_NAME, "of-tomorrow");
		mnl_attr_nest_end(header, mnl_attr_nest_start(header, NFTA_EXPR_DATA));
		mnl_attr_nest_end(header, element);
		list->nla_len += (uint16_t)(header->nlmsg_len - before);
	}
	return header;
}

static void what_is_read_of_a_rule_does_not_pass_for_the_whole(void **state)
{
	char buffer[4096];
	struct probe_standing standing = { 0 };
	(void)state;
	struct look look = { .addresses = &addresses, .standing = &standing };
	assert_int_equal(look_at_rule(our_rule(buffer, false), &look), MNL_CB_OK);
	assert_string_equal(look.difference, "");
	look.rules_count = 0;
	assert_int_equal(look_at_rule(our_rule(buffer, true), &look), MNL_CB_OK);
	assert_int_equal(look.rules_count, 1);
	assert_non_null(strstr(look.difference, "rule 1 \"probes: ipv4\" of chain"));
}

static void a_rule_behind_ours_is_seen(void **state)
{
	char buffer[4096];
	struct probe_standing standing = { 0 };
	(void)state;
	struct look look = { .addresses = &addresses, .standing = &standing, .rules_count = FAMILIES_COUNT };
	assert_int_equal(look_at_rule(our_rule(buffer, true), &look), MNL_CB_OK);
	assert_non_null(strstr(look.difference, "a foreign rule stands at the end"));
}

/* A commit interrupted it. */
static void a_dump_that_is_made_again_is_the_one_that_counts(void **state)
{
	char buffer[4096];
	struct probe_standing standing = { 0 };
	(void)state;
	struct look look = { .addresses = &addresses, .standing = &standing };
	assert_int_equal(look_at_rule(our_rule(buffer, true), &look), MNL_CB_OK);
	assert_string_not_equal(look.difference, "");
	look_again(&look);
	assert_int_equal(look_at_rule(our_rule(buffer, false), &look), MNL_CB_OK);
	assert_int_equal(look.rules_count, 1);
	assert_string_equal(look.difference, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_read_of_a_rule_does_not_pass_for_the_whole),
		cmocka_unit_test(a_rule_behind_ours_is_seen),
		cmocka_unit_test(a_dump_that_is_made_again_is_the_one_that_counts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
