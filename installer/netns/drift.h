/* Hears when somebody changes what our redirection in a network namespace is made of: a commit of nftables, the policy rule,
 * routes of our table, lo. It tells that something changed, not what: the listener looks for itself. */
#ifndef AMBIENT_INSTALLER_NETNS_DRIFT_H
#define AMBIENT_INSTALLER_NETNS_DRIFT_H

#include <stdint.h>
#include <sys/types.h>

#include "ambient/error.h"

struct event_base;
struct drift_watch;

enum drift_kind {
	DRIFT_NFTABLES, /* a transaction was committed: any table */
	DRIFT_ROUTING,	/* rules that look up table 100, routes in it, lo's state and IPv6 addresses */
};

struct drift {
	enum drift_kind kind;
	/* The netlink port of the socket that made the change (nft_socket_port, nl_socket_get_local_port): by it a listener
	 * knows its own changes. 0: the kernel itself, or not known, since more happened than could be told (ENOBUFS). */
	uint32_t port;
	/* nftables only: who committed, as the kernel tells it (pid in the initial pid namespace); 0 and "" where unknown. */
	pid_t process;
	char process_name[16];
};

typedef void (*drift_changed)(void *data, const struct drift *drift);

/* `netns` is borrowed (-1: the caller's own). Neighbouring changes from one port are told once. `changed` may stop or free the
 * watch. Two descriptors and about 8 kB; they keep the namespace alive, so that the watch of a pod that is gone must be freed.
 */
int drift_watch_new(struct event_base *base, int netns, drift_changed changed, void *data, struct error *error,
		    struct drift_watch **ret_watch);

/* Nothing is told or heard any more; only freeing is left. NULL is fine. */
void drift_watch_stop(struct drift_watch *watch);

/* Closes the nftables descriptor, too. Right after something of nftables was destroyed in the namespace that waits for the
 * kernel (measured: 12 to 36 ms; 0.03 ms 60 ms later): who must not wait stops the watch, and frees it later. NULL is fine. */
void drift_watch_free(struct drift_watch *watch);

#endif
