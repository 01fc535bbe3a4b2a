/* Plugin and installer: packets as JSON. See wire.h; sockets are in wire_socket.c. */
#include "ambient/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

#define VALID_MAX 4096

static const char *const kind_names[WIRE_KIND_COUNT] = {
	[WIRE_ADD] = "add",	  [WIRE_DECISION] = "decision", [WIRE_REPORT] = "report",
	[WIRE_RESULT] = "result", [WIRE_DEL] = "del",		[WIRE_GC] = "gc",
};
static const char *const verdict_names[] = { [WIRE_VERDICT_REDIRECT] = "redirect", [WIRE_VERDICT_SKIP] = "skip" };

void wire_message_clear(struct wire_message *message)
{
	attachment_clear(&message->attachment);
	redirect_clear(&message->redirect);
	free(message->reason);
	free(message->message);
	free(message->details);
	free(message->network);
	for (size_t i = 0; i < message->valid_count; i++) {
		free(message->valid[i].container_id);
		free(message->valid[i].interface);
	}
	free(message->valid);
	free(message->log);
	*message = (struct wire_message){ 0 };
}

static bool add_text(cJSON *json, const char *key, const char *value)
{
	return !value || cJSON_AddStringToObject(json, key, value);
}

static bool add_item(cJSON *json, const char *key, cJSON *item)
{
	if (cJSON_AddItemToObject(json, key, item))
		return true;
	cJSON_Delete(item);
	return false;
}

static bool add_valid(cJSON *json, const struct wire_message *message)
{
	cJSON *array = cJSON_AddArrayToObject(json, "valid");
	for (size_t i = 0; i < message->valid_count; i++) {
		cJSON *entry = cJSON_CreateObject();
		if (!json_append(array, entry) ||
		    !cJSON_AddStringToObject(entry, "containerID", message->valid[i].container_id) ||
		    !cJSON_AddStringToObject(entry, "interface", message->valid[i].interface))
			return false;
	}
	return array != NULL;
}

static bool add_body(cJSON *json, const struct wire_message *message)
{
	switch (message->kind) {
	case WIRE_ADD:
		return add_item(json, "attachment", attachment_to_json(&message->attachment)) &&
		       (message->timeout_milliseconds == 0 ||
			cJSON_AddNumberToObject(json, "timeoutMilliseconds", (double)message->timeout_milliseconds));
	case WIRE_DEL:
		return add_item(json, "attachment", attachment_to_json(&message->attachment));
	case WIRE_DECISION:
		return cJSON_AddStringToObject(json, "decision", verdict_names[message->verdict]) &&
		       add_text(json, "reason", message->reason) &&
		       (message->verdict != WIRE_VERDICT_REDIRECT ||
			add_item(json, "redirect", redirect_to_json(&message->redirect)));
	case WIRE_REPORT:
		return add_text(json, "error", message->message);
	case WIRE_RESULT:
		return cJSON_AddNumberToObject(json, "code", message->code) && add_text(json, "message", message->message) &&
		       add_text(json, "details", message->details);
	case WIRE_GC:
		return add_text(json, "network", message->network) && add_valid(json, message);
	default:
		return false;
	}
}

int wire_encode(const struct wire_message *message, struct error *error, char **ret_text)
{
	cleanup_cjson cJSON *json = cJSON_CreateObject();
	if (!cJSON_AddStringToObject(json, "type", kind_names[message->kind]) ||
	    !cJSON_AddNumberToObject(json, "version", WIRE_VERSION) ||
	    !cJSON_AddNumberToObject(json, "minimumVersion", WIRE_VERSION_MINIMUM) || !add_body(json, message) ||
	    !add_text(json, "log", message->log))
		return error_set(error, ENOMEM, "cannot build a message");
	cleanup_free char *text = cJSON_PrintUnformatted(json);
	if (!text)
		return error_set(error, ENOMEM, "cannot build a message");
	if (strlen(text) > WIRE_PACKET_MAX)
		return error_say(error, EMSGSIZE, "a message of type %s has %zu bytes, at most %d fit",
				 kind_names[message->kind], strlen(text), WIRE_PACKET_MAX);
	*ret_text = steal_pointer(text);
	return 0;
}

static int read_text(const cJSON *json, const char *key, struct error *error, char **value)
{
	const char *text = NULL;
	if (json_get_string(json, key, "", error, &text) < 0)
		return -1;
	if (!text)
		return 0;
	*value = strdup(text);
	return *value ? 0 : error_set(error, ENOMEM, "cannot keep %s", key);
}

static int read_needed_text(const cJSON *json, const char *key, struct error *error, char **value)
{
	if (read_text(json, key, error, value) < 0)
		return -1;
	return *value ? 0 : error_set(error, 0, "%s is missing", key);
}

static int read_versions(const cJSON *json, struct error *error, struct wire_message *message)
{
	long version = 0, minimum = 0;
	if (json_get_integer(json, "version", "", 1, 1000000, error, &version) < 0 ||
	    json_get_integer(json, "minimumVersion", "", 1, 1000000, error, &minimum) < 0)
		return -1;
	if (version == 0 || minimum == 0 || minimum > version)
		return error_set(error, 0, "version and minimumVersion are missing or contradict each other");
	if (minimum > WIRE_VERSION)
		return error_say(error, EPROTONOSUPPORT,
				 "the other side speaks version %ld and understands none before %ld, this one speaks %d: it is "
				 "the older of plugin and installer and must be upgraded",
				 version, minimum, WIRE_VERSION);
	if (version < WIRE_VERSION_MINIMUM)
		return error_say(error, EPROTONOSUPPORT,
				 "the other side speaks version %ld, this one understands none before %d: the other is the "
				 "older of plugin and installer and must be upgraded",
				 version, WIRE_VERSION_MINIMUM);
	message->version = (int)version;
	message->version_minimum = (int)minimum;
	return 0;
}

