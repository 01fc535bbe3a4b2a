/* Migration from istio-cni in one network namespace. See migrate.h; sidecars and legacy tables are told apart by the names of
 * chains:
 *
 *   ambient   ISTIO_PRERT, ISTIO_OUTPUT; on the host ISTIO_POSTRT
 *   sidecar   ISTIO_OUTPUT too, but with ISTIO_REDIRECT, ISTIO_IN_REDIRECT, ISTIO_INBOUND (nat), ISTIO_DIVERT, ISTIO_TPROXY
 * (mangle)
 *
 * All goes in one transaction that is valid for the ruleset that was looked at only: when somebody commits in between, the
 * kernel refuses it at once and we look again. */
#include "installer/host/migrate.h"

#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "ambient/nft_read.h"
#include "installer/host/migrate_parts.h"

/* A namespace that nobody ever committed into. */
#define GENERATION_UNTOUCHED 1
#define COMMIT_ATTEMPTS 32
#define OBJECTS_MAX 65536

bool migrate_is_ambient_chain(const char *chain, enum migrate_place place)
{
	if (place == MIGRATE_HOST)
		return strcmp(chain, "ISTIO_POSTRT") == 0;
	return strcmp(chain, "ISTIO_PRERT") == 0 || strcmp(chain, "ISTIO_OUTPUT") == 0;
}

