/* The host's probe set in namespaces of the test's own; nft(8) is the witness, and the one who breaks things. What packets make
 * of it: tests/probe. */
#include "tests/unit/cmocka_headers.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/nft.h"
#include "installer/probes/probe_set.h"

struct told {
	struct event_base *base;
	struct probe_set *set;
	int repaired, failed, flushed;
	char difference[320];
	char failure[1024];
};

static int enter_fresh_namespace(void **state __attribute__((unused)))
{
	return unshare(CLONE_NEWNET);
}

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

static void repaired(void *data, const char *difference)
{
	struct told *told = data;
	told->repaired++;
	snprintf(told->difference, sizeof told->difference, "%s", difference);
}

static void failed(void *data, const struct error *error)
{
	struct told *told = data;
	told->failed++;
	snprintf(told->failure, sizeof told->failure, "%s", error->message);
}

static void flushed(void *data)
{
	struct told *told = data;
	told->flushed++;
}

static void start_with(struct told *told, const char *ipv4)
{
	struct error error = { 0 };
	struct in_addr probe_ipv4;
	struct in6_addr probe_ipv6;
	struct probe_set_events events = { .repaired = repaired, .failed = failed, .flushed = flushed, .data = told };
	inet_pton(AF_INET, ipv4, &probe_ipv4);
	inet_pton(AF_INET6, "fd16:9254:7127:1337:ffff:ffff:ffff:ffff", &probe_ipv6);
	*told = (struct told){ .base = event_base_new() };
	if (probe_set_open(told->base, -1, probe_ipv4, probe_ipv6, &events, &error, &told->set) < 0)
		fail_msg("%s", error.message);
}

static void start(struct told *told)
{
	start_with(told, "169.254.7.127");
}

static void stop(struct told *told)
{
	assert_int_equal(told->failed, 0);
	probe_set_close(told->set);
	event_base_free(told->base);
}

static void break_loop(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)), void *base)
{
	event_base_loopbreak(base);
}

/* Lets the loop run so long. */
static void turn(struct told *told, int milliseconds)
{
	struct timeval time = { .tv_usec = milliseconds * 1000 };
	struct event *timer = event_new(told->base, -1, 0, break_loop, told->base);
	event_add(timer, &time);
	event_base_dispatch(told->base);
	event_free(timer);
}

/* Lets the loop run until one more difference was repaired. */
static void assert_repaired(struct told *told, const char *words)
{
	int before = told->repaired;
	for (int i = 0; i < 400 && told->repaired == before; i++)
		turn(told, 5);
	assert_int_equal(told->repaired, before + 1);
	if (!strstr(told->difference, words))
		fail_msg("\"%s\" does not say \"%s\"", told->difference, words);
}

static void put(struct told *told, const char *uid, const char *first, const char *second)
{
	struct pod_address addresses[2];
	size_t count = 0;
	if (first)
		assert_true(pod_address_parse(first, &addresses[count++]));
	if (second)
		assert_true(pod_address_parse(second, &addresses[count++]));
	assert_int_equal(probe_set_put(told->set, uid, addresses, count, NULL), 0);
}

static void flush(struct told *told)
{
	struct error error = { 0 };
	if (probe_set_flush(told->set, &error) < 0)
		fail_msg("%s", error.message);
}

static bool has(const char *address)
{
	char command[256];
	snprintf(command, sizeof command, "nft get element inet ambient-cni-host pods-ipv%c '{ %s }' >/dev/null 2>&1",
		 strchr(address, ':') ? '6' : '4', address);
	return system(command) == 0;
}

static char *list_table(void)
{
	static char text[4096];
	FILE *out = popen("nft -s list table inet ambient-cni-host 2>&1", "r");
	assert_non_null(out);
	size_t length = fread(text, 1, sizeof text - 1, out);
	text[length] = '\0';
	pclose(out);
	return text;
}

static uint32_t generation(void)
{
	struct nft_socket *socket = NULL;
	uint32_t number = 0;
	assert_int_equal(nft_socket_open(NULL, &socket), 0);
	assert_int_equal(nft_generation(socket, NULL, &number), 0);
	nft_socket_close(socket);
	return number;
}

static uint64_t transactions(const struct told *told)
{
	struct probe_set_counters counters;
	probe_set_read_counters(told->set, &counters);
	return counters.transactions;
}

