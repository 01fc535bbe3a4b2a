/* nftables transactions. See nft.h.
 *
 * nfnetlink handles a batch inside sendmsg(2): when it returns, every answer is in the socket's queue. So reading never
 * waits, and a queue that is empty means that nothing more comes. The last object asks for an acknowledgement (old kernels
 * ignore the flag on BATCH_END); messages that failed answer in any case. */
#include <arpa/inet.h>
#include <errno.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lib/nft_parts.h"

/* libnftnl writes attributes without looking at the end of the buffer: the largest message (512 elements of 16 byte keys)
 * stays far below this. */
#define MESSAGE_MAX 65536

int nft_batch_new(struct nft_socket *socket, struct error *error, struct nft_batch **ret_batch)
{
	struct nft_batch *batch = calloc(1, sizeof *batch);
	if (!batch)
		return error_set(error, ENOMEM, "cannot start an nftables transaction");
	batch->socket = socket;
	batch->capacity = MESSAGE_MAX + 16384;
	batch->buffer = malloc(batch->capacity);
	if (!batch->buffer) {
		free(batch);
		return error_set(error, ENOMEM, "cannot start an nftables transaction");
	}
	batch->first_sequence = ++socket->sequence;
	struct nlmsghdr *header = nftnl_batch_begin(batch->buffer, batch->first_sequence);
	batch->length = header->nlmsg_len;
	*ret_batch = batch;
	return 0;
}

void nft_batch_free(struct nft_batch *batch)
{
	if (!batch)
		return;
	free(batch->buffer);
	free(batch->messages);
	free(batch);
}

void nft_batch_freep(struct nft_batch **batch)
{
	nft_batch_free(*batch);
}

void nft_batch_fail(struct nft_batch *batch, int number, const char *what)
{
	if (batch->failed)
		return;
	batch->failed = number;
	snprintf(batch->failed_what, sizeof batch->failed_what, "%s", what);
}

void nft_batch_expect_generation(struct nft_batch *batch, uint32_t generation)
{
	/* Only right behind BATCH_BEGIN, whose attribute it is. */
	struct nlmsghdr *header = (struct nlmsghdr *)batch->buffer;
	if (batch->messages_count != 0) {
		nft_batch_fail(batch, EINVAL, "generation");
		return;
	}
	mnl_attr_put_u32(header, NFNL_BATCH_GENID, htonl(generation));
	batch->length = header->nlmsg_len;
}

/* Starts a message at the end of the buffer, with room for MESSAGE_MAX; NULL once the batch has failed. */
static struct nlmsghdr *start_message(struct nft_batch *batch, uint16_t type, uint16_t family, uint16_t flags, const char *kind,
				      const char *name)
{
	if (batch->failed)
		return NULL;
	if (batch->length + MESSAGE_MAX > batch->capacity) {
		size_t capacity = batch->capacity * 2;
		char *buffer = realloc(batch->buffer, capacity);
		if (!buffer) {
			nft_batch_fail(batch, ENOMEM, kind);
			return NULL;
		}
		batch->buffer = buffer;
		batch->capacity = capacity;
	}
	if (batch->messages_count == batch->messages_capacity) {
		size_t capacity = batch->messages_capacity ? batch->messages_capacity * 2 : 64;
		struct batch_message *messages = realloc(batch->messages, capacity * sizeof *messages);
		if (!messages) {
			nft_batch_fail(batch, ENOMEM, kind);
			return NULL;
		}
		batch->messages = messages;
		batch->messages_capacity = capacity;
	}
	struct batch_message *message = &batch->messages[batch->messages_count++];
	message->offset = batch->length;
	message->kind = kind;
	snprintf(message->name, sizeof message->name, "%s", name);
	return nftnl_nlmsg_build_hdr(batch->buffer + batch->length, type, family, flags, ++batch->socket->sequence);
}

static void finish_message(struct nft_batch *batch, const struct nlmsghdr *header)
{
	batch->length += MNL_ALIGN(header->nlmsg_len);
}

/* One message: `build` writes the object's attributes. What the functions below have in common: batch, family, name. */
#define ADD_MESSAGE(type, flags, kind, build, object)                                                                          \
	do {                                                                                                                   \
		struct nlmsghdr *header_ = start_message(batch, type, family, flags, kind, name);                              \
		if (header_) {                                                                                                 \
			build(header_, object);                                                                                \
			finish_message(batch, header_);                                                                        \
		}                                                                                                              \
	} while (0)

void nft_batch_add_table(struct nft_batch *batch, uint16_t family, const struct nftnl_table *table, const char *name)
{
	ADD_MESSAGE(NFT_MSG_NEWTABLE, NLM_F_CREATE, "table", nftnl_table_nlmsg_build_payload, table);
}

void nft_batch_delete_table(struct nft_batch *batch, uint16_t family, const struct nftnl_table *table, const char *name)
{
	ADD_MESSAGE(NFT_MSG_DELTABLE, 0, "table", nftnl_table_nlmsg_build_payload, table);
}

