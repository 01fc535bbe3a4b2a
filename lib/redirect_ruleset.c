/* Which packet goes where: the table of rules.
 *
 * One table of family inet, at most seven chains at a time:
 *
 *   prerouting-zone, output-zone   before conntrack: the tunnel's own DNS in zone 1            (DNS capture)
 *   prerouting, output             behind it: connections that were open before are forgotten; replies on a connection of
 *                                  the tunnel are routed back to it
 *   input                          connections of the tunnel get their mark; the guard
 *   prerouting-redirect            packets that enter: to 15006, or 15001 from a virtual interface
 *   output-redirect                packets that leave: to 15001, DNS to 15053
 *   output-nat                               empty, in the stage guard instead of the two before it
 *
 * The redirect chains are of type nat: the kernel evaluates them for the first packet of a connection only, so their length
 * costs nothing while data flows. The others see every packet; a packet of somebody else leaves each of their few rules at its
 * first match.
 *
 * The connection mark is set in the input hook, not in prerouting: a packet mark does not survive the way between two
 * namespaces, so a packet that carries the tunnel's came over lo and is delivered here; and the guard sits in that chain
 * anyway, since only there the packet is seen after NAT.
 *
 * "accept" in a nat chain means untouched by us: chains of others at the same hook are still asked.
 *
 * With existingConnections keep, a connection whose first packet was no SYN when conntrack met it (it was open before) leaves
 * the redirect chains at one rule. What conntrack keeps of it must not outlive it: a new SYN of the same addresses and ports
 * would belong to what is remembered, and go around the tunnel. And it would: the FIN that conntrack meets first is none of a
 * connection's (tcp_new), the acknowledgement behind it opens one, which then stays open for the five minutes, or days, of an
 * established connection. So such a connection gets timeouts of 0: each of its packets finds the last one's entry expired and
 * is a first one again, and the SYN of its successor finds nothing. (redirect_forget.c: what rules can't do.)
 *
 * The stage "guard" is everything but the redirect chains, so that what the tunnel still carries goes on: the rule with the
 * connection mark holds conntrack in the namespace, and an empty chain of type nat holds its NAT (with the last such chain the
 * kernel unregisters the hooks that translate, and redirected connections break). */
#include "redirect_ruleset.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"

const struct ruleset_chain ruleset_chains[CHAIN_COUNT] = {
	[CHAIN_PREROUTING_ZONE] = { "prerouting-zone", "filter", "prerouting", NF_INET_PRE_ROUTING, -300 },
	[CHAIN_PREROUTING] = { "prerouting", "filter", "prerouting", NF_INET_PRE_ROUTING, -150 },
	[CHAIN_PREROUTING_REDIRECT] = { "prerouting-redirect", "nat", "prerouting", NF_INET_PRE_ROUTING, -100 },
	[CHAIN_INPUT] = { "input", "filter", "input", NF_INET_LOCAL_IN, -150 },
	[CHAIN_OUTPUT_ZONE] = { "output-zone", "filter", "output", NF_INET_LOCAL_OUT, -300 },
	[CHAIN_OUTPUT] = { "output", "route", "output", NF_INET_LOCAL_OUT, -150 },
	[CHAIN_OUTPUT_REDIRECT] = { "output-redirect", "nat", "output", NF_INET_LOCAL_OUT, -100 },
	[CHAIN_OUTPUT_NAT] = { "output-nat", "nat", "output", NF_INET_LOCAL_OUT, -100 },
};

bool ruleset_has_chain(const struct ruleset *ruleset, const char *name)
{
	for (enum ruleset_chain_id id = 0; id < CHAIN_COUNT; id++)
		if (ruleset->chains[id] && strcmp(ruleset_chains[id].name, name) == 0)
			return true;
	return false;
}

#define loopback_ipv4 ((struct in_addr){ .s_addr = htonl(INADDR_LOOPBACK) })