/* The text of the contract, as nft compiles it, is ours to the last expression: it is adopted and not written anew. */
static void the_table_is_the_contracts(void **state __attribute__((unused)))
{
	struct told told;
	run("nft -f - <<'E'\n"
	    "table inet ambient-cni-host {\n"
	    "  set pods-ipv4 { type ipv4_addr; elements = { 10.0.0.1 } }\n"
	    "  set pods-ipv6 { type ipv6_addr; }\n"
	    "  chain postrouting {\n"
	    "    type nat hook postrouting priority srcnat - 1; policy accept;\n"
	    "    ip daddr @pods-ipv4 tcp flags & (fin | syn | rst | ack) == syn meta skuid != 4294967295 "
	    "ct status & dnat == 0 counter snat ip to 169.254.7.127\n"
	    "    ip6 daddr @pods-ipv6 tcp flags & (fin | syn | rst | ack) == syn meta skuid != 4294967295 "
	    "ct status & dnat == 0 counter snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff\n"
	    "  }\n}\nE");
	uint32_t before = generation();
	start(&told);
	assert_int_equal(generation(), before);
	assert_true(probe_set_stands(told.set));
	assert_true(has("10.0.0.1"));
	stop(&told);

	/* And ours lists as it should. */
	run("nft delete table inet ambient-cni-host");
	start(&told);
	static const char *const lines[] = {
		"type nat hook postrouting priority srcnat - 1; policy accept;",
		"ip daddr @pods-ipv4 tcp flags",
		"meta skuid != 4294967295",
		"snat ip to 169.254.7.127 comment \"probes: ipv4\"",
		"ip6 daddr @pods-ipv6 tcp flags",
		"snat ip6 to fd16:9254:7127:1337:ffff:ffff:ffff:ffff comment \"probes: ipv6\"",
	};
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
		if (!strstr(list_table(), lines[i]))
			fail_msg("\"%s\" is not in %s", lines[i], list_table());
	stop(&told);
}

static void many_changes_are_one_transaction(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	uint64_t before = transactions(&told);
	for (int i = 0; i < 1000; i++) {
		char uid[16], ipv4[32], ipv6[32];
		snprintf(uid, sizeof uid, "pod-%d", i);
		snprintf(ipv4, sizeof ipv4, "10.1.%d.%d", i / 250, i % 250);
		snprintf(ipv6, sizeof ipv6, "fd00::%x", i + 1);
		put(&told, uid, ipv4, ipv6);
		assert_false(probe_set_holds(told.set, uid));
	}
	assert_false(probe_set_stands(told.set));
	turn(&told, 50);
	assert_int_equal(transactions(&told), before + 1);
	assert_int_equal(told.flushed, 1);
	assert_true(probe_set_stands(told.set));
	assert_true(probe_set_holds(told.set, "pod-999"));
	assert_true(has("10.1.0.0"));
	assert_true(has("10.1.3.249"));
	assert_true(has("fd00::3e8"));

	/* The same again is nothing. */
	put(&told, "pod-7", "10.1.0.7", "fd00::8");
	turn(&told, 10);
	assert_int_equal(transactions(&told), before + 1);
	for (int i = 0; i < 1000; i++) {
		char uid[16];
		snprintf(uid, sizeof uid, "pod-%d", i);
		probe_set_remove(told.set, uid);
	}
	turn(&told, 50);
	assert_int_equal(transactions(&told), before + 2);
	assert_false(has("10.1.0.0"));
	assert_false(has("fd00::3e8"));
	assert_int_equal(told.repaired, 0);
	stop(&told);
}

static void a_pod_loses_what_it_had(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "a", "10.0.0.1", "fd00::1");
	flush(&told);
	put(&told, "a", "10.0.0.2", "fd00::1");
	flush(&told);
	assert_false(has("10.0.0.1"));
	assert_true(has("10.0.0.2"));
	assert_true(has("fd00::1"));
	put(&told, "a", NULL, NULL);
	flush(&told);
	assert_false(has("10.0.0.2"));
	assert_false(has("fd00::1"));
	assert_false(probe_set_holds(told.set, "a"));
	probe_set_remove(told.set, "nobody");
	stop(&told);
}

