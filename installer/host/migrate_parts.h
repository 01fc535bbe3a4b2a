/* What migrate.c is made of. */
#ifndef AMBIENT_INSTALLER_HOST_MIGRATE_PARTS_H
#define AMBIENT_INSTALLER_HOST_MIGRATE_PARTS_H

#include <stdbool.h>

#include "installer/host/migrate.h"

bool migrate_is_ambient_chain(const char *chain, enum migrate_place place);
bool migrate_is_sidecar_chain(const char *chain);

/* Looks for the chains in the x_tables of the namespace, and fills in `legacy` and `legacy_command`. */
int migrate_detect_legacy(int netns_fd, enum migrate_place place, struct error *error, struct migrate_found *found);

/* Whether istio-cni's ipsets are there; with `is_removing` they are not afterwards. */
int migrate_ipsets(int netns_fd, bool is_removing, struct error *error, bool *ret_found);

#endif
