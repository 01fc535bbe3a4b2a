/* What the listener was told: the objects of all files together, each once. Private to installer/folder/. */
#ifndef AMBIENT_INSTALLER_FOLDER_PUBLISHED_H
#define AMBIENT_INSTALLER_FOLDER_PUBLISHED_H

#include <stdbool.h>
#include <stddef.h>

#include "installer/folder/files.h"
#include "installer/source.h"

/* Objects that are there more than once, or share a uid. */
struct folder_duplicates {
	char *first; /* in words; NULL: none */
	size_t count;
};

/* Zeroed: nothing. */
struct folder_published {
	struct folder_object **items; /* by kind and key */
	size_t count;
	struct folder_duplicates duplicates[SOURCE_KIND_COUNT];
};

/* Tells the listener what is different in the files from what it was told, as a list (is_list) or as changes. -1: there was no
 * memory, here or at the listener's: what it knows is not known any more, and the next time it needs a list. */
int folder_published_update(struct folder_published *published, const struct folder_files *files,
			    const struct source_listener *listener, bool is_list);
void folder_published_clear(struct folder_published *published);

/* NULL: no such object. */
const struct folder_object *folder_published_find(const struct folder_published *published, enum source_kind kind,
						  const char *key);

#endif
