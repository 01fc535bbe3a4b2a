/* See probe_rules.h. */
#include "installer/probes/probe_rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/nft_read.h"
#include "ambient/nft_rule.h"
#include "installer/probes/probe_set.h"

#define CHAIN "postrouting"
#define PRIORITY 99		    /* srcnat - 1 */
#define UID_OF_NO_SOCKET UINT32_MAX /* what meta skuid compares unequal to for every socket */

static const int families[] = { AF_INET, AF_INET6 };
#define FAMILIES_COUNT 2

const char *probe_rules_set_name(int family)
{
	return family == AF_INET6 ? "pods-ipv6" : "pods-ipv4";
}

static uint32_t key_length(int family)
{
	return family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);
}

void probe_standing_clear(struct probe_standing *standing)
{
	free(standing->elements);
	*standing = (struct probe_standing){ 0 };
}

static struct nftnl_table *make_table(void)
{
	struct nftnl_table *table = nftnl_table_alloc();
	if (!table)
		return NULL;
	nftnl_table_set_u32(table, NFTNL_TABLE_FAMILY, NFPROTO_INET);
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, PROBE_TABLE);
	return table;
}

static struct nftnl_set *make_set(int family)
{
	/* nft's numbers of its data types; they only matter for how a listing reads. */
	enum { NFT_TYPE_IPV4_ADDRESS = 7, NFT_TYPE_IPV6_ADDRESS = 8 };
	struct nftnl_set *set = nftnl_set_alloc();
	if (!set)
		return NULL;
	nftnl_set_set_u32(set, NFTNL_SET_FAMILY, NFPROTO_INET);
	nftnl_set_set_str(set, NFTNL_SET_TABLE, PROBE_TABLE);
	nftnl_set_set_str(set, NFTNL_SET_NAME, probe_rules_set_name(family));
	nftnl_set_set_u32(set, NFTNL_SET_ID, family == AF_INET6 ? 2 : 1);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_TYPE, family == AF_INET6 ? NFT_TYPE_IPV6_ADDRESS : NFT_TYPE_IPV4_ADDRESS);
	nftnl_set_set_u32(set, NFTNL_SET_KEY_LEN, key_length(family));
	nftnl_set_set_u32(set, NFTNL_SET_FLAGS, 0);
	return set;
}

static struct nftnl_chain *make_chain(void)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();
	if (!chain)
		return NULL;
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_FAMILY, NFPROTO_INET);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, PROBE_TABLE);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, CHAIN);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TYPE, "nat");
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_HOOKNUM, NF_INET_POST_ROUTING);
	nftnl_chain_set_s32(chain, NFTNL_CHAIN_PRIO, PRIORITY);
	nftnl_chain_set_u32(chain, NFTNL_CHAIN_POLICY, NF_ACCEPT);
	return chain;
}

static const char *rule_name(int family)
{
	return family == AF_INET6 ? "probes: ipv6" : "probes: ipv4";
}

/* ip daddr @pods-ipv4 tcp flags & (fin | syn | rst | ack) == syn meta skuid != 4294967295 ct status & dnat == 0
 * counter snat ip to 169.254.7.127 */
static struct nftnl_rule *make_rule(const struct probe_addresses *addresses, int family)
{
	bool is_ipv6 = family == AF_INET6;
	uint8_t protocol = is_ipv6 ? NFPROTO_IPV6 : NFPROTO_IPV4;
	const uint32_t no_socket = UID_OF_NO_SOCKET, none = 0;
	struct nft_rule_maker maker;

	nft_rule_start(&maker, NFPROTO_INET, PROBE_TABLE, CHAIN);
	nft_rule_load_address(&maker, protocol, false);
	nft_rule_add_lookup(&maker, probe_rules_set_name(family));
	nft_rule_match_tcp_syn(&maker, false);
	nft_rule_add_meta_load(&maker, NFT_META_SKUID);
	nft_rule_add_compare(&maker, true, &no_socket, sizeof no_socket);
	nft_rule_add_ct_load(&maker, NFT_CT_STATUS);
	nft_rule_add_bitwise_u32(&maker, IPS_DST_NAT, 0);
	nft_rule_add_compare(&maker, false, &none, sizeof none);
	nft_rule_add(&maker, "counter");
	nft_rule_add_snat(&maker, protocol, is_ipv6 ? (const void *)&addresses->ipv6 : &addresses->ipv4);
	nft_rule_comment(&maker, rule_name(family));
	return nft_rule_finish(&maker);
}

