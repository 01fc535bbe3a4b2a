/* Migration from istio-cni: its packet rules in a network namespace, a running pod's or the host's.
 *
 *   nftables  tables istio-ambient-nat, istio-ambient-mangle and istio-ambient-raw
 *   iptables  chains ISTIO_PRERT, ISTIO_OUTPUT (pod) and ISTIO_POSTRT (host) in the tables nat, mangle and raw of ip and ip6,
 *             which iptables-nft keeps as nftables tables of those names
 *   ipsets    istio-inpod-probes-v4 and -v6, on the host
 *   legacy    the same chains in x_tables, which no nftables transaction reaches: they are reported with the command to run
 *
 * A pod's order: apply our redirection first (both redirect to the same ports, and conntrack stays awake), then migrate_remove:
 * open connections, carried by the tunnel or not, go on. istio-cni's policy rule and route are the same as ours and stay. A pod
 * with a sidecar has chains of similar names; they are left alone. */
#ifndef AMBIENT_INSTALLER_HOST_MIGRATE_H
#define AMBIENT_INSTALLER_HOST_MIGRATE_H

#include <stdbool.h>

#include "ambient/error.h"

struct nft_socket;

enum migrate_place { MIGRATE_POD, MIGRATE_HOST };

struct migrate_found {
	bool nftables, iptables, ipsets; /* what migrate_remove takes away */
	bool legacy;			 /* and what it can't */
	char legacy_command[512]; /* to run as root on the node; PATH stands for the namespace's path where it is a pod's */
};

static inline bool migrate_found_any(const struct migrate_found *found)
{
	return found->nftables || found->iptables || found->ipsets;
}

/* `netns_fd` is borrowed; for the host it may be the thread's own namespace. Costs 0.1 ms where nothing is found. */
int migrate_detect(int netns_fd, enum migrate_place place, struct error *error, struct migrate_found *ret_found);

/* Takes away what detect finds: the rules in one transaction. Nothing there is no error. Where something was removed, closing
 * the socket that did it waits for the kernel (12 to 36 ms, nothing 60 ms later): with `ret_socket` it is handed over, for the
 * caller to close later (NULL where nothing was removed); with NULL it is closed here. */
int migrate_remove(int netns_fd, enum migrate_place place, struct error *error, struct migrate_found *ret_found,
		   struct nft_socket **ret_socket);

#endif
