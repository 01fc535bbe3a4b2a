/* Statements as nf_tables expressions (ambient/nft_rule.h), set elements as intervals. A listing reads as what was meant, and a
 * table that nft loaded from the rendered text verifies as ours. */
#include "redirect_compile.h"

#include <arpa/inet.h>
#include <libnftnl/chain.h>
#include <libnftnl/object.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <string.h>

#include "ambient/nft_rule.h"

/* nft's numbers of its data types (include/datatype.h there): they only matter for how a listing reads. */
enum { NFT_TYPE_IPV4_ADDRESS = 7, NFT_TYPE_IPV6_ADDRESS = 8, NFT_TYPE_INET_SERVICE = 13, NFT_TYPE_INTERFACE_NAME = 41 };

#define LOOPBACK_INDEX 1 /* LOOPBACK_IFINDEX of include/net/flow.h: lo is the first device of every namespace */

static void match_port(struct nft_rule_maker *maker, const struct statement *statement, uint8_t protocol, bool is_source)
{
	uint16_t port = htons((uint16_t)statement->value);
	nft_rule_load_port(maker, protocol, is_source);
	nft_rule_add_compare(maker, statement->negate, &port, sizeof port);
}

static void match_address(struct nft_rule_maker *maker, const struct statement *statement, uint8_t family, bool is_source)
{
	nft_rule_load_address(maker, family, is_source);
	/* Both members of the union begin at the same place. */
	nft_rule_add_compare(maker, statement->negate, &statement->ipv6,
			     family == NFPROTO_IPV4 ? sizeof statement->ipv4 : sizeof statement->ipv6);
}

static void match_mark(struct nft_rule_maker *maker, const struct statement *statement)
{
	nft_rule_add_bitwise_u32(maker, REDIRECT_MARK_MASK, 0);
	nft_rule_add_compare(maker, statement->negate, &statement->value, sizeof statement->value);
}

static void compile_statement(struct nft_rule_maker *maker, const struct ruleset *ruleset, const struct statement *statement)
{
	const char *set = ruleset->sets[statement->set].name;

	switch (statement->kind) {
	case MATCH_IPV6:
		nft_rule_need_family(maker, NFPROTO_IPV6);
		break;
	case MATCH_TCP:
		nft_rule_need_protocol(maker, IPPROTO_TCP);
		break;
	case MATCH_TCP_SYN:
		nft_rule_match_tcp_syn(maker, statement->negate);
		break;
	case MATCH_TCP_DPORT:
		match_port(maker, statement, IPPROTO_TCP, false);
		break;
	case MATCH_UDP_DPORT:
		match_port(maker, statement, IPPROTO_UDP, false);
		break;
	case MATCH_UDP_SPORT:
		match_port(maker, statement, IPPROTO_UDP, true);
		break;
	case MATCH_TCP_DPORT_SET:
		nft_rule_load_port(maker, IPPROTO_TCP, false);
		nft_rule_add_lookup(maker, set);
		break;
	case MATCH_IPV4_SADDR:
		match_address(maker, statement, NFPROTO_IPV4, true);
		break;
	case MATCH_IPV4_DADDR:
		match_address(maker, statement, NFPROTO_IPV4, false);
		break;
	case MATCH_IPV6_SADDR:
		match_address(maker, statement, NFPROTO_IPV6, true);
		break;
	case MATCH_IPV6_DADDR:
		match_address(maker, statement, NFPROTO_IPV6, false);
		break;
	case MATCH_IPV4_DADDR_SET:
		nft_rule_load_address(maker, NFPROTO_IPV4, false);
		nft_rule_add_lookup(maker, set);
		break;
	case MATCH_IPV6_DADDR_SET:
		nft_rule_load_address(maker, NFPROTO_IPV6, false);
		nft_rule_add_lookup(maker, set);
		break;
	case MATCH_IIFNAME_SET:
		nft_rule_add_meta_load(maker, NFT_META_IIFNAME);
		nft_rule_add_lookup(maker, set);
		break;
	case MATCH_OIFNAME_SET:
		nft_rule_add_meta_load(maker, NFT_META_OIFNAME);
		nft_rule_add_lookup(maker, set);
		break;
	case MATCH_OIF_LOOPBACK:
		nft_rule_add_meta_load(maker, NFT_META_OIF);
		nft_rule_add_compare(maker, statement->negate, &(uint32_t){ LOOPBACK_INDEX }, sizeof(uint32_t));
		break;
	case MATCH_META_MARK:
		nft_rule_add_meta_load(maker, NFT_META_MARK);
		match_mark(maker, statement);
		break;
	case MATCH_CT_MARK:
		nft_rule_add_ct_load(maker, NFT_CT_MARK);
		match_mark(maker, statement);
		break;
	case MATCH_CT_STATUS_DNAT:
		nft_rule_add_ct_load(maker, NFT_CT_STATUS);
		nft_rule_add_bitwise_u32(maker, IPS_DST_NAT, 0);
		nft_rule_add_compare(maker, !statement->negate, &(uint32_t){ 0 }, sizeof(uint32_t));
		break;
	case MATCH_CT_STATE_NEW:
		nft_rule_add_ct_load(maker, NFT_CT_STATE);
		nft_rule_add_bitwise_u32(maker, NF_CT_STATE_BIT(IP_CT_NEW), 0);
		nft_rule_add_compare(maker, !statement->negate, &(uint32_t){ 0 }, sizeof(uint32_t));
		break;
	case SET_META_MARK:
		nft_rule_add_meta_load(maker, NFT_META_MARK);
		nft_rule_add_bitwise_u32(maker, ~REDIRECT_MARK_MASK, statement->value);
		nft_rule_add_meta_set(maker, NFT_META_MARK);
		break;
	case SET_CT_MARK:
		nft_rule_add_ct_load(maker, NFT_CT_MARK);
		nft_rule_add_bitwise_u32(maker, ~REDIRECT_MARK_MASK, statement->value);
		nft_rule_add_ct_set(maker, NFT_CT_MARK);
		break;
	case SET_CT_ZONE:
		/* Two bytes, host order. */
		nft_rule_add_immediate(maker, &(uint16_t){ (uint16_t)statement->value }, sizeof(uint16_t));
		nft_rule_add_ct_set(maker, NFT_CT_ZONE);
		break;
	case SET_CT_TIMEOUT:
		nft_rule_add_object(maker, NFT_OBJECT_CT_TIMEOUT, RULESET_TIMEOUT);
		break;
	case COUNT:
		nft_rule_add(maker, "counter");
		break;
	case ACCEPT:
		nft_rule_add_verdict(maker, NF_ACCEPT);
		break;
	case REDIRECT_TO:
		nft_rule_add_redirect(maker, (uint16_t)statement->value);
		break;
	case RESET_TCP:
		nft_rule_add_reset(maker);
		break;
	}
}

