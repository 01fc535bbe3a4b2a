/* Taking our redirection out of every pod of the node, without the node agent and without the API: `uninstall` by hand. */
#ifndef AMBIENT_INSTALLER_HOST_RELEASE_H
#define AMBIENT_INSTALLER_HOST_RELEASE_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"

struct release_places {
	const char *run_dir;   /* remembered attachments: which namespace is whose, and where */
	const char *proc_dir;  /* the host's processes */
	const char *netns_dir; /* its named namespaces */
	int host_netns;	       /* never touched; -1: the thread's own, which never is in any case */
};

/* One namespace that had our table. `pod` is "NS/NAME", or NULL where nobody remembers it; `problem` is NULL where it was
 * released. */
typedef void (*release_told)(void *data, const char *pod, const char *path, const char *problem);

/* Looks at each network namespace that a process, a name or an attachment leads to, and removes what is ours where our table
 * stands. -1: some could not be released (each was told), or nothing could be looked at. */
int release_all(const struct release_places *places, release_told told, void *data, struct error *error);

#endif
