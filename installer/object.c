/* Kubernetes objects, reduced to what the mesh asks about. See object.h. */
#include "installer/object.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"

static const char *const kept_annotations[] = {
	ANNOTATION_REDIRECTION,
	ANNOTATION_BYPASS_INBOUND,
	ANNOTATION_DNS_CAPTURE,
	ANNOTATION_VIRTUAL_INTERFACES,
	ANNOTATION_SIDECAR,
	ANNOTATION_STATIC_POD_UID,
	ANNOTATION_EXCLUDE_OUTBOUND_PORTS,
	ANNOTATION_EXCLUDE_OUTBOUND_RANGES,
	ANNOTATION_EXCLUDE_INBOUND_PORTS,
	ANNOTATION_EXCLUDE_INTERFACES,
	ANNOTATION_NETNS,
};

const char *labels_get(const struct labels *labels, const char *key)
{
	for (size_t i = 0; i < labels->count; i++)
		if (strcmp(labels->items[i].key, key) == 0)
			return labels->items[i].value;
	return NULL;
}

void labels_filter(struct labels *labels, bool (*is_wanted)(const void *data, const char *key), const void *data)
{
	size_t kept = 0;
	for (size_t i = 0; i < labels->count; i++) {
		struct label label = labels->items[i];
		if (is_wanted(data, label.key)) {
			labels->items[kept++] = label;
			continue;
		}
		free(label.key);
		free(label.value);
	}
	labels->count = kept;
	if (kept == 0) {
		free(labels->items);
		labels->items = NULL;
	}
}

static void labels_clear(struct labels *labels)
{
	for (size_t i = 0; i < labels->count; i++) {
		free(labels->items[i].key);
		free(labels->items[i].value);
	}
	free(labels->items);
	*labels = (struct labels){ 0 };
}

bool pod_address_parse(const char *text, struct pod_address *ret_address)
{
	struct pod_address address = { .family = AF_INET };
	if (inet_pton(AF_INET, text, &address.ipv4) == 1) {
		*ret_address = address;
		return true;
	}
	address = (struct pod_address){ .family = AF_INET6 };
	if (inet_pton(AF_INET6, text, &address.ipv6) != 1)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&address.ipv6)) {
		struct pod_address mapped = { .family = AF_INET };
		memcpy(&mapped.ipv4, &address.ipv6.s6_addr[12], sizeof mapped.ipv4);
		address = mapped;
	}
	*ret_address = address;
	return true;
}

bool pod_address_equal(const struct pod_address *a, const struct pod_address *b)
{
	if (a->family != b->family)
		return false;
	return a->family == AF_INET ? a->ipv4.s_addr == b->ipv4.s_addr : IN6_ARE_ADDR_EQUAL(&a->ipv6, &b->ipv6);
}

bool pod_address_is_among(const struct pod_address *address, const struct pod_address *addresses, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (pod_address_equal(&addresses[i], address))
			return true;
	return false;
}

const char *pod_address_print(const struct pod_address *address, char *text)
{
	/* Both members of the union begin at the same place. */
	return inet_ntop(address->family, &address->ipv6, text, POD_ADDRESS_TEXT_MAX);
}

static bool is_kept(const char *key)
{
	for (size_t i = 0; i < sizeof kept_annotations / sizeof kept_annotations[0]; i++)
		if (strcmp(kept_annotations[i], key) == 0)
			return true;
	return false;
}

static int read_labels(const cJSON *object, bool only_kept, struct error *error, struct labels *labels)
{
	const cJSON *entry;
	cJSON_ArrayForEach (entry, object) {
		if (!cJSON_IsString(entry) || (only_kept && !is_kept(entry->string)))
			continue;
		struct label *items = reallocarray(labels->items, labels->count + 1, sizeof *items);
		if (!items)
			return error_set(error, ENOMEM, "cannot keep an object's labels");
		labels->items = items;
		struct label *label = &items[labels->count++];
		label->key = strdup(entry->string);
		label->value = strdup(entry->valuestring);
		if (!label->key || !label->value)
			return error_set(error, ENOMEM, "cannot keep an object's labels");
	}
	return 0;
}

/* Reads metadata.KEY, which must be a string that is not empty. */
static int read_name(const cJSON *json, const char *kind, const char *key, struct error *error, char **ret_value)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "metadata"), key);
	if (!cJSON_IsString(value) || value->valuestring[0] == '\0')
		return error_set(error, EINVAL, "%s: metadata.%s is missing or not a string", kind, key);
	char *copy = strdup(value->valuestring);
	if (!copy)
		return error_set(error, ENOMEM, "cannot keep a %s", kind);
	*ret_value = copy;
	return 0;
}

