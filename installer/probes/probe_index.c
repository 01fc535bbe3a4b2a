/* What should be in the probe sets and what is there. See probe_index.h. */
#include "installer/probes/probe_index.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"

struct probe_owner {
	char *uid;
	struct pod_address *addresses; /* what it claimed; another pod may have taken some */
	size_t addresses_count;
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

void probe_index_unsettle(struct probe_index *index, struct probe_entry *entry)
{
	if (entry->is_unsettled)
		return;
	entry->is_unsettled = true;
	LIST_INSERT_HEAD(&index->unsettled, entry, unsettled);
}

static void unsettle_entry(const void *node, VISIT visit, void *data)
{
	if (visit == postorder || visit == leaf)
		probe_index_unsettle(data, *(struct probe_entry *const *)node);
}

void probe_index_unsettle_all(struct probe_index *index)
{
	twalk_r(index->entries, unsettle_entry, index);
}

struct probe_entry *probe_index_find(const struct probe_index *index, const struct pod_address *address)
{
	const struct probe_entry key = { .address = *address };
	struct probe_entry **found = tfind(&key, &index->entries, compare_entries);
	return found ? *found : NULL;
}

struct probe_entry *probe_index_get(struct probe_index *index, const struct pod_address *address)
{
	struct probe_entry *entry = probe_index_find(index, address);
	if (entry)
		return entry;
	entry = calloc(1, sizeof *entry);
	if (!entry)
		return NULL;
	entry->address = *address;
	if (!tsearch(entry, &index->entries, compare_entries)) {
		free(entry);
		return NULL;
	}
	probe_index_unsettle(index, entry);
	return entry;
}

static struct probe_owner *find_owner(const struct probe_index *index, const char *uid)
{
	const struct probe_owner key = { .uid = (char *)uid };
	struct probe_owner **found = tfind(&key, &index->owners, compare_owners);
	return found ? *found : NULL;
}

static void free_owner(void *data)
{
	struct probe_owner *owner = data;
	free(owner->uid);
	free(owner->addresses);
	free(owner);
}

static struct probe_owner *get_owner(struct probe_index *index, const char *uid)
{
	struct probe_owner *owner = find_owner(index, uid);
	if (owner)
		return owner;
	owner = calloc(1, sizeof *owner);
	if (!owner || !(owner->uid = strdup(uid)) || !tsearch(owner, &index->owners, compare_owners)) {
		if (owner)
			free_owner(owner);
		return NULL;
	}
	return owner;
}

bool probe_index_wants(const struct probe_index *index, const struct probe_entry *entry)
{
	return entry->owner || (entry->is_adopted && !index->is_pruned);
}

static bool picks(const struct probe_index *index, enum probe_pick pick, const struct probe_entry *entry)
{
	bool is_wanted = probe_index_wants(index, entry);
	switch (pick) {
	case PROBE_PICK_ALL:
		break;
	case PROBE_PICK_WANTED:
		return is_wanted;
	case PROBE_PICK_MISSING:
		return is_wanted && !entry->in_kernel;
	case PROBE_PICK_UNWANTED:
		return !is_wanted && entry->in_kernel;
	}
	return true;
}

struct walk {
	const struct probe_index *index;
	enum probe_pick pick;
	struct probe_list list;
	bool failed;
};

static void pick_entry(struct walk *walk, struct probe_entry *entry)
{
	if (walk->failed || !picks(walk->index, walk->pick, entry))
		return;
	struct probe_entry **grown = reallocarray(walk->list.entries, walk->list.count + 1, sizeof *grown);
	if (!grown) {
		walk->failed = true;
		return;
	}
	walk->list.entries = grown;
	walk->list.entries[walk->list.count++] = entry;
}

static void pick_node(const void *node, VISIT visit, void *data)
{
	if (visit == postorder || visit == leaf)
		pick_entry(data, *(struct probe_entry *const *)node);
}

void probe_list_clear(struct probe_list *list)
{
	free(list->entries);
	*list = (struct probe_list){ 0 };
}

int probe_index_list(const struct probe_index *index, enum probe_pick pick, struct error *error, struct probe_list *ret_list)
{
	struct walk walk = { .index = index, .pick = pick };
	struct probe_entry *entry;
	if (pick == PROBE_PICK_MISSING || pick == PROBE_PICK_UNWANTED) {
		LIST_FOREACH(entry, &index->unsettled, unsettled)
		pick_entry(&walk, entry);
	} else {
		twalk_r(index->entries, pick_node, &walk);
	}
	if (walk.failed) {
		probe_list_clear(&walk.list);
		return error_set(error, ENOMEM, "cannot change the probe set");
	}
	*ret_list = walk.list;
	return 0;
}

void probe_index_settle(struct probe_index *index)
{
	struct probe_entry *next;
	for (struct probe_entry *entry = LIST_FIRST(&index->unsettled); entry; entry = next) {
		next = LIST_NEXT(entry, unsettled);
		bool is_wanted = probe_index_wants(index, entry);
		if (is_wanted != entry->in_kernel)
			continue;
		LIST_REMOVE(entry, unsettled);
		entry->is_unsettled = false;
		if (is_wanted || entry->loser)
			continue;
		tdelete(entry, &index->entries, compare_entries);
		free(entry);
	}
}

void probe_index_clear(struct probe_index *index)
{
	tdestroy(index->entries, free);
	tdestroy(index->owners, free_owner);
	*index = (struct probe_index){ 0 };
}

/* The owner's entry among those of an address, NULL: another pod has it. */
static const struct probe_entry *own_entry(const struct probe_index *index, const struct probe_owner *owner,
					   const struct pod_address *address)
{
	const struct probe_entry *entry = probe_index_find(index, address);
	return entry && entry->owner == owner ? entry : NULL;
}

static void give_up(struct probe_index *index, struct probe_entry *entry)
{
	probe_index_unsettle(index, entry);
	entry->owner = NULL;
	entry->is_adopted = false;
}

/* True: it was the owner's. */
static bool let_go(struct probe_index *index, const struct probe_owner *owner, const struct pod_address *address)
{
	struct probe_entry *entry = probe_index_find(index, address);
	if (entry && entry->loser == owner) {
		entry->loser = NULL;
		probe_index_unsettle(index, entry);
	}
	if (!entry || entry->owner != owner)
		return false;
	give_up(index, entry);
	return true;
}

bool probe_index_give_away(struct probe_index *index, const char *uid, const struct pod_address *address)
{
	struct probe_entry *entry = probe_index_find(index, address);
	if (!entry || (uid && probe_index_owns(index, uid, address)))
		return false;
	bool changes = probe_index_wants(index, entry);
	if (entry->owner)
		entry->loser = entry->owner;
	give_up(index, entry);
	return changes;
}

int probe_index_claim(struct probe_index *index, const char *uid, const struct pod_address *addresses, size_t count,
		      struct error *error, bool *ret_changes)
{
	if (count == 0) {
		*ret_changes = probe_index_release(index, uid);
		return 0;
	}
	/* Whatever needs memory first. An entry that nobody wants goes with the next flush. */
	cleanup_free struct pod_address *copy = calloc(count, sizeof *copy);
	bool failed = !copy;
	for (size_t i = 0; i < count && !failed; i++)
		failed = !probe_index_get(index, &addresses[i]);
	bool is_new = !find_owner(index, uid);
	struct probe_owner *owner = failed ? NULL : get_owner(index, uid);
	if (!owner)
		return error_set(error, ENOMEM, "cannot keep the addresses of pod %s", uid);
	memcpy(copy, addresses, count * sizeof *copy);