struct nftnl_rule *compile_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule)
{
	struct nft_rule_maker maker;
	nft_rule_start(&maker, NFPROTO_INET, REDIRECT_TABLE, ruleset_chains[rule->chain].name);
	for (size_t i = 0; i < rule->statements_count; i++)
		compile_statement(&maker, ruleset, &rule->statements[i]);
	nft_rule_comment(&maker, rule->name);
	return nft_rule_finish(&maker);
}

struct nftnl_table *compile_table(void)
{
	struct nftnl_table *table = nftnl_table_alloc();
	if (!table)
		return NULL;
	nftnl_table_set_u32(table, NFTNL_TABLE_FAMILY, NFPROTO_INET);
	if (nftnl_table_set_str(table, NFTNL_TABLE_NAME, REDIRECT_TABLE) == 0)
		return table;
	nftnl_table_free(table);
	return NULL;
}

struct nftnl_chain *compile_chain(const struct ruleset_chain *chain)
{
	struct nftnl_chain *object = nftnl_chain_alloc();
	if (!object)
		return NULL;
	/* Without memory a copied text would be missing, and the chain another one. */
	if (nftnl_chain_set_str(object, NFTNL_CHAIN_TABLE, REDIRECT_TABLE) < 0 ||
	    nftnl_chain_set_str(object, NFTNL_CHAIN_NAME, chain->name) < 0 ||
	    nftnl_chain_set_str(object, NFTNL_CHAIN_TYPE, chain->type) < 0) {
		nftnl_chain_free(object);
		return NULL;
	}
	nftnl_chain_set_u32(object, NFTNL_CHAIN_FAMILY, NFPROTO_INET);
	nftnl_chain_set_u32(object, NFTNL_CHAIN_HOOKNUM, chain->hook);
	nftnl_chain_set_s32(object, NFTNL_CHAIN_PRIO, chain->priority);
	nftnl_chain_set_u32(object, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	return object;
}

struct nftnl_obj *compile_timeout(void)
{
	static const uint32_t none[NFTNL_CTTIMEOUT_TCP_MAX];
	struct nftnl_obj *object = nftnl_obj_alloc();
	if (!object)
		return NULL;
	nftnl_obj_set_u32(object, NFTNL_OBJ_FAMILY, NFPROTO_INET);
	nftnl_obj_set_u32(object, NFTNL_OBJ_TYPE, NFT_OBJECT_CT_TIMEOUT);
	nftnl_obj_set_str(object, NFTNL_OBJ_TABLE, REDIRECT_TABLE);
	nftnl_obj_set_str(object, NFTNL_OBJ_NAME, RULESET_TIMEOUT);
	nftnl_obj_set_u16(object, NFTNL_OBJ_CT_TIMEOUT_L3PROTO, NFPROTO_INET);
	nftnl_obj_set_u8(object, NFTNL_OBJ_CT_TIMEOUT_L4PROTO, IPPROTO_TCP);
	nftnl_obj_set_data(object, NFTNL_OBJ_CT_TIMEOUT_ARRAY, none, sizeof none);
	return object;
}

static struct nftnl_set *name_set(const struct ruleset_set *set)
{
	struct nftnl_set *object = nftnl_set_alloc();
	if (!object)
		return NULL;
	nftnl_set_set_u32(object, NFTNL_SET_FAMILY, NFPROTO_INET);
	if (nftnl_set_set_str(object, NFTNL_SET_TABLE, REDIRECT_TABLE) == 0 &&
	    nftnl_set_set_str(object, NFTNL_SET_NAME, set->name) == 0)
		return object;
	nftnl_set_free(object);
	return NULL;
}

/* Without it nft lists the names of an interface set from the wrong end. 1 is nft's BYTEORDER_HOST_ENDIAN. */
static bool set_byte_order(struct nftnl_set *object)
{
	struct nftnl_udata_buf *buffer = nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN);
	if (!buffer)
		return false;
	bool done =
		nftnl_udata_put_u32(buffer, NFTNL_UDATA_SET_KEYBYTEORDER, 1) &&
		nftnl_set_set_data(object, NFTNL_SET_USERDATA, nftnl_udata_buf_data(buffer), nftnl_udata_buf_len(buffer)) == 0;
	nftnl_udata_buf_free(buffer);
	return done;
}

