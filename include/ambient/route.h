/* The policy rule and the local route that bring replies to a spoofed client address back to the tunnel:
 *
 *     ip rule add fwmark 0x111/0xfff lookup 100 pref 32764
 *     ip route add local default dev lo table 100
 *
 * in both families, over libnl. */
#ifndef AMBIENT_ROUTE_H
#define AMBIENT_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"

/* A routing socket; opened in the calling thread's namespace, it stays there. */
struct nl_sock;
int route_socket_open(struct error *error, struct nl_sock **ret_socket);
void route_socket_close(struct nl_sock *socket);

/* Adds what is missing; idempotent (NLM_F_EXCL). Somebody else's default route in table 100 is an error (EEXIST). With `lo`
 * down the route cannot stand: lo is brought up. ipv6: also IPv6. Where IPv6 is absent, or disabled on all interfaces or on lo
 * alone (EACCES), its route cannot stand and that is no error: IPv4 is never left unprotected for it. */
int route_add(struct nl_sock *socket, bool ipv6, struct error *error);

/* What one call put there, by family (0: IPv4, 1: IPv6). */
struct route_added {
	bool rules[2], routes[2];
};

/* The same, and tells what was not there before, also where it fails: so that only that is taken back. Another agent's rule and
 * route look like ours. */
int route_add_missing(struct nl_sock *socket, bool ipv6, struct error *error, struct route_added *ret_added);
int route_take_back(struct nl_sock *socket, const struct route_added *added, struct error *error);

/* Removes both families; what is not there is no error. Other people's rules and routes in table 100 stay. */
int route_remove(struct nl_sock *socket, struct error *error);

/* Looks whether the rule and the route stand as they should, once changes under way have come to their end (for that a route
 * that nobody has, of metric 4294967295, is asked to be removed; without the right to, the look is made at once).
 * `ret_difference` gets a sentence, or an empty string. Where IPv6 is absent or disabled on all or on lo, its route is not
 * expected; where IPv6 is absent neither is its rule. */
int route_verify(struct nl_sock *socket, bool ipv6, struct error *error, char *ret_difference, size_t size);

#endif
