/* Putting a redirection into a namespace and taking it away.
 *
 * The kernel's costs decide the shape (docs/redirection.md, "Cost"): one transaction, and never a failed one on purpose, since
 * a failed batch waits for an RCU grace period. So we ask first whether our table is there, and make the transaction valid for
 * that generation of the ruleset only: when somebody else commits in between, the kernel refuses at once (ERESTART) and we look
 * again. In a namespace in which nobody ever committed (generation 1: every new pod) even the question is spared.
 *
 * The rule and route stand before the redirects: in the gap a connection that the tunnel carries would hang. */
#include "ambient/redirect.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/udata.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <netlink/socket.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "ambient/nft_read.h"
#include "ambient/route.h"
#include "redirect_compile.h"
#include "redirect_forget.h"
#include "redirect_session.h"

/* The generation of a ruleset into which nobody ever committed. */
#define GENERATION_UNTOUCHED 1

/* Somebody who commits all the time must not hold us for ever. */
#define COMMIT_ATTEMPTS 32

int redirect_session_open(int netns_fd, struct error *error, struct redirect_session **ret_session)
{
	cleanup_redirect_session struct redirect_session *session = calloc(1, sizeof *session);
	if (!session) {
		error_set(error, ENOMEM, "cannot open a session in the network namespace");
		return -1;
	}

	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	if (netns_enter(netns_fd, error, &visit) < 0)
		return -1;
	if (nft_socket_open(error, &session->nft) < 0 || route_socket_open(error, &session->route) < 0)
		return -1;
	*ret_session = steal_pointer(session);
	return 0;
}

void redirect_session_close(struct redirect_session *session)
{
	if (!session)
		return;
	nft_socket_close(session->nft);
	if (session->route)
		route_socket_close(session->route);
	free(session);
}

void redirect_session_closep(struct redirect_session **session)
{
	redirect_session_close(*session);
}

/* What stands in the namespace before we change it. */
struct standing {
	uint32_t generation;
	bool has_table;
	bool has_redirects;
};

static int look_at_table(const struct nlmsghdr *header, void *data)
{
	struct standing *standing = data;
	cleanup_nft_table struct nftnl_table *table = nft_read_table(header);
	if (!table)
		return MNL_CB_ERROR;
	standing->has_table |= strcmp(nftnl_table_get_str(table, NFTNL_TABLE_NAME), REDIRECT_TABLE) == 0;
	return MNL_CB_OK;
}

static int look_at_chain(const struct nlmsghdr *header, void *data)
{
	struct standing *standing = data;
	cleanup_nft_chain struct nftnl_chain *chain = nft_read_chain(header);
	if (!chain)
		return MNL_CB_ERROR;
	/* The stage full has this chain always, the stage guard never. */
	if (strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE), REDIRECT_TABLE) == 0)
		standing->has_redirects |=
			strcmp(nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME), ruleset_chains[CHAIN_OUTPUT_REDIRECT].name) == 0;
	return MNL_CB_OK;
}

static int look(struct redirect_session *session, struct error *error, struct standing *ret_standing)
{
	struct standing standing = { 0 };
	if (nft_generation(session->nft, error, &standing.generation) < 0)
		return -1;
	/* A dump that is made again only repeats what it said: nothing to take back on restart. */
	if (standing.generation != GENERATION_UNTOUCHED &&
	    nft_dump(session->nft, NFT_MSG_GETTABLE, NFPROTO_INET, NULL, NULL, look_at_table, NULL, &standing, error) < 0)
		return -1;
	if (standing.has_table &&
	    nft_dump(session->nft, NFT_MSG_GETCHAIN, NFPROTO_INET, NULL, NULL, look_at_chain, NULL, &standing, error) < 0)
		return -1;
	*ret_standing = standing;
	return 0;
}

int redirect_is_touched(struct redirect_session *session, struct error *error, bool *ret_is_touched)
{
	uint32_t generation = 0;
	if (nft_generation(session->nft, error, &generation) < 0)
		return -1;
	*ret_is_touched = generation != GENERATION_UNTOUCHED;
	return 0;
}

