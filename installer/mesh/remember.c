/* What a restart needs.
 *
 *   runDir/enrolled.json   pods that have rules of ours: so that the tunnel can be told of them while the API is away. What is
 *                          really there is read from the kernel.
 *   runDir/outside.json    namespaces outside the mesh: read by the plugin while the agent is away (ambient/outside.h)
 *   runDir/attachments/    what ADDs brought: written in arrival.c, read here; and, when a pod that had an ADD enters or leaves
 *                          the mesh later, made true again, for the plugin's CHECK and DEL
 *
 * Files are written a moment after something changed, together. But a pod that no ADD brought is named in enrolled.json before
 * the first rule goes into it: its object may be gone when the agent starts again, and nothing else would tell of it. A file
 * that can't be understood is set aside and made anew. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "installer/mesh/state.h"

#define SAVE_AFTER 0.05
#define PRUNE_AGAIN_AFTER 30
/* Saving costs what the node's pods cost together, however few have changed: this part of the time goes into it at most, as
 * long as nothing waits for longer than SAVE_AFTER_MOST. */
#define SAVE_SHARE 0.05
#define SAVE_AFTER_MOST 1.0
#define VERSION 1
#define FILE_NAME "enrolled.json"
#define FILE_MAX (4 * 1024 * 1024)

/* Of the processor alone: a slow disk, or a busy machine, is no reason to remember less. */
static double cpu_seconds(void)
{
	struct timespec spent;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
	return (double)spent.tv_sec + (double)spent.tv_nsec / 1e9;
}

static void save_soon(struct mesh *mesh)
{
	double after = mesh->save_took / SAVE_SHARE;
	if (event_pending(mesh->save, EV_TIMEOUT, NULL))
		return;
	if (after < SAVE_AFTER)
		after = SAVE_AFTER;
	mesh_arm(mesh->save, after < SAVE_AFTER_MOST ? after : SAVE_AFTER_MOST);
}

void mesh_remember_enrolled(struct mesh *mesh)
{
	mesh->is_enrolled_dirty = true;
	save_soon(mesh);
}

bool mesh_remember_entering(struct mesh_pod *pod)
{
	/* Of one that an ADD brought the attachment tells. */
	if (pod->is_written || pod->sandbox.container_id)
		return true;
	pod->is_entering = true;
	pod->mesh->is_enrolled_dirty = true;
	mesh_arm(pod->mesh->save, 0);
	return false;
}

void mesh_remember_outside(struct mesh *mesh)
{
	mesh->is_outside_dirty = true;
	save_soon(mesh);
}

/* `defaults`: the node's redirection as JSON, which nearly every pod has; entries lead to it. */
static bool add_pod(cJSON *array, const struct mesh_pod *pod, cJSON *defaults)
{
	cJSON *entry = cJSON_CreateObject();
	size_t count = 0;
	const struct pod_address *addresses = mesh_pod_addresses(pod, &count);
	if (!cJSON_AddItemToArray(array, entry) || !cJSON_AddStringToObject(entry, "uid", pod->uid) ||
	    !cJSON_AddStringToObject(entry, "namespace", pod->namespace_name) ||
	    !cJSON_AddStringToObject(entry, "name", pod->name) ||
	    !cJSON_AddStringToObject(entry, "serviceAccount", pod->service_account))
		return false;
	/* Where an ADD brought it, its attachment knows. */
	const struct sandbox *sandbox = &pod->sandbox;
	if (!sandbox->container_id && sandbox->netns_path &&
	    (!cJSON_AddStringToObject(entry, "netnsPath", sandbox->netns_path) ||
	     !cJSON_AddNumberToObject(entry, "netnsDevice", (double)sandbox->id.device) ||
	     !cJSON_AddNumberToObject(entry, "netnsInode", (double)sandbox->id.inode)))
		return false;
	/* Or did, before they changed. */
	if (sandbox->container_id && sandbox->is_readdressed &&
	    !cJSON_AddStringToObject(entry, "container", sandbox->container_id))
		return false;
	cJSON *list = cJSON_AddArrayToObject(entry, "addresses");
	for (size_t i = 0; list && i < count; i++) {
		char text[POD_ADDRESS_TEXT_MAX];
		if (!cJSON_AddItemToArray(list, cJSON_CreateString(pod_address_print(&addresses[i], text))))
			return false;
	}
	if (redirect_equal(&pod->sandbox.in_force, pod->mesh->settings.selection.defaults))
		return list && cJSON_AddItemReferenceToObject(entry, "redirect", defaults);
	cJSON *redirect = redirect_to_json(&pod->sandbox.in_force);
	if (!list || !cJSON_AddItemToObject(entry, "redirect", redirect)) {
		cJSON_Delete(redirect);
		return false;
	}
	return true;
}

