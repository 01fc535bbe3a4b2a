/* Transactions that the kernel refuses: which object, which expression, which kernel option is named. A feature that is missing
 * is one that this kernel has not for a family where it never is: `redir` and chains of type nat in family arp. */
#include "tests/unit/cmocka_headers.h"

#include <dirent.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netlink.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"

#define FAMILY_UNKNOWN 200

/* In the place of libmnl's: notes the number of each message. */
static uint32_t numbers[64];
static size_t numbers_count;

ssize_t mnl_socket_sendto(const struct mnl_socket *nl, const void *req, size_t siz)
{
	int left = (int)siz;
	for (const struct nlmsghdr *header = req; mnl_nlmsg_ok(header, left); header = mnl_nlmsg_next(header, &left)) {
		if (numbers_count < sizeof numbers / sizeof numbers[0])
			numbers[numbers_count++] = header->nlmsg_seq;
	}
	return send(mnl_socket_get_fd(nl), req, siz, 0);
}

static int enter_fresh_namespace(void **state)
{
	struct nft_socket *socket = NULL;
	if (unshare(CLONE_NEWNET) < 0 || nft_socket_open(NULL, &socket) < 0)
		return -1;
	*state = socket;
	return 0;
}

static int leave(void **state)
{
	nft_socket_close(*state);
	return 0;
}

static void add_table(struct nft_batch *batch, uint16_t family)
{
	struct nftnl_table *table = nftnl_table_alloc();
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, "trial");
	nft_batch_add_table(batch, family, table, "trial");
	nftnl_table_free(table);
}

static void add_chain(struct nft_batch *batch, uint16_t family, const char *type)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, "trial");
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, "input");
	if (type) {
		nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, type);
		nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, 0);
		nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, 0);
	}
	nft_batch_add_chain(batch, family, chain, "input");
	nftnl_chain_free(chain);
}

static void add_rule(struct nft_batch *batch, uint16_t family, const char *const expressions[])
{
	struct nftnl_rule *rule = nftnl_rule_alloc();
	nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, "trial");
	nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, "input");
	for (size_t i = 0; expressions[i]; i++) {
		struct nftnl_expr *expression = nftnl_expr_alloc(expressions[i]);
		assert_non_null(expression);
		if (strcmp(expressions[i], "meta") == 0) {
			nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, NFT_META_MARK);
			nftnl_expr_set_u32(expression, NFTNL_EXPR_META_DREG, NFT_REG_1);
		}
		nftnl_rule_add_expr(rule, expression);
	}
	nft_batch_add_rule(batch, family, rule, "outbound");
	nftnl_rule_free(rule);
}

/* Commits and compares the message. */
static void assert_refused(struct nft_batch *batch, int number, const char *message)
{
	struct error error = { 0 };
	assert_int_equal(nft_batch_commit(batch, &error), -1);
	assert_int_equal(error.number, number);
	if (strncmp(error.message, message, strlen(message)) != 0)
		fail_msg("\"%s\" does not begin with \"%s\"", error.message, message);
}

static void assert_nothing_stands(void)
{
	assert_int_equal(system("test -z \"$(nft list ruleset)\""), 0);
}

static void a_missing_expression_is_named_with_its_option(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, NFPROTO_ARP);
	add_chain(batch, NFPROTO_ARP, NULL);
	add_rule(batch, NFPROTO_ARP, (const char *[]){ "meta", "redir", "counter", NULL });
	assert_refused(
		batch, ENOENT,
		"the kernel refused the rule \"outbound\" at its expression \"redir\" (the kernel lacks CONFIG_NFT_REDIR)");
	assert_nothing_stands();
}

/* The old way, by force: a kernel that tells no offset. */
static void forget_extended_acks(void)
{
	DIR *directory = opendir("/proc/self/fd");
	const struct dirent *entry;
	while ((entry = readdir(directory))) {
		int off = 0;
		setsockopt(atoi(entry->d_name), SOL_NETLINK, NETLINK_EXT_ACK, &off, sizeof off);
		setsockopt(atoi(entry->d_name), SOL_NETLINK, NETLINK_CAP_ACK, &off, sizeof off);
	}
	closedir(directory);
}

static void without_extended_acks_every_option_is_named(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	forget_extended_acks();
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, NFPROTO_ARP);
	add_chain(batch, NFPROTO_ARP, NULL);
	add_rule(batch, NFPROTO_ARP, (const char *[]){ "meta", "redir", "reject", "redir", NULL });
	assert_refused(
		batch, ENOENT,
		"the kernel refused the rule \"outbound\" (the kernel lacks CONFIG_NFT_REDIR or CONFIG_NFT_REJECT_INET)");
	assert_nothing_stands();
}

