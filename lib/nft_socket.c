/* A socket of nfnetlink: single requests and dumps. See nft.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/common.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
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
	socket->sequence = 1;
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

/* What is left of an answer must not be taken for the answer to the next request, and the kernel makes no new dump before the
 * last one is read (EBUSY). It makes each part of one as it is read, so that an empty queue is the end. errno is kept. */
static void drop_answers(struct nft_socket *socket)
{
	char buffer[32768];
	int saved = errno;
	while (recv(mnl_socket_get_fd(socket->netlink), buffer, sizeof buffer, MSG_DONTWAIT) > 0)
		;
	errno = saved;
}

/* Sends one request and hands its answers to `callback`. 0, or -1 with errno. */
static int request(struct nft_socket *socket, struct nlmsghdr *header, bool many, mnl_cb_t callback, void *data)
{
	char buffer[32768];
	uint32_t port = mnl_socket_get_portid(socket->netlink);

	if (mnl_socket_sendto(socket->netlink, header, header->nlmsg_len) < 0)
		return -1;
	for (;;) {
		ssize_t received = mnl_socket_recvfrom(socket->netlink, buffer, sizeof buffer);
		if (received < 0 && errno == EINTR)
			continue;
		/* EINTR: a commit interrupted the dump. ENOBUFS: something was lost. */
		int result = received < 0 ? -1 : mnl_cb_run(buffer, (size_t)received, header->nlmsg_seq, port, callback, data);
		if (result < 0) {
			drop_answers(socket);
			return -1;
		}
		if (result == MNL_CB_STOP || !many)
			return 0;
	}
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
	struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, NFT_MSG_GETGEN, AF_UNSPEC, 0, socket->sequence++);
	if (request(socket, header, false, read_generation, &generation) < 0) {
		const char *hint = errno == EINVAL || errno == EOPNOTSUPP ? " (the kernel lacks CONFIG_NF_TABLES)" : "";
		return error_set(error, errno, "cannot read the nftables generation%s", hint);
	}
	*ret_generation = generation;
	return 0;
}

int nft_dump(struct nft_socket *socket, uint16_t type, uint16_t family, const char *table, const char *set, mnl_cb_t callback,
	     void (*restart)(void *), void *data, struct error *error)
{
	char buffer[512];
	/* Somebody who commits all the time must not hold us for ever. */
	for (int attempt = 0; attempt < 16; attempt++) {
		struct nlmsghdr *header = nftnl_nlmsg_build_hdr(buffer, type, family, NLM_F_DUMP, socket->sequence++);
		/* NFTA_{CHAIN,RULE,SET,SET_ELEM_LIST}_TABLE are all 1, NFTA_SET_ELEM_LIST_SET is 2. */
		if (table)
			mnl_attr_put_strz(header, NFTA_RULE_TABLE, table);
		if (set)
			mnl_attr_put_strz(header, NFTA_SET_ELEM_LIST_SET, set);
		if (request(socket, header, true, callback, data) == 0)
			return 0;
		if (errno != EINTR)
			return error_set(error, errno, "cannot read the nftables ruleset");
		if (restart)
			restart(data);
	}
	return error_set(error, EINTR, "cannot read the nftables ruleset: it changes all the time");
}

int nft_request(struct nft_socket *socket, struct nlmsghdr *header, struct error *error)
{
	header->nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	header->nlmsg_seq = socket->sequence++;
	if (request(socket, header, false, NULL, NULL) < 0)
		return error_set(error, errno, "the kernel refused a netfilter request");
	return 0;
}