/* Adds a rule: RULE(ruleset, chain, name, outcome, statement, statement, ...). */
#define RULE(ruleset, chain, name, outcome, ...)                                                                               \
	add_rule(ruleset, chain, name, outcome, (const struct statement[]){ __VA_ARGS__ },                                     \
		 sizeof((const struct statement[]){ __VA_ARGS__ }) / sizeof(struct statement))

static void add_rule(struct ruleset *ruleset, enum ruleset_chain_id chain, const char *name, enum redirect_outcome outcome,
		     const struct statement *statements, size_t count)
{
	struct ruleset_rule *rule = &ruleset->rules[ruleset->rules_count++];
	rule->chain = chain;
	rule->name = name;
	rule->outcome = outcome;
	rule->statements_count = 0;
	for (size_t i = 0; i < count; i++) {
		/* What people ask about is counted, right before its verdict. */
		if (i == count - 1 && outcome != REDIRECT_OUTCOME_NONE)
			rule->statements[rule->statements_count++] = (struct statement){ .kind = COUNT };
		rule->statements[rule->statements_count++] = statements[i];
	}
	ruleset->chains[chain] = true;
}

/* The words that rules are written in. */
#define plain(KIND) ((struct statement){ .kind = (KIND) })
#define with_value(KIND, VALUE) ((struct statement){ .kind = (KIND), .value = (VALUE) })
#define in_set(KIND, SET) ((struct statement){ .kind = (KIND), .set = (SET) })
#define is_not(STATEMENT)                                                                                                      \
	({                                                                                                                     \
		struct statement negated_ = (STATEMENT);                                                                       \
		negated_.negate = true;                                                                                        \
		negated_;                                                                                                      \
	})
#define tcp plain(MATCH_TCP)
#define tcp_syn plain(MATCH_TCP_SYN)
#define tcp_dport(PORT) with_value(MATCH_TCP_DPORT, PORT)
#define udp_dport(PORT) with_value(MATCH_UDP_DPORT, PORT)
#define udp_sport(PORT) with_value(MATCH_UDP_SPORT, PORT)
#define mark_is(MARK) with_value(MATCH_META_MARK, MARK)
#define ct_state_new plain(MATCH_CT_STATE_NEW)
#define ct_mark_is(MARK) with_value(MATCH_CT_MARK, MARK)
#define out_of_lo plain(MATCH_OIF_LOOPBACK)
#define accept_it plain(ACCEPT)
#define redirect_to(PORT) with_value(REDIRECT_TO, PORT)
#define ipv4(KIND, ADDRESS) ((struct statement){ .kind = (KIND), .ipv4 = (ADDRESS) })
#define ipv6(KIND, ADDRESS) ((struct statement){ .kind = (KIND), .ipv6 = (ADDRESS) })

/* The tunnel's queries to its upstream servers leave from the namespace that redirects port 53: in a zone of their own their
 * ports can't collide with the redirected queries of the application. */
static void zone_chains(struct ruleset *ruleset)
{
	/* udp sport 53 meta mark & 0xfff != 0x539 ct zone set 1 */
	RULE(ruleset, CHAIN_PREROUTING_ZONE, "tunnel DNS answers", REDIRECT_OUTCOME_NONE, udp_sport(53),
	     is_not(mark_is(REDIRECT_TUNNEL_MARK)), with_value(SET_CT_ZONE, REDIRECT_DNS_ZONE));

	/* udp dport 53 meta mark & 0xfff == 0x539 ct zone set 1 */
	RULE(ruleset, CHAIN_OUTPUT_ZONE, "tunnel DNS queries", REDIRECT_OUTCOME_NONE, udp_dport(53),
	     mark_is(REDIRECT_TUNNEL_MARK), with_value(SET_CT_ZONE, REDIRECT_DNS_ZONE));
}

