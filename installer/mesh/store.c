/* Pods and namespaces as the source has them, and what follows from a change: which pods are to be looked at. */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "installer/mesh/state.h"

/* A pod's object usually goes a moment after its DEL, sometimes before. */
#define PRUNE_AFTER 5

/* Both kinds of entry begin with their key. */
static int compare_keys(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void *find(void *index, const char *key)
{
	void **found = tfind((void *)&key, &index, compare_keys);
	return found ? *found : NULL;
}

struct mesh_pod *mesh_find_pod(const struct mesh *mesh, const char *uid)
{
	return find(mesh->pods_by_uid, uid);
}

struct mesh_namespace *mesh_find_namespace(const struct mesh *mesh, const char *name)
{
	return find(mesh->namespaces_by_name, name);
}

static bool is_named(const struct mesh_pod *pod, const char *namespace_name, const char *name)
{
	return strcmp(pod->name, name) == 0 && strcmp(pod->namespace_name, namespace_name) == 0;
}

/* FNV-1a. */
static uint32_t hash_on(uint32_t hash, const char *text)
{
	for (; *text; text++)
		hash = (hash ^ (uint8_t)*text) * 16777619U;
	return hash;
}

static size_t bucket_of(const char *namespace_name, const char *name)
{
	return hash_on(hash_on(hash_on(2166136261U, namespace_name), "/"), name) % MESH_NAME_BUCKETS;
}

struct mesh_pod *mesh_find_pod_by_name(const struct mesh *mesh, const char *namespace_name, const char *name)
{
	struct mesh_pod *pod;
	LIST_FOREACH(pod, &mesh->pods_by_name[bucket_of(namespace_name, name)], named)
	{
		if (is_named(pod, namespace_name, name))
			return pod;
	}
	return NULL;
}

bool pod_is_called(const struct pod *pod, const char *uid)
{
	const char *hash = labels_get(&pod->annotations, ANNOTATION_STATIC_POD_UID);
	return strcmp(pod->uid, uid) == 0 || (hash && strcmp(hash, uid) == 0);
}

struct mesh_pod *mesh_find_pod_of_sandbox(const struct mesh *mesh, const char *namespace_name, const char *name,
					  const char *uid)
{
	struct mesh_pod *pod;
	LIST_FOREACH(pod, &mesh->pods_by_name[bucket_of(namespace_name, name)], named)
	{
		if (!is_named(pod, namespace_name, name))
			continue;
		if (!uid || strcmp(pod->uid, uid) == 0 || (pod->object && pod_is_called(pod->object, uid)))
			return pod;
	}
	return NULL;
}

static int replace_text(char **text, const char *value)
{
	if (*text && strcmp(*text, value) == 0)
		return 0;
	char *copy = strdup(value);
	if (!copy)
		return -1;
	free(*text);
	*text = copy;
	return 0;
}

struct mesh_pod *mesh_add_pod(struct mesh *mesh, const char *uid, const char *namespace_name, const char *name,
			      const char *service_account)
{
	struct mesh_pod *pod = calloc(1, sizeof *pod);
	if (!pod)
		return NULL;
	pod->mesh = mesh;
	pod->uid = strdup(uid);
	pod->sandbox.netns = -1;
	redirect_init(&pod->sandbox.in_force);
	redirect_init(&pod->wanted);
	pod->since = time(NULL);
	if (!pod->uid || replace_text(&pod->namespace_name, namespace_name) < 0 || replace_text(&pod->name, name) < 0 ||
	    replace_text(&pod->service_account, service_account) < 0 || !tsearch(pod, &mesh->pods_by_uid, compare_keys)) {
		free((char *)pod->uid);
		free(pod->namespace_name);
		free(pod->name);
		free(pod->service_account);
		free(pod);
		return NULL;
	}
	/* The newest first: of two pods of a name, the later one is meant. */
	TAILQ_INSERT_HEAD(&mesh->pods, pod, all);
	LIST_INSERT_HEAD(&mesh->pods_by_name[bucket_of(namespace_name, name)], pod, named);
	mesh->pods_count++;
	return pod;
}

void mesh_forget_pod(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	mesh_annotation_cancel(pod);
	mesh_missed_is_over(pod);
	sandbox_forget(pod);
	/* It may have gone without a DEL, or an older sandbox of it has. Not at the agent's end. */
	if (mesh->is_pruned && !event_pending(mesh->prune_attachments, EV_TIMEOUT, NULL))
		mesh_arm(mesh->prune_attachments, PRUNE_AFTER);
	/* One whose namespace was not found any more was let go of without a change of any rules. */
	if (mesh->is_pruned)
		mesh_remember_enrolled(mesh);
	if (pod->is_queued)
		TAILQ_REMOVE(&mesh->queue, pod, queue);
	if (pod->timer)
		event_free(pod->timer);
	tdelete(pod, &mesh->pods_by_uid, compare_keys);
	TAILQ_REMOVE(&mesh->pods, pod, all);
	LIST_REMOVE(pod, named);
	mesh->pods_count--;
	pod_free(pod->object);
	redirect_clear(&pod->wanted);
	free(pod->removed_addresses);
	free(pod->warning);
	free(pod->last_error);
	free(pod->annotation);
	free(pod->patch_value);
	free((char *)pod->uid);
	free(pod->namespace_name);
	free(pod->name);
	free(pod->service_account);
	free(pod->static_hash);
	free(pod);
}

static void set_warning(struct mesh_pod *pod, const char *warning)
{
	if (strcmp(pod->warning ? pod->warning : "", warning) == 0)
		return;
	free(pod->warning);
	pod->warning = warning[0] ? strdup(warning) : NULL;
	if (pod->warning) {
		mesh_log(pod, LOG_LEVEL_WARN, "decide", "%s", warning);
		mesh_event(pod, true, "AnnotationIgnored", warning);
	}
}

void mesh_decide(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	if (!pod->object || !mesh_is_listed(mesh))
		return;
	struct mesh_namespace *entry = mesh_find_namespace(mesh, pod->namespace_name);
	struct selection_decision decision;
	selection_decide(&mesh->settings.selection, pod->object, entry ? entry->object : NULL, &decision);
	bool is_changed = decision.wanted != pod->decision.wanted || pod->decision.reason[0] == '\0';
	pod->decision = decision;
	if (is_changed)
		mesh_log(pod, decision.wanted ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "decide", "%s the mesh: %s",
			 decision.wanted ? "belongs to" : "is outside", decision.reason);
	if (decision.wanted) {
		struct redirect redirect = { 0 };
		struct error error = { 0 };
		char warning[SELECTION_WARNING_MAX];
		if (selection_redirect(&mesh->settings.selection, pod->object, &error, &redirect, warning) < 0) {
			/* No memory: what was wanted before stays. */
			mesh_log(pod, LOG_LEVEL_ERROR, "decide", "%s", error.message);
		} else {
			redirect_clear(&pod->wanted);
			pod->wanted = redirect;
			set_warning(pod, warning);
		}
		if (decision.by_pod_label && entry && !entry->has_enrolled_pod) {
			entry->has_enrolled_pod = true;
			mesh_remember_outside(mesh);
		}
	}
	mesh_queue(pod);
}

/* What was remembered may have named it otherwise. */
static int rename_pod(struct mesh_pod *pod, const char *namespace_name, const char *name)
{
	if (is_named(pod, namespace_name, name))
		return 0;
	LIST_REMOVE(pod, named);
	int result = replace_text(&pod->namespace_name, namespace_name) < 0 || replace_text(&pod->name, name) < 0 ? -1 : 0;
	LIST_INSERT_HEAD(&pod->mesh->pods_by_name[bucket_of(pod->namespace_name, pod->name)], pod, named);
	return result;
}

int mesh_put_pod(struct mesh *mesh, struct pod **object, struct error *error, struct mesh_pod **ret_pod)
{
	struct pod *put = *object;
	struct mesh_pod *pod = mesh_find_pod(mesh, put->uid);
	if (!pod)
		pod = mesh_add_pod(mesh, put->uid, put->namespace_name, put->name, put->service_account);
	if (!pod || rename_pod(pod, put->namespace_name, put->name) < 0 ||
	    replace_text(&pod->service_account, put->service_account) < 0)
		return error_set(error, ENOMEM, "cannot keep pod %s/%s", put->namespace_name, put->name);
	mesh->settings.metrics->changes[pod->object ? METRICS_CHANGE_UPDATE : METRICS_CHANGE_ADD]++;
	mesh_addresses_reported(pod, put);
	pod_free(pod->object);
	pod->object = steal_pointer(*object);
	mesh_addresses_settle(pod);
	pod->is_listed = true;
	mesh_missed_is_over(pod);
	mesh_mirror_seen(pod);
	mesh_annotation_seen(pod);
	mesh_decide(pod);
	if (ret_pod)
		*ret_pod = pod;
	return 0;
}

static int put_pod(struct mesh *mesh, const cJSON *json, struct error *error)
{
	cleanup_pod struct pod *object = NULL;
	return pod_from_json(json, error, &object) < 0 || mesh_put_pod(mesh, &object, error, NULL) < 0 ? -1 : 0;
}

static void decide_namespace(struct mesh *mesh, const char *name)
{
	struct mesh_pod *pod;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (strcmp(pod->namespace_name, name) == 0)
			mesh_decide(pod);
	}
}

