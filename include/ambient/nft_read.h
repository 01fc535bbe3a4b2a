/* The objects in the messages of a dump (nft_dump), for its callbacks. What can't be read for want of memory must not pass for
 * what is not there: a reader then returns NULL with errno, and the callback MNL_CB_ERROR. The objects are the caller's. */
#ifndef AMBIENT_NFT_READ_H
#define AMBIENT_NFT_READ_H

#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <stdbool.h>

struct nftnl_table *nft_read_table(const struct nlmsghdr *header);
struct nftnl_chain *nft_read_chain(const struct nlmsghdr *header);
struct nftnl_set *nft_read_set(const struct nlmsghdr *header);
/* NULL with an errno other than ENOMEM: of a type that libnftnl does not know. */
struct nftnl_obj *nft_read_object(const struct nlmsghdr *header);

/* `ret_is_whole` is false where the rule has an expression that libnftnl does not know: table and chain are there all the same,
 * the rest may be or not. */
struct nftnl_rule *nft_read_rule(const struct nlmsghdr *header, bool *ret_is_whole);

/* Calls `visit` for each element of a set; -1 from it ends the walk. Returns what the callback returns. */
int nft_read_elements(const struct nlmsghdr *header, int (*visit)(struct nftnl_set_elem *element, void *data), void *data);

/* libnftnl frees no NULL. */
static inline void cleanup_nft_tablep(struct nftnl_table **table)
{
	if (*table)
		nftnl_table_free(*table);
}

static inline void cleanup_nft_chainp(struct nftnl_chain **chain)
{
	if (*chain)
		nftnl_chain_free(*chain);
}

static inline void cleanup_nft_setp(struct nftnl_set **set)
{
	if (*set)
		nftnl_set_free(*set);
}

static inline void cleanup_nft_rulep(struct nftnl_rule **rule)
{
	if (*rule)
		nftnl_rule_free(*rule);
}

static inline void cleanup_nft_objectp(struct nftnl_obj **object)
{
	if (*object)
		nftnl_obj_free(*object);
}

#define cleanup_nft_object __attribute__((cleanup(cleanup_nft_objectp)))
#define cleanup_nft_table __attribute__((cleanup(cleanup_nft_tablep)))
#define cleanup_nft_chain __attribute__((cleanup(cleanup_nft_chainp)))
#define cleanup_nft_set __attribute__((cleanup(cleanup_nft_setp)))
#define cleanup_nft_rule __attribute__((cleanup(cleanup_nft_rulep)))

#endif