static void an_address_belongs_to_the_newest_pod(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "old", "10.0.0.1", "fd00::1");
	flush(&told);
	put(&told, "new", "10.0.0.1", NULL);
	/* The late removal, in the same turn and in a later one. */
	probe_set_remove(told.set, "old");
	flush(&told);
	assert_true(has("10.0.0.1"));
	assert_false(has("fd00::1"));
	assert_true(probe_set_holds(told.set, "new"));
	put(&told, "newest", "10.0.0.1", NULL);
	flush(&told);
	assert_false(probe_set_holds(told.set, "new"));
	put(&told, "new", "10.0.0.9", NULL);
	flush(&told);
	assert_true(has("10.0.0.1"));
	probe_set_remove(told.set, "new");
	flush(&told);
	assert_true(has("10.0.0.1"));
	probe_set_remove(told.set, "newest");
	flush(&told);
	assert_false(has("10.0.0.1"));
	stop(&told);
}

/* A pod whose end is not known yet is looked at again and again. */
static void a_pod_does_not_take_back_what_another_has(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "old", "10.0.0.1", "fd00::1");
	put(&told, "new", "10.0.0.1", NULL);
	put(&told, "old", "10.0.0.1", "fd00::1");
	flush(&told);
	assert_true(probe_set_holds(told.set, "new"));
	probe_set_remove(told.set, "old");
	flush(&told);
	assert_true(has("10.0.0.1"));
	assert_false(has("fd00::1"));
	/* When it is nobody's it may be had again. */
	put(&told, "other", "10.0.0.2", NULL);
	put(&told, "new", "10.0.0.1", "10.0.0.2");
	put(&told, "other", "10.0.0.2", NULL);
	probe_set_remove(told.set, "new");
	put(&told, "other", "10.0.0.2", NULL);
	flush(&told);
	assert_true(probe_set_holds(told.set, "other"));
	assert_true(has("10.0.0.2"));
	stop(&told);
}

static void give_away(struct told *told, const char *uid, const char *text)
{
	struct pod_address address;
	assert_true(pod_address_parse(text, &address));
	probe_set_give_away(told->set, uid, &address);
}

static void an_address_that_a_pod_outside_got(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "old", "10.0.0.1", "fd00::1");
	flush(&told);
	give_away(&told, "old", "10.0.0.1"); /* its own */
	give_away(&told, "outside", "10.0.0.9");
	flush(&told);
	assert_true(has("10.0.0.1"));
	give_away(&told, "outside", "10.0.0.1");
	flush(&told);
	assert_false(has("10.0.0.1"));
	put(&told, "old", "10.0.0.1", "fd00::1");
	flush(&told);
	assert_false(has("10.0.0.1"));
	assert_true(has("fd00::1"));
	/* One that comes later may have it, and so may the same one after it was away. */
	put(&told, "new", "10.0.0.1", NULL);
	flush(&told);
	assert_true(has("10.0.0.1"));
	give_away(&told, NULL, "10.0.0.1");
	put(&told, "new", "10.0.0.2", NULL);
	put(&told, "new", "10.0.0.1", NULL);
	flush(&told);
	assert_true(has("10.0.0.1"));
	give_away(&told, "outside", "10.0.0.1");
	probe_set_remove(told.set, "new");
	probe_set_remove(told.set, "old");
	flush(&told);
	put(&told, "new", "10.0.0.1", NULL);
	flush(&told);
	assert_true(has("10.0.0.1"));
	stop(&told);
}

static void what_stands_is_adopted(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "a", "10.0.0.1", NULL);
	put(&told, "b", "10.0.0.2", "fd00::2");
	flush(&told);
	stop(&told);

	uint32_t before = generation();
	start(&told);
	assert_int_equal(generation(), before);
	put(&told, "a", "10.0.0.1", NULL);
	flush(&told);
	assert_int_equal(generation(), before);
	assert_true(probe_set_holds(told.set, "a"));
	assert_true(has("10.0.0.2"));

	/* Everybody is known now. */
	assert_int_equal(probe_set_prune(told.set, NULL), 0);
	assert_true(has("10.0.0.1"));
	assert_false(has("10.0.0.2"));
	assert_false(has("fd00::2"));
	assert_int_equal(told.repaired, 0);
	stop(&told);
}

/* The elements live on where the rules must be written anew. */
static void an_older_table_is_replaced(void **state __attribute__((unused)))
{
	struct told told;
	start_with(&told, "169.254.7.128");
	put(&told, "a", "10.0.0.1", "fd00::1");
	flush(&told);
	stop(&told);
	start(&told);
	assert_non_null(strstr(list_table(), "snat ip to 169.254.7.127"));
	assert_null(strstr(list_table(), "169.254.7.128"));
	assert_true(has("10.0.0.1"));
	assert_true(has("fd00::1"));
	stop(&told);

	/* Somebody's table of our name. */
	run("nft 'delete table inet ambient-cni-host; add table inet ambient-cni-host; add set inet ambient-cni-host pods-ipv4 "
	    "{ type ipv4_addr; flags interval; }; add chain inet ambient-cni-host other'");
	start(&told);
	assert_non_null(strstr(list_table(), "snat ip to 169.254.7.127"));
	assert_null(strstr(list_table(), "other"));
	assert_null(strstr(list_table(), "interval"));
	stop(&told);
}