int redirect_look(struct redirect_session *session, struct error *error, enum redirect_standing *ret_standing)
{
	struct standing standing;
	if (look(session, error, &standing) < 0)
		return -1;
	*ret_standing = standing.has_redirects ? REDIRECT_STANDING_FULL
			: standing.has_table   ? REDIRECT_STANDING_GUARD
					       : REDIRECT_STANDING_NOTHING;
	return 0;
}

uint32_t redirect_session_port(const struct redirect_session *session)
{
	return nft_socket_port(session->nft);
}

uint32_t redirect_session_route_port(const struct redirect_session *session)
{
	return nl_socket_get_local_port(session->route);
}

/* No object, no rule: the batch remembers that memory was missing. */
#define BATCH_OBJECT(batch, object, what, free_object, ...)                                                                    \
	do {                                                                                                                   \
		if (!(object)) {                                                                                               \
			nft_batch_fail(batch, ENOMEM, what);                                                                   \
			break;                                                                                                 \
		}                                                                                                              \
		__VA_ARGS__;                                                                                                   \
		free_object(object);                                                                                           \
	} while (0)

static void batch_table(struct nft_batch *batch, bool replace)
{
	struct nftnl_table *table = compile_table();
	BATCH_OBJECT(batch, table, "table", nftnl_table_free, {
		if (replace)
			nft_batch_delete_table(batch, NFPROTO_INET, table, REDIRECT_TABLE);
		nft_batch_add_table(batch, NFPROTO_INET, table, REDIRECT_TABLE);
	});
}

static void batch_timeout(struct nft_batch *batch)
{
	struct nftnl_obj *timeout = compile_timeout();
	BATCH_OBJECT(batch, timeout, RULESET_TIMEOUT, nftnl_obj_free,
		     nft_batch_add_object(batch, NFPROTO_INET, timeout, RULESET_TIMEOUT));
}

static void batch_set(struct nft_batch *batch, const struct ruleset_set *set, uint32_t id)
{
	struct nftnl_set *object = compile_set(set, id);
	BATCH_OBJECT(batch, object, set->name, nftnl_set_free, nft_batch_add_set(batch, NFPROTO_INET, object, set->name));

	/* An interval is two elements. */
	const size_t step = NFT_ELEMENTS_PER_MESSAGE / 2;
	for (size_t first = 0; first < set->elements_count; first += step) {
		size_t left = set->elements_count - first;
		struct nftnl_set *elements = compile_elements(set, first, left < step ? left : step);
		BATCH_OBJECT(batch, elements, set->name, nftnl_set_free,
			     nft_batch_add_elements(batch, NFPROTO_INET, elements, set->name));
	}
}

static void batch_ruleset(struct nft_batch *batch, const struct ruleset *ruleset)
{
	if (ruleset->has_timeout)
		batch_timeout(batch);
	for (size_t i = 0; i < SET_COUNT; i++)
		if (ruleset->sets[i].elements_count > 0)
			batch_set(batch, &ruleset->sets[i], (uint32_t)i + 1);
	for (size_t i = 0; i < CHAIN_COUNT; i++) {
		if (!ruleset->chains[i])
			continue;
		struct nftnl_chain *chain = compile_chain(&ruleset_chains[i]);
		BATCH_OBJECT(batch, chain, ruleset_chains[i].name, nftnl_chain_free,
			     nft_batch_add_chain(batch, NFPROTO_INET, chain, ruleset_chains[i].name));
	}
	for (size_t i = 0; i < ruleset->rules_count; i++) {
		struct nftnl_rule *rule = compile_rule(ruleset, &ruleset->rules[i]);
		BATCH_OBJECT(batch, rule, ruleset->rules[i].name, nftnl_rule_free,
			     nft_batch_add_rule(batch, NFPROTO_INET, rule, ruleset->rules[i].name));
	}
}

/* Makes the table what `ruleset` says (NULL: nothing) in one transaction. `before` is what stood there; a look that was had
 * already is given with it, else it is all zero. */
