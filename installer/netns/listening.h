/* What the tunnel has open inside a pod's network namespace: where it listens, and what it carries (sock_diag(7)). */
#ifndef AMBIENT_INSTALLER_NETNS_LISTENING_H
#define AMBIENT_INSTALLER_NETNS_LISTENING_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"

enum listening_port {
	LISTENING_OUTBOUND, /* TCP 15001 */
	LISTENING_INBOUND,  /* TCP 15006 */
	LISTENING_HBONE,    /* TCP 15008 */
	LISTENING_DNS_TCP,  /* TCP 15053 */
	LISTENING_DNS_UDP,  /* UDP 15053 */
	LISTENING_PORT_COUNT,
};

/* A socket of IPv6 that listens on :: and takes IPv4 too counts for both. */
struct listening {
	bool ipv4[LISTENING_PORT_COUNT], ipv6[LISTENING_PORT_COUNT];
};

/* `netns` is borrowed. IPv6 that is absent is no error. An error where the kernel lacks sock_diag for TCP or UDP. */
int listening_look(int netns, struct error *error, struct listening *ret_listening);

/* The same for 15001 and 15006 alone, asked as the kernel itself looks for the listener of a SYN: that costs nothing of what
 * other namespaces have open. A socket that is bound to one address only is not found. */
int listening_look_up(int netns, struct error *error, struct listening *ret_listening);

/* Whether a socket with the tunnel's mark listens on 15001 or 15006, whatever address it is bound to. `netns` is borrowed. */
int listening_look_for_tunnel(int netns, struct error *error, bool *ret_listens);

/* Sockets in any state in which something can still be transferred (not: listening, time-wait, closed). */
struct carried {
	/* The tunnel's ends of connections of the application: accepted on 15001 or 15006, or made to the application or to a
	 * plain destination (tunnel mark). As long as there is one, somebody's connection hangs on the tunnel. */
	size_t connections;
	/* HBONE connections between tunnels: accepted on 15008, or made to port 15008. They are kept open for later use
	 * (ztunnel: minutes), so that one does not mean that anything is carried: what it carries counts above. */
	size_t transports;
};

/* `netns` is borrowed. Marks are seen with CAP_NET_ADMIN only. The cost is that of the machine, not of the pod: the kernel
 * walks its table of connections (net.ipv4.tcp_ehash_entries: 0.3 ms for 262144), so that many pods are to be asked one after
 * the other and not too often. */
int listening_count_carried(int netns, struct error *error, struct carried *ret_carried);

#endif
