/* A rule that libnftnl can't read: of a newer kernel's expression, say. The callback is private, so its file is part of this
 * program. */
#include "tests/unit/cmocka_headers.h"

#include <linux/netfilter/nfnetlink.h>

#include "lib/redirect_dump.c" // NOLINT(bugprone-suspicious-include)

static struct nlmsghdr *make_rule(char *buffer, const char *table, const char *const expressions[])
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWRULE;
	struct nfgenmsg *message = mnl_nlmsg_put_extra_header(header, sizeof *message);
	message->nfgen_family = NFPROTO_INET;
	mnl_attr_put_strz(header, NFTA_RULE_TABLE, table);
	mnl_attr_put_strz(header, NFTA_RULE_CHAIN, "input");
	struct nlattr *list = mnl_attr_nest_start(header, NFTA_RULE_EXPRESSIONS);
	for (size_t i = 0; expressions[i]; i++) {
		struct nlattr *element = mnl_attr_nest_start(header, NFTA_LIST_ELEM);
		mnl_attr_put_strz(header, NFTA_EXPR_NAME, expressions[i]);
		struct nlattr *data = mnl_attr_nest_start(header, NFTA_EXPR_DATA);
		mnl_attr_nest_end(header, data);
		mnl_attr_nest_end(header, element);
	}
	mnl_attr_nest_end(header, list);
	return header;
}

static void a_rule_that_cannot_be_read_is_a_foreign_rule(void **state)
{
	char buffer[1024];
	cleanup_redirect_dump struct redirect_dump dump = { 0 };
	(void)state;
	/* Behind what could be ours: what was read of it must not pass for the whole. */
	const char *const expressions[] = { "counter", "of-tomorrow", NULL };
	assert_int_equal(dump_rule(make_rule(buffer, REDIRECT_TABLE, expressions), &dump), MNL_CB_OK);
	assert_int_equal(dump.rules_count, 1);
	const struct nftnl_rule *found = redirect_dump_rule(&dump, "input", 0);
	assert_non_null(found);
	struct nftnl_expr_iter *next = nftnl_expr_iter_create(found);
	assert_null(nftnl_expr_iter_next(next));
	nftnl_expr_iter_destroy(next);
}

static void in_somebody_elses_table_it_does_not_disturb(void **state)
{
	char buffer[1024];
	cleanup_redirect_dump struct redirect_dump dump = { 0 };
	(void)state;
	assert_int_equal(dump_rule(make_rule(buffer, "foreign", (const char *[]){ "of-tomorrow", NULL }), &dump), MNL_CB_OK);
	assert_int_equal(dump.rules_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rule_that_cannot_be_read_is_a_foreign_rule),
		cmocka_unit_test(in_somebody_elses_table_it_does_not_disturb),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
