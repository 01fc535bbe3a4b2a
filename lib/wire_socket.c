/* Plugin and installer: sockets, peers and descriptors. See wire.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/netns.h"
#include "ambient/unix_address.h"
#include "ambient/wire.h"

/* More than we accept, so that a peer who sends too many is told apart from one who sends the right number; the kernel drops,
 * and closes, what does not fit, and says so by MSG_CTRUNC. */
#define DESCRIPTORS_MAX 4

static bool carries_descriptor(enum wire_kind kind)
{
	return kind == WIRE_ADD || kind == WIRE_DEL;
}

int wire_send(int socket, const struct wire_message *message, int descriptor, struct error *error)
{
	cleanup_free char *text = NULL;
	if (wire_encode(message, error, &text) < 0)
		return -1;
	union {
		char buffer[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = text, .iov_len = strlen(text) };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
	if (descriptor >= 0) {
		packet.msg_control = control.buffer;
		packet.msg_controllen = sizeof control.buffer;
		struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof descriptor);
		memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
	}
	ssize_t sent;
	do
		sent = sendmsg(socket, &packet, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? error_set(error, errno == EPIPE ? ECONNRESET : errno, "cannot send a message") : 0;
}

/* Takes the descriptors out of a received packet: at most one is kept, the number that came is returned. */
static size_t take_descriptors(struct msghdr *packet, int *ret_descriptor)
{
	size_t count = 0;
	for (struct cmsghdr *header = CMSG_FIRSTHDR(packet); header; header = CMSG_NXTHDR(packet, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		size_t here = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < here; i++) {
			int descriptor;
			memcpy(&descriptor, CMSG_DATA(header) + i * sizeof descriptor, sizeof descriptor);
			if (count++ == 0)
				*ret_descriptor = descriptor;
			else
				close(descriptor);
		}
	}
	return count;
}

int wire_receive(int socket, struct error *error, struct wire_message *ret_message, int *ret_descriptor)
{
	cleanup_free char *text = malloc(WIRE_PACKET_MAX + 1);
	cleanup_close int descriptor = -1;
	cleanup_wire_message struct wire_message message = { 0 };
	union {
		char buffer[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	if (!text)
		return error_set(error, ENOMEM, "cannot receive a message");
	struct iovec part = { .iov_base = text, .iov_len = WIRE_PACKET_MAX + 1 };
	struct msghdr packet = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer
	};
	ssize_t received;
	do
		received = recvmsg(socket, &packet, MSG_CMSG_CLOEXEC);
	while (received < 0 && errno == EINTR);
	if (received < 0)
		return error_set(error, errno, "cannot receive a message");
	size_t count = take_descriptors(&packet, &descriptor);
	if (received == 0)
		return error_say(error, ECONNRESET, "the other side closed the connection");
	/* There was room for more of them: it is the kernel that could make none (receive_fd in scm_detach_fds). */
	if ((packet.msg_flags & MSG_CTRUNC) && count < DESCRIPTORS_MAX)
		return error_set(error, EMFILE, "cannot receive the descriptor that comes with a message");
	if ((packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || received > WIRE_PACKET_MAX)
		return error_say(error, EPROTO, "a message is larger than %d bytes or carries too many descriptors",
				 WIRE_PACKET_MAX);

	if (wire_decode(text, (size_t)received, error, &message) < 0) {
		if (error && error->number == 0)
			error->number = EPROTO;
		return -1;
	}
	if (count > 1 || (count == 1 && !carries_descriptor(message.kind)) || (count == 0 && message.kind == WIRE_ADD))
		return error_say(error, EPROTO, "a message carries %zu descriptors, expected %s", count,
				 message.kind == WIRE_ADD   ? "one"
				 : message.kind == WIRE_DEL ? "at most one"
							    : "none");
	if (count == 1 && (netns_check(descriptor, error) < 0 || netns_refuse_own(descriptor, error) < 0))
		return error_wrap(error, "the descriptor that came with a message can't be used");
	*ret_message = message;
	message = (struct wire_message){ 0 };
	*ret_descriptor = steal_fd(&descriptor);
	return 0;
}

static int check_peer(int socket, struct error *error)
{
	struct ucred peer;
	socklen_t length = sizeof peer;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return error_set(error, errno, "cannot tell who the peer is");
	if (peer.uid != 0)
		return error_say(error, EPERM, "the peer (pid %d) has uid %u, only root may talk here", (int)peer.pid,
				 peer.uid);
	return 0;
}

int wire_connect(const char *path, long timeout_milliseconds, struct error *error, int *ret_connection)
{
	struct sockaddr_un address;
	if (unix_address(path, error, &address) < 0)
		return -1;
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set(error, errno, "cannot connect to %s", path);
	struct timeval timeout = clock_span(timeout_milliseconds);
	/* A connect waits for room in the listener's queue: the time-out for sending bounds it too. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) < 0 ||
	    connect(fd, (const struct sockaddr *)&address, sizeof address) < 0)
		return error_set(error, errno, "cannot connect to %s", path);
	if (check_peer(fd, error) < 0)
		return error_wrap(error, "cannot talk to %s", path);
	*ret_connection = steal_fd(&fd);
	return 0;
}
