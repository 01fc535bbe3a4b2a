/* See drift.h.
 *
 * A multicast socket hears everything of its groups, a replaced table as 45 kB of messages. A classic BPF filter on the socket
 * lets through only what is worth waking up for: of nftables NEWGEN, one small datagram a commit; of routing what bears our
 * table's number, or lo's index. What is dropped by the filter costs neither memory nor ENOBUFS. */
#include "installer/netns/drift.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"

#define LOOPBACK_INDEX 1 /* lo is the first device of every namespace */

/* Somebody who changes things all the time must not keep the loop from its other work. */
#define DATAGRAMS_PER_TURN 64

struct drift_watch {
	struct event nftables, routing;
	int nftables_socket, routing_socket;
	drift_changed changed;
	void *data;
	bool *ended; /* set when a callback stops or frees the watch */
};

/* Offsets into a netlink message. */
#define TYPE offsetof(struct nlmsghdr, nlmsg_type)
#define BODY NLMSG_HDRLEN

/* BPF loads in network order, netlink writes in the host's. */
#define NETLINK_TYPE(type) htons(type)

_Static_assert(offsetof(struct rtmsg, rtm_table) == 4, "the table stands at one place in routes and rules (fib_rule_hdr)");
_Static_assert(offsetof(struct ifinfomsg, ifi_index) == 4 && offsetof(struct ifaddrmsg, ifa_index) == 4,
	       "the index stands at one place in links and addresses");

static int attach_filter(int fd, enum drift_kind kind, struct error *error)
{
	struct sock_filter newgen[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, TYPE),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_TYPE((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_filter ours[] = {
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, TYPE),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_TYPE(RTM_NEWROUTE), 7, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_TYPE(RTM_DELROUTE), 6, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_TYPE(RTM_NEWRULE), 5, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NETLINK_TYPE(RTM_DELRULE), 4, 0),
		/* A link, or an address: its index. */
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, BODY + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(LOOPBACK_INDEX), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
		/* A route, or a policy rule: its table. */
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, BODY + 4),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, REDIRECT_ROUTE_TABLE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = { .len = sizeof ours / sizeof ours[0], .filter = ours };
	if (kind == DRIFT_NFTABLES)
		program = (struct sock_fprog){ .len = sizeof newgen / sizeof newgen[0], .filter = newgen };
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0)
		return error_set(error, errno, "cannot filter a netlink socket");
	return 0;
}

static int open_listener(enum drift_kind kind, struct error *error, int *ret_fd)
{
	static const int nftables_groups[] = { NFNLGRP_NFTABLES, 0 };
	/* IPv6 addresses: the kernel says by them alone that lo can carry IPv6 again. */
	static const int routing_groups[] = { RTNLGRP_LINK,
					      RTNLGRP_IPV4_ROUTE,
					      RTNLGRP_IPV4_RULE,
					      RTNLGRP_IPV6_ROUTE,
					      RTNLGRP_IPV6_RULE,
					      RTNLGRP_IPV6_IFADDR,
					      0 };
	int protocol = kind == DRIFT_NFTABLES ? NETLINK_NETFILTER : NETLINK_ROUTE;
	cleanup_close int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
	if (fd < 0)
		return error_set(error, errno, "cannot open a netlink socket to watch");
	/* The filter first: nothing may come in before it. */
	if (attach_filter(fd, kind, error) < 0)
		return -1;
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return error_set(error, errno, "cannot bind a netlink socket to watch");
	for (const int *group = kind == DRIFT_NFTABLES ? nftables_groups : routing_groups; *group; group++) {
		/* Without IPv6 its groups are there all the same: they belong to the family of netlink. */
		if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group, sizeof *group) < 0)
			return error_set(error, errno, "cannot watch netlink group %d", *group);
	}
	*ret_fd = steal_fd(&fd);
	return 0;
}