void probe_rules_batch_delete_table(struct nft_batch *batch)
{
	struct nftnl_table *table = make_table();
	if (!table) {
		nft_batch_fail(batch, ENOMEM, "table");
		return;
	}
	nft_batch_delete_table(batch, NFPROTO_INET, table, PROBE_TABLE);
	nftnl_table_free(table);
}

void probe_rules_batch_table(struct nft_batch *batch, const struct probe_addresses *addresses, bool replace)
{
	if (replace)
		probe_rules_batch_delete_table(batch);
	struct nftnl_table *table = make_table();
	struct nftnl_chain *chain = make_chain();
	if (table)
		nft_batch_add_table(batch, NFPROTO_INET, table, PROBE_TABLE);
	else
		nft_batch_fail(batch, ENOMEM, "table");
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		struct nftnl_set *set = make_set(families[i]);
		if (set)
			nft_batch_add_set(batch, NFPROTO_INET, set, probe_rules_set_name(families[i]));
		else
			nft_batch_fail(batch, ENOMEM, "set");
		/* libnftnl frees no NULL. */
		if (set)
			nftnl_set_free(set);
	}
	if (chain)
		nft_batch_add_chain(batch, NFPROTO_INET, chain, CHAIN);
	else
		nft_batch_fail(batch, ENOMEM, "chain");
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		struct nftnl_rule *rule = make_rule(addresses, families[i]);
		if (rule)
			nft_batch_add_rule(batch, NFPROTO_INET, rule, rule_name(families[i]));
		else
			nft_batch_fail(batch, ENOMEM, "rule");
		/* libnftnl frees no NULL. */
		if (rule)
			nftnl_rule_free(rule);
	}
	if (table)
		nftnl_table_free(table);
	if (chain)
		nftnl_chain_free(chain);
}

/* One message of elements; `set` goes with it. */
static void batch_set(struct nft_batch *batch, struct nftnl_set *set, int family, bool is_delete)
{
	if (is_delete)
		nft_batch_delete_elements(batch, NFPROTO_INET, set, probe_rules_set_name(family));
	else
		nft_batch_add_elements(batch, NFPROTO_INET, set, probe_rules_set_name(family));
	nftnl_set_free(set);
}

static void batch_family(struct nft_batch *batch, const struct pod_address *elements, size_t count, int family, bool is_delete)
{
	struct nftnl_set *set = NULL;
	size_t in_set = 0;
	for (size_t i = 0; i < count; i++) {
		if (elements[i].family != family)
			continue;
		if (!set) {
			set = make_set(family);
			in_set = 0;
		}
		struct nftnl_set_elem *element = set ? nftnl_set_elem_alloc() : NULL;
		if (!element) {
			nft_batch_fail(batch, ENOMEM, "elements");
			break;
		}
		nftnl_set_elem_set(element, NFTNL_SET_ELEM_KEY, &elements[i].ipv6, key_length(family));
		nftnl_set_elem_add(set, element);
		if (++in_set == NFT_ELEMENTS_PER_MESSAGE) {
			batch_set(batch, set, family, is_delete);
			set = NULL;
		}
	}
	if (set)
		batch_set(batch, set, family, is_delete);
}

void probe_rules_batch_elements(struct nft_batch *batch, const struct pod_address *elements, size_t count, bool is_delete)
{
	for (size_t i = 0; i < FAMILIES_COUNT; i++)
		batch_family(batch, elements, count, families[i], is_delete);
}

/* One look at the kernel. Each kind of object is dumped by itself; `say` keeps the first difference. */
struct look {
	const struct probe_addresses *addresses;
	struct probe_standing *standing;
	bool has_table, has_chain, has_set[FAMILIES_COUNT];
	size_t rules_count;
	int family;							  /* of the set that is dumped */
	char difference[sizeof((struct probe_standing){ 0 }.difference)]; /* of the dump that runs */
};

#define SAY(look, ...)                                                                                                         \
	do {                                                                                                                   \
		if ((look)->difference[0] == '\0')                                                                             \
			snprintf((look)->difference, sizeof(look)->difference, __VA_ARGS__);                                   \
	} while (0)

