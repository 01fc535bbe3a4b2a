/* See probe_set.h.
 *
 * Two indexes: entries by address, which know the pod that owns them and whether the kernel has them, and owners by uid, which
 * know the addresses that they claimed. What should be in the kernel and is not, or the other way round, is the next
 * transaction. It is valid only for the generation of the ruleset in which that knowledge was true: when anybody committed
 * meanwhile, the kernel refuses at once, we look again, and nothing is sent that would fail.
 *
 * Somebody who commits something elsewhere costs a look at our table, at most every 20 ms. Somebody who changes our table each
 * time we put it right is met more and more slowly, up to once a second. */
#include "installer/mesh/probe_set.h"

#include <errno.h>
#include <event2/event.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "installer/mesh/drift.h"
#include "installer/mesh/probe_rules.h"

#define COMMIT_ATTEMPTS 32
#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 1000
#define CALM_MS 5000 /* so long without a repair and the pause is short again */

struct probe_owner {
	char *uid;
	struct pod_address *addresses; /* what it claimed; another pod may have taken some */
	size_t addresses_count;
};

struct probe_entry {
	struct pod_address address;
	struct probe_owner *owner; /* NULL: nobody's */
	bool is_adopted;	   /* found in the kernel at start, or before the first list was complete */
	bool in_kernel;
	bool is_seen; /* by the look that runs */
};

struct probe_set {
	struct event_base *base;
	struct nft_socket *socket;
	struct drift_watch *watch;
	struct event *timer; /* the next flush, or look */
	int64_t due_at;
	struct probe_addresses addresses;
	struct probe_set_events events;
	struct probe_set_counters counters;
	void *entries, *owners; /* trees of tsearch(3) */

	bool is_known; /* what the entries say of the kernel was true at `generation` */
	uint32_t generation;
	bool has_table, rules_stand;
	bool is_pruned;
	char difference[320]; /* found by a look and not repaired yet */

	long pause_ms;			/* between two looks, or two attempts */
	int64_t looked_at, repaired_at; /* milliseconds, monotonic */
};

static int compare_addresses(const struct pod_address *a, const struct pod_address *b)
{
	if (a->family != b->family)
		return a->family < b->family ? -1 : 1;
	return memcmp(&a->ipv6, &b->ipv6, a->family == AF_INET6 ? sizeof a->ipv6 : sizeof a->ipv4);
}

static int compare_entries(const void *a, const void *b)
{
	return compare_addresses(&((const struct probe_entry *)a)->address, &((const struct probe_entry *)b)->address);
}

static int compare_owners(const void *a, const void *b)
{
	return strcmp(((const struct probe_owner *)a)->uid, ((const struct probe_owner *)b)->uid);
}

static struct probe_entry *find_entry(const struct probe_set *set, const struct pod_address *address)
{
	const struct probe_entry key = { .address = *address };
	struct probe_entry **found = tfind(&key, &set->entries, compare_entries);
	return found ? *found : NULL;
}

/* The address's entry, a new one where there is none; NULL: no memory. */
static struct probe_entry *get_entry(struct probe_set *set, const struct pod_address *address)
{
	struct probe_entry *entry = find_entry(set, address);
	if (entry)
		return entry;
	entry = calloc(1, sizeof *entry);
	if (!entry)
		return NULL;
	entry->address = *address;
	if (!tsearch(entry, &set->entries, compare_entries)) {
		free(entry);
		return NULL;
	}
	return entry;
}

static struct probe_owner *find_owner(const struct probe_set *set, const char *uid)
{
	const struct probe_owner key = { .uid = (char *)uid };
	struct probe_owner **found = tfind(&key, &set->owners, compare_owners);
	return found ? *found : NULL;
}

static void free_owner(void *data)
{
	struct probe_owner *owner = data;
	free(owner->uid);
	free(owner->addresses);
	free(owner);
}

static struct probe_owner *get_owner(struct probe_set *set, const char *uid)
{
	struct probe_owner *owner = find_owner(set, uid);
	if (owner)
		return owner;
	owner = calloc(1, sizeof *owner);
	if (!owner || !(owner->uid = strdup(uid)) || !tsearch(owner, &set->owners, compare_owners)) {
		if (owner)
			free_owner(owner);
		return NULL;
	}
	return owner;
}

static bool is_wanted(const struct probe_set *set, const struct probe_entry *entry)
{
	return entry->owner || (entry->is_adopted && !set->is_pruned);
}