static void what_others_break_is_repaired(void **state __attribute__((unused)))
{
	static const struct {
		const char *command, *words;
	} cases[] = {
		{ "nft delete element inet ambient-cni-host pods-ipv4 '{ 10.0.0.1 }'", "set pods-ipv4 lacks 10.0.0.1" },
		{ "nft flush set inet ambient-cni-host pods-ipv6", "set pods-ipv6 lacks fd00::1" },
		{ "nft add element inet ambient-cni-host pods-ipv4 '{ 10.9.9.9 }'",
		  "pods-ipv4 has 10.9.9.9, which is no pod's" },
		{ "nft delete table inet ambient-cni-host", "table inet ambient-cni-host is missing" },
		{ "nft flush ruleset", "table inet ambient-cni-host is missing" },
		{ "nft flush table inet ambient-cni-host", "rule 1 \"probes: ipv4\"" },
		{ "nft insert rule inet ambient-cni-host postrouting accept", "rule 1 \"probes: ipv4\"" },
		{ "nft add rule inet ambient-cni-host postrouting accept", "foreign rule" },
		{ "nft add chain inet ambient-cni-host mine", "chain mine should not be there" },
		{ "nft add set inet ambient-cni-host mine '{ type mark; }'", "set mine should not be there" },
		{ "nft add table inet ambient-cni-host '{ flags dormant; }'", "dormant" },
	};
	struct told told;
	start(&told);
	put(&told, "a", "10.0.0.1", "fd00::1");
	assert_int_equal(probe_set_prune(told.set, NULL), 0);
	char *expected = strdup(list_table());
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		run(cases[i].command);
		assert_repaired(&told, cases[i].words);
		if (strcmp(list_table(), expected) != 0)
			fail_msg("after %s: %s", cases[i].command, list_table());
		assert_true(probe_set_stands(told.set));
	}
	free(expected);
	stop(&told);
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* From the other's commit (nft has ended by then) to the repair. */
static double time_of_repair(struct told *told)
{
	start(told);
	put(told, "a", "10.0.0.1", NULL);
	flush(told);
	turn(told, 30);
	run("nft flush set inet ambient-cni-host pods-ipv4");
	double began = seconds();
	assert_repaired(told, "lacks");
	return seconds() - began;
}

static void repair_is_quick_and_a_fight_is_slow(void **state __attribute__((unused)))
{
	struct told told;
	/* A machine that does much else may need another try. */
	double needed = time_of_repair(&told);
	for (int i = 0; i < 4 && needed > 0.1; i++) {
		stop(&told);
		needed = time_of_repair(&told);
	}
	assert_true(needed <= 0.1);

	/* Somebody who does not give up: five rounds take at least 20 + 40 + 80 + 160 ms. */
	double began = seconds();
	for (int i = 0; i < 5; i++) {
		run("nft flush set inet ambient-cni-host pods-ipv4");
		assert_repaired(&told, "lacks");
	}
	assert_true(seconds() - began > 0.3);
	stop(&told);
}

static void other_peoples_changes_are_only_looked_at(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "a", "10.0.0.1", NULL);
	flush(&told);
	uint64_t before = transactions(&told);
	run("nft 'add table inet other; add chain inet other postrouting; add table ip ambient-cni-host; "
	    "add chain ip ambient-cni-host postrouting'");
	turn(&told, 60);
	assert_int_equal(transactions(&told), before);
	assert_int_equal(told.repaired, 0);

	/* A commit that we have not heard of yet does not make ours fail. */
	run("nft add table inet another");
	run("nft delete element inet ambient-cni-host pods-ipv4 '{ 10.0.0.1 }'");
	probe_set_remove(told.set, "a");
	put(&told, "b", "10.0.0.2", NULL);
	flush(&told);
	assert_true(has("10.0.0.2"));
	assert_false(has("10.0.0.1"));
	stop(&told);
}

