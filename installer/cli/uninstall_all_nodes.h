/* Uninstalling from every node at once: what the chart's pre-delete hook runs, and a person with a kubeconfig may. */
#ifndef AMBIENT_INSTALLER_CLI_UNINSTALL_ALL_NODES_H
#define AMBIENT_INSTALLER_CLI_UNINSTALL_ALL_NODES_H

#include "ambient/error.h"
#include "installer/config.h"

/* Removes our DaemonSet (`installerNamespace`, `daemonSetName`) and waits, at most `seconds`, until the last of its pods has
 * gone: each agent sees that its DaemonSet goes, releases its node's pods and takes plugin and configuration away. A DaemonSet
 * that is not there is success. Failing, the error names the nodes whose agents are still there. Progress is printed. */
int uninstall_all_nodes(const struct installer_config *config, unsigned seconds, struct error *error);

#endif
