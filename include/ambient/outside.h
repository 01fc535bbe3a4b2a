/* runDir/outside.json: the namespaces last known to be outside the mesh. The installer keeps it; while the installer is away
 * the plugin lets pods of these namespaces start. A namespace in which a pod was ever enrolled by its own label is not listed.
 * The file can be stale: a pod may start outside although its namespace was labelled meanwhile; the installer heals that
 * first when it is back. */
#ifndef AMBIENT_OUTSIDE_H
#define AMBIENT_OUTSIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "ambient/error.h"

struct outside_namespace {
	char *name, *uid;
	bool has_enrolled_pod; /* a pod in it was enrolled by its own label once: not listed */
};

struct outside {
	time_t time; /* CLOCK_REALTIME, when it was written; 0: never, as far as is known */
	struct outside_namespace *namespaces;
	size_t count;
};

void outside_clear(struct outside *outside);
#define cleanup_outside __attribute__((cleanup(outside_clear)))

/* A missing file is ENOENT: nothing is known. A file that can't be understood is an error too, and stays: the installer
 * writes it anew. */
int outside_read(const char *run_dir, struct error *error, struct outside *ret_outside);

/* Also false for a namespace that is there with has_enrolled_pod. */
bool outside_is_listed(const struct outside *outside, const char *namespace_name);

int outside_write(const char *run_dir, const struct outside *outside, struct error *error);

#endif
