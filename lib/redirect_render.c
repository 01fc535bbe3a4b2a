/* The rules as nft syntax, for people and for `nft -f`. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "redirect_ruleset.h"

static void print_address(FILE *out, int family, const void *address)
{
	char text[INET6_ADDRSTRLEN];
	fputs(inet_ntop(family, address, text, sizeof text), out);
}

static void print_statement(FILE *out, const struct ruleset *ruleset, const struct statement *statement)
{
	const char *set = ruleset->sets[statement->set].name;
	const char *not = statement->negate ? "!= " : "";
	const char *equals = statement->negate ? "!=" : "==";

	switch (statement->kind) {
	case MATCH_IPV6:
		fputs("meta nfproto ipv6", out);
		break;
	case MATCH_TCP:
		fputs("meta l4proto tcp", out);
		break;
	case MATCH_TCP_SYN:
		fprintf(out, "tcp flags & (fin | syn | rst | ack) %s syn", equals);
		break;
	case MATCH_TCP_DPORT:
		fprintf(out, "tcp dport %s%u", not, statement->value);
		break;
	case MATCH_UDP_DPORT:
		fprintf(out, "udp dport %s%u", not, statement->value);
		break;
	case MATCH_UDP_SPORT:
		fprintf(out, "udp sport %s%u", not, statement->value);
		break;
	case MATCH_TCP_DPORT_SET:
		fprintf(out, "tcp dport @%s", set);
		break;
	case MATCH_IPV4_SADDR:
		fprintf(out, "ip saddr %s", not );
		print_address(out, AF_INET, &statement->ipv4);
		break;
	case MATCH_IPV4_DADDR:
		fprintf(out, "ip daddr %s", not );
		print_address(out, AF_INET, &statement->ipv4);
		break;
	case MATCH_IPV6_SADDR:
		fprintf(out, "ip6 saddr %s", not );
		print_address(out, AF_INET6, &statement->ipv6);
		break;
	case MATCH_IPV6_DADDR:
		fprintf(out, "ip6 daddr %s", not );
		print_address(out, AF_INET6, &statement->ipv6);
		break;
	case MATCH_IPV4_DADDR_SET:
		fprintf(out, "ip daddr @%s", set);
		break;
	case MATCH_IPV6_DADDR_SET:
		fprintf(out, "ip6 daddr @%s", set);
		break;
	case MATCH_IIFNAME_SET:
		fprintf(out, "iifname @%s", set);
		break;
	case MATCH_OIFNAME_SET:
		fprintf(out, "oifname @%s", set);
		break;
	case MATCH_OIF_LOOPBACK:
		fprintf(out, "oif %s\"lo\"", not );
		break;
	case MATCH_META_MARK:
		fprintf(out, "meta mark & 0x%x %s 0x%x", REDIRECT_MARK_MASK, equals, statement->value);
		break;
	case MATCH_CT_MARK:
		fprintf(out, "ct mark & 0x%x %s 0x%x", REDIRECT_MARK_MASK, equals, statement->value);
		break;
	case MATCH_CT_STATUS_DNAT:
		fprintf(out, "ct status & dnat %s 0", statement->negate ? "==" : "!=");
		break;
	case MATCH_CT_STATE_NEW:
		fprintf(out, "ct state %snew", not );
		break;
	case SET_META_MARK:
		fprintf(out, "meta mark set meta mark & 0x%x | 0x%x", ~REDIRECT_MARK_MASK, statement->value);
		break;
	case SET_CT_MARK:
		fprintf(out, "ct mark set ct mark & 0x%x | 0x%x", ~REDIRECT_MARK_MASK, statement->value);
		break;
	case SET_CT_ZONE:
		fprintf(out, "ct zone set %u", statement->value);
		break;
	case SET_CT_TIMEOUT:
		fprintf(out, "ct timeout set \"%s\"", RULESET_TIMEOUT);
		break;
	case COUNT:
		fputs("counter", out);
		break;
	case ACCEPT:
		fputs("accept", out);
		break;
	case REDIRECT_TO:
		fprintf(out, "redirect to :%u", statement->value);
		break;
	case RESET_TCP:
		fputs("reject with tcp reset", out);
		break;
	}
}

static void print_rule(FILE *out, const struct ruleset *ruleset, const struct ruleset_rule *rule)
{
	for (size_t i = 0; i < rule->statements_count; i++) {
		if (i > 0)
			fputc(' ', out);
		print_statement(out, ruleset, &rule->statements[i]);
	}
}

void ruleset_print_rule(const struct ruleset *ruleset, const struct ruleset_rule *rule, char *ret_text, size_t size)
{
	ret_text[0] = '\0';
	FILE *out = fmemopen(ret_text, size, "w");
	if (!out)
		return;
	print_rule(out, ruleset, rule);
	fclose(out);
	ret_text[size - 1] = '\0';
}

static void print_key(FILE *out, const struct ruleset_set *set, const uint8_t *key)
{
	switch (set->type) {
	case SET_TYPE_INTERFACE:
		fprintf(out, "\"%.*s\"", IFNAMSIZ - 1, (const char *)key);
		break;
	case SET_TYPE_PORT:
		fprintf(out, "%u", (unsigned int)key[0] << 8 | key[1]);
		break;
	case SET_TYPE_IPV4:
		print_address(out, AF_INET, key);
		break;
	case SET_TYPE_IPV6:
		print_address(out, AF_INET6, key);
		break;
	}
}

static void print_set(FILE *out, const struct ruleset_set *set)
{
	static const char *const types[] = {
		[SET_TYPE_INTERFACE] = "ifname",
		[SET_TYPE_PORT] = "inet_service",
		[SET_TYPE_IPV4] = "ipv4_addr",
		[SET_TYPE_IPV6] = "ipv6_addr",
	};
	fprintf(out, "\tset %s {\n\t\ttype %s\n", set->name, types[set->type]);
	if (set->type != SET_TYPE_INTERFACE)
		fputs("\t\tflags interval\n", out);
	fputs("\t\telements = { ", out);
	for (size_t i = 0; i < set->elements_count; i++) {
		const struct ruleset_interval *element = &set->elements[i];
		if (i > 0)
			fputs(",\n\t\t\t     ", out);
		print_key(out, set, element->first);
		if (memcmp(element->first, element->last, set->key_length) != 0) {
			fputc('-', out);
			print_key(out, set, element->last);
		}
	}
	fputs(" }\n\t}\n\n", out);
}

static void print_timeout(FILE *out)
{
	fprintf(out,
		"\tct timeout %s {\n\t\tprotocol tcp\n\t\tl3proto inet\n"
		"\t\tpolicy = { syn_sent : 0, syn_recv : 0, established : 0, fin_wait : 0, close_wait : 0, last_ack : 0, "
		"time_wait : 0, close : 0, syn_sent2 : 0, retrans : 0, unack : 0 }\n\t}\n\n",
		RULESET_TIMEOUT);
}

static void print_chain(FILE *out, const struct ruleset *ruleset, enum ruleset_chain_id id)
{
	const struct ruleset_chain *chain = &ruleset_chains[id];
	fprintf(out, "\tchain %s {\n\t\ttype %s hook %s priority %d; policy accept;\n", chain->name, chain->type,
		chain->hook_name, chain->priority);
	for (size_t i = 0; i < ruleset->rules_count; i++) {
		if (ruleset->rules[i].chain != id)
			continue;
		fputs("\t\t", out);
		print_rule(out, ruleset, &ruleset->rules[i]);
		fprintf(out, " comment \"%s\"\n", ruleset->rules[i].name);
	}
	fputs("\t}\n", out);
}

int redirect_render(const struct redirect *redirect, enum redirect_stage stage, struct error *error, char **ret_text)
{
	cleanup_ruleset struct ruleset ruleset = { 0 };
	if (ruleset_make(redirect, stage, error, &ruleset) < 0)
		return -1;

	cleanup_free char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	if (!out)
		return error_set(error, errno, "cannot render the rules");
	fprintf(out, "table inet %s {\n", REDIRECT_TABLE);
	if (ruleset.has_timeout)
		print_timeout(out);
	for (size_t i = 0; i < SET_COUNT; i++)
		if (ruleset.sets[i].elements_count > 0)
			print_set(out, &ruleset.sets[i]);
	bool is_first = true;
	for (enum ruleset_chain_id id = 0; id < CHAIN_COUNT; id++) {
		if (!ruleset.chains[id])
			continue;
		if (!is_first)
			fputc('\n', out);
		is_first = false;
		print_chain(out, &ruleset, id);
	}
	fputs("}\n", out);
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed)
		return error_set(error, ENOMEM, "cannot render the rules");
	*ret_text = steal_pointer(text);
	return 0;
}
