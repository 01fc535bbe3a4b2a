/* Policies as they concern a pod of the mesh: what is read, and Istio's own kinds. See policies.h; policies_network.c and
 * policies_waypoint.c have the rest.
 *
 * ztunnel enforces AuthorizationPolicies that select the pod,
 * as far as they speak of connections: what they say of HTTP needs a waypoint, and a rule that ALLOWs by HTTP allows nothing
 * without one. Policies with targetRefs are enforced by the waypoint, and by nobody where there is none. */
#include "installer/cli/policies.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/policies_parts.h"
#include "installer/cli/print.h"
#include "installer/kube/client.h"
#include "installer/object.h"
#include "installer/mesh/selection.h"

void policies_read_one(struct policies *policies, const char *what, const char *path, cJSON **ret_object)
{
	struct error error = { 0 };
	size_t length = strlen(policies->unread);
	if (cluster_get(policies->cluster, path, &error, ret_object) < 0 && error.number != ENOENT)
		snprintf(policies->unread + length, sizeof policies->unread - length, "%s%s (%.200s)", length ? ", " : "", what,
			 error.message);
}

int policies_read(struct cluster *cluster, const struct installer_config *config, const char *namespace_name,
		  struct error *error, struct policies *ret_policies)
{
	struct policies policies = {
		.config = config, .cluster = cluster, .namespace_name = namespace_name, .gateways = cJSON_CreateObject()
	};
	cleanup_free char *escaped = kube_escape(namespace_name), *root = kube_escape(config->system_namespace);
	const struct {
		const char *what, *group, *place, *plural;
		cJSON **list;
	} kinds[] = {
		{ "Services", "api", escaped, "services", &policies.services },
		{ "NetworkPolicies", "apis/networking.k8s.io", escaped, "networkpolicies", &policies.network },
		{ "AuthorizationPolicies", "apis/security.istio.io", escaped, "authorizationpolicies",
		  &policies.authorization },
		{ "PeerAuthentications", "apis/security.istio.io", escaped, "peerauthentications", &policies.peer },
		{ "the mesh's AuthorizationPolicies", "apis/security.istio.io", root, "authorizationpolicies",
		  &policies.root_authorization },
		{ "the mesh's PeerAuthentications", "apis/security.istio.io", root, "peerauthentications",
		  &policies.root_peer },
	};
	char path[1024];
	if (!escaped || !root || !policies.gateways) {
		policies_clear(&policies);
		return error_set(error, ENOMEM, "cannot read policies");
	}
	snprintf(path, sizeof path, "/api/v1/namespaces/%s", escaped);
	if (cluster_get(cluster, path, error, &policies.namespace_object) < 0) {
		policies_clear(&policies);
		return error_wrap(error, "namespace %s", namespace_name);
	}
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		if (kinds[i].place == root && strcmp(namespace_name, config->system_namespace) == 0)
			continue;
		snprintf(path, sizeof path, "/%s/v1/namespaces/%s/%s", kinds[i].group, kinds[i].place, kinds[i].plural);
		policies_read_one(&policies, kinds[i].what, path, kinds[i].list);
	}
	*ret_policies = policies;
	return 0;
}

void policies_clear(struct policies *policies)
{
	cJSON *objects[] = { policies->namespace_object,   policies->network, policies->authorization,
			     policies->root_authorization, policies->peer,    policies->root_peer,
			     policies->services,	   policies->gateways };
	for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++)
		cJSON_Delete(objects[i]);
	*policies = (struct policies){ 0 };
}

