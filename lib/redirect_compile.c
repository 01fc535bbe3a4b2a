/* Statements as nf_tables expressions, set elements as intervals.
 *
 * A rule is compiled into the expressions that nft(8) makes of its text, dependencies included: `tcp dport 53` begins with
 * `meta l4proto tcp` unless an earlier match of the rule said so, `ip daddr` in a table of family inet with `meta nfproto
 * ipv4`. So a listing reads as what was meant, and a table that nft loaded from the rendered text verifies as ours. */
#include "redirect_compile.h"

#include <arpa/inet.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <stddef.h>
#include <string.h>

#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>

/* nft's numbers of its data types (include/datatype.h there): they only matter for how a listing reads. */
enum { NFT_TYPE_IPV4_ADDRESS = 7, NFT_TYPE_IPV6_ADDRESS = 8, NFT_TYPE_INET_SERVICE = 13, NFT_TYPE_INTERFACE_NAME = 41 };

#define TCP_FLAGS_OFFSET 13
#define LOOPBACK_INDEX 1 /* LOOPBACK_IFINDEX of include/net/flow.h: lo is the first device of every namespace */

/* A rule in the making, and what its expressions established so far. */
struct compiler {
	struct nftnl_rule *rule;
	bool failed;
	uint8_t protocol; /* transport protocol, 0: not matched yet */
	uint8_t family;	  /* NFPROTO_*, 0: not matched yet */
};

static struct nftnl_expr *add(struct compiler *compiler, const char *name)
{
	if (compiler->failed)
		return NULL;
	struct nftnl_expr *expression = nftnl_expr_alloc(name);
	if (!expression) {
		compiler->failed = true;
		return NULL;
	}
	nftnl_rule_add_expr(compiler->rule, expression);
	return expression;
}

static void add_meta_load(struct compiler *compiler, uint32_t key)
{
	struct nftnl_expr *expression = add(compiler, "meta");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_DREG, NFT_REG_1);
}

static void add_meta_set(struct compiler *compiler, uint32_t key)
{
	struct nftnl_expr *expression = add(compiler, "meta");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_SREG, NFT_REG_1);
}

static void add_ct_load(struct compiler *compiler, uint32_t key)
{
	struct nftnl_expr *expression = add(compiler, "ct");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_DREG, NFT_REG_1);
}

static void add_ct_set(struct compiler *compiler, uint32_t key)
{
	struct nftnl_expr *expression = add(compiler, "ct");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_SREG, NFT_REG_1);
}

static void add_payload(struct compiler *compiler, uint32_t base, uint32_t offset, uint32_t length)
{
	struct nftnl_expr *expression = add(compiler, "payload");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_LEN, length);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
}

static void add_compare(struct compiler *compiler, bool negate, const void *data, uint32_t length)
{
	struct nftnl_expr *expression = add(compiler, "cmp");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CMP_OP, negate ? NFT_CMP_NEQ : NFT_CMP_EQ);
	nftnl_expr_set(expression, NFTNL_EXPR_CMP_DATA, data, length);
}

/* register = (register & mask) ^ toggle */
static void add_bitwise(struct compiler *compiler, const void *mask, const void *toggle, uint32_t length)
{
	struct nftnl_expr *expression = add(compiler, "bitwise");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_LEN, length);
	nftnl_expr_set(expression, NFTNL_EXPR_BITWISE_MASK, mask, length);
	nftnl_expr_set(expression, NFTNL_EXPR_BITWISE_XOR, toggle, length);
}

static void add_bitwise_u32(struct compiler *compiler, uint32_t mask, uint32_t toggle)
{
	add_bitwise(compiler, &mask, &toggle, sizeof mask);
}

static void add_immediate(struct compiler *compiler, const void *data, uint32_t length)
{
	struct nftnl_expr *expression = add(compiler, "immediate");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
	nftnl_expr_set(expression, NFTNL_EXPR_IMM_DATA, data, length);
}

static void add_verdict(struct compiler *compiler, uint32_t verdict)
{
	struct nftnl_expr *expression = add(compiler, "immediate");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_VERDICT, verdict);
}

static void add_lookup(struct compiler *compiler, const char *set)
{
	struct nftnl_expr *expression = add(compiler, "lookup");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	nftnl_expr_set_str(expression, NFTNL_EXPR_LOOKUP_SET, set);
}

static void add_redirect(struct compiler *compiler, uint16_t port)
{
	uint16_t network_port = htons(port);
	add_immediate(compiler, &network_port, sizeof network_port);
	struct nftnl_expr *expression = add(compiler, "redir");
	if (expression)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_REDIR_REG_PROTO_MIN, NFT_REG_1);
}

