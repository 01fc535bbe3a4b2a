/* A rule of nftables, made expression by expression.
 *
 * The expressions are those that nft(8) makes of a rule's text, dependencies included: `tcp dport 53` begins with `meta l4proto
 * tcp` unless an earlier match of the rule said so, `ip daddr` in a table of family inet with `meta nfproto ipv4`. A missing
 * expression is remembered, later calls do nothing, and the end reports it. */
#ifndef AMBIENT_NFT_RULE_H
#define AMBIENT_NFT_RULE_H

#include <stdbool.h>
#include <stdint.h>

struct nftnl_rule;
struct nftnl_expr;

/* A rule in the making, and what its expressions established so far. */
struct nft_rule_maker {
	struct nftnl_rule *rule;
	bool failed;
	uint8_t protocol; /* transport protocol, 0: not matched yet */
	uint8_t family;	  /* NFPROTO_*, 0: not matched yet */
};

void nft_rule_start(struct nft_rule_maker *maker, uint32_t family, const char *table, const char *chain);
/* nft's comment, shown in listings. */
void nft_rule_comment(struct nft_rule_maker *maker, const char *comment);
/* The rule, owned by the caller; NULL: no memory, or libnftnl lacks an expression. */
struct nftnl_rule *nft_rule_finish(struct nft_rule_maker *maker);

/* An expression by its name; NULL once the maker has failed. */
struct nftnl_expr *nft_rule_add(struct nft_rule_maker *maker, const char *name);

/* Loading into register 1, and what is done with it. Keys and operators are the kernel's (linux/netfilter/nf_tables.h).
 */
void nft_rule_add_meta_load(struct nft_rule_maker *maker, uint32_t key);
void nft_rule_add_meta_set(struct nft_rule_maker *maker, uint32_t key);
void nft_rule_add_ct_load(struct nft_rule_maker *maker, uint32_t key);
void nft_rule_add_ct_set(struct nft_rule_maker *maker, uint32_t key);
void nft_rule_add_compare(struct nft_rule_maker *maker, bool negate, const void *data, uint32_t length);
/* register = (register & mask) ^ toggle */
void nft_rule_add_bitwise_u32(struct nft_rule_maker *maker, uint32_t mask, uint32_t toggle);
void nft_rule_add_immediate(struct nft_rule_maker *maker, const void *data, uint32_t length);
void nft_rule_add_lookup(struct nft_rule_maker *maker, const char *set);
/* A named object of the table; `type` is the kernel's NFT_OBJECT_*. */
void nft_rule_add_object(struct nft_rule_maker *maker, uint32_t type, const char *name);

/* Verdicts and NAT. */
void nft_rule_add_verdict(struct nft_rule_maker *maker, uint32_t verdict);
void nft_rule_add_redirect(struct nft_rule_maker *maker, uint16_t port);
/* snat (ip|ip6) to ADDRESS; the address in network order. */
void nft_rule_add_snat(struct nft_rule_maker *maker, uint8_t family, const void *address);
void nft_rule_add_reset(struct nft_rule_maker *maker);

/* Matches that others depend on; nothing is added where the rule has them already. */
void nft_rule_need_protocol(struct nft_rule_maker *maker, uint8_t protocol);
void nft_rule_need_family(struct nft_rule_maker *maker, uint8_t family);
/* With what they depend on. */
void nft_rule_load_port(struct nft_rule_maker *maker, uint8_t protocol, bool is_source);
void nft_rule_load_address(struct nft_rule_maker *maker, uint8_t family, bool is_source);
/* tcp flags & (fin | syn | rst | ack) == syn, or != */
void nft_rule_match_tcp_syn(struct nft_rule_maker *maker, bool negate);

/* Whether `found`, of a dump, has the expressions of `expected`: every attribute that is set there is compared. */
bool nft_rule_same(const struct nftnl_rule *expected, const struct nftnl_rule *found);

#endif