/* A list that a walk fills. */
struct entry_list {
	struct probe_set *set;
	bool (*picks)(const struct probe_set *set, const struct probe_entry *entry);
	struct probe_entry **entries;
	size_t count;
	bool failed;
};

static void pick_entry(const void *node, VISIT visit, void *data)
{
	struct entry_list *list = data;
	struct probe_entry *entry = *(struct probe_entry *const *)node;
	if ((visit != postorder && visit != leaf) || list->failed || !list->picks(list->set, entry))
		return;
	struct probe_entry **grown = reallocarray(list->entries, list->count + 1, sizeof *grown);
	if (!grown) {
		list->failed = true;
		return;
	}
	list->entries = grown;
	list->entries[list->count++] = entry;
}

static void cleanup_entry_listp(struct entry_list *list)
{
	free(list->entries);
}
#define cleanup_entry_list __attribute__((cleanup(cleanup_entry_listp)))

/* The entries that `picks` picks, in the order of their addresses. */
static int list_entries(struct probe_set *set, bool (*picks)(const struct probe_set *, const struct probe_entry *),
			struct error *error, struct entry_list *ret_list)
{
	struct entry_list list = { .set = set, .picks = picks };
	twalk_r(set->entries, pick_entry, &list);
	if (list.failed) {
		free(list.entries);
		return error_set(error, ENOMEM, "cannot change the probe set");
	}
	*ret_list = list;
	return 0;
}

static bool picks_any(const struct probe_set *set __attribute__((unused)),
		      const struct probe_entry *entry __attribute__((unused)))
{
	return true;
}

static bool picks_missing(const struct probe_set *set, const struct probe_entry *entry)
{
	return is_wanted(set, entry) && !entry->in_kernel;
}

static bool picks_wanted(const struct probe_set *set, const struct probe_entry *entry)
{
	return is_wanted(set, entry);
}

static bool picks_unwanted(const struct probe_set *set, const struct probe_entry *entry)
{
	return !is_wanted(set, entry) && entry->in_kernel;
}

static bool picks_dead(const struct probe_set *set, const struct probe_entry *entry)
{
	return !is_wanted(set, entry) && !entry->in_kernel;
}

static void free_dead_entries(struct probe_set *set)
{
	cleanup_entry_list struct entry_list dead = { 0 };
	if (list_entries(set, picks_dead, NULL, &dead) < 0)
		return; /* the next time, then */
	for (size_t i = 0; i < dead.count; i++) {
		tdelete(dead.entries[i], &set->entries, compare_entries);
		free(dead.entries[i]);
	}
}

static void say_difference(struct probe_set *set, const char *format, const struct pod_address *address)
{
	char text[POD_ADDRESS_TEXT_MAX];
	if (set->difference[0] == '\0')
		snprintf(set->difference, sizeof set->difference, format, probe_rules_set_name(address->family),
			 pod_address_print(address, text));
}

/* Looks at the kernel and notes in the entries what it has. What is not as we knew it becomes `difference`. */
static int look(struct probe_set *set, struct error *error)
{
	cleanup_probe_standing struct probe_standing standing = { 0 };
	cleanup_entry_list struct entry_list all = { 0 };
	set->looked_at = clock_milliseconds();
	if (probe_rules_look(set->socket, &set->addresses, error, &standing) < 0)
		return -1;
	for (size_t i = 0; i < standing.elements_count; i++)
		if (!get_entry(set, &standing.elements[i]))
			return error_set(error, ENOMEM, "cannot read the probe set");
	if (list_entries(set, picks_any, error, &all) < 0)
		return -1;
	for (size_t i = 0; i < standing.elements_count; i++)
		find_entry(set, &standing.elements[i])->is_seen = true;

	if (set->difference[0] == '\0')
		snprintf(set->difference, sizeof set->difference, "%s", standing.difference);
	for (size_t i = 0; i < all.count; i++) {
		struct probe_entry *entry = all.entries[i];
		if (entry->in_kernel && !entry->is_seen && is_wanted(set, entry))
			say_difference(set, "set %s lacks %s", &entry->address);
		if (!entry->in_kernel && entry->is_seen && !entry->owner && set->is_pruned)
			say_difference(set, "set %s has %s, which is no pod's", &entry->address);
		if (!entry->in_kernel && entry->is_seen && !set->is_pruned)
			entry->is_adopted = true;
		entry->in_kernel = entry->is_seen;
		entry->is_seen = false;
	}
	set->has_table = standing.has_table;
	set->rules_stand = standing.difference[0] == '\0';
	set->generation = standing.generation;
	set->is_known = true;
	return 0;
}