static bool labels_equal(const struct labels *a, const struct labels *b)
{
	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		const char *value = labels_get(b, a->items[i].key);
		if (!value || strcmp(value, a->items[i].value) != 0)
			return false;
	}
	return true;
}

static bool was_enrolled_there(const struct mesh *mesh, const struct namespace_object *object)
{
	for (size_t i = 0; i < mesh->outside.count; i++) {
		const struct outside_namespace *remembered = &mesh->outside.namespaces[i];
		if (strcmp(remembered->name, object->name) == 0 && strcmp(remembered->uid, object->uid) == 0)
			return remembered->has_enrolled_pod;
	}
	return false;
}

static int put_namespace(struct mesh *mesh, const cJSON *json, struct error *error)
{
	cleanup_namespace struct namespace_object *object = NULL;
	if (namespace_from_json(json, error, &object) < 0)
		return -1;
	selection_trim_namespace(&mesh->settings.selection, object);
	struct mesh_namespace *entry = mesh_find_namespace(mesh, object->name);
	bool is_same = entry && strcmp(entry->object->uid, object->uid) == 0;
	bool is_changed = !is_same || !labels_equal(&entry->object->labels, &object->labels);
	if (!entry) {
		entry = calloc(1, sizeof *entry);
		if (!entry)
			return error_set(error, ENOMEM, "cannot keep namespace %s", object->name);
		entry->name = object->name;
		if (!tsearch(entry, &mesh->namespaces_by_name, compare_keys)) {
			free(entry);
			return error_set(error, ENOMEM, "cannot keep namespace %s", object->name);
		}
		TAILQ_INSERT_TAIL(&mesh->namespaces, entry, all);
		mesh->namespaces_count++;
	}
	if (!is_same)
		entry->has_enrolled_pod = was_enrolled_there(mesh, object);
	namespace_free(entry->object);
	/* The key is part of the object: equal, so that the index stays in order. */
	entry->name = object->name;
	entry->object = steal_pointer(object);
	entry->is_listed = true;
	if (!is_changed)
		return 0;
	mesh_remember_outside(mesh);
	if (mesh_is_listed(mesh)) {
		decide_namespace(mesh, entry->name);
		mesh_arrivals_look(mesh);
	}
	return 0;
}

