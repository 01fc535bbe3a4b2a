/* Finding the network namespace of a pod that runs, among the host's processes.
 *
 * A remembered namespace (ambient/attachment.h) is better where there is one; this is for pods that nobody remembers. */
#ifndef AMBIENT_INSTALLER_NETNS_FINDER_H
#define AMBIENT_INSTALLER_NETNS_FINDER_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "ambient/netns.h"
#include "installer/object.h"

enum finder_result {
	FINDER_NO_PROCESS, /* no process's cgroup names the pod */
	FINDER_ONLY_HOST,  /* its processes are all in the host's network namespace */
	FINDER_NO_ADDRESS, /* none of their namespaces has one of the pod's addresses (yet) */
	FINDER_FOUND,
};
/* "no process of the pod runs here", ...: for messages and `explain`. */
const char *finder_result_words(enum finder_result result);

struct finder_wish {
	/* The caller's. `uid` is metadata.uid; of a static pod the annotation kubernetes.io/config.hash, which its cgroups are
	 * named by. A pod without addresses is never found: nothing could prove that the namespace is its own. */
	const char *uid;
	const struct pod_address *addresses;
	size_t addresses_count;
	/* The answer. */
	enum finder_result result;
	int netns; /* FINDER_FOUND: open, the caller's to close; else -1 */
	struct netns_id id;
};

/* Looks through `proc_dir` (the host's /proc) once for all wishes, and fills in their answers; any order, any number. Of the
 * processes whose cgroup names a pod, the namespace of the oldest that is not `host` and in which one of the pod's addresses
 * is configured is the pod's. Processes that vanish, and those that may not be looked at (hidepid), are passed over. -1 only
 * where `proc_dir` itself can't be read or memory is missing: then no wish holds a descriptor. Costs one small file a process;
 * blocks for as long as that takes (about 20 us a process). */
int finder_scan(const char *proc_dir, const struct netns_id *host, struct finder_wish *wishes, size_t count,
		struct error *error);

#endif