static int read_process(const struct nlattr *attribute, void *data)
{
	struct drift *drift = data;
	if (mnl_attr_get_type(attribute) == NFTA_GEN_PROC_PID && mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
		drift->process = (pid_t)ntohl(mnl_attr_get_u32(attribute));
	if (mnl_attr_get_type(attribute) == NFTA_GEN_PROC_NAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
		snprintf(drift->process_name, sizeof drift->process_name, "%s", mnl_attr_get_str(attribute));
	return MNL_CB_OK;
}

/* Receives one datagram. 1: `ret_drift` is filled, 0: nothing waits. */
static int receive(int fd, enum drift_kind kind, struct drift *ret_drift)
{
	struct drift drift = { .kind = kind };
	char buffer[1024];
	ssize_t received;
	do
		received = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
	while (received < 0 && errno == EINTR);
	if (received < 0 && errno != ENOBUFS)
		return 0;
	if (received >= 0) {
		/* A longer message is cut, and its header is all that is of interest. */
		const struct nlmsghdr *header = (const struct nlmsghdr *)buffer;
		if ((size_t)received >= sizeof *header)
			drift.port = header->nlmsg_pid;
		if (kind == DRIFT_NFTABLES && mnl_nlmsg_ok(header, (int)received) &&
		    header->nlmsg_len >= mnl_nlmsg_size(sizeof(struct nfgenmsg)))
			mnl_attr_parse(header, sizeof(struct nfgenmsg), read_process, &drift);
	}
	*ret_drift = drift;
	return 1;
}

static void wake_up(struct drift_watch *watch, int fd, enum drift_kind kind)
{
	bool ended = false;
	struct drift told = { 0 }, drift;
	watch->ended = &ended;
	for (int i = 0; i < DATAGRAMS_PER_TURN && receive(fd, kind, &drift); i++) {
		if (i > 0 && drift.port == told.port)
			continue;
		told = drift;
		watch->changed(watch->data, &drift);
		if (ended)
			return;
	}
	watch->ended = NULL;
}

static void nftables_readable(evutil_socket_t fd, short what __attribute__((unused)), void *data)
{
	wake_up(data, fd, DRIFT_NFTABLES);
}

static void routing_readable(evutil_socket_t fd, short what __attribute__((unused)), void *data)
{
	wake_up(data, fd, DRIFT_ROUTING);
}

int drift_watch_new(struct event_base *base, int netns, drift_changed changed, void *data, struct error *error,
		    struct drift_watch **ret_watch)
{
	cleanup_close int nftables = -1, routing = -1;
	{
		cleanup_netns_leave struct netns_visit visit = { .home = -1 };
		if (netns >= 0 && netns_enter(netns, error, &visit) < 0)
			return -1;
		if (open_listener(DRIFT_NFTABLES, error, &nftables) < 0 || open_listener(DRIFT_ROUTING, error, &routing) < 0)
			return -1;
	}
	struct drift_watch *watch = calloc(1, sizeof *watch);
	if (!watch)
		return error_set(error, ENOMEM, "cannot watch the network namespace");
	watch->changed = changed;
	watch->data = data;
	event_assign(&watch->nftables, base, nftables, EV_READ | EV_PERSIST, nftables_readable, watch);
	event_assign(&watch->routing, base, routing, EV_READ | EV_PERSIST, routing_readable, watch);
	if (event_add(&watch->nftables, NULL) < 0 || event_add(&watch->routing, NULL) < 0) {
		event_del(&watch->nftables);
		free(watch);
		return error_set(error, ENOMEM, "cannot watch the network namespace");
	}
	watch->nftables_socket = steal_fd(&nftables);
	watch->routing_socket = steal_fd(&routing);
	*ret_watch = watch;
	return 0;
}

void drift_watch_stop(struct drift_watch *watch)
{
	if (!watch)
		return;
	if (watch->ended)
		*watch->ended = true;
	watch->ended = NULL;
	event_del(&watch->nftables);
	event_del(&watch->routing);
	/* Each commit and each change of a route walks over everybody who listens to such, in whatever namespace. */
	static const int group = NFNLGRP_NFTABLES;
	setsockopt(watch->nftables_socket, SOL_NETLINK, NETLINK_DROP_MEMBERSHIP, &group, sizeof group);
	if (watch->routing_socket >= 0)
		close(watch->routing_socket);
	watch->routing_socket = -1;
}

void drift_watch_free(struct drift_watch *watch)
{
	if (!watch)
		return;
	drift_watch_stop(watch);
	close(watch->nftables_socket);
	free(watch);
}
