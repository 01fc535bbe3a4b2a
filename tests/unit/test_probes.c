/* What the host has for a pod follows each of its addresses, not the pod: an element of the probe set, a rule for an AWS branch
 * interface, and the way back from the veth, which all its addresses of a family share. In a namespace of the test's own; ip(8)
 * is the witness, and the kernel's own account of what was added (+) and removed (-), in its order: what stays is never
 * touched. */
#include "tests/unit/cmocka_headers.h"

#include <arpa/inet.h>
#include <event2/event.h>
#include <linux/fib_rules.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/nft_read.h"
#include "installer/mesh/state.h"

#define ADDRESSES 3

struct family {
	int number;
	const char *option; /* of ip(8) */
	const char *addresses[ADDRESSES];
	int rules_group; /* of changes */
};

static const struct family ipv4 = { AF_INET, "-4", { "10.0.5.7", "10.0.5.8", "10.0.5.9" }, RTNLGRP_IPV4_RULE };
static const struct family ipv6 = { AF_INET6, "-6", { "2001:db8:5::7", "2001:db8:5::8", "2001:db8:5::9" }, RTNLGRP_IPV6_RULE };

/* Two pods that can claim the same addresses, which have a branch whose routes stand in table 101. */
struct node {
	const struct family *family;
	struct mesh mesh;
	struct mesh_pod one, other;
	struct pod_address addresses[ADDRESSES];
	struct mnl_socket *rules, *elements; /* what changes */
	char changes[512];
};

__attribute__((format(printf, 1, 2))) static void run(const char *format, ...)
{
	char command[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(command, sizeof command, format, arguments);
	va_end(arguments);
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

static void nothing(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		    void *data __attribute__((unused)))
{
}

static struct mnl_socket *listen_to(int protocol, int group)
{
	struct mnl_socket *socket = mnl_socket_open2(protocol, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_non_null(socket);
	assert_int_equal(mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID), 0);
	assert_int_equal(mnl_socket_setsockopt(socket, NETLINK_ADD_MEMBERSHIP, &group, sizeof group), 0);
	return socket;
}

static int set_up(void **state)
{
	const struct family *family = *state;
	struct node *node = calloc(1, sizeof *node);
	const struct probe_set_events events = { 0 };
	if (!node || unshare(CLONE_NEWNET) < 0)
		return -1;
	node->family = family;
	run("ip link set lo up; ip link add pod1 type veth peer name inside1; ip link set pod1 up; ip link set inside1 up; "
	    "ip %s rule add iif pod1 lookup 101 pref 10; echo 0 >/proc/sys/net/ipv4/tcp_early_demux",
	    family->option);
	for (size_t i = 0; i < ADDRESSES; i++) {
		run("ip %s route add %s dev pod1 table 101", family->option, family->addresses[i]);
		assert_true(pod_address_parse(family->addresses[i], &node->addresses[i]));
	}
	node->mesh.base = event_base_new();
	node->mesh.run = event_new(node->mesh.base, -1, 0, nothing, NULL);
	TAILQ_INIT(&node->mesh.pods);
	node->one = (struct mesh_pod){ .mesh = &node->mesh, .uid = (char *)"one" };
	node->other = (struct mesh_pod){ .mesh = &node->mesh, .uid = (char *)"other" };
	struct in_addr probe = { .s_addr = htonl(0xa9fe07fd) };
	struct in6_addr probe6 = { .s6_addr = { 0xfd, 1 } };
	if (probe_set_open(node->mesh.base, -1, probe, probe6, &events, NULL, &node->mesh.probes) < 0 ||
	    aws_branch_eni_open(-1, NULL, &node->mesh.aws) < 0)
		return -1;
	node->rules = listen_to(NETLINK_ROUTE, family->rules_group);
	node->elements = listen_to(NETLINK_NETFILTER, NFNLGRP_NFTABLES);
	*state = node;
	return 0;
}

static int tear_down(void **state)
{
	struct node *node = *state;
	mnl_socket_close(node->rules);
	mnl_socket_close(node->elements);
	aws_branch_eni_close(node->mesh.aws);
	probe_set_close(node->mesh.probes);
	event_free(node->mesh.run);
	event_base_free(node->mesh.base);
	free(node);
	return 0;
}

static void note(struct node *node, bool is_new, const char *what)
{
	size_t length = strlen(node->changes);
	snprintf(node->changes + length, sizeof node->changes - length, "%c%s ", is_new ? '+' : '-', what);
}

/* By its place among the addresses of the test, from 1 on. */
static void note_address(struct node *node, bool is_new, const void *bytes)
{
	char text[INET6_ADDRSTRLEN], place[2] = "?";
	inet_ntop(node->family->number, bytes, text, sizeof text);
	for (size_t i = 0; i < ADDRESSES; i++)
		if (strcmp(text, node->family->addresses[i]) == 0)
			place[0] = (char)('1' + i);
	note(node, is_new, place);
}

static int note_rule(const struct nlmsghdr *header, void *data)
{
	struct node *node = data;
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, sizeof(struct fib_rule_hdr)) {
		if (mnl_attr_get_type(attribute) == FRA_DST)
			note_address(node, header->nlmsg_type == RTM_NEWRULE, mnl_attr_get_payload(attribute));
		if (mnl_attr_get_type(attribute) == FRA_IIFNAME)
			note(node, header->nlmsg_type == RTM_NEWRULE, "back");
	}
	return MNL_CB_OK;
}

struct element_change {
	struct node *node;
	bool is_new;
};

static int note_element(struct nftnl_set_elem *element, void *data)
{
	const struct element_change *change = data;
	uint32_t length = 0;
	note_address(change->node, change->is_new, nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &length));
	return 0;
}

