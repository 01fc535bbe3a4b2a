/* What conntrack remembers when rules come into a namespace.
 *
 * NAT decides at the first packet of a connection; a SYN whose addresses and ports conntrack knows already is none. With
 * existingConnections reset everything is forgotten, so that a connection that was open before meets the redirects in its
 * middle, and is cut.
 *
 * With keep, what goes is what a new SYN could be taken for: connections that were tracked and not redirected. Entries outlive
 * the rules for which conntrack was at work: those that opened while a released pod still had its guard stay "established" for
 * five days after the pod closed them, since nothing looked by then; enrolled again, the pod would send the next connection
 * from such a port around the tunnel. One that is open in truth comes to no harm: its next packet is a first one, no SYN, and
 * left alone. That holds where we alone make conntrack work. Rules of somebody else may let pass what is established and
 * nothing else; and for them conntrack was at work all the time, so that its entries are true. Then nothing is touched. */
#include "redirect_forget.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "ambient/nft_read.h"
#include "redirect_session.h"

/* Of a removal: two addresses, two ports, an id. */
#define REQUEST_MAX 192

static struct nlmsghdr *begin_request(char *buffer, uint16_t type, uint8_t family)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = (uint16_t)(NFNL_SUBSYS_CTNETLINK << 8 | type);
	struct nfgenmsg *message = mnl_nlmsg_put_extra_header(header, sizeof *message);
	message->nfgen_family = family;
	message->version = NFNETLINK_V0;
	return header;
}

int redirect_forget_all(struct redirect_session *session, struct error *error)
{
	char buffer[64];
	if (nft_request(session->nft, begin_request(buffer, IPCTNL_MSG_CT_DELETE, AF_UNSPEC), error) < 0)
		return error_wrap(error, "cannot reset the open connections (the kernel needs CONFIG_NF_CT_NETLINK)");
	return 0;
}

static int read_count(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(attribute) == CTA_STATS_GLOBAL_ENTRIES &&
		    mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
			*(uint32_t *)data = ntohl(mnl_attr_get_u32(attribute));
	}
	return MNL_CB_OK;
}

/* How many connections the namespace has: a dump walks through those of all namespaces. */
static int count_connections(struct redirect_session *session, struct error *error, uint32_t *ret_count)
{
	char buffer[64];
	struct error failure = { 0 };
	uint32_t count = 0;
	if (nft_ask(session->nft, begin_request(buffer, IPCTNL_MSG_CT_GET_STATS, AF_UNSPEC), read_count, &count, &failure) <
	    0) {
		/* No such subsystem: nothing can be forgotten. */
		if (failure.number == EINVAL || failure.number == EOPNOTSUPP) {
			*ret_count = 0;
			return 0;
		}
		return error_set(error, failure.number, "cannot ask for the number of tracked connections");
	}
	*ret_count = count;
	return 0;
}

static int find_other_table(const struct nlmsghdr *header, void *data)
{
	cleanup_nft_table struct nftnl_table *table = nft_read_table(header);
	if (!table)
		return MNL_CB_ERROR;
	if (nftnl_table_get_u32(table, NFTNL_TABLE_FAMILY) != NFPROTO_INET ||
	    strcmp(nftnl_table_get_str(table, NFTNL_TABLE_NAME), REDIRECT_TABLE) != 0)
		*(bool *)data = true;
	return MNL_CB_OK;
}

/* The tables of iptables-legacy, which nftables does not see; the file is empty, or absent, where there are none. */
static bool has_legacy_table(const char *path)
{
	char byte;
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, &byte, 1) == 1;
}

/* Whether rules of somebody else may make conntrack work here. */
static int look_for_others(struct redirect_session *session, struct error *error, bool *ret_has_others)
{
	bool has_others = false;
	if (nft_dump(session->nft, NFT_MSG_GETTABLE, NFPROTO_UNSPEC, NULL, NULL, find_other_table, NULL, &has_others, error) <
	    0)
		return -1;
	if (!has_others) {
		cleanup_netns_leave struct netns_visit visit = { .home = -1 };
		cleanup_close int netns = -1;
		if (nft_socket_netns(session->nft, error, &netns) < 0 || netns_enter(netns, error, &visit) < 0)
			return -1;
		has_others = has_legacy_table("/proc/thread-self/net/ip_tables_names") ||
			     has_legacy_table("/proc/thread-self/net/ip6_tables_names");
	}
	*ret_has_others = has_others;
	return 0;
}

/* Connections to forget: the requests for it, since none can be sent while the dump goes on. */
struct removals {
	bool is_dns_captured;
	char (*requests)[REQUEST_MAX];
	size_t count, capacity;
};

static void clear_removals(void *data)
{
	struct removals *removals = data;
	free(removals->requests);
	*removals = (struct removals){ .is_dns_captured = removals->is_dns_captured };
}

/* Both in host order; 0 where there is none. */
struct destination {
	uint8_t protocol;
	uint16_t port;
};

