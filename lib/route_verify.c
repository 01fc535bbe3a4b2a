/* The policy rule and the local route: looked at. See route.h. */
#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_link.h>
#include <linux/ipv6.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/socket.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/redirect.h"
#include "ambient/route.h"
#include "route_parts.h"

/* One question about a whole table of the kernel. */
static int dump(struct nl_sock *socket, int type, int family, int (*look)(const struct nlmsghdr *, void *), void *data)
{
	struct rtgenmsg header = { .rtgen_family = (uint8_t)family };
	char body[sizeof(struct rtmsg)] = { 0 };
	memcpy(body, &header, sizeof header);
	for (int attempt = 0; attempt < 16; attempt++) {
		cleanup_nl_msg struct nl_msg *message = route_make_message(type, NLM_F_REQUEST | NLM_F_DUMP);
		if (!message || nlmsg_append(message, body, sizeof body, NLMSG_ALIGNTO) < 0)
			return -ENOMEM;
		struct nlmsghdr *request = nlmsg_hdr(message);
		request->nlmsg_seq = nl_socket_use_seq(socket);
		request->nlmsg_pid = nl_socket_get_local_port(socket);
		if (nl_sendto(socket, request, request->nlmsg_len) < 0)
			return -errno;
		bool done = false, interrupted = false;
		int failed = 0;
		look(NULL, data);
		while (!done) {
			char buffer[32768];
			ssize_t received = route_receive(socket, buffer, sizeof buffer);
			if (received < 0)
				return -errno;
			int left = (int)received;
			for (struct nlmsghdr *answer = (struct nlmsghdr *)buffer; nlmsg_ok(answer, left);
			     answer = nlmsg_next(answer, &left)) {
				if (answer->nlmsg_seq != request->nlmsg_seq)
					continue;
				interrupted |= answer->nlmsg_flags & NLM_F_DUMP_INTR;
				if (answer->nlmsg_type == NLMSG_DONE) {
					/* A dump that failed ends with its error: of a family that the kernel lacks, say. */
					if (nlmsg_valid_hdr(answer, sizeof(int)))
						failed = *(const int *)nlmsg_data(answer);
					done = true;
				} else if (answer->nlmsg_type == NLMSG_ERROR) {
					failed = ((const struct nlmsgerr *)nlmsg_data(answer))->error;
					done = true;
				} else {
					look(answer, data);
				}
			}
		}
		if (failed)
			return failed;
		if (!interrupted)
			return 0;
	}
	return -EINTR;
}

struct rule_count {
	int family;
	size_t ours;  /* as it should be; a second one (another agent's) does no harm */
	size_t other; /* at our preference, for our table, but with other selectors */
};

static int count_rule(const struct nlmsghdr *header, void *data)
{
	struct rule_count *count = data;
	if (!header) {
		count->ours = count->other = 0;
		return 0;
	}
	const struct fib_rule_hdr *rule = nlmsg_data(header);
	struct nlattr *attributes[FRA_MAX + 1];
	if (header->nlmsg_type != RTM_NEWRULE || !nlmsg_valid_hdr(header, sizeof *rule) || rule->family != count->family ||
	    nlmsg_parse((struct nlmsghdr *)header, sizeof *rule, attributes, FRA_MAX, NULL) < 0)
		return 0;
	uint32_t table = attributes[FRA_TABLE] ? nla_get_u32(attributes[FRA_TABLE]) : rule->table;
	if (table != REDIRECT_ROUTE_TABLE || !attributes[FRA_PRIORITY] ||
	    nla_get_u32(attributes[FRA_PRIORITY]) != REDIRECT_RULE_PREFERENCE)
		return 0;
	bool is_ours = rule->action == FR_ACT_TO_TBL && attributes[FRA_FWMARK] && attributes[FRA_FWMASK] &&
		       nla_get_u32(attributes[FRA_FWMARK]) == REDIRECT_CONNECTION_MARK &&
		       nla_get_u32(attributes[FRA_FWMASK]) == REDIRECT_MARK_MASK && rule->src_len == 0 && rule->dst_len == 0 &&
		       rule->tos == 0 && !(rule->flags & FIB_RULE_INVERT) && !attributes[FRA_IIFNAME] &&
		       !attributes[FRA_OIFNAME] && !attributes[FRA_UID_RANGE] && !attributes[FRA_SPORT_RANGE] &&
		       !attributes[FRA_DPORT_RANGE];
	if (is_ours)
		count->ours++;
	else
		count->other++;
	return 0;
}

struct route_count {
	int family;
	size_t ours;
	size_t other_defaults; /* somebody else's default route in our table */
};

