/* What a source of pods and namespaces tells the node agent. Kubernetes (kube/) and a folder (folder/) are sources; they know
 * nothing of the mesh, and the mesh knows nothing of them but this.
 *
 * A source begins with a list of each kind: list_started, put for every object, list_finished. After that come put and gone
 * as things change. Whenever it may have missed something it lists again: what was not put between list_started and
 * list_finished is gone. put says "this is the object now", whether it is new or changed, and may say so twice.
 *
 * Objects are as kubectl prints them with -o json (kind and apiVersion may be missing), borrowed for the call. Namespaces may
 * be metadata only. */
#ifndef AMBIENT_INSTALLER_SOURCE_H
#define AMBIENT_INSTALLER_SOURCE_H

#include <cjson/cJSON.h>

enum source_kind { SOURCE_NAMESPACE, SOURCE_POD, SOURCE_KIND_COUNT };

struct source_listener {
	void (*list_started)(void *data, enum source_kind kind);
	void (*put)(void *data, enum source_kind kind, const cJSON *object);
	void (*gone)(void *data, enum source_kind kind, const cJSON *object);
	void (*list_finished)(void *data, enum source_kind kind);
	void *data;
};

#endif
