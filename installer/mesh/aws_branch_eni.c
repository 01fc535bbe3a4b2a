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
#include "installer/mesh/aws_branch_eni.h"

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
#include "installer/mesh/policy_rule.h"

#define TO_POD_PRIORITY 512
#define OUR_PROTOCOL 172 /* free in iproute2's rt_protos */
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
	if (file_read(EARLY_DEMUX, 64, &failure, &text, &length) < 0 && failure.number != ENOENT) {
		if (error && !error_is_set(error))
			*error = failure;
		return -1;
	}
	*ret_is_possible = text && text[0] == '0';
	return 0;
}

/* `to ADDRESS lookup TABLE` at our priority. */
static bool leads_to(const struct policy_rules *rules, const struct policy_rule *rule, const struct pod_address *address)
{
	return rule->priority == TO_POD_PRIORITY && rule->is_plain && rule->interface[0] == '\0' &&
	       rule->destination_length == host_prefix(rules->family) && rule->table != RT_TABLE_MAIN &&
	       memcmp(&rule->destination, &address->ipv6, policy_rule_address_length(rules->family)) == 0;
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

/* Where a pod's host route stands. */
struct branch {
	const struct policy_rules *rules;
	const struct pod_address *address;
	const struct policy_rule *provider; /* NULL: it has no branch interface */
};

/* The provider's rule for a table and the device of this index; NULL: none. */
static const struct policy_rule *provider_of(const struct policy_rules *rules, uint32_t table, uint32_t index)
{
	char name[IFNAMSIZ];
	if (!if_indextoname(index, name))
		return NULL;
	for (size_t i = 0; i < rules->count; i++)
		if (is_providers(&rules->items[i]) && rules->items[i].table == table &&
		    strcmp(rules->items[i].interface, name) == 0)
			return &rules->items[i];
	return NULL;
}

static int look_at_route(const struct nlmsghdr *header, void *data)
{
	struct branch *branch = data;
	const struct rtmsg *message = mnl_nlmsg_get_payload(header);
	const struct nlattr *attribute;
	int family = branch->rules->family;
	if (header->nlmsg_type != RTM_NEWROUTE || mnl_nlmsg_get_payload_len(header) < sizeof *message ||
	    message->rtm_family != family || message->rtm_dst_len != host_prefix(family) || message->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	uint32_t table = message->rtm_table, index = 0;
	bool is_pods = false;
	mnl_attr_for_each (attribute, header, sizeof *message) {
		uint16_t length = mnl_attr_get_payload_len(attribute);
		if (mnl_attr_get_type(attribute) == RTA_TABLE && length == sizeof table)
			table = mnl_attr_get_u32(attribute);
		else if (mnl_attr_get_type(attribute) == RTA_OIF && length == sizeof index)
			index = mnl_attr_get_u32(attribute);
		else if (mnl_attr_get_type(attribute) == RTA_DST && length == policy_rule_address_length(family))
			is_pods = memcmp(mnl_attr_get_payload(attribute), &branch->address->ipv6, length) == 0;
	}
	if (is_pods && index != 0 && !branch->provider)
		branch->provider = provider_of(branch->rules, table, index);
	return MNL_CB_OK;
}

static void look_again(void *data)
{
	((struct branch *)data)->provider = NULL;
}

/* The provider's rule of the pod's veth (in `rules`), NULL where the pod has no branch interface. Without any such rule the
 * routes are not read. */
static int find_provider(struct aws_branch_eni *eni, const struct policy_rules *rules, const struct pod_address *address,
			 struct error *error, const struct policy_rule **ret_provider)
{
	bool is_any = false;
	*ret_provider = NULL;
	for (size_t i = 0; i < rules->count; i++)
		is_any |= is_providers(&rules->items[i]);
	if (!is_any)
		return 0;

	struct branch branch = { .rules = rules, .address = address };
	char buffer[128] = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	request->nlmsg_type = RTM_GETROUTE;
	struct rtmsg *message = mnl_nlmsg_put_extra_header(request, sizeof *message);
	message->rtm_family = (unsigned char)rules->family;
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	/* For the names of the interfaces. */
	if (eni->netns >= 0 && netns_enter(eni->netns, error, &visit) < 0)
		return -1;
	int number = netlink_dump(eni->netlink, request, look_at_route, look_again, &branch);
	if (number)
		return error_set(error, number, "cannot read the host's routes");
	*ret_provider = branch.provider;
	return 0;
}

static int add_address(struct aws_branch_eni *eni, const struct policy_rules *rules, const struct pod_address *address,
		       struct error *error, bool *applies)
{
	const struct policy_rule *provider;
	if (find_provider(eni, rules, address, error, &provider) < 0)
		return -1;
	if (!provider) {
		/* The pod that had it before had a branch. */
		for (size_t i = 0; i < rules->count; i++)
			if (leads_to(rules, &rules->items[i], address) && rules->items[i].protocol == OUR_PROTOCOL &&
			    policy_rules_remove(eni->netlink, rules->family, &rules->items[i], error) < 0)
				return -1;
		return 0;
	}
	*applies = true;

	/* What led the same address elsewhere was of an earlier pod. */
	for (size_t i = 0; i < rules->count; i++)
		if (leads_to(rules, &rules->items[i], address) && rules->items[i].table != provider->table &&
		    rules->items[i].protocol == OUR_PROTOCOL &&
		    policy_rules_remove(eni->netlink, rules->family, &rules->items[i], error) < 0)
			return -1;
	struct policy_rule to_pod = { .priority = TO_POD_PRIORITY,
				      .table = provider->table,
				      .protocol = OUR_PROTOCOL,
				      .destination_length = host_prefix(rules->family) };
	memcpy(&to_pod.destination, &address->ipv6, policy_rule_address_length(rules->family));
	struct policy_rule way_back = { .priority = provider->priority - 1, .table = RT_TABLE_LOCAL, .protocol = OUR_PROTOCOL };
	memcpy(way_back.interface, provider->interface, sizeof way_back.interface);
	/* The way back first: a probe that has none would hang. */
	if (policy_rules_add(eni->netlink, rules, &way_back, error) < 0 ||
	    policy_rules_add(eni->netlink, rules, &to_pod, error) < 0)
		return error_wrap(error, "for a pod with a branch interface");
	return 0;
}

static const int families[] = { AF_INET, AF_INET6 };

int aws_branch_eni_add(struct aws_branch_eni *eni, const struct pod_address *addresses, size_t count, struct error *error,
		       bool *ret_applies)
{
	bool possible = false, applies = false;
	if (is_possible(eni, error, &possible) < 0)
		return -1;
	for (size_t i = 0; possible && i < 2; i++) {
		cleanup_policy_rules struct policy_rules rules = { 0 };
		bool is_read = false;
		for (size_t j = 0; j < count; j++) {
			if (addresses[j].family != families[i])
				continue;
			if (!is_read && policy_rules_read(eni->netlink, families[i], error, &rules) < 0)
				return -1;
			is_read = true;
			if (add_address(eni, &rules, &addresses[j], error, &applies) < 0)
				return -1;
		}
	}
	if (ret_applies)
		*ret_applies = applies;
	return 0;
}

/* Removes the rules that `picks` picks; `data` is its own. */
static int remove_rules(struct aws_branch_eni *eni, const struct policy_rules *rules,
			bool (*picks)(const struct policy_rules *, const struct policy_rule *, const void *), const void *data,
			struct error *error)
{
	for (size_t i = 0; i < rules->count; i++)
		if (picks(rules, &rules->items[i], data) &&
		    policy_rules_remove(eni->netlink, rules->family, &rules->items[i], error) < 0)
			return error_wrap(error, "for a pod with a branch interface");
	return 0;
}

static bool picks_to_address(const struct policy_rules *rules, const struct policy_rule *rule, const void *data)
{
	return leads_to(rules, rule, data);
}

/* The way back of the pod whose provider's rule `data` is (NULL: gone already), and of every pod whose veth is gone. */
static bool picks_way_back(const struct policy_rules *rules __attribute__((unused)), const struct policy_rule *rule,
			   const void *data)
{
	const struct policy_rule *provider = data;
	if (!is_way_back(rule))
		return false;
	if (rule->protocol == OUR_PROTOCOL && rule->is_detached)
		return true;
	return provider && strcmp(rule->interface, provider->interface) == 0 && rule->priority == provider->priority - 1;
}

static bool picks_ours(const struct policy_rules *rules __attribute__((unused)), const struct policy_rule *rule,
		       const void *data __attribute__((unused)))
{
	return rule->protocol == OUR_PROTOCOL && (is_way_back(rule) || rule->priority == TO_POD_PRIORITY);
}

int aws_branch_eni_remove(struct aws_branch_eni *eni, const struct pod_address *addresses, size_t count, struct error *error)
{
	for (size_t i = 0; i < 2; i++) {
		cleanup_policy_rules struct policy_rules rules = { 0 };
		bool is_read = false;
		for (size_t j = 0; j < count; j++) {
			const struct policy_rule *provider = NULL;
			if (addresses[j].family != families[i])
				continue;
			if (!is_read && policy_rules_read(eni->netlink, families[i], error, &rules) < 0)
				return -1;
			is_read = true;
			/* No probe may be led into the table any more before its way back goes. */
			if (remove_rules(eni, &rules, picks_to_address, &addresses[j], error) < 0 ||
			    find_provider(eni, &rules, &addresses[j], error, &provider) < 0 ||
			    remove_rules(eni, &rules, picks_way_back, provider, error) < 0)
				return -1;
		}
	}
	return 0;
}

struct prune {
	bool (*is_enrolled)(void *data, const struct pod_address *address);
	void *data;
};

/* `to ADDRESS lookup TABLE` of ours, for an address that is no pod's. */
static bool picks_orphan(const struct policy_rules *rules, const struct policy_rule *rule, const void *data)
{
	const struct prune *prune = data;
	struct pod_address address = { .family = rules->family };
	memcpy(&address.ipv6, &rule->destination, policy_rule_address_length(rules->family));
	return rule->protocol == OUR_PROTOCOL && leads_to(rules, rule, &address) && !prune->is_enrolled(prune->data, &address);
}

/* A way back of ours from an interface whose table no rule leads to any more. */
static bool picks_idle_way_back(const struct policy_rules *rules, const struct policy_rule *rule,
				const void *data __attribute__((unused)))
{
	if (rule->protocol != OUR_PROTOCOL || !is_way_back(rule))
		return false;
	for (size_t i = 0; i < rules->count; i++) {
		const struct policy_rule *provider = &rules->items[i];
		if (!is_providers(provider) || strcmp(provider->interface, rule->interface) != 0)
			continue;
		for (size_t j = 0; j < rules->count; j++)
			if (rules->items[j].priority == TO_POD_PRIORITY && rules->items[j].table == provider->table)
				return false;
	}
	return true;
}

int aws_branch_eni_prune(struct aws_branch_eni *eni, bool (*is_enrolled)(void *data, const struct pod_address *address),
			 void *data, struct error *error)
{
	const struct prune prune = { .is_enrolled = is_enrolled, .data = data };
	for (size_t i = 0; i < 2; i++) {
		cleanup_policy_rules struct policy_rules rules = { 0 };
		if (policy_rules_read(eni->netlink, families[i], error, &rules) < 0 ||
		    remove_rules(eni, &rules, picks_orphan, &prune, error) < 0 ||
		    policy_rules_read(eni->netlink, families[i], error, &rules) < 0 ||
		    remove_rules(eni, &rules, picks_idle_way_back, NULL, error) < 0)
			return -1;
	}
	return 0;
}

int aws_branch_eni_remove_all(struct aws_branch_eni *eni, struct error *error)
{
	for (size_t i = 0; i < 2; i++) {
		cleanup_policy_rules struct policy_rules rules = { 0 };
		if (policy_rules_read(eni->netlink, families[i], error, &rules) < 0 ||
		    remove_rules(eni, &rules, picks_ours, NULL, error) < 0)
			return -1;
	}
	return 0;
}
