/* What conntrack is made to forget, so that no new connection is taken for one that it remembers.
 *
 * NAT decides at the first packet of a connection; a SYN whose addresses and ports conntrack knows is none, and goes around the
 * tunnel where the one that it knows did. The rules see to it that what was open before them is not remembered
 * (redirect_ruleset.c). They can't in two cases:
 *
 *   - When they are gone. Entries outlive the rules for which conntrack was at work: direct connections that opened while a
 *     released pod still had its guard would stay "established" for five days, since nobody sees how they end; enrolled again,
 *     the pod sends a new connection from such a port around the tunnel. So everything goes with the rules. Where rules of
 *     somebody else track connections (and maybe let pass what is established, and nothing else), the entries are theirs, and
 *     true: nothing is touched.
 *
 *   - While they come. The kernel has conntrack at work from the first chain of a transaction on, and the rules only at its
 * end. What it first sees of a connection in between is listened to, and taken out of it again.
 *
 * With existingConnections reset everything is forgotten when the redirects come, so that a connection that was open before
 * meets them in its middle, and is cut. */
#include "redirect_forget.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/netlink.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "redirect_session.h"

static struct nlmsghdr *begin_request(char *buffer, uint8_t family)
{
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE;
	struct nfgenmsg *message = mnl_nlmsg_put_extra_header(header, sizeof *message);
	message->nfgen_family = family;
	message->version = NFNETLINK_V0;
	return header;
}

int redirect_forget_all(struct redirect_session *session, struct error *error)
{
	char buffer[64];
	if (nft_request(session->nft, begin_request(buffer, AF_UNSPEC), error) < 0)
		return error_wrap(error, "cannot reset the open connections (the kernel needs CONFIG_NF_CT_NETLINK)");
	return 0;
}

static int find_table(const struct nlmsghdr *header, void *data)
{
	(void)header;
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

/* Whether anybody has a table in the namespace; true where that can't be told. */
static bool has_tables(struct redirect_session *session)
{
	bool has_table = false;
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	cleanup_close int netns = -1;
	if (nft_dump(session->nft, NFT_MSG_GETTABLE, NFPROTO_UNSPEC, NULL, NULL, find_table, NULL, &has_table, NULL) < 0 ||
	    has_table || nft_socket_netns(session->nft, NULL, &netns) < 0 || netns_enter(netns, NULL, &visit) < 0)
		return true;
	return has_legacy_table("/proc/thread-self/net/ip_tables_names") ||
	       has_legacy_table("/proc/thread-self/net/ip6_tables_names");
}

void redirect_forget_leftovers(struct redirect_session *session)
{
	if (!has_tables(session))
		redirect_forget_all(session, NULL);
}

void redirect_forget_begin(struct redirect_session *session, struct mnl_socket **ret_listener)
{
	cleanup_close int netns = -1;
	cleanup_netlink struct mnl_socket *listener = NULL;
	int group = NFNLGRP_CONNTRACK_NEW;
	if (nft_socket_netns(session->nft, NULL, &netns) == 0 && netlink_open(netns, NETLINK_NETFILTER, NULL, &listener) == 0 &&
	    mnl_socket_setsockopt(listener, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) == 0)
		*ret_listener = steal_pointer(listener);
}

/* Of TCP the state: SYN_SENT where the first packet was a SYN. */
static bool began_in_its_middle(const struct nlattr *protocol)
{
	const struct nlattr *tcp, *field;
	mnl_attr_for_each_nested (tcp, protocol) {
		if (mnl_attr_get_type(tcp) != CTA_PROTOINFO_TCP)
			continue;
		mnl_attr_for_each_nested (field, tcp) {
			if (mnl_attr_get_type(field) == CTA_PROTOINFO_TCP_STATE &&
			    mnl_attr_get_payload_len(field) == sizeof(uint8_t))
				return mnl_attr_get_u8(field) != TCP_CONNTRACK_SYN_SENT;
		}
	}
	return false;
}

static int forget_one(const struct nlmsghdr *header, void *data)
{
	struct redirect_session *session = data;
	const struct nlattr *tuple = NULL, *id = NULL, *attribute;
	const struct nfgenmsg *found = mnl_nlmsg_get_payload(header);
	bool is_meant = false;
	char buffer[256];
	mnl_attr_for_each (attribute, header, sizeof *found) {
		switch (mnl_attr_get_type(attribute)) {
		case CTA_TUPLE_ORIG:
			tuple = attribute;
			break;
		case CTA_ID:
			id = attribute;
			break;
		case CTA_PROTOINFO:
			is_meant = began_in_its_middle(attribute);
			break;
		}
	}
	struct nlmsghdr *request = begin_request(buffer, found->nfgen_family);
	if (is_meant && tuple && id &&
	    mnl_attr_put_check(request, sizeof buffer, tuple->nla_type, mnl_attr_get_payload_len(tuple),
			       mnl_attr_get_payload(tuple)) &&
	    mnl_attr_put_check(request, sizeof buffer, CTA_ID, mnl_attr_get_payload_len(id), mnl_attr_get_payload(id)))
		nft_request(session->nft, request, NULL); /* it may have ended by now */
	return MNL_CB_OK;
}

void redirect_forget_end(struct redirect_session *session, struct mnl_socket *listener)
{
	cleanup_netlink struct mnl_socket *closed = listener;
	char buffer[8192];
	ssize_t received;
	/* The kernel tells of a connection before its packet goes on: what is not in the queue by now was no case of this. */
	while (closed && (received = recv(mnl_socket_get_fd(closed), buffer, sizeof buffer, MSG_DONTWAIT)) > 0)
		mnl_cb_run(buffer, (size_t)received, 0, 0, forget_one, session);
}