struct nftnl_set *compile_set(const struct ruleset_set *set, uint32_t id)
{
	static const uint32_t key_types[] = {
		[SET_TYPE_INTERFACE] = NFT_TYPE_INTERFACE_NAME,
		[SET_TYPE_PORT] = NFT_TYPE_INET_SERVICE,
		[SET_TYPE_IPV4] = NFT_TYPE_IPV4_ADDRESS,
		[SET_TYPE_IPV6] = NFT_TYPE_IPV6_ADDRESS,
	};
	struct nftnl_set *object = name_set(set);
	if (!object)
		return NULL;
	nftnl_set_set_u32(object, NFTNL_SET_ID, id);
	nftnl_set_set_u32(object, NFTNL_SET_KEY_TYPE, key_types[set->type]);
	nftnl_set_set_u32(object, NFTNL_SET_KEY_LEN, set->key_length);
	nftnl_set_set_u32(object, NFTNL_SET_FLAGS, set->type == SET_TYPE_INTERFACE ? 0 : NFT_SET_INTERVAL);
	if (set->type != SET_TYPE_INTERFACE || set_byte_order(object))
		return object;
	nftnl_set_free(object);
	return NULL;
}

/* Computes the exclusive end of an interval, network order. False: the interval ends at the top of the range and has none. */
static bool interval_end(const struct ruleset_set *set, const struct ruleset_interval *interval, uint8_t ret_end[16])
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
	if (nftnl_set_elem_set(element, NFTNL_SET_ELEM_KEY, key, set->key_length) < 0) {
		nftnl_set_elem_free(element);
		return false;
	}
	if (flags)
		nftnl_set_elem_set_u32(element, NFTNL_SET_ELEM_FLAGS, flags);
	nftnl_set_elem_add(object, element);
	return true;
}

struct nftnl_set *compile_elements(const struct ruleset_set *set, size_t first, size_t count)
{
	struct nftnl_set *object = name_set(set);
	if (!object)
		return NULL;
	for (size_t i = first; i < first + count; i++) {
		uint8_t end[16];
		bool done = add_element(object, set, set->elements[i].first, 0);
		if (done && set->type != SET_TYPE_INTERFACE && interval_end(set, &set->elements[i], end))
			done = add_element(object, set, end, NFT_SET_ELEM_INTERVAL_END);
		if (!done) {
			nftnl_set_free(object);
			return NULL;
		}
	}
	return object;
}