static void input_chain(struct ruleset *ruleset)
{
	/* meta mark & 0xfff == 0x539 ct mark set ct mark & 0xfffff000 | 0x111 */
	RULE(ruleset, CHAIN_INPUT, "tunnel connections", REDIRECT_OUTCOME_NONE, mark_is(REDIRECT_TUNNEL_MARK),
	     with_value(SET_CT_MARK, REDIRECT_CONNECTION_MARK));

	/* tcp flags & (fin | syn | rst | ack) == syn tcp dport 15001 meta mark & 0xfff != 0x539 ct status & dnat == 0
	 * counter reject with tcp reset */
	RULE(ruleset, CHAIN_INPUT, "guard: outbound port", REDIRECT_OUTCOME_GUARD, tcp_syn, tcp_dport(REDIRECT_PORT_OUTBOUND),
	     is_not(mark_is(REDIRECT_TUNNEL_MARK)), is_not(plain(MATCH_CT_STATUS_DNAT)), plain(RESET_TCP));

	/* the same for tcp dport 15006 */
	RULE(ruleset, CHAIN_INPUT, "guard: inbound port", REDIRECT_OUTCOME_GUARD, tcp_syn, tcp_dport(REDIRECT_PORT_INBOUND),
	     is_not(mark_is(REDIRECT_TUNNEL_MARK)), is_not(plain(MATCH_CT_STATUS_DNAT)), plain(RESET_TCP));
}

/* Not for existingConnections reset, which wants the next packet of such a connection redirected. */
static void forget_open_connections(struct ruleset *ruleset, const struct redirect *redirect, enum ruleset_chain_id chain)
{
	if (redirect->existing_connections != EXISTING_CONNECTIONS_KEEP || !redirect->conntrack_timeouts)
		return;
	ruleset->has_timeout = true;
	/* ct state new tcp flags & (fin | syn | rst | ack) != syn ct timeout set "open-connections" */
	RULE(ruleset, chain, chain == CHAIN_PREROUTING ? "forget open connections in" : "forget open connections out",
	     REDIRECT_OUTCOME_NONE, ct_state_new, is_not(tcp_syn), plain(SET_CT_TIMEOUT));
}

static void output_chain(struct ruleset *ruleset, const struct redirect *redirect)
{
	forget_open_connections(ruleset, redirect, CHAIN_OUTPUT);

	/* ct mark & 0xfff == 0x111 meta mark set meta mark & 0xfffff000 | 0x111 */
	RULE(ruleset, CHAIN_OUTPUT, "replies to the tunnel", REDIRECT_OUTCOME_NONE, ct_mark_is(REDIRECT_CONNECTION_MARK),
	     with_value(SET_META_MARK, REDIRECT_CONNECTION_MARK));
}

/* What both redirect chains begin with: who is not concerned at all. */
static void chain_start(struct ruleset *ruleset, const struct redirect *redirect, enum ruleset_chain_id chain)
{
	bool is_in = chain == CHAIN_PREROUTING_REDIRECT;
	if (!redirect->ipv6) {
		/* meta nfproto ipv6 accept */
		RULE(ruleset, chain, is_in ? "ipv6 is off in" : "ipv6 is off out", REDIRECT_OUTCOME_NONE, plain(MATCH_IPV6),
		     accept_it);
	}
	if (redirect->existing_connections == EXISTING_CONNECTIONS_KEEP) {
		/* tcp flags & (fin | syn | rst | ack) != syn accept */
		RULE(ruleset, chain, is_in ? "open connections in" : "open connections out", REDIRECT_OUTCOME_NONE,
		     is_not(tcp_syn), accept_it);
	}
}

