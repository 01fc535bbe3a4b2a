/* The policy rule and the local route: put there and taken away, over libnl. See route.h.
 *
 * Messages are built with libnl and sent together; the answers are read by us, since libnl turns an errno into numbers of its
 * own and hides those that matter here (ENETDOWN, EACCES). rtnetlink works inside sendmsg(2): when it returns, every answer
 * waits. */
#include "ambient/route.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/redirect.h"
#include "route_parts.h"

#define REQUESTS_MAX 4

static const int families[] = { AF_INET, AF_INET6 };

int route_socket_open(struct error *error, struct nl_sock **ret_socket)
{
	struct nl_sock *socket = nl_socket_alloc();
	if (!socket)
		return error_set(error, ENOMEM, "cannot open a routing socket");
	/* Port 0: the kernel chooses. libnl would choose from a table of the process, which other libraries know nothing of. */
	nl_socket_set_local_port(socket, 0);
	errno = 0;
	if (nl_connect(socket, NETLINK_ROUTE) < 0) {
		error_set(error, errno ? errno : EPROTO, "cannot open a routing socket");
		nl_socket_free(socket);
		return -1;
	}
	*ret_socket = socket;
	return 0;
}

void route_socket_close(struct nl_sock *socket)
{
	nl_socket_free(socket);
}

struct nl_msg *route_make_message(int type, int flags)
{
	struct nl_msg *message = nlmsg_alloc_size(ROUTE_MESSAGE_SIZE);
	if (message && !nlmsg_put(message, NL_AUTO_PORT, NL_AUTO_SEQ, type, 0, flags)) {
		nlmsg_free(message);
		return NULL;
	}
	return message;
}

/* What is left of an answer: the kernel makes no new dump before the last one is read (EBUSY). errno is kept. */
static void drop_answers(struct nl_sock *socket)
{
	char buffer[8192];
	int saved = errno;
	while (recv(nl_socket_get_fd(socket), buffer, sizeof buffer, MSG_DONTWAIT) > 0)
		;
	errno = saved;
}

ssize_t route_receive(struct nl_sock *socket, char *buffer, size_t size)
{
	ssize_t received;
	do
		received = recv(nl_socket_get_fd(socket), buffer, size, MSG_TRUNC);
	while (received < 0 && errno == EINTR);
	if (received > (ssize_t)size) {
		errno = EMSGSIZE;
		received = -1;
	}
	if (received < 0)
		drop_answers(socket);
	return received;
}

/* One thing that is added or removed: what it is in a message, and what came of it. */
struct request {
	struct nl_msg *message;
	const char *what; /* "IPv4 rule fwmark ..." */
	int family;
	int number; /* errno of the kernel's answer; 0: done */
};

struct requests {
	struct request items[REQUESTS_MAX];
	size_t count;
};

static void requests_clear(struct requests *requests)
{
	for (size_t i = 0; i < requests->count; i++)
		nlmsg_free(requests->items[i].message);
	requests->count = 0;
}
#define cleanup_requests __attribute__((cleanup(requests_clear)))

static int keep_request(struct requests *requests, struct nl_msg **message, const char *what, int family)
{
	requests->items[requests->count++] =
		(struct request){ .message = steal_pointer(*message), .what = what, .family = family };
	return 0;
}

