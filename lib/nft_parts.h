/* What the parts of nftables share. Private to lib/nft*.c, without nft_rule.c:
 *
 *   nft_socket.c   the socket: single requests, dumps, the generation
 *   nft_batch.c    a transaction: filled message by message, committed, its answers read
 *   nft_refusal.c  the kernel's refusal in words: which object, which expression, which option of the kernel */
#ifndef AMBIENT_NFT_PARTS_H
#define AMBIENT_NFT_PARTS_H

#include <stddef.h>
#include <stdint.h>

#include "ambient/nft.h"

struct nft_socket {
	struct mnl_socket *netlink;
	uint32_t sequence; /* of the last message, of batches too: counted before one is sent, as netlink.h does it */
};

struct batch_message {
	size_t offset;
	const char *kind; /* "rule" */
	char name[64];
};

struct nft_batch {
	struct nft_socket *socket;
	char *buffer;
	size_t length, capacity;
	uint32_t first_sequence;
	struct batch_message *messages; /* in the order of their sequence numbers */
	size_t messages_count, messages_capacity;
	int failed; /* errno of the first failure while filling */
	char failed_what[96];
};

/* Fills the error by an answer of the kernel to a message of the batch, or to the batch as a whole. -1. */
int nft_batch_report(const struct nft_batch *batch, const struct nlmsghdr *header, int number, struct error *error);

#endif
