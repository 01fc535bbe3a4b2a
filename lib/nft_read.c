/* See nft_read.h. */
#include "ambient/nft_read.h"

#include <errno.h>

#include "ambient/cleanup.h"

/* Allocates an object and parses the message into it. NULL: no memory. */
#define READ(kind, header)                                                                                                     \
	({                                                                                                                     \
		struct nftnl_##kind *object_ = nftnl_##kind##_alloc();                                                         \
		if (object_ && nftnl_##kind##_nlmsg_parse((header), object_) < 0) {                                            \
			nftnl_##kind##_free(object_);                                                                          \
			object_ = NULL;                                                                                        \
			errno = ENOMEM;                                                                                        \
		}                                                                                                              \
		object_;                                                                                                       \
	})

struct nftnl_table *nft_read_table(const struct nlmsghdr *header)
{
	return READ(table, header);
}

struct nftnl_chain *nft_read_chain(const struct nlmsghdr *header)
{
	return READ(chain, header);
}

struct nftnl_obj *nft_read_object(const struct nlmsghdr *header)
{
	cleanup_nft_object struct nftnl_obj *object = nftnl_obj_alloc();
	errno = object ? 0 : ENOMEM;
	if (!object || nftnl_obj_nlmsg_parse(header, object) < 0 || !nftnl_obj_is_set(object, NFTNL_OBJ_TABLE) ||
	    !nftnl_obj_is_set(object, NFTNL_OBJ_NAME))
		return NULL;
	return steal_pointer(object);
}

struct nftnl_set *nft_read_set(const struct nlmsghdr *header)
{
	return READ(set, header);
}

struct nftnl_rule *nft_read_rule(const struct nlmsghdr *header, bool *ret_is_whole)
{
	cleanup_nft_rule struct nftnl_rule *rule = nftnl_rule_alloc();
	errno = 0;
	bool is_whole = rule && nftnl_rule_nlmsg_parse(header, rule) == 0;
	/* libnftnl reads a rule's place before its expressions. */
	if (!rule || errno == ENOMEM || !nftnl_rule_is_set(rule, NFTNL_RULE_TABLE) ||
	    !nftnl_rule_is_set(rule, NFTNL_RULE_CHAIN)) {
		errno = ENOMEM;
		return NULL;
	}
	*ret_is_whole = is_whole;
	return steal_pointer(rule);
}

int nft_read_elements(const struct nlmsghdr *header, int (*visit)(struct nftnl_set_elem *element, void *data), void *data)
{
	cleanup_nft_set struct nftnl_set *set = nftnl_set_alloc();
	if (set && nftnl_set_elems_nlmsg_parse(header, set) == 0 && nftnl_set_elem_foreach(set, visit, data) == 0)
		return MNL_CB_OK;
	errno = ENOMEM;
	return MNL_CB_ERROR;
}
