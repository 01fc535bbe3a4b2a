/* nftables over libmnl and libnftnl: a socket, a batch that is one transaction, and dumps.
 *
 * A batch is filled object by object. The first error (no memory, an object the library refused) is remembered, later calls
 * do nothing, and commit reports it: so callers need not look at each call. Every message carries the name of its object, and
 * an error of the kernel is mapped back to it by sequence number; where the kernel tells the offset of the offending
 * attribute (extended acks), the expression and the kernel option that it needs are named too. */
#ifndef AMBIENT_NFT_H
#define AMBIENT_NFT_H

#include <libmnl/libmnl.h>
#include <stdbool.h>
#include <stdint.h>

#include "ambient/error.h"

struct nftnl_table;
struct nftnl_chain;
struct nftnl_set;
struct nftnl_rule;
struct nftnl_obj;

/* Opened in the calling thread's network namespace; stays there. */
struct nft_socket;
int nft_socket_open(struct error *error, struct nft_socket **ret_socket);
void nft_socket_close(struct nft_socket *socket); /* NULL is fine */

/* The netlink port of the socket: notifications of its own commits bear it as nlmsg_pid. */
uint32_t nft_socket_port(const struct nft_socket *socket);

/* The namespace that the socket is in, as a new descriptor (CLOEXEC; SIOCGSKNS). */
int nft_socket_netns(const struct nft_socket *socket, struct error *error, int *ret_netns);

/* The generation of the ruleset: 1 in a namespace in which nobody ever committed, then one more with each commit. */
int nft_generation(struct nft_socket *socket, struct error *error, uint32_t *ret_generation);

/* Dumps objects: `type` is NFT_MSG_GETTABLE and so on, `table` limits to one table where the kernel can (rules, sets) or names
 * it (elements, with `set`); NULL for none. The callback is libmnl's. A dump that a commit interrupted is made again after
 * `restart` (may be NULL) was called with the callback's data. */
int nft_dump(struct nft_socket *socket, uint16_t type, uint16_t family, const char *table, const char *set, mnl_cb_t callback,
	     void (*restart)(void *), void *data, struct error *error);

/* Sends one request of another netfilter subsystem (conntrack's, say) over the same socket and waits for its acknowledgement.
 * The header's sequence number and the flag that asks for the acknowledgement are set here. */
int nft_request(struct nft_socket *socket, struct nlmsghdr *header, struct error *error);

struct nft_batch;
int nft_batch_new(struct nft_socket *socket, struct error *error, struct nft_batch **ret_batch);
void nft_batch_free(struct nft_batch *batch); /* NULL is fine */
void nft_batch_freep(struct nft_batch **batch);
#define cleanup_nft_batch __attribute__((cleanup(nft_batch_freep)))

/* The batch takes hold only if the ruleset still has this generation (else commit fails with ERESTART at no cost). */
void nft_batch_expect_generation(struct nft_batch *batch, uint32_t generation);

/* Each serialises the object at once; the object stays the caller's. `name` is for messages and is copied. */
void nft_batch_add_table(struct nft_batch *batch, uint16_t family, const struct nftnl_table *table, const char *name);
void nft_batch_delete_table(struct nft_batch *batch, uint16_t family, const struct nftnl_table *table, const char *name);
void nft_batch_add_chain(struct nft_batch *batch, uint16_t family, const struct nftnl_chain *chain, const char *name);
void nft_batch_add_set(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name);
/* A stateful object: a counter, conntrack timeouts, ... */
void nft_batch_add_object(struct nft_batch *batch, uint16_t family, struct nftnl_obj *object, const char *name);
/* At most NFT_ELEMENTS_PER_MESSAGE elements in `set`. */
void nft_batch_add_elements(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name);
void nft_batch_delete_elements(struct nft_batch *batch, uint16_t family, struct nftnl_set *set, const char *name);
void nft_batch_add_rule(struct nft_batch *batch, uint16_t family, struct nftnl_rule *rule, const char *name);
/* A rule with a handle; without one, all rules of its chain. */
void nft_batch_delete_rule(struct nft_batch *batch, uint16_t family, struct nftnl_rule *rule, const char *name);
/* A chain that nothing jumps to any more. */
void nft_batch_delete_chain(struct nft_batch *batch, uint16_t family, const struct nftnl_chain *chain, const char *name);
/* Remembers an error that happened while an object was made. */
void nft_batch_fail(struct nft_batch *batch, int number, const char *what);

#define NFT_ELEMENTS_PER_MESSAGE 512

/* Sends the batch: all of it holds afterwards, or none. The batch can be freed then, not used again. */
int nft_batch_commit(struct nft_batch *batch, struct error *error);

#endif
