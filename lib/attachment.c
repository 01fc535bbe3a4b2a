/* Remembered attachments. See attachment.h. */
#include "ambient/attachment.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"

#define VERSION 1
#define FILE_MAX (256 * 1024)
#define CONTAINER_ID_MAX 128

void attachment_clear(struct attachment *attachment)
{
	free(attachment->network);
	free(attachment->container_id);
	free(attachment->interface);
	free(attachment->netns_path);
	free(attachment->pod_namespace);
	free(attachment->pod_name);
	free(attachment->pod_uid);
	for (size_t i = 0; i < attachment->addresses_count; i++)
		free(attachment->addresses[i]);
	free(attachment->addresses);
	redirect_clear(&attachment->redirect);
	*attachment = (struct attachment){ 0 };
}

bool attachment_container_id_is_valid(const char *container_id)
{
	if (!isalnum((unsigned char)container_id[0]) || strlen(container_id) > CONTAINER_ID_MAX)
		return false;
	for (const char *c = container_id; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_' && *c != '.' && *c != '-')
			return false;
	return true;
}

bool attachment_interface_is_valid(const char *interface)
{
	if (interface[0] == '\0' || strlen(interface) >= IFNAMSIZ || strcmp(interface, ".") == 0 ||
	    strcmp(interface, "..") == 0)
		return false;
	for (const char *c = interface; *c; c++)
		if (*c == '/' || *c == ':' || !isgraph((unsigned char)*c))
			return false;
	return true;
}

static bool add_text(cJSON *json, const char *key, const char *value)
{
	return !value || cJSON_AddStringToObject(json, key, value);
}

cJSON *attachment_to_json(const struct attachment *attachment)
{
	cleanup_cjson cJSON *json = cJSON_CreateObject();
	if (!add_text(json, "network", attachment->network) || !add_text(json, "containerID", attachment->container_id) ||
	    !add_text(json, "interface", attachment->interface) || !add_text(json, "netnsPath", attachment->netns_path) ||
	    !add_text(json, "podNamespace", attachment->pod_namespace) || !add_text(json, "podName", attachment->pod_name) ||
	    !add_text(json, "podUID", attachment->pod_uid) || !cJSON_AddBoolToObject(json, "enrolled", attachment->is_enrolled))
		return NULL;
	if (attachment->netns.inode != 0) {
		/* As text: a double holds 53 bits. */
		char device[32], inode[32];
		snprintf(device, sizeof device, "%llu", (unsigned long long)attachment->netns.device);
		snprintf(inode, sizeof inode, "%llu", (unsigned long long)attachment->netns.inode);
		cJSON *netns = cJSON_AddObjectToObject(json, "netns");
		if (!cJSON_AddStringToObject(netns, "device", device) || !cJSON_AddStringToObject(netns, "inode", inode))
			return NULL;
	}
	cJSON *addresses = cJSON_AddArrayToObject(json, "addresses");
	for (size_t i = 0; i < attachment->addresses_count; i++)
		if (!json_append(addresses, cJSON_CreateString(attachment->addresses[i])))
			return NULL;
	if (attachment->is_enrolled) {
		cJSON *redirect = redirect_to_json(&attachment->redirect);
		if (!cJSON_AddItemToObject(json, "redirect", redirect)) {
			cJSON_Delete(redirect);
			return NULL;
		}
	}
	return steal_pointer(json);
}

static int read_text(const cJSON *json, const char *key, const char *where, struct error *error, char **value)
{
	const char *text = NULL;
	if (json_get_string(json, key, where, error, &text) < 0)
		return -1;
	if (!text)
		return 0;
	*value = strdup(text);
	return *value ? 0 : error_set(error, ENOMEM, "cannot keep %s.%s", where, key);
}

static int read_number(const cJSON *json, const char *key, const char *where, struct error *error, unsigned long long *number)
{
	const char *text = NULL;
	if (json_get_string(json, key, where, error, &text) < 0)
		return -1;
	char *end = NULL;
	errno = 0;
	if (text)
		*number = strtoull(text, &end, 10);
	if (!text || errno != 0 || end == text || *end != '\0' || !isdigit((unsigned char)text[0]))
		return error_set(error, 0, "%s.%s: expected a decimal number in quotes", where, key);
	return 0;
}

static int read_netns(const cJSON *json, const char *where, struct error *error, struct netns_id *id)
{
	const cJSON *netns = NULL;
	unsigned long long device = 0, inode = 0;
	if (json_get_object(json, "netns", where, error, &netns) < 0)
		return -1;
	if (!netns)
		return 0;
	if (read_number(netns, "device", where, error, &device) < 0 || read_number(netns, "inode", where, error, &inode) < 0)
		return -1;
	*id = (struct netns_id){ .device = (dev_t)device, .inode = (ino_t)inode };
	return 0;
}

static int read_addresses(const cJSON *json, const char *where, struct error *error, struct attachment *attachment)
{
	const cJSON *array = NULL, *entry;
	if (json_get_array(json, "addresses", where, error, &array) < 0)
		return -1;
	size_t count = (size_t)cJSON_GetArraySize(array);
	if (count == 0)
		return 0;
	if (count > ATTACHMENT_ADDRESSES_MAX)
		return error_set(error, 0, "%s.addresses: expected at most %d, found %zu", where, ATTACHMENT_ADDRESSES_MAX,
				 count);
	attachment->addresses = calloc(count, sizeof *attachment->addresses);
	if (!attachment->addresses)
		return error_set(error, ENOMEM, "cannot keep %s.addresses", where);
	cJSON_ArrayForEach (entry, array) {
		if (!cJSON_IsString(entry))
			return error_set(error, 0, "%s.addresses[%zu]: expected a string, found %s", where,
					 attachment->addresses_count, json_type_name(entry));
		char *copy = strdup(entry->valuestring);
		if (!copy)
			return error_set(error, ENOMEM, "cannot keep %s.addresses", where);
		attachment->addresses[attachment->addresses_count++] = copy;
	}
	return 0;
}

int attachment_from_json(const cJSON *json, const char *where, struct error *error, struct attachment *ret_attachment)
{
	cleanup_attachment struct attachment attachment = { 0 };
	const cJSON *redirect = NULL;
	if (!cJSON_IsObject(json))
		return error_set(error, 0, "%s: expected an object, found %s", where, json_type_name(json));
	if (read_text(json, "network", where, error, &attachment.network) < 0 ||
	    read_text(json, "containerID", where, error, &attachment.container_id) < 0 ||
	    read_text(json, "interface", where, error, &attachment.interface) < 0 ||
	    read_text(json, "netnsPath", where, error, &attachment.netns_path) < 0 ||
	    read_text(json, "podNamespace", where, error, &attachment.pod_namespace) < 0 ||
	    read_text(json, "podName", where, error, &attachment.pod_name) < 0 ||
	    read_text(json, "podUID", where, error, &attachment.pod_uid) < 0 ||
	    read_netns(json, where, error, &attachment.netns) < 0 || read_addresses(json, where, error, &attachment) < 0 ||
	    json_get_bool(json, "enrolled", where, error, &attachment.is_enrolled) < 0 ||
	    json_get_object(json, "redirect", where, error, &redirect) < 0)
		return -1;
	if (!attachment.network || !attachment.container_id || !attachment_container_id_is_valid(attachment.container_id) ||
	    !attachment.interface || !attachment_interface_is_valid(attachment.interface))
		return error_set(error, 0, "%s: network, containerID or interface is missing or not allowed", where);
	redirect_init(&attachment.redirect);
	if (redirect) {
		char place[160];
		snprintf(place, sizeof place, "%s.redirect", where);
		if (redirect_from_json(redirect, place, error, &attachment.redirect) < 0)
			return -1;
	}
	*ret_attachment = attachment;
	attachment = (struct attachment){ 0 };
	return 0;
}

static int path_of(const char *run_dir, const char *container_id, const char *interface, struct error *error, char **ret_path)
{
	if (!attachment_container_id_is_valid(container_id) || !attachment_interface_is_valid(interface))
		return error_say(error, EINVAL, "container id \"%.64s\" or interface \"%.32s\" is not allowed", container_id,
				 interface);
	/* Neither may hold a colon. */
	char *path;
	if (asprintf(&path, "%s/attachments/%s:%s.json", run_dir, container_id, interface) < 0)
		return error_set(error, ENOMEM, "cannot name an attachment's file");
	*ret_path = path;
	return 0;
}

int attachment_write(const char *run_dir, const struct attachment *attachment, struct error *error)
{
	cleanup_free char *path = NULL, *directory = NULL, *text = NULL;
	cleanup_cjson cJSON *json = attachment_to_json(attachment);
	if (!json || !cJSON_AddNumberToObject(json, "version", VERSION) || !(text = cJSON_Print(json)))
		return error_set(error, ENOMEM, "cannot write an attachment's file");
	if (path_of(run_dir, attachment->container_id, attachment->interface, error, &path) < 0 ||
	    file_join(run_dir, "attachments", error, &directory) < 0 || file_make_directory(directory, error) < 0 ||
	    attachment_mark(run_dir, attachment, error) < 0)
		return -1;
	return file_write(path, text, strlen(text), 0600, error);
}

/* Reads one file; `ret_found` is false where there is none. */
static int read_file(const char *path, struct error *error, struct attachment *ret_attachment, bool *ret_found)
{
	cleanup_free char *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	size_t length = 0;
	long version = 0;
	struct error problem = { 0 };
	if (file_read(path, FILE_MAX, &problem, &text, &length) < 0) {
		if (problem.number == ENOENT) {
			*ret_found = false;
			return 0;
		}
		return error_copy(error, &problem);
	}
	if (json_parse(text, length, FILE_MAX, path, &problem, &json) == 0 &&
	    json_get_integer(json, "version", "", 1, VERSION, &problem, &version) == 0 &&
	    attachment_from_json(json, "attachment", &problem, ret_attachment) == 0) {
		*ret_found = true;
		return 0;
	}
	/* The file may be as good as any. */
	if (problem.number == ENOMEM)
		return error_say(error, ENOMEM, "%s", problem.message);
	char aside[4096];
	snprintf(aside, sizeof aside, "%s.corrupt", path);
	if (rename(path, aside) < 0)
		unlink(path);
	return error_set(error, 0, "%s can't be understood and was set aside as %s: %s", path, aside, problem.message);
}

int attachment_read(const char *run_dir, const char *container_id, const char *interface, struct error *error,
		    struct attachment *ret_attachment, bool *ret_found)
{
	cleanup_free char *path = NULL;
	if (path_of(run_dir, container_id, interface, error, &path) < 0)
		return -1;
	return read_file(path, error, ret_attachment, ret_found);
}

int attachment_remove(const char *run_dir, const char *container_id, const char *interface, struct error *error)
{
	cleanup_free char *path = NULL;
	if (path_of(run_dir, container_id, interface, error, &path) < 0)
		return -1;
	if (unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
		return error_set(error, errno, "cannot remove %s", path);
	return 0;
}

bool attachment_has_other_file(const char *run_dir, const char *container_id, const char *interface)
{
	cleanup_free char *directory = NULL, *prefix = NULL, *own = NULL;
	if (file_join(run_dir, "attachments", NULL, &directory) < 0 || asprintf(&prefix, "%s:", container_id) < 0 ||
	    asprintf(&own, "%s:%s.json", container_id, interface) < 0)
		return false;
	cleanup_closedir DIR *stream = opendir(directory);
	for (const struct dirent *entry = stream ? readdir(stream) : NULL; entry; entry = readdir(stream)) {
		size_t length = strlen(entry->d_name);
		if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 && strcmp(entry->d_name, own) != 0 && length > 5 &&
		    strcmp(entry->d_name + length - 5, ".json") == 0)
			return true;
	}
	return false;
}

bool attachment_has_other(const char *run_dir, const char *container_id, const char *interface, struct netns_id netns)
{
	return !attachment_is_alone(run_dir, netns, container_id, interface) &&
	       attachment_has_other_file(run_dir, container_id, interface);
}

int attachment_list(const char *run_dir, int (*visit)(void *data, struct attachment *attachment, struct error *error),
		    void (*corrupt)(void *data, const char *message), void *data, struct error *error)
{
	cleanup_free char *directory = NULL;
	if (file_join(run_dir, "attachments", error, &directory) < 0)
		return -1;
	cleanup_closedir DIR *stream = opendir(directory);
	if (!stream)
		return errno == ENOENT ? 0 : error_set(error, errno, "cannot list %s", directory);
	struct error missed = { 0 };
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (!entry && errno != 0)
			return error_set(error, errno, "cannot list %s", directory);
		if (!entry)
			return error_is_set(&missed) ? error_copy(error, &missed) : 0;
		size_t length = strlen(entry->d_name);
		if (file_is_abandoned(dirfd(stream), entry->d_name))
			unlinkat(dirfd(stream), entry->d_name, 0);
		if (length < 6 || strcmp(entry->d_name + length - 5, ".json") != 0)
			continue;
		cleanup_free char *path = NULL;
		cleanup_attachment struct attachment attachment = { 0 };
		bool found = false;
		struct error problem = { 0 };
		if (file_join(directory, entry->d_name, error, &path) < 0)
			return -1;
		if (read_file(path, &problem, &attachment, &found) < 0) {
			if (corrupt)
				corrupt(data, problem.message);
			else if (error_may_pass(problem.number))
				error_copy(&missed, &problem);
		} else if (found && visit(data, &attachment, error) < 0) {
			return -1;
		}
	}
}
