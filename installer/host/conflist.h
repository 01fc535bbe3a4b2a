/* Editing network configurations of others, as JSON: unknown keys, the order of keys and integers up to 2^53 stay what they
 * were, white space does not. */
#ifndef AMBIENT_INSTALLER_HOST_CONFLIST_H
#define AMBIENT_INSTALLER_HOST_CONFLIST_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "ambient/error.h"

/* The key of our entry that remembers the file that a .conf or .json was before it became a .conflist. */
#define CONFLIST_ORIGINAL_KEY "ambient-cni.io/original"
/* The key of our entry that says of which file a configuration of our own is a copy. */
#define CONFLIST_COPY_KEY "ambient-cni.io/copy-of"

#define CONFLIST_ISTIO_TYPE "istio-cni"

/* The chain with us as the last of its own plugins, and no other entry of ours or of istio-cni: a new object. `json` is a list,
 * or one plugin's configuration, which becomes a list of one; then `original` (the name of its file) is remembered in our
 * entry, and so is one that was remembered before. `plugin` are our keys. A chain that can't take us (a version without
 * chaining, no plugin of its own) is an error that says why. */
int conflist_add(const cJSON *json, const cJSON *plugin, const char *original, struct error *error, cJSON **ret_list);

/* Without us. `ret_json` is the list, or, where `ret_original` names the file that it was, that file's object again; NULL where
 * nothing is left (the file was ours alone, or a copy that we made). `ret_original` is malloc'ed, or NULL. */
int conflist_remove(const cJSON *list, struct error *error, cJSON **ret_json, char **ret_original);

/* Without the entries of another plugin's type; NULL where nothing is left. */
int conflist_remove_type(const cJSON *json, const char *type, struct error *error, cJSON **ret_json);

/* A configuration of our own without any other plugin, for a meta plugin: a list, or one plugin's (for a .conf). */
int conflist_stand_alone(const cJSON *plugin, const char *name, bool is_list, struct error *error, cJSON **ret_json);

/* Says in our entry that the list is a copy of that file: it goes when we go. */
int conflist_mark_copy(cJSON *list, const char *of, struct error *error);

/* Our entry, that of a given type, NULL where there is none. */
const cJSON *conflist_find(const cJSON *json, const char *type);

/* The same keys and values in the same order: what conflist_print prints is the same. */
bool conflist_equal(const cJSON *a, const cJSON *b);

/* The text of a file: malloc'ed, ends with a newline. NULL: no memory. */
char *conflist_print(const cJSON *json);

/* The file that a .conf or .json becomes ("10-x.conf" -> "10-x.conflist"), malloc'ed; a .conflist stays. NULL: no memory. */
char *conflist_file_name(const char *name);

#endif