static int look_at_table(const struct nlmsghdr *header, void *data)
{
	struct look *look = data;
	cleanup_nft_table struct nftnl_table *table = nft_read_table(header);
	if (!table)
		return MNL_CB_ERROR;
	if (strcmp(nftnl_table_get_str(table, NFTNL_TABLE_NAME), PROBE_TABLE) == 0) {
		look->has_table = true;
		if (nftnl_table_get_u32(table, NFTNL_TABLE_FLAGS) & NFT_TABLE_F_DORMANT)
			SAY(look, "table inet %s is dormant", PROBE_TABLE);
	}
	return MNL_CB_OK;
}

static void compare_chain(struct look *look, const struct nftnl_chain *chain)
{
	const char *name = nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME);
	if (strcmp(name, CHAIN) != 0) {
		SAY(look, "chain %s should not be there", name);
		return;
	}
	look->has_chain = true;
	if (!nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) || !nftnl_chain_is_set(chain, NFTNL_CHAIN_TYPE) ||
	    nftnl_chain_get_u32(chain, NFTNL_CHAIN_HOOKNUM) != NF_INET_POST_ROUTING ||
	    strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_TYPE), "nat") != 0 ||
	    nftnl_chain_get_s32(chain, NFTNL_CHAIN_PRIO) != PRIORITY ||
	    nftnl_chain_get_u32(chain, NFTNL_CHAIN_POLICY) != NF_ACCEPT)
		SAY(look, "chain %s is not of type nat, hook postrouting, priority %d, policy accept", CHAIN, PRIORITY);
}

static int look_at_chain(const struct nlmsghdr *header, void *data)
{
	cleanup_nft_chain struct nftnl_chain *chain = nft_read_chain(header);
	if (!chain)
		return MNL_CB_ERROR;
	if (strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE), PROBE_TABLE) == 0)
		compare_chain(data, chain);
	return MNL_CB_OK;
}

/* false: no memory. */
static bool compare_rule(struct look *look, const struct nftnl_rule *rule, bool is_whole)
{
	size_t position = look->rules_count++;
	if (position >= FAMILIES_COUNT) {
		SAY(look, "a foreign rule stands at the end of chain %s", CHAIN);
		return true;
	}
	struct nftnl_rule *expected = make_rule(look->addresses, families[position]);
	if (!expected)
		return false;
	/* What can't be read whole is none of ours, whatever was read of it. */
	if (!is_whole || !nft_rule_same(expected, rule))
		SAY(look, "rule %zu \"%s\" of chain %s is missing or another", position + 1, rule_name(families[position]),
		    CHAIN);
	nftnl_rule_free(expected);
	return true;
}

static int look_at_rule(const struct nlmsghdr *header, void *data)
{
	bool is_whole;
	cleanup_nft_rule struct nftnl_rule *rule = nft_read_rule(header, &is_whole);
	if (!rule)
		return MNL_CB_ERROR;
	/* A kernel that can't limit the dump to a table gives them all. */
	if (strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), PROBE_TABLE) == 0 && !compare_rule(data, rule, is_whole)) {
		errno = ENOMEM;
		return MNL_CB_ERROR;
	}
	return MNL_CB_OK;
}

static void compare_set(struct look *look, const struct nftnl_set *set)
{
	const char *name = nftnl_set_get_str(set, NFTNL_SET_NAME);
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		if (strcmp(name, probe_rules_set_name(families[i])) != 0)
			continue;
		if (nftnl_set_get_u32(set, NFTNL_SET_KEY_LEN) == key_length(families[i]) &&
		    nftnl_set_get_u32(set, NFTNL_SET_FLAGS) == 0)
			look->has_set[i] = true;
		else
			SAY(look, "set %s is of another type", name);
		return;
	}
	SAY(look, "set %s should not be there", name);
}

static int look_at_set(const struct nlmsghdr *header, void *data)
{
	cleanup_nft_set struct nftnl_set *set = nft_read_set(header);
	if (!set)
		return MNL_CB_ERROR;
	if (strcmp(nftnl_set_get_str(set, NFTNL_SET_TABLE), PROBE_TABLE) == 0)
		compare_set(data, set);
	return MNL_CB_OK;
}