static int read_kind(const cJSON *json, struct error *error, struct wire_message *message)
{
	const char *type = NULL;
	if (json_get_string(json, "type", "", error, &type) < 0)
		return -1;
	for (int kind = 0; type && kind < WIRE_KIND_COUNT; kind++) {
		if (strcmp(kind_names[kind], type) == 0) {
			message->kind = (enum wire_kind)kind;
			return 0;
		}
	}
	return error_set(error, 0, "type: expected add, decision, report, result, del or gc, found %.32s",
			 type ? type : "nothing");
}

static int read_decision(const cJSON *json, struct error *error, struct wire_message *message)
{
	const char *verdict = NULL;
	const cJSON *redirect = NULL;
	if (json_get_string(json, "decision", "", error, &verdict) < 0 ||
	    read_text(json, "reason", error, &message->reason) < 0 ||
	    json_get_object(json, "redirect", "", error, &redirect) < 0)
		return -1;
	if (verdict && strcmp(verdict, verdict_names[WIRE_VERDICT_SKIP]) == 0) {
		message->verdict = WIRE_VERDICT_SKIP;
		return 0;
	}
	if (!verdict || strcmp(verdict, verdict_names[WIRE_VERDICT_REDIRECT]) != 0)
		return error_set(error, 0, "decision: expected redirect or skip, found %.32s", verdict ? verdict : "nothing");
	if (!redirect)
		return error_set(error, 0, "redirect is missing");
	message->verdict = WIRE_VERDICT_REDIRECT;
	redirect_init(&message->redirect);
	return redirect_from_json(redirect, "redirect", error, &message->redirect);
}

static int read_result(const cJSON *json, struct error *error, struct wire_message *message)
{
	long code = -1;
	if (json_get_integer(json, "code", "", 0, 65535, error, &code) < 0 ||
	    read_text(json, "message", error, &message->message) < 0 ||
	    read_text(json, "details", error, &message->details) < 0)
		return -1;
	if (code < 0 || (code != 0 && !message->message))
		return error_set(error, 0, "%s is missing", code < 0 ? "code" : "message");
	message->code = (int)code;
	return 0;
}

static int read_valid(const cJSON *json, struct error *error, struct wire_message *message)
{
	const cJSON *array = NULL, *entry;
	if (json_get_array(json, "valid", "", error, &array) < 0)
		return -1;
	if (!array)
		return error_set(error, 0, "valid is missing");
	size_t count = (size_t)cJSON_GetArraySize(array);
	if (count > VALID_MAX)
		return error_set(error, 0, "valid: expected at most %d entries, found %zu", VALID_MAX, count);
	message->valid = calloc(count ? count : 1, sizeof *message->valid);
	if (!message->valid)
		return error_set(error, ENOMEM, "cannot keep the valid attachments");
	cJSON_ArrayForEach (entry, array) {
		struct wire_valid_attachment *valid = &message->valid[message->valid_count++];
		if (read_needed_text(entry, "containerID", error, &valid->container_id) < 0 ||
		    read_needed_text(entry, "interface", error, &valid->interface) < 0)
			return error_wrap(error, "valid[%zu]", message->valid_count - 1);
	}
	return 0;
}

static int read_body(const cJSON *json, struct error *error, struct wire_message *message)
{
	switch (message->kind) {
	case WIRE_ADD:
		if (json_get_integer(json, "timeoutMilliseconds", "", 1, WIRE_TIMEOUT_MAX, error,
				     &message->timeout_milliseconds) < 0)
			return -1;
		/* fallthrough */
	case WIRE_DEL:
		return attachment_from_json(cJSON_GetObjectItemCaseSensitive(json, "attachment"), "attachment", error,
					    &message->attachment);
	case WIRE_DECISION:
		return read_decision(json, error, message);
	case WIRE_REPORT:
		return read_text(json, "error", error, &message->message);
	case WIRE_RESULT:
		return read_result(json, error, message);
	case WIRE_GC:
		return read_needed_text(json, "network", error, &message->network) < 0 ? -1 : read_valid(json, error, message);
	default:
		return error_set(error, EINVAL, "unknown type");
	}
}

int wire_decode(const char *text, size_t length, struct error *error, struct wire_message *ret_message)
{
	cleanup_wire_message struct wire_message message = { 0 };
	cleanup_cjson cJSON *json = NULL;
	if (json_parse(text, length, WIRE_PACKET_MAX, "message", error, &json) < 0)
		return -1;
	if (!cJSON_IsObject(json))
		return error_set(error, 0, "message: expected an object, found %s", json_type_name(json));
	if (read_versions(json, error, &message) < 0 || read_kind(json, error, &message) < 0)
		return -1;
	if (read_body(json, error, &message) < 0 || read_text(json, "log", error, &message.log) < 0)
		return error_wrap(error, "message of type %s", kind_names[message.kind]);
	*ret_message = message;
	message = (struct wire_message){ 0 };
	return 0;
}