static bool is_to_be_named(const struct mesh_pod *pod)
{
	const struct sandbox *sandbox = &pod->sandbox;
	bool may_have_rules = sandbox->standing != REDIRECT_STANDING_NOTHING || (sandbox->was_ours && sandbox_is_held(sandbox));
	return may_have_rules || pod->is_remembered || pod->is_entering || (pod->is_unseen && sandbox->was_ours);
}

static int save_enrolled(struct mesh *mesh, struct error *error)
{
	cleanup_cjson cJSON *defaults = redirect_to_json(mesh->settings.selection.defaults), *json = cJSON_CreateObject();
	cleanup_free char *text = NULL, *path = NULL;
	struct mesh_pod *pod;
	cJSON *array = NULL;
	bool is_built =
		defaults && cJSON_AddNumberToObject(json, "version", VERSION) && (array = cJSON_AddArrayToObject(json, "pods"));
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (is_built && is_to_be_named(pod))
			is_built = add_pod(array, pod, defaults);
	}
	if (!is_built || !(text = cJSON_PrintUnformatted(json)))
		return error_set(error, ENOMEM, "cannot write %s", FILE_NAME);
	if (file_make_directory(mesh->settings.run_dir, error) < 0 ||
	    file_join(mesh->settings.run_dir, FILE_NAME, error, &path) < 0)
		return -1;
	if (file_write(path, text, strlen(text), 0600, error) < 0)
		return -1;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		pod->is_written = is_to_be_named(pod);
	}
	return 0;
}

/* Those that wait for it have their turn; where nothing can be written, too: a full disk keeps no pod out of the mesh. */
static void let_in(struct mesh *mesh)
{
	struct mesh_pod *pod;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (!pod->is_entering)
			continue;
		pod->is_written = true;
		mesh_queue(pod);
	}
}

static int save_outside(struct mesh *mesh, struct error *error)
{
	struct mesh_namespace *entry;
	cleanup_free struct outside_namespace *list = calloc(mesh->namespaces_count + 1, sizeof *list);
	if (!list)
		return error_set(error, ENOMEM, "cannot write outside.json");
	/* Borrowed from the store. */
	struct outside outside = { .time = time(NULL), .namespaces = list };
	TAILQ_FOREACH(entry, &mesh->namespaces, all)
	{
		if (selection_namespace_is_outside(&mesh->settings.selection, entry->object))
			list[outside.count++] = (struct outside_namespace){ .name = entry->object->name,
									    .uid = entry->object->uid,
									    .has_enrolled_pod = entry->has_enrolled_pod };
	}
	return outside_write(mesh->settings.run_dir, &outside, error);
}

/* Attachments that do not say any more what stands in their pods. */
struct untrue {
	const struct mesh *mesh;
	struct attachment *attachments;
	size_t count;
};

static int collect_untrue(void *data, struct attachment *attachment, struct error *error)
{
	struct untrue *untrue = data;
	if (!attachment->pod_uid || !attachment->pod_namespace || !attachment->pod_name)
		return 0;
	const struct mesh_pod *pod =
		mesh_find_pod_of_sandbox(untrue->mesh, attachment->pod_namespace, attachment->pod_name, attachment->pod_uid);
	/* While an ADD is under way it writes them itself. */
	if (!pod || !pod->is_attachment_stale || pod->arrival || !pod->sandbox.container_id)
		return 0;
	/* An older sandbox, whose DEL comes later, is not enrolled any more: a restart must not take it for the pod's. */
	bool is_enrolled = pod->sandbox.standing == REDIRECT_STANDING_FULL &&
			   strcmp(pod->sandbox.container_id, attachment->container_id) == 0;
	if (attachment->is_enrolled == is_enrolled &&
	    (!is_enrolled || redirect_equal(&attachment->redirect, &pod->sandbox.in_force)))
		return 0;
	struct attachment *grown = reallocarray(untrue->attachments, untrue->count + 1, sizeof *grown);
	if (!grown)
		return error_set(error, ENOMEM, "cannot write attachments");
	untrue->attachments = grown;
	attachment->is_enrolled = is_enrolled;
	redirect_clear(&attachment->redirect);
	if (is_enrolled && redirect_copy(&pod->sandbox.in_force, error, &attachment->redirect) < 0)
		return -1;
	untrue->attachments[untrue->count++] = *attachment;
	*attachment = (struct attachment){ 0 };
	return 0;
}

