/* What a source of pods and namespaces tells the node agent, and what the node agent asks of it. Kubernetes (kube/) and a
 * folder (folder/) are sources; they know nothing of the mesh, and the mesh knows nothing of them but this.
 *
 * A source begins with a list of each kind: list_started, put for every object, list_finished. After that come put and gone
 * as things change. Whenever it may have missed something it lists again: what was not put between list_started and
 * list_finished is gone. A list that breaks off begins anew with another list_started. put says "this is the object now",
 * whether it is new or changed, and may say so twice. Where put answers false the object could not be taken in, for want of
 * memory: the list breaks off, and the source lists again, a while later; else the object would be taken for gone.
 *
 * Objects are as kubectl prints them with -o json (kind and apiVersion may be missing), borrowed for the call. Namespaces may
 * be metadata only. The listener is called from the event loop, never from inside a function of the source. */
#ifndef AMBIENT_INSTALLER_SOURCE_H
#define AMBIENT_INSTALLER_SOURCE_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "ambient/error.h"

enum source_kind { SOURCE_NAMESPACE, SOURCE_POD, SOURCE_KIND_COUNT };

struct source_listener {
	void (*list_started)(void *data, enum source_kind kind);
	bool (*put)(void *data, enum source_kind kind, const cJSON *object);
	void (*gone)(void *data, enum source_kind kind, const cJSON *object);
	void (*list_finished)(void *data, enum source_kind kind);
	/* The source can't be reached, or can again: for status and readiness; `reason` is a sentence, NULL: all is well. */
	void (*trouble)(void *data, enum source_kind kind, const char *reason);
	void *data;
};

enum source_outcome {
	SOURCE_DONE,
	SOURCE_GONE,   /* there is no such object (any more), or another one of that name: nothing is left to do */
	SOURCE_FAILED, /* it may work later */
};

/* `object` is the object as read or as changed, borrowed, NULL where there is none; `error` is filled with SOURCE_FAILED. */
typedef void (*source_answer)(void *data, enum source_outcome outcome, const cJSON *object, const struct error *error);

/* A question under way. Its answer comes exactly once, unless it is cancelled before; never from inside the asking call. */
struct source_request;

struct source {
	/* Opaque to the mesh; the first argument of every operation. */
	void *self;

	/* Reads one pod now, for one that the watch has not shown yet. */
	int (*get_pod)(void *self, const char *namespace_name, const char *name, source_answer answer, void *data,
		       struct error *error, struct source_request **ret_request);

	/* Sets (NULL: removes) one annotation of a pod, the one of this uid and no successor of the same name. NULL: the source
	 * is never written to (a folder), and what would have been written is kept by the mesh alone. */
	int (*annotate_pod)(void *self, const char *namespace_name, const char *name, const char *uid, const char *key,
			    const char *value, source_answer answer, void *data, struct error *error,
			    struct source_request **ret_request);

	/* The request's answer does not come; it is freed. */
	void (*cancel)(void *self, struct source_request *request);

	/* Ends it, with every request under way. */
	void (*free)(void *self);
};

#endif
