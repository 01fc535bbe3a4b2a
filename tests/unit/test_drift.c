/* What a watch hears of a namespace and what it does not, in namespaces of the test's own; nft(8) and ip(8) make the changes.
 */
#include "tests/unit/cmocka_headers.h"

#include <event2/event.h>
#include <fcntl.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"
#include "ambient/route.h"
#include "installer/netns/drift.h"
#include "tests/unit/process.h"

/* What the watch told. */
struct told {
	struct event_base *base;
	struct drift_watch *watch;
	struct drift drifts[1024];
	size_t count, enough;
	bool free_at_once, stop_at_once;
};

static int enter_fresh_namespace(void **state __attribute__((unused)))
{
	return unshare(CLONE_NEWNET) < 0 || system("ip link set lo up") != 0 ? -1 : 0;
}

static void remember(void *data, const struct drift *drift)
{
	struct told *told = data;
	assert_true(told->count < sizeof told->drifts / sizeof told->drifts[0]);
	told->drifts[told->count++] = *drift;
	if (told->free_at_once) {
		drift_watch_free(told->watch);
		told->watch = NULL;
	}
	if (told->stop_at_once)
		drift_watch_stop(told->watch);
	if (told->count >= told->enough)
		event_base_loopbreak(told->base);
}

static void start(struct told *told)
{
	struct error error = { 0 };
	told->base = event_base_new();
	if (drift_watch_new(told->base, -1, remember, told, &error, &told->watch) < 0)
		fail_msg("%s", error.message);
}

static void stop(struct told *told)
{
	drift_watch_free(told->watch);
	event_base_free(told->base);
}

static void break_loop(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)), void *base)
{
	event_base_loopbreak(base);
}

/* Lets the loop run until `enough` was told, at most so long. */
static void hear(struct told *told, size_t enough, int milliseconds)
{
	struct timeval patience = { .tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000 };
	struct event *timer = event_new(told->base, -1, 0, break_loop, told->base);
	told->enough = enough;
	event_add(timer, &patience);
	if (told->count < enough)
		event_base_dispatch(told->base);
	event_free(timer);
}

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

static void every_commit_is_told_once(void **state __attribute__((unused)))
{
	struct told told = { 0 };
	start(&told);
	run("nft -f - <<'E'\nadd table inet one\nadd chain inet one c\nadd rule inet one c counter accept\nE");
	hear(&told, 1, 2000);
	run("nft add table inet two");
	hear(&told, 2, 2000);
	hear(&told, 3, 50);
	assert_int_equal(told.count, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(told.drifts[i].kind, DRIFT_NFTABLES);
		assert_int_not_equal(told.drifts[i].port, 0);
		assert_string_equal(told.drifts[i].process_name, "nft");
		assert_true(told.drifts[i].process > 1);
	}
	stop(&told);
}

static void commit_table(struct nft_socket *socket, const char *name)
{
	struct error error = { 0 };
	cleanup_nft_batch struct nft_batch *batch = NULL;
	struct nftnl_table *table = nftnl_table_alloc();
	nftnl_table_set_u32(table, NFTNL_TABLE_FAMILY, NFPROTO_INET);
	nftnl_table_set_str(table, NFTNL_TABLE_NAME, name);
	assert_int_equal(nft_batch_new(socket, &error, &batch), 0);
	nft_batch_add_table(batch, NFPROTO_INET, table, name);
	nftnl_table_free(table);
	if (nft_batch_commit(batch, &error) < 0)
		fail_msg("%s", error.message);
}

static void own_changes_are_known_by_their_port(void **state __attribute__((unused)))
{
	struct told told = { 0 };
	struct nft_socket *socket = NULL;
	start(&told);
	assert_int_equal(nft_socket_open(NULL, &socket), 0);
	commit_table(socket, "one");
	hear(&told, 1, 2000);
	assert_int_equal(told.count, 1);
	assert_int_equal(told.drifts[0].port, nft_socket_port(socket));
	nft_socket_close(socket);
	stop(&told);
}

static void neighbours_of_one_port_are_told_once(void **state __attribute__((unused)))
{
	struct told told = { 0 };
	struct nft_socket *one = NULL, *other = NULL;
	start(&told);
	assert_int_equal(nft_socket_open(NULL, &one), 0);
	assert_int_equal(nft_socket_open(NULL, &other), 0);
	commit_table(one, "a");
	commit_table(one, "b");
	commit_table(other, "c");
	commit_table(one, "d");
	hear(&told, 4, 50);
	assert_int_equal(told.count, 3);
	assert_int_equal(told.drifts[0].port, nft_socket_port(one));
	assert_int_equal(told.drifts[1].port, nft_socket_port(other));
	assert_int_equal(told.drifts[2].port, nft_socket_port(one));
	nft_socket_close(one);
	nft_socket_close(other);
	stop(&told);
}

