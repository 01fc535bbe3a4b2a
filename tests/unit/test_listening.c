/* What is seen of the tunnel's sockets, with real ones in namespaces of the test's own. */
#include "tests/unit/cmocka_headers.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/redirect.h"
#include "installer/netns/listening.h"

static int enter_fresh_namespace(void **state __attribute__((unused)))
{
	return unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0 ? -1 : 0;
}

static int own_namespace(void)
{
	int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static socklen_t make_address(const char *text, uint16_t port, struct sockaddr_storage *address)
{
	struct sockaddr_in *ipv4 = (struct sockaddr_in *)address;
	struct sockaddr_in6 *ipv6 = (struct sockaddr_in6 *)address;
	memset(address, 0, sizeof *address);
	if (strchr(text, ':')) {
		ipv6->sin6_family = AF_INET6;
		ipv6->sin6_port = htons(port);
		assert_int_equal(inet_pton(AF_INET6, text, &ipv6->sin6_addr), 1);
		return sizeof *ipv6;
	}
	ipv4->sin_family = AF_INET;
	ipv4->sin_port = htons(port);
	assert_int_equal(inet_pton(AF_INET, text, &ipv4->sin_addr), 1);
	return sizeof *ipv4;
}

static int open_socket(const char *text, int type, uint32_t mark)
{
	int fd = socket(strchr(text, ':') ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0), on = 1;
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark), 0);
	return fd;
}

/* `is_ipv6_only` is of interest for :: alone. */
static int listen_at(const char *text, uint16_t port, int type, bool is_ipv6_only, uint32_t mark)
{
	struct sockaddr_storage address;
	socklen_t length = make_address(text, port, &address);
	int fd = open_socket(text, type, mark), only = is_ipv6_only;
	if (strchr(text, ':'))
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static int connect_to(const char *text, uint16_t port, uint32_t mark)
{
	struct sockaddr_storage address;
	socklen_t length = make_address(text, port, &address);
	int fd = open_socket(text, SOCK_STREAM, mark);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
	return fd;
}

static struct listening look(void)
{
	struct error error = { 0 };
	struct listening listening;
	cleanup_close int netns = own_namespace();
	if (listening_look(netns, &error, &listening) < 0)
		fail_msg("%s", error.message);
	return listening;
}

static void assert_listening(enum listening_port port, bool ipv4, bool ipv6)
{
	struct listening listening = look();
	for (enum listening_port other = 0; other < LISTENING_PORT_COUNT; other++) {
		assert_int_equal(listening.ipv4[other], other == port && ipv4);
		assert_int_equal(listening.ipv6[other], other == port && ipv6);
	}
}

static void each_port_and_family(void **state __attribute__((unused)))
{
	static const struct {
		enum listening_port port;
		uint16_t number;
		int type;
	} ports[] = {
		{ LISTENING_OUTBOUND, 15001, SOCK_STREAM }, { LISTENING_INBOUND, 15006, SOCK_STREAM },
		{ LISTENING_HBONE, 15008, SOCK_STREAM },    { LISTENING_DNS_TCP, 15053, SOCK_STREAM },
		{ LISTENING_DNS_UDP, 15053, SOCK_DGRAM },
	};
	static const struct {
		const char *address;
		bool is_ipv6_only, ipv4, ipv6;
	} addresses[] = {
		{ "0.0.0.0", false, true, false }, { "127.0.0.1", false, true, false },
		{ "::", true, false, true },	   { "::", false, true, true },
		{ "::1", false, false, true },	   { "::ffff:127.0.0.1", false, true, false },
	};
	for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
		for (size_t j = 0; j < sizeof addresses / sizeof addresses[0]; j++) {
			int fd = listen_at(addresses[j].address, ports[i].number, ports[i].type, addresses[j].is_ipv6_only, 0);
			assert_listening(ports[i].port, addresses[j].ipv4, addresses[j].ipv6);
			close(fd);
		}
	}
}

