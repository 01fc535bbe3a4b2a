/* Our table as the kernel has it, and rules of it compared by content. Private to the library. */
#ifndef AMBIENT_LIB_REDIRECT_DUMP_H
#define AMBIENT_LIB_REDIRECT_DUMP_H

#include "ambient/redirect.h"
#include "redirect_ruleset.h"

struct nftnl_chain;
struct nftnl_rule;
struct nftnl_set;

/* The dump of one table; the lists own their objects. */
struct redirect_dump {
	bool has_table, is_dormant;
	bool has_timeout, has_other_timeout; /* RULESET_TIMEOUT as it should be, or not */
	struct nftnl_chain **chains;
	size_t chains_count;
	struct nftnl_rule **rules;
	size_t rules_count;
	struct nftnl_set **sets;
	size_t sets_count;
};

/* Into an empty dump; what was read so far is the caller's to clear, also on failure. */
int redirect_dump_read(struct redirect_session *session, struct error *error, struct redirect_dump *dump);
void redirect_dump_clear(struct redirect_dump *dump);
#define cleanup_redirect_dump __attribute__((cleanup(redirect_dump_clear)))

/* NULL: there is none of that name. */
const struct nftnl_chain *redirect_dump_chain(const struct redirect_dump *dump, const char *name);
/* The rule at a place of a chain, from 0; NULL: there are not so many. */
const struct nftnl_rule *redirect_dump_rule(const struct redirect_dump *dump, const char *chain, size_t position);
/* Whether `found` (NULL: nothing) is the rule that `rule` compiles to. False with errno ENOMEM: it could not be compiled. */
bool redirect_dump_same_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule, const struct nftnl_rule *found);

#endif
