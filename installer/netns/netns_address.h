/* Whether a pod's address is configured in a network namespace: what proves that it is the pod's own. */
#ifndef AMBIENT_INSTALLER_NETNS_NETNS_ADDRESS_H
#define AMBIENT_INSTALLER_NETNS_NETNS_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/object.h"

/* Whether one of the addresses is configured in the namespace, on any interface. */
int netns_has_address(int netns, const struct pod_address *addresses, size_t count, struct error *error, bool *ret_has);

#endif
