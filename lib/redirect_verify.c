/* The kernel against the struct, by content.
 *
 * A dump is never byte for byte what was sent: the kernel adds attributes (the operation of a bitwise, the flags of a lookup),
 * leaves out others, and counts in its counters. So each object that should be there is compiled as for a transaction, and
 * every attribute that we set is compared with the same attribute of the dump. nft writes an interval set with a leading end at
 * zero; that element says nothing and is passed over.
 *
 * The first difference is told in words, with the rule as nft would write it (redirect_diff.c shows all of them). Other tables
 * are not looked at. */
#include "ambient/redirect.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"
#include "ambient/nft_read.h"
#include "ambient/nft_rule.h"
#include "ambient/route.h"
#include "redirect_compile.h"
#include "redirect_dump.h"
#include "redirect_session.h"

#define DIFFERENT(difference, ...)                                                                                             \
	({                                                                                                                     \
		snprintf((difference)->text, sizeof(difference)->text, __VA_ARGS__);                                           \
		false;                                                                                                         \
	})

static bool same_chain(const struct redirect_dump *dump, enum ruleset_chain_id id, struct redirect_difference *difference)
{
	const struct ruleset_chain *expected = &ruleset_chains[id];
	const struct nftnl_chain *found = redirect_dump_chain(dump, expected->name);
	if (!found)
		return DIFFERENT(difference, "chain %s is missing", expected->name);
	if (!nftnl_chain_is_set(found, NFTNL_CHAIN_HOOKNUM) || !nftnl_chain_is_set(found, NFTNL_CHAIN_TYPE))
		return DIFFERENT(difference, "chain %s is bound to no hook, expected hook %s", expected->name,
				 expected->hook_name);
	if (nftnl_chain_get_u32(found, NFTNL_CHAIN_HOOKNUM) != expected->hook)
		return DIFFERENT(difference, "chain %s stands in another hook than %s", expected->name, expected->hook_name);
	if (nftnl_chain_get_s32(found, NFTNL_CHAIN_PRIO) != expected->priority)
		return DIFFERENT(difference, "chain %s has priority %d, expected %d", expected->name,
				 nftnl_chain_get_s32(found, NFTNL_CHAIN_PRIO), expected->priority);
	if (strcmp(nftnl_chain_get_str(found, NFTNL_CHAIN_TYPE), expected->type) != 0)
		return DIFFERENT(difference, "chain %s is of type %s, expected %s", expected->name,
				 nftnl_chain_get_str(found, NFTNL_CHAIN_TYPE), expected->type);
	if (nftnl_chain_get_u32(found, NFTNL_CHAIN_POLICY) != NF_ACCEPT)
		return DIFFERENT(difference, "chain %s has policy drop, expected accept", expected->name);
	return true;
}

static bool same_chains(const struct redirect_dump *dump, const struct ruleset *ruleset, struct redirect_difference *difference)
{
	for (enum ruleset_chain_id id = 0; id < CHAIN_COUNT; id++)
		if (ruleset->chains[id] && !same_chain(dump, id, difference))
			return false;
	for (size_t i = 0; i < dump->chains_count; i++) {
		const char *name = nftnl_chain_get_str(dump->chains[i], NFTNL_CHAIN_NAME);
		if (!ruleset_has_chain(ruleset, name))
			return DIFFERENT(difference, "chain %s should not be there", name);
	}
	return true;
}

/* Says what is wrong at a position where the expected rule does not stand. */
static bool describe_rule(const struct redirect_dump *dump, const struct ruleset *ruleset, size_t index, size_t position,
			  struct redirect_difference *difference)
{
	const struct ruleset_rule *rule = &ruleset->rules[index];
	const char *chain = ruleset_chains[rule->chain].name;
	const struct nftnl_rule *found = redirect_dump_rule(dump, chain, position);
	bool is_last = index + 1 == ruleset->rules_count || ruleset->rules[index + 1].chain != rule->chain;
	char text[320];
	ruleset_print_rule(ruleset, rule, text, sizeof text);

	if (!found || (!is_last && redirect_dump_same_rule(ruleset, &ruleset->rules[index + 1], found)))
		return DIFFERENT(difference, "chain %s: rule %zu \"%s\" (%s) is missing", chain, position + 1, rule->name,
				 text);
	if (redirect_dump_same_rule(ruleset, rule, redirect_dump_rule(dump, chain, position + 1)))
		return DIFFERENT(difference, "chain %s: a foreign rule stands before rule %zu \"%s\"", chain, position + 1,
				 rule->name);
	return DIFFERENT(difference, "chain %s: rule %zu \"%s\" should be (%s), found another", chain, position + 1, rule->name,
			 text);
}

static bool same_rules(const struct redirect_dump *dump, const struct ruleset *ruleset, struct redirect_difference *difference)
{
	size_t expected_in_chain[CHAIN_COUNT] = { 0 };
	for (size_t i = 0; i < ruleset->rules_count; i++) {
		enum ruleset_chain_id id = ruleset->rules[i].chain;
		size_t position = expected_in_chain[id]++;
		if (!redirect_dump_same_rule(ruleset, &ruleset->rules[i],
					     redirect_dump_rule(dump, ruleset_chains[id].name, position)))
			return describe_rule(dump, ruleset, i, position, difference);
	}
	for (enum ruleset_chain_id id = 0; id < CHAIN_COUNT; id++)
		if (ruleset->chains[id] && redirect_dump_rule(dump, ruleset_chains[id].name, expected_in_chain[id]))
			return DIFFERENT(difference, "chain %s: a foreign rule stands at the end", ruleset_chains[id].name);
	return true;
}

