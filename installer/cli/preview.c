/* preview: what the label istio.io/dataplane-mode=ambient on a namespace would do, before anybody sets it. Asks the API server
 * with a person's rights, and no agent. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/cluster.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/policies.h"
#include "installer/cli/print.h"
#include "installer/kube/client.h"
#include "installer/mesh/selection.h"

struct preview {
	const struct installer_config *config;
	struct policies policies;
	cJSON *pods;	 /* [{"name", "enters", "isIn", "reason"}] */
	cJSON *findings; /* [{"kind", "blocked", "finding", "pods": []}] */
	const char *pod; /* the one that is looked at; NULL: the namespace */
	size_t enters, blocked;
};

static void preview_clear(struct preview *preview)
{
	policies_clear(&preview->policies);
	cJSON_Delete(preview->pods);
	cJSON_Delete(preview->findings);
}

/* The same finding of several pods is one. */
static void take_finding(void *data, bool is_blocked, const char *kind, const char *text)
{
	struct preview *preview = data;
	cJSON *finding, *found = NULL;
	cJSON_ArrayForEach (finding, preview->findings)
		if (strcmp(json_text(finding, "kind"), kind) == 0 && strcmp(json_text(finding, "finding"), text) == 0)
			found = finding;
	if (!found) {
		found = cJSON_CreateObject();
		cJSON_AddStringToObject(found, "kind", kind);
		cJSON_AddBoolToObject(found, "blocked", is_blocked);
		cJSON_AddStringToObject(found, "finding", text);
		cJSON_AddArrayToObject(found, "pods");
		if (!json_append(preview->findings, found))
			return;
		preview->blocked += is_blocked;
	}
	if (preview->pod)
		json_append(cJSON_GetObjectItemCaseSensitive(found, "pods"), cJSON_CreateString(preview->pod));
}

/* The namespace as it would be. */
static int label_namespace(const struct preview *preview, struct error *error, struct namespace_object **ret_object)
{
	cleanup_cjson cJSON *labelled = cJSON_Duplicate(preview->policies.namespace_object, true);
	cJSON *metadata = cJSON_GetObjectItemCaseSensitive(labelled, "metadata");
	cJSON *labels = cJSON_GetObjectItemCaseSensitive(metadata, "labels");
	if (!cJSON_IsObject(labels)) {
		cJSON_DeleteItemFromObjectCaseSensitive(metadata, "labels");
		labels = cJSON_AddObjectToObject(metadata, "labels");
	}
	cJSON_DeleteItemFromObjectCaseSensitive(labels, LABEL_DATAPLANE_MODE);
	if (!cJSON_AddStringToObject(labels, LABEL_DATAPLANE_MODE, "ambient"))
		return error_set(error, ENOMEM, "cannot look at the namespace");
	return namespace_from_json(labelled, error, ret_object);
}

static int look_at_pods(struct preview *preview, const cJSON *pods, struct error *error)
{
	const struct selection selection = installer_config_selection(preview->config);
	cleanup_namespace struct namespace_object *labelled = NULL;
	const cJSON *json;
	if (label_namespace(preview, error, &labelled) < 0)
		return -1;
	cJSON_ArrayForEach (json, json_at(pods, "items")) {
		cleanup_pod struct pod *pod = NULL;
		struct selection_decision decision;
		if (pod_from_json(json, error, &pod) < 0)
			return -1;
		selection_decide(&selection, pod, labelled, &decision);
		const char *annotation = labels_get(&pod->annotations, ANNOTATION_REDIRECTION);
		cJSON *entry = cJSON_CreateObject();
		cJSON_AddStringToObject(entry, "name", pod->name);
		cJSON_AddBoolToObject(entry, "enters", decision.wanted);
		cJSON_AddBoolToObject(entry, "isIn", annotation && strcmp(annotation, "enabled") == 0);
		cJSON_AddStringToObject(entry, "reason", decision.reason);
		if (!json_append(preview->pods, entry))
			return error_set(error, ENOMEM, "cannot keep what was found");
		preview->enters += decision.wanted;
		preview->pod = pod->name;
		if (decision.wanted)
			policies_of_pod(&preview->policies, json, take_finding, preview);
		preview->pod = NULL;
	}
	return 0;
}

