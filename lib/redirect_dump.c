/* Our table as the kernel has it. See redirect_dump.h. */
#include "redirect_dump.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"
#include "ambient/nft_read.h"
#include "ambient/nft_rule.h"
#include "redirect_compile.h"
#include "redirect_session.h"

void redirect_dump_clear(struct redirect_dump *dump)
{
	for (size_t i = 0; i < dump->chains_count; i++)
		nftnl_chain_free(dump->chains[i]);
	for (size_t i = 0; i < dump->rules_count; i++)
		nftnl_rule_free(dump->rules[i]);
	for (size_t i = 0; i < dump->sets_count; i++)
		nftnl_set_free(dump->sets[i]);
	free(dump->chains);
	free(dump->rules);
	free(dump->sets);
	*dump = (struct redirect_dump){ 0 };
}

static void dump_restart(void *data)
{
	redirect_dump_clear(data);
}

/* Moves `object` to the end of a list. */
#define APPEND(list, count, object)                                                                                            \
	({                                                                                                                     \
		void *grown_ = reallocarray((list), (count) + 1, sizeof *(list));                                              \
		if (grown_) {                                                                                                  \
			(list) = grown_;                                                                                       \
			(list)[(count)++] = steal_pointer(object);                                                             \
		} else {                                                                                                       \
			errno = ENOMEM;                                                                                        \
		}                                                                                                              \
		grown_ ? MNL_CB_OK : MNL_CB_ERROR;                                                                             \
	})

static int dump_table(const struct nlmsghdr *header, void *data)
{
	struct redirect_dump *dump = data;
	cleanup_nft_table struct nftnl_table *table = nft_read_table(header);
	if (!table)
		return MNL_CB_ERROR;
	if (strcmp(nftnl_table_get_str(table, NFTNL_TABLE_NAME), REDIRECT_TABLE) == 0) {
		dump->has_table = true;
		dump->is_dormant = nftnl_table_get_u32(table, NFTNL_TABLE_FLAGS) & NFT_TABLE_F_DORMANT;
	}
	return MNL_CB_OK;
}

static int dump_chain(const struct nlmsghdr *header, void *data)
{
	struct redirect_dump *dump = data;
	cleanup_nft_chain struct nftnl_chain *chain = nft_read_chain(header);
	if (!chain)
		return MNL_CB_ERROR;
	if (strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE), REDIRECT_TABLE) != 0)
		return MNL_CB_OK;
	return APPEND(dump->chains, dump->chains_count, chain);
}

/* A rule with an expression that libnftnl does not know: of all that was read only its place is kept, so that it equals none
 * of ours. NULL: no memory. */
static struct nftnl_rule *keep_place(struct nftnl_rule *partial)
{
	cleanup_nft_rule struct nftnl_rule *place = nftnl_rule_alloc();
	if (!place || nftnl_rule_set_str(place, NFTNL_RULE_TABLE, nftnl_rule_get_str(partial, NFTNL_RULE_TABLE)) < 0 ||
	    nftnl_rule_set_str(place, NFTNL_RULE_CHAIN, nftnl_rule_get_str(partial, NFTNL_RULE_CHAIN)) < 0)
		return NULL;
	return steal_pointer(place);
}

static int dump_rule(const struct nlmsghdr *header, void *data)
{
	struct redirect_dump *dump = data;
	bool is_whole;
	cleanup_nft_rule struct nftnl_rule *rule = nft_read_rule(header, &is_whole), *place = NULL;
	if (!rule)
		return MNL_CB_ERROR;
	/* A kernel that can't limit the dump to a table gives them all. */
	if (strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), REDIRECT_TABLE) != 0)
		return MNL_CB_OK;
	if (is_whole)
		return APPEND(dump->rules, dump->rules_count, rule);
	place = keep_place(rule);
	return place ? APPEND(dump->rules, dump->rules_count, place) : MNL_CB_ERROR;
}

static int dump_set(const struct nlmsghdr *header, void *data)
{
	struct redirect_dump *dump = data;
	cleanup_nft_set struct nftnl_set *set = nft_read_set(header);
	if (!set)
		return MNL_CB_ERROR;
	if (strcmp(nftnl_set_get_str(set, NFTNL_SET_TABLE), REDIRECT_TABLE) != 0)
		return MNL_CB_OK;
	return APPEND(dump->sets, dump->sets_count, set);
}

