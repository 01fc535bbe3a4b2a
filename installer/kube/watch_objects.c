/* What comes of a watch: events, pages and their objects. See watch_parts.h. */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/kube/watch_parts.h"

/* NULL or "": keeps nothing. */
static int keep(char **kept, const char *text)
{
	char *copy = text && *text ? strdup(text) : NULL;
	if (text && *text && !copy)
		return -1;
	free(*kept);
	*kept = copy;
	return 0;
}

static const char *get_version(const cJSON *object)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "resourceVersion"));
}

/* An object is at least what has a name. */
static bool is_object(const cJSON *object)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "name"));
	return name && *name;
}

static bool is_end_of_list(const cJSON *bookmark)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(bookmark, "metadata");
	const cJSON *annotations = cJSON_GetObjectItemCaseSensitive(metadata, "annotations");
	const char *value = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(annotations, "k8s.io/initial-events-end"));
	return value && strcmp(value, "true") == 0;
}

static bool list_is_finished(struct kube_watch *watch)
{
	watch->in_list = false;
	/* What a list has taken in passing goes back to the system. */
	malloc_trim(0);
	watch->streaming_is_refused = watch->reads_consistently = watch->is_whole = false;
	return TELL(watch, list_finished);
}

/* -1: it could not be taken in; 1: the watch has been freed. */
static int put(struct kube_watch *watch, const cJSON *object, struct error *error)
{
	bool is_taken = true;
	if (!CALL(watch, is_taken = watch->listener.put(watch->listener.data, watch->kind, object)))
		return 1;
	return is_taken ? 0 : error_set(error, ENOMEM, "cannot take in all %s", kube_watch_name(watch));
}

/* An ERROR event: the watch is over, and everything is listed again. */
static int take_status(struct kube_watch *watch, const cJSON *status, struct error *error)
{
	const cJSON *code = cJSON_GetObjectItemCaseSensitive(status, "code");
	const char *message = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(status, "message"));
	int number = cJSON_IsNumber(code) ? code->valueint : 0;
	watch->is_expired = number == 410;
	/* The API server of 1.34 has accepted a streaming list before it finds that its etcd (below 3.4.25) is too old for one:
	 * "... the required storage feature RequestWatchProgress is disabled". */
	if (watch->step == STEP_STREAM && watch->in_list && !watch->is_expired)
		watch->streaming_is_refused = true;
	return error_say(error, EPROTO, "the API server ended the watch with %d: %s", number,
			 message ? message : "no reason given");
}

/* One event of a watch. -1: begin anew; 1: the watch has been freed. */
static int take_event(struct kube_watch *watch, const cJSON *event, struct error *error)
{
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "type"));
	const cJSON *object = cJSON_GetObjectItemCaseSensitive(event, "object");
	if (!type || !cJSON_IsObject(object))
		return error_say(error, EPROTO, "an event of the watch has no type or no object");
	if (strcmp(type, "ERROR") == 0)
		return take_status(watch, object, error);
	const char *version = get_version(object);
	if (!version || !*version)
		return error_say(error, EPROTO, "an event of the watch (%.32s) has no resourceVersion", type);
	if (strcmp(type, "BOOKMARK") == 0) {
		if (watch->in_list && is_end_of_list(object)) {
			if (keep(&watch->resource_version, version) < 0)
				return error_set(error, ENOMEM, "cannot keep the resource version");
			return list_is_finished(watch) && kube_watch_all_is_well(watch) ? 0 : 1;
		}
	} else {
		bool is_put = strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0;
		if (!is_put && strcmp(type, "DELETED") != 0)
			return error_say(error, EPROTO, "an event of the watch has the unknown type %.32s", type);
		if (!is_object(object))
			return error_say(error, EPROTO, "an object of the watch has no name");
		kube_client_statistics(watch->client)->watch_events[watch->kind]++;
		int status = is_put ? put(watch, object, error) : !TELL(watch, gone, object);
		if (status != 0)
			return status;
	}
	/* In a list the objects come in no order: only its end says how far it is. */
	if (!watch->in_list && keep(&watch->resource_version, version) < 0)
		return error_set(error, ENOMEM, "cannot keep the resource version");
	return 0;
}

int kube_watch_take_lines(struct kube_watch *watch, const char *bytes, size_t length, struct error *error)
{
	if (evbuffer_add(watch->lines, bytes, length) < 0)
		return error_set(error, ENOMEM, "cannot read the watch");
	for (;;) {
		size_t line_length;
		cleanup_free char *line = evbuffer_readln(watch->lines, &line_length, EVBUFFER_EOL_LF);
		if (!line)
			break;
		if (line_length == 0)
			continue;
		cleanup_cjson cJSON *event = NULL;
		if (json_parse(line, line_length, WATCH_LINE_LIMIT, "an event of the watch", error, &event) < 0)
			return -1;
		free(steal_pointer(line));
		int status = take_event(watch, event, error);
		if (status != 0)
			return status;
	}
	if (evbuffer_get_length(watch->lines) > WATCH_LINE_LIMIT)
		return error_say(error, EMSGSIZE, "an event of the watch is longer than %zu bytes", WATCH_LINE_LIMIT);
	return 0;
}

bool kube_watch_take_item(void *data, const cJSON *item)
{
	struct kube_watch *watch = data;
	/* What is wrong is said at the end of the page. */
	if (!is_object(item)) {
		error_say(&watch->broken, EPROTO, "an object of the list has no name");
		return true;
	}
	return put(watch, item, &watch->broken) <= 0;
}

int kube_watch_page_is_finished(struct kube_watch *watch, struct error *error)
{
	cleanup_cjson cJSON *list = NULL;
	if (error_is_set(&watch->broken))
		return error_say(error, watch->broken.number, "%s", watch->broken.message);
	if (kube_list_scanner_finish(&watch->scanner, error, &list) < 0)
		return -1;
	kube_list_scanner_clear(&watch->scanner);
	const char *version = get_version(list);
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(list, "metadata");
	const cJSON *items = cJSON_GetObjectItemCaseSensitive(list, "items");
	const char *more = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "continue"));
	if (!version || !*version || (items && !cJSON_IsArray(items) && !cJSON_IsNull(items)))
		return error_say(error, EPROTO, "what the API server sent is no list with a resourceVersion");
	if (keep(&watch->continue_token, more) < 0)
		return error_set(error, ENOMEM, "cannot keep the place in the list");
	if (watch->continue_token)
		return 0;
	if (keep(&watch->resource_version, version) < 0)
		return error_set(error, ENOMEM, "cannot keep the resource version");
	return list_is_finished(watch) && kube_watch_all_is_well(watch) ? 0 : 1;
}