static int note_elements(const struct nlmsghdr *header, void *data)
{
	int type = header->nlmsg_type & 0xff;
	struct element_change change = { .node = data, .is_new = type == NFT_MSG_NEWSETELEM };
	if (type != NFT_MSG_NEWSETELEM && type != NFT_MSG_DELSETELEM)
		return MNL_CB_OK;
	return nft_read_elements(header, note_element, &change);
}

static void listen_to_changes(struct node *node, struct mnl_socket *socket, mnl_cb_t callback)
{
	char buffer[8192];
	ssize_t length;
	node->changes[0] = '\0';
	while ((length = mnl_socket_recvfrom(socket, buffer, sizeof buffer)) > 0)
		assert_true(mnl_cb_run(buffer, (size_t)length, 0, 0, callback, node) >= 0);
}

/* A set's elements are one transaction, in any order: `elements` is in the order of these letters. */
static void assert_elements(struct node *node, const char *elements)
{
	char sorted[sizeof node->changes] = "";
	listen_to_changes(node, node->elements, note_elements);
	for (const char *sign = "+-"; *sign; sign++)
		for (int place = '1'; place <= '0' + ADDRESSES; place++)
			for (const char *change = node->changes; (change = strchr(change, *sign)); change++)
				if (change[1] == place)
					snprintf(sorted + strlen(sorted), 4, "%c%c ", *sign, place);
	assert_string_equal(sorted, elements);
	assert_int_equal(strlen(sorted), strlen(node->changes));
}

static void assert_rules(struct node *node, const char *rules)
{
	listen_to_changes(node, node->rules, note_rule);
	assert_string_equal(node->changes, rules);
}

/* What happened since the last time. */
static void assert_changes(struct node *node, const char *rules, const char *elements)
{
	assert_int_equal(probe_set_flush(node->mesh.probes, NULL), 0);
	assert_rules(node, rules);
	assert_elements(node, elements);
}

/* Whose sets are looked at before the next policy rule goes, and what is expected of them. */
static struct {
	struct node *node;
	const char *elements;
} before_rule_goes;

/* In place of libmnl's. */
ssize_t mnl_socket_sendto(const struct mnl_socket *nl, const void *req, size_t siz)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct node *node = before_rule_goes.node;
	if (node && ((const struct nlmsghdr *)req)->nlmsg_type == RTM_DELRULE) {
		before_rule_goes.node = NULL;
		assert_elements(node, before_rule_goes.elements);
	}
	return sendto(mnl_socket_get_fd(nl), req, siz, 0, (const struct sockaddr *)&kernel, sizeof kernel);
}

static void put(struct mesh_pod *pod, struct pod_address *addresses, size_t count)
{
	pod->sandbox.addresses = addresses;
	pod->sandbox.addresses_count = count;
	assert_int_equal(mesh_probe_put(pod, NULL), 0);
}

static void give_away(struct node *node, size_t place)
{
	char *addresses[] = { (char *)node->family->addresses[place - 1] };
	struct attachment attachment = { .addresses = addresses, .addresses_count = 1 };
	mesh_probe_give_away(&node->mesh, &attachment);
}

