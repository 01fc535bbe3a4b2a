/* The rules for pods with an AWS branch interface, on a host as the VPC CNI leaves it (strict mode), in a namespace of the
 * test's own; ip(8) is the witness. What packets make of it: tests/probe. */
#include "tests/unit/cmocka_headers.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/probes/aws_branch_eni.h"

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

/* The pod's veth is pod1, its VLAN's device branch1; the provider looks up "local" after its own rules. */
#define HOST                                                                                                                   \
	"ip link set lo up; ip link add pod1 type veth peer name inside1; ip link add branch1 type veth peer name trunk1; "    \
	"ip link set pod1 up; ip link set inside1 up; ip link set branch1 up; ip link set trunk1 up; "                         \
	"for f in 4 6; do ip -$f rule add lookup local pref 20; ip -$f rule del lookup local pref 0; "                         \
	"ip -$f rule add iif branch1 lookup 101 pref 10; ip -$f rule add iif pod1 lookup 101 pref 10; done; "                  \
	"ip route add 10.0.5.7 dev pod1 table 101; ip route add default dev branch1 table 101; "                               \
	"ip -6 route add 2001:db8::7 dev pod1 table 101; echo 0 >/proc/sys/net/ipv4/tcp_early_demux"

static int set_up(void **state)
{
	struct aws_branch_eni *eni = NULL;
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	run(HOST);
	if (aws_branch_eni_open(-1, NULL, &eni) < 0)
		return -1;
	*state = eni;
	return 0;
}

static int tear_down(void **state)
{
	aws_branch_eni_close(*state);
	return 0;
}

/* Both families' rules, one a line, without those that the host has by itself. */
static const char *rules(void)
{
	static char text[4096];
	FILE *out = popen("for f in 4 6; do ip -$f rule | tr -s '\\t ' ' ' | sed \"s/^/$f /; s/ $//\"; done | "
			  "grep -v -e 'all lookup' -e ' 10: '",
			  "r");
	assert_non_null(out);
	size_t length = fread(text, 1, sizeof text - 1, out);
	text[length] = '\0';
	pclose(out);
	return text;
}

#define RULES4 "4 9: from all iif pod1 lookup local proto 172\n4 512: from all to 10.0.5.7 lookup 101 proto 172\n"
#define RULES6 "6 9: from all iif pod1 lookup local proto 172\n6 512: from all to 2001:db8::7 lookup 101 proto 172\n"

static bool add(struct aws_branch_eni *eni, const char *text)
{
	struct error error = { 0 };
	struct pod_address address;
	bool applies = false;
	assert_true(pod_address_parse(text, &address));
	if (aws_branch_eni_add(eni, &address, &error, &applies) < 0)
		fail_msg("%s", error.message);
	return applies;
}

static bool add_both(struct aws_branch_eni *eni)
{
	bool applies = add(eni, "10.0.5.7");
	return add(eni, "2001:db8::7") && applies;
}

static void take_away(struct aws_branch_eni *eni, const char *text)
{
	struct error error = { 0 };
	struct pod_address address;
	assert_true(pod_address_parse(text, &address));
	if (aws_branch_eni_remove(eni, &address, &error) < 0)
		fail_msg("%s", error.message);
}

static void take_both_away(struct aws_branch_eni *eni)
{
	take_away(eni, "10.0.5.7");
	take_away(eni, "2001:db8::7");
}

static void both_families_once(void **state)
{
	for (int i = 0; i < 2; i++) {
		assert_true(add_both(*state));
		assert_string_equal(rules(), RULES4 RULES6);
	}
	for (int i = 0; i < 2; i++) {
		take_both_away(*state);
		assert_string_equal(rules(), "");
	}
}

static void one_family_alone(void **state)
{
	assert_true(add(*state, "10.0.5.7"));
	assert_string_equal(rules(), RULES4);
	take_away(*state, "2001:db8::7");
	assert_string_equal(rules(), RULES4);
}

static void only_without_early_demux(void **state)
{
	run("echo 1 >/proc/sys/net/ipv4/tcp_early_demux");
	assert_false(add_both(*state));
	assert_string_equal(rules(), "");
	/* It is read each time: the provider may set it later than we start. */
	run("echo 0 >/proc/sys/net/ipv4/tcp_early_demux");
	assert_true(add(*state, "10.0.5.7"));
	assert_string_equal(rules(), RULES4);
}

