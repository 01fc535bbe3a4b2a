/* The policy rule and the local route, in namespaces of the test's own; ip(8) is the independent witness. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/route.h"

/* Each test has a fresh namespace with lo up; the process stays in it until the next. */
static int enter_fresh_namespace(void **state)
{
	struct nl_sock *socket = NULL;
	if (unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0 || route_socket_open(NULL, &socket) < 0)
		return -1;
	*state = socket;
	return 0;
}

static int leave(void **state)
{
	route_socket_close(*state);
	return 0;
}

static int count_lines(const char *command)
{
	int lines = 0;
	char line[512];
	FILE *out = popen(command, "r");
	assert_non_null(out);
	while (fgets(line, sizeof line, out))
		lines++;
	pclose(out);
	return lines;
}

#define RULES4 "ip -4 rule | grep -c 'fwmark 0x111/0xfff lookup 100' | grep -x 1"
#define RULES6 "ip -6 rule | grep -c 'fwmark 0x111/0xfff lookup 100' | grep -x 1"
#define ROUTE4 "ip -4 route show table 100 | grep '^local default dev lo'"
#define ROUTE6 "ip -6 route show table 100 | grep '^local default dev lo'"

static void assert_standing(struct nl_sock *socket, bool ipv6)
{
	char difference[256];
	struct error error = { 0 };
	assert_int_equal(route_verify(socket, ipv6, &error, difference, sizeof difference), 0);
	assert_string_equal(difference, "");
}

static void assert_difference(struct nl_sock *socket, const char *words)
{
	char difference[256];
	assert_int_equal(route_verify(socket, true, NULL, difference, sizeof difference), 0);
	if (!strstr(difference, words))
		fail_msg("\"%s\" does not say \"%s\"", difference, words);
}

static void both_families_once(void **state)
{
	struct nl_sock *socket = *state;
	for (int i = 0; i < 2; i++) {
		struct error error = { 0 };
		assert_int_equal(route_add(socket, true, &error), 0);
		assert_int_equal(count_lines(RULES4), 1);
		assert_int_equal(count_lines(RULES6), 1);
		assert_int_equal(count_lines(ROUTE4), 1);
		assert_int_equal(count_lines(ROUTE6), 1);
		assert_standing(socket, true);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(route_remove(socket, NULL), 0);
		assert_int_equal(
			count_lines("ip -4 rule; ip -6 rule; ip -4 route show table 100 2>&-; ip -6 route show table 100 2>&-"),
			5);
	}
}

static void ipv4_alone_where_asked(void **state)
{
	struct nl_sock *socket = *state;
	assert_int_equal(route_add(socket, false, NULL), 0);
	assert_int_equal(count_lines(RULES4), 1);
	assert_int_equal(count_lines("ip -6 rule | grep fwmark"), 0);
	assert_standing(socket, false);
}

static void loopback_is_brought_up(void **state)
{
	struct nl_sock *socket = *state;
	struct error error = { 0 };
	assert_int_equal(system("ip link set lo down"), 0);
	assert_int_equal(route_add(socket, true, &error), 0);
	assert_int_equal(count_lines("ip link show lo up"), 2);
	assert_int_equal(count_lines(ROUTE4), 1);
	assert_int_equal(count_lines(ROUTE6), 1);
}

