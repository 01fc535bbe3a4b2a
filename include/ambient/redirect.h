/* Redirection of one network namespace: what is captured, as a plain struct, and the four things done with it.
 *
 *   redirect_ruleset.c  the table of rules: which packet goes where (the one place); redirect_compile.c, as objects of nftables
 *   redirect.c          apply, remove, counters; redirect_forget.c, what conntrack is made to forget with them
 *   redirect_verify.c   the kernel (redirect_dump.c) against the struct, by content; redirect_diff.c, all that is different
 *   redirect_render.c   the same rules as nft syntax
 *   redirect_config.c   the struct from and to the `redirect` object of a configuration
 *
 * The outcomes are those of the packet tables in docs/redirection.md. */
#ifndef AMBIENT_REDIRECT_H
#define AMBIENT_REDIRECT_H

#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ambient/error.h"

#define REDIRECT_TABLE "ambient-cni"
#define REDIRECT_TUNNEL_MARK 0x539u	/* packet mark of everything the tunnel's sockets send */
#define REDIRECT_CONNECTION_MARK 0x111u /* connection (and reply packet) mark of what the tunnel carries */
#define REDIRECT_MARK_MASK 0xfffu	/* the other bits belong to others */
#define REDIRECT_ROUTE_TABLE 100
#define REDIRECT_RULE_PREFERENCE 32764
#define REDIRECT_PORT_OUTBOUND 15001
#define REDIRECT_PORT_INBOUND 15006
#define REDIRECT_PORT_HBONE 15008
#define REDIRECT_PORT_DNS 15053
#define REDIRECT_DNS_ZONE 1

struct port_range {
	uint16_t first, last; /* host order, first <= last, first >= 1 */
};

struct address_range {
	int family; /* AF_INET or AF_INET6 */
	union {
		struct in_addr ipv4;
		struct in6_addr ipv6;
	};
	uint8_t prefix_length; /* host bits of the address are zero */
};

enum existing_connections {
	EXISTING_CONNECTIONS_KEEP,  /* only connections that open while the rules stand are redirected */
	EXISTING_CONNECTIONS_RESET, /* a running connection is redirected too, which cuts it */
};

/* Everything under `redirect` in a configuration. Lists are owned by the struct (malloc), redirect_clear frees them. */
struct redirect {
	bool ipv6;
	bool dns_capture;
	bool bypass_inbound;
	bool conntrack_timeouts; /* false: the kernel lacks CONFIG_NF_CONNTRACK_TIMEOUT (redirect_try_kernel), and does without
				  */
	enum existing_connections existing_connections;
	struct in_addr host_probe_ipv4;
	struct in6_addr host_probe_ipv6;
	char (*virtual_interfaces)[IFNAMSIZ];
	size_t virtual_interfaces_count;
	struct {
		struct port_range *outbound_ports;
		size_t outbound_ports_count;
		struct address_range *outbound_ranges;
		size_t outbound_ranges_count;
		struct port_range *inbound_ports;
		size_t inbound_ports_count;
		char (*interfaces)[IFNAMSIZ];
		size_t interfaces_count;
	} exclude;
};

/* The defaults of the configuration reference; allocates nothing. */
void redirect_init(struct redirect *redirect);
void redirect_clear(struct redirect *redirect);
#define cleanup_redirect __attribute__((cleanup(redirect_clear)))

int redirect_copy(const struct redirect *from, struct error *error, struct redirect *ret_copy);
bool redirect_equal(const struct redirect *a, const struct redirect *b);

struct cJSON;
/* Reads the `redirect` object over what `redirect` holds already (defaults first): a key that is absent leaves its value.
 * `where` is the object's place in the file, for messages ("redirect"). A wrong type or value is an error that names the key,
 * what was found and what was expected; an unknown key is none. On failure `redirect` is untouched. */
int redirect_from_json(const struct cJSON *json, const char *where, struct error *error, struct redirect *redirect);

/* A new cJSON object, with every key; NULL when there is no memory. */
struct cJSON *redirect_to_json(const struct redirect *redirect);

/* How far the redirection goes. Both stages carry the connection marks, the DNS zone, the guard, the policy rule and the
 * local route. */
enum redirect_stage {
	REDIRECT_STAGE_GUARD, /* no redirects: a running pod before the tunnel accepted it, or while it drains; connections that
			       * are redirected go on */
	REDIRECT_STAGE_FULL,
};

