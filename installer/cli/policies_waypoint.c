/* Waypoints: the proxies that see HTTP, and that a label istio.io/use-waypoint puts before a pod. See policies.h.
 *
 * istiod looks for the label on the destination itself, then on its namespace; "none" on the destination ends the search
 * (istiod's ambient index, fetchWaypointForTarget). The destination is the Service where a client calls one, and the pod where
 * it calls the pod's own address; the pod's label has no say for its Services. The Gateway that is named counts only if it is
 * for that kind of traffic (its label istio.io/waypoint-for: service unless it says workload, all or none) and takes part of
 * the namespace (allowedRoutes of its HBONE listener; the same namespace unless it says more). Where it does not count, traffic
 * goes direct. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "installer/cli/policies_parts.h"
#include "installer/cli/print.h"
#include "installer/kube/client.h"

#define LABEL_USE "istio.io/use-waypoint"
#define LABEL_USE_NAMESPACE "istio.io/use-waypoint-namespace"
#define LABEL_FOR "istio.io/waypoint-for"
#define LABEL_MANAGED "gateway.istio.io/managed"
#define MANAGED_WAYPOINT "istio.io-mesh-controller"

static const char *label_of(const cJSON *object, const char *key)
{
	const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json_at(object, "metadata.labels"), key));
	return value ? value : "";
}

static bool opts_out(const cJSON *object)
{
	return strcmp(label_of(object, LABEL_USE), "none") == 0;
}

/* Asked for once each. NULL: the label could not be looked up. */
static const cJSON *read_gateway(struct policies *policies, const char *namespace_name, const char *name)
{
	char key[600];
	snprintf(key, sizeof key, "%.255s/%.255s", namespace_name, name);
	const cJSON *known = cJSON_GetObjectItemCaseSensitive(policies->gateways, key);
	cleanup_free char *path = NULL, *place = kube_escape(namespace_name), *escaped = kube_escape(name);
	cJSON *gateway = NULL;
	if (known)
		return known;
	if (!escaped || !place ||
	    asprintf(&path, "/apis/gateway.networking.k8s.io/v1/namespaces/%s/gateways/%s", place, escaped) < 0) {
		path = NULL;
		return NULL;
	}
	size_t unread = strlen(policies->unread);
	policies_read_one(policies, "the waypoint", path, &gateway);
	if (!gateway)
		gateway = strlen(policies->unread) > unread ? cJSON_CreateFalse() : cJSON_CreateNull();
	if (!cJSON_AddItemToObject(policies->gateways, key, gateway)) {
		cJSON_Delete(gateway);
		return NULL;
	}
	return gateway;
}

/* Whether the Gateway lets objects of the namespace in. */
static bool takes_namespace(const struct policies *policies, const cJSON *gateway, const char *gateway_namespace)
{
	const cJSON *listener, *namespaces = NULL;
	cJSON_ArrayForEach (listener, json_at(gateway, "spec.listeners"))
		if (strcmp(json_text(listener, "protocol"), "HBONE") == 0)
			namespaces = json_at(listener, "allowedRoutes.namespaces");
	const char *from = json_text(namespaces, "from");
	if (strcmp(from, "All") == 0)
		return true;
	if (strcmp(from, "Selector") == 0)
		return policies_select(cJSON_GetObjectItemCaseSensitive(namespaces, "selector"), policies->namespace_object);
	return strcmp(from, "None") != 0 && strcmp(gateway_namespace, policies->namespace_name) == 0;
}

static bool is_programmed(const cJSON *gateway)
{
	const cJSON *condition;
	cJSON_ArrayForEach (condition, json_at(gateway, "status.conditions"))
		if (strcmp(json_text(condition, "type"), "Programmed") == 0 &&
		    strcmp(json_text(condition, "status"), "True") == 0)
			return true;
	return false;
}

/* What `object`'s own label names, told as of `whose`. `traffic`: service, workload, or NULL where it is for both, as a
 * namespace's is. False: nothing is named, or it does not count. */
