/* List and watch. See watch.h.
 *
 * One request is under way at a time: a streaming list (which becomes the watch), a page of a paged list, or a watch. Without
 * a resource version everything is listed; with one the watch goes on from it. What a server has refused once (streaming
 * lists: 400, 422, or an error event before the list's end) is asked for again at the next list, which costs one request and
 * needs no restart after its upgrade.
 *
 * The first page is asked for with resourceVersion=0, as client-go does: the API server then answers from its cache by the
 * index of node names, all at once, where a consistent read would walk all pods of the cluster. After a 410 it is the
 * consistent read, in pages. */
#include "installer/kube/watch.h"

#include <errno.h>
#include <event2/buffer.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/kube/list_scanner.h"

#define SERVER_SECONDS 300
#define SILENCE_MILLISECONDS 130000
#define BACKOFF_MILLISECONDS 500
#define BACKOFF_GROWTH_MAX 60
#define PAGE 100
#define HEAD_MILLISECONDS 30000
/* etcd holds no object above 1.5 MiB; its JSON may be longer. */
#define LINE_LIMIT ((size_t)4 * 1024 * 1024)
/* A server may send a whole list as one chunk, which evhttp holds until it is complete. */
#define LIST_CHUNK_LIMIT ((size_t)64 * 1024 * 1024)
/* What has lived that long was no failed try. */
#define SETTLED_MILLISECONDS 10000
#define REPEAT_MILLISECONDS 60000

enum step { STEP_STREAM, STEP_PAGE, STEP_WATCH };

struct kube_watch {
	struct event_base *base;
	struct kube_client *client;
	const struct log *log;
	struct source_listener listener;
	enum source_kind kind;
	const char *path;
	char *selector; /* "&fieldSelector=..." or "" */
	bool metadata_only;
	struct kube_watch_timing timing;

	enum step step;
	struct kube_request *request;
	struct event *timer; /* until the next try */
	unsigned failures;   /* in a row */
	uint64_t begun;	     /* the step, when; 0: no answer yet */
	bool *is_freed;	     /* set while a listener's function runs: whether it has freed us */

	char *resource_version; /* NULL: list */
	char *continue_token;	/* of the next page */
	bool streaming_is_refused, reads_consistently, is_whole;
	bool in_list; /* list_started has been said, list_finished has not */
	struct evbuffer *lines;
	struct kube_list_scanner scanner;
	struct error broken;   /* why the answer under way is of no use */
	bool is_expired;       /* 410: its state is gone */
	uint64_t expired_when; /* the last time that it was; 0: never */

	bool is_in_trouble;
	struct error said; /* logged last */
	uint64_t said_when;
};

static const char *const kind_names[] = { [SOURCE_NAMESPACE] = "namespaces", [SOURCE_POD] = "pods" };

