/* Network namespaces: enter one, come back, open a socket inside. Always by descriptor, never by a name from outside. */
#ifndef AMBIENT_NETNS_H
#define AMBIENT_NETNS_H

#include <stdbool.h>
#include <sys/types.h>

#include "ambient/error.h"

/* What makes a namespace itself, whatever path leads to it. */
struct netns_id {
	dev_t device;
	ino_t inode;
};

static inline bool netns_id_equal(struct netns_id a, struct netns_id b)
{
	return a.device == b.device && a.inode == b.inode;
}

/* Opens the network namespace at `path` (CLOEXEC). A path that is no network namespace (a regular file, a namespace of
 * another kind) is an error with number EINVAL; a missing one ENOENT. */
int netns_open(const char *path, struct error *error, int *ret_fd);

/* Fails with EINVAL unless `fd` is a network namespace (statfs NSFS_MAGIC, NS_GET_NSTYPE). */
int netns_check(int fd, struct error *error);

int netns_identify(int fd, struct error *error, struct netns_id *ret_id);

/* Fails with EPERM when `fd` is the network namespace of the calling thread: a pod never has the host's. */
int netns_refuse_own(int fd, struct error *error);

/* The thread's way into a namespace and back. setns(2) is per thread and takes 2 us. */
struct netns_visit {
	int home; /* descriptor of the namespace to come back to, -1: not away */
};

/* `home` is an open descriptor of the current namespace, or -1: then /proc/thread-self/ns/net is opened and closed by the
 * way back. */
int netns_enter(int fd, struct error *error, struct netns_visit *ret_visit);

/* Comes back. A thread that cannot come back would do the node's work in a pod's namespace: the process aborts. */
void netns_leave(struct netns_visit *visit);

#define cleanup_netns_leave __attribute__((cleanup(netns_leave)))

/* A new namespace, to try something in: it ends with its last descriptor (CLOEXEC). The calling thread stays where it is. */
int netns_make(struct error *error, int *ret_fd);

/* socket(2) inside the namespace; the socket stays there. CLOEXEC is added. */
int netns_socket(int fd, int domain, int type, int protocol, struct error *error, int *ret_socket);

#endif
