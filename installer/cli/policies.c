/* Policies as they concern a pod of the mesh. See policies.h.
 *
 * Between pods of the mesh everything travels in TCP to port 15008 of the destination, so a NetworkPolicy sees that port and no
 * other; and the node's probes come from the host's probe address. ztunnel enforces AuthorizationPolicies that select the pod,
 * as far as they speak of connections: what they say of HTTP needs a waypoint, and a rule that ALLOWs by HTTP allows nothing
 * without one. Policies with targetRefs are the waypoint's. */
#include "installer/cli/policies.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/print.h"
#include "installer/kube/client.h"
#include "installer/mesh/object.h"
#include "installer/mesh/selection.h"

#define HBONE 15008
#define WAYPOINT_LABEL "istio.io/use-waypoint"
#define WAYPOINT_NAMESPACE_LABEL "istio.io/use-waypoint-namespace"

static const char *label_of(const cJSON *object, const char *key)
{
	const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json_at(object, "metadata.labels"), key));
	return value ? value : "";
}

/* A list, or one object. What is not there (no such kind in this cluster) leaves NULL; what may not be read is noted. */
static void read_one(struct cluster *cluster, struct policies *policies, const char *what, const char *path, cJSON **ret_object)
{
	struct error error = { 0 };
	size_t length = strlen(policies->unread);
	if (cluster_get(cluster, path, &error, ret_object) < 0 && error.number != ENOENT)
		snprintf(policies->unread + length, sizeof policies->unread - length, "%s%s (%.200s)", length ? ", " : "", what,
			 error.message);
}

static void read_waypoint(struct cluster *cluster, struct policies *policies)
{
	const char *name = label_of(policies->namespace_object, WAYPOINT_LABEL);
	const char *where = label_of(policies->namespace_object, WAYPOINT_NAMESPACE_LABEL);
	cleanup_free char *path = NULL, *escaped = kube_escape(name);
	if (!name[0] || strcmp(name, "none") == 0)
		return;
	snprintf(policies->waypoint_name, sizeof policies->waypoint_name, "%s", name);
	snprintf(policies->waypoint_namespace, sizeof policies->waypoint_namespace, "%s",
		 where[0] ? where : policies->namespace_name);
	cleanup_free char *place = kube_escape(policies->waypoint_namespace);
	if (!escaped || !place ||
	    asprintf(&path, "/apis/gateway.networking.k8s.io/v1/namespaces/%s/gateways/%s", place, escaped) < 0) {
		path = NULL;
		return;
	}
	read_one(cluster, policies, "the waypoint", path, &policies->waypoint);
}

int policies_read(struct cluster *cluster, const struct installer_config *config, const char *namespace_name,
		  struct error *error, struct policies *ret_policies)
{
	struct policies policies = { .config = config, .namespace_name = namespace_name };
	cleanup_free char *escaped = kube_escape(namespace_name), *root = kube_escape(config->system_namespace);
	const struct {
		const char *what, *group, *place, *plural;
		cJSON **list;
	} kinds[] = {
		{ "NetworkPolicies", "networking.k8s.io", escaped, "networkpolicies", &policies.network },
		{ "AuthorizationPolicies", "security.istio.io", escaped, "authorizationpolicies", &policies.authorization },
		{ "PeerAuthentications", "security.istio.io", escaped, "peerauthentications", &policies.peer },
		{ "the mesh's AuthorizationPolicies", "security.istio.io", root, "authorizationpolicies",
		  &policies.root_authorization },
		{ "the mesh's PeerAuthentications", "security.istio.io", root, "peerauthentications", &policies.root_peer },
	};
	char path[1024];
	if (!escaped || !root)
		return error_set(error, ENOMEM, "cannot read policies");
	snprintf(path, sizeof path, "/api/v1/namespaces/%s", escaped);
	if (cluster_get(cluster, path, error, &policies.namespace_object) < 0)
		return error_wrap(error, "namespace %s", namespace_name);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		if (kinds[i].place == root && strcmp(namespace_name, config->system_namespace) == 0)
			continue;
		snprintf(path, sizeof path, "/apis/%s/v1/namespaces/%s/%s", kinds[i].group, kinds[i].place, kinds[i].plural);
		read_one(cluster, &policies, kinds[i].what, path, kinds[i].list);
	}
	read_waypoint(cluster, &policies);
	*ret_policies = policies;
	return 0;
}

