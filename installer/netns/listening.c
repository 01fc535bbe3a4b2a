/* See listening.h. One dump for each family and protocol; the kernel picks by state, the ports are picked here. */
#include "installer/netns/listening.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/redirect.h"
#include "ambient/netlink.h"

/* A TCP socket between SYN and accept (include/net/tcp_states.h, which no header shows). */
#define STATE_NEW_SYN_RECV 12
#define STATE(state) (1u << (state))

static int dump(struct mnl_socket *socket, int family, int protocol, uint32_t states, mnl_cb_t callback, void *data,
		struct error *error)
{
	char buffer[256] = { 0 };
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	struct inet_diag_req_v2 *request = mnl_nlmsg_put_extra_header(header, sizeof *request);
	request->sdiag_family = (uint8_t)family;
	request->sdiag_protocol = (uint8_t)protocol;
	request->idiag_states = states;
	int number = netlink_dump(socket, header, callback, NULL, data);
	/* No handler for IPv6: no socket of it either. */
	if (number == 0 || (family == AF_INET6 && (number == ENOENT || number == EAFNOSUPPORT)))
		return 0;
	return error_set(error, number, "cannot list the sockets of a network namespace%s",
			 number != ENOENT	   ? ""
			 : protocol == IPPROTO_TCP ? " (the kernel lacks CONFIG_INET_TCP_DIAG)"
						   : " (the kernel lacks CONFIG_INET_UDP_DIAG)");
}

/* The families that a bound socket serves. */
static void families_of(const struct nlmsghdr *header, bool *ret_ipv4, bool *ret_ipv6)
{
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	struct in6_addr address;
	memcpy(&address, message->id.idiag_src, sizeof address);
	bool is_ipv6_only = false;
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, sizeof *message) {
		if (mnl_attr_get_type(attribute) == INET_DIAG_SKV6ONLY &&
		    mnl_attr_get_payload_len(attribute) == sizeof(uint8_t))
			is_ipv6_only = mnl_attr_get_u8(attribute) != 0;
	}
	*ret_ipv6 = message->idiag_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&address);
	*ret_ipv4 = !*ret_ipv6 || (IN6_IS_ADDR_UNSPECIFIED(&address) && !is_ipv6_only);
}

/* Whether a message of the dump is about a socket. */
static bool is_socket(const struct nlmsghdr *header)
{
	return (header->nlmsg_type == SOCK_DIAG_BY_FAMILY || header->nlmsg_type == TCPDIAG_GETSOCK) &&
	       mnl_nlmsg_get_payload_len(header) >= sizeof(struct inet_diag_msg);
}

static void note(struct listening *listening, const struct nlmsghdr *header, enum listening_port port)
{
	bool ipv4, ipv6;
	families_of(header, &ipv4, &ipv6);
	listening->ipv4[port] |= ipv4;
	listening->ipv6[port] |= ipv6;
}

static int note_tcp(const struct nlmsghdr *header, void *data)
{
	static const uint16_t ports[] = {
		[LISTENING_OUTBOUND] = REDIRECT_PORT_OUTBOUND,
		[LISTENING_INBOUND] = REDIRECT_PORT_INBOUND,
		[LISTENING_HBONE] = REDIRECT_PORT_HBONE,
		[LISTENING_DNS_TCP] = REDIRECT_PORT_DNS,
	};
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	for (size_t i = 0; is_socket(header) && i < sizeof ports / sizeof ports[0]; i++)
		if (ntohs(message->id.idiag_sport) == ports[i])
			note(data, header, (enum listening_port)i);
	return MNL_CB_OK;
}

static int note_udp(const struct nlmsghdr *header, void *data)
{
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	if (is_socket(header) && ntohs(message->id.idiag_sport) == REDIRECT_PORT_DNS)
		note(data, header, LISTENING_DNS_UDP);
	return MNL_CB_OK;
}

int listening_look(int netns, struct error *error, struct listening *ret_listening)
{
	struct listening listening = { 0 };
	cleanup_netlink struct mnl_socket *socket = NULL;
	if (netlink_open(netns, NETLINK_SOCK_DIAG, error, &socket) < 0)
		return -1;
	static const int families[] = { AF_INET, AF_INET6 };
	for (size_t i = 0; i < 2; i++) {
		/* A UDP socket that is not connected is in the state "closed". */
		if (dump(socket, families[i], IPPROTO_TCP, STATE(TCP_LISTEN), note_tcp, &listening, error) < 0 ||
		    dump(socket, families[i], IPPROTO_UDP, STATE(TCP_CLOSE), note_udp, &listening, error) < 0)
			return -1;
	}
	*ret_listening = listening;
	return 0;
}

/* ENOENT: there is no listener, or the kernel lacks sock_diag for TCP, which it does not tell apart. */
static int look_up(struct mnl_socket *socket, int family, uint16_t port, struct error *error, bool *ret_is_there)
{
	char buffer[256] = { 0 };
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
	struct inet_diag_req_v2 *request = mnl_nlmsg_put_extra_header(header, sizeof *request);
	request->sdiag_family = (uint8_t)family;
	request->sdiag_protocol = IPPROTO_TCP;
	request->idiag_states = STATE(TCP_LISTEN);
	request->id.idiag_sport = htons(port);
	request->id.idiag_cookie[0] = request->id.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
	int number = netlink_request(socket, header);
	/* EINVAL: the kernel was built without IPv6. */
	bool is_missing = number == ENOENT || (family == AF_INET6 && (number == EINVAL || number == EAFNOSUPPORT));
	if (number && !is_missing)
		return error_set(error, number, "cannot look for a listener in a network namespace");
	*ret_is_there = number == 0;
	return 0;
}