static void add_reset(struct compiler *compiler)
{
	struct nftnl_expr *expression = add(compiler, "reject");
	if (expression)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_TCP_RST);
}

static void need_protocol(struct compiler *compiler, uint8_t protocol)
{
	if (compiler->protocol == protocol)
		return;
	add_meta_load(compiler, NFT_META_L4PROTO);
	add_compare(compiler, false, &protocol, sizeof protocol);
	compiler->protocol = protocol;
}

static void need_family(struct compiler *compiler, uint8_t family)
{
	if (compiler->family == family)
		return;
	add_meta_load(compiler, NFT_META_NFPROTO);
	add_compare(compiler, false, &family, sizeof family);
	compiler->family = family;
}

static void load_port(struct compiler *compiler, uint8_t protocol, bool is_source)
{
	need_protocol(compiler, protocol);
	add_payload(compiler, NFT_PAYLOAD_TRANSPORT_HEADER, is_source ? 0 : sizeof(uint16_t), sizeof(uint16_t));
}

static void match_port(struct compiler *compiler, const struct statement *statement, uint8_t protocol, bool is_source)
{
	uint16_t port = htons((uint16_t)statement->value);
	load_port(compiler, protocol, is_source);
	add_compare(compiler, statement->negate, &port, sizeof port);
}

static void load_address(struct compiler *compiler, uint8_t family, bool is_source)
{
	need_family(compiler, family);
	if (family == NFPROTO_IPV4)
		add_payload(compiler, NFT_PAYLOAD_NETWORK_HEADER,
			    is_source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr), sizeof(struct in_addr));
	else
		add_payload(compiler, NFT_PAYLOAD_NETWORK_HEADER,
			    is_source ? offsetof(struct ip6_hdr, ip6_src) : offsetof(struct ip6_hdr, ip6_dst),
			    sizeof(struct in6_addr));
}

static void match_address(struct compiler *compiler, const struct statement *statement, uint8_t family, bool is_source)
{
	load_address(compiler, family, is_source);
	/* Both members of the union begin at the same place. */
	add_compare(compiler, statement->negate, &statement->ipv6,
		    family == NFPROTO_IPV4 ? sizeof statement->ipv4 : sizeof statement->ipv6);
}

static void match_tcp_syn(struct compiler *compiler, const struct statement *statement)
{
	const uint8_t mask = TH_FIN | TH_SYN | TH_RST | TH_ACK, none = 0, syn = TH_SYN;
	need_protocol(compiler, IPPROTO_TCP);
	add_payload(compiler, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS_OFFSET, sizeof mask);
	add_bitwise(compiler, &mask, &none, sizeof mask);
	add_compare(compiler, statement->negate, &syn, sizeof syn);
}

static void match_mark(struct compiler *compiler, const struct statement *statement)
{
	add_bitwise_u32(compiler, REDIRECT_MARK_MASK, 0);
	add_compare(compiler, statement->negate, &statement->value, sizeof statement->value);
}