static int keep_element(struct nftnl_set_elem *element, void *data)
{
	struct look *look = data;
	struct probe_standing *standing = look->standing;
	struct pod_address address = { .family = look->family };
	uint32_t length = 0;
	const void *key = nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &length);
	if (!key || length != key_length(look->family))
		return 0;
	memcpy(&address.ipv6, key, length);
	struct pod_address *grown = reallocarray(standing->elements, standing->elements_count + 1, sizeof *grown);
	if (!grown)
		return -1;
	standing->elements = grown;
	standing->elements[standing->elements_count++] = address;
	return 0;
}

static int look_at_elements(const struct nlmsghdr *header, void *data)
{
	return nft_read_elements(header, keep_element, data);
}

/* A dump that is made again: what it said is forgotten. What those before it said was concluded. */
static void look_again(void *data)
{
	struct look *look = data;
	look->difference[0] = '\0';
	look->has_table = look->has_chain = false;
	look->rules_count = 0;
	memset(look->has_set, 0, sizeof look->has_set);
}

static void elements_again(void *data)
{
	const struct look *look = data;
	struct probe_standing *standing = look->standing;
	size_t kept = 0;
	for (size_t i = 0; i < standing->elements_count; i++)
		if (standing->elements[i].family != look->family)
			standing->elements[kept++] = standing->elements[i];
	standing->elements_count = kept;
}

/* Takes over what a dump found different. */
static void conclude(struct look *look)
{
	if (look->standing->difference[0] == '\0')
		memcpy(look->standing->difference, look->difference, sizeof look->difference);
	look->difference[0] = '\0';
}

static int look_at_objects(struct nft_socket *socket, struct look *look, struct error *error)
{
	if (nft_dump(socket, NFT_MSG_GETTABLE, NFPROTO_INET, NULL, NULL, look_at_table, look_again, look, error) < 0)
		return -1;
	look->standing->has_table = look->has_table;
	if (!look->has_table)
		SAY(look, "table inet %s is missing", PROBE_TABLE);
	conclude(look);
	if (!look->has_table)
		return 0;
	if (nft_dump(socket, NFT_MSG_GETCHAIN, NFPROTO_INET, NULL, NULL, look_at_chain, look_again, look, error) < 0)
		return -1;
	if (!look->has_chain)
		SAY(look, "chain %s is missing", CHAIN);
	conclude(look);
	if (nft_dump(socket, NFT_MSG_GETRULE, NFPROTO_INET, PROBE_TABLE, NULL, look_at_rule, look_again, look, error) < 0)
		return -1;
	if (look->rules_count < FAMILIES_COUNT)
		SAY(look, "rule %zu \"%s\" of chain %s is missing", look->rules_count + 1,
		    rule_name(families[look->rules_count]), CHAIN);
	conclude(look);
	if (nft_dump(socket, NFT_MSG_GETSET, NFPROTO_INET, PROBE_TABLE, NULL, look_at_set, look_again, look, error) < 0)
		return -1;
	for (size_t i = 0; i < FAMILIES_COUNT; i++)
		if (!look->has_set[i])
			SAY(look, "set %s is missing", probe_rules_set_name(families[i]));
	conclude(look);
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		look->family = families[i];
		if (look->has_set[i] &&
		    nft_dump(socket, NFT_MSG_GETSETELEM, NFPROTO_INET, PROBE_TABLE, probe_rules_set_name(families[i]),
			     look_at_elements, elements_again, look, error) < 0)
			return -1;
	}
	return 0;
}

/* Somebody who takes the table away between two dumps makes the second fail: then everything is looked at anew. */
#define LOOK_ATTEMPTS 8

int probe_rules_look(struct nft_socket *socket, const struct probe_addresses *addresses, struct error *error,
		     struct probe_standing *ret_standing)
{
	for (int attempt = 1;; attempt++) {
		cleanup_probe_standing struct probe_standing standing = { 0 };
		struct look look = { .addresses = addresses, .standing = &standing };
		struct error failure = { 0 };
		uint32_t afterwards;
		if (nft_generation(socket, error, &standing.generation) < 0)
			return -1;
		if (look_at_objects(socket, &look, &failure) == 0) {
			*ret_standing = standing;
			standing = (struct probe_standing){ 0 };
			return 0;
		}
		if (nft_generation(socket, error, &afterwards) < 0)
			return -1;
		if (afterwards == standing.generation || attempt == LOOK_ATTEMPTS)
			return error_copy(error, &failure);
	}
}
