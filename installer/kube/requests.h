/* Single requests of other rooms: our DaemonSet, our node and its taint, Events. Answers as in installer/kube/client.h. */
#ifndef AMBIENT_INSTALLER_KUBE_REQUESTS_H
#define AMBIENT_INSTALLER_KUBE_REQUESTS_H

#include <stdbool.h>

#include "ambient/error.h"
#include "installer/kube/client.h"

/* Status 404: it does not exist; metadata.deletionTimestamp: it is being deleted. */
int kube_get_daemon_set(struct kube_client *client, const char *namespace_name, const char *name, kube_done done, void *data,
			struct error *error, struct kube_request **ret_request);
int kube_get_node(struct kube_client *client, const char *name, kube_done done, void *data, struct error *error,
		  struct kube_request **ret_request);

/* Takes every taint of this key off the node, and touches no other: the node is read, and a JSON patch removes the entries
 * after it has tested that they still stand where they stood; whoever changed the node in between makes it start anew. The
 * answer's object is the node as it is then. A node without such a taint is answered at once with 200. */
struct kube_taint_removal;
int kube_remove_taint(struct kube_client *client, const char *node_name, const char *key, kube_done done, void *data,
		      struct error *error, struct kube_taint_removal **ret_removal);
void kube_taint_removal_cancel(struct kube_taint_removal *removal); /* NULL is fine */

/* An Event (core/v1) about a pod, or about a node where `namespace_name` is NULL. */
struct kube_event {
	const char *namespace_name, *name, *uid; /* of what it is about; uid may be NULL */
	bool is_warning;			 /* else Normal */
	const char *reason;			 /* "MeshEnrolmentFailed": one word, for machines */
	const char *message;			 /* a sentence; cut at 1024 bytes, which is the server's limit */
	const char *node_name;			 /* where it was reported */
};

/* Everything is copied. `done` may be NULL: whether it worked is of no interest; then there is nothing to cancel, and
 * `ret_request` may be NULL too. */
int kube_create_event(struct kube_client *client, const struct kube_event *event, kube_done done, void *data,
		      struct error *error, struct kube_request **ret_request);

#endif
