/* The namespaces and pods in one file of a folder. See object.h. */
#include "installer/folder/object.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/folder/folder.h"
#include "installer/yaml.h"

static const char *const kind_names[] = { [SOURCE_NAMESPACE] = "Namespace", [SOURCE_POD] = "Pod" };

const char *folder_kind_name(enum source_kind kind)
{
	return kind_names[kind];
}

struct folder_object *folder_object_get(struct folder_object *object)
{
	object->references++;
	return object;
}

void folder_object_put(struct folder_object *object)
{
	if (!object || --object->references > 0)
		return;
	cJSON_Delete(object->json);
	free(object->key);
	free(object);
}

void folder_objects_clear(struct folder_objects *objects)
{
	for (size_t i = 0; i < objects->count; i++)
		folder_object_put(objects->items[i]);
	free(objects->items);
	*objects = (struct folder_objects){ 0 };
}

void folder_object_uid(enum source_kind kind, const char *namespace_name, const char *name, char ret_uid[FOLDER_UID_MAX])
{
	unsigned char digest[EVP_MAX_MD_SIZE] = { 0 };
	char text[1024];
	int length = snprintf(text, sizeof text, "%s/%s/%s", kind_names[kind], namespace_name, name);
	size_t used = (size_t)length < sizeof text ? (size_t)length : sizeof text - 1;
	EVP_Digest(text, used, digest, NULL, EVP_sha256(), NULL);
	digest[6] = (digest[6] & 0x0f) | 0x80; /* version 8 */
	digest[8] = (digest[8] & 0x3f) | 0x80; /* the variant of RFC 9562 */
	char *at = ret_uid;
	for (size_t i = 0; i < 16; i++)
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", digest[i]);
}

struct reader {
	const struct yaml *yaml;
	const char *what;
	const char *node_name;
	struct error *error;
	struct folder_objects objects;
};

static int no_memory(const struct reader *reader)
{
	return error_set(reader->error, ENOMEM, "cannot read %s", reader->what);
}

/* The line where a value stands, or the object around it. */
static int wrong(const struct reader *reader, const cJSON *value, const cJSON *around, const char *problem)
{
	size_t line = yaml_line(reader->yaml, value);
	line = line ? line : yaml_line(reader->yaml, around);
	if (line == 0)
		return error_set(reader->error, 0, "%s: %s", reader->what, problem);
	return error_set(reader->error, 0, "%s, line %zu: %s", reader->what, line, problem);
}

/* metadata.KEY where it is a string that is not empty. */
static const char *get_text(const cJSON *object, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
	return text && text[0] ? text : NULL;
}

/* What is large, changes often and concerns no node agent: without it an object is small, and its change no event. */
static void drop_ballast(cJSON *object)
{
	static const char *const ballast[][2] = {
		{ "metadata", "managedFields" },
		{ "metadata", "resourceVersion" },
		{ "spec", "volumes" },
		{ "spec", "tolerations" },
		{ "spec", "affinity" },
		{ "status", "conditions" },
		{ "status", "containerStatuses" },
		{ "status", "initContainerStatuses" },
		{ "status", "ephemeralContainerStatuses" },
	};
	for (size_t i = 0; i < sizeof ballast / sizeof ballast[0]; i++)
		cJSON_DeleteItemFromObjectCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, ballast[i][0]), ballast[i][1]);
}

/* Gives the object a uid where it has none. */
static int complete(const struct reader *reader, enum source_kind kind, cJSON *metadata)
{
	const cJSON *uid = cJSON_GetObjectItemCaseSensitive(metadata, "uid");
	if (cJSON_IsString(uid) && uid->valuestring[0])
		return 0;
	if (uid && !cJSON_IsString(uid) && !cJSON_IsNull(uid))
		return wrong(reader, uid, metadata, "metadata.uid: expected a string");
	char made[FOLDER_UID_MAX];
	const char *namespace_name = kind == SOURCE_POD ? get_text(metadata, "namespace") : "";
	folder_object_uid(kind, namespace_name, get_text(metadata, "name"), made);
	cJSON_DeleteItemFromObjectCaseSensitive(metadata, "uid");
	return cJSON_AddStringToObject(metadata, "uid", made) ? 0 : no_memory(reader);
}

