/* The agent of this node, its tunnel, the API server. See doctor.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/admin_client.h"
#include "installer/cli/doctor.h"
#include "installer/cli/print.h"
#include "installer/kube/client.h"
#include "installer/observe/observe.h"

static void look_at_tunnel(struct report *report, const cJSON *agent)
{
	const char *path = report->config->tunnel_socket;
	char advice[512];
	snprintf(advice, sizeof advice, "kubectl get pods -n %s -l app=ztunnel -o wide --field-selector spec.nodeName=%s",
		 report->config->system_namespace, report->config->node_name);
	if (cJSON_GetArraySize(json_at(agent, "tunnel.connections")) > 0)
		report_add(report, VERDICT_WELL, "tunnel", NULL, "connected at %s", path);
	else
		report_add(report, VERDICT_PROBLEM, "tunnel", advice,
			   "none is connected at %s: it dials after its first configuration from istiod, and by its "
			   "ZTUNNEL_UDS_ADDRESS",
			   path);
}

static void look_for_tunnel_socket(struct report *report)
{
	const char *path = report->config->tunnel_socket;
	struct stat status;
	if (lstat(path, &status) == 0 && S_ISSOCK(status.st_mode))
		report_add(
			report, VERDICT_NOTE, "tunnel", NULL,
			"%s is there: another agent's (an istio-cni?), or left over; our agent takes its place when it starts",
			path);
	else if (lstat(path, &status) == 0)
		report_add(report, VERDICT_NOTE, "tunnel", NULL, "%s is there and is no socket; our agent replaces it", path);
	else
		report_add(report, VERDICT_WELL, "tunnel", NULL, "%s is not there yet; the agent makes it", path);
}

void doctor_agent(struct report *report)
{
	cleanup_free char *socket = NULL;
	cleanup_cjson cJSON *agent = NULL;
	struct error error = { 0 };
	if (asprintf(&socket, "%s/" OBSERVE_ADMIN_SOCKET, report->config->run_dir) < 0) {
		socket = NULL;
		return;
	}
	const struct admin admin = { .socket = socket };
	if (admin_get(&admin, "/status", &error, &agent) < 0) {
		report_add(report, VERDICT_NOTE, "agent", NULL, "%s",
			   error.number == ECONNREFUSED ? "it does not run on this node (yet)" : error.message);
		look_for_tunnel_socket(report);
		return;
	}
	if (json_truth(agent, "ready"))
		report_add(report, VERDICT_WELL, "agent", NULL, "version %s runs on %s and is ready",
			   json_text(agent, "version"), json_text(agent, "node"));
	else
		report_add(report, VERDICT_PROBLEM, "agent", "ambient-installer status", "version %s runs and is not ready: %s",
			   json_text(agent, "version"), json_text(agent, "reason"));
	look_at_tunnel(report, agent);
}

/* What the agent does at the API server, as its ClusterRole and Role have it. */
static const struct right {
	const char *verb, *group, *resource, *subresource;
	bool in_our_namespace;
	const char *why;
} rights[] = {
	{ "list", "", "pods", "", false, "to know this node's pods" },
	{ "watch", "", "pods", "", false, "to know this node's pods" },
	{ "patch", "", "pods", "status", false, "to write the annotation that peers act on" },
	{ "list", "", "namespaces", "", false, "to know their labels" },
	{ "watch", "", "namespaces", "", false, "to know their labels" },
	{ "create", "", "events", "", false, "to tell what happened" },
	{ "get", "apps", "daemonsets", "", true, "to tell an upgrade from an uninstall" },
};

/* 1, 0; -1: it can't be asked. */
static int may(struct cluster *cluster, const struct report *report, const struct right *right, struct error *error)
{
	cleanup_cjson cJSON *review = cJSON_CreateObject(), *answer = NULL;
	cJSON_AddStringToObject(review, "apiVersion", "authorization.k8s.io/v1");
	cJSON_AddStringToObject(review, "kind", "SelfSubjectAccessReview");
	cJSON *spec = cJSON_AddObjectToObject(review, "spec");
	cJSON *attributes = cJSON_AddObjectToObject(spec, "resourceAttributes");
	cJSON_AddStringToObject(attributes, "verb", right->verb);
	cJSON_AddStringToObject(attributes, "group", right->group);
	cJSON_AddStringToObject(attributes, "resource", right->resource);
	cJSON_AddStringToObject(attributes, "subresource", right->subresource);
	if (right->in_our_namespace)
		cJSON_AddStringToObject(attributes, "namespace", report->config->installer_namespace);
	if (cluster_review(cluster, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review, error, &answer) < 0)
		return -1;
	return json_truth(answer, "status.allowed");
}

