/* A socket of nfnetlink: single requests and dumps. See nft.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/netlink.h"
#include "lib/nft_parts.h"

int nft_socket_open(struct error *error, struct nft_socket **ret_socket)
{
	cleanup_free struct nft_socket *socket = calloc(1, sizeof *socket);
	if (!socket)
		return error_set(error, ENOMEM, "cannot open an nftables socket");

	socket->netlink = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	if (!socket->netlink)
		return error_set(error, errno, "cannot open an nftables socket%s",
				 errno == EPROTONOSUPPORT ? " (the kernel lacks CONFIG_NETFILTER_NETLINK)" : "");
	if (mnl_socket_bind(socket->netlink, 0, MNL_SOCKET_AUTOPID) < 0) {
		error_set(error, errno, "cannot bind an nftables socket");
		mnl_socket_close(socket->netlink);
		return -1;
	}
	/* Both are comfort: without them errors are longer and less precise. */
	int on = 1;
	mnl_socket_setsockopt(socket->netlink, NETLINK_EXT_ACK, &on, sizeof on);
	mnl_socket_setsockopt(socket->netlink, NETLINK_CAP_ACK, &on, sizeof on);
	*ret_socket = steal_pointer(socket);
	return 0;
}

void nft_socket_close(struct nft_socket *socket)
{
	if (!socket)
		return;
	mnl_socket_close(socket->netlink);
	free(socket);
}

uint32_t nft_socket_port(const struct nft_socket *socket)
{
	return mnl_socket_get_portid(socket->netlink);
}

int nft_socket_netns(const struct nft_socket *socket, struct error *error, int *ret_netns)
{
	int netns = ioctl(mnl_socket_get_fd(socket->netlink), SIOCGSKNS);
	if (netns < 0)
		return error_set(error, errno, "cannot open the network namespace of an nftables socket");
	*ret_netns = netns;
	return 0;
}

static int read_generation(const struct nlmsghdr *header, void *data)
{
	const struct nlattr *attribute;
	mnl_attr_for_each (attribute, header, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(attribute) == NFTA_GEN_ID && mnl_attr_get_payload_len(attribute) == sizeof(uint32_t))
			*(uint32_t *)data = ntohl(mnl_attr_get_u32(attribute));
	}
	return MNL_CB_OK;
}

int nft_generation(struct nft_socket *socket, struct error *error, uint32_t *ret_generation)
{
	char buffer[64];
	uint32_t generation = 0;
	struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, NFT_MSG_GETGEN, AF_UNSPEC, 0, socket->sequence);
	int number = netlink_ask(socket->netlink, header, read_generation, &generation);
	socket->sequence = header->nlmsg_seq;
	if (number) {
		const char *hint = number == EINVAL || number == EOPNOTSUPP ? " (the kernel lacks CONFIG_NF_TABLES)" : "";
		return error_set(error, number, "cannot read the nftables generation%s", hint);
	}
	*ret_generation = generation;
	return 0;
}

int nft_dump(struct nft_socket *socket, uint16_t type, uint16_t family, const char *table, const char *set, mnl_cb_t callback,
	     void (*restart)(void *), void *data, struct error *error)
{
	char buffer[512];
	struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, type, family, NLM_F_DUMP, socket->sequence);
	/* NFTA_{CHAIN,RULE,SET,SET_ELEM_LIST}_TABLE are all 1, NFTA_SET_ELEM_LIST_SET is 2. */
	if (table)
		mnl_attr_put_strz(header, NFTA_RULE_TABLE, table);
	if (set)
		mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set);
	int number = netlink_dump(socket->netlink, header, callback, restart, data);
	socket->sequence = header->nlmsg_seq;
	return number ? error_set(error, number, "cannot read the nftables ruleset%s",
				  number == EINTR ? ", which changes all the time" : "")
		      : 0;
}

int nft_request(struct nft_socket *socket, struct nlmsghdr *header, struct error *error)
{
	header->nlmsg_seq = socket->sequence;
	int number = netlink_request(socket->netlink, header);
	socket->sequence = header->nlmsg_seq;
	return number ? error_set(error, number, "the kernel refused a netfilter request") : 0;
}
