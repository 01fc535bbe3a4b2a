/* Kubernetes as a source of pods and namespaces (installer/source.h): the pods of one node, and every namespace as metadata
 * only. */
#ifndef AMBIENT_INSTALLER_KUBE_SOURCE_H
#define AMBIENT_INSTALLER_KUBE_SOURCE_H

#include <event2/event.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/kube/client.h"
#include "installer/kube/watch.h"
#include "installer/source.h"

struct kube_source_options {
	const char *node_name; /* copied */
	const struct log *log; /* borrowed */
	struct kube_watch_timing timing;
};

/* Begins to list and watch at once. `client` is borrowed and must outlive the source; `listener` is copied. */
int kube_source_new(struct event_base *base, struct kube_client *client, const struct kube_source_options *options,
		    const struct source_listener *listener, struct error *error, struct source *ret_source);

#endif