static void look_at_rights(struct report *report, struct cluster *cluster)
{
	bool has_all = true;
	for (size_t i = 0; i < sizeof rights / sizeof rights[0]; i++) {
		struct error error = { 0 };
		int allowed = may(cluster, report, &rights[i], &error);
		if (allowed > 0)
			continue;
		has_all = false;
		if (allowed < 0 && error.number == EACCES)
			return; /* we are nobody there: told already */
		if (allowed < 0) {
			report_add(report, VERDICT_NOTE, "API server", NULL, "what is allowed can't be asked: %s",
				   error.message);
			return;
		}
		report_add(report, VERDICT_PROBLEM, "API server",
			   "install the chart's ClusterRole and Role (whole: no other release "
			   "may own them)",
			   "%s %s%s%s is not allowed, and is needed %s", rights[i].verb, rights[i].resource,
			   rights[i].subresource[0] ? "/" : "", rights[i].subresource, rights[i].why);
	}
	if (has_all)
		report_add(report, VERDICT_WELL, "API server", NULL, "all that the agent does there is allowed");
}

/* istio-cni served such pods, and we don't: a container of theirs waits for rules that nobody makes. */
static bool needs_sidecar_rules(const cJSON *pod)
{
	const cJSON *container;
	bool validates = false, makes_rules = false;
	cJSON_ArrayForEach (container, json_at(pod, "spec.initContainers")) {
		validates |= strcmp(json_text(container, "name"), "istio-validation") == 0;
		makes_rules |= strcmp(json_text(container, "name"), "istio-init") == 0;
	}
	return validates && !makes_rules;
}

static void look_at_sidecars(struct report *report, const cJSON *pods)
{
	const cJSON *pod;
	size_t count = 0;
	char first[600] = "";
	cJSON_ArrayForEach (pod, json_at(pods, "items")) {
		if (needs_sidecar_rules(pod) && count++ == 0)
			snprintf(first, sizeof first, "%s/%s", json_text(pod, "metadata.namespace"),
				 json_text(pod, "metadata.name"));
	}
	if (count > 0)
		report_add(report, VERDICT_PROBLEM, "sidecars",
			   "inject them with istio-init (istiod: pilot.cni.enabled=false), or move them to ambient, before "
			   "istio-cni goes",
			   "%zu pods of this node, %s first, have a sidecar that istio-cni makes the rules for: without it "
			   "their next start fails in the init container istio-validation",
			   count, first);
}

static void look_at_ztunnel(struct report *report, const cJSON *pods)
{
	const cJSON *pod;
	cJSON_ArrayForEach (pod, json_at(pods, "items")) {
		const cJSON *app = cJSON_GetObjectItemCaseSensitive(json_at(pod, "metadata.labels"), "app");
		if (!cJSON_IsString(app) || strcmp(app->valuestring, "ztunnel") != 0 ||
		    strcmp(json_text(pod, "metadata.namespace"), report->config->system_namespace) != 0)
			continue;
		report_add(report, VERDICT_WELL, "ztunnel", NULL, "%s is on this node, phase %s",
			   json_text(pod, "metadata.name"), json_text(pod, "status.phase"));
		return;
	}
	report_add(report, VERDICT_NOTE, "ztunnel", "install ztunnel (istioctl, or its chart)",
		   "there is none on node %s in %s: pods of the mesh wait for one", report->config->node_name,
		   report->config->system_namespace);
}

void doctor_api(struct report *report)
{
	cleanup_cluster struct cluster *cluster = NULL;
	cleanup_cjson cJSON *pods = NULL;
	cleanup_free char *node = kube_escape(report->config->node_name), *path = NULL;
	struct error error = { 0 };
	if (report->config->source == INSTALLER_SOURCE_FOLDER && !report->kubeconfig)
		return;
	if (cluster_open(report->config, report->kubeconfig, &error, &cluster) < 0) {
		report_add(report, error.number == ENOENT ? VERDICT_NOTE : VERDICT_PROBLEM, "API server", NULL, "%s",
			   error.message);
		return;
	}
	if (!node || asprintf(&path, "/api/v1/pods?fieldSelector=spec.nodeName%%3D%s", node) < 0) {
		path = NULL;
		return;
	}
	if (cluster_get(cluster, path, &error, &pods) < 0) {
		report_add(report, VERDICT_PROBLEM, "API server",
			   error.number == EACCES ? "install the chart's ClusterRole and ServiceAccount"
						  : "is the address right, and the "
						    "way to it open?",
			   "asked %s: %s", cluster_whose(cluster), error.message);
		if (error.number != EACCES)
			return;
	} else {
		report_add(report, VERDICT_WELL, "API server", NULL, "answers (asked %s): %d pods on node %s",
			   cluster_whose(cluster), cJSON_GetArraySize(json_at(pods, "items")), report->config->node_name);
	}
	look_at_rights(report, cluster);
	if (pods) {
		look_at_ztunnel(report, pods);
		look_at_sidecars(report, pods);
	}
}
