/* Kubernetes as a source. See source.h. */
#include "installer/kube/source.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

/* A plugin waits for it, with a time limit of its own. */
#define GET_DEADLINE_MILLISECONDS 3000
#define PATCH_DEADLINE_MILLISECONDS 30000

struct source_request {
	struct kube_source *source;
	LIST_ENTRY(source_request) link;
	struct kube_request *request;
	source_answer answer;
	void *data;
	char *path;	      /* of the pod */
	char *uid;	      /* that an annotation is for; NULL: the pod is only read */
	struct error refusal; /* of a patch, while the pod is read to see why */
};

struct kube_source {
	struct kube_client *client;
	struct kube_watch *pods, *namespaces;
	LIST_HEAD(, source_request) requests;
};

static void free_request(struct source_request *request)
{
	LIST_REMOVE(request, link);
	kube_request_cancel(request->request);
	free(request->path);
	free(request->uid);
	free(request);
}

static void give_answer(struct source_request *request, enum source_outcome outcome, const cJSON *object,
			const struct error *error)
{
	source_answer answer = request->answer;
	void *data = request->data;
	struct error copy = *error;
	request->request = NULL;
	free_request(request);
	answer(data, outcome, object, &copy);
}

static void pod_was_read(void *data, int status, const cJSON *object, const struct error *error)
{
	struct source_request *request = data;
	enum source_outcome outcome = status == 404 ? SOURCE_GONE : error_is_set(error) ? SOURCE_FAILED : SOURCE_DONE;
	give_answer(request, outcome, outcome == SOURCE_DONE ? object : NULL, error);
}

/* A patch met a conflict, and the pod was read to see which: another pod of that name, or a change of it at the same time. */
static void conflict_was_read(void *data, int status, const cJSON *object, const struct error *error)
{
	struct source_request *request = data;
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	const char *uid = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "uid"));
	if (status == 404 || (status == 200 && uid && strcmp(uid, request->uid) != 0)) {
		give_answer(request, SOURCE_GONE, NULL, &(struct error){ 0 });
		return;
	}
	give_answer(request, SOURCE_FAILED, NULL, status == 200 ? &request->refusal : error);
}

static int read_pod(struct source_request *request, kube_done done, struct error *error)
{
	const struct kube_call call = { .method = KUBE_GET,
					.path = request->path,
					.deadline_milliseconds = GET_DEADLINE_MILLISECONDS };
	return kube_client_request(request->source->client, &call, done, request, error, &request->request);
}

static void pod_was_patched(void *data, int status, const cJSON *object, const struct error *error)
{
	struct source_request *request = data;
	if (status == 409 || status == 422) {
		/* A wrong uid is one or the other, by the server's version. */
		struct error failure = { 0 };
		request->refusal = *error;
		request->request = NULL;
		if (read_pod(request, conflict_was_read, &failure) < 0)
			give_answer(request, SOURCE_FAILED, NULL, &failure);
		return;
	}
	pod_was_read(data, status, object, error);
}

/* NULL: no memory. */
static struct source_request *new_request(struct kube_source *source, const char *namespace_name, const char *name,
					  const char *uid, source_answer answer, void *data, struct error *error)
{
	struct source_request *request = calloc(1, sizeof *request);
	cleanup_free char *namespace_part = kube_escape(namespace_name), *name_part = kube_escape(name);
	if (!request || !namespace_part || !name_part) {
		free(request);
		error_set(error, ENOMEM, "cannot ask for pod %s/%s", namespace_name, name);
		return NULL;
	}
	LIST_INSERT_HEAD(&source->requests, request, link);
	request->source = source;
	request->answer = answer;
	request->data = data;
	if (asprintf(&request->path, "/api/v1/namespaces/%s/pods/%s", namespace_part, name_part) < 0)
		request->path = NULL;
	if (uid)
		request->uid = strdup(uid);
	if (!request->path || (uid && !request->uid)) {
		free_request(request);
		error_set(error, ENOMEM, "cannot ask for pod %s/%s", namespace_name, name);
		return NULL;
	}
	return request;
}

