/* List and watch of one resource, for ever: what a source tells its listener (installer/source.h).
 *
 * It begins with a streaming list (a watch with sendInitialEvents) and, where the server has none, with a paged one. Then it
 * watches, from the resource version that it has got to. A watch that ends goes on from there; 410 Gone, an answer that is no
 * JSON, or a line that is too long make it list again. A watch on which nothing comes for too long, not even a bookmark, is
 * given up and begun anew. Between tries there are growing, jittered pauses. An object is handed on as soon as it has come
 * and dropped: neither a list nor a watch is ever held in memory as a whole.
 *
 * A list that breaks off begins anew with another list_started. */
#ifndef AMBIENT_INSTALLER_KUBE_WATCH_H
#define AMBIENT_INSTALLER_KUBE_WATCH_H

#include <event2/event.h>
#include <stdbool.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/kube/client.h"
#include "installer/source.h"

struct kube_watch;

/* Zero: the default. Tests shorten the times. */
struct kube_watch_timing {
	unsigned server_seconds;       /* 300: the server ends a watch after that, up to a third later (spread by chance) */
	unsigned silence_milliseconds; /* 130 000: twice the time between a server's bookmarks and a bit */
	unsigned backoff_milliseconds; /* 500: the first pause, doubled up to 60 times of it */
	unsigned page;		       /* 100: objects in one page of a paged list */
};

struct kube_watch_options {
	enum source_kind kind;
	const char *path;	    /* "/api/v1/pods"; static */
	const char *field_selector; /* "spec.nodeName=a"; copied; NULL: everything */
	bool metadata_only;	    /* ask for PartialObjectMetadata */
	struct kube_watch_timing timing;
	const struct log *log; /* borrowed */
};

/* Begins at once. The listener's functions are called from the loop; they may free the watch. */
int kube_watch_new(struct event_base *base, struct kube_client *client, const struct kube_watch_options *options,
		   const struct source_listener *listener, struct error *error, struct kube_watch **ret_watch);
void kube_watch_free(struct kube_watch *watch); /* NULL is fine */

#endif