/* The sockets through which one namespace's redirection is read and changed. They were opened inside it and stay there (and
 * keep it alive): whoever holds a session of a pod must close it when the pod goes. Closing soon after something was
 * destroyed in that namespace waits for an RCU grace period in the kernel (12 to 36 ms): keep the session, or close later. */
struct redirect_session;

/* `netns_fd` is borrowed and must not be the caller's own namespace where that is the host's (see netns_refuse_own). */
int redirect_session_open(int netns_fd, struct error *error, struct redirect_session **ret_session);
void redirect_session_close(struct redirect_session *session); /* NULL is fine */
void redirect_session_closep(struct redirect_session **session);
#define cleanup_redirect_session __attribute__((cleanup(redirect_session_closep)))

/* The netlink ports through which the session commits rules, and changes routes: a change notification that bears the one of
 * its kind is an own change. */
uint32_t redirect_session_port(const struct redirect_session *session);
uint32_t redirect_session_route_port(const struct redirect_session *session);

/* Whether the kernel knows conntrack timeouts in rules (CONFIG_NF_CONNTRACK_TIMEOUT): asked by a transaction, in a namespace
 * that nobody uses, in which something stays. */
int redirect_try_kernel(int netns_fd, struct error *error, bool *ret_has_timeouts);

/* What it means that it does not, in a sentence. */
#define REDIRECT_WITHOUT_TIMEOUTS                                                                                              \
	"the kernel lacks CONFIG_NF_CONNTRACK_TIMEOUT: where a pod's port is used again while the kernel remembers a "         \
	"connection "                                                                                                          \
	"that was open when the pod was enrolled, the new connection goes around the mesh as the old one did"

/* Whether anybody ever committed a ruleset in the namespace. */
int redirect_is_touched(struct redirect_session *session, struct error *error, bool *ret_is_touched);

/* What stands in the namespace, by a look at our table and its chains only: no comparison (see redirect_verify). In a namespace
 * in which nobody ever committed it costs one question. */
enum redirect_standing { REDIRECT_STANDING_NOTHING, REDIRECT_STANDING_GUARD, REDIRECT_STANDING_FULL };
int redirect_look(struct redirect_session *session, struct error *error, enum redirect_standing *ret_standing);

/* Makes the namespace's redirection what the struct says: policy rules and routes of both families first, then our table in
 * one transaction, replaced in the same transaction where there is one; open redirected connections stay alive. Idempotent.
 * On failure after something was added, everything this call added in a namespace that had no table of ours is taken away. */
int redirect_apply(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
		   struct error *error);

/* Takes everything of ours away: table, rules, routes. Nothing there is no error. */
int redirect_remove(struct redirect_session *session, struct error *error);

/* Compares the kernel with the struct. Returns 0 and an empty difference when they agree; 0 and the first difference in words
 * ("table inet ambient-cni is missing", "chain output-nat: rule 4 (outbound): ...") when they do not; -1 when the kernel could
 * not be asked. */
struct redirect_difference {
	char text[512]; /* empty: none */
};
int redirect_verify(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
		    struct error *error, struct redirect_difference *ret_difference);

/* All differences where redirect_verify has found one (`difference`), for people: a line each, "-" for what is missing, "+" for
 * what should not be there, "!" for what is another. The text is malloc'ed. */
int redirect_diff(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
		  const struct redirect_difference *difference, struct error *error, char **ret_text);

/* The rules in nft syntax: a whole table, to be loaded into a namespace that has none of that name. The text is malloc'ed. */
int redirect_render(const struct redirect *redirect, enum redirect_stage stage, struct error *error, char **ret_text);

/* What happened to packets since the table was last written. NAT sees the first packet of a connection only: redirects
 * count connections. */
enum redirect_outcome {
	REDIRECT_OUTCOME_NONE, /* a rule that no person asks about: not counted */
	REDIRECT_OUTCOME_INBOUND,
	REDIRECT_OUTCOME_OUTBOUND,
	REDIRECT_OUTCOME_DNS,
	REDIRECT_OUTCOME_VIRTUAL_INTERFACE,
	REDIRECT_OUTCOME_HBONE,
	REDIRECT_OUTCOME_PROBE,
	REDIRECT_OUTCOME_EXCLUDED,
	REDIRECT_OUTCOME_GUARD,
	REDIRECT_OUTCOME_COUNT,
};
struct redirect_counters {
	uint64_t packets[REDIRECT_OUTCOME_COUNT];
};
const char *redirect_outcome_name(enum redirect_outcome outcome); /* "inbound", "outbound", "dns", ... */
int redirect_read_counters(struct redirect_session *session, struct error *error, struct redirect_counters *ret_counters);

#endif