static int save_attachments(struct mesh *mesh, struct error *error)
{
	struct untrue untrue = { .mesh = mesh };
	struct mesh_pod *pod;
	bool is_any = false;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	is_any |= pod->is_attachment_stale && pod->sandbox.container_id;
	int result = is_any ? attachment_list(mesh->settings.run_dir, collect_untrue, NULL, &untrue, error) : 0;
	for (size_t i = 0; i < untrue.count; i++) {
		if (result == 0)
			result = attachment_write(mesh->settings.run_dir, &untrue.attachments[i], error);
		attachment_clear(&untrue.attachments[i]);
	}
	free(untrue.attachments);
	if (result < 0)
		return -1;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (!pod->arrival)
			pod->is_attachment_stale = false;
	}
	return 0;
}

static void report(struct mesh *mesh, struct error *error)
{
	mesh->settings.metrics->reconcile_errors[METRICS_STEP_STATE]++;
	log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s; it is tried again", error->message);
	*error = (struct error){ 0 };
	mesh_arm(mesh->save, 5);
}

void mesh_save(evutil_socket_t fd, short what, void *data)
{
	struct mesh *mesh = data;
	struct error error = { 0 };
	(void)fd;
	(void)what;
	/* Before the first list a part would be written over the whole; after a successor came, ours over its. */
	if (mesh->is_stopped || !mesh_is_synced(mesh))
		return;
	double began = cpu_seconds();
	if (mesh->is_enrolled_dirty) {
		mesh->is_enrolled_dirty = save_enrolled(mesh, &error) < 0 || save_attachments(mesh, &error) < 0;
		if (mesh->is_enrolled_dirty)
			report(mesh, &error);
		let_in(mesh);
	}
	if (mesh->is_outside_dirty) {
		mesh->is_outside_dirty = save_outside(mesh, &error) < 0;
		if (mesh->is_outside_dirty)
			report(mesh, &error);
	}
	mesh->save_took = cpu_seconds() - began;
}

/* Adds what it does not have yet. */
static int recall_addresses(struct sandbox *sandbox, char **texts, size_t count)
{
	struct pod_address *addresses =
		reallocarray(sandbox->addresses, sandbox->addresses_count + count + 1, sizeof *addresses);
	if (!addresses)
		return -1;
	sandbox->addresses = addresses;
	for (size_t i = 0; i < count; i++) {
		struct pod_address *next = &addresses[sandbox->addresses_count];
		if (pod_address_parse(texts[i], next) && !pod_address_is_among(next, addresses, sandbox->addresses_count))
			sandbox->addresses_count++;
	}
	return 0;
}

int sandbox_remember(struct mesh_pod *pod, const struct attachment *attachment)
{
	struct sandbox *sandbox = &pod->sandbox;
	if (!sandbox->container_id || strcmp(sandbox->container_id, attachment->container_id) != 0) {
		sandbox->addresses_count = 0;
		sandbox->is_readdressed = false;
	}
	free(sandbox->container_id);
	free(sandbox->network);
	free(sandbox->netns_path);
	sandbox->container_id = strdup(attachment->container_id);
	sandbox->network = strdup(attachment->network);
	sandbox->netns_path = attachment->netns_path ? strdup(attachment->netns_path) : NULL;
	sandbox->id = attachment->netns;
	return sandbox->container_id && sandbox->network
		       ? recall_addresses(sandbox, attachment->addresses, attachment->addresses_count)
		       : -1;
}

/* Whether the remembered path still leads where it did. */
static bool leads_there(const struct mesh *mesh, const char *path, struct netns_id id)
{
	cleanup_close int netns = -1;
	return path && sandbox_open_path(mesh, path, id, NULL, &netns) == 0;
}

