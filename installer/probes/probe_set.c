/* See probe_set.h.
 *
 * What should be in the kernel and is not, or the other way round (probe_index.h), is the next transaction. It is valid only
 * for the generation of the ruleset in which that knowledge was true: when anybody committed meanwhile, the kernel refuses at
 * once, we look again, and nothing is sent that would fail.
 *
 * Somebody who commits something elsewhere costs a look at our table, at most every 20 ms. Somebody who changes our table each
 * time we put it right is met more and more slowly, up to once a second. */
#include "installer/probes/probe_set.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "installer/netns/drift.h"
#include "installer/probes/probe_index.h"
#include "installer/probes/probe_rules.h"

#define COMMIT_ATTEMPTS 32
#define PAUSE_MIN_MS 20
#define PAUSE_MAX_MS 1000
#define CALM_MS 5000 /* so long without a repair and the pause is short again */

struct probe_set {
	struct event_base *base;
	struct nft_socket *socket;
	struct drift_watch *watch;
	struct event *timer; /* the next flush, or look */
	int64_t due_at;
	struct probe_addresses addresses;
	struct probe_set_events events;
	struct probe_set_counters counters;
	struct probe_index index;

	bool is_known; /* what the entries say of the kernel was true at `generation` */
	uint32_t generation;
	bool has_table, rules_stand;
	char difference[320]; /* found by a look and not repaired yet */

	long pause_ms;			/* between two looks, or two attempts */
	int64_t looked_at, repaired_at; /* milliseconds, monotonic */
};

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
	cleanup_probe_list struct probe_list all = { 0 };
	set->looked_at = clock_milliseconds();
	if (probe_rules_look(set->socket, &set->addresses, error, &standing) < 0)
		return -1;
	for (size_t i = 0; i < standing.elements_count; i++)
		if (!probe_index_get(&set->index, &standing.elements[i]))
			return error_set(error, ENOMEM, "cannot read the probe set");
	if (probe_index_list(&set->index, PROBE_PICK_ALL, error, &all) < 0)
		return -1;
	for (size_t i = 0; i < standing.elements_count; i++)
		probe_index_find(&set->index, &standing.elements[i])->is_seen = true;

	if (set->difference[0] == '\0')
		snprintf(set->difference, sizeof set->difference, "%s", standing.difference);
	for (size_t i = 0; i < all.count; i++) {
		struct probe_entry *entry = all.entries[i];
		if (entry->in_kernel && !entry->is_seen && probe_index_wants(&set->index, entry))
			say_difference(set, "set %s lacks %s", &entry->address);
		if (!entry->in_kernel && entry->is_seen && !entry->owner && set->index.is_pruned)
			say_difference(set, "set %s has %s, which is no pod's", &entry->address);
		if (!entry->in_kernel && entry->is_seen && !set->index.is_pruned)
			entry->is_adopted = true;
		entry->in_kernel = entry->is_seen;
		entry->is_seen = false;
		probe_index_unsettle(&set->index, entry);
	}
	set->has_table = standing.has_table;
	set->rules_stand = standing.difference[0] == '\0';
	set->generation = standing.generation;
	set->is_known = true;
	return 0;
}

static int batch_entries(struct nft_batch *batch, const struct probe_list *list, bool is_delete, struct error *error)
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

/* 1: done, 0: the ruleset was another one, -1: failed. */
static int try_batch(struct nft_batch *batch, struct error *error)
{
	struct error failure = { 0 };
	if (nft_batch_commit(batch, &failure) == 0)
		return 1;
	return failure.number == ERESTART ? 0 : error_copy(error, &failure);
}