static uint64_t now_milliseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Calls a function of the listener, which may free the watch; false: it did, return at once. */
#define TELL(watch, function, ...)                                                                                             \
	({                                                                                                                     \
		bool freed_ = false, *outer_ = (watch)->is_freed;                                                              \
		(watch)->is_freed = &freed_;                                                                                   \
		(watch)->listener.function((watch)->listener.data, (watch)->kind, ##__VA_ARGS__);                              \
		if (freed_ && outer_)                                                                                          \
			*outer_ = true;                                                                                        \
		if (!freed_)                                                                                                   \
			(watch)->is_freed = outer_;                                                                            \
		!freed_;                                                                                                       \
	})

static void arm(struct kube_watch *watch, uint64_t milliseconds)
{
	struct timeval time = { .tv_sec = (time_t)(milliseconds / 1000), .tv_usec = (suseconds_t)(milliseconds % 1000 * 1000) };
	evtimer_add(watch->timer, &time);
}

static int keep(char **kept, const char *text)
{
	char *copy = text && *text ? strdup(text) : NULL;
	if (text && *text && !copy)
		return -1;
	free(*kept);
	*kept = copy;
	return 0;
}

static void list_again(struct kube_watch *watch)
{
	keep(&watch->resource_version, NULL);
	keep(&watch->continue_token, NULL);
}

/* ---- Trouble and pauses. ---- */

/* False: the watch has been freed. */
static bool all_is_well(struct kube_watch *watch)
{
	if (!watch->is_in_trouble)
		return true;
	watch->is_in_trouble = false;
	log_write(watch->log, LOG_LEVEL_INFO, NULL, "watching %s works again", kind_names[watch->kind]);
	watch->said = (struct error){ 0 };
	return TELL(watch, trouble, NULL);
}

/* A try has failed. The next one comes after a pause, or `retry_after` if that is longer. */
static void try_later(struct kube_watch *watch, unsigned retry_after, const struct error *error)
{
	uint64_t now = now_milliseconds();
	if (watch->begun && now - watch->begun >= SETTLED_MILLISECONDS)
		watch->failures = 0;
	unsigned shift = watch->failures < 10 ? watch->failures : 10;
	uint64_t pause = (uint64_t)watch->timing.backoff_milliseconds << shift;
	if (pause > (uint64_t)watch->timing.backoff_milliseconds * BACKOFF_GROWTH_MAX)
		pause = (uint64_t)watch->timing.backoff_milliseconds * BACKOFF_GROWTH_MAX;
	pause = pause / 2 + arc4random_uniform((uint32_t)(pause / 2) + 1);
	if (pause < retry_after)
		pause = retry_after + arc4random_uniform(retry_after / 4 + 1);
	watch->failures++;
	arm(watch, pause);

	bool is_same = strcmp(watch->said.message, error->message) == 0;
	if (!is_same || now - watch->said_when >= REPEAT_MILLISECONDS) {
		log_write(watch->log, LOG_LEVEL_WARN, NULL, "cannot watch %s, trying again: %s", kind_names[watch->kind],
			  error->message);
		watch->said_when = now;
	}
	watch->said = *error;
	if (!watch->is_in_trouble || !is_same) {
		watch->is_in_trouble = true;
		/* The listener's reason is borrowed: it must outlive a freed watch. */
		struct error reason = *error;
		(void)TELL(watch, trouble, reason.message);
	}
}

/* Something ended that had worked: the next try comes soon, and it is no trouble yet. That it becomes if it happens again and
 * again before the watch has settled; twice is what a break makes that outlasts the server's memory. */
static void try_soon(struct kube_watch *watch, const struct error *error)
{
	if (watch->begun && now_milliseconds() - watch->begun >= SETTLED_MILLISECONDS)
		watch->failures = 0;
	if (watch->failures > 1) {
		try_later(watch, 0, error);
		return;
	}
	watch->failures++;
	log_write(watch->log, LOG_LEVEL_DEBUG, NULL, "watching %s goes on anew: %s", kind_names[watch->kind], error->message);
	unsigned pause = watch->timing.backoff_milliseconds;
	arm(watch, pause / 5 + arc4random_uniform(pause + 1));
}

/* The state that we were at is gone, and everything is listed anew. The server that says so is well again, however often it was
 * tried before; only one that says so again and again is not. */
static void list_soon(struct kube_watch *watch, const struct error *error)
{
	uint64_t now = now_milliseconds();
	if (!watch->expired_when || now - watch->expired_when >= SETTLED_MILLISECONDS)
		watch->failures = 0;
	watch->expired_when = now;
	watch->reads_consistently = true;
	list_again(watch);
	try_soon(watch, error);
}

/* ---- Objects. ---- */

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
			return list_is_finished(watch) && all_is_well(watch) ? 0 : 1;
		}
	} else {
		bool is_put = strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0;
		if (!is_put && strcmp(type, "DELETED") != 0)
			return error_say(error, EPROTO, "an event of the watch has the unknown type %.32s", type);
		if (!is_object(object))
			return error_say(error, EPROTO, "an object of the watch has no name");
		kube_client_statistics(watch->client)->watch_events[watch->kind]++;
		if (!(is_put ? TELL(watch, put, object) : TELL(watch, gone, object)))
			return 1;
	}
	/* In a list the objects come in no order: only its end says how far it is. */
	if (!watch->in_list && keep(&watch->resource_version, version) < 0)
		return error_set(error, ENOMEM, "cannot keep the resource version");
	return 0;
}

static int take_lines(struct kube_watch *watch, const char *bytes, size_t length, struct error *error)
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
		if (json_parse(line, line_length, LINE_LIMIT, "an event of the watch", error, &event) < 0)
			return -1;
		free(steal_pointer(line));
		int status = take_event(watch, event, error);
		if (status != 0)
			return status;
	}
	if (evbuffer_get_length(watch->lines) > LINE_LIMIT)
		return error_say(error, EMSGSIZE, "an event of the watch is longer than %zu bytes", LINE_LIMIT);
	return 0;
}

static bool take_item(void *data, const cJSON *item)
{
	struct kube_watch *watch = data;
	if (!is_object(item)) {
		/* Said at the end of the page. */
		error_say(&watch->broken, EPROTO, "an object of the list has no name");
		return true;
	}
	return TELL(watch, put, item);
}

/* The answer begins. False: freed. */
static bool begins(struct kube_watch *watch)
{
	if (watch->begun)
		return true;
	watch->begun = now_milliseconds();
	if (watch->step == STEP_WATCH)
		return all_is_well(watch);
	if (watch->step == STEP_PAGE && watch->continue_token)
		return true;
	watch->in_list = true;
	kube_client_statistics(watch->client)->watch_lists[watch->kind]++;
	return TELL(watch, list_started);
}

static void next_step(struct kube_watch *watch);