static void a_missing_chain_type_is_named(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, NFPROTO_ARP);
	add_chain(batch, NFPROTO_ARP, "nat");
	assert_refused(batch, ENOENT, "the kernel refused the chain \"input\" (the kernel lacks CONFIG_NFT_NAT)");
	assert_nothing_stands();
}

static void a_missing_family_is_named(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, FAMILY_UNKNOWN);
	assert_refused(batch, EOPNOTSUPP, "the kernel refused the table \"trial\" (the kernel lacks CONFIG_NF_TABLES_INET)");
}

static void what_is_wrong_for_another_reason_names_no_option(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, NFPROTO_INET);
	/* In a chain that is not there: also ENOENT. */
	add_rule(batch, NFPROTO_INET, (const char *[]){ "meta", "redir", NULL });
	assert_refused(batch, ENOENT, "the kernel refused the rule \"outbound\": ");
	assert_nothing_stands();
}

static void another_generation_is_refused_at_once(void **state)
{
	uint32_t generation = 0;
	assert_int_equal(nft_generation(*state, NULL, &generation), 0);
	cleanup_nft_batch struct nft_batch *late = NULL, *right = NULL;
	assert_int_equal(nft_batch_new(*state, NULL, &late), 0);
	nft_batch_expect_generation(late, generation + 1);
	add_table(late, NFPROTO_INET);
	assert_refused(late, ERESTART, "the kernel refused the nftables transaction");
	assert_nothing_stands();
	assert_int_equal(nft_batch_new(*state, NULL, &right), 0);
	nft_batch_expect_generation(right, generation);
	add_table(right, NFPROTO_INET);
	assert_int_equal(nft_batch_commit(right, NULL), 0);
}

static void the_first_error_while_filling_is_told(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	struct error error = { 0 };
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, NFPROTO_INET);
	nft_batch_fail(batch, ENOMEM, "rule");
	nft_batch_fail(batch, EINVAL, "set");
	add_chain(batch, NFPROTO_INET, NULL);
	assert_int_equal(nft_batch_commit(batch, &error), -1);
	assert_int_equal(error.number, ENOMEM);
	assert_non_null(strstr(error.message, "cannot build the nftables rule"));
	assert_nothing_stands();
}

static void a_socket_is_good_after_a_refusal(void **state)
{
	for (int i = 0; i < 3; i++) {
		cleanup_nft_batch struct nft_batch *bad = NULL, *good = NULL;
		assert_int_equal(nft_batch_new(*state, NULL, &bad), 0);
		add_table(bad, NFPROTO_ARP);
		add_chain(bad, NFPROTO_ARP, "nat");
		assert_int_equal(nft_batch_commit(bad, NULL), -1);
		assert_int_equal(nft_batch_new(*state, NULL, &good), 0);
		add_table(good, NFPROTO_INET);
		assert_int_equal(nft_batch_commit(good, NULL), 0);
	}
}

static int ignore(const struct nlmsghdr *header, void *data)
{
	(void)header, (void)data;
	return MNL_CB_OK;
}

static void every_message_of_a_socket_has_the_next_number(void **state)
{
	cleanup_nft_batch struct nft_batch *batch = NULL;
	struct error error = { 0 };
	char buffer[64];
	uint32_t generation = 0;
	numbers_count = 0;
	assert_int_equal(nft_generation(*state, NULL, &generation), 0);
	assert_int_equal(nft_dump(*state, NFT_MSG_GETTABLE, NFPROTO_INET, NULL, NULL, ignore, NULL, NULL, NULL), 0);
	assert_int_equal(nft_batch_new(*state, NULL, &batch), 0);
	add_table(batch, NFPROTO_INET);
	assert_int_equal(nft_batch_commit(batch, NULL), 0);
	/* One that the kernel refuses. */
	struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, 0xff, NFPROTO_INET, 0, 0);
	assert_int_equal(nft_request(*state, header, &error), -1);
	assert_int_equal(error.number, EINVAL);
	assert_int_equal(nft_generation(*state, NULL, &generation), 0);
	assert_int_equal(numbers_count, 1 + 1 + 3 + 1 + 1);
	for (size_t i = 0; i < numbers_count; i++)
		assert_int_equal(numbers[i], i + 1);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, enter_fresh_namespace, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_missing_expression_is_named_with_its_option),
		TEST(without_extended_acks_every_option_is_named),
		TEST(a_missing_chain_type_is_named),
		TEST(a_missing_family_is_named),
		TEST(what_is_wrong_for_another_reason_names_no_option),
		TEST(another_generation_is_refused_at_once),
		TEST(the_first_error_while_filling_is_told),
		TEST(a_socket_is_good_after_a_refusal),
		TEST(every_message_of_a_socket_has_the_next_number),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
