/* The rules of a redirection as data: chains, sets and rules made of statements. Made from a `struct redirect` in one place
 * (redirect_ruleset.c) and walked three ways: compiled to libnftnl objects (redirect_compile.c: applied, or compared with the
 * kernel) and printed as nft syntax (redirect_render.c). Private to the library. */
#ifndef AMBIENT_LIB_REDIRECT_RULESET_H
#define AMBIENT_LIB_REDIRECT_RULESET_H

#include <stdint.h>

#include "ambient/redirect.h"

enum ruleset_chain_id {
	CHAIN_PREROUTING_ZONE,
	CHAIN_PREROUTING,
	CHAIN_PREROUTING_REDIRECT,
	CHAIN_INPUT,
	CHAIN_OUTPUT_ZONE,
	CHAIN_OUTPUT,
	CHAIN_OUTPUT_REDIRECT,
	CHAIN_OUTPUT_NAT,
	CHAIN_COUNT,
};

struct ruleset_chain {
	const char *name, *type, *hook_name;
	uint32_t hook;
	int32_t priority;
};

enum ruleset_set_id {
	SET_VIRTUAL_INTERFACES,
	SET_EXCLUDED_INTERFACES,
	SET_EXCLUDED_INBOUND_PORTS,
	SET_EXCLUDED_OUTBOUND_PORTS,
	SET_EXCLUDED_OUTBOUND_IPV4,
	SET_EXCLUDED_OUTBOUND_IPV6,
	SET_COUNT,
};

/* What the elements of a set are; the numbers of nft's own data types stand in redirect_compile.c. */
enum ruleset_set_type { SET_TYPE_INTERFACE, SET_TYPE_PORT, SET_TYPE_IPV4, SET_TYPE_IPV6 };

struct ruleset_interval {
	uint8_t first[16], last[16]; /* network order, inclusive; a single value has first == last */
};

struct ruleset_set {
	const char *name;
	enum ruleset_set_type type;
	uint32_t key_length;
	/* Sorted and disjoint. NULL and 0: the set is not part of the ruleset. */
	struct ruleset_interval *elements;
	size_t elements_count;
};

enum statement_kind {
	/* Matches. `negate` turns == into !=. */
	MATCH_IPV6,	      /* meta nfproto ipv6 */
	MATCH_TCP,	      /* meta l4proto tcp */
	MATCH_TCP_SYN,	      /* tcp flags & (fin | syn | rst | ack) == syn */
	MATCH_TCP_DPORT,      /* tcp dport VALUE */
	MATCH_UDP_DPORT,      /* udp dport VALUE */
	MATCH_UDP_SPORT,      /* udp sport VALUE */
	MATCH_TCP_DPORT_SET,  /* tcp dport @SET */
	MATCH_IPV4_SADDR,     /* ip saddr ADDRESS */
	MATCH_IPV4_DADDR,     /* ip daddr ADDRESS */
	MATCH_IPV6_SADDR,     /* ip6 saddr ADDRESS */
	MATCH_IPV6_DADDR,     /* ip6 daddr ADDRESS */
	MATCH_IPV4_DADDR_SET, /* ip daddr @SET */
	MATCH_IPV6_DADDR_SET, /* ip6 daddr @SET */
	MATCH_IIFNAME_SET,    /* iifname @SET */
	MATCH_OIFNAME_SET,    /* oifname @SET */
	MATCH_OIF_LOOPBACK,   /* oif lo: its index is 1 in every namespace */
	MATCH_META_MARK,      /* meta mark & 0xfff == VALUE */
	MATCH_CT_MARK,	      /* ct mark & 0xfff == VALUE */
	MATCH_CT_STATUS_DNAT, /* ct status & dnat == dnat; negated: == 0 */
	MATCH_CT_STATE_NEW,   /* ct state new */
	/* Statements. */
	SET_META_MARK,	/* meta mark set meta mark & 0xfffff000 | VALUE */
	SET_CT_MARK,	/* ct mark set ct mark & 0xfffff000 | VALUE */
	SET_CT_ZONE,	/* ct zone set VALUE */
	SET_CT_TIMEOUT, /* ct timeout set "open-connections" */
	COUNT,		/* counter */
	ACCEPT,
	REDIRECT_TO, /* redirect to :VALUE */
	RESET_TCP,   /* reject with tcp reset */
};

struct statement {
	enum statement_kind kind;
	bool negate;
	uint32_t value; /* host order */
	enum ruleset_set_id set;
	union {
		struct in_addr ipv4;
		struct in6_addr ipv6;
	};
};

#define RULE_STATEMENTS_MAX 8
#define RULESET_RULES_MAX 48

struct ruleset_rule {
	enum ruleset_chain_id chain;
	/* Its comment in the kernel, and its name in messages. A rule that counts begins with the name of its outcome ("dns:
	 * udp"): that is how the counters of a dump are told apart. */
	const char *name;
	enum redirect_outcome outcome;
	struct statement statements[RULE_STATEMENTS_MAX];
	size_t statements_count;
};

/* The conntrack timeouts of a TCP connection that conntrack met in its middle: 0 in every state. */
#define RULESET_TIMEOUT "open-connections"

struct ruleset {
	bool chains[CHAIN_COUNT]; /* which of them are there */
	bool has_timeout;	  /* the object that SET_CT_TIMEOUT names */
	struct ruleset_set sets[SET_COUNT];
	struct ruleset_rule *rules; /* RULESET_RULES_MAX; chain by chain, in the order of evaluation */
	size_t rules_count;
};

extern const struct ruleset_chain ruleset_chains[CHAIN_COUNT];

int ruleset_make(const struct redirect *redirect, enum redirect_stage stage, struct error *error, struct ruleset *ret_ruleset);
void ruleset_clear(struct ruleset *ruleset);
#define cleanup_ruleset __attribute__((cleanup(ruleset_clear)))

/* Whether the ruleset has a chain of that name. */
bool ruleset_has_chain(const struct ruleset *ruleset, const char *name);

/* One rule as nft syntax, without its comment. */
void ruleset_print_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule, char *ret_text, size_t size);

#endif
