/* Questions and requests over a netlink socket inside a network namespace (libmnl). nftables has more of its own (nft.h), which
 * is made of this.
 *
 * A request's sequence number is counted up before it is sent: by it its answers are told from others. After a failure what is
 * left of them is dropped, and the socket can be used again. */
#ifndef AMBIENT_NETLINK_H
#define AMBIENT_NETLINK_H

#include <libmnl/libmnl.h>

#include "ambient/error.h"

static inline void netlink_closep(struct mnl_socket **socket)
{
	if (*socket)
		mnl_socket_close(*socket);
}
#define cleanup_netlink __attribute__((cleanup(netlink_closep)))

/* Opens a bound socket of `protocol` (NETLINK_ROUTE, ...) in the namespace `netns`, or in our own with -1. CLOEXEC. */
int netlink_open(int netns, int protocol, struct error *error, struct mnl_socket **ret_socket);

/* Sends a request for a dump and hands each answer to `callback`. Where the kernel says that something changed meanwhile, the
 * dump is made again after `restart` (may be NULL) was called with `data`. 0, or the kernel's errno. */
int netlink_dump(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void (*restart)(void *), void *data);

/* Sends a question that has one answer and hands it to `callback`. 0, or the kernel's errno. */
int netlink_ask(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void *data);

/* Sends a request and waits for its acknowledgement. 0, or the kernel's errno. */
int netlink_request(struct mnl_socket *socket, struct nlmsghdr *request);

#endif
