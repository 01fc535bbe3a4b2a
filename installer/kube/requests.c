/* Single requests to the API server. See requests.h. */
#include "installer/kube/requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

#define TAINT_TRIES 5
/* The agent asks at its end, for which a kubelet waits. */
#define GET_MILLISECONDS 10000
#define EVENT_MESSAGE_MAX 1024

static int get(struct kube_client *client, const char *prefix, const char *first, const char *second, kube_done done,
	       void *data, struct error *error, struct kube_request **ret_request)
{
	cleanup_free char *first_part = kube_escape(first), *second_part = kube_escape(second), *path = NULL;
	if (!first_part || !second_part ||
	    asprintf(&path, "%s%s%s%s", prefix, first_part, *second ? "/daemonsets/" : "", second_part) < 0) {
		path = NULL;
		return error_set(error, ENOMEM, "cannot ask the API server");
	}
	const struct kube_call call = { .method = KUBE_GET, .path = path, .deadline_milliseconds = GET_MILLISECONDS };
	return kube_client_request(client, &call, done, data, error, ret_request);
}

int kube_get_daemon_set(struct kube_client *client, const char *namespace_name, const char *name, kube_done done, void *data,
			struct error *error, struct kube_request **ret_request)
{
	return get(client, "/apis/apps/v1/namespaces/", namespace_name, name, done, data, error, ret_request);
}

int kube_get_node(struct kube_client *client, const char *name, kube_done done, void *data, struct error *error,
		  struct kube_request **ret_request)
{
	return get(client, "/api/v1/nodes/", name, "", done, data, error, ret_request);
}

/* ---- Taints. ---- */

struct kube_taint_removal {
	struct kube_client *client;
	struct kube_request *request;
	char *node_name, *key;
	kube_done done;
	void *data;
	unsigned tries;
};

void kube_taint_removal_cancel(struct kube_taint_removal *removal)
{
	if (!removal)
		return;
	kube_request_cancel(removal->request);
	free(removal->node_name);
	free(removal->key);
	free(removal);
}

static void finish_removal(struct kube_taint_removal *removal, int status, const cJSON *object, const struct error *error)
{
	kube_done done = removal->done;
	void *data = removal->data;
	removal->request = NULL;
	kube_taint_removal_cancel(removal);
	done(data, status, object, error);
}

/* NULL in `ret_patch`: there is no such taint. */
static int make_taint_patch(const cJSON *node, const char *key, struct error *error, char **ret_patch)
{
	const cJSON *spec = cJSON_GetObjectItemCaseSensitive(node, "spec");
	const cJSON *taints = cJSON_GetObjectItemCaseSensitive(spec, "taints");
	cleanup_cjson cJSON *patch = cJSON_CreateArray();
	bool is_good = patch != NULL;
	/* From the end, so that an index still is right after those behind it are gone. */
	for (int i = cJSON_GetArraySize(taints) - 1; i >= 0 && is_good; i--) {
		const cJSON *taint = cJSON_GetArrayItem(taints, i);
		const char *found = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(taint, "key"));
		if (!found || strcmp(found, key) != 0)
			continue;
		char path[64];
		snprintf(path, sizeof path, "/spec/taints/%d", i);
		cJSON *test = cJSON_CreateObject(), *removal = cJSON_CreateObject(), *copy = cJSON_Duplicate(taint, true);
		is_good = cJSON_AddItemToArray(patch, test) && cJSON_AddItemToArray(patch, removal) &&
			  cJSON_AddStringToObject(test, "op", "test") && cJSON_AddStringToObject(test, "path", path) && copy &&
			  cJSON_AddItemToObject(test, "value", copy) && cJSON_AddStringToObject(removal, "op", "remove") &&
			  cJSON_AddStringToObject(removal, "path", path);
	}
	bool is_empty = cJSON_GetArraySize(patch) == 0;
	char *text = is_good && !is_empty ? cJSON_PrintUnformatted(patch) : NULL;
	if (!is_good || (!is_empty && !text))
		return error_set(error, ENOMEM, "cannot write a patch of the node's taints");
	*ret_patch = text;
	return 0;
}

static void node_was_read(void *data, int status, const cJSON *object, const struct error *error);

static void node_was_patched(void *data, int status, const cJSON *object, const struct error *error)
{
	struct kube_taint_removal *removal = data;
	struct error failure = { 0 };
	/* 422: a test failed; 409: somebody was faster. */
	if ((status == 409 || status == 422) && ++removal->tries < TAINT_TRIES) {
		removal->request = NULL;
		if (kube_get_node(removal->client, removal->node_name, node_was_read, removal, &failure, &removal->request) < 0)
			finish_removal(removal, 0, NULL, &failure);
		return;
	}
	finish_removal(removal, status, object, error);
}

static void node_was_read(void *data, int status, const cJSON *object, const struct error *error)
{
	struct kube_taint_removal *removal = data;
	struct error failure = { 0 };
	cleanup_free char *patch = NULL, *name = NULL, *path = NULL;
	if (status != 200) {
		finish_removal(removal, status, object, error);
		return;
	}
	if (make_taint_patch(object, removal->key, &failure, &patch) < 0) {
		finish_removal(removal, 0, NULL, &failure);
		return;
	}
	if (!patch) {
		finish_removal(removal, status, object, error);
		return;
	}
	removal->request = NULL;
	name = kube_escape(removal->node_name);
	if (!name || asprintf(&path, "/api/v1/nodes/%s", name) < 0) {
		path = NULL;
		error_set(&failure, ENOMEM, "cannot remove a taint");
		finish_removal(removal, 0, NULL, &failure);
		return;
	}
	const struct kube_call call = { .method = KUBE_PATCH, .path = path, .content_type = KUBE_JSON_PATCH, .body = patch };
	if (kube_client_request(removal->client, &call, node_was_patched, removal, &failure, &removal->request) < 0)
		finish_removal(removal, 0, NULL, &failure);
}