static void prerouting_redirect_chain(struct ruleset *ruleset, const struct redirect *redirect)
{
	const enum ruleset_chain_id chain = CHAIN_PREROUTING_REDIRECT;

	if (redirect->bypass_inbound && redirect->virtual_interfaces_count == 0)
		return;
	chain_start(ruleset, redirect, chain);

	if (redirect->exclude.interfaces_count > 0) {
		/* iifname @excluded-interfaces counter accept */
		RULE(ruleset, chain, "excluded: interfaces in", REDIRECT_OUTCOME_EXCLUDED,
		     in_set(MATCH_IIFNAME_SET, SET_EXCLUDED_INTERFACES), accept_it);
	}
	if (redirect->exclude.inbound_ports_count > 0) {
		/* tcp dport @excluded-inbound-ports counter accept */
		RULE(ruleset, chain, "excluded: inbound ports", REDIRECT_OUTCOME_EXCLUDED,
		     in_set(MATCH_TCP_DPORT_SET, SET_EXCLUDED_INBOUND_PORTS), accept_it);
	}

	/* Row 1. */
	if (redirect->virtual_interfaces_count > 0) {
		/* meta l4proto tcp iifname @virtual-interfaces counter redirect to :15001 */
		RULE(ruleset, chain, "virtual-interface", REDIRECT_OUTCOME_VIRTUAL_INTERFACE, tcp,
		     in_set(MATCH_IIFNAME_SET, SET_VIRTUAL_INTERFACES), redirect_to(REDIRECT_PORT_OUTBOUND));
	}
	/* Without row 6 nothing is left that the other rows could be an exception to. */
	if (redirect->bypass_inbound)
		return;

	/* Row 2. ip saddr 169.254.7.127 counter accept */
	RULE(ruleset, chain, "probe: ipv4", REDIRECT_OUTCOME_PROBE, ipv4(MATCH_IPV4_SADDR, redirect->host_probe_ipv4),
	     accept_it);
	if (redirect->ipv6) {
		/* ip6 saddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff counter accept */
		RULE(ruleset, chain, "probe: ipv6", REDIRECT_OUTCOME_PROBE, ipv6(MATCH_IPV6_SADDR, redirect->host_probe_ipv6),
		     accept_it);
	}

	/* Row 3. ip daddr 127.0.0.1 accept */
	RULE(ruleset, chain, "to loopback ipv4", REDIRECT_OUTCOME_NONE, ipv4(MATCH_IPV4_DADDR, loopback_ipv4), accept_it);
	if (redirect->ipv6) {
		/* ip6 daddr ::1 accept */
		RULE(ruleset, chain, "to loopback ipv6", REDIRECT_OUTCOME_NONE, ipv6(MATCH_IPV6_DADDR, in6addr_loopback),
		     accept_it);
	}

	/* Row 4. tcp dport 15008 counter accept */
	RULE(ruleset, chain, "hbone", REDIRECT_OUTCOME_HBONE, tcp_dport(REDIRECT_PORT_HBONE), accept_it);

	/* Row 5. meta mark & 0xfff == 0x539 accept */
	RULE(ruleset, chain, "from the tunnel in", REDIRECT_OUTCOME_NONE, mark_is(REDIRECT_TUNNEL_MARK), accept_it);

	/* Row 6. meta l4proto tcp counter redirect to :15006 */
	RULE(ruleset, chain, "inbound", REDIRECT_OUTCOME_INBOUND, tcp, redirect_to(REDIRECT_PORT_INBOUND));
}

static void outbound_exclusions(struct ruleset *ruleset, const struct redirect *redirect)
{
	const enum ruleset_chain_id chain = CHAIN_OUTPUT_REDIRECT;

	if (redirect->exclude.interfaces_count > 0) {
		/* oifname @excluded-interfaces counter accept */
		RULE(ruleset, chain, "excluded: interfaces out", REDIRECT_OUTCOME_EXCLUDED,
		     in_set(MATCH_OIFNAME_SET, SET_EXCLUDED_INTERFACES), accept_it);
	}
	if (redirect->exclude.outbound_ports_count > 0) {
		/* tcp dport @excluded-outbound-ports counter accept */
		RULE(ruleset, chain, "excluded: outbound ports", REDIRECT_OUTCOME_EXCLUDED,
		     in_set(MATCH_TCP_DPORT_SET, SET_EXCLUDED_OUTBOUND_PORTS), accept_it);
	}
	if (ruleset->sets[SET_EXCLUDED_OUTBOUND_IPV4].elements_count > 0) {
		/* ip daddr @excluded-outbound-ipv4 counter accept */
		RULE(ruleset, chain, "excluded: outbound ipv4", REDIRECT_OUTCOME_EXCLUDED,
		     in_set(MATCH_IPV4_DADDR_SET, SET_EXCLUDED_OUTBOUND_IPV4), accept_it);
	}
	if (redirect->ipv6 && ruleset->sets[SET_EXCLUDED_OUTBOUND_IPV6].elements_count > 0) {
		/* ip6 daddr @excluded-outbound-ipv6 counter accept */
		RULE(ruleset, chain, "excluded: outbound ipv6", REDIRECT_OUTCOME_EXCLUDED,
		     in_set(MATCH_IPV6_DADDR_SET, SET_EXCLUDED_OUTBOUND_IPV6), accept_it);
	}
}