static int count_route(const struct nlmsghdr *header, void *data)
{
	struct route_count *count = data;
	if (!header) {
		count->ours = count->other_defaults = 0;
		return 0;
	}
	const struct rtmsg *route = nlmsg_data(header);
	struct nlattr *attributes[RTA_MAX + 1];
	if (header->nlmsg_type != RTM_NEWROUTE || !nlmsg_valid_hdr(header, sizeof *route) ||
	    route->rtm_family != count->family ||
	    nlmsg_parse((struct nlmsghdr *)header, sizeof *route, attributes, RTA_MAX, NULL) < 0)
		return 0;
	uint32_t table = attributes[RTA_TABLE] ? nla_get_u32(attributes[RTA_TABLE]) : route->rtm_table;
	if (table != REDIRECT_ROUTE_TABLE || route->rtm_dst_len != 0)
		return 0;
	bool is_ours = route->rtm_type == RTN_LOCAL && attributes[RTA_OIF] &&
		       nla_get_u32(attributes[RTA_OIF]) == ROUTE_LOOPBACK_INDEX && route->rtm_tos == 0 &&
		       !attributes[RTA_GATEWAY];
	if (is_ours)
		count->ours++;
	else
		count->other_defaults++;
	return 0;
}

/* Whether lo can carry IPv6: without it no local route can stand there. */
static int look_at_loopback(const struct nlmsghdr *header, void *data)
{
	bool *has_ipv6 = data;
	if (!header) {
		*has_ipv6 = false;
		return 0;
	}
	const struct ifinfomsg *link = nlmsg_data(header);
	struct nlattr *attributes[IFLA_MAX + 1], *of_family[AF_MAX + 1], *inet6[IFLA_INET6_MAX + 1];
	if (header->nlmsg_type != RTM_NEWLINK || !nlmsg_valid_hdr(header, sizeof *link) ||
	    link->ifi_index != ROUTE_LOOPBACK_INDEX ||
	    nlmsg_parse((struct nlmsghdr *)header, sizeof *link, attributes, IFLA_MAX, NULL) < 0 || !attributes[IFLA_AF_SPEC] ||
	    nla_parse_nested(of_family, AF_MAX, attributes[IFLA_AF_SPEC], NULL) < 0 || !of_family[AF_INET6] ||
	    nla_parse_nested(inet6, IFLA_INET6_MAX, of_family[AF_INET6], NULL) < 0 || !inet6[IFLA_INET6_CONF])
		return 0;
	const int32_t *settings = nla_data(inet6[IFLA_INET6_CONF]);
	size_t count = (size_t)nla_len(inet6[IFLA_INET6_CONF]) / sizeof *settings;
	*has_ipv6 = count > DEVCONF_DISABLE_IPV6 && settings[DEVCONF_DISABLE_IPV6] == 0;
	return 0;
}

static int verify_family(struct nl_sock *socket, int family, struct error *error, char *difference, size_t size)
{
	const char *name = family == AF_INET ? "IPv4" : "IPv6";
	struct rule_count rules = { .family = family };
	struct route_count routes = { .family = family };
	int failed = dump(socket, RTM_GETRULE, family, count_rule, &rules);
	if (failed && family == AF_INET6 && route_ipv6_is_missing(-failed))
		return 0;
	if (failed)
		return error_set(error, -failed, "cannot read the %s policy rules", name);
	failed = dump(socket, RTM_GETROUTE, family, count_route, &routes);
	if (failed)
		return error_set(error, -failed, "cannot read the %s routes", name);

	if (rules.ours == 0)
		snprintf(difference, size, "the %s rule fwmark 0x111/0xfff lookup 100 (preference %d) is %s", name,
			 REDIRECT_RULE_PREFERENCE, rules.other ? "there with other selectors" : "missing");
	else if (routes.ours == 0) {
		bool can_stand = true;
		if (family == AF_INET6 && (failed = dump(socket, RTM_GETLINK, AF_UNSPEC, look_at_loopback, &can_stand)) != 0)
			return error_set(error, -failed, "cannot look at lo");
		if (can_stand)
			snprintf(difference, size, "the %s route local default dev lo table 100 is missing%s", name,
				 routes.other_defaults ? ", another default route stands there" : "");
	}
	return 0;
}

int route_verify(struct nl_sock *socket, bool ipv6, struct error *error, char *ret_difference, size_t size)
{
	char difference[256] = "";
	if (route_await_changes(socket, error) < 0 || verify_family(socket, AF_INET, error, difference, sizeof difference) < 0)
		return -1;
	if (ipv6 && difference[0] == '\0' && verify_family(socket, AF_INET6, error, difference, sizeof difference) < 0)
		return -1;
	snprintf(ret_difference, size, "%s", difference);
	return 0;
}
