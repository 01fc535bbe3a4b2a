/* What really gets through to a pod, tried with connections: a NetworkPolicy's engine or a firewall shows in no list that can
 * be read here, so that only a packet tells. */
#ifndef AMBIENT_INSTALLER_CLI_REACH_H
#define AMBIENT_INSTALLER_CLI_REACH_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "installer/cli/admin_client.h"
#include "installer/cli/policies.h"

/* Tries, each with one connection that is closed as soon as it is answered, and all of them at the same time:
 *
 *   - the ports that the kubelet probes (`probe_ports`), from the host's network, with the source address that probes have;
 *   - the tunnel's port 15008, as a peer's tunnel does it, from another pod of the mesh on this node.
 *
 * `pod` is the agent's /pods/NAMESPACE/NAME; nothing is tried unless it is in the mesh and the tunnel listens in it. What was
 * not tried and why is added to `unread`, a sentence of at most `size` bytes. Takes up to 3 s where something is dropped. */
void reach_try(const struct admin *admin, const cJSON *pod, const int *probe_ports, size_t probe_ports_count,
	       policy_finding finding, void *data, char *unread, size_t size);

#endif
