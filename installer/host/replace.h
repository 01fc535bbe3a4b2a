/* Files of a directory replaced in one step.
 *
 * The new content goes to a temporary file in the same directory (a runtime reloads on a rename within it, not on a file that
 * comes from elsewhere), whose name ends with .ambient-cni-new, which no runtime loads and no runtime executes. Its name is
 * random: two agents can have the same process id in two containers. Who writes one holds a lock on it, so that leftovers of a
 * writer that was killed are told from files in the making. */
#ifndef AMBIENT_INSTALLER_HOST_REPLACE_H
#define AMBIENT_INSTALLER_HOST_REPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "ambient/error.h"

#define REPLACEMENT_SUFFIX ".ambient-cni-new"

struct replacement {
	int directory; /* borrowed */
	int fd;	       /* for writing; -1: closed */
	int lock;      /* a second descriptor, for reading, that holds the lock: a file open for writing can't be executed */
	char name[256];
	char temporary[256]; /* empty: there is none */
};

/* A new empty file beside `name`. */
int replacement_begin(int directory, const char *name, mode_t mode, struct error *error, struct replacement *ret_replacement);

int replacement_write(struct replacement *replacement, const void *data, size_t length, struct error *error);

/* Syncs the content and closes the writing end. */
int replacement_sync(struct replacement *replacement, struct error *error);

/* Renames it over `name` and syncs the directory. With `expected`, the file that is replaced must still be that one (NULL:
 * whatever is there): where somebody wrote it meanwhile, theirs stays, and the error is EAGAIN. */
int replacement_commit(struct replacement *replacement, const struct stat *expected, struct error *error);

/* Removes the temporary file unless it was committed. */
void replacement_end(struct replacement *replacement);
#define cleanup_replacement __attribute__((cleanup(replacement_end)))

/* Removes what killed writers left in the directory. */
void replacement_sweep(int directory);

/* The same file with the same content, as far as stat(2) tells. */
bool replacement_same_file(const struct stat *a, const struct stat *b);

#endif