static void forget_namespace(struct mesh *mesh, struct mesh_namespace *entry)
{
	tdelete(entry, &mesh->namespaces_by_name, compare_keys);
	TAILQ_REMOVE(&mesh->namespaces, entry, all);
	mesh->namespaces_count--;
	namespace_free(entry->object);
	free(entry);
}

void mesh_forget_namespaces(struct mesh *mesh)
{
	while (!TAILQ_EMPTY(&mesh->namespaces))
		forget_namespace(mesh, TAILQ_FIRST(&mesh->namespaces));
}

bool mesh_put(void *data, enum source_kind kind, const cJSON *object)
{
	struct mesh *mesh = data;
	struct error error = { 0 };
	if ((kind == SOURCE_POD ? put_pod : put_namespace)(mesh, object, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_ERROR, NULL, "a %s of the source is passed over%s: %s",
			  kind == SOURCE_POD ? "pod" : "namespace", error.number == ENOMEM ? " until it is listed again" : "",
			  error.message);
	if (kind == SOURCE_POD && mesh_is_listed(mesh))
		mesh_arrivals_look(mesh);
	return error.number != ENOMEM;
}

void mesh_pod_is_gone(struct mesh_pod *pod)
{
	pod->mesh->settings.metrics->changes[METRICS_CHANGE_DELETE] += pod->object != NULL;
	mesh_missed_is_over(pod);
	mesh_annotation_cancel(pod);
	if (pod->object)
		pod->gone_at = clock_seconds();
	pod_free(pod->object);
	pod->object = NULL;
	pod->decision = (struct selection_decision){ .reason = "the pod is gone" };
	mesh_queue(pod);
}

void mesh_gone(void *data, enum source_kind kind, const cJSON *object)
{
	struct mesh *mesh = data;
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "name"));
	const char *uid = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "uid"));
	if (kind == SOURCE_POD) {
		struct mesh_pod *pod = uid ? mesh_find_pod(mesh, uid) : NULL;
		if (pod)
			mesh_pod_is_gone(pod);
		return;
	}
	struct mesh_namespace *entry = name ? mesh_find_namespace(mesh, name) : NULL;
	if (!entry || (uid && strcmp(entry->object->uid, uid) != 0))
		return;
	cleanup_free char *gone = strdup(name);
	forget_namespace(mesh, entry);
	mesh_remember_outside(mesh);
	if (gone)
		decide_namespace(mesh, gone);
}

