/* Whether redirects lead somewhere in each family that a pod has.
 *
 * ztunnel opens its listeners before it accepts a pod, on sockets that take IPv4 and IPv6; with its IPV6_ENABLED off they take
 * IPv4 only, and it accepts all the same. A redirect of IPv6 then refuses every IPv6 connection of the pod, and none would let
 * them go around the mesh in plain text, which nobody asked for (who wants it sets redirect.ipv6 to false). So:
 *
 *   - a pod that runs waits as it is until the tunnel listens in each of its families: nothing of it breaks;
 *   - a new pod, of which nothing can break, starts, and its IPv6 is refused, which is said; with addresses of that family
 * alone it could do nothing, and does not start;
 *   - a pod that is in stays in.
 *
 * One family is held against the other: of a tunnel of which nothing is found at all, its acceptance is believed. */
#include <sys/socket.h>

#include "ambient/redirect.h"
#include "installer/netns/listening.h"
#include "installer/mesh/state.h"

/* The first address of the family; NULL: the pod has none. */
static const struct pod_address *address_of(const struct mesh_pod *pod, int family)
{
	size_t count = 0;
	const struct pod_address *addresses = mesh_pod_addresses(pod, &count);
	for (size_t i = 0; i < count; i++)
		if (addresses[i].family == family)
			return &addresses[i];
	return NULL;
}

/* The port that redirects lead to on which only the other family is listened to; 0: none. */
static int port_without(const bool *has, const bool *other, const struct redirect *redirect)
{
	if (!has[LISTENING_OUTBOUND] && other[LISTENING_OUTBOUND])
		return REDIRECT_PORT_OUTBOUND;
	if (!has[LISTENING_INBOUND] && other[LISTENING_INBOUND] && !redirect->bypass_inbound)
		return REDIRECT_PORT_INBOUND;
	return 0;
}

enum mesh_families mesh_look_at_families(const struct mesh_pod *pod, const struct redirect *redirect, struct error *ret_words)
{
	struct listening listening = { 0 };
	char text[POD_ADDRESS_TEXT_MAX];
	const struct pod_address *ipv4 = address_of(pod, AF_INET), *ipv6 = redirect->ipv6 ? address_of(pod, AF_INET6) : NULL;
	/* A kernel that does not tell leaves the acceptance. */
	if ((!ipv4 && !ipv6) || listening_look_up(pod->sandbox.netns, NULL, &listening) < 0)
		return MESH_FAMILIES_SERVED;
	int port = ipv6 ? port_without(listening.ipv6, listening.ipv4, redirect) : 0;
	if (port) {
		error_say(
			ret_words, EADDRNOTAVAIL,
			"the tunnel has accepted the pod and listens on port %d for IPv4 only, and the pod has the address %s: "
			"redirects would refuse its IPv6 connections. Either ztunnel's IPV6_ENABLED is off, or the setting "
			"redirect.ipv6 should be false",
			port, pod_address_print(ipv6, text));
		return ipv4 ? MESH_FAMILIES_REFUSED_IN_PART : MESH_FAMILIES_REFUSED;
	}
	port = ipv4 ? port_without(listening.ipv4, listening.ipv6, redirect) : 0;
	if (!port)
		return MESH_FAMILIES_SERVED;
	error_say(ret_words, EADDRNOTAVAIL,
		  "the tunnel has accepted the pod and listens on port %d for IPv6 only, and the pod has the address %s: "
		  "redirects would refuse its IPv4 connections",
		  port, pod_address_print(ipv4, text));
	return ipv6 ? MESH_FAMILIES_REFUSED_IN_PART : MESH_FAMILIES_REFUSED;
}