int kube_remove_taint(struct kube_client *client, const char *node_name, const char *key, kube_done done, void *data,
		      struct error *error, struct kube_taint_removal **ret_removal)
{
	struct kube_taint_removal *removal = calloc(1, sizeof *removal);
	if (!removal)
		return error_set(error, ENOMEM, "cannot remove a taint");
	removal->client = client;
	removal->done = done;
	removal->data = data;
	if (!(removal->node_name = strdup(node_name)) || !(removal->key = strdup(key))) {
		kube_taint_removal_cancel(removal);
		return error_set(error, ENOMEM, "cannot remove a taint");
	}
	if (kube_get_node(client, node_name, node_was_read, removal, error, &removal->request) < 0) {
		kube_taint_removal_cancel(removal);
		return -1;
	}
	*ret_removal = removal;
	return 0;
}

/* ---- Events. ---- */

/* At most `limit` bytes, and no character of several bytes cut in two. */
static size_t cut_length(const char *text, size_t limit)
{
	size_t length = strlen(text);
	if (length <= limit)
		return length;
	while (limit > 0 && ((unsigned char)text[limit] & 0xc0) == 0x80)
		limit--;
	return limit;
}

static cJSON *make_event(const struct kube_event *event)
{
	/* Events of what has no namespace live in "default". */
	const char *namespace_name = event->namespace_name ? event->namespace_name : "default";
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	struct tm calendar;
	gmtime_r(&now.tv_sec, &calendar);
	char time_text[32], name[300], message[EVENT_MESSAGE_MAX + 1];
	strftime(time_text, sizeof time_text, "%Y-%m-%dT%H:%M:%SZ", &calendar);
	/* As client-go names them: of what it is about, and a number that makes it unique. */
	snprintf(name, sizeof name, "%.200s.%llx%04x", event->name,
		 (unsigned long long)now.tv_sec * 1000000000ull + (unsigned long long)now.tv_nsec, arc4random_uniform(0x10000));
	snprintf(message, sizeof message, "%.*s", (int)cut_length(event->message, EVENT_MESSAGE_MAX), event->message);

	cJSON *object = cJSON_CreateObject();
	cJSON *metadata = cJSON_AddObjectToObject(object, "metadata");
	cJSON *about = cJSON_AddObjectToObject(object, "involvedObject");
	cJSON *origin = cJSON_AddObjectToObject(object, "source");
	if (cJSON_AddStringToObject(object, "apiVersion", "v1") && cJSON_AddStringToObject(object, "kind", "Event") &&
	    cJSON_AddStringToObject(metadata, "name", name) && cJSON_AddStringToObject(metadata, "namespace", namespace_name) &&
	    cJSON_AddStringToObject(about, "apiVersion", "v1") &&
	    cJSON_AddStringToObject(about, "kind", event->namespace_name ? "Pod" : "Node") &&
	    cJSON_AddStringToObject(about, "name", event->name) &&
	    (!event->namespace_name || cJSON_AddStringToObject(about, "namespace", namespace_name)) &&
	    (!event->uid || cJSON_AddStringToObject(about, "uid", event->uid)) &&
	    cJSON_AddStringToObject(object, "reason", event->reason) && cJSON_AddStringToObject(object, "message", message) &&
	    cJSON_AddStringToObject(object, "type", event->is_warning ? "Warning" : "Normal") &&
	    cJSON_AddStringToObject(origin, "component", "ambient-installer") &&
	    (!event->node_name || cJSON_AddStringToObject(origin, "host", event->node_name)) &&
	    cJSON_AddStringToObject(object, "firstTimestamp", time_text) &&
	    cJSON_AddStringToObject(object, "lastTimestamp", time_text) && cJSON_AddNumberToObject(object, "count", 1))
		return object;
	cJSON_Delete(object);
	return NULL;
}

static void nobody_asks(void *data, int status, const cJSON *object, const struct error *error)
{
	(void)data, (void)status, (void)object, (void)error;
}

int kube_create_event(struct kube_client *client, const struct kube_event *event, kube_done done, void *data,
		      struct error *error, struct kube_request **ret_request)
{
	cleanup_cjson cJSON *object = make_event(event);
	cleanup_free char *body = object ? cJSON_PrintUnformatted(object) : NULL, *path = NULL;
	cleanup_free char *namespace_name = kube_escape(event->namespace_name ? event->namespace_name : "default");
	if (!body || !namespace_name || asprintf(&path, "/api/v1/namespaces/%s/events", namespace_name) < 0) {
		path = NULL;
		return error_set(error, ENOMEM, "cannot write an Event");
	}
	struct kube_request *request = NULL;
	const struct kube_call call = { .method = KUBE_POST, .path = path, .body = body, .once = true };
	if (kube_client_request(client, &call, done ? done : nobody_asks, data, error, &request) < 0)
		return -1;
	if (done && ret_request)
		*ret_request = request;
	return 0;
}
