/* See aws_branch_eni.h.
 *
 * What the VPC CNI leaves on the host for a pod with a branch interface (strict mode, VLAN 1, table 101):
 *
 *     rule   10   from all iif vlan.eth.1 lookup 101
 *     rule   10   from all iif vlanXXXX lookup 101          vlanXXXX: the host's end of the pod's veth
 *     rule   20   from all lookup local
 *     route       10.0.5.7 dev vlanXXXX table 101
 *     route       default via 10.0.5.1 dev vlan.eth.1 table 101
 *
 * Nothing is remembered: the kernel's rules and routes say which pod has one, and our rules bear a protocol number
 * (FRA_PROTOCOL, Linux 4.17), by which they are found again after a restart and when the veth is gone. */
#include "installer/probes/aws_branch_eni.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/netns.h"
#include "ambient/netlink.h"
#include "installer/probes/policy_rule.h"

#define TO_POD_PRIORITY 512
#define OUR_PROTOCOL 172 /* free in iproute2's rt_protos */
/* Despite its name it is that of IPv6 too (ip6_rcv_finish_core). */
#define EARLY_DEMUX "/proc/sys/net/ipv4/tcp_early_demux"

struct aws_branch_eni {
	struct mnl_socket *netlink;
	int netns; /* -1: our own */
};

static uint8_t host_prefix(int family)
{
	return (uint8_t)(policy_rule_address_length(family) * 8);
}

int aws_branch_eni_open(int netns, struct error *error, struct aws_branch_eni **ret_eni)
{
	struct aws_branch_eni *eni = calloc(1, sizeof *eni);
	if (!eni)
		return error_set(error, ENOMEM, "cannot look for branch interfaces");
	eni->netns = netns >= 0 ? fcntl(netns, F_DUPFD_CLOEXEC, 0) : -1;
	if ((netns >= 0 && eni->netns < 0 ? error_set(error, errno, "cannot keep the host's network namespace") : 0) < 0 ||
	    netlink_open(netns, NETLINK_ROUTE, error, &eni->netlink) < 0) {
		aws_branch_eni_close(eni);
		return error_wrap(error, "cannot look for branch interfaces");
	}
	*ret_eni = eni;
	return 0;
}

void aws_branch_eni_close(struct aws_branch_eni *eni)
{
	if (!eni)
		return;
	if (eni->netlink)
		mnl_socket_close(eni->netlink);
	if (eni->netns >= 0)
		close(eni->netns);
	free(eni);
}

/* Whether the VPC CNI was told to make probes of such pods possible: /proc/sys/net is that of the reader's namespace. */
static int is_possible(const struct aws_branch_eni *eni, struct error *error, bool *ret_is_possible)
{
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	cleanup_free char *text = NULL;
	size_t length;
	struct error failure = { 0 };
	if (eni->netns >= 0 && netns_enter(eni->netns, error, &visit) < 0)
		return -1;
	if (file_read(EARLY_DEMUX, 64, &failure, &text, &length) < 0 && failure.number != ENOENT)
		return error_copy(error, &failure);
	*ret_is_possible = text && text[0] == '0';
	return 0;
}

/* `to ADDRESS lookup TABLE` at our priority; the rule is of the address's family. */
static bool leads_to(const struct policy_rule *rule, const struct pod_address *address)
{
	return rule->priority == TO_POD_PRIORITY && rule->is_plain && rule->interface[0] == '\0' &&
	       rule->destination_length == host_prefix(address->family) && rule->table != RT_TABLE_MAIN &&
	       memcmp(&rule->destination, &address->ipv6, policy_rule_address_length(address->family)) == 0;
}

/* `iif INTERFACE lookup` a table that is the provider's. */
static bool is_providers(const struct policy_rule *rule)
{
	return rule->is_plain && rule->interface[0] != '\0' && rule->destination_length == 0 && rule->table != RT_TABLE_LOCAL &&
	       rule->table != RT_TABLE_MAIN && rule->table != RT_TABLE_DEFAULT && rule->priority > 0;
}

