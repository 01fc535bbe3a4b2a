/* The namespaces and pods in one file of a folder. */
#ifndef AMBIENT_INSTALLER_FOLDER_OBJECT_H
#define AMBIENT_INSTALLER_FOLDER_OBJECT_H

#include <cjson/cJSON.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/source.h"

/* Counted: a file and what was published hold the same one. */
struct folder_object {
	unsigned int references;
	enum source_kind kind;
	char *key; /* "NAMESPACE/NAME", a namespace's "NAME" */
	const char *uid;
	cJSON *json;
};

struct folder_object *folder_object_get(struct folder_object *object);
void folder_object_put(struct folder_object *object); /* NULL is fine */

/* Zeroed: none. */
struct folder_objects {
	struct folder_object **items;
	size_t count;
};
void folder_objects_clear(struct folder_objects *objects);
#define cleanup_folder_objects __attribute__((cleanup(folder_objects_clear)))

/* "Namespace" or "Pod". */
const char *folder_kind_name(enum source_kind kind);

/* Reads a text, which `what` names. An object that is a namespace or pod but lacks a name, or a document that is no object, is
 * an error. */
int folder_objects_read(const char *text, size_t length, const char *what, const char *node_name, struct error *error,
			struct folder_objects *ret_objects);

#endif
