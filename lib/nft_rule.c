/* Rules as nf_tables expressions. See nft_rule.h. */
#include "ambient/nft_rule.h"

#include <arpa/inet.h>
#include <stdio.h> /* libnftnl needs FILE */
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stddef.h>
#include <string.h>

#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>

#define TCP_FLAGS_OFFSET 13

/* No expression that we use has more attributes (libnftnl's are counted from NFTNL_EXPR_BASE). */
#define EXPRESSION_ATTRIBUTES 16

void nft_rule_start(struct nft_rule_maker *maker, uint32_t family, const char *table, const char *chain)
{
	*maker = (struct nft_rule_maker){ .rule = nftnl_rule_alloc() };
	if (!maker->rule) {
		maker->failed = true;
		return;
	}
	nftnl_rule_set_u32(maker->rule, NFTNL_RULE_FAMILY, family);
	/* libnftnl copies texts: without memory the attribute would be missing, and the rule another one. */
	maker->failed = nftnl_rule_set_str(maker->rule, NFTNL_RULE_TABLE, table) < 0 ||
			nftnl_rule_set_str(maker->rule, NFTNL_RULE_CHAIN, chain) < 0;
}

void nft_rule_comment(struct nft_rule_maker *maker, const char *comment)
{
	struct nftnl_udata_buf *buffer = maker->failed ? NULL : nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	if (!buffer || !nftnl_udata_put_strz(buffer, NFTNL_UDATA_RULE_COMMENT, comment) ||
	    nftnl_rule_set_data(maker->rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(buffer), nftnl_udata_buf_len(buffer)) <
		    0)
		maker->failed = true;
	if (buffer)
		nftnl_udata_buf_free(buffer);
}

struct nftnl_rule *nft_rule_finish(struct nft_rule_maker *maker)
{
	struct nftnl_rule *rule = maker->rule;
	maker->rule = NULL;
	if (rule && maker->failed) {
		nftnl_rule_free(rule);
		return NULL;
	}
	return rule;
}

struct nftnl_expr *nft_rule_add(struct nft_rule_maker *maker, const char *name)
{
	if (maker->failed)
		return NULL;
	struct nftnl_expr *expression = nftnl_expr_alloc(name);
	if (!expression) {
		maker->failed = true;
		return NULL;
	}
	nftnl_rule_add_expr(maker->rule, expression);
	return expression;
}

void nft_rule_add_meta_load(struct nft_rule_maker *maker, uint32_t key)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "meta");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_DREG, NFT_REG_1);
}

void nft_rule_add_meta_set(struct nft_rule_maker *maker, uint32_t key)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "meta");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_META_SREG, NFT_REG_1);
}

void nft_rule_add_ct_load(struct nft_rule_maker *maker, uint32_t key)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "ct");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_DREG, NFT_REG_1);
}

void nft_rule_add_ct_set(struct nft_rule_maker *maker, uint32_t key)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "ct");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CT_SREG, NFT_REG_1);
}

static void add_payload(struct nft_rule_maker *maker, uint32_t base, uint32_t offset, uint32_t length)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "payload");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_LEN, length);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
}

void nft_rule_add_compare(struct nft_rule_maker *maker, bool negate, const void *data, uint32_t length)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "cmp");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_CMP_OP, negate ? NFT_CMP_NEQ : NFT_CMP_EQ);
	maker->failed |= nftnl_expr_set(expression, NFTNL_EXPR_CMP_DATA, data, length) < 0;
}

static void add_bitwise(struct nft_rule_maker *maker, const void *mask, const void *toggle, uint32_t length)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "bitwise");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_BITWISE_LEN, length);
	maker->failed |= nftnl_expr_set(expression, NFTNL_EXPR_BITWISE_MASK, mask, length) < 0;
	maker->failed |= nftnl_expr_set(expression, NFTNL_EXPR_BITWISE_XOR, toggle, length) < 0;
}

void nft_rule_add_bitwise_u32(struct nft_rule_maker *maker, uint32_t mask, uint32_t toggle)
{
	add_bitwise(maker, &mask, &toggle, sizeof mask);
}

void nft_rule_add_immediate(struct nft_rule_maker *maker, const void *data, uint32_t length)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "immediate");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_DREG, NFT_REG_1);
	maker->failed |= nftnl_expr_set(expression, NFTNL_EXPR_IMM_DATA, data, length) < 0;
}

void nft_rule_add_verdict(struct nft_rule_maker *maker, uint32_t verdict)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "immediate");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_IMM_VERDICT, verdict);
}

void nft_rule_add_lookup(struct nft_rule_maker *maker, const char *set)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "lookup");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
	maker->failed |= nftnl_expr_set_str(expression, NFTNL_EXPR_LOOKUP_SET, set) < 0;
}

void nft_rule_add_object(struct nft_rule_maker *maker, uint32_t type, const char *name)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "objref");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_OBJREF_IMM_TYPE, type);
	maker->failed |= nftnl_expr_set_str(expression, NFTNL_EXPR_OBJREF_IMM_NAME, name) < 0;
}