static void take_route(const struct node *node, size_t place)
{
	run("ip %s route del %s table 101", node->family->option, node->family->addresses[place - 1]);
}

static void only_the_lost_address_goes(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+back +1 +2 ", "+1 +2 ");
	put(&node->one, node->addresses, 2);
	assert_changes(node, "", "");
	put(&node->one, node->addresses, 1);
	assert_changes(node, "-2 ", "-2 ");
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+2 ", "+2 ");
	mesh_probe_remove(&node->one);
	assert_changes(node, "-1 -2 -back ", "-1 -2 ");
}

/* A pod that leaves the mesh runs on: a probe from the host's probe address would be lost in the VPC. */
static void no_probe_is_left_without_its_rules(void **state)
{
	struct node *node = *state;
	for (size_t i = 0; i < 2; i++) {
		put(&node->one, node->addresses, 2);
		assert_changes(node, "+back +1 +2 ", "+1 +2 ");
		before_rule_goes.node = node;
		before_rule_goes.elements = "-1 -2 ";
		mesh_probe_remove(&node->one);
		assert_null(before_rule_goes.node);
		assert_changes(node, "-1 -2 -back ", "");
	}
}

static void without_a_branch_pods_go_together(void **state)
{
	struct node *node = *state;
	for (size_t place = 1; place <= 2; place++)
		take_route(node, place);
	put(&node->one, node->addresses, 1);
	put(&node->other, node->addresses + 1, 1);
	assert_changes(node, "", "+1 +2 ");
	mesh_probe_remove(&node->one);
	mesh_probe_remove(&node->other);
	assert_elements(node, "");
	assert_changes(node, "", "-1 -2 ");
}

static void another_address_in_place_of_one(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+back +1 +2 ", "+1 +2 ");
	put(&node->one, node->addresses + 1, 2);
	assert_changes(node, "+3 -1 ", "+3 -1 ");
	/* Nothing stays but the way back. */
	put(&node->one, node->addresses, 1);
	assert_changes(node, "+1 -2 -3 ", "+1 -2 -3 ");
	mesh_probe_remove(&node->one);
	assert_changes(node, "-1 -back ", "-1 ");
}

static void given_away_outside(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+back +1 +2 ", "+1 +2 ");
	give_away(node, 2);
	assert_changes(node, "-2 ", "-2 ");
	put(&node->one, node->addresses, 2);
	assert_changes(node, "", "");
	/* With the last one the way back goes. */
	give_away(node, 1);
	assert_changes(node, "-1 -back ", "-1 ");
}

/* The route has gone to the other one's veth by then. */
static void given_away_outside_with_its_route(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+back +1 +2 ", "+1 +2 ");
	take_route(node, 2);
	give_away(node, 2);
	assert_changes(node, "-2 ", "-2 ");
	put(&node->one, node->addresses, 2);
	assert_changes(node, "", "");
}

static void taken_over_without_a_branch(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+back +1 +2 ", "+1 +2 ");
	take_route(node, 2);
	put(&node->other, &node->addresses[1], 1);
	assert_changes(node, "-2 ", "");
	mesh_probe_remove(&node->one);
	assert_changes(node, "-1 -back ", "-1 ");
}

static void taken_over_and_had_again(void **state)
{
	struct node *node = *state;
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+back +1 +2 ", "+1 +2 ");
	put(&node->other, &node->addresses[1], 1);
	put(&node->one, node->addresses, 2);
	assert_changes(node, "", "");
	mesh_probe_remove(&node->other);
	assert_changes(node, "-2 ", "-2 ");
	put(&node->one, node->addresses, 2);
	assert_changes(node, "+2 ", "+2 ");
}

#define TEST(function)                                                                                                         \
	{ #function ", IPv4", function, set_up, tear_down, (void *)&ipv4 },                                                    \
	{                                                                                                                      \
#function ", IPv6", function, set_up, tear_down, (void *)&ipv6                                                 \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(only_the_lost_address_goes),
		TEST(no_probe_is_left_without_its_rules),
		TEST(without_a_branch_pods_go_together),
		TEST(another_address_in_place_of_one),
		TEST(given_away_outside),
		TEST(given_away_outside_with_its_route),
		TEST(taken_over_without_a_branch),
		TEST(taken_over_and_had_again),
	};
	return cmocka_run_group_tests_name("probes", tests, NULL, NULL);
}
