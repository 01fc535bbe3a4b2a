/* The kernel's policy rules. See policy_rule.h. */
#include "installer/probes/policy_rule.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/netlink.h"

void policy_rules_clear(struct policy_rules *rules)
{
	free(rules->items);
	rules->items = NULL;
	rules->count = 0;
}

uint8_t policy_rule_address_length(int family)
{
	return family == AF_INET6 ? sizeof(struct in6_addr) : sizeof(struct in_addr);
}

static int keep_rule(const struct nlmsghdr *header, void *data)
{
	struct policy_rules *rules = data;
	const struct fib_rule_hdr *message = mnl_nlmsg_get_payload(header);
	const struct nlattr *attribute;
	if (header->nlmsg_type != RTM_NEWRULE || mnl_nlmsg_get_payload_len(header) < sizeof *message ||
	    message->family != rules->family || message->action != FR_ACT_TO_TBL)
		return MNL_CB_OK;
	struct policy_rule rule = {
		.table = message->table,
		.destination_length = message->dst_len,
		.is_detached = message->flags & FIB_RULE_IIF_DETACHED,
		.is_plain = message->src_len == 0 && message->tos == 0 && !(message->flags & FIB_RULE_INVERT),
	};
	mnl_attr_for_each (attribute, header, sizeof *message) {
		uint16_t length = mnl_attr_get_payload_len(attribute);
		switch (mnl_attr_get_type(attribute)) {
		case FRA_PRIORITY:
			rule.priority = length == sizeof(uint32_t) ? mnl_attr_get_u32(attribute) : 0;
			break;
		case FRA_TABLE:
			rule.table = length == sizeof(uint32_t) ? mnl_attr_get_u32(attribute) : 0;
			break;
		case FRA_PROTOCOL:
			rule.protocol = length == sizeof(uint8_t) ? mnl_attr_get_u8(attribute) : 0;
			break;
		case FRA_DST:
			if (length <= sizeof rule.destination)
				memcpy(&rule.destination, mnl_attr_get_payload(attribute), length);
			break;
		case FRA_IIFNAME:
			if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
				snprintf(rule.interface, sizeof rule.interface, "%s", mnl_attr_get_str(attribute));
			break;
		case FRA_FWMARK:
		case FRA_OIFNAME:
		case FRA_UID_RANGE:
		case FRA_IP_PROTO:
		case FRA_SPORT_RANGE:
		case FRA_DPORT_RANGE:
			rule.is_plain = false;
			break;
		default:
			break;
		}
	}
	struct policy_rule *grown = reallocarray(rules->items, rules->count + 1, sizeof *grown);
	if (!grown)
		return MNL_CB_ERROR;
	rules->items = grown;
	rules->items[rules->count++] = rule;
	return MNL_CB_OK;
}

static void keep_rules_again(void *data)
{
	policy_rules_clear(data);
}

int policy_rules_read(struct mnl_socket *netlink, int family, struct error *error, struct policy_rules *rules)
{
	char buffer[128] = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	request->nlmsg_type = RTM_GETRULE;
	struct fib_rule_hdr *message = mnl_nlmsg_put_extra_header(request, sizeof *message);
	message->family = (uint8_t)family;
	policy_rules_clear(rules);
	rules->family = family;
	int number = netlink_dump(netlink, request, keep_rule, keep_rules_again, rules);
	if (number == EAFNOSUPPORT || number == EOPNOTSUPP)
		return 0;
	return number ? error_set(error, number, "cannot read the host's policy rules") : 0;
}

/* ip rule (add|del) [to ADDRESS] [iif INTERFACE] lookup TABLE pref PRIORITY. Adding what is there, and removing what is not, is
 * no error. */
static int change(struct mnl_socket *netlink, uint16_t type, int family, const struct policy_rule *rule, struct error *error)
{
	char buffer[256] = { 0 };
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	request->nlmsg_type = type;
	request->nlmsg_flags = type == RTM_NEWRULE ? NLM_F_CREATE | NLM_F_EXCL : 0;
	struct fib_rule_hdr *message = mnl_nlmsg_put_extra_header(request, sizeof *message);
	message->family = (uint8_t)family;
	message->action = FR_ACT_TO_TBL;
	message->dst_len = rule->destination_length;
	message->table = rule->table <= UINT8_MAX ? (uint8_t)rule->table : RT_TABLE_UNSPEC;
	mnl_attr_put_u32(request, FRA_TABLE, rule->table);
	mnl_attr_put_u32(request, FRA_PRIORITY, rule->priority);
	if (rule->protocol)
		mnl_attr_put_u8(request, FRA_PROTOCOL, rule->protocol);
	if (rule->destination_length)
		mnl_attr_put(request, FRA_DST, policy_rule_address_length(family), &rule->destination);
	if (rule->interface[0] != '\0')
		mnl_attr_put_strz(request, FRA_IIFNAME, rule->interface);
	int number = netlink_request(netlink, request);
	if (number == 0 || number == (type == RTM_NEWRULE ? EEXIST : ENOENT))
		return 0;
	return error_set(error, number, "cannot %s the host's policy rule of preference %u",
			 type == RTM_NEWRULE ? "add" : "remove", rule->priority);
}

static bool has_rule(const struct policy_rules *rules, const struct policy_rule *rule)
{
	for (size_t i = 0; i < rules->count; i++) {
		const struct policy_rule *other = &rules->items[i];
		if (other->is_plain && other->priority == rule->priority && other->table == rule->table &&
		    other->destination_length == rule->destination_length &&
		    memcmp(&other->destination, &rule->destination, sizeof rule->destination) == 0 &&
		    strcmp(other->interface, rule->interface) == 0)
			return true;
	}
	return false;
}

int policy_rules_add(struct mnl_socket *netlink, const struct policy_rules *rules, const struct policy_rule *rule,
		     struct error *error)
{
	return has_rule(rules, rule) ? 0 : change(netlink, RTM_NEWRULE, rules->family, rule, error);
}

int policy_rules_remove(struct mnl_socket *netlink, int family, const struct policy_rule *rule, struct error *error)
{
	return change(netlink, RTM_DELRULE, family, rule, error);
}