/* libnftnl gives the timeouts as one array in the order of NFTNL_CTTIMEOUT_TCP_*. */
static bool is_our_timeout(struct nftnl_obj *found)
{
	static const uint32_t none[NFTNL_CTTIMEOUT_TCP_MAX];
	const void *timeouts = nftnl_obj_get(found, NFTNL_OBJ_CT_TIMEOUT_ARRAY);
	return nftnl_obj_get_u8(found, NFTNL_OBJ_CT_TIMEOUT_L4PROTO) == IPPROTO_TCP && timeouts &&
	       memcmp(timeouts, none, sizeof none) == 0;
}

static int dump_object(const struct nlmsghdr *header, void *data)
{
	struct redirect_dump *dump = data;
	cleanup_nft_object struct nftnl_obj *object = nft_read_object(header);
	if (!object)
		return errno == ENOMEM ? MNL_CB_ERROR : MNL_CB_OK;
	if (strcmp(nftnl_obj_get_str(object, NFTNL_OBJ_TABLE), REDIRECT_TABLE) == 0 &&
	    strcmp(nftnl_obj_get_str(object, NFTNL_OBJ_NAME), RULESET_TIMEOUT) == 0 &&
	    nftnl_obj_get_u32(object, NFTNL_OBJ_TYPE) == NFT_OBJECT_CT_TIMEOUT)
		*(is_our_timeout(object) ? &dump->has_timeout : &dump->has_other_timeout) = true;
	return MNL_CB_OK;
}

int redirect_dump_read(struct redirect_session *session, struct error *error, struct redirect_dump *dump)
{
	/* A restart begins all lists anew, so each kind is dumped into an empty dump and moved. */
	struct redirect_dump chains = { 0 }, rules = { 0 }, sets = { 0 }, objects = { 0 };
	int result = -1;
	if (nft_dump(session->nft, NFT_MSG_GETTABLE, NFPROTO_INET, NULL, NULL, dump_table, dump_restart, dump, error) == 0 &&
	    (!dump->has_table || (nft_dump(session->nft, NFT_MSG_GETCHAIN, NFPROTO_INET, NULL, NULL, dump_chain, dump_restart,
					   &chains, error) == 0 &&
				  nft_dump(session->nft, NFT_MSG_GETRULE, NFPROTO_INET, REDIRECT_TABLE, NULL, dump_rule,
					   dump_restart, &rules, error) == 0 &&
				  nft_dump(session->nft, NFT_MSG_GETSET, NFPROTO_INET, REDIRECT_TABLE, NULL, dump_set,
					   dump_restart, &sets, error) == 0 &&
				  nft_dump(session->nft, NFT_MSG_GETOBJ, NFPROTO_INET, REDIRECT_TABLE, NULL, dump_object,
					   dump_restart, &objects, error) == 0)))
		result = 0;
	dump->has_timeout = objects.has_timeout;
	dump->has_other_timeout = objects.has_other_timeout;
	dump->chains = chains.chains;
	dump->chains_count = chains.chains_count;
	dump->rules = rules.rules;
	dump->rules_count = rules.rules_count;
	dump->sets = sets.sets;
	dump->sets_count = sets.sets_count;
	return result;
}

/* Whether `found` (NULL: nothing) is the rule that `rule` compiles to. */
bool redirect_dump_same_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule, const struct nftnl_rule *found)
{
	if (!found)
		return false;
	struct nftnl_rule *expected = compile_rule(ruleset, rule);
	bool same = expected && nft_rule_same(expected, found);
	if (expected)
		nftnl_rule_free(expected);
	return same;
}

const struct nftnl_chain *redirect_dump_chain(const struct redirect_dump *dump, const char *name)
{
	for (size_t i = 0; i < dump->chains_count; i++)
		if (strcmp(nftnl_chain_get_str(dump->chains[i], NFTNL_CHAIN_NAME), name) == 0)
			return dump->chains[i];
	return NULL;
}

const struct nftnl_rule *redirect_dump_rule(const struct redirect_dump *dump, const char *chain, size_t position)
{
	for (size_t i = 0; i < dump->rules_count; i++)
		if (strcmp(nftnl_rule_get_str(dump->rules[i], NFTNL_RULE_CHAIN), chain) == 0 && position-- == 0)
			return dump->rules[i];
	return NULL;
}