/* The answer is of no use: it is dropped. */
static void give_up(struct kube_watch *watch, const struct error *error)
{
	struct error copy = *error;
	kube_request_cancel(watch->request);
	watch->request = NULL;
	list_again(watch);
	if (watch->step == STEP_STREAM && watch->streaming_is_refused) {
		log_write(watch->log, LOG_LEVEL_DEBUG, NULL, "listing %s in pages: %s", kind_names[watch->kind], copy.message);
		arm(watch, 0);
		return;
	}
	kube_client_statistics(watch->client)->watch_restarts++;
	if (watch->is_expired)
		list_soon(watch, &copy);
	else
		try_later(watch, 0, &copy);
}

static void begun(void *data)
{
	(void)begins(data);
}

static void received(void *data, const char *bytes, size_t length)
{
	struct kube_watch *watch = data;
	if (!begins(watch))
		return;
	struct error error = { 0 };
	int status = watch->step == STEP_PAGE ? kube_list_scanner_take(&watch->scanner, bytes, length, &error)
					      : take_lines(watch, bytes, length, &error);
	if (status < 0)
		give_up(watch, &error);
}

/* ---- Ends. ---- */

/* The whole page has come. -1: begin anew; 1: freed. */
static int page_is_finished(struct kube_watch *watch, struct error *error)
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
	return list_is_finished(watch) && all_is_well(watch) ? 0 : 1;
}

/* A watch has ended as the server ends them all. Those that end at once must not make a busy loop. */
static void watch_is_over(struct kube_watch *watch)
{
	if (watch->begun && now_milliseconds() - watch->begun >= 1000) {
		watch->failures = 0;
		arm(watch, 0);
		return;
	}
	struct error error = { 0 };
	error_set(&error, 0, "the API server ends the watch as soon as it has begun");
	kube_client_statistics(watch->client)->watch_restarts++;
	try_later(watch, 0, &error);
}

static void ended(void *data, int status, const cJSON *object, unsigned retry_after, const struct error *error)
{
	struct kube_watch *watch = data;
	struct error problem = { 0 };
	watch->request = NULL;
	if (status == 200) {
		if (!begins(watch))
			return;
		if (watch->step == STEP_PAGE) {
			int result = page_is_finished(watch, &problem);
			if (result == 0)
				next_step(watch);
			else if (result < 0)
				give_up(watch, &problem);
			return;
		}
		if (evbuffer_get_length(watch->lines) > 0) {
			error_say(&problem, EPROTO, "the watch ended in the middle of an event");
			give_up(watch, &problem);
		} else if (watch->in_list) {
			error_say(&problem, EPROTO, "the watch ended in the middle of the list");
			give_up(watch, &problem);
		} else {
			watch_is_over(watch);
		}
		return;
	}
	(void)object;
	bool is_refusal_of_streaming = watch->step == STEP_STREAM && (status == 400 || status == 422);
	if (is_refusal_of_streaming) {
		watch->streaming_is_refused = true;
		next_step(watch);
		return;
	}
	kube_client_statistics(watch->client)->watch_restarts++;
	if (status == 410) {
		/* Of a list in pages even the read that it began with. */
		watch->is_whole = watch->continue_token != NULL;
		list_soon(watch, error);
		return;
	}
	/* A page that failed is asked for again, and so is a watch; unless we are at a place that there is not. */
	if (status == 400 || status == 404 || status == 422)
		list_again(watch);
	/* A server that has no streaming lists and does not say so. */
	if (watch->step == STEP_STREAM && !watch->resource_version && error->number == ETIMEDOUT)
		watch->streaming_is_refused = true;
	/* What was sent is no HTTP, or is too long: it would come again. */
	bool is_bad = status == 0 && (error->number == EMSGSIZE || error->number == EPROTO);
	if (is_bad)
		list_again(watch);
	if (status == 0 && watch->begun && !watch->in_list && !is_bad)
		try_soon(watch, error);
	else
		try_later(watch, retry_after, error);
}

/* ---- Steps. ---- */