	bool changes = is_new;
	for (size_t i = 0; i < owner->addresses_count; i++)
		if (!pod_address_is_among(&owner->addresses[i], addresses, count))
			changes |= let_go(index, owner, &owner->addresses[i]);
	for (size_t i = 0; i < count; i++) {
		struct probe_entry *entry = probe_index_find(index, &addresses[i]);
		/* What another one has got since then is that one's, however often this pod is looked at until its end is
		 * known. */
		if (pod_address_is_among(&addresses[i], owner->addresses, owner->addresses_count) &&
		    (entry->loser || (entry->owner && entry->owner != owner)))
			continue;
		entry->loser = NULL;
		if (entry->owner == owner)
			continue;
		entry->owner = owner;
		probe_index_unsettle(index, entry);
		changes = true;
	}
	free(owner->addresses);
	owner->addresses = steal_pointer(copy);
	owner->addresses_count = count;
	*ret_changes = changes;
	return 0;
}

bool probe_index_release(struct probe_index *index, const char *uid)
{
	struct probe_owner *owner = find_owner(index, uid);
	if (!owner)
		return false;
	for (size_t i = 0; i < owner->addresses_count; i++)
		let_go(index, owner, &owner->addresses[i]);
	tdelete(owner, &index->owners, compare_owners);
	free_owner(owner);
	return true;
}

bool probe_index_owns(const struct probe_index *index, const char *uid, const struct pod_address *address)
{
	const struct probe_owner *owner = find_owner(index, uid);
	return owner && own_entry(index, owner, address);
}

const struct pod_address *probe_index_claimed(const struct probe_index *index, const char *uid, size_t *ret_count)
{
	const struct probe_owner *owner = find_owner(index, uid);
	*ret_count = owner ? owner->addresses_count : 0;
	return owner ? owner->addresses : NULL;
}

bool probe_index_holds(const struct probe_index *index, const char *uid)
{
	const struct probe_owner *owner = find_owner(index, uid);
	size_t held = 0;
	if (!owner)
		return false;
	for (size_t i = 0; i < owner->addresses_count; i++) {
		const struct probe_entry *entry = own_entry(index, owner, &owner->addresses[i]);
		if (entry && !entry->in_kernel)
			return false;
		held += entry != NULL;
	}
	return held > 0;
}

bool probe_index_is_in_kernel(const struct probe_index *index)
{
	const struct probe_entry *entry;
	LIST_FOREACH(entry, &index->unsettled, unsettled)
	{
		if (entry->owner && !entry->in_kernel)
			return false;
	}
	return true;
}