bool migrate_is_sidecar_chain(const char *chain)
{
	static const char *const names[] = { "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_INBOUND", "ISTIO_DIVERT",
					     "ISTIO_TPROXY" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (strcmp(names[i], chain) == 0)
			return true;
	return false;
}

/* The tables of iptables-nft that istio-cni writes into. */
static bool is_iptables_table(uint32_t family, const char *table)
{
	return (family == NFPROTO_IPV4 || family == NFPROTO_IPV6) &&
	       (strcmp(table, "nat") == 0 || strcmp(table, "mangle") == 0 || strcmp(table, "raw") == 0);
}

static bool is_ambient_table(const char *table)
{
	return strcmp(table, "istio-ambient-nat") == 0 || strcmp(table, "istio-ambient-mangle") == 0 ||
	       strcmp(table, "istio-ambient-raw") == 0;
}

/* A table, a chain (`chain` set) or a rule (`handle` set) that is of interest. */
struct object {
	uint32_t family;
	char table[64], chain[64];
	uint64_t handle;
	bool is_base;	/* a chain with a hook */
	bool is_theirs; /* a chain of istio-cni's, a rule in one, or a rule that jumps to one */
};

struct objects {
	struct object *items;
	size_t count;
	bool failed;
};

struct ruleset_look {
	enum migrate_place place;
	struct objects tables, chains, rules;
	bool has_sidecar;
};

static void look_clear(struct ruleset_look *look)
{
	free(look->tables.items);
	free(look->chains.items);
	free(look->rules.items);
	*look = (struct ruleset_look){ .place = look->place };
}

static void add(struct objects *objects, const struct object *object)
{
	struct object *grown =
		objects->count < OBJECTS_MAX ? realloc(objects->items, (objects->count + 1) * sizeof *grown) : NULL;
	if (!grown) {
		objects->failed = true;
		return;
	}
	objects->items = grown;
	grown[objects->count++] = *object;
}

static void copy_name(char to[64], const char *from)
{
	snprintf(to, 64, "%s", from ? from : "");
}

static int see_table(const struct nlmsghdr *header, void *data)
{
	struct ruleset_look *look = data;
	cleanup_nft_table struct nftnl_table *table = nft_read_table(header);
	if (!table)
		return MNL_CB_ERROR;
	struct object object = { .family = nftnl_table_get_u32(table, NFTNL_TABLE_FAMILY) };
	copy_name(object.table, nftnl_table_get_str(table, NFTNL_TABLE_NAME));
	object.is_theirs = is_ambient_table(object.table);
	if (object.is_theirs || is_iptables_table(object.family, object.table))
		add(&look->tables, &object);
	return MNL_CB_OK;
}

static int see_chain(const struct nlmsghdr *header, void *data)
{
	struct ruleset_look *look = data;
	cleanup_nft_chain struct nftnl_chain *chain = nft_read_chain(header);
	if (!chain)
		return MNL_CB_ERROR;
	struct object object = { .family = nftnl_chain_get_u32(chain, NFTNL_CHAIN_FAMILY),
				 .is_base = nftnl_chain_is_set(chain, NFTNL_CHAIN_HOOKNUM) };
	copy_name(object.table, nftnl_chain_get_str(chain, NFTNL_CHAIN_TABLE));
	copy_name(object.chain, nftnl_chain_get_str(chain, NFTNL_CHAIN_NAME));
	if (is_iptables_table(object.family, object.table)) {
		object.is_theirs = !object.is_base && migrate_is_ambient_chain(object.chain, look->place);
		look->has_sidecar |= migrate_is_sidecar_chain(object.chain);
		add(&look->chains, &object);
	}
	return MNL_CB_OK;
}

struct jump {
	enum migrate_place place;
	bool is_theirs;
};

static int see_expression(struct nftnl_expr *expression, void *data)
{
	struct jump *jump = data;
	const char *name = nftnl_expr_get_str(expression, NFTNL_EXPR_NAME);
	const char *chain = strcmp(name, "immediate") == 0 && nftnl_expr_is_set(expression, NFTNL_EXPR_IMM_CHAIN)
				    ? nftnl_expr_get_str(expression, NFTNL_EXPR_IMM_CHAIN)
				    : NULL;
	if (chain && migrate_is_ambient_chain(chain, jump->place))
		jump->is_theirs = true;
	return 0;
}

static int see_rule(const struct nlmsghdr *header, void *data)
{
	struct ruleset_look *look = data;
	bool is_whole;
	cleanup_nft_rule struct nftnl_rule *rule = nft_read_rule(header, &is_whole);
	if (!rule)
		return MNL_CB_ERROR;
	if (is_whole) {
		struct object object = { .family = nftnl_rule_get_u32(rule, NFTNL_RULE_FAMILY),
					 .handle = nftnl_rule_get_u64(rule, NFTNL_RULE_HANDLE) };
		copy_name(object.table, nftnl_rule_get_str(rule, NFTNL_RULE_TABLE));
		copy_name(object.chain, nftnl_rule_get_str(rule, NFTNL_RULE_CHAIN));
		if (is_iptables_table(object.family, object.table)) {
			struct jump jump = { .place = look->place };
			nftnl_expr_foreach(rule, see_expression, &jump);
			object.is_theirs = jump.is_theirs || migrate_is_ambient_chain(object.chain, look->place);
			add(&look->rules, &object);
		}
	}
	return MNL_CB_OK;
}

static void forget_tables(void *data)
{
	((struct ruleset_look *)data)->tables.count = 0;
}

static void forget_chains(void *data)
{
	((struct ruleset_look *)data)->chains.count = 0;
}

static void forget_rules(void *data)
{
	((struct ruleset_look *)data)->rules.count = 0;
}

static bool has_theirs(const struct objects *objects)
{
	for (size_t i = 0; i < objects->count; i++)
		if (objects->items[i].is_theirs)
			return true;
	return false;
}

/* Rules are read only where there is a chain of istio-cni's: a node's own tables can be long. */
static int look_at_ruleset(struct nft_socket *socket, struct error *error, struct ruleset_look *look, uint32_t *ret_generation)
{
	uint32_t generation = 0;
	if (nft_generation(socket, error, &generation) < 0)
		return -1;
	*ret_generation = generation;
	if (generation == GENERATION_UNTOUCHED)
		return 0;
	if (nft_dump(socket, NFT_MSG_GETTABLE, NFPROTO_UNSPEC, NULL, NULL, see_table, forget_tables, look, error) < 0)
		return -1;
	bool has_iptables = false;
	for (size_t i = 0; i < look->tables.count; i++)
		has_iptables |= !look->tables.items[i].is_theirs;
	if (has_iptables &&
	    nft_dump(socket, NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, NULL, NULL, see_chain, forget_chains, look, error) < 0)
		return -1;
	if (look->has_sidecar)
		look->chains.count = 0;
	if (has_theirs(&look->chains) &&
	    nft_dump(socket, NFT_MSG_GETRULE, NFPROTO_UNSPEC, NULL, NULL, see_rule, forget_rules, look, error) < 0)
		return -1;
	if (look->tables.failed || look->chains.failed || look->rules.failed)
		return error_set(error, ENOMEM, "cannot keep the ruleset");
	return 0;
}

static void delete_table(struct nft_batch *batch, const struct object *object)
{
	struct nftnl_table *table = nftnl_table_alloc();
	if (!table) {
		nft_batch_fail(batch, ENOMEM, "table");
		return;
	}
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, object->table);
	nft_batch_delete_table(batch, (uint16_t)object->family, table, object->table);
	nftnl_table_free(table);
}

static void delete_chain(struct nft_batch *batch, const struct object *object)
{
	struct nftnl_chain *chain = nftnl_chain_alloc();
	if (!chain) {
		nft_batch_fail(batch, ENOMEM, "chain");
		return;
	}
	nftnl_chain_set_str(chain, NFTNL_CHAIN_TABLE, object->table);
	nftnl_chain_set_str(chain, NFTNL_CHAIN_NAME, object->chain);
	nft_batch_delete_chain(batch, (uint16_t)object->family, chain, object->chain);
	nftnl_chain_free(chain);
}

static void delete_rule(struct nft_batch *batch, const struct object *object)
{
	struct nftnl_rule *rule = nftnl_rule_alloc();
	if (!rule) {
		nft_batch_fail(batch, ENOMEM, "rule");
		return;
	}
	nftnl_rule_set_str(rule, NFTNL_RULE_TABLE, object->table);
	nftnl_rule_set_str(rule, NFTNL_RULE_CHAIN, object->chain);
	nftnl_rule_set_u64(rule, NFTNL_RULE_HANDLE, object->handle);
	nft_batch_delete_rule(batch, (uint16_t)object->family, rule, object->chain);
	nftnl_rule_free(rule);
}