static struct destination destination_of(const struct nlattr *tuple)
{
	struct destination destination = { 0 };
	const struct nlattr *part, *field;
	mnl_attr_for_each_nested (part, tuple) {
		if (mnl_attr_get_type(part) != CTA_TUPLE_PROTO)
			continue;
		mnl_attr_for_each_nested (field, part) {
			if (mnl_attr_get_type(field) == CTA_PROTO_NUM && mnl_attr_get_payload_len(field) == sizeof(uint8_t))
				destination.protocol = mnl_attr_get_u8(field);
			if (mnl_attr_get_type(field) == CTA_PROTO_DST_PORT &&
			    mnl_attr_get_payload_len(field) == sizeof(uint16_t))
				destination.port = ntohs(mnl_attr_get_u16(field));
		}
	}
	return destination;
}

/* Whether it is neither redirected nor the tunnel's own (whose replies need the mark; whose DNS has a zone), and of a kind that
 * the rules would redirect. */
static bool is_in_the_way(const struct removals *removals, struct nlattr *const attributes[CTA_MAX + 1])
{
	if (!attributes[CTA_TUPLE_ORIG] || !attributes[CTA_STATUS] || !attributes[CTA_ID] || attributes[CTA_ZONE] ||
	    (ntohl(mnl_attr_get_u32(attributes[CTA_STATUS])) & IPS_NAT_MASK) ||
	    (attributes[CTA_MARK] &&
	     (ntohl(mnl_attr_get_u32(attributes[CTA_MARK])) & REDIRECT_MARK_MASK) == REDIRECT_CONNECTION_MARK))
		return false;
	struct destination destination = destination_of(attributes[CTA_TUPLE_ORIG]);
	return destination.protocol == IPPROTO_TCP ||
	       (destination.protocol == IPPROTO_UDP && destination.port == 53 && removals->is_dns_captured);
}

static int read_attribute(const struct nlattr *attribute, void *data)
{
	static const size_t sizes[CTA_MAX + 1] = { [CTA_STATUS] = 4, [CTA_MARK] = 4, [CTA_ID] = 4 };
	struct nlattr **attributes = data;
	uint16_t type = mnl_attr_get_type(attribute);
	if (type <= CTA_MAX && (sizes[type] == 0 || mnl_attr_get_payload_len(attribute) == sizes[type]))
		attributes[type] = (struct nlattr *)attribute;
	return MNL_CB_OK;
}

static int find_removal(const struct nlmsghdr *header, void *data)
{
	struct removals *removals = data;
	struct nlattr *attributes[CTA_MAX + 1] = { 0 };
	if (mnl_attr_parse(header, sizeof(struct nfgenmsg), read_attribute, attributes) < 0 ||
	    !is_in_the_way(removals, attributes))
		return MNL_CB_OK;
	if (removals->count == removals->capacity) {
		size_t capacity = removals->capacity ? removals->capacity * 2 : 16;
		void *grown = reallocarray(removals->requests, capacity, sizeof *removals->requests);
		if (!grown) {
			errno = ENOMEM;
			return MNL_CB_ERROR;
		}
		removals->requests = grown;
		removals->capacity = capacity;
	}
	const struct nfgenmsg *found = mnl_nlmsg_get_payload(header);
	const struct nlattr *tuple = attributes[CTA_TUPLE_ORIG];
	struct nlmsghdr *request =
		begin_request(removals->requests[removals->count], IPCTNL_MSG_CT_DELETE, found->nfgen_family);
	if (!mnl_attr_put_check(request, REQUEST_MAX, tuple->nla_type, mnl_attr_get_payload_len(tuple),
				mnl_attr_get_payload(tuple)) ||
	    !mnl_attr_put_u32_check(request, REQUEST_MAX, CTA_ID, mnl_attr_get_u32(attributes[CTA_ID])))
		return MNL_CB_OK; /* longer than any that the kernel makes */
	removals->count++;
	return MNL_CB_OK;
}

int redirect_forget_not_redirected(struct redirect_session *session, bool is_dns_captured, struct error *error)
{
	uint32_t count = 0;
	bool has_others = false;
	char buffer[64];
	if (count_connections(session, error, &count) < 0)
		return -1;
	if (count == 0)
		return 0;
	if (look_for_others(session, error, &has_others) < 0)
		return error_wrap(error, "cannot see whether others track connections in the network namespace");
	if (has_others)
		return 0;

	__attribute__((cleanup(clear_removals))) struct removals removals = { .is_dns_captured = is_dns_captured };
	if (nft_request_dump(session->nft, begin_request(buffer, IPCTNL_MSG_CT_GET, AF_UNSPEC), find_removal, clear_removals,
			     &removals, error) < 0)
		return error_wrap(error, "cannot list the tracked connections");
	for (size_t i = 0; i < removals.count; i++) {
		struct error failure = { 0 };
		/* It may have ended meanwhile. */
		if (nft_request(session->nft, (struct nlmsghdr *)removals.requests[i], &failure) < 0 &&
		    failure.number != ENOENT)
			return error_set(error, failure.number, "cannot forget a tracked connection");
	}
	return 0;
}