/* `iif INTERFACE lookup local` */
static bool is_way_back(const struct policy_rule *rule)
{
	return rule->is_plain && rule->interface[0] != '\0' && rule->destination_length == 0 && rule->table == RT_TABLE_LOCAL;
}

/* An address whose host route stands in a table of the provider's. */
struct branch {
	struct pod_address address;
	struct policy_rule provider; /* for what comes from the route's device */
};

/* What the host has of one family. */
struct branches {
	struct policy_rules rules;
	struct branch *items;
	size_t count;
};

static void forget_routes(void *data)
{
	struct branches *branches = data;
	free(branches->items);
	branches->items = NULL;
	branches->count = 0;
}

static void branches_clear(struct branches *branches)
{
	policy_rules_clear(&branches->rules);
	forget_routes(branches);
}
#define cleanup_branches __attribute__((cleanup(branches_clear)))

/* The provider's rule for a table and the device of this index; NULL: none. */
static const struct policy_rule *provider_of(const struct policy_rules *rules, uint32_t table, uint32_t index)
{
	char name[IFNAMSIZ] = "";
	for (size_t i = 0; i < rules->count; i++) {
		if (!is_providers(&rules->items[i]) || rules->items[i].table != table)
			continue;
		if (name[0] == '\0' && !if_indextoname(index, name))
			return NULL;
		if (strcmp(rules->items[i].interface, name) == 0)
			return &rules->items[i];
	}
	return NULL;
}

