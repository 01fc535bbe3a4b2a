/* List and watch: the steps. See watch.h, and watch_parts.h for the other parts.
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
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/json.h"
#include "installer/kube/pause.h"
#include "installer/kube/watch_parts.h"

#define SERVER_SECONDS 300
#define SILENCE_MILLISECONDS 130000
#define BACKOFF_MILLISECONDS 500
#define PAGE 100
#define HEAD_MILLISECONDS 30000
/* A server may send a whole list as one chunk, which evhttp holds until it is complete. */
#define LIST_CHUNK_LIMIT ((size_t)64 * 1024 * 1024)

static const char *const kind_names[] = { [SOURCE_NAMESPACE] = "namespaces", [SOURCE_POD] = "pods" };

const char *kube_watch_name(const struct kube_watch *watch)
{
	return kind_names[watch->kind];
}

/* The answer begins. False: freed. */
static bool begins(struct kube_watch *watch)
{
	if (watch->begun)
		return true;
	watch->begun = clock_milliseconds();
	if (watch->step == STEP_WATCH)
		return kube_watch_all_is_well(watch);
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
	kube_watch_list_again(watch);
	if (watch->step == STEP_STREAM && watch->streaming_is_refused) {
		log_write(watch->log, LOG_LEVEL_DEBUG, NULL, "listing %s in pages: %s", kube_watch_name(watch), copy.message);
		kube_arm(watch->timer, 0);
		return;
	}
	kube_client_statistics(watch->client)->watch_restarts++;
	if (watch->is_expired)
		kube_watch_list_soon(watch, &copy);
	else
		kube_watch_try_later(watch, 0, &copy);
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
					      : kube_watch_take_lines(watch, bytes, length, &error);
	if (status < 0)
		give_up(watch, &error);
}

/* A watch has ended as the server ends them all. Those that end at once must not make a busy loop. */
static void watch_is_over(struct kube_watch *watch)
{
	if (watch->begun && clock_milliseconds() - watch->begun >= 1000) {
		watch->failures = 0;
		kube_arm(watch->timer, 0);
		return;
	}
	struct error error = { 0 };
	error_set(&error, 0, "the API server ends the watch as soon as it has begun");
	kube_client_statistics(watch->client)->watch_restarts++;
	kube_watch_try_later(watch, 0, &error);
}

/* The whole answer of a 200 has come. */
static void ended_well(struct kube_watch *watch)
{
	struct error problem = { 0 };
	if (!begins(watch))
		return;
	if (watch->step == STEP_PAGE) {
		int result = kube_watch_page_is_finished(watch, &problem);
		if (result == 0)
			next_step(watch);
		else if (result < 0)
			give_up(watch, &problem);
	} else if (evbuffer_get_length(watch->lines) > 0) {
		error_say(&problem, EPROTO, "the watch ended in the middle of an event");
		give_up(watch, &problem);
	} else if (watch->in_list) {
		error_say(&problem, EPROTO, "the watch ended in the middle of the list");
		give_up(watch, &problem);
	} else {
		watch_is_over(watch);
	}
}

static void ended(void *data, int status, const cJSON *object, unsigned retry_after, const struct error *error)
{
	struct kube_watch *watch = data;
	(void)object;
	watch->request = NULL;
	if (status == 200) {
		ended_well(watch);
		return;
	}
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
		kube_watch_list_soon(watch, error);
		return;
	}
	/* A page that failed is asked for again, and so is a watch; unless we are at a place that there is not. */
	if (status == 400 || status == 404 || status == 422)
		kube_watch_list_again(watch);
	/* A server that has no streaming lists and does not say so. */
	if (watch->step == STEP_STREAM && !watch->resource_version && error->number == ETIMEDOUT)
		watch->streaming_is_refused = true;
	/* What was sent is no HTTP, or is too long: it would come again. */
	bool is_bad = status == 0 && (error->number == EMSGSIZE || error->number == EPROTO);
	if (is_bad)
		kube_watch_list_again(watch);
	if (status == 0 && watch->begun && !watch->in_list && !is_bad)
		kube_watch_try_soon(watch, error);
	else
		kube_watch_try_later(watch, retry_after, error);
}

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
		error_set(&error, ENOMEM, "cannot ask for %s", kube_watch_name(watch));
		kube_watch_try_later(watch, 0, &error);
		return;
	}
	const struct kube_call call = {
		.method = KUBE_GET,
		.path = path,
		.accept = accept_of(watch),
		.response_limit = watch->step == STEP_PAGE ? LIST_CHUNK_LIMIT : WATCH_LINE_LIMIT,
		.deadline_milliseconds = HEAD_MILLISECONDS,
	};
	const struct kube_stream_listener listener = { .begun = begun, .received = received, .ended = ended, .data = watch };
	if (kube_client_stream(watch->client, &call, watch->timing.silence_milliseconds, &listener, &error, &watch->request) <
	    0)
		kube_watch_try_later(watch, 0, &error);
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
	watch->scanner = (struct kube_list_scanner){ .item = kube_watch_take_item, .data = watch, .limit = WATCH_LINE_LIMIT };
	cleanup_free char *selector = options->field_selector ? kube_escape(options->field_selector) : NULL;
	watch->timer = evtimer_new(base, try_now, watch);
	watch->lines = evbuffer_new();
	if (!watch->timer || !watch->lines || (options->field_selector && !selector) ||
	    asprintf(&watch->selector, "%s%s", selector ? "&fieldSelector=" : "", selector ? selector : "") < 0) {
		watch->selector = NULL;
		kube_watch_free(watch);
		return error_set(error, ENOMEM, "cannot watch %s", kind_names[options->kind]);
	}
	kube_arm(watch->timer, 0);
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