int listening_look_up(int netns, struct error *error, struct listening *ret_listening)
{
	struct listening listening = { 0 };
	cleanup_netlink struct mnl_socket *socket = NULL;
	if (netlink_open(netns, NETLINK_SOCK_DIAG, error, &socket) < 0 ||
	    look_up(socket, AF_INET, REDIRECT_PORT_OUTBOUND, error, &listening.ipv4[LISTENING_OUTBOUND]) < 0 ||
	    look_up(socket, AF_INET6, REDIRECT_PORT_OUTBOUND, error, &listening.ipv6[LISTENING_OUTBOUND]) < 0 ||
	    look_up(socket, AF_INET, REDIRECT_PORT_INBOUND, error, &listening.ipv4[LISTENING_INBOUND]) < 0 ||
	    look_up(socket, AF_INET6, REDIRECT_PORT_INBOUND, error, &listening.ipv6[LISTENING_INBOUND]) < 0)
		return -1;
	*ret_listening = listening;
	return 0;
}

static bool has_tunnel_mark(const struct nlmsghdr *header)
{
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, sizeof(struct inet_diag_msg)) {
		if (mnl_attr_get_type(attribute) == INET_DIAG_MARK && mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
			return (mnl_attr_get_u32(attribute) & REDIRECT_MARK_MASK) == REDIRECT_TUNNEL_MARK;
	}
	return false;
}

static int note_tunnel(const struct nlmsghdr *header, void *data)
{
	bool *listens = data;
	if (!is_socket(header) || !has_tunnel_mark(header))
		return MNL_CB_OK;
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	uint16_t port = ntohs(message->id.idiag_sport);
	*listens |= port == REDIRECT_PORT_OUTBOUND || port == REDIRECT_PORT_INBOUND;
	return MNL_CB_OK;
}

int listening_look_for_tunnel(int netns, struct error *error, bool *ret_listens)
{
	cleanup_netlink struct mnl_socket *socket = NULL;
	bool listens = false;
	if (netlink_open(netns, NETLINK_SOCK_DIAG, error, &socket) < 0 ||
	    dump(socket, AF_INET, IPPROTO_TCP, STATE(TCP_LISTEN), note_tunnel, &listens, error) < 0 ||
	    dump(socket, AF_INET6, IPPROTO_TCP, STATE(TCP_LISTEN), note_tunnel, &listens, error) < 0)
		return -1;
	*ret_listens = listens;
	return 0;
}

static int count(const struct nlmsghdr *header, void *data)
{
	struct carried *carried = data;
	if (!is_socket(header))
		return MNL_CB_OK;
	const struct inet_diag_msg *message = mnl_nlmsg_get_payload(header);
	/* Closed by its program, everything sent and acknowledged: it only waits for the other's FIN. */
	if (message->idiag_state == TCP_FIN_WAIT2 && message->idiag_inode == 0)
		return MNL_CB_OK;
	switch (ntohs(message->id.idiag_sport)) {
	case REDIRECT_PORT_HBONE:
		carried->transports++;
		break;
	case REDIRECT_PORT_OUTBOUND:
	case REDIRECT_PORT_INBOUND:
	case REDIRECT_PORT_DNS:
		carried->connections++;
		break;
	default:
		if (!has_tunnel_mark(header))
			break;
		if (ntohs(message->id.idiag_dport) == REDIRECT_PORT_HBONE)
			carried->transports++;
		else
			carried->connections++;
	}
	return MNL_CB_OK;
}

static void count_again(void *data)
{
	*(struct carried *)data = (struct carried){ 0 };
}

int listening_count_carried(int netns, struct error *error, struct carried *ret_carried)
{
	struct carried carried = { 0 };
	cleanup_netlink struct mnl_socket *socket = NULL;
	char buffer[256] = { 0 };
	if (netlink_open(netns, NETLINK_SOCK_DIAG, error, &socket) < 0)
		return -1;
	/* The kernel walks the hash table of all connections of the machine. The older request has no family, so that one walk
	 * serves both. */
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = TCPDIAG_GETSOCK;
	struct inet_diag_req *request = mnl_nlmsg_put_extra_header(header, sizeof *request);
	request->idiag_states = STATE(TCP_ESTABLISHED) | STATE(TCP_SYN_SENT) | STATE(TCP_SYN_RECV) | STATE(STATE_NEW_SYN_RECV) |
				STATE(TCP_FIN_WAIT1) | STATE(TCP_FIN_WAIT2) | STATE(TCP_CLOSE_WAIT) | STATE(TCP_LAST_ACK) |
				STATE(TCP_CLOSING);
	int number = netlink_dump(socket, header, count, count_again, &carried);
	if (number)
		return error_set(error, number, "cannot list the connections of a network namespace%s",
				 number == ENOENT ? " (the kernel lacks CONFIG_INET_TCP_DIAG)" : "");
	*ret_carried = carried;
	return 0;
}