static bool is_in(const struct object *object, const struct object *table)
{
	return object->family == table->family && strcmp(object->table, table->table) == 0;
}

/* Nothing but istio-cni's, and the empty base chains that iptables-nft makes. The host's tables are everybody's. */
static bool is_theirs_alone(const struct ruleset_look *look, const struct object *table)
{
	bool has_theirs_in = false;
	if (look->place == MIGRATE_HOST)
		return false;
	for (size_t i = 0; i < look->chains.count; i++) {
		const struct object *chain = &look->chains.items[i];
		if (!is_in(chain, table))
			continue;
		if (!chain->is_base && !chain->is_theirs)
			return false;
		has_theirs_in |= chain->is_theirs;
	}
	for (size_t i = 0; i < look->rules.count; i++)
		if (is_in(&look->rules.items[i], table) && !look->rules.items[i].is_theirs)
			return false;
	return has_theirs_in;
}

static void fill(struct nft_batch *batch, const struct ruleset_look *look)
{
	for (size_t i = 0; i < look->tables.count; i++) {
		const struct object *table = &look->tables.items[i];
		if (table->is_theirs || is_theirs_alone(look, table)) {
			delete_table(batch, table);
			continue;
		}
		for (size_t j = 0; j < look->rules.count; j++)
			if (is_in(&look->rules.items[j], table) && look->rules.items[j].is_theirs)
				delete_rule(batch, &look->rules.items[j]);
		for (size_t j = 0; j < look->chains.count; j++)
			if (is_in(&look->chains.items[j], table) && look->chains.items[j].is_theirs)
				delete_chain(batch, &look->chains.items[j]);
	}
}

static int open_inside(int netns_fd, struct error *error, struct nft_socket **ret_socket)
{
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	if (netns_enter(netns_fd, error, &visit) < 0)
		return -1;
	return nft_socket_open(error, ret_socket);
}

static void cleanup_socketp(struct nft_socket **socket)
{
	nft_socket_close(*socket);
}

/* With `is_removing` the transaction is committed too. */
static int migrate_ruleset(int netns_fd, enum migrate_place place, bool is_removing, struct error *error,
			   struct migrate_found *found, struct nft_socket **ret_socket)
{
	__attribute__((cleanup(cleanup_socketp))) struct nft_socket *socket = NULL;
	if (open_inside(netns_fd, error, &socket) < 0)
		return -1;
	for (int attempt = 1;; attempt++) {
		__attribute__((cleanup(look_clear))) struct ruleset_look look = { .place = place };
		cleanup_nft_batch struct nft_batch *batch = NULL;
		struct error failure = { 0 };
		uint32_t generation = 0;
		if (look_at_ruleset(socket, error, &look, &generation) < 0)
			return -1;
		found->nftables = has_theirs(&look.tables);
		found->iptables = has_theirs(&look.chains);
		if (!is_removing || (!found->nftables && !found->iptables))
			return 0;
		if (nft_batch_new(socket, error, &batch) < 0)
			return -1;
		nft_batch_expect_generation(batch, generation);
		fill(batch, &look);
		if (nft_batch_commit(batch, &failure) == 0) {
			if (ret_socket)
				*ret_socket = steal_pointer(socket);
			return 0;
		}
		if (failure.number != ERESTART || attempt == COMMIT_ATTEMPTS) {
			error_set(error, 0, "%s", failure.message);
			return error_wrap(error, "cannot remove istio-cni's rules");
		}
	}
}

int migrate_detect(int netns_fd, enum migrate_place place, struct error *error, struct migrate_found *ret_found)
{
	struct migrate_found found = { 0 };
	if (migrate_ruleset(netns_fd, place, false, error, &found, NULL) < 0 ||
	    migrate_detect_legacy(netns_fd, place, error, &found) < 0)
		return -1;
	if (place == MIGRATE_HOST && migrate_ipsets(netns_fd, false, error, &found.ipsets) < 0)
		return -1;
	*ret_found = found;
	return 0;
}

int migrate_remove(int netns_fd, enum migrate_place place, struct error *error, struct migrate_found *ret_found,
		   struct nft_socket **ret_socket)
{
	__attribute__((cleanup(cleanup_socketp))) struct nft_socket *socket = NULL;
	struct migrate_found found = { 0 };
	if (migrate_ruleset(netns_fd, place, true, error, &found, &socket) < 0 ||
	    migrate_detect_legacy(netns_fd, place, error, &found) < 0)
		return -1;
	/* A legacy rule holds the set. */
	if (place == MIGRATE_HOST && !found.legacy && migrate_ipsets(netns_fd, true, error, &found.ipsets) < 0)
		return -1;
	*ret_found = found;
	if (ret_socket)
		*ret_socket = steal_pointer(socket);
	return 0;
}