/* One attempt, as try_batch; nothing to do is done. */
static int commit(struct probe_set *set, struct error *error)
{
	cleanup_probe_list struct probe_list added = { 0 }, deleted = { 0 };
	cleanup_nft_batch struct nft_batch *batch = NULL;

	/* A table that is written anew has all elements in it. */
	if (probe_index_list(&set->index, set->rules_stand ? PROBE_PICK_MISSING : PROBE_PICK_WANTED, error, &added) < 0 ||
	    probe_index_list(&set->index, PROBE_PICK_UNWANTED, error, &deleted) < 0)
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
	int done = try_batch(batch, error);
	if (done <= 0) {
		set->is_known = false;
		return done;
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

static int changes_all_the_time(struct error *error)
{
	return error_say(error, ERESTART, "the nftables ruleset changes all the time");
}

static void slow_down(struct probe_set *set)
{
	set->pause_ms = set->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : set->pause_ms * 2;
}

/* Makes the kernel what it should be. A difference that others made and that is now gone is told, unless `ret_difference` takes
 * it. */
static int synchronise(struct probe_set *set, struct error *error, char *ret_difference, size_t size)
{
	int done = 0;
	for (int attempt = 0; done == 0 && attempt < COMMIT_ATTEMPTS; attempt++)
		done = set->is_known || look(set, error) == 0 ? commit(set, error) : -1;
	if (done == 0)
		done = changes_all_the_time(error);
	if (done < 0)
		return error_wrap(error, "cannot set up probes on the host");
	probe_index_settle(&set->index);

	char difference[sizeof set->difference];
	snprintf(difference, sizeof difference, "%s", set->difference);
	set->difference[0] = '\0';
	if (difference[0] != '\0') {
		int64_t now = clock_milliseconds();
		bool is_fight = set->counters.repairs > 0 && now - set->repaired_at < CALM_MS;
		if (is_fight)
			slow_down(set);
		else
			set->pause_ms = PAUSE_MIN_MS;
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
		slow_down(set);
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
	probe_index_clear(&set->index);
	free(set);
}

int probe_set_put(struct probe_set *set, const char *uid, const struct pod_address *addresses, size_t count,
		  struct error *error)
{
	bool changes = false;
	if (probe_index_claim(&set->index, uid, addresses, count, error, &changes) < 0)
		return -1;
	if (changes)
		schedule(set, 0);
	return 0;
}

void probe_set_remove(struct probe_set *set, const char *uid)
{
	if (probe_index_release(&set->index, uid))
		schedule(set, 0);
}

bool probe_set_give_away(struct probe_set *set, const char *uid, const struct pod_address *address)
{
	if (!probe_index_give_away(&set->index, uid, address))
		return false;
	schedule(set, 0);
	return true;
}

bool probe_set_owns(const struct probe_set *set, const char *uid, const struct pod_address *address)
{
	return probe_index_owns(&set->index, uid, address);
}

const struct pod_address *probe_set_claimed(const struct probe_set *set, const char *uid, size_t *ret_count)
{
	return probe_index_claimed(&set->index, uid, ret_count);
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
	return set->rules_stand && probe_index_holds(&set->index, uid);
}

bool probe_set_stands(const struct probe_set *set)
{
	return set->rules_stand && probe_index_is_in_kernel(&set->index);
}

int probe_set_prune(struct probe_set *set, struct error *error)
{
	set->index.is_pruned = true;
	probe_index_unsettle_all(&set->index);
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

/* One attempt, as try_batch. */
static int delete_table(struct nft_socket *socket, struct error *error)
{
	static const struct probe_addresses none;
	cleanup_probe_standing struct probe_standing standing = { 0 };
	cleanup_nft_batch struct nft_batch *batch = NULL;
	if (probe_rules_look(socket, &none, error, &standing) < 0)
		return -1;
	if (!standing.has_table)
		return 1;
	if (nft_batch_new(socket, error, &batch) < 0)
		return -1;
	nft_batch_expect_generation(batch, standing.generation);
	probe_rules_batch_delete_table(batch);
	return try_batch(batch, error);
}

int probe_set_uninstall(int netns, struct error *error)
{
	struct nft_socket *socket = NULL;
	int done = 0;
	{
		cleanup_netns_leave struct netns_visit visit = { .home = -1 };
		if ((netns >= 0 && netns_enter(netns, error, &visit) < 0) || nft_socket_open(error, &socket) < 0)
			return error_wrap(error, "cannot remove the probes' table from the host");
	}
	for (int attempt = 0; done == 0 && attempt < COMMIT_ATTEMPTS; attempt++)
		done = delete_table(socket, error);
	if (done == 0)
		done = changes_all_the_time(error);
	nft_socket_close(socket);
	return done < 0 ? error_wrap(error, "cannot remove the probes' table from the host") : 0;
}
