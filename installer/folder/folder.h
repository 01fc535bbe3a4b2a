/* A source of pods and namespaces that is a folder: every *.yaml, *.yml and *.json in it holds Namespace and Pod objects as
 * kubectl prints them, in several documents or in a List. No cluster is needed. Nothing is ever written there.
 *
 * What is promised:
 *  - The first list is finished when every file has been read: before that it is not known what there is. Later a file that
 *    can't be read (half written, not YAML) keeps the objects that it had, and the trouble names it and the line.
 *  - The folder may be missing, go, and be made again at any time. One that is removed or moved away as a whole is trouble; its
 *    objects stay, but those of files that were deleted one by one.
 *  - An object that is in two places counts once: the first in the order of file names, and the trouble says so.
 *  - An object without metadata.uid gets one that depends on kind, namespace and name alone (folder_object_uid), so that it is
 *    the same after a restart.
 *  - What is large and concerns no node agent (managedFields, resourceVersion, volumes, conditions, container statuses) is
 *    dropped, and its change is no event.
 *  - Names that begin with a dot are passed over. While somebody writes to a file it is left alone, until it is closed or has
 *    been quiet for a second; a program that renames a complete file over the old one is seen at once.
 *  - A pod whose spec.nodeName is another node's is passed over. Other kinds are passed over. */
#ifndef AMBIENT_INSTALLER_FOLDER_FOLDER_H
#define AMBIENT_INSTALLER_FOLDER_FOLDER_H

#include "ambient/error.h"
#include "installer/source.h"

struct event_base;

/* `path` and `node_name` are copied; `base` and what `listener` points to are borrowed until the source is freed, which must
 * not happen inside the listener or an answer. The folder need not exist. annotate_pod is NULL. */
int folder_source_new(struct event_base *base, const char *path, const char *node_name, const struct source_listener *listener,
		      struct error *error, struct source *ret_source);

/* The uid of an object that names none: a version 8 UUID (RFC 9562) of the SHA-256 of "KIND/NAMESPACE/NAME", where KIND is
 * "Namespace" or "Pod" and a namespace's NAMESPACE is empty. */
#define FOLDER_UID_MAX 37
void folder_object_uid(enum source_kind kind, const char *namespace_name, const char *name, char ret_uid[FOLDER_UID_MAX]);

#endif
