/* What should be in the probe sets and what is there: addresses, and the pods that own them. Nothing here asks the kernel.
 *
 * Two trees: entries by address, which know the pod that owns them and whether the kernel has them, and owners by uid, which
 * know the addresses that they claimed. And a list of the entries that may be otherwise in the kernel than they should be: what
 * a change costs does not grow with the node's pods. */
#ifndef AMBIENT_INSTALLER_PROBES_PROBE_INDEX_H
#define AMBIENT_INSTALLER_PROBES_PROBE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "ambient/error.h"
#include "installer/object.h"

struct probe_entry {
	struct pod_address address;
	const struct probe_owner *owner; /* NULL: nobody's */
	const struct probe_owner *loser; /* whose it was before a pod outside got it */
	bool is_adopted;		 /* found in the kernel at start, or before the first list was complete */
	bool in_kernel;
	bool is_seen; /* by the look that runs */
	bool is_unsettled;
	LIST_ENTRY(probe_entry) unsettled;
};
LIST_HEAD(probe_entries, probe_entry);

/* Zeroed: empty. */
struct probe_index {
	void *entries, *owners; /* trees of tsearch(3) */
	struct probe_entries unsettled;
	bool is_pruned; /* what is adopted and nobody's is wanted no more */
};
void probe_index_clear(struct probe_index *index);

struct probe_entry *probe_index_find(const struct probe_index *index, const struct pod_address *address);
/* A new one where there is none; NULL: no memory. */
struct probe_entry *probe_index_get(struct probe_index *index, const struct pod_address *address);
/* Whether it should be in the kernel. */
bool probe_index_wants(const struct probe_index *index, const struct probe_entry *entry);

enum probe_pick {
	PROBE_PICK_ALL,
	PROBE_PICK_WANTED,
	PROBE_PICK_MISSING,  /* wanted, and not in the kernel */
	PROBE_PICK_UNWANTED, /* in the kernel, and not wanted */
};

/* Entries of the index, borrowed. */
struct probe_list {
	struct probe_entry **entries;
	size_t count;
};
void probe_list_clear(struct probe_list *list);
#define cleanup_probe_list __attribute__((cleanup(probe_list_clear)))

int probe_index_list(const struct probe_index *index, enum probe_pick pick, struct error *error, struct probe_list *ret_list);

/* Whoever changes what an entry says, or what is wanted of all, says so. */
void probe_index_unsettle(struct probe_index *index, struct probe_entry *entry);
void probe_index_unsettle_all(struct probe_index *index);
/* Lets go of those that are in the kernel as they should be, and drops those that are neither there nor wanted. */
void probe_index_settle(struct probe_index *index);

/* As probe_set_put and probe_set_remove; true in `ret_changes`: something is another pod's or nobody's now. */
int probe_index_claim(struct probe_index *index, const char *uid, const struct pod_address *addresses, size_t count,
		      struct error *error, bool *ret_changes);
bool probe_index_release(struct probe_index *index, const char *uid); /* false: it had none */
/* As probe_set_give_away. */
bool probe_index_give_away(struct probe_index *index, const char *uid, const struct pod_address *address);

/* Whether the address is this pod's. */
bool probe_index_owns(const struct probe_index *index, const char *uid, const struct pod_address *address);
/* What the pod claims, though another one may have got it; borrowed until the next change. */
const struct pod_address *probe_index_claimed(const struct probe_index *index, const char *uid, size_t *ret_count);
/* Whether the pod owns addresses, and all of them are in the kernel. */
bool probe_index_holds(const struct probe_index *index, const char *uid);
/* Whether the addresses of all pods are. */
bool probe_index_is_in_kernel(const struct probe_index *index);

#endif