/* Takes the object, also on failure. */
static int add(struct reader *reader, enum source_kind kind, cJSON *object)
{
	cleanup_cjson cJSON *json = object;
	cJSON *metadata = cJSON_GetObjectItemCaseSensitive(json, "metadata");
	const char *name = get_text(metadata, "name"), *namespace_name = get_text(metadata, "namespace");
	if (!name)
		return wrong(reader, cJSON_GetObjectItemCaseSensitive(metadata, "name"), json,
			     kind == SOURCE_POD ? "a Pod without metadata.name" : "a Namespace without metadata.name");
	if (kind == SOURCE_POD && !namespace_name)
		return wrong(reader, cJSON_GetObjectItemCaseSensitive(metadata, "namespace"), json,
			     "a Pod without metadata.namespace");
	const char *node_name = get_text(cJSON_GetObjectItemCaseSensitive(json, "spec"), "nodeName");
	if (kind == SOURCE_POD && node_name && strcmp(node_name, reader->node_name) != 0)
		return 0;
	if (complete(reader, kind, metadata) < 0)
		return -1;
	drop_ballast(json);

	struct folder_objects *objects = &reader->objects;
	struct folder_object **items = reallocarray(objects->items, objects->count + 1, sizeof *items);
	if (!items)
		return no_memory(reader);
	objects->items = items;
	struct folder_object *made = calloc(1, sizeof *made);
	if (!made)
		return no_memory(reader);
	*made = (struct folder_object){ .references = 1, .kind = kind };
	objects->items[objects->count++] = made;
	if (asprintf(&made->key, "%s%s%s", kind == SOURCE_POD ? namespace_name : "", kind == SOURCE_POD ? "/" : "", name) < 0) {
		made->key = NULL;
		return no_memory(reader);
	}
	made->uid = get_text(metadata, "uid");
	made->json = steal_pointer(json);
	return 0;
}

static int take(struct reader *reader, cJSON *object, const char *item_kind);

/* The members of kind List, or of a NamespaceList or PodList, whose members may lack their kind. */
static int take_list(struct reader *reader, cJSON *list, const char *kind)
{
	char item_kind[64];
	snprintf(item_kind, sizeof item_kind, "%.*s", (int)(strlen(kind) - strlen("List")), kind);
	cJSON *items = cJSON_GetObjectItemCaseSensitive(list, "items");
	if (items && !cJSON_IsArray(items) && !cJSON_IsNull(items))
		return wrong(reader, items, list, "items: expected a list");
	while (items && items->child)
		if (take(reader, cJSON_DetachItemFromArray(items, 0), item_kind) < 0)
			return -1;
	return 0;
}

/* Takes the object, also on failure. `item_kind` counts where it names none itself. */
static int take(struct reader *reader, cJSON *object, const char *item_kind)
{
	cleanup_cjson cJSON *json = object;
	if (cJSON_IsNull(json))
		return 0;
	if (!cJSON_IsObject(json)) {
		char problem[128];
		snprintf(problem, sizeof problem, "expected a Kubernetes object, found %s", json_type_name(json));
		return wrong(reader, json, NULL, problem);
	}
	const char *kind = get_text(json, "kind"), *version = get_text(json, "apiVersion");
	kind = kind ? kind : item_kind;
	if (!kind[0])
		return wrong(reader, cJSON_GetObjectItemCaseSensitive(json, "kind"), json,
			     "an object without kind, expected Namespace, Pod or List");
	/* Kinds of the same name in other groups are no concern of ours. */
	if (version && strcmp(version, "v1") != 0)
		return 0;
	if (strcmp(kind, "List") == 0 || strcmp(kind, "PodList") == 0 || strcmp(kind, "NamespaceList") == 0)
		return take_list(reader, json, kind);
	for (enum source_kind i = 0; i < SOURCE_KIND_COUNT; i++)
		if (strcmp(kind, kind_names[i]) == 0)
			return add(reader, i, steal_pointer(json));
	return 0;
}

int folder_objects_read(const char *text, size_t length, const char *what, const char *node_name, struct error *error,
			struct folder_objects *ret_objects)
{
	cleanup_yaml struct yaml yaml = { 0 };
	if (yaml_parse(text, length, length, what, error, &yaml) < 0)
		return -1;
	struct reader reader = { .yaml = &yaml, .what = what, .node_name = node_name, .error = error };
	while (yaml.documents->child) {
		if (take(&reader, cJSON_DetachItemFromArray(yaml.documents, 0), "") == 0)
			continue;
		folder_objects_clear(&reader.objects);
		return -1;
	}
	*ret_objects = reader.objects;
	return 0;
}
