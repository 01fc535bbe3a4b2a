/* On the host: what a local socket (the kubelet) sends to a pod of the mesh comes from the host's probe address.
 *
 * A table of our own, inet ambient-cni-host, with the addresses of enrolled pods in one set a family and one rule for each
 * (probe_rules.h). The object holds what should be there; changes are collected and made in one transaction, at the end of the
 * event loop's turn or when somebody flushes. What stands in the kernel at start is adopted, and others' edits are repaired. */
#ifndef AMBIENT_INSTALLER_PROBES_PROBE_SET_H
#define AMBIENT_INSTALLER_PROBES_PROBE_SET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ambient/error.h"
#include "installer/object.h"

#define PROBE_TABLE "ambient-cni-host"

struct event_base;
struct probe_set;

/* Called from the event loop, and from flush, prune and verify; none may close the set. Each may be NULL. */
struct probe_set_events {
	/* Somebody else changed our table and it was put right; `difference` says what was found ("set pods-ipv4 lacks
	 * 10.0.0.7"). Not called for what is adopted at start. */
	void (*repaired)(void *data, const char *difference);
	/* A transaction in the background failed; it is tried again (20 ms, doubling to 1 s). */
	void (*failed)(void *data, const struct error *error);
	/* What was put before is in the kernel now (a transaction in the background succeeded). */
	void (*flushed)(void *data);
	void *data;
};

struct probe_set_counters {
	uint64_t transactions, repairs, failures;
};

/* Makes sure that table, sets and rules stand, keeping the elements that are there. `netns` is the host's network namespace,
 * borrowed, or -1 for our own. Fails where the kernel lacks a feature: the error names it. `events` is copied. */
int probe_set_open(struct event_base *base, int netns, struct in_addr probe_ipv4, struct in6_addr probe_ipv6,
		   const struct probe_set_events *events, struct error *error, struct probe_set **ret_set);
/* What is in the kernel stays there; what was not flushed is lost. NULL is fine. */
void probe_set_close(struct probe_set *set);

/* The pod's addresses are these and no others; a pod that had others loses them. An address that another pod had is this one's
 * from now on; the other one gets it back only when it is nobody's. Takes hold with the next flush. -1: no memory, nothing
 * changed. */
int probe_set_put(struct probe_set *set, const char *uid, const struct pod_address *addresses, size_t count,
		  struct error *error);
/* Takes away the addresses that are still this pod's. A uid that has none is no error. */
void probe_set_remove(struct probe_set *set, const char *uid);
/* An address is that of pod `uid`, which is outside: whoever else had it has it no more, though it may still claim it.
 * True: somebody had it. */
bool probe_set_give_away(struct probe_set *set, const char *uid, const struct pod_address *address);

/* Makes all changes now, in one transaction; nothing to change costs nothing. */
int probe_set_flush(struct probe_set *set, struct error *error);

/* Whether the address is this pod's, be it in the kernel yet or not. */
bool probe_set_owns(const struct probe_set *set, const char *uid, const struct pod_address *address);
/* What was put for the pod, though another one may have got it; borrowed until the next put, remove or give_away. */
const struct pod_address *probe_set_claimed(const struct probe_set *set, const char *uid, size_t *ret_count);
/* Whether the pod has addresses here, and all of them are in the kernel. */
bool probe_set_holds(const struct probe_set *set, const char *uid);
/* Whether the rules and all that should be in the sets are in the kernel, as far as we know. */
bool probe_set_stands(const struct probe_set *set);

/* After the first full list: takes away what an earlier agent left and no pod claimed. From then on foreign elements are
 * differences. */
int probe_set_prune(struct probe_set *set, struct error *error);

/* Looks at the kernel and puts right what is not as it should be; the difference in words, empty where there was none. */
int probe_set_verify(struct probe_set *set, struct error *error, char *ret_difference, size_t size);

void probe_set_read_counters(const struct probe_set *set, struct probe_set_counters *ret_counters);

/* Takes the table away, in the host's namespace `netns` (-1: our own). Not there is no error. */
int probe_set_uninstall(int netns, struct error *error);

#endif
