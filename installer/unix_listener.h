/* A SOCK_SEQPACKET socket that listens at a path and stays there: what the node agent offers to root on its node.
 *
 * It is bound beside its place and renamed over whatever lies there, so that at every moment somebody answers. From then on the
 * path is watched (inotify, and a look every two seconds where inotify can't be had):
 *  - gone: somebody unlinked it (an istio-cni that leaves removes the path, whoever owns it). It is bound again, after a moment
 *    in which a successor that unlinks before it binds gets its turn.
 *  - another socket: a successor has taken over. We stop accepting and say so, once.
 *  - anything else: it is replaced.
 * At the end the path is removed only if it is still our own socket. */
#ifndef AMBIENT_INSTALLER_UNIX_LISTENER_H
#define AMBIENT_INSTALLER_UNIX_LISTENER_H

#include <event2/event.h>
#include <stdint.h>
#include <sys/types.h>

#include "ambient/error.h"
#include "ambient/log.h"

struct unix_listener;

struct unix_listener_events {
	/* A peer of uid 0 has connected: the descriptor (CLOEXEC, non-blocking) is the callee's. */
	void (*accepted)(void *data, int fd, pid_t pid);
	/* A successor listens at the path. Told once; nobody is accepted any more. */
	void (*superseded)(void *data);
	void *data;
};

struct unix_listener_limits {
	unsigned int accepts_per_second;   /* 0: any number */
	unsigned int absence_milliseconds; /* from the path's disappearing to binding again */
};

/* The directory is made where it is missing. `events` and `limits` are copied, `base` and `log` borrowed. Events come from the
 * loop only; they may not call unix_listener_free. */
int unix_listener_new(struct event_base *base, const char *path, const struct unix_listener_events *events,
		      const struct unix_listener_limits *limits, const struct log *log, struct error *error,
		      struct unix_listener **ret_listener);

void unix_listener_free(struct unix_listener *listener);

/* How often it was bound (1 after the start), and how many peers were refused because they were not root. */
uint64_t unix_listener_binds(const struct unix_listener *listener);
uint64_t unix_listener_refused(const struct unix_listener *listener);

#endif