void nft_rule_add_redirect(struct nft_rule_maker *maker, uint16_t port)
{
	uint16_t network_port = htons(port);
	nft_rule_add_immediate(maker, &network_port, sizeof network_port);
	struct nftnl_expr *expression = nft_rule_add(maker, "redir");
	if (expression)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_REDIR_REG_PROTO_MIN, NFT_REG_1);
}

void nft_rule_add_snat(struct nft_rule_maker *maker, uint8_t family, const void *address)
{
	nft_rule_add_immediate(maker, address, family == NFPROTO_IPV4 ? sizeof(struct in_addr) : sizeof(struct in6_addr));
	struct nftnl_expr *expression = nft_rule_add(maker, "nat");
	if (!expression)
		return;
	nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_TYPE, NFT_NAT_SNAT);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_FAMILY, family);
	nftnl_expr_set_u32(expression, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG_1);
}

void nft_rule_add_reset(struct nft_rule_maker *maker)
{
	struct nftnl_expr *expression = nft_rule_add(maker, "reject");
	if (expression)
		nftnl_expr_set_u32(expression, NFTNL_EXPR_REJECT_TYPE, NFT_REJECT_TCP_RST);
}

void nft_rule_need_protocol(struct nft_rule_maker *maker, uint8_t protocol)
{
	if (maker->protocol == protocol)
		return;
	nft_rule_add_meta_load(maker, NFT_META_L4PROTO);
	nft_rule_add_compare(maker, false, &protocol, sizeof protocol);
	maker->protocol = protocol;
}

void nft_rule_need_family(struct nft_rule_maker *maker, uint8_t family)
{
	if (maker->family == family)
		return;
	nft_rule_add_meta_load(maker, NFT_META_NFPROTO);
	nft_rule_add_compare(maker, false, &family, sizeof family);
	maker->family = family;
}

void nft_rule_load_port(struct nft_rule_maker *maker, uint8_t protocol, bool is_source)
{
	nft_rule_need_protocol(maker, protocol);
	add_payload(maker, NFT_PAYLOAD_TRANSPORT_HEADER, is_source ? 0 : sizeof(uint16_t), sizeof(uint16_t));
}

void nft_rule_load_address(struct nft_rule_maker *maker, uint8_t family, bool is_source)
{
	nft_rule_need_family(maker, family);
	if (family == NFPROTO_IPV4)
		add_payload(maker, NFT_PAYLOAD_NETWORK_HEADER,
			    is_source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr), sizeof(struct in_addr));
	else
		add_payload(maker, NFT_PAYLOAD_NETWORK_HEADER,
			    is_source ? offsetof(struct ip6_hdr, ip6_src) : offsetof(struct ip6_hdr, ip6_dst),
			    sizeof(struct in6_addr));
}

void nft_rule_match_tcp_syn(struct nft_rule_maker *maker, bool negate)
{
	const uint8_t mask = TH_FIN | TH_SYN | TH_RST | TH_ACK, none = 0, syn = TH_SYN;
	nft_rule_need_protocol(maker, IPPROTO_TCP);
	add_payload(maker, NFT_PAYLOAD_TRANSPORT_HEADER, TCP_FLAGS_OFFSET, sizeof mask);
	add_bitwise(maker, &mask, &none, sizeof mask);
	nft_rule_add_compare(maker, negate, &syn, sizeof syn);
}

static bool same_expression(struct nftnl_expr *expected, struct nftnl_expr *found)
{
	if (strcmp(nftnl_expr_get_str(expected, NFTNL_EXPR_NAME), nftnl_expr_get_str(found, NFTNL_EXPR_NAME)) != 0)
		return false;
	for (uint16_t attribute = NFTNL_EXPR_BASE; attribute < EXPRESSION_ATTRIBUTES; attribute++) {
		if (!nftnl_expr_is_set(expected, attribute))
			continue;
		uint32_t expected_length = 0, found_length = 0;
		const void *expected_value = nftnl_expr_get(expected, attribute, &expected_length);
		const void *found_value =
			nftnl_expr_is_set(found, attribute) ? nftnl_expr_get(found, attribute, &found_length) : NULL;
		if (!expected_value || !found_value || expected_length != found_length ||
		    memcmp(expected_value, found_value, expected_length) != 0)
			return false;
	}
	return true;
}

bool nft_rule_same(const struct nftnl_rule *expected, const struct nftnl_rule *found)
{
	struct nftnl_expr_iter *expected_next = nftnl_expr_iter_create(expected);
	struct nftnl_expr_iter *found_next = nftnl_expr_iter_create(found);
	bool same = expected_next && found_next;
	while (same) {
		struct nftnl_expr *a = nftnl_expr_iter_next(expected_next), *b = nftnl_expr_iter_next(found_next);
		if (!a || !b) {
			same = !a && !b;
			break;
		}
		same = same_expression(a, b);
	}
	if (expected_next)
		nftnl_expr_iter_destroy(expected_next);
	if (found_next)
		nftnl_expr_iter_destroy(found_next);
	return same;
}
