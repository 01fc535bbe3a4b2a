/* The network namespace at a path that somebody gave, as the host sees the path. */
#ifndef AMBIENT_INSTALLER_NETNS_NETNS_PATH_H
#define AMBIENT_INSTALLER_NETNS_NETNS_PATH_H

#include "ambient/error.h"
#include "ambient/netns.h"

/* Opens the namespace that a runtime's ADD or the annotation ambient-cni.io/netns named, as the host sees the path:
 *
 *   NAME, /run/netns/NAME, /var/run/netns/NAME   in `netns_dir`; so is a path that begins with `netns_dir` itself
 *   /proc/PID/ns/net                             in `proc_dir`
 *   any other absolute path                      below `proc_dir`/1/root, symbolic links resolved there; where that can't be
 *                                                looked at (no host's processes to see), as it stands
 *
 * "..", a path that is no network namespace (EINVAL) and the host's own (EPERM) are refused. The annotation is to be trusted
 * only from a source that the node's administrator writes. */
int netns_path_open(const char *path, const char *proc_dir, const char *netns_dir, const struct netns_id *host,
		    struct error *error, int *ret_netns);

#endif