static void pods_without_a_branch(void **state)
{
	static const char *const commands[] = {
		/* No such route; a route in main; one of a whole network; one whose device has no rule; a rule of another
		 * table; a rule that is for some packets only. */
		"ip route flush table 101",
		"ip route flush table 101; ip route add 10.0.5.7 dev pod1",
		"ip route flush table 101; ip route add 10.0.5.6/31 dev pod1 table 101",
		"ip route flush table 101; ip route add 10.0.5.7 dev trunk1 table 101",
		"ip rule del iif pod1 lookup 101 pref 10; ip rule add iif pod1 lookup 102 pref 10",
		"ip rule del iif pod1 lookup 101 pref 10; ip rule add iif pod1 fwmark 7 lookup 101 pref 10",
		"ip rule del iif pod1 lookup 101 pref 10; ip rule del iif branch1 lookup 101 pref 10",
		"ip route flush table 101; ip route add blackhole 10.0.5.7 table 101",
	};
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (i > 0) {
			tear_down(state);
			assert_int_equal(set_up(state), 0);
		}
		run(commands[i]);
		if (add(*state, "10.0.5.7") || strstr(rules(), "proto 172"))
			fail_msg("rules after %s: %s", commands[i], rules());
	}
}

static void large_table_numbers_and_other_priorities(void **state)
{
	run("ip rule add iif pod1 lookup 70000 pref 7; ip route flush table 101; ip rule del iif pod1 lookup 101 pref 10; "
	    "ip route add 10.0.5.7 dev pod1 table 70000");
	assert_true(add(*state, "10.0.5.7"));
	assert_non_null(strstr(rules(), "4 6: from all iif pod1 lookup local proto 172\n"));
	assert_non_null(strstr(rules(), "4 512: from all to 10.0.5.7 lookup 70000 proto 172\n"));
	take_away(*state, "10.0.5.7");
	assert_null(strstr(rules(), "proto 172"));
	assert_non_null(strstr(rules(), "4 7: from all iif pod1 lookup 70000"));
}

static void the_veth_went_first(void **state)
{
	assert_true(add_both(*state));
	run("ip rule del iif pod1 lookup 101 pref 10; ip link del pod1");
	take_both_away(*state);
	assert_string_equal(rules(), "");
}

/* The same address with another interface: a sandbox that was made anew. */
static void an_address_moves_to_another_branch(void **state)
{
	assert_true(add(*state, "10.0.5.7"));
	run("ip route flush table 101; ip rule del iif pod1 lookup 101 pref 10; ip link del pod1; "
	    "ip link add pod2 type veth peer name inside2; ip link set pod2 up; ip link set inside2 up; "
	    "ip rule add iif pod2 lookup 102 pref 10; ip route add 10.0.5.7 dev pod2 table 102");
	assert_true(add(*state, "10.0.5.7"));
	assert_non_null(strstr(rules(), "4 512: from all to 10.0.5.7 lookup 102 proto 172\n"));
	assert_null(strstr(rules(), "lookup 101 proto 172"));
	take_away(*state, "10.0.5.7");
	assert_string_equal(rules(), "");
}

/* A predecessor of another make left the same rules: they are ours now, and not doubled. */
static void rules_that_stand_are_adopted(void **state)
{
	run("ip rule add iif pod1 lookup local pref 9; ip rule add to 10.0.5.7 lookup 101 pref 512");
	assert_true(add(*state, "10.0.5.7"));
	assert_string_equal(rules(), "4 9: from all iif pod1 lookup local\n4 512: from all to 10.0.5.7 lookup 101\n");
	take_away(*state, "10.0.5.7");
	assert_string_equal(rules(), "");
}

static bool is_the_ipv4_pod(void *data, const struct pod_address *address)
{
	char text[POD_ADDRESS_TEXT_MAX];
	return strcmp(pod_address_print(address, text), data) == 0;
}