void nft_batch_add_chain(struct nft_batch *batch, uint16_t family, const struct nftnl_chain *chain, const char *name)
{
	ADD_MESSAGE(NFT_MSG_NEWCHAIN, NLM_F_CREATE, "chain", nftnl_chain_nlmsg_build_payload, chain);
}

void nft_batch_delete_chain(struct nft_batch *batch, uint16_t family, const struct nftnl_chain *chain, const char *name)
{
	ADD_MESSAGE(NFT_MSG_DELCHAIN, 0, "chain", nftnl_chain_nlmsg_build_payload, chain);
}

void nft_batch_add_set(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name)
{
	ADD_MESSAGE(NFT_MSG_NEWSET, NLM_F_CREATE, "set", nftnl_set_nlmsg_build_payload, set);
}

void nft_batch_add_object(struct nft_batch *batch, uint16_t family, struct nftnl_obj *object, const char *name)
{
	ADD_MESSAGE(NFT_MSG_NEWOBJ, NLM_F_CREATE, "object", nftnl_obj_nlmsg_build_payload, object);
}

void nft_batch_add_elements(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name)
{
	ADD_MESSAGE(NFT_MSG_NEWSETELEM, NLM_F_CREATE, "elements of set", nftnl_set_elems_nlmsg_build_payload, set);
}

void nft_batch_delete_elements(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name)
{
	ADD_MESSAGE(NFT_MSG_DELSETELEM, 0, "elements of set", nftnl_set_elems_nlmsg_build_payload, set);
}

void nft_batch_add_rule(struct nft_batch *batch, uint16_t family, struct nftnl_rule *rule, const char *name)
{
	ADD_MESSAGE(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "rule", nftnl_rule_nlmsg_build_payload, rule);
}

void nft_batch_delete_rule(struct nft_batch *batch, uint16_t family, struct nftnl_rule *rule, const char *name)
{
	ADD_MESSAGE(NFT_MSG_DELRULE, 0, "rule", nftnl_rule_nlmsg_build_payload, rule);
}

/* Reads every answer that waits. The first error counts: what follows it in a batch fails because of it. */
static int read_answers(const struct nft_batch *batch, struct error *error)
{
	int fd = mnl_socket_get_fd(batch->socket->netlink);
	bool answered = false, failed = false;
	for (;;) {
		char buffer[16384];
		ssize_t received = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
		if (received < 0 && errno == EINTR)
			continue;
		if (received < 0 && errno == ENOBUFS) {
			/* Answers were dropped: there were more errors than room for them. */
			failed = true;
			answered = true;
			error_set(error, ENOBUFS, "the kernel refused the nftables transaction");
			continue;
		}
		if (received < 0)
			break;
		int left = (int)received;
		for (struct nlmsghdr *header = (struct nlmsghdr *)buffer; mnl_nlmsg_ok(header, left);
		     header = mnl_nlmsg_next(header, &left)) {
			if (header->nlmsg_type != NLMSG_ERROR || mnl_nlmsg_get_payload_len(header) < sizeof(struct nlmsgerr))
				continue;
			const struct nlmsgerr *answer = mnl_nlmsg_get_payload(header);
			/* An answer to an earlier request on this socket is none of ours. */
			if (answer->msg.nlmsg_seq - batch->first_sequence > batch->messages_count + 1)
				continue;
			answered = true;
			if (answer->error != 0 && !failed) {
				failed = true;
				nft_batch_report(batch, header, -answer->error, error);
			}
		}
	}
	if (!answered)
		return error_set(error, EPROTO, "the kernel did not answer the nftables transaction");
	return failed ? -1 : 0;
}

int nft_batch_commit(struct nft_batch *batch, struct error *error)
{
	if (batch->failed)
		return error_set(error, batch->failed, "cannot build the nftables %s", batch->failed_what);
	if (batch->messages_count == 0)
		return 0;

	struct nlmsghdr *last = (struct nlmsghdr *)(batch->buffer + batch->messages[batch->messages_count - 1].offset);
	last->nlmsg_flags |= NLM_F_ACK;
	struct nlmsghdr *end = nftnl_batch_end(batch->buffer + batch->length, ++batch->socket->sequence);
	batch->length += MNL_ALIGN(end->nlmsg_len);

	int fd = mnl_socket_get_fd(batch->socket->netlink);
	if (batch->length > 128 * 1024) {
		/* The kernel doubles the value for its own bookkeeping; FORCE passes net.core.wmem_max with CAP_NET_ADMIN. */
		int size = (int)batch->length + 4096;
		if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) < 0)
			setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	}
	ssize_t sent;
	do
		sent = mnl_socket_sendto(batch->socket->netlink, batch->buffer, batch->length);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return error_set(error, errno, "cannot send the nftables transaction (%zu bytes)", batch->length);
	return read_answers(batch, error);
}
