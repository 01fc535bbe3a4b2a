/* Inside policies.h: what its parts share. */
#ifndef AMBIENT_INSTALLER_CLI_POLICIES_PARTS_H
#define AMBIENT_INSTALLER_CLI_POLICIES_PARTS_H

#include "installer/cli/policies.h"

/* A list, or one object. What is not there (no such kind in this cluster) leaves NULL; what may not be read is noted in
 * `unread`. */
void policies_read_one(struct policies *policies, const char *what, const char *path, cJSON **ret_object);

__attribute__((format(printf, 5, 6))) void policies_tell(policy_finding finding, void *data, bool is_blocked, const char *kind,
							 const char *format, ...);

/* A Kubernetes label selector, over the labels of any object; one that can't be read is taken to match, so that it is at least
 * named. */
bool policies_select(const cJSON *selector, const cJSON *labelled);

void policies_of_pods_network(const struct policies *policies, const cJSON *pod, policy_finding finding, void *data);
void policies_of_pods_waypoints(struct policies *policies, const cJSON *pod, policy_finding finding, void *data);

#endif