/* UDP is redirected to port 53 alone: so an excluded port is of concern to UDP only where it is that one, and then nothing to
 * port 53 is redirected, over TCP either. */
static bool redirects_dns(const struct redirect *redirect)
{
	for (size_t i = 0; i < redirect->exclude.outbound_ports_count; i++)
		if (redirect->exclude.outbound_ports[i].first <= 53 && redirect->exclude.outbound_ports[i].last >= 53)
			return false;
	return redirect->dns_capture;
}

static void output_redirect_chain(struct ruleset *ruleset, const struct redirect *redirect)
{
	const enum ruleset_chain_id chain = CHAIN_OUTPUT_REDIRECT;
	const bool has_dns = redirects_dns(redirect);

	chain_start(ruleset, redirect, chain);
	outbound_exclusions(ruleset, redirect);

	/* Rows 2, 3 and 6 all leave the tunnel's own packets alone. meta mark & 0xfff == 0x539 accept */
	RULE(ruleset, chain, "from the tunnel out", REDIRECT_OUTCOME_NONE, mark_is(REDIRECT_TUNNEL_MARK), accept_it);

	/* Row 2. udp dport 53 oif != lo counter redirect to :15053 */
	if (has_dns)
		RULE(ruleset, chain, "dns: udp", REDIRECT_OUTCOME_DNS, udp_dport(53), is_not(out_of_lo),
		     redirect_to(REDIRECT_PORT_DNS));

	/* Row 1, and "not to 127.0.0.1/::1" of rows 3 and 6. ip daddr 169.254.7.127 accept; ip daddr 127.0.0.1 accept */
	RULE(ruleset, chain, "to the probe address ipv4", REDIRECT_OUTCOME_NONE,
	     ipv4(MATCH_IPV4_DADDR, redirect->host_probe_ipv4), accept_it);
	RULE(ruleset, chain, "from us to loopback ipv4", REDIRECT_OUTCOME_NONE, ipv4(MATCH_IPV4_DADDR, loopback_ipv4),
	     accept_it);
	if (redirect->ipv6) {
		/* ip6 daddr fd16:9254:7127:1337:ffff:ffff:ffff:ffff accept; ip6 daddr ::1 accept */
		RULE(ruleset, chain, "to the probe address ipv6", REDIRECT_OUTCOME_NONE,
		     ipv6(MATCH_IPV6_DADDR, redirect->host_probe_ipv6), accept_it);
		RULE(ruleset, chain, "from us to loopback ipv6", REDIRECT_OUTCOME_NONE,
		     ipv6(MATCH_IPV6_DADDR, in6addr_loopback), accept_it);
	}

	/* Row 3. tcp dport 53 counter redirect to :15053 */
	if (has_dns)
		RULE(ruleset, chain, "dns: tcp", REDIRECT_OUTCOME_DNS, tcp_dport(53), redirect_to(REDIRECT_PORT_DNS));

	/* Row 4. meta mark & 0xfff == 0x111 accept */
	RULE(ruleset, chain, "carried by the tunnel", REDIRECT_OUTCOME_NONE, mark_is(REDIRECT_CONNECTION_MARK), accept_it);

	/* Row 5. oif lo accept */
	RULE(ruleset, chain, "to the pod itself", REDIRECT_OUTCOME_NONE, out_of_lo, accept_it);

	/* Row 6. meta l4proto tcp counter redirect to :15001 */
	RULE(ruleset, chain, "outbound", REDIRECT_OUTCOME_OUTBOUND, tcp, redirect_to(REDIRECT_PORT_OUTBOUND));
}