static void compile_statement(struct compiler *compiler, const struct ruleset *ruleset, const struct statement *statement)
{
	const char *set = ruleset->sets[statement->set].name;

	switch (statement->kind) {
	case MATCH_IPV6:
		need_family(compiler, NFPROTO_IPV6);
		break;
	case MATCH_TCP:
		need_protocol(compiler, IPPROTO_TCP);
		break;
	case MATCH_TCP_SYN:
		match_tcp_syn(compiler, statement);
		break;
	case MATCH_TCP_DPORT:
		match_port(compiler, statement, IPPROTO_TCP, false);
		break;
	case MATCH_UDP_DPORT:
		match_port(compiler, statement, IPPROTO_UDP, false);
		break;
	case MATCH_UDP_SPORT:
		match_port(compiler, statement, IPPROTO_UDP, true);
		break;
	case MATCH_TCP_DPORT_SET:
		load_port(compiler, IPPROTO_TCP, false);
		add_lookup(compiler, set);
		break;
	case MATCH_IPV4_SADDR:
		match_address(compiler, statement, NFPROTO_IPV4, true);
		break;
	case MATCH_IPV4_DADDR:
		match_address(compiler, statement, NFPROTO_IPV4, false);
		break;
	case MATCH_IPV6_SADDR:
		match_address(compiler, statement, NFPROTO_IPV6, true);
		break;
	case MATCH_IPV6_DADDR:
		match_address(compiler, statement, NFPROTO_IPV6, false);
		break;
	case MATCH_IPV4_DADDR_SET:
		load_address(compiler, NFPROTO_IPV4, false);
		add_lookup(compiler, set);
		break;
	case MATCH_IPV6_DADDR_SET:
		load_address(compiler, NFPROTO_IPV6, false);
		add_lookup(compiler, set);
		break;
	case MATCH_IIFNAME_SET:
		add_meta_load(compiler, NFT_META_IIFNAME);
		add_lookup(compiler, set);
		break;
	case MATCH_OIFNAME_SET:
		add_meta_load(compiler, NFT_META_OIFNAME);
		add_lookup(compiler, set);
		break;
	case MATCH_OIF_LOOPBACK:
		add_meta_load(compiler, NFT_META_OIF);
		add_compare(compiler, statement->negate, &(uint32_t){ LOOPBACK_INDEX }, sizeof(uint32_t));
		break;
	case MATCH_META_MARK:
		add_meta_load(compiler, NFT_META_MARK);
		match_mark(compiler, statement);
		break;
	case MATCH_CT_MARK:
		add_ct_load(compiler, NFT_CT_MARK);
		match_mark(compiler, statement);
		break;
	case MATCH_CT_STATUS_DNAT:
		add_ct_load(compiler, NFT_CT_STATUS);
		add_bitwise_u32(compiler, IPS_DST_NAT, 0);
		add_compare(compiler, !statement->negate, &(uint32_t){ 0 }, sizeof(uint32_t));
		break;
	case SET_META_MARK:
		add_meta_load(compiler, NFT_META_MARK);
		add_bitwise_u32(compiler, ~REDIRECT_MARK_MASK, statement->value);
		add_meta_set(compiler, NFT_META_MARK);
		break;
	case SET_CT_MARK:
		add_ct_load(compiler, NFT_CT_MARK);
		add_bitwise_u32(compiler, ~REDIRECT_MARK_MASK, statement->value);
		add_ct_set(compiler, NFT_CT_MARK);
		break;
	case SET_CT_ZONE:
		/* Two bytes, host order. */
		add_immediate(compiler, &(uint16_t){ (uint16_t)statement->value }, sizeof(uint16_t));
		add_ct_set(compiler, NFT_CT_ZONE);
		break;
	case COUNT:
		add(compiler, "counter");
		break;
	case ACCEPT:
		add_verdict(compiler, NF_ACCEPT);
		break;
	case REDIRECT_TO:
		add_redirect(compiler, (uint16_t)statement->value);
		break;
	case RESET_TCP:
		add_reset(compiler);
		break;
	}
}

/* nft's comment: shown in listings, and by it the counters of a dump find their outcome. */
static bool set_comment(struct nftnl_rule *rule, const char *comment)
{
	struct nftnl_udata_buf *buffer = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	if (!buffer)
		return false;
	bool done = nftnl_udata_put_strz(buffer, NFTNL_UDATA_RULE_COMMENT, comment) != 0;
	if (done)
		nftnl_rule_set_data(rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(buffer), nftnl_udata_buf_len(buffer));
	nftnl_udata_buf_free(buffer);
	return done;
}

struct nftnl_rule *compile_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule)
{
	struct compiler compiler = { .rule = nftnl_rule_alloc() };
	if (!compiler.rule)
		return NULL;
	nftnl_rule_set_u32(compiler.rule, NFTNL_RULE_FAMILY, NFPROTO_INET);
	nftnl_rule_set_str(compiler.rule, NFTNL_RULE_TABLE, REDIRECT_TABLE);
	nftnl_rule_set_str(compiler.rule, NFTNL_RULE_CHAIN, ruleset_chains[rule->chain].name);
	for (size_t i = 0; i < rule->statements_count; i++)
		compile_statement(&compiler, ruleset, &rule->statements[i]);
	if (compiler.failed || !set_comment(compiler.rule, rule->name)) {
		nftnl_rule_free(compiler.rule);
		return NULL;
	}
	return compiler.rule;
}

struct nftnl_table *compile_table(void)
{
	struct nftnl_table *table = nftnl_table_alloc();
	if (!table)
		return NULL;
	nftnl_table_set_u32(table, NFTNL_TABLE_FAMILY, NFPROTO_INET);
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, REDIRECT_TABLE);
	return table;
}