/* A version without marks may have been here since ours, or be our predecessor. */
static void mark(const struct mesh *mesh, const struct attachment *attachment)
{
	struct error error = { 0 };
	if (attachment_mark_found(mesh->settings.run_dir, attachment, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", error.message);
}

static int recall_attachment(void *data, struct attachment *attachment, struct error *error)
{
	struct mesh *mesh = data;
	(void)error;
	mark(mesh, attachment);
	if (!attachment->pod_uid || !attachment->pod_namespace || !attachment->pod_name)
		return 0;
	struct mesh_pod *pod = mesh_find_pod(mesh, attachment->pod_uid);
	if (!pod)
		pod = mesh_add_pod(mesh, attachment->pod_uid, attachment->pod_namespace, attachment->pod_name, "default");
	if (!pod)
		return 0;
	pod->is_attachment_stale = true;
	/* Of two sandboxes of a pod, the one that is alive is meant; of two that are alive, the one that is enrolled. */
	if (pod->sandbox.container_id && strcmp(pod->sandbox.container_id, attachment->container_id) != 0 &&
	    leads_there(mesh, pod->sandbox.netns_path, pod->sandbox.id) &&
	    (!attachment->is_enrolled || !leads_there(mesh, attachment->netns_path, attachment->netns)))
		return 0;
	sandbox_remember(pod, attachment);
	pod->sandbox.was_ours = attachment->is_enrolled;
	return 0;
}

static int prune_attachment(void *data, struct attachment *attachment, struct error *error)
{
	struct mesh *mesh = data;
	bool is_known = attachment->pod_namespace && attachment->pod_name &&
			mesh_find_pod_of_sandbox(mesh, attachment->pod_namespace, attachment->pod_name, attachment->pod_uid);
	if (is_known || !attachment->netns_path)
		return 0;
	if (leads_there(mesh, attachment->netns_path, attachment->netns)) {
		/* Its DEL may come still, or the runtime's chain lacks us at this moment. */
		mesh_arm(mesh->prune_attachments, PRUNE_AGAIN_AFTER);
		return 0;
	}
	log_write(mesh->settings.log, LOG_LEVEL_INFO, NULL,
		  "container %s is forgotten: its network namespace is gone, and it was of no pod that is known",
		  attachment->container_id);
	bool is_alone =
		attachment_is_alone(mesh->settings.run_dir, attachment->netns, attachment->container_id, attachment->interface);
	if (attachment_remove(mesh->settings.run_dir, attachment->container_id, attachment->interface, error) < 0)
		return -1;
	if (is_alone)
		attachment_unmark(mesh->settings.run_dir, attachment->netns);
	return 0;
}

void mesh_prune_attachments(evutil_socket_t fd, short what, void *data)
{
	struct mesh *mesh = data;
	struct error error = { 0 };
	(void)fd;
	(void)what;
	if (mesh->is_stopped)
		return;
	if (attachment_list(mesh->settings.run_dir, prune_attachment, NULL, mesh, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", error.message);
}

/* During an upgrade the predecessor serves plugins until our sockets stand: what it brought in after we read its state. */
static int recall_late(void *data, struct attachment *attachment, struct error *error)
{
	struct mesh *mesh = data;
	struct error problem = { 0 };
	(void)error;
	mark(mesh, attachment);
	if (!attachment->is_enrolled || !attachment->pod_uid || !attachment->pod_namespace || !attachment->pod_name)
		return 0;
	struct mesh_pod *pod =
		mesh_find_pod_of_sandbox(mesh, attachment->pod_namespace, attachment->pod_name, attachment->pod_uid);
	if (!pod || !pod->decision.wanted || pod->arrival || pod->is_torn_down || sandbox_is_held(&pod->sandbox) ||
	    !leads_there(mesh, attachment->netns_path, attachment->netns))
		return 0;
	/* No news: it is opened in the pod's own turn, which waits longer and longer where that fails. */
	if (pod->sandbox.container_id && strcmp(pod->sandbox.container_id, attachment->container_id) == 0)
		return 0;
	pod->is_attachment_stale = true;
	if (sandbox_remember(pod, attachment) < 0 || sandbox_reopen(pod, &problem) < 0)
		mesh_log(pod, LOG_LEVEL_WARN, "namespace", "%s", problem.message[0] ? problem.message : "no memory");
	else if (pod->sandbox.standing != REDIRECT_STANDING_NOTHING)
		pod->was_accepted = true;
	mesh_queue(pod);
	return 0;
}

void mesh_recall_late(struct mesh *mesh)
{
	struct error error = { 0 };
	if (attachment_list(mesh->settings.run_dir, recall_late, NULL, mesh, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", error.message);
}

static void report_corrupt(void *data, const char *message)
{
	const struct mesh *mesh = data;
	log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", message);
}

static int recall_pod(struct mesh *mesh, const cJSON *entry, const char *where, struct error *error)
{
	const char *uid = NULL, *namespace_name = NULL, *name = NULL, *service_account = NULL;
	const char *netns_path = NULL, *container = NULL;
	long device = 0, inode = 0;
	const cJSON *addresses = NULL, *redirect = NULL, *address;
	if (json_get_string(entry, "netnsPath", where, error, &netns_path) < 0 ||
	    json_get_integer(entry, "netnsDevice", where, 0, LONG_MAX, error, &device) < 0 ||
	    json_get_integer(entry, "netnsInode", where, 0, LONG_MAX, error, &inode) < 0 ||
	    json_get_string(entry, "container", where, error, &container) < 0 ||
	    json_get_string(entry, "uid", where, error, &uid) < 0 ||
	    json_get_string(entry, "namespace", where, error, &namespace_name) < 0 ||
	    json_get_string(entry, "name", where, error, &name) < 0 ||
	    json_get_string(entry, "serviceAccount", where, error, &service_account) < 0 ||
	    json_get_array(entry, "addresses", where, error, &addresses) < 0 ||
	    json_get_object(entry, "redirect", where, error, &redirect) < 0)
		return -1;
	if (!uid || !namespace_name || !name || !service_account)
		return error_set(error, 0, "%s: uid, namespace, name or serviceAccount is missing", where);
	/* After the attachments: what they know of the sandbox stays. */
	struct mesh_pod *pod = mesh_find_pod(mesh, uid);
	if (!pod)
		pod = mesh_add_pod(mesh, uid, namespace_name, name, service_account);
	if (!pod)
		return error_set(error, ENOMEM, "cannot keep %s", where);
	if (strcmp(pod->service_account, service_account) != 0) {
		/* An attachment does not tell it; with a wrong one the tunnel would drop the pod's traffic. */
		char *copy = strdup(service_account);
		if (!copy)
			return error_set(error, ENOMEM, "cannot keep %s", where);
		free(pod->service_account);
		pod->service_account = copy;
	}
	if (redirect && redirect_from_json(redirect, where, error, &pod->wanted) < 0)
		return -1;
	if (netns_path && !pod->sandbox.netns_path && (pod->sandbox.netns_path = strdup(netns_path)))
		pod->sandbox.id = (struct netns_id){ .device = (dev_t)device, .inode = (ino_t)inode };
	/* Its addresses have changed since its ADD, whose attachment names the old ones. */
	if (container && pod->sandbox.container_id && strcmp(pod->sandbox.container_id, container) == 0) {
		pod->sandbox.addresses_count = 0;
		pod->sandbox.is_readdressed = true;
	}
	if (pod->sandbox.addresses_count == 0) {
		char *texts[ATTACHMENT_ADDRESSES_MAX];
		size_t count = 0;
		cJSON_ArrayForEach (address, addresses) {
			if (cJSON_IsString(address) && count < ATTACHMENT_ADDRESSES_MAX)
				texts[count++] = address->valuestring;
		}
		recall_addresses(&pod->sandbox, texts, count);
	}
	pod->is_remembered = pod->is_written = true;
	pod->sandbox.was_ours = true;
	pod->decision =
		(struct selection_decision){ .wanted = true, .reason = "it was in the mesh before the agent restarted" };
	return 0;
}

static int recall_enrolled(struct mesh *mesh, const char *path, struct error *error)
{
	cleanup_free char *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	const cJSON *array = NULL, *entry;
	size_t length = 0, index = 0;
	long version = 0;
	if (file_read(path, FILE_MAX, error, &text, &length) < 0 ||
	    json_parse(text, length, FILE_MAX, path, error, &json) < 0 ||
	    json_get_integer(json, "version", "", VERSION, VERSION, error, &version) < 0 ||
	    json_get_array(json, "pods", "", error, &array) < 0)
		return -1;
	cJSON_ArrayForEach (entry, array) {
		char where[32];
		snprintf(where, sizeof where, "pods[%zu]", index++);
		if (recall_pod(mesh, entry, where, error) < 0)
			return error_wrap(error, "%s", path);
	}
	return 0;
}

void mesh_recall(struct mesh *mesh)
{
	struct error error = { 0 };
	cleanup_free char *path = NULL, *aside = NULL;
	attachment_unmark_abandoned(mesh->settings.run_dir);
	if (attachment_list(mesh->settings.run_dir, recall_attachment, report_corrupt, mesh, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", error.message);
	error = (struct error){ 0 };
	if (outside_read(mesh->settings.run_dir, &error, &mesh->outside) < 0 && error.number != ENOENT)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s; it is written anew", error.message);
	error = (struct error){ 0 };
	if (file_join(mesh->settings.run_dir, FILE_NAME, &error, &path) < 0 || recall_enrolled(mesh, path, &error) == 0 ||
	    error.number == ENOENT)
		return;
	/* What could not be read now may be as good as any: it stays until the list has come, and is written over. */
	if (error.number != 0) {
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL,
			  "what was remembered can't be used, the kernel tells the rest: %s", error.message);
		return;
	}
	if (asprintf(&aside, "%s.corrupt", path) < 0)
		aside = NULL;
	else
		rename(path, aside);
	log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL,
		  "what was remembered was set aside (%s.corrupt), the kernel tells the rest: %s", path, error.message);
}