/* More commits than the socket can hold: something was lost, and that is told. */
static void an_overflow_is_told(void **state __attribute__((unused)))
{
	struct told told = { 0 };
	struct nft_socket *socket = NULL;
	bool overflowed = false;
	start(&told);
	assert_int_equal(nft_socket_open(NULL, &socket), 0);
	for (int i = 0; i < 1000; i++) {
		char name[16];
		snprintf(name, sizeof name, "t%d", i);
		commit_table(socket, name);
	}
	hear(&told, SIZE_MAX, 100);
	for (size_t i = 0; i < told.count; i++)
		overflowed |= told.drifts[i].kind == DRIFT_NFTABLES && told.drifts[i].port == 0;
	assert_true(overflowed);
	/* And it goes on hearing. */
	size_t before = told.count;
	commit_table(socket, "afterwards");
	hear(&told, before + 1, 2000);
	assert_int_equal(told.count, before + 1);
	nft_socket_close(socket);
	stop(&told);
}

static void routing_of_ours_is_told(void **state __attribute__((unused)))
{
	static const char *const commands[] = {
		"ip -4 rule del pref 32764",
		"ip -4 rule add fwmark 0x112/0xfff lookup 100 pref 32763",
		"ip -6 rule del pref 32764",
		"ip -4 route flush table 100",
		"ip -6 route flush table 100",
		"ip link set lo down",
		"echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6",
		"echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6",
	};
	struct nl_sock *socket = NULL;
	assert_int_equal(route_socket_open(NULL, &socket), 0);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		struct told told = { 0 };
		assert_int_equal(route_add(socket, true, NULL), 0);
		start(&told);
		run(commands[i]);
		hear(&told, 1, 2000);
		if (told.count == 0)
			fail_msg("nothing was told of: %s", commands[i]);
		assert_int_equal(told.drifts[0].kind, DRIFT_ROUTING);
		stop(&told);
	}
	route_socket_close(socket);
}

static void what_others_do_is_not_told(void **state __attribute__((unused)))
{
	struct told told = { 0 };
	start(&told);
	run("ip link add one type veth peer name other && ip link set one up && ip link set other up && "
	    "ip addr add 10.9.9.1/24 dev one && ip addr add fd99::1/64 dev one && ip route add 192.0.2.0/24 via 10.9.9.2 && "
	    "ip route add 192.0.2.0/24 via 10.9.9.2 table 101 && ip rule add fwmark 7 lookup 101 && ip link del one");
	hear(&told, 1, 100);
	assert_int_equal(told.count, 0);
	stop(&told);
}

static void a_callback_may_free_the_watch(void **state __attribute__((unused)))
{
	int before = count_descriptors();
	struct told told = { .free_at_once = true };
	start(&told);
	run("nft add table inet one");
	run("nft add table inet two");
	hear(&told, 1, 2000);
	hear(&told, 2, 50);
	assert_int_equal(told.count, 1);
	assert_null(told.watch);
	stop(&told);
	assert_int_equal(count_descriptors(), before);
}

/* Sockets of this namespace that hear a multicast group. */
static int count_listeners(void)
{
	unsigned int groups;
	char line[256];
	int count = 0;
	FILE *file = fopen("/proc/thread-self/net/netlink", "re");
	assert_non_null(file);
	while (fgets(line, sizeof line, file))
		count += sscanf(line, "%*s %*s %*s %x", &groups) == 1 && groups != 0;
	fclose(file);
	return count;
}

static void a_callback_may_stop_the_watch_which_is_freed_later(void **state __attribute__((unused)))
{
	int before = count_descriptors();
	struct told told = { .stop_at_once = true };
	start(&told);
	int open = count_descriptors();
	assert_int_equal(count_listeners(), 2);
	run("nft add table inet one");
	run("nft add table inet two");
	hear(&told, 1, 2000);
	hear(&told, 2, 50);
	assert_int_equal(told.count, 1);
	/* The socket that is slow to be closed. */
	assert_int_equal(count_descriptors(), open - 1);
	assert_int_equal(count_listeners(), 0);
	stop(&told);
	assert_int_equal(count_descriptors(), before);
}

/* From outside, by a descriptor; the namespace lives as long as the watch. */
static void another_namespace_is_watched(void **state __attribute__((unused)))
{
	int before = count_descriptors();
	struct told told = { .base = event_base_new() };
	cleanup_close int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	int other = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	assert_int_equal(drift_watch_new(told.base, other, remember, &told, NULL, &told.watch), 0);

	run("nft add table inet here");
	hear(&told, 1, 50);
	assert_int_equal(told.count, 0);
	assert_int_equal(setns(other, CLONE_NEWNET), 0);
	run("nft add table inet there");
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	hear(&told, 1, 2000);
	assert_int_equal(told.count, 1);
	close(other);
	stop(&told);
	assert_int_equal(count_descriptors(), before + 1);
}

#define TEST(function) cmocka_unit_test_setup(function, enter_fresh_namespace)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_commit_is_told_once),
		TEST(own_changes_are_known_by_their_port),
		TEST(neighbours_of_one_port_are_told_once),
		TEST(an_overflow_is_told),
		TEST(routing_of_ours_is_told),
		TEST(what_others_do_is_not_told),
		TEST(a_callback_may_free_the_watch),
		TEST(a_callback_may_stop_the_watch_which_is_freed_later),
		TEST(another_namespace_is_watched),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