/* What is looked up is what a SYN would find: a listener for all addresses, of the port and of the namespace. */
static void looked_up_like_a_syn(void **state __attribute__((unused)))
{
	static const struct {
		const char *address;
		bool is_ipv6_only, ipv4, ipv6;
	} cases[] = {
		{ "0.0.0.0", false, true, false },    { "::", true, false, true },    { "::", false, true, true },
		{ "127.0.0.1", false, false, false }, { "::1", false, false, false },
	};
	struct error error = { 0 };
	struct listening listening;
	cleanup_close int netns = own_namespace();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (int port = 15000; port < 15010; port++) {
			int fd = listen_at(cases[i].address, (uint16_t)port, SOCK_STREAM, cases[i].is_ipv6_only, 0);
			if (listening_look_up(netns, &error, &listening) < 0)
				fail_msg("%s", error.message);
			bool is_outbound = port == REDIRECT_PORT_OUTBOUND, is_inbound = port == REDIRECT_PORT_INBOUND;
			assert_int_equal(listening.ipv4[LISTENING_OUTBOUND], is_outbound && cases[i].ipv4);
			assert_int_equal(listening.ipv6[LISTENING_OUTBOUND], is_outbound && cases[i].ipv6);
			assert_int_equal(listening.ipv4[LISTENING_INBOUND], is_inbound && cases[i].ipv4);
			assert_int_equal(listening.ipv6[LISTENING_INBOUND], is_inbound && cases[i].ipv6);
			close(fd);
		}
	}
	/* A connection on the port is no listener, nor is a listener of another namespace. */
	int listener = listen_at("::", REDIRECT_PORT_INBOUND, SOCK_STREAM, false, 0);
	cleanup_close int connected = connect_to("127.0.0.1", REDIRECT_PORT_INBOUND, 0);
	close(listener);
	cleanup_close int outbound = listen_at("::", REDIRECT_PORT_OUTBOUND, SOCK_STREAM, false, 0);
	assert_int_equal(listening_look_up(netns, &error, &listening), 0);
	assert_false(listening.ipv4[LISTENING_INBOUND] || listening.ipv6[LISTENING_INBOUND]);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	cleanup_close int elsewhere = own_namespace();
	assert_int_equal(listening_look_up(elsewhere, &error, &listening), 0);
	assert_false(listening.ipv4[LISTENING_OUTBOUND] || listening.ipv6[LISTENING_OUTBOUND]);
}

static bool is_tunnel_there(void)
{
	struct error error = { 0 };
	bool listens = false;
	cleanup_close int netns = own_namespace();
	if (listening_look_for_tunnel(netns, &error, &listens) < 0)
		fail_msg("%s", error.message);
	return listens;
}

