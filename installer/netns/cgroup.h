/* The pod that a process's cgroup names.
 *
 * The kubelet names a pod's cgroup by the pod's uid, whatever runs the containers below it:
 *
 *   cgroupfs driver   /kubepods/burstable/pod3c1e6c1a-…/CONTAINER
 *   systemd driver    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod3c1e6c1a_….slice/cri-containerd-ID.scope
 *   mixed             /system.slice/containerd.service/kubepods-burstable-pod3c1e6c1a_….slice:cri-containerd:ID
 *   static pods       …/pod0123456789abcdef0123456789abcdef/…
 *
 * in one line (cgroup v2) or one for each hierarchy (v1), perhaps below /kubelet or the like. So a pod is named by a component
 * that is `pod`UID or ends in `-pod`UID, before .slice or a colon. The first such component counts: what stands below it the
 * pod may have made itself, and a name there must not make one pod's process another's. */
#ifndef AMBIENT_INSTALLER_NETNS_CGROUP_H
#define AMBIENT_INSTALLER_NETNS_CGROUP_H

#include <stddef.h>

/* The uid in the text of a /proc/PID/cgroup: its length and where it begins, as it is written there. 0 where no line names one,
 * or two lines name different pods. */
size_t cgroup_find_uid(const char *text, const char **ret_uid);

/* Compares a uid as it is written in a cgroup, [token, token + length), with a pod's. 0: the same; else an order for searching,
 * which is not strcmp's. */
int cgroup_compare_uid(const char *token, size_t length, const char *uid);

#endif
