/* What changing rules and routes (route.c) and looking at them (route_verify.c) share. Private to both. */
#ifndef AMBIENT_LIB_ROUTE_PARTS_H
#define AMBIENT_LIB_ROUTE_PARTS_H

#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdbool.h>
#include <sys/types.h>

#include "ambient/error.h"

#define ROUTE_LOOPBACK_INDEX 1 /* lo is the first device of every namespace */
#define ROUTE_MESSAGE_SIZE 256

static inline void cleanup_nl_msgp(struct nl_msg **message)
{
	if (*message)
		nlmsg_free(*message);
}
#define cleanup_nl_msg __attribute__((cleanup(cleanup_nl_msgp)))

/* A message of at most ROUTE_MESSAGE_SIZE bytes: libnl's own choice is a page, zeroed, for some dozen bytes. NULL: no memory.
 */
struct nl_msg *route_make_message(int type, int flags);

/* Receives one datagram; -1 with errno. One that does not fit is an error (EMSGSIZE): half an answer would pass for a whole
 * one. After an error the socket can be used again. */
ssize_t route_receive(struct nl_sock *socket, char *buffer, size_t size);

/* Waits for a change that was told already. The kernel tells of an IPv4 route's end before it takes it away (fib_table_delete),
 * and a dump waits for nobody: who looks when told sees it still. */
int route_await_changes(struct nl_sock *socket, struct error *error);

/* Whether an errno of the kernel's about IPv6 says that there is none. */
bool route_ipv6_is_missing(int number);

#endif