/* One element as the kernel holds it: a key, and whether it ends an interval. */
struct element {
	uint8_t key[16];
	bool is_end;
};

static int compare_elements(const void *a, const void *b)
{
	const struct element *left = a, *right = b;
	int order = memcmp(left->key, right->key, sizeof left->key);
	return order != 0 ? order : left->is_end - right->is_end;
}

struct element_list {
	struct element *elements;
	size_t count;
	uint32_t key_length;
};

static int list_element(struct nftnl_set_elem *object, void *data)
{
	struct element_list *list = data;
	struct element element = { 0 };
	uint32_t length = 0;
	const void *key = nftnl_set_elem_get(object, NFTNL_SET_ELEM_KEY, &length);
	if (!key || length > sizeof element.key)
		return -1;
	memcpy(element.key, key, length);
	if (nftnl_set_elem_is_set(object, NFTNL_SET_ELEM_FLAGS))
		element.is_end = nftnl_set_elem_get_u32(object, NFTNL_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END;
	static const uint8_t zero[sizeof element.key];
	if (element.is_end && memcmp(element.key, zero, sizeof zero) == 0)
		return 0;
	struct element *grown = reallocarray(list->elements, list->count + 1, sizeof *grown);
	if (!grown)
		return -1;
	list->elements = grown;
	list->elements[list->count++] = element;
	return 0;
}

static int dump_elements(const struct nlmsghdr *header, void *data)
{
	return nft_read_elements(header, list_element, data);
}

static void elements_restart(void *data)
{
	struct element_list *list = data;
	free(list->elements);
	list->elements = NULL;
	list->count = 0;
}

/* 1: the same, 0: not, -1: could not be asked. */
static int same_elements(struct redirect_session *session, const struct ruleset_set *set, struct error *error)
{
	struct element_list expected = { 0 }, found = { 0 };
	int result = -1;
	struct nftnl_set *object = compile_elements(set, 0, set->elements_count);
	if (!object || nftnl_set_elem_foreach(object, list_element, &expected) < 0)
		error_set(error, ENOMEM, "cannot compare the set %s", set->name);
	else if (nft_dump(session->nft, NFT_MSG_GETSETELEM, NFPROTO_INET, REDIRECT_TABLE, set->name, dump_elements,
			  elements_restart, &found, error) == 0) {
		qsort(expected.elements, expected.count, sizeof *expected.elements, compare_elements);
		if (found.count > 0)
			qsort(found.elements, found.count, sizeof *found.elements, compare_elements);
		result = expected.count == found.count;
		for (size_t i = 0; result == 1 && i < expected.count; i++)
			result = compare_elements(&expected.elements[i], &found.elements[i]) == 0;
	}
	if (object)
		nftnl_set_free(object);
	free(expected.elements);
	free(found.elements);
	return result;
}

static int verify_sets(struct redirect_session *session, const struct redirect_dump *dump, const struct ruleset *ruleset,
		       struct error *error, struct redirect_difference *difference)
{
	for (size_t i = 0; i < SET_COUNT; i++) {
		const struct ruleset_set *set = &ruleset->sets[i];
		if (set->elements_count == 0)
			continue;
		const struct nftnl_set *found = NULL;
		for (size_t other = 0; other < dump->sets_count; other++)
			if (strcmp(nftnl_set_get_str(dump->sets[other], NFTNL_SET_NAME), set->name) == 0)
				found = dump->sets[other];
		uint32_t flags = set->type == SET_TYPE_INTERFACE ? 0 : NFT_SET_INTERVAL;
		if (!found || nftnl_set_get_u32(found, NFTNL_SET_KEY_LEN) != set->key_length ||
		    nftnl_set_get_u32(found, NFTNL_SET_FLAGS) != flags) {
			DIFFERENT(difference, "set %s is %s", set->name, found ? "of another type" : "missing");
			return 0;
		}
		int same = same_elements(session, set, error);
		if (same < 0)
			return -1;
		if (same == 0) {
			DIFFERENT(difference, "set %s has other elements than expected", set->name);
			return 0;
		}
	}
	return 0;
}

int redirect_verify(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
		    struct error *error, struct redirect_difference *ret_difference)
{
	cleanup_ruleset struct ruleset ruleset = { 0 };
	cleanup_redirect_dump struct redirect_dump dump = { 0 };
	struct redirect_difference difference = { .text = "" };

	if (ruleset_make(redirect, stage, error, &ruleset) < 0 || redirect_dump_read(session, error, &dump) < 0)
		return -1;
	errno = 0;
	if (!dump.has_table)
		DIFFERENT(&difference, "table inet %s is missing", REDIRECT_TABLE);
	else if (dump.is_dormant)
		DIFFERENT(&difference, "table inet %s is dormant", REDIRECT_TABLE);
	else if (ruleset.has_timeout && !dump.has_timeout)
		DIFFERENT(&difference, "ct timeout %s is %s", RULESET_TIMEOUT, dump.has_other_timeout ? "another" : "missing");
	else if (same_chains(&dump, &ruleset, &difference) && same_rules(&dump, &ruleset, &difference) &&
		 verify_sets(session, &dump, &ruleset, error, &difference) < 0)
		return -1;
	/* A rule that could not be compiled or walked for want of memory is no difference. */
	if (difference.text[0] != '\0' && errno == ENOMEM)
		return error_set(error, ENOMEM, "cannot compare the rules");
	if (difference.text[0] == '\0' &&
	    route_verify(session->route, redirect->ipv6, error, difference.text, sizeof difference.text) < 0)
		return -1;
	*ret_difference = difference;
	return 0;
}