static int add_address(struct pod *pod, const cJSON *text, struct error *error)
{
	struct pod_address address;
	if (!cJSON_IsString(text) || !pod_address_parse(text->valuestring, &address) ||
	    pod_address_is_among(&address, pod->addresses, pod->addresses_count))
		return 0;
	struct pod_address *addresses = reallocarray(pod->addresses, pod->addresses_count + 1, sizeof *addresses);
	if (!addresses)
		return error_set(error, ENOMEM, "cannot keep a pod's addresses");
	pod->addresses = addresses;
	pod->addresses[pod->addresses_count++] = address;
	return 0;
}

static int read_status(const cJSON *status, struct error *error, struct pod *pod)
{
	const cJSON *phase = cJSON_GetObjectItemCaseSensitive(status, "phase");
	pod->has_ended = cJSON_IsString(phase) &&
			 (strcmp(phase->valuestring, "Succeeded") == 0 || strcmp(phase->valuestring, "Failed") == 0);
	const cJSON *entry;
	cJSON_ArrayForEach (entry, cJSON_GetObjectItemCaseSensitive(status, "podIPs")) {
		if (add_address(pod, cJSON_GetObjectItemCaseSensitive(entry, "ip"), error) < 0)
			return -1;
	}
	/* Older servers have this one only. */
	return add_address(pod, cJSON_GetObjectItemCaseSensitive(status, "podIP"), error);
}

int pod_from_json(const cJSON *json, struct error *error, struct pod **ret_pod)
{
	cleanup_pod struct pod *pod = calloc(1, sizeof *pod);
	if (!pod)
		return error_set(error, ENOMEM, "cannot keep a pod");

	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json, "metadata");
	const cJSON *spec = cJSON_GetObjectItemCaseSensitive(json, "spec");
	if (read_name(json, "pod", "name", error, &pod->name) < 0 ||
	    read_name(json, "pod", "namespace", error, &pod->namespace_name) < 0 ||
	    read_name(json, "pod", "uid", error, &pod->uid) < 0 ||
	    read_labels(cJSON_GetObjectItemCaseSensitive(metadata, "labels"), false, error, &pod->labels) < 0 ||
	    read_labels(cJSON_GetObjectItemCaseSensitive(metadata, "annotations"), true, error, &pod->annotations) < 0)
		return -1;
	pod->is_deleting = cJSON_IsString(cJSON_GetObjectItemCaseSensitive(metadata, "deletionTimestamp"));
	pod->host_network = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(spec, "hostNetwork"));
	const cJSON *account = cJSON_GetObjectItemCaseSensitive(spec, "serviceAccountName");
	/* The API server fills in "default"; a folder's object may leave it out. */
	pod->service_account = strdup(cJSON_IsString(account) && account->valuestring[0] ? account->valuestring : "default");
	if (!pod->service_account)
		return error_set(error, ENOMEM, "cannot keep a pod");
	if (read_status(cJSON_GetObjectItemCaseSensitive(json, "status"), error, pod) < 0)
		return -1;
	*ret_pod = steal_pointer(pod);
	return 0;
}

void pod_free(struct pod *pod)
{
	if (!pod)
		return;
	free(pod->name);
	free(pod->namespace_name);
	free(pod->uid);
	free(pod->service_account);
	free(pod->addresses);
	labels_clear(&pod->labels);
	labels_clear(&pod->annotations);
	free(pod);
}

void pod_freep(struct pod **pod)
{
	pod_free(*pod);
}

int namespace_from_json(const cJSON *json, struct error *error, struct namespace_object **ret_namespace)
{
	cleanup_namespace struct namespace_object *object = calloc(1, sizeof *object);
	if (!object)
		return error_set(error, ENOMEM, "cannot keep a namespace");
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json, "metadata");
	if (read_name(json, "namespace", "name", error, &object->name) < 0 ||
	    read_name(json, "namespace", "uid", error, &object->uid) < 0 ||
	    read_labels(cJSON_GetObjectItemCaseSensitive(metadata, "labels"), false, error, &object->labels) < 0)
		return -1;
	*ret_namespace = steal_pointer(object);
	return 0;
}

void namespace_free(struct namespace_object *object)
{
	if (!object)
		return;
	free(object->name);
	free(object->uid);
	labels_clear(&object->labels);
	free(object);
}

void namespace_freep(struct namespace_object **object)
{
	namespace_free(*object);
}