void policies_tell(policy_finding finding, void *data, bool is_blocked, const char *kind, const char *format, ...)
{
	char text[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	finding(data, is_blocked, kind, text);
}

bool policies_select(const cJSON *selector, const cJSON *labelled)
{
	cleanup_cjson cJSON *list = cJSON_CreateArray();
	struct enablement_selectors selectors = { 0 };
	struct error error = { 0 };
	cleanup_namespace struct namespace_object *object = NULL; /* as good as any that has labels */
	bool does_match = true;
	if (!selector || cJSON_GetArraySize(selector) == 0)
		return true;
	cJSON *item = cJSON_CreateObject();
	cJSON_AddItemToObject(item, "podSelector", cJSON_Duplicate(selector, true));
	if (!json_append(list, item) || enablement_selectors_from_json(list, "selector", &error, &selectors) < 0)
		return true;
	if (namespace_from_json(labelled, &error, &object) == 0)
		does_match = selector_matches(&selectors.items[0].pod, &object->labels);
	enablement_selectors_clear(&selectors);
	return does_match;
}

/* Whether it speaks of HTTP, which only a waypoint sees. */
static bool needs_waypoint(const cJSON *policy)
{
	static const char *const operations[] = { "methods", "notMethods", "paths", "notPaths", "hosts", "notHosts" };
	static const char *const sources[] = { "requestPrincipals", "notRequestPrincipals" };
	const cJSON *rule, *entry;
	cJSON_ArrayForEach (rule, json_at(policy, "spec.rules")) {
		cJSON_ArrayForEach (entry, json_at(rule, "to"))
			for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
				if (cJSON_GetObjectItemCaseSensitive(json_at(entry, "operation"), operations[i]))
					return true;
		cJSON_ArrayForEach (entry, json_at(rule, "from"))
			for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
				if (cJSON_GetObjectItemCaseSensitive(json_at(entry, "source"), sources[i]))
					return true;
		cJSON_ArrayForEach (entry, json_at(rule, "when"))
			if (strncmp(json_text(entry, "key"), "request.", strlen("request.")) == 0)
				return true;
	}
	return false;
}

static void authorization_policies(const cJSON *list, const cJSON *pod, policy_finding finding, void *data)
{
	const cJSON *policy;
	cJSON_ArrayForEach (policy, json_at(list, "items")) {
		const char *action = json_text(policy, "spec.action");
		bool is_allow = !action[0] || strcmp(action, "ALLOW") == 0, is_deny = strcmp(action, "DENY") == 0;
		bool needs = needs_waypoint(policy), is_empty = cJSON_GetArraySize(json_at(policy, "spec.rules")) == 0;
		if (json_at(policy, "spec.targetRefs") || json_at(policy, "spec.targetRef") ||
		    !policies_select(json_at(policy, "spec.selector"), pod))
			continue;
		const char *meaning =
			is_allow && is_empty ? ": it allows nothing, so everything is refused"
			: is_allow && needs
				? ": it allows by HTTP, which ztunnel does not see: those rules allow nothing; bind it to a "
				  "waypoint by targetRefs"
			: is_allow ? ": connections that no rule of it allows are refused"
			: is_deny && needs
				? ": it denies by HTTP, which ztunnel does not see: it refuses more than it says; bind it to a "
				  "waypoint by targetRefs"
			: is_deny ? ": connections that it names are refused"
				  : ": ztunnel does not know this action";
		policies_tell(finding, data, (is_allow && (needs || is_empty)) || (is_deny && needs), "AuthorizationPolicy",
			      "%s/%s (%s)%s", json_text(policy, "metadata.namespace"), json_text(policy, "metadata.name"),
			      is_allow ? "ALLOW" : action, meaning);
	}
}

/* The nearest one counts: of the pod, then the namespace, then the mesh. */
static void peer_authentication(const struct policies *policies, const cJSON *pod, policy_finding finding, void *data)
{
	const cJSON *lists[] = { policies->peer, policies->root_peer }, *found = NULL, *policy;
	for (size_t i = 0; i < sizeof lists / sizeof lists[0] && !found; i++) {
		cJSON_ArrayForEach (policy, json_at(lists[i], "items")) {
			bool is_general = cJSON_GetArraySize(json_at(policy, "spec.selector")) == 0;
			if ((is_general && found) || !policies_select(json_at(policy, "spec.selector"), pod))
				continue;
			found = policy;
		}
	}
	if (found && strcmp(json_text(found, "spec.mtls.mode"), "STRICT") == 0)
		policies_tell(finding, data, false, "PeerAuthentication",
			      "%s/%s is STRICT: clients outside the mesh are refused (the node's probes are not)",
			      json_text(found, "metadata.namespace"), json_text(found, "metadata.name"));
}

void policies_of_pod(struct policies *policies, const cJSON *pod, policy_finding finding, void *data)
{
	authorization_policies(policies->root_authorization, pod, finding, data);
	authorization_policies(policies->authorization, pod, finding, data);
	peer_authentication(policies, pod, finding, data);
	policies_of_pods_network(policies, pod, finding, data);
	policies_of_pods_waypoints(policies, pod, finding, data);
}
