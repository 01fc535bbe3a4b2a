/* The kernel's policy rules (ip rule), as far as they look up a table: read, added, removed. */
#ifndef AMBIENT_INSTALLER_PROBES_POLICY_RULE_H
#define AMBIENT_INSTALLER_PROBES_POLICY_RULE_H

#include <libmnl/libmnl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ambient/error.h"

/* from all [to DESTINATION] [iif INTERFACE] lookup TABLE pref PRIORITY */
struct policy_rule {
	uint32_t priority, table;
	uint8_t protocol, destination_length;
	struct in6_addr destination;
	char interface[IFNAMSIZ]; /* empty: any */
	bool is_detached;	  /* no interface of that name */
	bool is_plain;		  /* no selector but these */
};

struct policy_rules {
	int family;
	struct policy_rule *items;
	size_t count;
};

void policy_rules_clear(struct policy_rules *rules);
#define cleanup_policy_rules __attribute__((cleanup(policy_rules_clear)))

/* The kernel's rules of a family; none where the kernel has no such family. `rules` is cleared before. */
int policy_rules_read(struct mnl_socket *netlink, int family, struct error *error, struct policy_rules *rules);

/* Unless `rules` has it. */
int policy_rules_add(struct mnl_socket *netlink, const struct policy_rules *rules, const struct policy_rule *rule,
		     struct error *error);
/* One that is not there is no error. */
int policy_rules_remove(struct mnl_socket *netlink, int family, const struct policy_rule *rule, struct error *error);

/* Bytes. */
uint8_t policy_rule_address_length(int family);

#endif