static int commit_table(struct redirect_session *session, const struct ruleset *ruleset, struct error *error,
			struct standing *before)
{
	for (int attempt = 1;; attempt++) {
		if ((attempt > 1 || before->generation == 0) && look(session, error, before) < 0)
			return -1;
		if (!ruleset && !before->has_table)
			return 0;
		cleanup_nft_batch struct nft_batch *batch = NULL;
		if (nft_batch_new(session->nft, error, &batch) < 0)
			return -1;
		nft_batch_expect_generation(batch, before->generation);
		if (ruleset) {
			batch_table(batch, before->has_table);
			batch_ruleset(batch, ruleset);
		} else {
			struct nftnl_table *table = compile_table();
			BATCH_OBJECT(batch, table, "table", nftnl_table_free,
				     nft_batch_delete_table(batch, NFPROTO_INET, table, REDIRECT_TABLE));
		}
		struct error failure = { 0 };
		if (nft_batch_commit(batch, &failure) == 0)
			return 0;
		if (failure.number != ERESTART || attempt == COMMIT_ATTEMPTS) {
			if (error && !error_is_set(error))
				*error = failure;
			return -1;
		}
	}
}

int redirect_try_kernel(int netns_fd, struct error *error, bool *ret_has_timeouts)
{
	cleanup_redirect_session struct redirect_session *session = NULL;
	cleanup_nft_batch struct nft_batch *batch = NULL;
	struct error failure = { 0 };
	if (redirect_session_open(netns_fd, error, &session) < 0 || nft_batch_new(session->nft, error, &batch) < 0)
		return -1;
	batch_table(batch, false);
	batch_timeout(batch);
	bool has_timeouts = nft_batch_commit(batch, &failure) == 0;
	if (!has_timeouts && failure.number != ENOENT && failure.number != EOPNOTSUPP)
		return error_set(error, failure.number, "%s", failure.message);
	*ret_has_timeouts = has_timeouts;
	return 0;
}

/* The guard's, in a namespace whose connections are open by now. */
static int commit_guard(struct redirect_session *session, const struct ruleset *ruleset, struct error *error,
			struct standing *before)
{
	struct mnl_socket *listener = NULL;
	if (look(session, error, before) < 0)
		return -1;
	if (ruleset->has_timeout && !before->has_table)
		redirect_forget_begin(session, &listener);
	int result = commit_table(session, ruleset, error, before);
	redirect_forget_end(session, listener);
	return result;
}

int redirect_apply(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
		   struct error *error)
{
	cleanup_ruleset struct ruleset ruleset = { 0 };
	struct standing before = { 0 };
	struct route_added added = { 0 };

	if (ruleset_make(redirect, stage, error, &ruleset) < 0)
		return -1;
	if (stage == REDIRECT_STAGE_GUARD) {
		/* The table is what a look finds: first in, last out, so that nothing is overlooked whenever we are killed.
		 * Without redirects nothing needs the routes yet. */
		if (commit_guard(session, &ruleset, error, &before) < 0)
			return -1;
		if (route_add_missing(session->route, redirect->ipv6, error, &added) == 0)
			return 0;
		if (!before.has_table) {
			struct standing now = { 0 };
			route_take_back(session->route, &added, NULL);
			commit_table(session, NULL, NULL, &now);
		}
		return -1;
	}
	/* With redirects and without routes a connection would hang. */
	if (route_add_missing(session->route, redirect->ipv6, error, &added) < 0 ||
	    commit_table(session, &ruleset, error, &before) < 0) {
		/* Half of it may stand. Where our table stands the routes belong to it; what somebody else had there stays. */
		if (look(session, NULL, &before) == 0 && !before.has_table)
			route_take_back(session->route, &added, NULL);
		return -1;
	}
	if (redirect->existing_connections == EXISTING_CONNECTIONS_RESET && !before.has_redirects &&
	    redirect_forget_all(session, error) < 0) {
		struct standing now = { 0 };
		if (!before.has_table && commit_table(session, NULL, NULL, &now) == 0)
			route_take_back(session->route, &added, NULL);
		return -1;
	}
	return 0;
}

