/* Plugins at the other end of the agent's socket that say what they want, when they want. The input is steps, each a byte: its
 * low two bits say what happens, the next two to which plugin; a packet's flags and length (two bytes), and its text, stand
 * behind it. Answers are held against wire.h: at most a decision and a result, in this order, and nothing behind a result. */
#include <sys/socket.h>
#include <sys/un.h>

#include "ambient/cleanup.h"
#include "ambient/wire.h"
#include "installer/plugin_server.h"
#include "installer/unix_listener.h"
#include "tests/fuzz/agent.h"

#define PEERS 4

enum step { STEP_CONNECT, STEP_PACKET, STEP_CLOSE, STEP_READ };

struct peer {
	int fd; /* -1: nobody */
	bool is_decided, is_over;
};
static struct peer peers[PEERS];
static struct unix_listener_events server_side;
static int host_netns, pod_netns;

/* The listener is the test: it hands over one end of a pair. The tunnel server's is never used. */
int __wrap_unix_listener_new(struct event_base *base, const char *path, const struct unix_listener_events *events,
			     const struct unix_listener_limits *limits, const struct log *log, struct error *error,
			     struct unix_listener **ret_listener);
void __wrap_unix_listener_free(struct unix_listener *listener);

int __wrap_unix_listener_new(struct event_base *base, const char *path, const struct unix_listener_events *events,
			     const struct unix_listener_limits *limits, const struct log *log, struct error *error,
			     struct unix_listener **ret_listener)
{
	(void)base, (void)limits, (void)log, (void)error;
	if (strstr(path, WIRE_SOCKET))
		server_side = *events;
	*ret_listener = (struct unix_listener *)&server_side;
	return 0;
}

void __wrap_unix_listener_free(struct unix_listener *listener)
{
	(void)listener;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	struct error error = { 0 };
	host_netns = fuzz_agent_place();
	HOLDS(unshare(CLONE_NEWNET) == 0 && netns_open("/proc/self/ns/net", &error, &pod_netns) == 0);
	struct netns_visit visit = { .home = -1 };
	HOLDS(netns_enter(host_netns, &error, &visit) == 0);
	return 0;
}

static void leave(struct peer *peer)
{
	if (peer->fd >= 0)
		close(steal_fd(&peer->fd));
}

static void arrive(struct peer *peer)
{
	leave(peer);
	*peer = (struct peer){ .fd = fuzz_agent_connect(&server_side) };
}

/* Flags: bits 0 to 1 how many descriptors, bit 2 that they are of the host's namespace. */
static void send_packet(const struct peer *peer, uint8_t flags, const uint8_t *bytes, size_t length)
{
	const int netns = flags & 4 ? host_netns : pod_netns, descriptors[] = { netns, netns, netns };
	union {
		char buffer[CMSG_SPACE(sizeof descriptors)];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)bytes, .iov_len = length };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
	size_t size = (flags & 3) * sizeof(int);
	if (size > 0) {
		packet.msg_control = control.buffer;
		packet.msg_controllen = CMSG_SPACE(size);
		struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(size);
		memcpy(CMSG_DATA(header), descriptors, size);
	}
	(void)!sendmsg(peer->fd, &packet, MSG_NOSIGNAL);
}

static void read_answers(struct peer *peer)
{
	for (;;) {
		static char text[WIRE_PACKET_MAX + 1];
		struct error error = { 0 };
		cleanup_wire_message struct wire_message message = { 0 };
		ssize_t length = recv(peer->fd, text, sizeof text, MSG_DONTWAIT);
		if (length <= 0)
			return;
		HOLDS(wire_decode(text, (size_t)length, &error, &message) == 0 && !peer->is_over);
		if (message.kind == WIRE_DECISION) {
			HOLDS(!peer->is_decided);
			peer->is_decided = true;
			peer->is_over = message.verdict == WIRE_VERDICT_SKIP;
		} else {
			HOLDS(message.kind == WIRE_RESULT);
			peer->is_over = true;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	struct fuzz_agent agent;
	struct plugin_server *server = NULL;
	fuzz_agent_start(&agent, host_netns);
	fuzz_agent_list(&agent);
	HOLDS(plugin_server_new(agent.base, FUZZ_RUN_DIR, agent.mesh, &agent.log, NULL, NULL, &error, &server) == 0);
	for (size_t i = 0; i < PEERS; i++)
		peers[i] = (struct peer){ .fd = -1 };
	for (size_t at = 0; at < size;) {
		uint8_t step = data[at++];
		struct peer *peer = &peers[step >> 2 & 3];
		switch ((enum step)(step & 3)) {
		case STEP_CONNECT:
			arrive(peer);
			break;
		case STEP_CLOSE:
			leave(peer);
			break;
		case STEP_READ:
			if (peer->fd >= 0)
				read_answers(peer);
			break;
		case STEP_PACKET:
			if (size - at < 3) {
				at = size;
				break;
			}
			size_t length = (size_t)data[at + 1] << 8 | data[at + 2];
			if (length > size - at - 3)
				length = size - at - 3;
			if (peer->fd >= 0)
				send_packet(peer, data[at], data + at + 3, length);
			at += 3 + length;
			break;
		}
		fuzz_agent_turn(&agent, 2);
	}
	for (size_t i = 0; i < PEERS; i++) {
		if (peers[i].fd >= 0)
			read_answers(&peers[i]);
		leave(&peers[i]);
	}
	fuzz_agent_turn(&agent, 2);
	plugin_server_free(server);
	fuzz_agent_stop(&agent);
	return 0;
}
