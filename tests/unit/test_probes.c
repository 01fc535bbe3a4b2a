/* The rules for AWS branch interfaces follow each address of a pod, not the pod: in a namespace of the test's own, with the
 * kernel's policy rules; ip(8) is the witness. */
#include "tests/unit/cmocka_headers.h"

#include <event2/event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "installer/mesh/state.h"

#define FIRST "10.0.5.7"
#define SECOND "10.0.5.8"

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

static void nothing(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		    void *data __attribute__((unused)))
{
}

/* Two pods that can claim the same addresses, of which those have a branch whose route stands in table 101. */
struct node {
	struct mesh mesh;
	struct mesh_pod one, other;
	struct pod_address addresses[2];
};

static int set_up(void **state)
{
	struct node *node = calloc(1, sizeof *node);
	const struct probe_set_events events = { 0 };
	if (!node || unshare(CLONE_NEWNET) < 0)
		return -1;
	run("ip link set lo up; ip link add pod1 type veth peer name inside1; ip link set pod1 up; ip link set inside1 up; "
	    "ip rule add iif pod1 lookup 101 pref 10; ip route add " FIRST " dev pod1 table 101; "
	    "ip route add " SECOND " dev pod1 table 101; echo 0 >/proc/sys/net/ipv4/tcp_early_demux");
	node->mesh.base = event_base_new();
	node->mesh.run = event_new(node->mesh.base, -1, 0, nothing, NULL);
	TAILQ_INIT(&node->mesh.pods);
	assert_true(pod_address_parse(FIRST, &node->addresses[0]) && pod_address_parse(SECOND, &node->addresses[1]));
	node->one = (struct mesh_pod){ .mesh = &node->mesh, .uid = (char *)"one" };
	node->other = (struct mesh_pod){ .mesh = &node->mesh, .uid = (char *)"other" };
	struct in_addr probe = { .s_addr = htonl(0xa9fe07fd) };
	struct in6_addr probe6 = { .s6_addr = { 0xfd, 1 } };
	if (probe_set_open(node->mesh.base, -1, probe, probe6, &events, NULL, &node->mesh.probes) < 0 ||
	    aws_branch_eni_open(-1, NULL, &node->mesh.aws) < 0)
		return -1;
	*state = node;
	return 0;
}

static int tear_down(void **state)
{
	struct node *node = *state;
	aws_branch_eni_close(node->mesh.aws);
	probe_set_close(node->mesh.probes);
	event_free(node->mesh.run);
	event_base_free(node->mesh.base);
	free(node);
	return 0;
}

static void put(struct mesh_pod *pod, struct pod_address *addresses, size_t count)
{
	pod->sandbox.addresses = addresses;
	pod->sandbox.addresses_count = count;
	assert_int_equal(mesh_probe_put(pod, NULL), 0);
	assert_int_equal(probe_set_flush(pod->mesh->probes, NULL), 0);
}

static bool has_rule(const char *what)
{
	char command[128];
	snprintf(command, sizeof command, "ip rule | tr '\\t' ' ' | grep -q -e '%s'", what);
	return system(command) == 0;
}

static void only_the_lost_address_goes(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_true(has_rule(FIRST " lookup 101") && has_rule(SECOND " lookup 101"));
	put(&node->one, node->addresses, 1);
	assert_true(has_rule(FIRST " lookup 101") && has_rule("iif pod1 lookup local"));
	assert_false(has_rule(SECOND " lookup"));
	put(&node->one, node->addresses, 2);
	assert_true(has_rule(SECOND " lookup 101"));
	mesh_probe_remove(&node->one);
	assert_false(has_rule("lookup local.*pod1") || has_rule(FIRST) || has_rule(SECOND) ||
		     has_rule("iif pod1 lookup local"));
}

static void given_away_outside(void **state)
{
	struct node *node = *state;
	char *addresses[] = { (char *)SECOND };
	struct attachment attachment = { .addresses = addresses, .addresses_count = 1 };
	put(&node->one, node->addresses, 2);
	run("ip route del " SECOND " table 101");
	mesh_probe_give_away(&node->mesh, &attachment);
	assert_true(has_rule(FIRST " lookup 101") && has_rule("iif pod1 lookup local"));
	assert_false(has_rule(SECOND " lookup"));
	put(&node->one, node->addresses, 2);
	assert_false(has_rule(SECOND " lookup"));
}

static void taken_over_without_a_branch(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	run("ip route del " SECOND " table 101");
	put(&node->other, &node->addresses[1], 1);
	assert_false(has_rule(SECOND " lookup"));
	mesh_probe_remove(&node->one);
	assert_false(has_rule(FIRST " lookup") || has_rule("iif pod1 lookup local"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_the_lost_address_goes),
		TEST(given_away_outside),
		TEST(taken_over_without_a_branch),
	};
	return cmocka_run_group_tests_name("probes", tests, NULL, NULL);
}