int redirect_remove(struct redirect_session *session, struct error *error)
{
	struct standing before = { 0 };
	if (route_remove(session->route, error) < 0 || commit_table(session, NULL, error, &before) < 0)
		return -1;
	if (before.has_table)
		redirect_forget_leftovers(session);
	return 0;
}

const char *redirect_outcome_name(enum redirect_outcome outcome)
{
	static const char *const names[REDIRECT_OUTCOME_COUNT] = {
		[REDIRECT_OUTCOME_NONE] = "none",
		[REDIRECT_OUTCOME_INBOUND] = "inbound",
		[REDIRECT_OUTCOME_OUTBOUND] = "outbound",
		[REDIRECT_OUTCOME_DNS] = "dns",
		[REDIRECT_OUTCOME_VIRTUAL_INTERFACE] = "virtual-interface",
		[REDIRECT_OUTCOME_HBONE] = "hbone",
		[REDIRECT_OUTCOME_PROBE] = "probe",
		[REDIRECT_OUTCOME_EXCLUDED] = "excluded",
		[REDIRECT_OUTCOME_GUARD] = "guard",
	};
	return names[outcome];
}

/* nft stores a comment as a string attribute of the rule's user data. */
static int read_comment(const struct nftnl_udata *attribute, void *data)
{
	const char **comment = data;
	const char *value = nftnl_udata_get(attribute);
	uint8_t length = nftnl_udata_len(attribute);
	if (nftnl_udata_type(attribute) == NFTNL_UDATA_RULE_COMMENT && length > 0 && value[length - 1] == '\0')
		*comment = value;
	return 0;
}

static enum redirect_outcome outcome_of(struct nftnl_rule *rule)
{
	uint32_t length = 0;
	const char *comment = NULL;
	const void *data = nftnl_rule_get_data(rule, NFTNL_RULE_USERDATA, &length);
	if (!data || nftnl_udata_parse(data, length, read_comment, &comment) < 0 || !comment)
		return REDIRECT_OUTCOME_NONE;
	size_t prefix = strcspn(comment, ":");
	for (enum redirect_outcome outcome = REDIRECT_OUTCOME_NONE + 1; outcome < REDIRECT_OUTCOME_COUNT; outcome++) {
		const char *name = redirect_outcome_name(outcome);
		if (strlen(name) == prefix && memcmp(name, comment, prefix) == 0)
			return outcome;
	}
	return REDIRECT_OUTCOME_NONE;
}

static int count_packets(struct nftnl_expr *expression, void *data)
{
	if (strcmp(nftnl_expr_get_str(expression, NFTNL_EXPR_NAME), "counter") == 0)
		*(uint64_t *)data += nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_PACKETS);
	return 0;
}

static int count_rule(const struct nlmsghdr *header, void *data)
{
	struct redirect_counters *counters = data;
	bool is_whole;
	cleanup_nft_rule struct nftnl_rule *rule = nft_read_rule(header, &is_whole);
	if (!rule)
		return MNL_CB_ERROR;
	/* A kernel that can't limit the dump to a table gives them all, those among them that libnftnl can't read. */
	if (is_whole && strcmp(nftnl_rule_get_str(rule, NFTNL_RULE_TABLE), REDIRECT_TABLE) == 0) {
		enum redirect_outcome outcome = outcome_of(rule);
		if (outcome != REDIRECT_OUTCOME_NONE)
			nftnl_expr_foreach(rule, count_packets, &counters->packets[outcome]);
	}
	return MNL_CB_OK;
}

static void count_again(void *data)
{
	*(struct redirect_counters *)data = (struct redirect_counters){ 0 };
}

int redirect_read_counters(struct redirect_session *session, struct error *error, struct redirect_counters *ret_counters)
{
	struct redirect_counters counters = { 0 };
	if (nft_dump(session->nft, NFT_MSG_GETRULE, NFPROTO_INET, REDIRECT_TABLE, NULL, count_rule, count_again, &counters,
		     error) < 0)
		return -1;
	*ret_counters = counters;
	return 0;
}