static int compare_intervals(const void *a, const void *b)
{
	return memcmp(((const struct ruleset_interval *)a)->first, ((const struct ruleset_interval *)b)->first, 16);
}

/* Sorts, and merges what overlaps or touches: the kernel refuses overlapping intervals. */
static void merge_intervals(struct ruleset_set *set)
{
	if (set->elements_count < 2)
		return;
	qsort(set->elements, set->elements_count, sizeof *set->elements, compare_intervals);
	size_t merged = 0;
	for (size_t i = 1; i < set->elements_count; i++) {
		struct ruleset_interval *current = &set->elements[merged];
		const struct ruleset_interval *next = &set->elements[i];
		uint8_t after[16];
		memcpy(after, current->last, sizeof after);
		bool is_top = true;
		for (size_t byte = set->key_length; byte-- > 0;) {
			if (++after[byte] != 0) {
				is_top = false;
				break;
			}
		}
		if (is_top)
			break;
		if (memcmp(next->first, after, set->key_length) > 0)
			set->elements[++merged] = *next;
		else if (memcmp(next->last, current->last, set->key_length) > 0)
			memcpy(current->last, next->last, sizeof current->last);
	}
	set->elements_count = merged + 1;
}

static int make_set(struct ruleset *ruleset, enum ruleset_set_id id, const char *name, enum ruleset_set_type type,
		    uint32_t key_length, size_t count, struct error *error)
{
	struct ruleset_set *set = &ruleset->sets[id];
	*set = (struct ruleset_set){ .name = name, .type = type, .key_length = key_length };
	if (count == 0)
		return 0;
	set->elements = calloc(count, sizeof *set->elements);
	return set->elements ? 0 : error_set(error, ENOMEM, "cannot build the set %s", name);
}

static int make_interface_set(struct ruleset *ruleset, enum ruleset_set_id id, const char *name,
			      const char (*interfaces)[IFNAMSIZ], size_t count, struct error *error)
{
	if (make_set(ruleset, id, name, SET_TYPE_INTERFACE, IFNAMSIZ, count, error) < 0)
		return -1;
	struct ruleset_set *set = &ruleset->sets[id];
	for (size_t i = 0; i < count; i++) {
		struct ruleset_interval *element = &set->elements[set->elements_count];
		/* The whole key counts: behind the name are zeros. */
		memset(element, 0, sizeof *element);
		memcpy(element->first, interfaces[i], strnlen(interfaces[i], IFNAMSIZ - 1));
		memcpy(element->last, element->first, sizeof element->last);
		bool is_known = false;
		for (size_t other = 0; other < set->elements_count; other++)
			is_known |= memcmp(set->elements[other].first, element->first, sizeof element->first) == 0;
		if (!is_known)
			set->elements_count++;
	}
	if (set->elements_count > 1)
		qsort(set->elements, set->elements_count, sizeof *set->elements, compare_intervals);
	return 0;
}

static int make_port_set(struct ruleset *ruleset, enum ruleset_set_id id, const char *name, const struct port_range *ports,
			 size_t count, struct error *error)
{
	if (make_set(ruleset, id, name, SET_TYPE_PORT, sizeof(uint16_t), count, error) < 0)
		return -1;
	struct ruleset_set *set = &ruleset->sets[id];
	for (size_t i = 0; i < count; i++) {
		struct ruleset_interval *element = &set->elements[set->elements_count++];
		uint16_t first = htons(ports[i].first), last = htons(ports[i].last);
		memcpy(element->first, &first, sizeof first);
		memcpy(element->last, &last, sizeof last);
	}
	merge_intervals(set);
	return 0;
}