static void a_tunnel_is_told_by_its_mark(void **state __attribute__((unused)))
{
	static const char *const addresses[] = { "0.0.0.0", "127.0.0.1", "::", "::1" };
	static const struct {
		uint16_t port;
		uint32_t mark;
		bool is_tunnel;
	} cases[] = {
		{ 15001, 0x539, true }, { 15006, 0x539, true },	 { 15006, 0xfffff539, true }, { 15001, 0, false },
		{ 15006, 0, false },	{ 15006, 0x538, false }, { 15008, 0x539, false },     { 15053, 0x539, false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (size_t j = 0; j < sizeof addresses / sizeof addresses[0]; j++) {
			int fd = listen_at(addresses[j], cases[i].port, SOCK_STREAM, 1, cases[i].mark);
			assert_int_equal(is_tunnel_there(), cases[i].is_tunnel);
			close(fd);
		}
	}
	cleanup_close int application = listen_at("127.0.0.1", 15001, SOCK_STREAM, false, 0);
	cleanup_close int tunnel = listen_at("::1", 15001, SOCK_STREAM, false, REDIRECT_TUNNEL_MARK);
	assert_true(is_tunnel_there());
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_false(is_tunnel_there());
}

static void others_and_other_namespaces_do_not_count(void **state __attribute__((unused)))
{
	cleanup_close int fd = listen_at("::", 15002, SOCK_STREAM, false, 0);
	cleanup_close int udp = listen_at("::", 15001, SOCK_DGRAM, false, 0);
	assert_listening(LISTENING_PORT_COUNT, false, false);

	struct listening listening;
	cleanup_close int empty = own_namespace();
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	cleanup_close int elsewhere = listen_at("::", 15001, SOCK_STREAM, false, 0);
	assert_listening(LISTENING_OUTBOUND, true, true);
	assert_int_equal(listening_look(empty, NULL, &listening), 0);
	assert_false(listening.ipv4[LISTENING_OUTBOUND]);
}

/* An acknowledgement may take some 40 ms. */
static void assert_carried(size_t connections, size_t transports)
{
	struct error error = { 0 };
	struct carried carried;
	cleanup_close int netns = own_namespace();
	for (int i = 0; i < 200; i++) {
		if (listening_count_carried(netns, &error, &carried) < 0)
			fail_msg("%s", error.message);
		if (carried.connections == connections && carried.transports == transports)
			break;
		usleep(5000);
	}
	assert_int_equal(carried.connections, connections);
	assert_int_equal(carried.transports, transports);
}

static void nothing_is_carried_by_listening(void **state __attribute__((unused)))
{
	static const uint16_t ports[] = { 15001, 15006, 15008, 15053 };
	int sockets[4];
	for (size_t i = 0; i < 4; i++)
		sockets[i] = listen_at("::", ports[i], SOCK_STREAM, false, REDIRECT_TUNNEL_MARK);
	/* And the application talks to itself. */
	cleanup_close int application = listen_at("::", 8080, SOCK_STREAM, false, 0);
	cleanup_close int ipv4 = connect_to("127.0.0.1", 8080, 0), ipv6 = connect_to("::1", 8080, 0x111);
	cleanup_close int accepted = accept(application, NULL, NULL);
	assert_carried(0, 0);
	for (size_t i = 0; i < 4; i++)
		close(sockets[i]);
}

static void abort_connection(int fd)
{
	struct linger linger = { .l_onoff = 1 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(fd);
}

static void accepted_connections(void **state __attribute__((unused)))
{
	static const struct {
		uint16_t port;
		size_t connections, transports;
	} ports[] = { { 15001, 1, 0 }, { 15006, 1, 0 }, { 15053, 1, 0 }, { 15008, 0, 1 } };
	static const char *const addresses[] = { "127.0.0.1", "::1" };
	for (size_t i = 0; i < 4; i++) {
		for (size_t j = 0; j < 2; j++) {
			/* One socket for both families: an IPv4 connection is a mapped one of IPv6. */
			cleanup_close int listener = listen_at("::", ports[i].port, SOCK_STREAM, false, REDIRECT_TUNNEL_MARK);
			int client = connect_to(addresses[j], ports[i].port, 0);
			/* Not accepted yet, and accepted. */
			assert_carried(ports[i].connections, ports[i].transports);
			int server = accept(listener, NULL, NULL);
			assert_carried(ports[i].connections, ports[i].transports);
			/* Half closed by the peer: the other direction may still be used. */
			shutdown(client, SHUT_WR);
			assert_carried(ports[i].connections, ports[i].transports);
			abort_connection(server);
			assert_carried(0, 0);
			close(client);
		}
	}
}

static void what_the_tunnel_connects(void **state __attribute__((unused)))
{
	cleanup_close int application = listen_at("::", 8080, SOCK_STREAM, false, 0);
	cleanup_close int hbone = listen_at("::", 15008, SOCK_STREAM, false, 0);
	int to_application = connect_to("127.0.0.1", 8080, REDIRECT_TUNNEL_MARK);
	assert_carried(1, 0);
	/* Other bits of the mark belong to others. */
	int other_bits = connect_to("::1", 8080, 0xabc000 | REDIRECT_TUNNEL_MARK);
	assert_carried(2, 0);
	/* Both ends of an HBONE connection are in this namespace: two sockets. */
	int to_peer = connect_to("::1", 15008, REDIRECT_TUNNEL_MARK);
	assert_carried(2, 2);
	abort_connection(to_peer);
	abort_connection(other_bits);
	assert_carried(1, 0);

	/* Orderly: the application closes first, then the tunnel; time-wait does not count. */
	int server = accept(application, NULL, NULL);
	shutdown(server, SHUT_WR);
	assert_carried(1, 0);
	close(to_application);
	assert_carried(0, 0);
	close(server);
	assert_carried(0, 0);
}

static void the_tunnel_closed_and_the_peer_does_not(void **state __attribute__((unused)))
{
	cleanup_close int application = listen_at("::", 8080, SOCK_STREAM, false, 0);
	int to_application = connect_to("127.0.0.1", 8080, REDIRECT_TUNNEL_MARK);
	cleanup_close int server = accept(application, NULL, NULL);
	close(to_application);
	assert_carried(0, 0);
}

/* What was not sent yet is still carried, though its program is gone. */
static void unsent_data_is_carried(void **state __attribute__((unused)))
{
	static char data[65536];
	cleanup_close int application = listen_at("::", 8080, SOCK_STREAM, false, 0);
	int to_application = connect_to("127.0.0.1", 8080, REDIRECT_TUNNEL_MARK);
	int server = accept(application, NULL, NULL);
	while (send(to_application, data, sizeof data, MSG_DONTWAIT) > 0)
		;
	close(to_application);
	assert_carried(1, 0);
	abort_connection(server);
	assert_carried(0, 0);
}

#define TEST(function) cmocka_unit_test_setup(function, enter_fresh_namespace)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(each_port_and_family),
		TEST(looked_up_like_a_syn),
		TEST(a_tunnel_is_told_by_its_mark),
		TEST(others_and_other_namespaces_do_not_count),
		TEST(nothing_is_carried_by_listening),
		TEST(accepted_connections),
		TEST(what_the_tunnel_connects),
		TEST(the_tunnel_closed_and_the_peer_does_not),
		TEST(unsent_data_is_carried),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
