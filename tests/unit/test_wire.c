/* Plugin and installer: every message there and back, packets that break the protocol, peers, descriptors, versions. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ambient/cleanup.h"
#include "ambient/unix_address.h"
#include "ambient/wire.h"
#include "tests/unit/process.h"

static struct attachment example_attachment(void)
{
	static char *addresses[] = { "10.0.0.2", "fd00::2" };
	return (struct attachment){ .network = "podnet",
				    .container_id = "c0ffee",
				    .interface = "eth0",
				    .netns_path = "/run/netns/x",
				    .netns = { .device = 4, .inode = 18446744073709551557ull },
				    .pod_namespace = "shop",
				    .pod_name = "cart",
				    .pod_uid = "u-1",
				    .addresses = addresses,
				    .addresses_count = 2 };
}

static void there_and_back(const struct wire_message *message, struct wire_message *ret_message)
{
	cleanup_free char *text = NULL;
	struct error error = { 0 };
	assert_int_equal(wire_encode(message, &error, &text), 0);
	/* Cut anywhere it is no message, and no byte behind its end is read. */
	for (size_t length = 0; length < strlen(text); length++) {
		cleanup_wire_message struct wire_message cut = { 0 };
		cleanup_free char *copy = malloc(length ? length : 1);
		memcpy(copy, text, length);
		assert_int_equal(wire_decode(copy, length, NULL, &cut), -1);
	}
	assert_int_equal(wire_decode(text, strlen(text), &error, ret_message), 0);
	assert_int_equal(ret_message->kind, message->kind);
	assert_int_equal(ret_message->version, WIRE_VERSION);
}

static void every_message_goes_there_and_back(void **state)
{
	(void)state;
	cleanup_wire_message struct wire_message add = { 0 }, decision = { 0 }, skip = { 0 }, report = { 0 }, result = { 0 },
						 gc = { 0 };
	cleanup_redirect struct redirect redirect;
	redirect_init(&redirect);
	redirect.bypass_inbound = true;

	there_and_back(
		&(struct wire_message){
			.kind = WIRE_ADD, .attachment = example_attachment(), .timeout_milliseconds = 4999, .log = "debug: x" },
		&add);
	assert_int_equal(add.timeout_milliseconds, 4999);
	assert_string_equal(add.attachment.pod_uid, "u-1");
	assert_true(add.attachment.netns.inode == 18446744073709551557ull);
	assert_string_equal(add.attachment.addresses[1], "fd00::2");
	assert_string_equal(add.log, "debug: x");
	there_and_back(
		&(struct wire_message){
			.kind = WIRE_DECISION, .verdict = WIRE_VERDICT_REDIRECT, .redirect = redirect, .reason = "r" },
		&decision);
	assert_true(redirect_equal(&decision.redirect, &redirect));
	there_and_back(&(struct wire_message){ .kind = WIRE_DECISION, .verdict = WIRE_VERDICT_SKIP, .reason = "no label" },
		       &skip);
	assert_int_equal(skip.verdict, WIRE_VERDICT_SKIP);
	assert_string_equal(skip.reason, "no label");
	there_and_back(&(struct wire_message){ .kind = WIRE_REPORT, .message = "no memory" }, &report);
	assert_string_equal(report.message, "no memory");
	there_and_back(&(struct wire_message){ .kind = WIRE_RESULT, .code = 11, .message = "m", .details = "d" }, &result);
	assert_int_equal(result.code, 11);
	struct wire_valid_attachment valid[] = { { "c1", "eth0" }, { "c2", "eth1" } };
	there_and_back(&(struct wire_message){ .kind = WIRE_GC, .network = "podnet", .valid = valid, .valid_count = 2 }, &gc);
	assert_string_equal(gc.valid[1].interface, "eth1");
}

#define HEAD "{\"version\":1,\"minimumVersion\":1,"

