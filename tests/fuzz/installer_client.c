/* The plugin's ADD with an agent at the other end that says what it wants. The input is connections, which end with a 0xff
 * each; their packets end with a 0xfe each. The rules are only noted, not made.
 *
 * Whatever the agent says: an ADD that fails leaves no rules, one that succeeds has them, unless a packet said "skip". */
#include "plugin/installer_client.h"

#include <errno.h>
#include <sys/socket.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/redirect.h"
#include "ambient/wire.h"
#include "tests/fuzz/agent.h"

static const uint8_t *input, *input_end;
static bool is_applied, was_skipped;
static int pod_netns, agent_end = -1;
static long waited_nanoseconds;

int __wrap_wire_connect(const char *path, long timeout_milliseconds, struct error *error, int *ret_connection);
int __wrap_redirect_apply(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
			  struct error *error);
int __wrap_redirect_remove(struct redirect_session *session, struct error *error);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now);

static void note_skip(const uint8_t *packet, size_t length)
{
	struct error error = { 0 };
	cleanup_wire_message struct wire_message message = { 0 };
	if (wire_decode((const char *)packet, length, &error, &message) == 0)
		was_skipped |= message.kind == WIRE_DECISION && message.verdict == WIRE_VERDICT_SKIP;
}

/* All that the agent will say lies there already; then it closes. */
int __wrap_wire_connect(const char *path, long timeout_milliseconds, struct error *error, int *ret_connection)
{
	int pair[2];
	(void)path, (void)timeout_milliseconds;
	if (agent_end >= 0)
		close(steal_fd(&agent_end));
	if (input == input_end)
		return error_set(error, ECONNREFUSED, "nobody is there");
	HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	const uint8_t *end = memchr(input, 0xff, (size_t)(input_end - input));
	const uint8_t *next = end ? end + 1 : input_end;
	if (!end)
		end = input_end;
	while (input < end) {
		const uint8_t *packet_end = memchr(input, 0xfe, (size_t)(end - input));
		if (!packet_end)
			packet_end = end;
		(void)!send(pair[1], input, (size_t)(packet_end - input), MSG_NOSIGNAL | MSG_DONTWAIT);
		note_skip(input, (size_t)(packet_end - input));
		input = packet_end < end ? packet_end + 1 : end;
	}
	input = next;
	shutdown(pair[1], SHUT_WR);
	agent_end = pair[1];
	*ret_connection = pair[0];
	return 0;
}

int __wrap_redirect_apply(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
			  struct error *error)
{
	(void)session;
	HOLDS(stage == REDIRECT_STAGE_FULL);
	if (redirect->dns_capture && redirect->bypass_inbound) /* of all things */
		return error_set(error, EOPNOTSUPP, "the kernel lacks a feature");
	is_applied = true;
	return 0;
}

int __wrap_redirect_remove(struct redirect_session *session, struct error *error)
{
	(void)session, (void)error;
	is_applied = false;
	return 0;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
	(void)time, (void)left;
	waited_nanoseconds += 400000000;
	return 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now)
{
	(void)clock;
	*ret_now = (struct timespec){ .tv_sec = 1000 + waited_nanoseconds / 1000000000,
				      .tv_nsec = waited_nanoseconds % 1000000000 };
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	struct error error = { 0 };
	int home = fuzz_agent_place();
	struct netns_visit visit = { .home = -1 };
	HOLDS(unshare(CLONE_NEWNET) == 0 && netns_open("/proc/self/ns/net", &error, &pod_netns) == 0);
	HOLDS(netns_enter(home, &error, &visit) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	struct call call = { .container_id = "c1",
			     .interface = "eth0",
			     .config = { .run_dir = FUZZ_RUN_DIR,
					 .timeout_seconds = 1,
					 .installer_namespace = "istio-system",
					 .installer_pod_prefix = "istio-cni-node-",
					 .name = "net" },
			     .log = { .fd = -1 } };
	const struct attachment attachment = { .container_id = (char *)"c1",
					       .interface = (char *)"eth0",
					       .pod_namespace = (char *)"shop",
					       .pod_name = (char *)"pod-1",
					       .pod_uid = (char *)"u1" };
	input = data;
	input_end = data + size;
	is_applied = was_skipped = false;
	waited_nanoseconds = 0;
	enum cni_code code = installer_add(&call, &attachment, pod_netns, &error);
	HOLDS(code == CNI_OK ? is_applied || was_skipped
			     : !is_applied && error_is_set(&error) && code != CNI_UNKNOWN_CONTAINER);
	/* The other verbs are only told. */
	input = data;
	installer_del(&call, &attachment, pod_netns);
	installer_gc(&call);
	if (agent_end >= 0)
		close(steal_fd(&agent_end));
	return 0;
}