void mesh_list_started(void *data, enum source_kind kind)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	struct mesh_namespace *entry;
	if (kind == SOURCE_POD) {
		mesh->is_listing_pods = true;
		TAILQ_FOREACH(pod, &mesh->pods, all)
		pod->is_listed = false;
	} else {
		TAILQ_FOREACH(entry, &mesh->namespaces, all)
		entry->is_listed = false;
	}
}

bool mesh_is_listed(const struct mesh *mesh)
{
	return mesh->is_listed[SOURCE_POD] && mesh->is_listed[SOURCE_NAMESPACE];
}

/* What was not named is gone. */
static void sweep_pods(struct mesh *mesh)
{
	struct mesh_pod *pod;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (pod->is_listed)
			continue;
		/* A pod whose ADD is under way was read by itself, maybe after this list was made. */
		if (pod->arrival) {
			pod->is_missed = true;
			continue;
		}
		mesh_pod_is_gone(pod);
	}
}

static void sweep_namespaces(struct mesh *mesh)
{
	struct mesh_namespace *next;
	for (struct mesh_namespace *entry = TAILQ_FIRST(&mesh->namespaces); entry; entry = next) {
		next = TAILQ_NEXT(entry, all);
		if (entry->is_listed)
			continue;
		cleanup_free char *gone = strdup(entry->name);
		forget_namespace(mesh, entry);
		if (gone && mesh_is_listed(mesh))
			decide_namespace(mesh, gone);
	}
	mesh_remember_outside(mesh);
}

void mesh_list_finished(void *data, enum source_kind kind)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	bool was_listed = mesh_is_listed(mesh);
	mesh->is_listed[kind] = true;
	if (kind == SOURCE_POD) {
		mesh->is_listing_pods = false;
		sweep_pods(mesh);
	} else {
		sweep_namespaces(mesh);
	}
	if (was_listed || !mesh_is_listed(mesh))
		return;
	log_write(mesh->settings.log, LOG_LEVEL_INFO, NULL, "listed %zu pods of this node and %zu namespaces", mesh->pods_count,
		  mesh->namespaces_count);
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		mesh_decide(pod);
		/* Until its namespace is found, the tunnel has to be told to keep what runs. */
		pod->is_remembered &= pod->decision.wanted;
		mesh_queue(pod);
	}
	/* A pod that was on its way out when an earlier run ended may be out: the file still names it. */
	mesh_remember_enrolled(mesh);
	mesh_arrivals_look(mesh);
	mesh_consider_snapshot(mesh);
	/* Even where there is no pod: what an earlier run left on the host is looked through in a turn. */
	mesh_arm(mesh->run, 0);
}
