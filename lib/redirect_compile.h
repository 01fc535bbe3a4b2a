/* A ruleset's objects as libnftnl objects. Each function returns a new object, owned by the caller, or NULL when there is no
 * memory. Private to the library. */
#ifndef AMBIENT_LIB_REDIRECT_COMPILE_H
#define AMBIENT_LIB_REDIRECT_COMPILE_H

#include "redirect_ruleset.h"

struct nftnl_table;
struct nftnl_chain;
struct nftnl_rule;
struct nftnl_set;
struct nftnl_obj;

struct nftnl_table *compile_table(void);
struct nftnl_chain *compile_chain(const struct ruleset_chain *chain);
/* The conntrack timeouts that SET_CT_TIMEOUT names. */
struct nftnl_obj *compile_timeout(void);
struct nftnl_rule *compile_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule);

/* The set itself, without elements. `id` is unique within the transaction. */
struct nftnl_set *compile_set(const struct ruleset_set *set, uint32_t id);

/* Elements [first, first + count) of the set, for a message of elements. */
struct nftnl_set *compile_elements(const struct ruleset_set *set, size_t first, size_t count);

#endif