/* ip rule (add|del) fwmark 0x111/0xfff lookup 100 pref 32764 */
static int add_rule_request(struct requests *requests, int family, int type, int flags, struct error *error)
{
	static const char *const names[] = { "IPv4 rule fwmark 0x111/0xfff lookup 100",
					     "IPv6 rule fwmark 0x111/0xfff lookup 100" };
	struct fib_rule_hdr header = { .family = (uint8_t)family, .action = FR_ACT_TO_TBL, .table = REDIRECT_ROUTE_TABLE };
	cleanup_nl_msg struct nl_msg *message = route_make_message(type, NLM_F_REQUEST | NLM_F_ACK | flags);
	if (!message || nlmsg_append(message, &header, sizeof header, NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(message, FRA_PRIORITY, REDIRECT_RULE_PREFERENCE) < 0 ||
	    nla_put_u32(message, FRA_FWMARK, REDIRECT_CONNECTION_MARK) < 0 ||
	    nla_put_u32(message, FRA_FWMASK, REDIRECT_MARK_MASK) < 0 ||
	    nla_put_u32(message, FRA_TABLE, REDIRECT_ROUTE_TABLE) < 0)
		return error_set(error, ENOMEM, "cannot build the routing rule");
	return keep_request(requests, &message, names[family == AF_INET6], family);
}

/* ip route (add|del) local default dev lo table 100 [metric METRIC] */
static int add_route_request(struct requests *requests, int family, int type, int flags, uint32_t metric, struct error *error)
{
	static const char *const names[] = { "IPv4 route local default dev lo table 100",
					     "IPv6 route local default dev lo table 100" };
	struct rtmsg header = {
		.rtm_family = (uint8_t)family,
		.rtm_table = REDIRECT_ROUTE_TABLE,
		.rtm_protocol = RTPROT_BOOT,
		.rtm_scope = RT_SCOPE_HOST,
		.rtm_type = RTN_LOCAL,
	};
	cleanup_nl_msg struct nl_msg *message = route_make_message(type, NLM_F_REQUEST | NLM_F_ACK | flags);
	if (!message || nlmsg_append(message, &header, sizeof header, NLMSG_ALIGNTO) < 0 ||
	    nla_put_u32(message, RTA_OIF, ROUTE_LOOPBACK_INDEX) < 0 ||
	    (metric && nla_put_u32(message, RTA_PRIORITY, metric) < 0))
		return error_set(error, ENOMEM, "cannot build the route");
	return keep_request(requests, &message, names[family == AF_INET6], family);
}

/* ip link set lo up */
static int add_loopback_request(struct requests *requests, struct error *error)
{
	struct ifinfomsg header = {
		.ifi_family = AF_UNSPEC, .ifi_index = ROUTE_LOOPBACK_INDEX, .ifi_flags = IFF_UP, .ifi_change = IFF_UP
	};
	cleanup_nl_msg struct nl_msg *message = route_make_message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK);
	if (!message || nlmsg_append(message, &header, sizeof header, NLMSG_ALIGNTO) < 0)
		return error_set(error, ENOMEM, "cannot build the request that brings lo up");
	return keep_request(requests, &message, "bringing lo up", AF_UNSPEC);
}

/* Sends all requests in one packet and fills in what came of each. */
static int send_requests(struct nl_sock *socket, struct requests *requests, struct error *error)
{
	char buffer[REQUESTS_MAX * ROUTE_MESSAGE_SIZE];
	size_t length = 0, answered = 0;
	for (size_t i = 0; i < requests->count; i++) {
		struct nlmsghdr *header = nlmsg_hdr(requests->items[i].message);
		header->nlmsg_seq = nl_socket_use_seq(socket);
		header->nlmsg_pid = nl_socket_get_local_port(socket);
		if (header->nlmsg_len > ROUTE_MESSAGE_SIZE)
			return error_set(error, EMSGSIZE, "cannot build %s", requests->items[i].what);
		memset(buffer + length, 0, NLMSG_ALIGN(header->nlmsg_len));
		memcpy(buffer + length, header, header->nlmsg_len);
		length += NLMSG_ALIGN(header->nlmsg_len);
	}
	if (nl_sendto(socket, buffer, length) < 0)
		return error_set(error, errno, "cannot send to the routing socket");

	while (answered < requests->count) {
		char answers[8192];
		ssize_t received = route_receive(socket, answers, sizeof answers);
		if (received < 0)
			return error_set(error, errno, "cannot read the kernel's answer about routes");
		int left = (int)received;
		for (struct nlmsghdr *header = (struct nlmsghdr *)answers; nlmsg_ok(header, left);
		     header = nlmsg_next(header, &left)) {
			const struct nlmsgerr *answer = nlmsg_data(header);
			if (header->nlmsg_type != NLMSG_ERROR || !nlmsg_valid_hdr(header, sizeof *answer))
				continue;
			for (size_t i = 0; i < requests->count; i++) {
				if (nlmsg_hdr(requests->items[i].message)->nlmsg_seq != header->nlmsg_seq)
					continue;
				requests->items[i].number = -answer->error;
				answered++;
			}
		}
	}
	return 0;
}

bool route_ipv6_is_missing(int number)
{
	/* Absent altogether, or (EACCES) disabled on all interfaces or on lo. */
	return number == EAFNOSUPPORT || number == EOPNOTSUPP || number == EACCES || number == EPFNOSUPPORT;
}

/* Takes from the list what is done or need not be; the rest are failures. */
static void keep_failures(struct requests *requests, bool (*is_fine)(const struct request *))
{
	size_t kept = 0;
	for (size_t i = 0; i < requests->count; i++) {
		if (is_fine(&requests->items[i]))
			nlmsg_free(requests->items[i].message);
		else
			requests->items[kept++] = requests->items[i];
	}
	requests->count = kept;
}

static bool is_added(const struct request *request)
{
	return request->number == 0 || request->number == EEXIST ||
	       (request->family == AF_INET6 && route_ipv6_is_missing(request->number));
}