static int make_range_set(struct ruleset *ruleset, enum ruleset_set_id id, const char *name, int family,
			  const struct address_range *ranges, size_t count, struct error *error)
{
	enum ruleset_set_type type = family == AF_INET ? SET_TYPE_IPV4 : SET_TYPE_IPV6;
	uint32_t key_length = family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr);
	size_t wanted = 0;
	for (size_t i = 0; i < count; i++)
		wanted += ranges[i].family == family;
	if (make_set(ruleset, id, name, type, key_length, wanted, error) < 0)
		return -1;
	struct ruleset_set *set = &ruleset->sets[id];
	for (size_t i = 0; i < count; i++) {
		if (ranges[i].family != family)
			continue;
		struct ruleset_interval *element = &set->elements[set->elements_count++];
		/* Both members of the union begin at the same place. */
		memcpy(element->first, &ranges[i].ipv4, key_length);
		memcpy(element->last, element->first, sizeof element->last);
		for (uint32_t bit = ranges[i].prefix_length; bit < key_length * 8; bit++)
			element->last[bit / 8] |= (uint8_t)(0x80u >> (bit % 8));
	}
	merge_intervals(set);
	return 0;
}

static int make_sets(struct ruleset *ruleset, const struct redirect *redirect, struct error *error)
{
	const char(*virtual_interfaces)[IFNAMSIZ] = (const char(*)[IFNAMSIZ])redirect->virtual_interfaces;
	const char(*excluded_interfaces)[IFNAMSIZ] = (const char(*)[IFNAMSIZ])redirect->exclude.interfaces;
	size_t inbound_ports =
		redirect->bypass_inbound && redirect->virtual_interfaces_count == 0 ? 0 : redirect->exclude.inbound_ports_count;

	if (make_interface_set(ruleset, SET_VIRTUAL_INTERFACES, "virtual-interfaces", virtual_interfaces,
			       redirect->virtual_interfaces_count, error) < 0 ||
	    make_interface_set(ruleset, SET_EXCLUDED_INTERFACES, "excluded-interfaces", excluded_interfaces,
			       redirect->exclude.interfaces_count, error) < 0 ||
	    make_port_set(ruleset, SET_EXCLUDED_INBOUND_PORTS, "excluded-inbound-ports", redirect->exclude.inbound_ports,
			  inbound_ports, error) < 0 ||
	    make_port_set(ruleset, SET_EXCLUDED_OUTBOUND_PORTS, "excluded-outbound-ports", redirect->exclude.outbound_ports,
			  redirect->exclude.outbound_ports_count, error) < 0 ||
	    make_range_set(ruleset, SET_EXCLUDED_OUTBOUND_IPV4, "excluded-outbound-ipv4", AF_INET,
			   redirect->exclude.outbound_ranges, redirect->exclude.outbound_ranges_count, error) < 0)
		return -1;
	return make_range_set(ruleset, SET_EXCLUDED_OUTBOUND_IPV6, "excluded-outbound-ipv6", AF_INET6,
			      redirect->exclude.outbound_ranges, redirect->ipv6 ? redirect->exclude.outbound_ranges_count : 0,
			      error);
}

int ruleset_make(const struct redirect *redirect, enum redirect_stage stage, struct error *error, struct ruleset *ret_ruleset)
{
	/* Not zeroed: add_rule writes each one whole, and most are not used. */
	cleanup_ruleset struct ruleset ruleset = { .rules = malloc(RULESET_RULES_MAX * sizeof *ruleset.rules) };

	if (!ruleset.rules)
		return error_set(error, ENOMEM, "cannot make the rules");
	if (redirect->dns_capture)
		zone_chains(&ruleset);
	forget_open_connections(&ruleset, redirect, CHAIN_PREROUTING);
	input_chain(&ruleset);
	output_chain(&ruleset, redirect);
	if (stage == REDIRECT_STAGE_FULL) {
		if (make_sets(&ruleset, redirect, error) < 0)
			return -1;
		prerouting_redirect_chain(&ruleset, redirect);
		output_redirect_chain(&ruleset, redirect);
	} else {
		/* One chain registers the hooks of both families and all four directions. */
		ruleset.chains[CHAIN_OUTPUT_NAT] = true;
	}
	*ret_ruleset = ruleset;
	ruleset = (struct ruleset){ 0 };
	return 0;
}

void ruleset_clear(struct ruleset *ruleset)
{
	for (size_t i = 0; i < SET_COUNT; i++)
		free(ruleset->sets[i].elements);
	free(ruleset->rules);
	*ruleset = (struct ruleset){ 0 };
}