static int batch_entries(struct nft_batch *batch, const struct entry_list *list, bool is_delete, struct error *error)
{
	if (list->count == 0)
		return 0;
	cleanup_free struct pod_address *addresses = calloc(list->count, sizeof *addresses);
	if (!addresses)
		return error_set(error, ENOMEM, "cannot change the probe set");
	for (size_t i = 0; i < list->count; i++)
		addresses[i] = list->entries[i]->address;
	probe_rules_batch_elements(batch, addresses, list->count, is_delete);
	return 0;
}

/* One attempt. 1: done (or nothing to do), 0: the ruleset was another one, -1: failed. */
static int commit(struct probe_set *set, struct error *error)
{
	cleanup_entry_list struct entry_list added = { 0 }, deleted = { 0 };
	cleanup_nft_batch struct nft_batch *batch = NULL;
	struct error failure = { 0 };

	/* A table that is written anew has all elements in it. */
	if (list_entries(set, set->rules_stand ? picks_missing : picks_wanted, error, &added) < 0 ||
	    list_entries(set, picks_unwanted, error, &deleted) < 0)
		return -1;
	if (set->rules_stand && added.count == 0 && deleted.count == 0)
		return 1;
	if (nft_batch_new(set->socket, error, &batch) < 0)
		return -1;
	nft_batch_expect_generation(batch, set->generation);
	if (!set->rules_stand)
		probe_rules_batch_table(batch, &set->addresses, set->has_table);
	else if (batch_entries(batch, &deleted, true, error) < 0)
		return -1;
	if (batch_entries(batch, &added, false, error) < 0)
		return -1;
	if (nft_batch_commit(batch, &failure) < 0) {
		set->is_known = false;
		if (failure.number == ERESTART)
			return 0;
		if (error && !error_is_set(error))
			*error = failure;
		return -1;
	}
	set->counters.transactions++;
	for (size_t i = 0; i < added.count; i++)
		added.entries[i]->in_kernel = true;
	for (size_t i = 0; i < deleted.count; i++)
		deleted.entries[i]->in_kernel = false;
	set->has_table = set->rules_stand = true;
	/* The kernel passes over 0 when it counts on. If somebody committed right after us, the next transaction finds out. */
	set->generation = set->generation + 1 ? set->generation + 1 : 1;
	return 1;
}

/* Makes the kernel what it should be. A difference that others made and that is now gone is told, unless `ret_difference` takes
 * it. */
static int synchronise(struct probe_set *set, struct error *error, char *ret_difference, size_t size)
{
	int done = 0;
	for (int attempt = 0; done == 0; attempt++) {
		if (attempt == COMMIT_ATTEMPTS)
			return error_say(error, ERESTART,
					 "cannot set up probes on the host: the nftables ruleset changes all the time");
		done = set->is_known || look(set, error) == 0 ? commit(set, error) : -1;
	}
	if (done < 0)
		return error_wrap(error, "cannot set up probes on the host");
	free_dead_entries(set);

	char difference[sizeof set->difference];
	snprintf(difference, sizeof difference, "%s", set->difference);
	set->difference[0] = '\0';
	if (difference[0] != '\0') {
		int64_t now = clock_milliseconds();
		bool is_fight = set->counters.repairs > 0 && now - set->repaired_at < CALM_MS;
		set->pause_ms = is_fight ? set->pause_ms * 2 : PAUSE_MIN_MS;
		if (set->pause_ms > PAUSE_MAX_MS)
			set->pause_ms = PAUSE_MAX_MS;
		set->repaired_at = now;
		set->counters.repairs++;
	}
	if (ret_difference)
		snprintf(ret_difference, size, "%s", difference);
	if (difference[0] != '\0' && set->events.repaired)
		set->events.repaired(set->events.data, difference);
	return 0;
}

/* Lets the loop synchronise in so many milliseconds, or earlier where that was said before. */
static void schedule(struct probe_set *set, int64_t milliseconds)
{
	int64_t due_at = clock_milliseconds() + milliseconds;
	if (event_pending(set->timer, EV_TIMEOUT, NULL) && set->due_at <= due_at)
		return;
	struct timeval after = clock_span(milliseconds);
	set->due_at = due_at;
	event_add(set->timer, &after);
}

