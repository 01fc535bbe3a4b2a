/* What the cluster's policies do to a pod of the mesh, read with a person's rights: waypoints, AuthorizationPolicies,
 * PeerAuthentications, NetworkPolicies. The agent reads none of these. */
#ifndef AMBIENT_INSTALLER_CLI_POLICIES_H
#define AMBIENT_INSTALLER_CLI_POLICIES_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "installer/cli/cluster.h"

/* Of one namespace, and of the mesh's root namespace. */
struct policies {
	const struct installer_config *config; /* borrowed, as the next two */
	struct cluster *cluster;
	const char *namespace_name;
	cJSON *namespace_object;
	/* Lists; NULL: there are none, or may not be read. */
	cJSON *services, *network, *authorization, *root_authorization, *peer, *root_peer;
	/* Gateways that a label has named so far: "NAMESPACE/NAME" with the object, null where it is not there, false where it
	 * may not be read. */
	cJSON *gateways;
	char unread[1024]; /* a sentence on what may not be read; empty: nothing */
};

/* -1 only where the namespace itself can't be read; the rest is told in `unread`. */
int policies_read(struct cluster *cluster, const struct installer_config *config, const char *namespace_name,
		  struct error *error, struct policies *ret_policies);
void policies_clear(struct policies *policies);
#define cleanup_policies __attribute__((cleanup(policies_clear)))

/* One finding: `is_blocked` where traffic of the pod is (or would be) lost that passes without the mesh. */
typedef void (*policy_finding)(void *data, bool is_blocked, const char *kind, const char *text);

/* Of the waypoint that the namespace's label names. */
void policies_of_waypoint(struct policies *policies, policy_finding finding, void *data);
/* Of one pod, an object of the API server; each policy that selects it is named, and the waypoints of its services and its own.
 * Waypoints that a label names are read here: `unread` may grow. */
void policies_of_pod(struct policies *policies, const cJSON *pod, policy_finding finding, void *data);

/* The numbers of the ports that the kubelet probes over the network, each once. Returns how many: at most `max`. */
size_t policies_probe_ports(const cJSON *pod, int *ports, size_t max);

#endif