void policies_clear(struct policies *policies)
{
	cJSON *objects[] = { policies->namespace_object,
			     policies->network,
			     policies->authorization,
			     policies->root_authorization,
			     policies->peer,
			     policies->root_peer,
			     policies->waypoint };
	for (size_t i = 0; i < sizeof objects / sizeof objects[0]; i++)
		cJSON_Delete(objects[i]);
	*policies = (struct policies){ 0 };
}

__attribute__((format(printf, 5, 6))) static void tell(policy_finding finding, void *data, bool is_blocked, const char *kind,
						       const char *format, ...)
{
	char text[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	finding(data, is_blocked, kind, text);
}

/* A Kubernetes label selector; one that can't be read is taken to match, so that it is at least named. */
static bool selects(const cJSON *selector, const cJSON *pod)
{
	cleanup_cjson cJSON *list = cJSON_CreateArray();
	struct enablement_selectors selectors = { 0 };
	struct error error = { 0 };
	cleanup_pod struct pod *object = NULL;
	bool does_match = true;
	if (!selector || cJSON_GetArraySize(selector) == 0)
		return true;
	cJSON *item = cJSON_CreateObject();
	cJSON_AddItemToObject(item, "podSelector", cJSON_Duplicate(selector, true));
	if (!json_append(list, item) || enablement_selectors_from_json(list, "selector", &error, &selectors) < 0)
		return true;
	if (pod_from_json(pod, &error, &object) == 0)
		does_match = selector_matches(&selectors.items[0].pod, &object->labels);
	enablement_selectors_clear(&selectors);
	return does_match;
}

/* Of a NetworkPolicy's rule: no ports at all means every port. */
static bool port_passes(const cJSON *rule, int port)
{
	const cJSON *ports = cJSON_GetObjectItemCaseSensitive(rule, "ports"), *entry;
	if (cJSON_GetArraySize(ports) == 0)
		return true;
	cJSON_ArrayForEach (entry, ports) {
		const char *protocol = json_text(entry, "protocol");
		const cJSON *first = cJSON_GetObjectItemCaseSensitive(entry, "port");
		double last = json_number(entry, "endPort");
		if (protocol[0] && strcmp(protocol, "TCP") != 0)
			continue;
		if (!first ||
		    (cJSON_IsNumber(first) && (first->valuedouble == port || (first->valuedouble <= port && port <= last))))
			return true;
	}
	return false;
}

static bool range_holds(const char *range, struct in_addr address)
{
	char text[INET_ADDRSTRLEN + 1] = "";
	struct in_addr network;
	const char *slash = strchr(range, '/');
	size_t length = slash ? (size_t)(slash - range) : 0;
	if (!slash || length >= sizeof text)
		return false;
	memcpy(text, range, length);
	int bits = atoi(slash + 1);
	if (inet_pton(AF_INET, text, &network) != 1 || bits < 0 || bits > 32)
		return false;
	return bits == 0 || (ntohl(network.s_addr) ^ ntohl(address.s_addr)) >> (32 - bits) == 0;
}

/* Whether the node's probes pass: they come from an address that no selector of pods or namespaces can name. */
static bool probe_passes(const struct policies *policies, const cJSON *rule)
{
	const cJSON *from = cJSON_GetObjectItemCaseSensitive(rule, "from"), *peer;
	if (cJSON_GetArraySize(from) == 0)
		return true;
	cJSON_ArrayForEach (peer, from)
		if (range_holds(json_text(peer, "ipBlock.cidr"), policies->config->redirect.host_probe_ipv4))
			return true;
	return false;
}

static bool is_of_type(const cJSON *policy, const char *type)
{
	const cJSON *types = json_at(policy, "spec.policyTypes"), *entry;
	if (cJSON_GetArraySize(types) == 0)
		return strcmp(type, "Ingress") == 0 || json_at(policy, "spec.egress");
	cJSON_ArrayForEach (entry, types)
		if (cJSON_IsString(entry) && strcmp(entry->valuestring, type) == 0)
			return true;
	return false;
}

/* Probes over the network; an exec probe needs none. */
static bool has_probes(const cJSON *pod)
{
	static const char *const probes[] = { "livenessProbe", "readinessProbe", "startupProbe" };
	static const char *const kinds[] = { "httpGet", "tcpSocket", "grpc" };
	const cJSON *container;
	cJSON_ArrayForEach (container, json_at(pod, "spec.containers"))
		for (size_t probe = 0; probe < sizeof probes / sizeof probes[0]; probe++)
			for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++)
				if (cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(container, probes[probe]),
								     kinds[kind]))
					return true;
	return false;
}