/* What the kernel did of the requests, which were made for each family in turn: rule, route. */
static void note_added(const struct requests *requests, struct route_added *added)
{
	for (size_t i = 0; i < requests->count; i++) {
		const struct request *request = &requests->items[i];
		bool is_rule = nlmsg_hdr(request->message)->nlmsg_type == RTM_NEWRULE;
		if (request->number == 0)
			(is_rule ? added->rules : added->routes)[request->family == AF_INET6] = true;
	}
}

int route_add_missing(struct nl_sock *socket, bool ipv6, struct error *error, struct route_added *ret_added)
{
	const int flags = NLM_F_CREATE | NLM_F_EXCL;
	cleanup_requests struct requests requests = { 0 };
	*ret_added = (struct route_added){ 0 };
	for (size_t i = 0; i < (ipv6 ? 2 : 1); i++)
		if (add_rule_request(&requests, families[i], RTM_NEWRULE, flags, error) < 0 ||
		    add_route_request(&requests, families[i], RTM_NEWROUTE, flags, 0, error) < 0)
			return -1;
	if (send_requests(socket, &requests, error) < 0)
		return -1;
	note_added(&requests, ret_added);

	bool stood_before = false, is_down = false;
	for (size_t i = 0; i < requests.count; i++) {
		stood_before |= requests.items[i].number == EEXIST;
		is_down |= requests.items[i].number == ENETDOWN;
	}
	keep_failures(&requests, is_added);
	if (is_down) {
		cleanup_requests struct requests loopback = { 0 };
		if (add_loopback_request(&loopback, error) < 0 || send_requests(socket, &loopback, error) < 0)
			return -1;
		if (loopback.items[0].number != 0)
			return error_set(error, loopback.items[0].number, "cannot bring lo up for the local route");
		if (send_requests(socket, &requests, error) < 0)
			return -1;
		note_added(&requests, ret_added);
		keep_failures(&requests, is_added);
	}
	if (requests.count > 0)
		return error_set(error, requests.items[0].number, "cannot add the %s%s", requests.items[0].what,
				 requests.items[0].family == AF_INET && requests.items[0].number == EOPNOTSUPP
					 ? " (the kernel lacks CONFIG_IP_MULTIPLE_TABLES)"
					 : "");
	if (stood_before) {
		/* Something with our key stood there: is it ours? */
		char difference[256] = "";
		if (route_verify(socket, ipv6, error, difference, sizeof difference) < 0)
			return -1;
		if (difference[0] != '\0')
			return error_say(error, EEXIST, "cannot set up table %d, which somebody else uses: %s",
					 REDIRECT_ROUTE_TABLE, difference);
	}
	return 0;
}

int route_add(struct nl_sock *socket, bool ipv6, struct error *error)
{
	struct route_added added;
	return route_add_missing(socket, ipv6, error, &added);
}

static bool is_removed(const struct request *request)
{
	/* ENOENT: no such rule; ESRCH: no such route; ENODEV: no lo; the rest: no such family. */
	return request->number == 0 || request->number == ENOENT || request->number == ESRCH || request->number == ENODEV ||
	       (request->family == AF_INET6 && route_ipv6_is_missing(request->number));
}

int route_take_back(struct nl_sock *socket, const struct route_added *added, struct error *error)
{
	cleanup_requests struct requests requests = { 0 };
	for (size_t i = 0; i < 2; i++)
		if ((added->rules[i] && add_rule_request(&requests, families[i], RTM_DELRULE, 0, error) < 0) ||
		    (added->routes[i] && add_route_request(&requests, families[i], RTM_DELROUTE, 0, 0, error) < 0))
			return -1;
	if (requests.count == 0)
		return 0;
	if (send_requests(socket, &requests, error) < 0)
		return -1;
	keep_failures(&requests, is_removed);
	if (requests.count > 0)
		return error_set(error, requests.items[0].number, "cannot remove the %s", requests.items[0].what);
	return 0;
}

int route_remove(struct nl_sock *socket, struct error *error)
{
	const struct route_added everything = { .rules = { true, true }, .routes = { true, true } };
	return route_take_back(socket, &everything, error);
}

/* Removing a route takes its turn behind changes that are under way; one of this metric nobody has (ESRCH). */
int route_await_changes(struct nl_sock *socket, struct error *error)
{
	cleanup_requests struct requests requests = { 0 };
	if (add_route_request(&requests, AF_INET, RTM_DELROUTE, 0, UINT32_MAX, error) < 0)
		return -1;
	return send_requests(socket, &requests, error);
}