static bool look_at(struct policies *policies, const cJSON *object, const char *whose, const char *traffic,
		    policy_finding finding, void *data)
{
	const char *name = label_of(object, LABEL_USE), *place = label_of(object, LABEL_USE_NAMESPACE);
	if (!name[0] || opts_out(object))
		return false;
	if (!place[0])
		place = policies->namespace_name;
	const cJSON *gateway = read_gateway(policies, place, name);
	if (!gateway || cJSON_IsFalse(gateway))
		return true;
	const char *kind = label_of(gateway, LABEL_FOR);
	if (!kind[0])
		kind = "service";
	if (cJSON_IsNull(gateway))
		policies_tell(finding, data, true, "waypoint",
			      "label " LABEL_USE
			      " of %s names Gateway %s/%s, which is not there: what should pass through it goes "
			      "direct, past its policies",
			      whose, place, name);
	else if (!takes_namespace(policies, gateway, place))
		policies_tell(finding, data, true, "waypoint",
			      "label " LABEL_USE " of %s names Gateway %s/%s, which takes nothing from namespace %s: set "
			      "allowedRoutes.namespaces of its HBONE listener",
			      whose, place, name, policies->namespace_name);
	else if (traffic && strcmp(kind, "all") != 0 && strcmp(kind, traffic) != 0)
		policies_tell(finding, data, true, "waypoint",
			      "label " LABEL_USE " of %s names Gateway %s/%s, whose label " LABEL_FOR
			      " is %s: it stands before "
			      "no %s",
			      whose, place, name, kind, traffic);
	else if (!is_programmed(gateway))
		policies_tell(finding, data, true, "waypoint",
			      "Gateway %s/%s (%s), which label " LABEL_USE " of %s names, is there and not programmed: kubectl "
			      "describe gateway -n %s %s says why",
			      place, name, json_text(gateway, "spec.gatewayClassName"), whose, place, name);
	else {
		policies_tell(finding, data, false, "waypoint",
			      "Gateway %s/%s (%s, for %s) is there and programmed, by label " LABEL_USE " of %s", place, name,
			      json_text(gateway, "spec.gatewayClassName"),
			      strcmp(kind, "all") == 0	      ? "services and pods"
			      : strcmp(kind, "workload") == 0 ? "pods"
			      : strcmp(kind, "service") == 0  ? "services"
							      : "nothing",
			      whose);
		return true;
	}
	return false;
}

static void nothing(void *data, bool is_blocked, const char *kind, const char *text)
{
	(void)data;
	(void)is_blocked;
	(void)kind;
	(void)text;
}

/* A policy that is bound to the Service is the waypoint's to enforce. */
static void policies_of_service(const struct policies *policies, const char *service, bool has_waypoint, policy_finding finding,
				void *data)
{
	const cJSON *policy, *target;
	cJSON_ArrayForEach (policy, json_at(policies->authorization, "items")) {
		const char *name = json_text(policy, "metadata.name");
		cJSON_ArrayForEach (target, json_at(policy, "spec.targetRefs")) {
			if (strcmp(json_text(target, "kind"), "Service") != 0 ||
			    strcmp(json_text(target, "name"), service) != 0)
				continue;
			policies_tell(finding, data, !has_waypoint, "AuthorizationPolicy", "%s/%s is bound to Service %s%s",
				      policies->namespace_name, name, service,
				      has_waypoint ? ": its waypoint enforces it"
						   : ", before which no waypoint stands: nobody enforces it");
		}
	}
}

static bool leads_to(const cJSON *service, const cJSON *pod)
{
	const cJSON *selector = json_at(service, "spec.selector"), *label;
	cJSON_ArrayForEach (label, selector)
		if (!cJSON_IsString(label) || strcmp(label_of(pod, label->string), label->valuestring) != 0)
			return false;
	return cJSON_GetArraySize(selector) > 0;
}

void policies_of_waypoint(struct policies *policies, policy_finding finding, void *data)
{
	look_at(policies, policies->namespace_object, "the namespace", NULL, finding, data);
}

void policies_of_pods_waypoints(struct policies *policies, const cJSON *pod, policy_finding finding, void *data)
{
	const cJSON *service;
	bool has_namespaces = look_at(policies, policies->namespace_object, "the namespace", "service", nothing, NULL);
	bool names_namespaces = label_of(policies->namespace_object, LABEL_USE)[0] && !opts_out(policies->namespace_object);
	/* A waypoint has none before it. */
	if (strcmp(label_of(pod, LABEL_MANAGED), MANAGED_WAYPOINT) == 0)
		return;
	cJSON_ArrayForEach (service, json_at(policies->services, "items")) {
		const char *name = json_text(service, "metadata.name");
		char whose[300];
		if (!leads_to(service, pod))
			continue;
		snprintf(whose, sizeof whose, "Service %s", name);
		bool has_waypoint = look_at(policies, service, whose, "service", finding, data);
		if (!label_of(service, LABEL_USE)[0])
			has_waypoint = has_namespaces;
		else if (opts_out(service) && names_namespaces)
			policies_tell(finding, data, false, "waypoint",
				      "%s has none: its label " LABEL_USE " is none, which goes before the namespace's", whose);
		policies_of_service(policies, name, has_waypoint, finding, data);
	}
	if (look_at(policies, pod, "the pod", "workload", finding, data))
		return;
	if (opts_out(pod) && names_namespaces)
		policies_tell(finding, data, false, "waypoint",
			      "the pod's own address has none: its label " LABEL_USE
			      " is none, which goes before the namespace's");
}