struct nftnl_chain *compile_chain(const struct ruleset_chain *chain)
{
	struct nftnl_chain *object = nftnl_chain_alloc();
	if (!object)
		return NULL;
	nftnl_chain_set_u32(object, NFTNL_CHAIN_FAMILY, NFPROTO_INET);
	nftnl_chain_set_str(object, NFTNL_CHAIN_TABLE, REDIRECT_TABLE);
	nftnl_chain_set_str(object, NFTNL_CHAIN_NAME, chain->name);
	nftnl_chain_set_str(object, NFTNL_CHAIN_TYPE, chain->type);
	nftnl_chain_set_u32(object, NFTNL_CHAIN_HOOKNUM, chain->hook);
	nftnl_chain_set_s32(object, NFTNL_CHAIN_PRIO, chain->priority);
	nftnl_chain_set_u32(object, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	return object;
}

struct nftnl_set *compile_set(const struct ruleset_set *set, uint32_t id)
{
	static const uint32_t key_types[] = {
		[SET_TYPE_INTERFACE] = NFT_TYPE_INTERFACE_NAME,
		[SET_TYPE_PORT] = NFT_TYPE_INET_SERVICE,
		[SET_TYPE_IPV4] = NFT_TYPE_IPV4_ADDRESS,
		[SET_TYPE_IPV6] = NFT_TYPE_IPV6_ADDRESS,
	};
	struct nftnl_set *object = nftnl_set_alloc();
	if (!object)
		return NULL;
	nftnl_set_set_u32(object, NFTNL_SET_FAMILY, NFPROTO_INET);
	nftnl_set_set_str(object, NFTNL_SET_TABLE, REDIRECT_TABLE);
	nftnl_set_set_str(object, NFTNL_SET_NAME, set->name);
	nftnl_set_set_u32(object, NFTNL_SET_ID, id);
	nftnl_set_set_u32(object, NFTNL_SET_KEY_TYPE, key_types[set->type]);
	nftnl_set_set_u32(object, NFTNL_SET_KEY_LEN, set->key_length);
	nftnl_set_set_u32(object, NFTNL_SET_FLAGS, set->type == SET_TYPE_INTERFACE ? 0 : NFT_SET_INTERVAL);
	if (set->type == SET_TYPE_INTERFACE) {
		/* Without it nft lists the names of an interface set from the wrong end. 1 is nft's BYTEORDER_HOST_ENDIAN. */
		struct nftnl_udata_buf *buffer = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
		if (!buffer) {
			nftnl_set_free(object);
			return NULL;
		}
		nftnl_udata_put_u32(buffer, NFTNL_UDATA_SET_KEYBYTEORDER, 1);
		nftnl_set_set_data(object, NFTNL_SET_USERDATA, nftnl_udata_buf_data(buffer), nftnl_udata_buf_len(buffer));
		nftnl_udata_buf_free(buffer);
	}
	return object;
}

bool compile_interval_end(const struct ruleset_set *set, const struct ruleset_interval *interval, uint8_t ret_end[16])
{
	uint8_t end[16];
	memcpy(end, interval->last, sizeof end);
	for (size_t byte = set->key_length; byte-- > 0;) {
		if (++end[byte] != 0) {
			memcpy(ret_end, end, sizeof end);
			return true;
		}
	}
	return false;
}

static bool add_element(struct nftnl_set *object, const struct ruleset_set *set, const uint8_t *key, uint32_t flags)
{
	struct nftnl_set_elem *element = nftnl_set_elem_alloc();
	if (!element)
		return false;
	nftnl_set_elem_set(element, NFTNL_SET_ELEM_KEY, key, set->key_length);
	if (flags)
		nftnl_set_elem_set_u32(element, NFTNL_SET_ELEM_FLAGS, flags);
	nftnl_set_elem_add(object, element);
	return true;
}

struct nftnl_set *compile_elements(const struct ruleset_set *set, size_t first, size_t count)
{
	struct nftnl_set *object = nftnl_set_alloc();
	if (!object)
		return NULL;
	nftnl_set_set_u32(object, NFTNL_SET_FAMILY, NFPROTO_INET);
	nftnl_set_set_str(object, NFTNL_SET_TABLE, REDIRECT_TABLE);
	nftnl_set_set_str(object, NFTNL_SET_NAME, set->name);
	for (size_t i = first; i < first + count; i++) {
		uint8_t end[16];
		bool done = add_element(object, set, set->elements[i].first, 0);
		if (done && set->type != SET_TYPE_INTERFACE && compile_interval_end(set, &set->elements[i], end))
			done = add_element(object, set, end, NFT_SET_ELEM_INTERVAL_END);
		if (!done) {
			nftnl_set_free(object);
			return NULL;
		}
	}
	return object;
}
