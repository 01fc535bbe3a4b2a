/* One question after the other. See cluster.h. */
#include "installer/cli/cluster.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/log.h"
#include "installer/kube/client.h"

#define DEADLINE_MILLISECONDS 10000
#define ANSWER_MAX (64UL << 20)

struct cluster {
	struct event_base *base;
	struct kube_client *client;
	struct log log;
	char *kubeconfig;
	char whose[512];

	int status;
	cJSON *object;
	struct error error;
};

/* $KUBECONFIG may be a list, which kubectl merges; its first is taken. */
char *cluster_kubectls_kubeconfig(void)
{
	const char *list = getenv("KUBECONFIG"), *home = getenv("HOME");
	char *path = NULL;
	if (list && list[0])
		path = strndup(list, strcspn(list, ":"));
	else if (home && home[0] && asprintf(&path, "%s/.kube/config", home) < 0)
		path = NULL;
	if (path && access(path, F_OK) < 0) {
		free(path);
		path = NULL;
	}
	return path;
}

static int choose(struct cluster *cluster, const struct installer_config *config, const char *kubeconfig, struct error *error)
{
	if (kubeconfig || config->kubeconfig[0]) {
		cluster->kubeconfig = strdup(kubeconfig ? kubeconfig : config->kubeconfig);
		if (!cluster->kubeconfig)
			return error_set(error, ENOMEM, "cannot keep the kubeconfig's path");
	} else if (!config->kubernetes_service_host[0]) {
		cluster->kubeconfig = cluster_kubectls_kubeconfig();
		if (!cluster->kubeconfig)
			return error_say(error, ENOENT,
					 "there are no credentials for the API server: this is no pod, and there is no "
					 "kubeconfig (--kubeconfig PATH, or $KUBECONFIG)");
	}
	if (cluster->kubeconfig)
		snprintf(cluster->whose, sizeof cluster->whose, "by %s", cluster->kubeconfig);
	else
		snprintf(cluster->whose, sizeof cluster->whose, "by this pod's service account");
	return 0;
}

int cluster_open(const struct installer_config *config, const char *kubeconfig, struct error *error,
		 struct cluster **ret_cluster)
{
	struct cluster *cluster = calloc(1, sizeof *cluster);
	if (!cluster)
		return error_set(error, ENOMEM, "cannot ask the API server");
	cluster->log = (struct log){ .fd = STDERR_FILENO, .level = LOG_LEVEL_ERROR, .program = "ambient-installer" };
	cluster->base = event_base_new();
	if (!cluster->base) {
		error_set(error, ENOMEM, "cannot ask the API server");
	} else if (choose(cluster, config, kubeconfig, error) == 0) {
		const struct kube_client_options options = {
			.origin = { .kubeconfig = cluster->kubeconfig,
				    .service_host = config->kubernetes_service_host,
				    .service_port = config->kubernetes_service_port },
			.log = &cluster->log,
			.connections_max = 1,
		};
		if (kube_client_new(cluster->base, &options, error, &cluster->client) == 0) {
			*ret_cluster = cluster;
			return 0;
		}
	}
	cluster_close(cluster);
	return -1;
}

const char *cluster_whose(const struct cluster *cluster)
{
	return cluster->whose;
}

void cluster_close(struct cluster *cluster)
{
	if (!cluster)
		return;
	kube_client_free(cluster->client);
	if (cluster->base)
		event_base_free(cluster->base);
	cJSON_Delete(cluster->object);
	free(cluster->kubeconfig);
	free(cluster);
}

void cluster_closep(struct cluster **cluster)
{
	cluster_close(*cluster);
}

static void answered(void *data, int status, const cJSON *object, const struct error *error)
{
	struct cluster *cluster = data;
	cluster->status = status;
	cluster->object = status / 100 == 2 && object ? cJSON_Duplicate(object, true) : NULL;
	if (status / 100 != 2)
		cluster->error = *error;
	else if (!cluster->object)
		error_set(&cluster->error, EPROTO, "the API server's answer is no object");
	event_base_loopbreak(cluster->base);
}

static int ask(struct cluster *cluster, const struct kube_call *call, struct error *error, cJSON **ret_object)
{
	struct kube_request *request = NULL;
	cluster->error = (struct error){ 0 };
	if (kube_client_request(cluster->client, call, answered, cluster, error, &request) < 0)
		return -1;
	event_base_dispatch(cluster->base);
	if (cluster->object) {
		*ret_object = steal_pointer(cluster->object);
		return 0;
	}
	if (error)
		*error = cluster->error;
	if (error && cluster->status == 404)
		error->number = ENOENT;
	else if (error && (cluster->status == 401 || cluster->status == 403))
		error->number = EACCES;
	return -1;
}

int cluster_get(struct cluster *cluster, const char *path, struct error *error, cJSON **ret_object)
{
	const struct kube_call call = {
		.method = KUBE_GET,
		.path = path,
		.response_limit = ANSWER_MAX,
		.deadline_milliseconds = DEADLINE_MILLISECONDS,
	};
	return ask(cluster, &call, error, ret_object);
}

int cluster_review(struct cluster *cluster, const char *path, const cJSON *review, struct error *error, cJSON **ret_object)
{
	cleanup_free char *body = cJSON_PrintUnformatted(review);
	if (!body)
		return error_set(error, ENOMEM, "cannot ask the API server");
	const struct kube_call call = {
		.method = KUBE_POST,
		.path = path,
		.body = body,
		.deadline_milliseconds = DEADLINE_MILLISECONDS,
	};
	return ask(cluster, &call, error, ret_object);
}
