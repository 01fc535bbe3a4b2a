/* AWS security groups for pods. The VPC CNI gives such a pod a branch network interface; on the host, what comes from the pod's
 * veth is routed by a table of that VLAN, and the answers to a kubelet's probe would leave there, towards the VPC, instead of
 * reaching the host. Two policy rules bring probe and answer together:
 *
 *     priority 512       to POD lookup TABLE          where the VPC CNI put the host route of the pod
 *     one before its own iif VETH lookup local
 *
 * See redirection.md of the contract, and aws-vpc-cni's "POD_SECURITY_GROUP_ENFORCING_MODE". */
#ifndef AMBIENT_INSTALLER_MESH_AWS_BRANCH_ENI_H
#define AMBIENT_INSTALLER_MESH_AWS_BRANCH_ENI_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/mesh/object.h"

struct aws_branch_eni;

/* `netns` is the host's network namespace, borrowed, or -1 for our own. `ret_is_possible`: net.ipv4.tcp_early_demux is 0 there,
 * without which nothing else is ever done. */
int aws_branch_eni_open(int netns, struct error *error, struct aws_branch_eni **ret_eni);
void aws_branch_eni_close(struct aws_branch_eni *eni); /* NULL is fine; the rules stay */

/* Adds the rules for a pod's addresses where the pod has a branch interface; `ret_applies` says whether it has (may be NULL).
 * Idempotent. Reads the policy rules and routes of the host at most once. */
int aws_branch_eni_add(struct aws_branch_eni *eni, const struct pod_address *addresses, size_t count, struct error *error,
		       bool *ret_applies);

/* Takes the rules of these addresses away, also when the veth is gone already. Nothing there is no error. */
int aws_branch_eni_remove(struct aws_branch_eni *eni, const struct pod_address *addresses, size_t count, struct error *error);

/* Takes all rules of ours away: an uninstall. */
int aws_branch_eni_remove_all(struct aws_branch_eni *eni, struct error *error);

#endif