/* Whoever made its rules: as long as another address of the veth is led to, its way back stays. */
static void the_way_back_goes_with_the_last_address(void **state)
{
	static const struct {
		const char *option, *address, *addresses[2];
	} families[] = {
		{ "-4", "10.0.5.7", { "10.0.5.8", "10.0.5.9" } },
		{ "-6", "2001:db8::7", { "2001:db8::8", "2001:db8::9" } },
	};
	for (size_t i = 0; i < 2; i++) {
		char command[512], of_predecessor[64];
		snprintf(command, sizeof command,
			 "ip %1$s route add %2$s dev pod1 table 101; ip %1$s route add %3$s dev pod1 table 101; "
			 "ip %1$s rule add to %3$s lookup 101 pref 512",
			 families[i].option, families[i].addresses[0], families[i].addresses[1]);
		run(command);
		assert_true(add(*state, families[i].address) && add(*state, families[i].addresses[0]));
		take_away(*state, families[i].address);
		assert_non_null(strstr(rules(), "iif pod1 lookup local"));
		take_away(*state, families[i].addresses[0]);
		snprintf(of_predecessor, sizeof of_predecessor, "512: from all to %s lookup 101\n", families[i].addresses[1]);
		assert_non_null(strstr(rules(), "iif pod1 lookup local"));
		assert_non_null(strstr(rules(), of_predecessor));
		assert_int_equal(aws_branch_eni_prune(*state, is_the_ipv4_pod, (char *)"none", NULL), 0);
		assert_non_null(strstr(rules(), "iif pod1 lookup local"));
		take_away(*state, families[i].addresses[1]);
		assert_string_equal(rules(), "");
	}
}

static void what_others_have_stays(void **state)
{
	run("ip rule add to 10.0.5.8 lookup 101 pref 512; ip rule add iif trunk1 lookup local pref 9; "
	    "ip rule add to 10.0.5.7 lookup main pref 512; ip rule add to 10.0.5.7 lookup 101 pref 600");
	char before[4096];
	snprintf(before, sizeof before, "%s", rules());
	assert_true(add_both(*state));
	take_both_away(*state);
	assert_string_equal(rules(), before);
	assert_true(add_both(*state));
	assert_int_equal(aws_branch_eni_remove_all(*state, NULL), 0);
	assert_string_equal(rules(), before);
}

/* What an agent that was killed left for pods that are gone. */
static void pods_that_are_gone_are_pruned(void **state)
{
	char enrolled[] = "10.0.5.7", nobody[] = "none";
	run("ip rule add to 10.0.5.8 lookup 101 pref 512; ip rule add iif trunk1 lookup local pref 9");
	assert_true(add_both(*state));
	assert_int_equal(aws_branch_eni_prune(*state, is_the_ipv4_pod, enrolled, NULL), 0);
	assert_non_null(strstr(rules(), "4 9: from all iif pod1 lookup local proto 172\n"));
	assert_non_null(strstr(rules(), "4 512: from all to 10.0.5.7 lookup 101 proto 172\n"));
	assert_null(strstr(rules(), "6 "));
	/* No address of the veth's: somebody's rule into its table holds nothing. */
	assert_int_equal(aws_branch_eni_prune(*state, is_the_ipv4_pod, nobody, NULL), 0);
	assert_string_equal(rules(), "4 9: from all iif trunk1 lookup local\n4 512: from all to 10.0.5.8 lookup 101\n");
	run("ip rule del to 10.0.5.8 lookup 101 pref 512");

	/* The pod's veth is gone too. */
	assert_true(add_both(*state));
	run("ip rule del iif pod1 lookup 101 pref 10; ip link del pod1");
	assert_int_equal(aws_branch_eni_prune(*state, is_the_ipv4_pod, nobody, NULL), 0);
	assert_string_equal(rules(), "4 9: from all iif trunk1 lookup local\n");
}

static void the_hosts_namespace_by_descriptor(void **state __attribute__((unused)))
{
	struct aws_branch_eni *eni = NULL;
	struct pod_address address;
	bool applies = false;
	cleanup_close int host = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(aws_branch_eni_open(host, NULL, &eni), 0);
	assert_true(pod_address_parse("10.0.5.7", &address));
	assert_int_equal(aws_branch_eni_add(eni, &address, NULL, &applies), 0);
	assert_true(applies);
	assert_string_equal(rules(), "");
	assert_int_equal(setns(host, CLONE_NEWNET), 0);
	assert_string_equal(rules(), RULES4);
	aws_branch_eni_close(eni);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(both_families_once),
		TEST(one_family_alone),
		TEST(only_without_early_demux),
		TEST(pods_without_a_branch),
		TEST(large_table_numbers_and_other_priorities),
		TEST(the_veth_went_first),
		TEST(an_address_moves_to_another_branch),
		TEST(rules_that_stand_are_adopted),
		TEST(the_way_back_goes_with_the_last_address),
		TEST(what_others_have_stays),
		TEST(pods_that_are_gone_are_pruned),
		TEST(the_hosts_namespace_by_descriptor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