static void each_part_that_is_missing_is_found(void **state)
{
	struct nl_sock *socket = *state;
	static const struct {
		const char *command, *words;
	} cases[] = {
		{ "ip -4 rule del pref 32764", "IPv4 rule" },
		{ "ip -6 rule del pref 32764", "IPv6 rule" },
		{ "ip -4 route flush table 100", "IPv4 route" },
		{ "ip -6 route flush table 100", "IPv6 route" },
		/* The IPv4 route survives: the kernel spares routes of scope host. */
		{ "ip link set lo down; ip link set lo up", "IPv6 route" },
		{ "ip -4 rule del pref 32764; ip -4 rule add fwmark 0x112/0xfff lookup 100 pref 32764", "other selectors" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(route_add(socket, true, NULL), 0);
		assert_int_equal(system(cases[i].command), 0);
		assert_difference(socket, cases[i].words);
		assert_int_equal(route_add(socket, true, NULL), 0);
		assert_standing(socket, true);
	}
}

static int write_setting(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t written = write(fd, value, strlen(value));
	close(fd);
	return written > 0 ? 0 : -1;
}

static void ipv6_that_is_off_is_no_error(void **state)
{
	struct nl_sock *socket = *state;
	static const char *const settings[] = { "/proc/sys/net/ipv6/conf/all/disable_ipv6",
						"/proc/sys/net/ipv6/conf/lo/disable_ipv6" };
	for (size_t i = 0; i < 2; i++) {
		struct error error = { 0 };
		assert_int_equal(write_setting(settings[i], "1"), 0);
		assert_int_equal(route_add(socket, true, &error), 0);
		assert_int_equal(count_lines(RULES4), 1);
		assert_int_equal(count_lines(ROUTE4), 1);
		assert_int_equal(count_lines(ROUTE6), 0);
		assert_standing(socket, true);
		/* Switched on again, the route is missed. */
		assert_int_equal(write_setting(settings[0], "0") | write_setting(settings[1], "0"), 0);
		assert_difference(socket, "IPv6 route");
		assert_int_equal(route_remove(socket, &error), 0);
	}
}

static void what_others_have_in_the_table_stays(void **state)
{
	struct nl_sock *socket = *state;
	assert_int_equal(system("ip route add 192.0.2.0/24 dev lo table 100 && ip rule add fwmark 7 lookup 100 pref 100"), 0);
	assert_int_equal(route_add(socket, true, NULL), 0);
	assert_standing(socket, true);
	assert_int_equal(route_remove(socket, NULL), 0);
	assert_int_equal(count_lines("ip route show table 100 | grep 192.0.2.0/24"), 1);
	assert_int_equal(count_lines("ip rule | grep 'fwmark 0x7 lookup 100'"), 1);
}

static void somebody_elses_default_route_is_told(void **state)
{
	struct nl_sock *socket = *state;
	struct error error = { 0 };
	assert_int_equal(system("ip route add blackhole default table 100"), 0);
	assert_int_equal(route_add(socket, true, &error), -1);
	assert_int_equal(error.number, EEXIST);
	assert_non_null(strstr(error.message, "another default route"));
}

/* Another agent's rule and route, which look like ours: a step that fails afterwards takes back what this call did. */
static void only_what_was_added_is_taken_back(void **state)
{
	struct route_added added;
	struct error error = { 0 };
	assert_int_equal(system("ip rule add fwmark 0x111/0xfff lookup 100 pref 32764 && "
				"ip -6 route add local default dev lo table 100"),
			 0);
	assert_int_equal(route_add_missing(*state, true, &error, &added), 0);
	assert_true(!added.rules[0] && added.rules[1] && added.routes[0] && !added.routes[1]);
	assert_int_equal(route_take_back(*state, &added, &error), 0);
	assert_int_equal(system(RULES4 " >/dev/null && " ROUTE6 " >/dev/null"), 0);
	assert_int_equal(count_lines("ip -6 rule | grep 0x111"), 0);
	assert_int_equal(count_lines("ip -4 route show table 100 2>/dev/null"), 0);
	/* Everything stands: nothing to take back. */
	assert_int_equal(route_add_missing(*state, true, &error, &added), 0);
	assert_int_equal(route_add_missing(*state, true, &error, &added), 0);
	assert_int_equal(route_take_back(*state, &added, &error), 0);
	assert_standing(*state, true);
}

static void run_on(int processor)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	/* Fails where there is only one: then nothing can come between. */
	(void)!sched_setaffinity(0, sizeof set, &set);
}

/* Takes what is to be taken as often as it is asked to, on the other processor. */
static void take_routes(int asked)
{
	struct nl_sock *socket = NULL;
	const struct route_added routes = { .routes = { true, false } };
	char byte;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run_on(1);
	if (route_socket_open(NULL, &socket) < 0)
		_exit(1);
	while (read(asked, &byte, 1) == 1) {
		if (route_take_back(socket, &routes, NULL) < 0)
			_exit(1);
	}
	_exit(0);
}

/* The kernel tells of it before it has done it. */
static void a_route_that_is_gone_is_missed_by_who_is_told(void **state)
{
	int asked[2], status = 0;
	cleanup_close int told = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_IPV4_ROUTE };
	assert_int_equal(bind(told, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(pipe2(asked, O_CLOEXEC), 0);
	pid_t child = fork();
	if (child == 0) {
		close(asked[1]);
		take_routes(asked[0]);
	}
	run_on(0);
	for (int i = 0; i < 6000; i++) {
		union {
			struct nlmsghdr header;
			char bytes[4096];
		} message = { 0 };
		assert_int_equal(route_add(*state, false, NULL), 0);
		assert_int_equal(write(asked[1], "", 1), 1);
		do
			assert_true(recv(told, &message, sizeof message, 0) > 0);
		while (message.header.nlmsg_type != RTM_DELROUTE);
		assert_difference(*state, "IPv4 route local default dev lo table 100 is missing");
	}
	close(asked[1]);
	close(asked[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, enter_fresh_namespace, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_families_once),
		TEST(ipv4_alone_where_asked),
		TEST(loopback_is_brought_up),
		TEST(each_part_that_is_missing_is_found),
		TEST(ipv6_that_is_off_is_no_error),
		TEST(what_others_have_in_the_table_stays),
		TEST(somebody_elses_default_route_is_told),
		TEST(only_what_was_added_is_taken_back),
		TEST(a_route_that_is_gone_is_missed_by_who_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
