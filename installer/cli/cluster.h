/* The API server asked by a command, one question after the other: the client of installer/kube/ with a loop of its own. */
#ifndef AMBIENT_INSTALLER_CLI_CLUSTER_H
#define AMBIENT_INSTALLER_CLI_CLUSTER_H

#include <cjson/cJSON.h>

#include "ambient/error.h"
#include "installer/config.h"

struct cluster;

/* The kubeconfig that kubectl would take, where it is there: $KUBECONFIG's first, or .kube/config at home. malloc'ed; NULL:
 * none. */
char *cluster_kubectls_kubeconfig(void);

/* Whose credentials: `kubeconfig` where it is not NULL, else those of the configuration, else (outside a cluster) what kubectl
 * would take: $KUBECONFIG, or .kube/config at home. */
int cluster_open(const struct installer_config *config, const char *kubeconfig, struct error *error,
		 struct cluster **ret_cluster);
/* Says so, for people: "by /root/.kube/config". */
const char *cluster_whose(const struct cluster *cluster);
void cluster_close(struct cluster *cluster); /* NULL is fine */
void cluster_closep(struct cluster **cluster);
#define cleanup_cluster __attribute__((cleanup(cluster_closep)))

/* GET; -1 unless the answer is a 200 with an object. error->number: ENOENT for a 404, EACCES for 401 and 403. */
int cluster_get(struct cluster *cluster, const char *path, struct error *error, cJSON **ret_object);
/* POST of a review: created, and nothing changes by it. */
int cluster_review(struct cluster *cluster, const char *path, const cJSON *review, struct error *error, cJSON **ret_object);

#endif