/* NetworkPolicies add up: what one of them lets pass, passes. */
static void network_policies(const struct policies *policies, const cJSON *pod, const char *type, const char *rules,
			     policy_finding finding, void *data)
{
	const cJSON *policy, *rule;
	char names[1024] = "", probe[INET_ADDRSTRLEN];
	bool selected = false, tunnel = false, tunnel_from_some = false, probed = false;
	bool is_ingress = strcmp(type, "Ingress") == 0;
	cJSON_ArrayForEach (policy, json_at(policies->network, "items")) {
		size_t length = strlen(names);
		if (!is_of_type(policy, type) || !selects(json_at(policy, "spec.podSelector"), pod))
			continue;
		snprintf(names + length, sizeof names - length, "%s%s", selected ? ", " : "",
			 json_text(policy, "metadata.name"));
		selected = true;
		cJSON_ArrayForEach (rule, json_at(policy, rules)) {
			bool from_all =
				cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(rule, is_ingress ? "from" : "to")) == 0;
			tunnel |= port_passes(rule, HBONE) && from_all;
			tunnel_from_some |= port_passes(rule, HBONE) && !from_all;
			probed |= probe_passes(policies, rule);
		}
	}
	if (!selected)
		return;
	if (!tunnel && !tunnel_from_some)
		tell(finding, data, true, "NetworkPolicy",
		     "%s let%s no TCP %d %s: the mesh's connections are blocked; allow that port", names,
		     strchr(names, ',') ? "" : "s", HBONE, is_ingress ? "in" : "out");
	else
		tell(finding, data, false, "NetworkPolicy", "%s let%s TCP %d %s%s", names, strchr(names, ',') ? "" : "s", HBONE,
		     is_ingress ? "in" : "out", tunnel ? "" : ", for some peers only");
	if (is_ingress && !probed && has_probes(pod))
		tell(finding, data, true, "NetworkPolicy",
		     "%s let%s nothing in from %s, where the node's probes come from: allow ipBlock %s/32", names,
		     strchr(names, ',') ? "" : "s",
		     inet_ntop(AF_INET, &policies->config->redirect.host_probe_ipv4, probe, sizeof probe), probe);
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
		    !selects(json_at(policy, "spec.selector"), pod))
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
		tell(finding, data, (is_allow && (needs || is_empty)) || (is_deny && needs), "AuthorizationPolicy",
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
			if ((is_general && found) || !selects(json_at(policy, "spec.selector"), pod))
				continue;
			found = policy;
		}
	}
	if (found && strcmp(json_text(found, "spec.mtls.mode"), "STRICT") == 0)
		tell(finding, data, false, "PeerAuthentication",
		     "%s/%s is STRICT: clients outside the mesh are refused (the node's probes are not)",
		     json_text(found, "metadata.namespace"), json_text(found, "metadata.name"));
}

void policies_of_waypoint(const struct policies *policies, policy_finding finding, void *data)
{
	const cJSON *condition;
	bool is_programmed = false;
	if (!policies->waypoint_name[0])
		return;
	if (!policies->waypoint) {
		if (!strstr(policies->unread, "the waypoint"))
			tell(finding, data, true, "waypoint",
			     "label " WAYPOINT_LABEL
			     " names Gateway %s/%s, which is not there: what should pass through it goes direct, "
			     "past its policies",
			     policies->waypoint_namespace, policies->waypoint_name);
		return;
	}
	cJSON_ArrayForEach (condition, json_at(policies->waypoint, "status.conditions"))
		is_programmed |= strcmp(json_text(condition, "type"), "Programmed") == 0 &&
				 strcmp(json_text(condition, "status"), "True") == 0;
	tell(finding, data, !is_programmed, "waypoint", "Gateway %s/%s (%s) is %s", policies->waypoint_namespace,
	     policies->waypoint_name, json_text(policies->waypoint, "spec.gatewayClassName"),
	     is_programmed ? "there and programmed" : "there and not programmed: kubectl describe gateway says why");
}

void policies_of_pod(const struct policies *policies, const cJSON *pod, policy_finding finding, void *data)
{
	authorization_policies(policies->root_authorization, pod, finding, data);
	authorization_policies(policies->authorization, pod, finding, data);
	peer_authentication(policies, pod, finding, data);
	network_policies(policies, pod, "Ingress", "spec.ingress", finding, data);
	network_policies(policies, pod, "Egress", "spec.egress", finding, data);
}