static void run_timer(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)), void *data)
{
	struct probe_set *set = data;
	struct error error = { 0 };
	if (synchronise(set, &error, NULL, 0) < 0) {
		set->counters.failures++;
		schedule(set, set->pause_ms);
		set->pause_ms = set->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : set->pause_ms * 2;
		if (set->events.failed)
			set->events.failed(set->events.data, &error);
		return;
	}
	if (clock_milliseconds() - set->repaired_at >= CALM_MS)
		set->pause_ms = PAUSE_MIN_MS;
	if (set->events.flushed)
		set->events.flushed(set->events.data);
}

static void changed(void *data, const struct drift *drift)
{
	struct probe_set *set = data;
	if (drift->kind != DRIFT_NFTABLES || drift->port == nft_socket_port(set->socket))
		return;
	set->is_known = false;
	schedule(set, set->looked_at + set->pause_ms - clock_milliseconds());
}

int probe_set_open(struct event_base *base, int netns, struct in_addr probe_ipv4, struct in6_addr probe_ipv6,
		   const struct probe_set_events *events, struct error *error, struct probe_set **ret_set)
{
	struct probe_set *set = calloc(1, sizeof *set);
	if (!set)
		return error_set(error, ENOMEM, "cannot set up probes on the host");
	set->base = base;
	set->addresses = (struct probe_addresses){ .ipv4 = probe_ipv4, .ipv6 = probe_ipv6 };
	set->pause_ms = PAUSE_MIN_MS;
	set->timer = event_new(base, -1, 0, run_timer, set);
	if (!set->timer) {
		probe_set_close(set);
		return error_set(error, ENOMEM, "cannot set up probes on the host");
	}
	{
		cleanup_netns_leave struct netns_visit visit = { .home = -1 };
		if ((netns >= 0 && netns_enter(netns, error, &visit) < 0) || nft_socket_open(error, &set->socket) < 0 ||
		    drift_watch_new(base, -1, changed, set, error, &set->watch) < 0) {
			netns_leave(&visit);
			probe_set_close(set);
			return error_wrap(error, "cannot set up probes on the host");
		}
	}
	/* What stands is adopted; what is missing is nobody's repair. */
	if (look(set, error) < 0) {
		probe_set_close(set);
		return error_wrap(error, "cannot set up probes on the host");
	}
	set->difference[0] = '\0';
	if (synchronise(set, error, NULL, 0) < 0) {
		probe_set_close(set);
		return -1;
	}
	if (events)
		set->events = *events;
	*ret_set = set;
	return 0;
}

void probe_set_close(struct probe_set *set)
{
	if (!set)
		return;
	drift_watch_free(set->watch);
	if (set->timer)
		event_free(set->timer);
	nft_socket_close(set->socket);
	tdestroy(set->entries, free);
	tdestroy(set->owners, free_owner);
	free(set);
}

static bool claims(const struct pod_address *addresses, size_t count, const struct pod_address *address)
{
	for (size_t i = 0; i < count; i++)
		if (compare_addresses(&addresses[i], address) == 0)
			return true;
	return false;
}

/* The owner's entry among those of an address, NULL: another pod has it. */
static struct probe_entry *own_entry(const struct probe_set *set, const struct probe_owner *owner,
				     const struct pod_address *address)
{
	struct probe_entry *entry = find_entry(set, address);
	return entry && entry->owner == owner ? entry : NULL;
}

static void give_up(struct probe_entry *entry)
{
	entry->owner = NULL;
	entry->is_adopted = false;
}

int probe_set_put(struct probe_set *set, const char *uid, const struct pod_address *addresses, size_t count,
		  struct error *error)
{
	if (count == 0) {
		probe_set_remove(set, uid);
		return 0;
	}
	/* Whatever needs memory first. An entry that nobody wants goes with the next flush. */
	cleanup_free struct pod_address *copy = calloc(count, sizeof *copy);
	bool failed = !copy;
	for (size_t i = 0; i < count && !failed; i++)
		failed = !get_entry(set, &addresses[i]);
	bool is_new = !find_owner(set, uid);
	struct probe_owner *owner = failed ? NULL : get_owner(set, uid);
	if (!owner)
		return error_set(error, ENOMEM, "cannot keep the addresses of pod %s", uid);
	memcpy(copy, addresses, count * sizeof *copy);