static int keep_route(const struct nlmsghdr *header, void *data)
{
	struct branches *branches = data;
	const struct rtmsg *message = mnl_nlmsg_get_payload(header);
	const struct nlattr *attribute;
	int family = branches->rules.family;
	if (header->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(header) < sizeof *message ||
	    message->rtm_family != family || message->rtm_dst_len != host_prefix(family) || message->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	struct pod_address address = { .family = family };
	uint32_t table = message->rtm_table, index = 0;
	bool has_address = false;
	mnl_attr_for_each (attribute, header, sizeof *message) {
		uint16_t length = mnl_attr_get_payload_len(attribute);
		if (mnl_attr_get_type(attribute) == RTA_TABLE && length == sizeof table) {
			table = mnl_attr_get_u32(attribute);
		} else if (mnl_attr_get_type(attribute) == RTA_OIF && length == sizeof index) {
			index = mnl_attr_get_u32(attribute);
		} else if (mnl_attr_get_type(attribute) == RTA_DST && length == policy_rule_address_length(family)) {
			memcpy(&address.ipv6, mnl_attr_get_payload(attribute), length);
			has_address = true;
		}
	}
	const struct policy_rule *provider = has_address && index != 0 ? provider_of(&branches->rules, table, index) : NULL;
	if (!provider)
		return MNL_CB_OK;
	struct branch *grown = reallocarray(branches->items, branches->count + 1, sizeof *grown);
	if (!grown)
		return MNL_CB_ERROR;
	branches->items = grown;
	branches->items[branches->count++] = (struct branch){ .address = address, .provider = *provider };
	return MNL_CB_OK;
}

/* Without any rule of the provider's the routes are not read. `branches` is cleared before. */
static int read_branches(struct aws_branch_eni *eni, int family, struct error *error, struct branches *branches)
{
	bool is_any = false;
	forget_routes(branches);
	if (policy_rules_read(eni->netlink, family, error, &branches->rules) < 0)
		return -1;
	for (size_t i = 0; i < branches->rules.count; i++)
		is_any |= is_providers(&branches->rules.items[i]);
	if (!is_any)
		return 0;

	char buffer[128] = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	request->nlmsg_type = RTM_GETROUTE;
	struct rtmsg *message = mnl_nlmsg_put_extra_header(request, sizeof *message);
	message->rtm_family = (unsigned char)family;
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	/* For the names of the interfaces. */
	if (eni->netns >= 0 && netns_enter(eni->netns, error, &visit) < 0)
		return -1;
	int number = netlink_dump(eni->netlink, request, keep_route, forget_routes, branches);
	return number ? error_set(error, number, "cannot read the host's routes") : 0;
}

static const struct branch *find_branch(const struct branches *branches, const struct pod_address *address)
{
	for (size_t i = 0; i < branches->count; i++)
		if (pod_address_equal(&branches->items[i].address, address))
			return &branches->items[i];
	return NULL;
}

/* The veth's way back, one before the provider's own rule. */
static bool is_way_back_of(const struct branch *branch, const struct policy_rule *rule)
{
	return is_way_back(rule) && strcmp(rule->interface, branch->provider.interface) == 0 &&
	       rule->priority == branch->provider.priority - 1;
}

/* Whether probes of another address than this one (NULL: of any) come back that way: a veth's addresses share it. */
static bool is_in_use(const struct branches *branches, const struct policy_rule *way_back, const struct pod_address *but)
{
	for (size_t i = 0; i < branches->count; i++) {
		const struct branch *branch = &branches->items[i];
		if (!is_way_back_of(branch, way_back) || (but && pod_address_equal(&branch->address, but)))
			continue;
		for (size_t j = 0; j < branches->rules.count; j++)
			if (leads_to(&branches->rules.items[j], &branch->address) &&
			    branches->rules.items[j].table == branch->provider.table)
				return true;
	}
	return false;
}

static int add_rules(struct aws_branch_eni *eni, const struct branches *branches, const struct branch *branch,
		     struct error *error)
{
	int family = branches->rules.family;
	struct policy_rule to_pod = { .priority = TO_POD_PRIORITY,
				      .table = branch->provider.table,
				      .protocol = OUR_PROTOCOL,
				      .destination_length = host_prefix(family) };
	memcpy(&to_pod.destination, &branch->address.ipv6, policy_rule_address_length(family));
	struct policy_rule way_back = { .priority = branch->provider.priority - 1,
					.table = RT_TABLE_LOCAL,
					.protocol = OUR_PROTOCOL };
	memcpy(way_back.interface, branch->provider.interface, sizeof way_back.interface);
	/* The way back first: a probe that has none would hang. */
	if (policy_rules_add(eni->netlink, &branches->rules, &way_back, error) < 0 ||
	    policy_rules_add(eni->netlink, &branches->rules, &to_pod, error) < 0)
		return error_wrap(error, "for a pod with a branch interface");
	return 0;
}

/* What a removal picks its rules by. */
struct removal {
	const struct branches *branches;
	const struct pod_address *address; /* NULL: of none in particular */
	bool (*is_enrolled)(void *data, const struct pod_address *address);
	void *data;
};

static int remove_rules(struct aws_branch_eni *eni, const struct removal *removal,
			bool (*picks)(const struct removal *, const struct policy_rule *), struct error *error)
{
	const struct policy_rules *rules = &removal->branches->rules;
	for (size_t i = 0; i < rules->count; i++)
		if (picks(removal, &rules->items[i]) &&
		    policy_rules_remove(eni->netlink, rules->family, &rules->items[i], error) < 0)
			return error_wrap(error, "for a pod with a branch interface");
	return 0;
}

/* What of ours leads the address elsewhere than to its branch: it was of an earlier pod. */
static bool picks_stale(const struct removal *removal, const struct policy_rule *rule)
{
	const struct branch *branch = find_branch(removal->branches, removal->address);
	return rule->protocol == OUR_PROTOCOL && leads_to(rule, removal->address) &&
	       !(branch && rule->table == branch->provider.table);
}

int aws_branch_eni_add(struct aws_branch_eni *eni, const struct pod_address *address, struct error *error, bool *ret_applies)
{
	cleanup_branches struct branches branches = { 0 };
	const struct removal stale = { .branches = &branches, .address = address };
	const struct branch *branch = NULL;
	bool possible = false;
	if (is_possible(eni, error, &possible) < 0)
		return -1;
	if (possible) {
		if (read_branches(eni, address->family, error, &branches) < 0 ||
		    remove_rules(eni, &stale, picks_stale, error) < 0)
			return -1;
		branch = find_branch(&branches, address);
		if (branch && add_rules(eni, &branches, branch, error) < 0)
			return -1;
	}
	if (ret_applies)
		*ret_applies = branch != NULL;
	return 0;
}

static bool picks_to_address(const struct removal *removal, const struct policy_rule *rule)
{
	return leads_to(rule, removal->address);
}

/* The way back from the address's veth, if it is the last address there, and from every veth that is gone. */
static bool picks_way_back(const struct removal *removal, const struct policy_rule *rule)
{
	const struct branch *branch = find_branch(removal->branches, removal->address);
	if (rule->protocol == OUR_PROTOCOL && is_way_back(rule) && rule->is_detached)
		return true;
	return branch && is_way_back_of(branch, rule) && !is_in_use(removal->branches, rule, removal->address);
}

int aws_branch_eni_remove(struct aws_branch_eni *eni, const struct pod_address *address, struct error *error)
{
	cleanup_branches struct branches branches = { 0 };
	const struct removal removal = { .branches = &branches, .address = address };
	/* No probe may be led into the table any more before its way back goes. */
	if (read_branches(eni, address->family, error, &branches) < 0 ||
	    remove_rules(eni, &removal, picks_to_address, error) < 0)
		return -1;
	return remove_rules(eni, &removal, picks_way_back, error);
}

/* `to ADDRESS lookup TABLE` of ours, for an address that is no pod's. */
static bool picks_orphan(const struct removal *removal, const struct policy_rule *rule)
{
	struct pod_address address = { .family = removal->branches->rules.family };
	memcpy(&address.ipv6, &rule->destination, policy_rule_address_length(address.family));
	return rule->protocol == OUR_PROTOCOL && leads_to(rule, &address) && !removal->is_enrolled(removal->data, &address);
}

static bool picks_idle_way_back(const struct removal *removal, const struct policy_rule *rule)
{
	return rule->protocol == OUR_PROTOCOL && is_way_back(rule) && !is_in_use(removal->branches, rule, NULL);
}

static const int families[] = { AF_INET, AF_INET6 };
#define FAMILIES_COUNT (sizeof families / sizeof families[0])

int aws_branch_eni_prune(struct aws_branch_eni *eni, bool (*is_enrolled)(void *data, const struct pod_address *address),
			 void *data, struct error *error)
{
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		cleanup_branches struct branches branches = { 0 };
		const struct removal removal = { .branches = &branches, .is_enrolled = is_enrolled, .data = data };
		if (read_branches(eni, families[i], error, &branches) < 0 ||
		    remove_rules(eni, &removal, picks_orphan, error) < 0 ||
		    read_branches(eni, families[i], error, &branches) < 0 ||
		    remove_rules(eni, &removal, picks_idle_way_back, error) < 0)
			return -1;
	}
	return 0;
}

static bool picks_ours(const struct removal *removal __attribute__((unused)), const struct policy_rule *rule)
{
	return rule->protocol == OUR_PROTOCOL && (is_way_back(rule) || rule->priority == TO_POD_PRIORITY);
}

int aws_branch_eni_remove_all(struct aws_branch_eni *eni, struct error *error)
{
	for (size_t i = 0; i < FAMILIES_COUNT; i++) {
		cleanup_branches struct branches branches = { 0 };
		const struct removal removal = { .branches = &branches };
		if (policy_rules_read(eni->netlink, families[i], error, &branches.rules) < 0 ||
		    remove_rules(eni, &removal, picks_ours, error) < 0)
			return -1;
	}
	return 0;
}