/* Without the right to change anything for a while. */
static void what_failed_is_tried_again(void **state __attribute__((unused)))
{
	struct told told;
	struct error error = { 0 };
	struct probe_set_counters counters;
	start(&told);
	put(&told, "a", "10.0.0.1", NULL);
	assert_int_equal(seteuid(65534), 0);
	turn(&told, 100);
	bool stands = probe_set_stands(told.set);
	int result = probe_set_flush(told.set, &error);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(result, -1);
	assert_false(stands);
	assert_false(probe_set_holds(told.set, "a"));
	assert_in_range(told.failed, 1, 10);
	assert_non_null(strstr(told.failure, "cannot set up probes on the host"));
	assert_non_null(strstr(error.message, "Operation not permitted"));
	probe_set_read_counters(told.set, &counters);
	assert_int_equal(counters.failures, told.failed + 1);

	for (int i = 0; i < 400 && told.flushed == 0; i++)
		turn(&told, 5);
	assert_true(probe_set_holds(told.set, "a"));
	assert_true(has("10.0.0.1"));
	told.failed = 0;
	stop(&told);
}

static void verify_tells_and_repairs(void **state __attribute__((unused)))
{
	struct told told;
	char difference[320];
	start(&told);
	put(&told, "a", "10.0.0.1", NULL);
	flush(&told);
	assert_int_equal(probe_set_verify(told.set, NULL, difference, sizeof difference), 0);
	assert_string_equal(difference, "");
	run("nft flush set inet ambient-cni-host pods-ipv4");
	assert_int_equal(probe_set_verify(told.set, NULL, difference, sizeof difference), 0);
	assert_string_equal(difference, "set pods-ipv4 lacks 10.0.0.1");
	assert_true(has("10.0.0.1"));
	stop(&told);
}

static void uninstall_takes_the_table_alone(void **state __attribute__((unused)))
{
	struct told told;
	start(&told);
	put(&told, "a", "10.0.0.1", NULL);
	flush(&told);
	stop(&told);
	run("nft add table inet other");
	for (int i = 0; i < 2; i++) {
		assert_int_equal(probe_set_uninstall(-1, NULL), 0);
		assert_non_null(strstr(list_table(), "No such file"));
		run("nft list table inet other >/dev/null");
	}
}

static void the_hosts_namespace_by_descriptor(void **state __attribute__((unused)))
{
	struct told told = { .base = event_base_new() };
	struct in_addr ipv4 = { .s_addr = htonl(0xa9fe077f) };
	cleanup_close int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	cleanup_close int host = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	struct probe_set_events events = { .repaired = repaired, .data = &told };
	assert_int_equal(probe_set_open(told.base, host, ipv4, in6addr_loopback, &events, NULL, &told.set), 0);
	put(&told, "a", "10.0.0.1", NULL);
	flush(&told);
	assert_false(has("10.0.0.1"));
	assert_int_equal(setns(host, CLONE_NEWNET), 0);
	assert_true(has("10.0.0.1"));
	run("nft flush ruleset");
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	assert_repaired(&told, "is missing");
	stop(&told);
	assert_int_equal(probe_set_uninstall(host, NULL), 0);
	assert_int_equal(setns(host, CLONE_NEWNET), 0);
	assert_non_null(strstr(list_table(), "No such file"));
}

static void a_host_without_ipv6(void **state __attribute__((unused)))
{
	struct told told;
	run("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
	start(&told);
	put(&told, "a", "10.0.0.1", NULL);
	flush(&told);
	assert_true(has("10.0.0.1"));
	assert_true(probe_set_stands(told.set));
	stop(&told);
}

#define TEST(function) cmocka_unit_test_setup(function, enter_fresh_namespace)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_table_is_the_contracts),
		TEST(many_changes_are_one_transaction),
		TEST(a_pod_loses_what_it_had),
		TEST(an_address_belongs_to_the_newest_pod),
		TEST(a_pod_does_not_take_back_what_another_has),
		TEST(an_address_that_a_pod_outside_got),
		TEST(what_stands_is_adopted),
		TEST(an_older_table_is_replaced),
		TEST(what_others_break_is_repaired),
		TEST(repair_is_quick_and_a_fight_is_slow),
		TEST(other_peoples_changes_are_only_looked_at),
		TEST(what_failed_is_tried_again),
		TEST(verify_tells_and_repairs),
		TEST(uninstall_takes_the_table_alone),
		TEST(the_hosts_namespace_by_descriptor),
		TEST(a_host_without_ipv6),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
