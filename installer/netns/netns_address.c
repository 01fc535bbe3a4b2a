/* Whether a pod's address is configured in a network namespace. See netns_address.h. */
#include "installer/netns/netns_address.h"

#include <linux/rtnetlink.h>
#include <string.h>

#include "ambient/netlink.h"

struct address_search {
	const struct pod_address *addresses;
	size_t count;
	bool found;
};

static int match_address(const struct nlmsghdr *header, void *data)
{
	struct address_search *search = data;
	const struct ifaddrmsg *message = mnl_nlmsg_get_payload(header);
	const struct nlattr *attribute;
	if (header->nlmsg_type != RTM_NEWADDR || mnl_nlmsg_get_payload_len(header) < sizeof *message)
		return MNL_CB_OK;
	size_t length = message->ifa_family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
	/* IFA_LOCAL is the interface's own where there is a peer, IFA_ADDRESS elsewhere; the peer's is not the pod's. */
	const struct nlattr *local = NULL, *address = NULL;
	mnl_attr_for_each (attribute, header, sizeof *message) {
		if (mnl_attr_get_payload_len(attribute) != length)
			continue;
		if (mnl_attr_get_type(attribute) == IFA_LOCAL)
			local = attribute;
		else if (mnl_attr_get_type(attribute) == IFA_ADDRESS)
			address = attribute;
	}
	const struct nlattr *own = local ? local : address;
	for (size_t i = 0; own && i < search->count; i++)
		if (search->addresses[i].family == message->ifa_family &&
		    memcmp(mnl_attr_get_payload(own), &search->addresses[i].ipv6, length) == 0)
			search->found = true;
	return MNL_CB_OK;
}

int netns_has_address(int netns, const struct pod_address *addresses, size_t count, struct error *error, bool *ret_has)
{
	struct address_search search = { .addresses = addresses, .count = count };
	cleanup_netlink struct mnl_socket *socket = NULL;
	char buffer[128] = { 0 };
	if (netlink_open(netns, NETLINK_ROUTE, error, &socket) < 0)
		return -1;
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	request->nlmsg_type = RTM_GETADDR;
	struct ifaddrmsg *message = mnl_nlmsg_put_extra_header(request, sizeof *message);
	message->ifa_family = AF_UNSPEC;
	int number = netlink_dump(socket, request, match_address, NULL, &search);
	if (number)
		return error_set(error, number, "cannot read the addresses of a network namespace");
	*ret_has = search.found;
	return 0;
}
