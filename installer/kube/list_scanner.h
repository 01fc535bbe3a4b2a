/* A Kubernetes list that is read while it comes: each of its items is handed on as soon as it is complete, so that only one of
 * them is ever in memory. Here it is only found where an item begins and ends; what it says is read by cJSON, as is all that
 * stands around the items. */
#ifndef AMBIENT_INSTALLER_KUBE_LIST_SCANNER_H
#define AMBIENT_INSTALLER_KUBE_LIST_SCANNER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"

struct kube_list_scanner {
	/* Gets each item; borrowed. Returns false to stop: then the scanner may be gone already. */
	bool (*item)(void *data, const cJSON *item);
	void *data;
	size_t limit; /* bytes of an item, and of what stands around them */

	/* Zeroed at the start. */
	char *text; /* the item under way */
	size_t length, capacity;
	char *rest; /* the list without its items */
	size_t rest_length, rest_capacity;
	size_t depth;
	bool in_string, is_escaped, in_items, in_item;
	size_t key_begin, key_length; /* the latest string at depth 1, within the list's text */
};

/* -1: it can't be a list. 1: the item function has said to stop, nothing may be touched any more. */
int kube_list_scanner_take(struct kube_list_scanner *scanner, const char *bytes, size_t length, struct error *error);

/* At the end: the list with its items left out, owned by the caller. */
int kube_list_scanner_finish(struct kube_list_scanner *scanner, struct error *error, cJSON **ret_list);

void kube_list_scanner_clear(struct kube_list_scanner *scanner);

#endif
