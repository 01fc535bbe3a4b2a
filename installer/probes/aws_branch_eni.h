/* AWS security groups for pods. The VPC CNI gives such a pod a branch network interface; on the host, what comes from the pod's
 * veth is routed by a table of that VLAN, and the answers to a kubelet's probe would leave there, towards the VPC, instead of
 * reaching the host. Two policy rules bring probe and answer together:
 *
 *     priority 512       to POD lookup TABLE          where the VPC CNI put the host route of the pod
 *     one before its own iif VETH lookup local        the way back, which a family's addresses of a pod share
 *
 * Where the kernel finds a packet's socket early (net.ipv4.tcp_early_demux), the host's own part of it can't work; the VPC CNI
 * turns that off where probes of such pods are wanted. */
#ifndef AMBIENT_INSTALLER_PROBES_AWS_BRANCH_ENI_H
#define AMBIENT_INSTALLER_PROBES_AWS_BRANCH_ENI_H

#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/object.h"

struct aws_branch_eni;

/* `netns` is the host's network namespace, borrowed for the call, or -1 for our own. */
int aws_branch_eni_open(int netns, struct error *error, struct aws_branch_eni **ret_eni);
void aws_branch_eni_close(struct aws_branch_eni *eni); /* NULL is fine; the rules stay */

/* Adds the rules for an address of a pod where net.ipv4.tcp_early_demux is 0 on the host and the pod has a branch interface;
 * `ret_applies` says whether it has (may be NULL). Idempotent. On a host without branch interfaces that is one look at the
 * policy rules. */
int aws_branch_eni_add(struct aws_branch_eni *eni, const struct pod_address *address, struct error *error, bool *ret_applies);

/* Takes the rule that leads to the address away, also when the veth is gone already, and the way back when no other address of
 * the pod has it any more; and with them the ways back that were left of other pods whose veth is gone. Nothing there is no
 * error. An address that another pod has taken over is not to be removed any more. */
int aws_branch_eni_remove(struct aws_branch_eni *eni, const struct pod_address *address, struct error *error);

/* After the first full list: takes away what an earlier agent added for pods that are gone. `is_enrolled` says whether a pod of
 * the mesh has this address. */
int aws_branch_eni_prune(struct aws_branch_eni *eni, bool (*is_enrolled)(void *data, const struct pod_address *address),
			 void *data, struct error *error);

/* Takes all rules of ours away: an uninstall. */
int aws_branch_eni_remove_all(struct aws_branch_eni *eni, struct error *error);

#endif
