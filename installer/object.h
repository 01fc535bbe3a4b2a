/* Pods and namespaces: what the mesh keeps of a Kubernetes object. Everything else is dropped as soon as it is read: a pod's
 * spec is kilobytes, and a node's agent is to stay small. */
#ifndef AMBIENT_INSTALLER_OBJECT_H
#define AMBIENT_INSTALLER_OBJECT_H

#include <cjson/cJSON.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"

#define LABEL_DATAPLANE_MODE "istio.io/dataplane-mode"
#define ANNOTATION_REDIRECTION "ambient.istio.io/redirection"
#define ANNOTATION_BYPASS_INBOUND "ambient.istio.io/bypass-inbound-capture"
#define ANNOTATION_DNS_CAPTURE "ambient.istio.io/dns-capture"
#define ANNOTATION_VIRTUAL_INTERFACES "istio.io/reroute-virtual-interfaces"
#define ANNOTATION_SIDECAR "sidecar.istio.io/status"
#define ANNOTATION_STATIC_POD_UID "kubernetes.io/config.hash"
#define ANNOTATION_EXCLUDE_OUTBOUND_PORTS "ambient-cni.io/exclude-outbound-ports"
#define ANNOTATION_EXCLUDE_OUTBOUND_RANGES "ambient-cni.io/exclude-outbound-ranges"
#define ANNOTATION_EXCLUDE_INBOUND_PORTS "ambient-cni.io/exclude-inbound-ports"
#define ANNOTATION_EXCLUDE_INTERFACES "ambient-cni.io/exclude-interfaces"
#define ANNOTATION_NETNS "ambient-cni.io/netns"

struct label {
	char *key, *value;
};

/* Labels, or annotations. */
struct labels {
	struct label *items;
	size_t count;
};

/* Drops what `is_wanted` says no to. */
void labels_filter(struct labels *labels, bool (*is_wanted)(const void *data, const char *key), const void *data);

/* NULL: no such key. */
const char *labels_get(const struct labels *labels, const char *key);

struct pod_address {
	int family; /* AF_INET or AF_INET6 */
	union {
		struct in_addr ipv4;
		struct in6_addr ipv6;
	};
};

/* Parses an address as text; false: it is none. An IPv4 address mapped into IPv6 becomes IPv4. */
bool pod_address_parse(const char *text, struct pod_address *ret_address);
bool pod_address_equal(const struct pod_address *a, const struct pod_address *b);
bool pod_address_is_among(const struct pod_address *address, const struct pod_address *addresses, size_t count);
#define POD_ADDRESS_TEXT_MAX INET6_ADDRSTRLEN
const char *pod_address_print(const struct pod_address *address, char *text); /* returns `text`, POD_ADDRESS_TEXT_MAX long */

struct pod {
	char *name, *namespace_name, *uid, *service_account;
	struct labels labels;
	struct labels annotations; /* the ones above, no others */
	bool host_network;
	bool has_ended;	  /* phase Succeeded or Failed */
	bool is_deleting; /* has a deletionTimestamp */
	struct pod_address *addresses;
	size_t addresses_count;
};

struct namespace_object {
	char *name, *uid;
	struct labels labels;
};

/* An object without name, namespace or uid, or with one that is no string, is an error. Both returned objects are owned by the
 * caller. Addresses that are none are passed over: they come from the kubelet, and ours is not to judge. */
int pod_from_json(const cJSON *json, struct error *error, struct pod **ret_pod);
void pod_free(struct pod *pod); /* NULL is fine */
void pod_freep(struct pod **pod);
#define cleanup_pod __attribute__((cleanup(pod_freep)))

int namespace_from_json(const cJSON *json, struct error *error, struct namespace_object **ret_namespace);
void namespace_free(struct namespace_object *object); /* NULL is fine */
void namespace_freep(struct namespace_object **object);
#define cleanup_namespace __attribute__((cleanup(namespace_freep)))

#endif