static int make_path(struct kube_watch *watch, char **ret_path)
{
	unsigned seconds = watch->timing.server_seconds;
	cleanup_free char *version = watch->resource_version ? kube_escape(watch->resource_version) : NULL;
	cleanup_free char *token = watch->continue_token ? kube_escape(watch->continue_token) : NULL;
	switch (watch->step) {
	case STEP_STREAM:
	case STEP_WATCH:
		/* Spread by chance, so that the watches of many nodes don't end together. */
		seconds += arc4random_uniform(seconds / 3 + 1);
		return watch->step == STEP_STREAM
			       ? asprintf(ret_path,
					  "%s?watch=true&allowWatchBookmarks=true&sendInitialEvents=true"
					  "&resourceVersionMatch=NotOlderThan&timeoutSeconds=%u%s",
					  watch->path, seconds, watch->selector)
			       : asprintf(ret_path,
					  "%s?watch=true&allowWatchBookmarks=true&resourceVersion=%s&timeoutSeconds=%u%s",
					  watch->path, version ? version : "", seconds, watch->selector);
	case STEP_PAGE:
		if (token)
			return asprintf(ret_path, "%s?limit=%u&continue=%s%s", watch->path, watch->timing.page, token,
					watch->selector);
		if (watch->is_whole)
			return asprintf(ret_path, "%s?timeoutSeconds=60%s", watch->path, watch->selector);
		return asprintf(ret_path, "%s?limit=%u%s%s", watch->path, watch->timing.page,
				watch->reads_consistently ? "" : "&resourceVersion=0", watch->selector);
	}
	return -1;
}

static const char *accept_of(const struct kube_watch *watch)
{
	if (!watch->metadata_only)
		return "application/json";
	return watch->step == STEP_PAGE ? "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
					: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
}

static void next_step(struct kube_watch *watch)
{
	if (watch->resource_version)
		watch->step = STEP_WATCH;
	else if (watch->streaming_is_refused || watch->continue_token)
		watch->step = STEP_PAGE;
	else
		watch->step = STEP_STREAM;
	watch->begun = 0;
	if (!watch->continue_token)
		watch->in_list = false;
	watch->broken = (struct error){ 0 };
	watch->is_expired = false;
	evbuffer_drain(watch->lines, evbuffer_get_length(watch->lines));
	kube_list_scanner_clear(&watch->scanner);

	struct error error = { 0 };
	cleanup_free char *path = NULL;
	if (make_path(watch, &path) < 0) {
		path = NULL;
		error_set(&error, ENOMEM, "cannot ask for %s", kind_names[watch->kind]);
		try_later(watch, 0, &error);
		return;
	}
	const struct kube_call call = {
		.method = KUBE_GET,
		.path = path,
		.accept = accept_of(watch),
		.response_limit = watch->step == STEP_PAGE ? LIST_CHUNK_LIMIT : LINE_LIMIT,
		.deadline_milliseconds = HEAD_MILLISECONDS,
	};
	const struct kube_stream_listener listener = { .begun = begun, .received = received, .ended = ended, .data = watch };
	if (kube_client_stream(watch->client, &call, watch->timing.silence_milliseconds, &listener, &error, &watch->request) <
	    0)
		try_later(watch, 0, &error);
}

static void try_now(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	next_step(data);
}

int kube_watch_new(struct event_base *base, struct kube_client *client, const struct kube_watch_options *options,
		   const struct source_listener *listener, struct error *error, struct kube_watch **ret_watch)
{
	struct kube_watch *watch = calloc(1, sizeof *watch);
	if (!watch)
		return error_set(error, ENOMEM, "cannot watch %s", kind_names[options->kind]);
	watch->base = base;
	watch->client = client;
	watch->log = options->log;
	watch->listener = *listener;
	watch->kind = options->kind;
	watch->path = options->path;
	watch->metadata_only = options->metadata_only;
	watch->timing = options->timing;
	if (!watch->timing.server_seconds)
		watch->timing.server_seconds = SERVER_SECONDS;
	if (!watch->timing.silence_milliseconds)
		watch->timing.silence_milliseconds = SILENCE_MILLISECONDS;
	if (!watch->timing.backoff_milliseconds)
		watch->timing.backoff_milliseconds = BACKOFF_MILLISECONDS;
	if (!watch->timing.page)
		watch->timing.page = PAGE;
	watch->scanner = (struct kube_list_scanner){ .item = take_item, .data = watch, .limit = LINE_LIMIT };
	cleanup_free char *selector = options->field_selector ? kube_escape(options->field_selector) : NULL;
	watch->timer = evtimer_new(base, try_now, watch);
	watch->lines = evbuffer_new();
	if (!watch->timer || !watch->lines || (options->field_selector && !selector) ||
	    asprintf(&watch->selector, "%s%s", selector ? "&fieldSelector=" : "", selector ? selector : "") < 0) {
		watch->selector = NULL;
		kube_watch_free(watch);
		return error_set(error, ENOMEM, "cannot watch %s", kind_names[options->kind]);
	}
	arm(watch, 0);
	*ret_watch = watch;
	return 0;
}

void kube_watch_free(struct kube_watch *watch)
{
	if (!watch)
		return;
	if (watch->is_freed)
		*watch->is_freed = true;
	kube_request_cancel(watch->request);
	if (watch->timer)
		event_free(watch->timer);
	if (watch->lines)
		evbuffer_free(watch->lines);
	kube_list_scanner_clear(&watch->scanner);
	free(watch->selector);
	free(watch->resource_version);
	free(watch->continue_token);
	free(watch);
}
