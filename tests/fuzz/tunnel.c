/* The ZDS server with tunnels at the other end that say what they want, when they want. The input is steps, each a byte: its
 * low three bits say what happens, the others to whom; a packet's length and bytes stand behind it.
 *
 * What the tunnels are sent is held against zds.proto, and each request's outcome comes exactly once. */
#include <sys/socket.h>
#include <sys/un.h>

#include "ambient/cleanup.h"
#include "installer/tunnel/message.h"
#include "installer/tunnel/zds.pb-c.h"
#include "installer/unix_listener.h"
#include "tests/fuzz/agent.h"

#define PEERS 4
#define UIDS 4

enum step { STEP_CONNECT, STEP_PACKET, STEP_ACCEPT, STEP_CLOSE, STEP_ADD, STEP_DELETE, STEP_READ, STEP_READY };

struct peer {
	int fd; /* -1: nobody */
	bool is_snapshot_sent;
};
static struct peer peers[PEERS];
static struct unix_listener_events server_side;
static int outstanding[TUNNEL_REQUEST_KINDS][UIDS];

/* The listener is the test: it hands over one end of a pair. */
int __wrap_unix_listener_new(struct event_base *base, const char *path, const struct unix_listener_events *events,
			     const struct unix_listener_limits *limits, const struct log *log, struct error *error,
			     struct unix_listener **ret_listener);
void __wrap_unix_listener_free(struct unix_listener *listener);
uint64_t __wrap_unix_listener_binds(const struct unix_listener *listener);
uint64_t __wrap_unix_listener_refused(const struct unix_listener *listener);

int __wrap_unix_listener_new(struct event_base *base, const char *path, const struct unix_listener_events *events,
			     const struct unix_listener_limits *limits, const struct log *log, struct error *error,
			     struct unix_listener **ret_listener)
{
	(void)base, (void)path, (void)limits, (void)log, (void)error;
	server_side = *events;
	*ret_listener = (struct unix_listener *)&server_side;
	return 0;
}

void __wrap_unix_listener_free(struct unix_listener *listener)
{
	(void)listener;
}

uint64_t __wrap_unix_listener_binds(const struct unix_listener *listener)
{
	(void)listener;
	return 1;
}

uint64_t __wrap_unix_listener_refused(const struct unix_listener *listener)
{
	(void)listener;
	return 0;
}

static int own_netns(void)
{
	static int netns = -1;
	struct error error = { 0 };
	HOLDS(netns >= 0 || netns_open("/proc/self/ns/net", &error, &netns) == 0);
	return netns;
}

static struct tunnel_workload workload_of(unsigned int number, int netns)
{
	static const char *const uids[UIDS] = { "u0", "u1", "u2", "u3" };
	return (struct tunnel_workload){
		.uid = uids[number], .name = "pod", .namespace_name = "shop", .service_account = "default", .netns = netns
	};
}

static void snapshot(void *data, struct tunnel_snapshot *wanted)
{
	(void)data;
	for (unsigned int i = 0; i < 2; i++) {
		struct error error = { 0 };
		const struct tunnel_workload workload = workload_of(i, i ? -1 : own_netns());
		HOLDS(tunnel_snapshot_add(wanted, &workload, &error) == 0);
	}
}

static void answered(void *data, enum tunnel_request_kind kind, const char *uid, enum tunnel_outcome outcome,
		     const struct error *error)
{
	(void)data;
	HOLDS(uid[0] == 'u' && uid[1] >= '0' && uid[1] < '0' + UIDS && uid[2] == '\0');
	HOLDS(kind == TUNNEL_ADD || kind == TUNNEL_DELETE || kind == TUNNEL_SNAPSHOT_ADD);
	HOLDS(outcome == TUNNEL_ACCEPTED || (error && error_is_set(error)));
	if (kind != TUNNEL_SNAPSHOT_ADD)
		HOLDS(--outstanding[kind][uid[1] - '0'] >= 0);
}

static void connections_changed(void *data, size_t count)
{
	(void)data;
	HOLDS(count <= PEERS);
}

static void superseded(void *data)
{
	(void)data;
	HOLDS(false);
}