	bool changes = is_new;
	for (size_t i = 0; i < owner->addresses_count; i++) {
		struct probe_entry *entry = own_entry(set, owner, &owner->addresses[i]);
		if (entry && !claims(addresses, count, &entry->address)) {
			give_up(entry);
			changes = true;
		}
	}
	for (size_t i = 0; i < count; i++) {
		struct probe_entry *entry = find_entry(set, &addresses[i]);
		changes |= entry->owner != owner;
		entry->owner = owner;
	}
	free(owner->addresses);
	owner->addresses = steal_pointer(copy);
	owner->addresses_count = count;
	if (changes)
		schedule(set, 0);
	return 0;
}

void probe_set_remove(struct probe_set *set, const char *uid)
{
	struct probe_owner *owner = find_owner(set, uid);
	if (!owner)
		return;
	for (size_t i = 0; i < owner->addresses_count; i++) {
		struct probe_entry *entry = own_entry(set, owner, &owner->addresses[i]);
		if (entry)
			give_up(entry);
	}
	tdelete(owner, &set->owners, compare_owners);
	free_owner(owner);
	schedule(set, 0);
}

int probe_set_flush(struct probe_set *set, struct error *error)
{
	if (synchronise(set, error, NULL, 0) < 0) {
		set->counters.failures++;
		schedule(set, set->pause_ms);
		return -1;
	}
	return 0;
}

bool probe_set_holds(const struct probe_set *set, const char *uid)
{
	const struct probe_owner *owner = find_owner(set, uid);
	size_t held = 0;
	if (!owner || !set->rules_stand)
		return false;
	for (size_t i = 0; i < owner->addresses_count; i++) {
		const struct probe_entry *entry = own_entry(set, owner, &owner->addresses[i]);
		if (entry && !entry->in_kernel)
			return false;
		held += entry != NULL;
	}
	return held > 0;
}

static void look_for_missing(const void *node, VISIT visit, void *data)
{
	const struct probe_entry *entry = *(struct probe_entry *const *)node;
	if ((visit == postorder || visit == leaf) && entry->owner && !entry->in_kernel)
		*(bool *)data = true;
}

bool probe_set_stands(const struct probe_set *set)
{
	bool is_missing = false;
	twalk_r(set->entries, look_for_missing, &is_missing);
	return set->rules_stand && !is_missing;
}

int probe_set_prune(struct probe_set *set, struct error *error)
{
	set->is_pruned = true;
	return probe_set_flush(set, error);
}

int probe_set_verify(struct probe_set *set, struct error *error, char *ret_difference, size_t size)
{
	set->is_known = false;
	return synchronise(set, error, ret_difference, size);
}

void probe_set_read_counters(const struct probe_set *set, struct probe_set_counters *ret_counters)
{
	*ret_counters = set->counters;
}

int probe_set_uninstall(int netns, struct error *error)
{
	static const struct probe_addresses none;
	struct nft_socket *socket = NULL;
	struct error failure = { 0 };
	int result = -1;
	{
		cleanup_netns_leave struct netns_visit visit = { .home = -1 };
		if ((netns >= 0 && netns_enter(netns, error, &visit) < 0) || nft_socket_open(error, &socket) < 0)
			return error_wrap(error, "cannot remove the probes' table from the host");
	}
	for (int attempt = 0; attempt < COMMIT_ATTEMPTS && result < 0; attempt++) {
		cleanup_probe_standing struct probe_standing standing = { 0 };
		cleanup_nft_batch struct nft_batch *batch = NULL;
		failure = (struct error){ 0 };
		if (probe_rules_look(socket, &none, &failure, &standing) < 0)
			break;
		if (!standing.has_table) {
			result = 0;
			break;
		}
		if (nft_batch_new(socket, &failure, &batch) < 0)
			break;
		nft_batch_expect_generation(batch, standing.generation);
		probe_rules_batch_delete_table(batch);
		result = nft_batch_commit(batch, &failure);
		if (result < 0 && failure.number != ERESTART)
			break;
	}
	nft_socket_close(socket);
	if (result < 0) {
		if (error && !error_is_set(error))
			*error = failure;
		return error_wrap(error, "cannot remove the probes' table from the host");
	}
	return 0;
}