static void packets_that_break_the_protocol(void **state)
{
	(void)state;
	static const char *const cases[][2] = {
		{ "[]", "expected an object" },
		{ "{\"type\":\"report\"}", "version and minimumVersion are missing" },
		{ "{\"version\":1,\"minimumVersion\":2,\"type\":\"report\"}", "contradict" },
		{ "{\"version\":3,\"minimumVersion\":2,\"type\":\"report\"}", "must be upgraded" },
		{ HEAD "\"type\":\"hello\"}", "type: expected add" },
		{ HEAD "\"type\":7}", "type: expected a string" },
		{ HEAD "\"type\":\"add\"}", "attachment: expected an object, found nothing" },
		{ HEAD "\"type\":\"add\",\"attachment\":{\"network\":\"n\",\"containerID\":\"../x\",\"interface\":\"eth0\"}}",
		  "not allowed" },
		{ HEAD "\"type\":\"add\",\"attachment\":{\"network\":\"n\",\"containerID\":\"x\",\"interface\":\"a/b\"}}",
		  "not allowed" },
		{ HEAD "\"type\":\"add\",\"attachment\":{\"network\":\"n\",\"containerID\":\"x\",\"interface\":\"e\","
		       "\"netns\":{\"device\":\"1\",\"inode\":\"-1\"}}}",
		  "decimal number" },
		{ HEAD "\"type\":\"add\",\"attachment\":{\"network\":\"n\",\"containerID\":\"x\",\"interface\":\"e\","
		       "\"addresses\":[1]}}",
		  "addresses[0]" },
		{ HEAD "\"type\":\"decision\"}", "decision: expected redirect or skip" },
		{ HEAD "\"type\":\"decision\",\"decision\":\"redirect\"}", "redirect is missing" },
		{ HEAD "\"type\":\"decision\",\"decision\":\"redirect\",\"redirect\":{\"ipv6\":1}}", "redirect.ipv6" },
		{ HEAD "\"type\":\"result\"}", "code is missing" },
		{ HEAD "\"type\":\"result\",\"code\":5}", "message is missing" },
		{ HEAD "\"type\":\"result\",\"code\":-5,\"message\":\"x\"}", "an integer from 0" },
		{ HEAD "\"type\":\"gc\",\"network\":\"n\"}", "valid is missing" },
		{ HEAD "\"type\":\"gc\",\"network\":\"n\",\"valid\":[{}]}", "valid[0]" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_wire_message struct wire_message message = { 0 };
		struct error error = { 0 };
		assert_int_equal(wire_decode(cases[i][0], strlen(cases[i][0]), &error, &message), -1);
		if (!strstr(error.message, cases[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", cases[i][0], error.message, cases[i][1]);
	}
}

static void a_version_more_or_less_works_or_says_so(void **state)
{
	(void)state;
	static const char newer[] = "{\"version\":2,\"minimumVersion\":1,\"type\":\"report\",\"new\":{}}";
	cleanup_wire_message struct wire_message message = { 0 };
	assert_int_equal(wire_decode(newer, strlen(newer), NULL, &message), 0);
	assert_int_equal(message.version, 2);
	static const char too_new[] = "{\"version\":2,\"minimumVersion\":2,\"type\":\"report\"}";
	struct error error = { 0 };
	assert_int_equal(wire_decode(too_new, strlen(too_new), &error, &message), -1);
	assert_int_equal(error.number, EPROTONOSUPPORT);
}

/* Sends a raw packet with `count` descriptors. */
static void send_raw(int socket, const char *text, size_t length, const int *descriptors, size_t count)
{
	union {
		char buffer[CMSG_SPACE(8 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)text, .iov_len = length };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
	if (count > 0) {
		packet.msg_control = control.buffer;
		packet.msg_controllen = CMSG_SPACE(count * sizeof(int));
		struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(header), descriptors, count * sizeof(int));
	}
	assert_int_equal(sendmsg(socket, &packet, 0), (ssize_t)length);
}

static void wrong_descriptors_are_refused_and_closed(void **state)
{
	(void)state;
	cleanup_close int netns = make_namespace(), own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	cleanup_close int file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	cleanup_free char *add = NULL, *report = NULL;
	int pair[2];
	const struct wire_message message = { .kind = WIRE_ADD, .attachment = example_attachment() };
	assert_int_equal(wire_encode(&message, NULL, &add), 0);
	assert_int_equal(wire_encode(&(struct wire_message){ .kind = WIRE_REPORT }, NULL, &report), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	const struct {
		const char *text;
		int descriptors[8];
		size_t count;
	} cases[] = {
		{ add, { -1 }, 0 },   { add, { netns, netns }, 2 }, { add, { netns, netns, netns, netns, netns, netns }, 6 },
		{ add, { file }, 1 }, { add, { own }, 1 },	    { report, { netns }, 1 },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_wire_message struct wire_message got = { 0 };
		struct error error = { 0 };
		int descriptor = -1, before = count_descriptors();
		send_raw(pair[0], cases[i].text, strlen(cases[i].text), cases[i].descriptors, cases[i].count);
		assert_int_equal(wire_receive(pair[1], &error, &got, &descriptor), -1);
		assert_int_equal(descriptor, -1);
		assert_int_equal(count_descriptors(), before);
	}
	cleanup_wire_message struct wire_message got = { 0 };
	cleanup_close int descriptor = -1;
	assert_int_equal(wire_send(pair[0], &message, netns, NULL), 0);
	assert_int_equal(wire_receive(pair[1], NULL, &got, &descriptor), 0);
	struct netns_id a, b;
	assert_int_equal(netns_identify(netns, NULL, &a) | netns_identify(descriptor, NULL, &b), 0);
	assert_true(a.inode == b.inode);
	assert_true(fcntl(descriptor, F_GETFD) & FD_CLOEXEC);
	close(pair[0]);
	close(pair[1]);
}

/* Who receives has no descriptor left: the sender did nothing wrong. */
static void no_room_for_a_descriptor_is_told(void **state)
{
	(void)state;
	int pair[2], descriptor = -1;
	cleanup_wire_message struct wire_message got = { 0 };
	struct error error = { 0 };
	struct rlimit old;
	cleanup_close int netns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	int before = count_descriptors();
	const struct wire_message message = { .kind = WIRE_DEL };
	assert_int_equal(wire_send(pair[0], &message, netns, NULL), 0);
	int lowest = dup(pair[0]);
	close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	const struct rlimit limit = { .rlim_cur = (rlim_t)lowest, .rlim_max = old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	int result = wire_receive(pair[1], &error, &got, &descriptor);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(result, -1);
	assert_int_equal(error.number, EMFILE);
	assert_string_equal(error.message, "cannot receive the descriptor that comes with a message: Too many open files");
	assert_int_equal(descriptor, -1);
	assert_int_equal(count_descriptors(), before);
	close(pair[0]);
	close(pair[1]);
}

static void a_packet_too_large_and_an_end_are_told_apart(void **state)
{
	(void)state;
	int pair[2], descriptor = -1;
	cleanup_free char *large = calloc(1, WIRE_PACKET_MAX + 10);
	cleanup_wire_message struct wire_message got = { 0 };
	struct error error = { 0 };
	memset(large, ' ', WIRE_PACKET_MAX + 10);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	send_raw(pair[0], large, WIRE_PACKET_MAX + 10, NULL, 0);
	assert_int_equal(wire_receive(pair[1], &error, &got, &descriptor), -1);
	assert_int_equal(error.number, EPROTO);
	assert_non_null(strstr(error.message, "larger than"));
	close(pair[0]);
	error = (struct error){ 0 };
	assert_int_equal(wire_receive(pair[1], &error, &got, &descriptor), -1);
	assert_int_equal(error.number, ECONNRESET);
	assert_int_equal(wire_send(pair[1], &(struct wire_message){ .kind = WIRE_REPORT }, -1, &error), -1);
	close(pair[1]);
}

static void an_agent_that_is_away_or_silent(void **state)
{
	(void)state;
	char directory[] = "/tmp/ambient-wire-XXXXXX", path[64];
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/installer.sock", directory);
	struct error error = { 0 };
	int connection = -1;
	assert_int_equal(wire_connect(path, 100, &error, &connection), -1);
	assert_int_equal(error.number, ENOENT);

	cleanup_close int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct sockaddr_un address;
	assert_int_equal(unix_address(path, NULL, &address), 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address) | listen(listener, 1), 0);

	/* Nobody reads: the time-out ends the wait. */
	cleanup_wire_message struct wire_message got = { 0 };
	int descriptor = -1;
	error = (struct error){ 0 };
	cleanup_close int impatient = -1;
	assert_int_equal(wire_connect(path, 50, NULL, &impatient), 0);
	assert_int_equal(wire_receive(impatient, &error, &got, &descriptor), -1);
	assert_int_equal(error.number, EAGAIN);

	close(steal_fd(&listener));
	error = (struct error){ 0 };
	assert_int_equal(wire_connect(path, 50, &error, &connection), -1);
	assert_int_equal(error.number, ECONNREFUSED);
	unlink(path);
	rmdir(directory);
}

static void an_agent_that_is_not_root(void **state)
{
	(void)state;
	char directory[] = "/tmp/ambient-wire-XXXXXX", path[64];
	assert_non_null(mkdtemp(directory));
	assert_int_equal(chmod(directory, 0777), 0);
	snprintf(path, sizeof path, "%s/installer.sock", directory);
	int listens[2];
	assert_int_equal(pipe2(listens, O_CLOEXEC), 0);
	pid_t child = fork();
	if (child == 0) {
		struct sockaddr_un address;
		int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
		if (setuid(65534) < 0 || unix_address(path, NULL, &address) < 0 ||
		    bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0 ||
		    write(listens[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	close(listens[1]);
	char byte;
	assert_int_equal(read(listens[0], &byte, 1), 1);
	close(listens[0]);
	struct error error = { 0 };
	int connection = -1;
	assert_int_equal(wire_connect(path, 1000, &error, &connection), -1);
	assert_int_equal(error.number, EPERM);
	assert_non_null(strstr(error.message, "uid 65534"));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	unlink(path);
	rmdir(directory);
}

static void a_path_too_long(void **state)
{
	(void)state;
	char path[109];
	memset(path, '/', sizeof path);
	path[108] = '\0';
	struct sockaddr_un address;
	struct error error = { 0 };
	int connection = -1;
	assert_int_equal(wire_connect(path, 100, &error, &connection), -1);
	assert_int_equal(error.number, ENAMETOOLONG);
	assert_non_null(strstr(error.message, "at most 107 characters"));
	assert_int_equal(unix_address(path + 1, NULL, &address), 0);
	assert_string_equal(address.sun_path, path + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_goes_there_and_back),
		cmocka_unit_test(packets_that_break_the_protocol),
		cmocka_unit_test(a_version_more_or_less_works_or_says_so),
		cmocka_unit_test(wrong_descriptors_are_refused_and_closed),
		cmocka_unit_test(no_room_for_a_descriptor_is_told),
		cmocka_unit_test(a_packet_too_large_and_an_end_are_told_apart),
		cmocka_unit_test(an_agent_that_is_away_or_silent),
		cmocka_unit_test(an_agent_that_is_not_root),
		cmocka_unit_test(a_path_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