static int get_pod(void *self, const char *namespace_name, const char *name, source_answer answer, void *data,
		   struct error *error, struct source_request **ret_request)
{
	struct source_request *request = new_request(self, namespace_name, name, NULL, answer, data, error);
	if (!request)
		return -1;
	if (read_pod(request, pod_was_read, error) < 0) {
		free_request(request);
		return -1;
	}
	*ret_request = request;
	return 0;
}

static char *make_patch(const char *uid, const char *key, const char *value)
{
	cleanup_cjson cJSON *patch = cJSON_CreateObject();
	cJSON *metadata = cJSON_AddObjectToObject(patch, "metadata");
	cJSON *annotations = cJSON_AddObjectToObject(metadata, "annotations");
	if (!cJSON_AddStringToObject(metadata, "uid", uid) || !annotations ||
	    !(value ? cJSON_AddStringToObject(annotations, key, value) : cJSON_AddNullToObject(annotations, key)))
		return NULL;
	return cJSON_PrintUnformatted(patch);
}

static int annotate_pod(void *self, const char *namespace_name, const char *name, const char *uid, const char *key,
			const char *value, source_answer answer, void *data, struct error *error,
			struct source_request **ret_request)
{
	struct source_request *request = new_request(self, namespace_name, name, uid, answer, data, error);
	if (!request)
		return -1;
	cleanup_free char *patch = make_patch(uid, key, value), *path = NULL;
	if (!patch || asprintf(&path, "%s/status", request->path) < 0) {
		path = NULL;
		free_request(request);
		return error_set(error, ENOMEM, "cannot annotate pod %s/%s", namespace_name, name);
	}
	const struct kube_call call = { .method = KUBE_PATCH,
					.path = path,
					.content_type = KUBE_MERGE_PATCH,
					.body = patch,
					.deadline_milliseconds = PATCH_DEADLINE_MILLISECONDS };
	if (kube_client_request(request->source->client, &call, pod_was_patched, request, error, &request->request) < 0) {
		free_request(request);
		return -1;
	}
	*ret_request = request;
	return 0;
}

static void cancel(void *self, struct source_request *request)
{
	(void)self;
	if (request)
		free_request(request);
}

static void free_source(void *self)
{
	struct kube_source *source = self;
	struct source_request *request = NULL;
	while ((request = LIST_FIRST(&source->requests)))
		free_request(request);
	kube_watch_free(source->pods);
	kube_watch_free(source->namespaces);
	free(source);
}

int kube_source_new(struct event_base *base, struct kube_client *client, const struct kube_source_options *options,
		    const struct source_listener *listener, struct error *error, struct source *ret_source)
{
	struct kube_source *source = calloc(1, sizeof *source);
	cleanup_free char *selector = NULL;
	if (!source || asprintf(&selector, "spec.nodeName=%s", options->node_name) < 0) {
		selector = NULL;
		free(source);
		return error_set(error, ENOMEM, "cannot watch the cluster");
	}
	source->client = client;
	const struct kube_watch_options namespaces = { .kind = SOURCE_NAMESPACE,
						       .path = "/api/v1/namespaces",
						       .metadata_only = true,
						       .timing = options->timing,
						       .log = options->log };
	const struct kube_watch_options pods = { .kind = SOURCE_POD,
						 .path = "/api/v1/pods",
						 .field_selector = selector,
						 .timing = options->timing,
						 .log = options->log };
	if (kube_watch_new(base, client, &namespaces, listener, error, &source->namespaces) < 0 ||
	    kube_watch_new(base, client, &pods, listener, error, &source->pods) < 0) {
		free_source(source);
		return -1;
	}
	*ret_source = (struct source){
		.self = source, .get_pod = get_pod, .annotate_pod = annotate_pod, .cancel = cancel, .free = free_source
	};
	return 0;
}