static void print_preview(const struct preview *preview, const char *namespace_name)
{
	const cJSON *entry, *name;
	int total = cJSON_GetArraySize(preview->pods);
	printf("%snamespace %s%s: with label " LABEL_DATAPLANE_MODE "=ambient %zu of %d pods are in the mesh\n",
	       colour_begin(COLOUR_STRONG), namespace_name, colour_end(COLOUR_STRONG), preview->enters, total);
	cJSON_ArrayForEach (entry, preview->pods) {
		bool enters = json_truth(entry, "enters"), is_in = json_truth(entry, "isIn");
		enum colour colour = enters ? COLOUR_GOOD : COLOUR_NONE;
		printf("  %s%-9s%s  %s%s%s\n", colour_begin(colour),
		       !enters ? "stays out"
		       : is_in ? "is in"
			       : "enters",
		       colour_end(colour), json_text(entry, "name"), enters ? "" : ": ",
		       enters ? "" : json_text(entry, "reason"));
	}
	if (cJSON_GetArraySize(preview->findings) > 0)
		printf("\nThen:\n");
	cJSON_ArrayForEach (entry, preview->findings) {
		bool is_blocked = json_truth(entry, "blocked");
		int count = cJSON_GetArraySize(json_at(entry, "pods")), shown = 0;
		printf("  %s%s%s %s%s", colour_begin(is_blocked ? COLOUR_BAD : COLOUR_NONE),
		       is_blocked ? "blocked:" : "policy: ", colour_end(is_blocked ? COLOUR_BAD : COLOUR_NONE),
		       json_text(entry, "kind"), " ");
		printf("%s", json_text(entry, "finding"));
		cJSON_ArrayForEach (name, json_at(entry, "pods")) {
			if (shown++ < 3)
				printf("%s%s", shown == 1 ? " [" : ", ", name->valuestring);
		}
		if (count > 3)
			printf(" and %d more", count - 3);
		puts(count > 0 ? "]" : "");
	}
	if (preview->policies.unread[0])
		printf("\nNot looked at, since it may not be read: %s\n", preview->policies.unread);
	printf("\nTo do it: kubectl label namespace %s " LABEL_DATAPLANE_MODE "=ambient\nTo undo it: kubectl label namespace "
	       "%s " LABEL_DATAPLANE_MODE "-\n",
	       namespace_name, namespace_name);
}

static int print_preview_json(struct preview *preview, const char *namespace_name)
{
	cleanup_cjson cJSON *json = cJSON_CreateObject();
	if (!cJSON_AddStringToObject(json, "namespace", namespace_name) ||
	    !cJSON_AddItemReferenceToObject(json, "pods", preview->pods) ||
	    !cJSON_AddItemReferenceToObject(json, "findings", preview->findings) ||
	    !cJSON_AddStringToObject(json, "unread", preview->policies.unread))
		return -1;
	return print_json(json);
}

static int look(struct preview *preview, const char *kubeconfig, const char *namespace_name, struct error *error)
{
	cleanup_cluster struct cluster *cluster = NULL;
	cleanup_cjson cJSON *pods = NULL;
	cleanup_free char *escaped = kube_escape(namespace_name), *path = NULL;
	if (!escaped || asprintf(&path, "/api/v1/namespaces/%s/pods", escaped) < 0) {
		path = NULL;
		return error_set(error, ENOMEM, "cannot look at namespace %s", namespace_name);
	}
	if (cluster_open(preview->config, kubeconfig, error, &cluster) < 0 ||
	    policies_read(cluster, preview->config, namespace_name, error, &preview->policies) < 0 ||
	    cluster_get(cluster, path, error, &pods) < 0)
		return -1;
	policies_of_waypoint(&preview->policies, take_finding, preview);
	return look_at_pods(preview, pods, error);
}

int command_preview(int argc, char **argv)
{
	bool is_json = false;
	const char *kubeconfig = NULL, *namespace_name = NULL;
	const struct command_option own[] = {
		OPTION_OUTPUT(&is_json),
		OPTION_KUBECONFIG(&kubeconfig),
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	__attribute__((cleanup(preview_clear))) struct preview preview = { .config = &config,
									   .pods = cJSON_CreateArray(),
									   .findings = cJSON_CreateArray() };
	struct error error = { 0 };
	if (options_parse(argc, argv, own, &config_options, &namespace_name) < 0)
		return EXIT_STATUS_USAGE;
	if (!namespace_name || strchr(namespace_name, '/'))
		return command_misused(argv[0], "expected NAMESPACE");
	if (config_options_load_agents(&config_options, &error, &config) < 0 ||
	    look(&preview, kubeconfig, namespace_name, &error) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (is_json) {
		if (print_preview_json(&preview, namespace_name) < 0)
			return EXIT_STATUS_FAILED;
	} else {
		print_preview(&preview, namespace_name);
	}
	return preview.blocked > 0 ? EXIT_STATUS_DIFFERENCE : EXIT_STATUS_DONE;
}