/* One packet to a tunnel; false: there is none. */
static bool read_packet(struct peer *peer)
{
	uint8_t bytes[4096];
	union {
		char buffer[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = bytes, .iov_len = sizeof bytes };
	struct msghdr packet = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.buffer, .msg_controllen = sizeof control.buffer
	};
	ssize_t length = recvmsg(peer->fd, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (length <= 0)
		return false;
	HOLDS(length <= TUNNEL_SEND_MAX && !(packet.msg_flags & (MSG_TRUNC | MSG_CTRUNC)));
	size_t descriptors = 0;
	const struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
	if (header) {
		int fd;
		descriptors = (header->cmsg_len - CMSG_LEN(0)) / sizeof fd;
		HOLDS(descriptors == 1 && !CMSG_NXTHDR(&packet, (struct cmsghdr *)header));
		memcpy(&fd, CMSG_DATA(header), sizeof fd);
		HOLDS(netns_check(fd, NULL) == 0);
		close(fd);
	}
	Istio__Workload__Zds__WorkloadRequest *request =
		istio__workload__zds__workload_request__unpack(NULL, (size_t)length, bytes);
	HOLDS(request);
	switch (request->payload_case) {
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_ADD:
		HOLDS(descriptors == 1 && request->add->uid[0] && request->add->workload_info);
		break;
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_KEEP:
		HOLDS(descriptors == 0 && request->keep->uid[0] && !peer->is_snapshot_sent);
		break;
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_DEL:
		HOLDS(descriptors == 0 && request->del->uid[0] && peer->is_snapshot_sent);
		break;
	default:
		HOLDS(request->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_SNAPSHOT_SENT &&
		      descriptors == 0 && !peer->is_snapshot_sent);
		peer->is_snapshot_sent = true;
	}
	istio__workload__zds__workload_request__free_unpacked(request, NULL);
	return true;
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

/* Returns how many bytes of the input the step took besides its own. */
static size_t take_step(struct tunnel_server *server, uint8_t step, const uint8_t *bytes, size_t left)
{
	struct peer *peer = &peers[(step >> 3) % PEERS];
	const unsigned int uid = (step >> 3) % UIDS;
	const struct tunnel_workload workload = workload_of(uid, own_netns());
	struct error error = { 0 };
	size_t length = 0;
	switch ((enum step)(step & 7)) {
	case STEP_CONNECT:
		arrive(peer);
		(void)!send(peer->fd, "\x08\x01", step & 0x80 ? 0 : 2, MSG_NOSIGNAL); /* a hello, or the end of file */
		break;
	case STEP_PACKET:
		length = left > 0 ? (bytes[0] < left - 1 ? bytes[0] : left - 1) : 0;
		if (peer->fd >= 0)
			(void)!send(peer->fd, bytes + 1, length, MSG_NOSIGNAL);
		return left > 0 ? length + 1 : 0;
	case STEP_ACCEPT:
		if (peer->fd >= 0)
			(void)!send(peer->fd, "\x0a\x00", 2, MSG_NOSIGNAL);
		break;
	case STEP_CLOSE:
		leave(peer);
		break;
	case STEP_ADD:
		outstanding[TUNNEL_ADD][uid] += tunnel_add(server, &workload, &error) == 0;
		break;
	case STEP_DELETE:
		outstanding[TUNNEL_DELETE][uid] += tunnel_delete(server, workload.uid, &error) == 0;
		break;
	case STEP_READ:
		while (peer->fd >= 0 && read_packet(peer))
			;
		break;
	case STEP_READY:
		tunnel_server_set_ready(server, !(step & 8));
		break;
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	const struct log log = { .fd = -1 };
	const struct tunnel_listener listener = { snapshot, answered, connections_changed, superseded, NULL };
	struct event_base *base = event_base_new();
	struct tunnel_server *server = NULL;
	memset(outstanding, 0, sizeof outstanding);
	for (size_t i = 0; i < PEERS; i++)
		peers[i] = (struct peer){ .fd = -1 };
	HOLDS(tunnel_server_new(base, "/nowhere", &listener, NULL, &log, &error, &server) == 0);
	for (size_t at = 0; at < size;) {
		uint8_t step = data[at++];
		at += take_step(server, step, data + at, size - at);
		event_base_loop(base, EVLOOP_NONBLOCK);
		event_base_loop(base, EVLOOP_NONBLOCK);
		struct tunnel_connection_state state;
		for (size_t i = 0; tunnel_connection_state(server, i, &state); i++)
			HOLDS(state.unanswered <= 32);
	}
	tunnel_server_close_connections(server);
	for (int turn = 0; turn < 4; turn++)
		event_base_loop(base, EVLOOP_NONBLOCK);
	HOLDS(tunnel_connections(server) == 0);
	for (size_t uid = 0; uid < UIDS; uid++)
		HOLDS(outstanding[TUNNEL_ADD][uid] == 0 && outstanding[TUNNEL_DELETE][uid] == 0);
	tunnel_server_free(server);
	event_base_free(base);
	for (size_t i = 0; i < PEERS; i++)
		leave(&peers[i]);
	return 0;
}
