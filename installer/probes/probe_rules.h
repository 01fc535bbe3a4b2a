/* The host's table for probes, as nftables objects: what it should be, and what stands in the kernel.
 *
 *     table inet ambient-cni-host {
 *       set pods-ipv4 { type ipv4_addr }
 *       set pods-ipv6 { type ipv6_addr }
 *       chain postrouting {
 *         type nat hook postrouting priority srcnat - 1; policy accept;
 *         ip daddr @pods-ipv4 tcp flags & (fin | syn | rst | ack) == syn meta skuid != 4294967295 ct status & dnat == 0
 *             counter snat ip to 169.254.7.127
 *         and the same with ip6
 *       }
 *     }
 *
 * `meta skuid != 4294967295` is true of what a local socket sends, of any user, and false of what is forwarded. `ct status &
 * dnat == 0` leaves a Service's connections alone. Without the match of the SYN, open connections from the host to a pod would
 * break when conntrack meets them in the middle. The priority is right before the one of everybody's masquerading, of iptables
 * too: the first rule that gives a connection a source decides. */
#ifndef AMBIENT_INSTALLER_PROBES_PROBE_RULES_H
#define AMBIENT_INSTALLER_PROBES_PROBE_RULES_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ambient/error.h"
#include "ambient/nft.h"
#include "installer/object.h"

struct probe_addresses {
	struct in_addr ipv4;
	struct in6_addr ipv6;
};

const char *probe_rules_set_name(int family);

struct probe_standing {
	uint32_t generation; /* of the ruleset that was looked at, or of an older one */
	bool has_table;
	char difference[320]; /* of table, chain, sets and rules, in words; empty: as they should be */
	/* What is in the sets, in any order; also of a table that is otherwise not as it should be. Owned. */
	struct pod_address *elements;
	size_t elements_count;
};
void probe_standing_clear(struct probe_standing *standing);
#define cleanup_probe_standing __attribute__((cleanup(probe_standing_clear)))

int probe_rules_look(struct nft_socket *socket, const struct probe_addresses *addresses, struct error *error,
		     struct probe_standing *ret_standing);

/* What a transaction does. `replace`: there is a table, which goes in the same transaction. */
void probe_rules_batch_table(struct nft_batch *batch, const struct probe_addresses *addresses, bool replace);
void probe_rules_batch_delete_table(struct nft_batch *batch);
/* Adds elements, which may be there, or deletes elements, which must be there. Any families. */
void probe_rules_batch_elements(struct nft_batch *batch, const struct pod_address *elements, size_t count, bool is_delete);

#endif
