/* The namespaces known to be outside the mesh. See outside.h. */
#include "ambient/outside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"

#define VERSION 1
#define FILE_NAME "outside.json"
/* A cluster has up to some ten thousand namespaces. */
#define FILE_MAX (8 * 1024 * 1024)

void outside_clear(struct outside *outside)
{
	for (size_t i = 0; i < outside->count; i++) {
		free(outside->namespaces[i].name);
		free(outside->namespaces[i].uid);
	}
	free(outside->namespaces);
	*outside = (struct outside){ 0 };
}

static int read_namespace(const cJSON *json, const char *where, struct error *error, struct outside_namespace *entry)
{
	const char *name = NULL, *uid = NULL;
	if (!cJSON_IsObject(json))
		return error_set(error, 0, "%s: expected an object, found %s", where, json_type_name(json));
	if (json_get_string(json, "name", where, error, &name) < 0 || json_get_string(json, "uid", where, error, &uid) < 0 ||
	    json_get_bool(json, "hasEnrolledPod", where, error, &entry->has_enrolled_pod) < 0)
		return -1;
	if (!name || !uid)
		return error_set(error, 0, "%s: name or uid is missing", where);
	entry->name = strdup(name);
	entry->uid = strdup(uid);
	return entry->name && entry->uid ? 0 : error_set(error, ENOMEM, "cannot keep %s", where);
}

int outside_read(const char *run_dir, struct error *error, struct outside *ret_outside)
{
	cleanup_free char *path = NULL, *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	cleanup_outside struct outside outside = { 0 };
	size_t length = 0;
	long version = 0, seconds = 0;
	const cJSON *namespaces = NULL, *entry;
	if (file_join(run_dir, FILE_NAME, error, &path) < 0 || file_read(path, FILE_MAX, error, &text, &length) < 0 ||
	    json_parse(text, length, FILE_MAX, path, error, &json) < 0 ||
	    json_get_integer(json, "version", "", VERSION, VERSION, error, &version) < 0 ||
	    json_get_integer(json, "time", "", 0, 1L << 52, error, &seconds) < 0 ||
	    json_get_array(json, "namespaces", "", error, &namespaces) < 0)
		return error_wrap(error, "cannot tell which namespaces are outside the mesh");
	if (version != VERSION)
		return error_set(error, 0, "cannot tell which namespaces are outside the mesh: %s has no version", path);
	outside.time = (time_t)seconds;
	size_t count = (size_t)cJSON_GetArraySize(namespaces);
	outside.namespaces = calloc(count ? count : 1, sizeof *outside.namespaces);
	if (!outside.namespaces)
		return error_set(error, ENOMEM, "cannot read %s", path);
	cJSON_ArrayForEach (entry, namespaces) {
		char where[64];
		snprintf(where, sizeof where, "namespaces[%zu]", outside.count);
		if (read_namespace(entry, where, error, &outside.namespaces[outside.count++]) < 0)
			return error_wrap(error, "cannot tell which namespaces are outside the mesh: %s", path);
	}
	*ret_outside = outside;
	outside = (struct outside){ 0 };
	return 0;
}

bool outside_is_listed(const struct outside *outside, const char *namespace_name)
{
	for (size_t i = 0; i < outside->count; i++)
		if (strcmp(outside->namespaces[i].name, namespace_name) == 0)
			return !outside->namespaces[i].has_enrolled_pod;
	return false;
}

int outside_write(const char *run_dir, const struct outside *outside, struct error *error)
{
	cleanup_free char *path = NULL, *text = NULL;
	cleanup_cjson cJSON *json = cJSON_CreateObject();
	cJSON *namespaces = NULL;
	bool is_built = cJSON_AddNumberToObject(json, "version", VERSION) &&
			cJSON_AddNumberToObject(json, "time", (double)outside->time) &&
			(namespaces = cJSON_AddArrayToObject(json, "namespaces"));
	for (size_t i = 0; is_built && i < outside->count; i++) {
		cJSON *entry = cJSON_CreateObject();
		is_built = json_append(namespaces, entry) &&
			   cJSON_AddStringToObject(entry, "name", outside->namespaces[i].name) &&
			   cJSON_AddStringToObject(entry, "uid", outside->namespaces[i].uid) &&
			   cJSON_AddBoolToObject(entry, "hasEnrolledPod", outside->namespaces[i].has_enrolled_pod);
	}
	if (!is_built || !(text = cJSON_PrintUnformatted(json)))
		return error_set(error, ENOMEM, "cannot write %s/%s", run_dir, FILE_NAME);
	if (file_join(run_dir, FILE_NAME, error, &path) < 0 || file_make_directory(run_dir, error) < 0)
		return -1;
	return file_write(path, text, strlen(text), 0600, error);
}
