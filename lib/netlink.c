/* See netlink.h. What is asked here the kernel answers inside sendmsg(2) or, a dump, part by part as it is read: nothing waits
 * for anybody else. */
#include "ambient/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"

/* Somebody who changes things all the time must not hold us for ever. */
#define DUMP_ATTEMPTS 16

int netlink_open(int netns, int protocol, struct error *error, struct mnl_socket **ret_socket)
{
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	if (netns >= 0 && netns_enter(netns, error, &visit) < 0)
		return -1;
	cleanup_netlink struct mnl_socket *socket = mnl_socket_open2(protocol, SOCK_CLOEXEC);
	if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
		return error_set(error, errno, "cannot open a netlink socket");
	*ret_socket = steal_pointer(socket);
	return 0;
}

static int send_request(struct mnl_socket *socket, const struct nlmsghdr *request)
{
	ssize_t sent;
	do
		sent = mnl_socket_sendto(socket, request, request->nlmsg_len);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? errno : 0;
}

/* Reads to the end of the answer, which a dump or an acknowledgement has, or the one datagram that it is. 0, or the kernel's
 * errno. */
static int read_answers(struct mnl_socket *socket, const struct nlmsghdr *request, bool is_one, mnl_cb_t callback, void *data)
{
	char buffer[32768];
	for (;;) {
		ssize_t received = mnl_socket_recvfrom(socket, buffer, sizeof buffer);
		if (received < 0 && errno == EINTR)
			continue;
		if (received >= 0)
			errno = 0;
		int result = received < 0 ? -1
					  : mnl_cb_run(buffer, (size_t)received, request->nlmsg_seq,
						       mnl_socket_get_portid(socket), callback, data);
		if (result < 0) {
			/* The rest of a dump that was interrupted (EINTR), or of which something was lost (ENOBUFS), is no
			 * answer to the next request, and the kernel makes no new one before it is read (EBUSY). It makes each
			 * part as it is read, so that an empty queue is the end. */
			int number = errno ? errno : EPROTO;
			while (recv(mnl_socket_get_fd(socket), buffer, sizeof buffer, MSG_DONTWAIT) > 0)
				;
			return number;
		}
		if (is_one || result == MNL_CB_STOP)
			return 0;
	}
}

int netlink_dump(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void (*restart)(void *), void *data)
{
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	for (int attempt = 0; attempt < DUMP_ATTEMPTS; attempt++) {
		request->nlmsg_seq++;
		int number = send_request(socket, request);
		if (number == 0)
			number = read_answers(socket, request, false, callback, data);
		if (number != EINTR)
			return number;
		if (restart)
			restart(data);
	}
	return EINTR;
}

int netlink_ask(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t callback, void *data)
{
	request->nlmsg_flags |= NLM_F_REQUEST;
	request->nlmsg_seq++;
	int number = send_request(socket, request);
	return number ? number : read_answers(socket, request, true, callback, data);
}

int netlink_request(struct mnl_socket *socket, struct nlmsghdr *request)
{
	request->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	request->nlmsg_seq++;
	int number = send_request(socket, request);
	return number ? number : read_answers(socket, request, false, NULL, NULL);
}
