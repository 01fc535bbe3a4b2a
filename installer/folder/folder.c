/* The folder as a source. See folder.h.
 *
 * An event starts a short wait, then everything is looked at once: the folder's files (files.c), of which only those that
 * changed are read. What all files hold together is compared with what was published before, and the differences are told. A
 * slow timer looks as well, for what inotify does not show: a link's target, a path that leads elsewhere now. */
#include "installer/folder/folder.h"

#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "installer/folder/files.h"
#include "installer/folder/published.h"
#include "installer/folder/watch.h"

/* From the first event to the look: a program that writes three files gets one. */
#define SETTLE_MS 3
#define PERIODIC_MS 10000
#define NO_MEMORY_MS 1000

struct source_request {
	struct source_request *next;
	uint64_t round; /* of answers, at the time it was asked */
	char *key;
	source_answer answer;
	void *data;
};

struct folder {
	struct source_listener listener;
	struct folder_files files;
	struct folder_watch watch;
	struct folder_published published;
	struct event *readable, *timer, *answering;
	int64_t scan_at; /* milliseconds, when the timer runs */
	bool is_listed;
	char *folder_trouble;		   /* the folder as a whole; NULL: none */
	char *reported[SOURCE_KIND_COUNT]; /* as the listener knows it */
	struct source_request *requests;   /* the oldest first */
	uint64_t round;
};

/* The next look comes at `at` at the latest. */
static void schedule(struct folder *folder, int64_t at)
{
	const struct timeval time = clock_span(at - clock_milliseconds());
	if (folder->scan_at && folder->scan_at <= at)
		return;
	folder->scan_at = at;
	event_add(folder->timer, &time);
}

static void file_changed(void *data, const char *name, uint32_t mask)
{
	struct folder *folder = data;
	folder_files_changed(&folder->files, name, mask, clock_milliseconds());
}

static void everything_changed(void *data)
{
	struct folder *folder = data;
	folder_files_all_changed(&folder->files);
}

static struct folder_watch_listener watch_listener(struct folder *folder)
{
	return (struct folder_watch_listener){ .file = file_changed, .everything = everything_changed, .data = folder };
}

/* The sentence for a kind; NULL: all is well. Malloc'ed. */
static char *trouble_of(const struct folder *folder, enum source_kind kind)
{
	const char *first = folder->folder_trouble;
	size_t count = first ? 1 : 0;
	for (size_t i = 0; i < folder->files.count; i++) {
		const char *trouble = folder->files.items[i].trouble;
		first = first ? first : trouble;
		count += trouble != NULL;
	}
	const struct folder_duplicates *duplicates = &folder->published.duplicates[kind];
	first = first ? first : duplicates->first;
	count += duplicates->count;
	char *text = NULL;
	if (count > 0 && asprintf(&text, count > 1 ? "%s (and %zu more)" : "%s", first, count - 1) < 0)
		return NULL;
	return text;
}

static void report_trouble(struct folder *folder)
{
	for (enum source_kind kind = 0; kind < SOURCE_KIND_COUNT; kind++) {
		char *trouble = trouble_of(folder, kind), *before = folder->reported[kind];
		bool is_same = trouble && before ? strcmp(trouble, before) == 0 : trouble == before;
		folder->reported[kind] = trouble;
		if (!is_same)
			folder->listener.trouble(folder->listener.data, kind, trouble);
		free(before);
	}
}

/* Whether there is a file of which nothing is known. */
static bool knows_every_file(const struct folder *folder)
{
	for (size_t i = 0; i < folder->files.count; i++)
		if (!folder->files.items[i].has_been_read)
			return false;
	return true;
}

/* Looks at the folder now and tells the listener what changed. */
static void look(struct folder *folder)
{
	struct error error = { 0 };
	const struct folder_watch_listener listener = watch_listener(folder);
	folder_watch_read(&folder->watch, &listener);
	/* A folder that can't be watched is read all the same, now and then. */
	folder_watch_renew(&folder->watch, folder->files.path, &listener, &error);
	bool is_read = folder_files_scan(&folder->files, clock_milliseconds(), &error) == 0;
	free(folder->folder_trouble);
	folder->folder_trouble = error_is_set(&error) ? strdup(error.message) : NULL;

	if (folder->is_listed || (is_read && knows_every_file(folder))) {
		/* Without memory: the list comes later. */
		folder->is_listed =
			folder_published_update(&folder->published, &folder->files, &folder->listener, !folder->is_listed) == 0;
		if (!folder->is_listed)
			schedule(folder, clock_milliseconds() + NO_MEMORY_MS);
	}
	report_trouble(folder);
	if (folder->files.next_scan)
		schedule(folder, folder->files.next_scan);
	schedule(folder, clock_milliseconds() + PERIODIC_MS);
}

static void timer_ran(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct folder *folder = data;
	folder->scan_at = 0;
	look(folder);
}

static void watch_readable(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct folder *folder = data;
	const struct folder_watch_listener listener = watch_listener(folder);
	/* Read at once, although the look comes later: the kernel's queue is bounded. */
	folder_watch_read(&folder->watch, &listener);
	schedule(folder, clock_milliseconds() + SETTLE_MS);
}

static void request_free(struct source_request *request)
{
	free(request->key);
	free(request);
}

/* A pod that is not there may still be in a file that can't be read or is being written. */
static bool may_come(const struct folder *folder, struct error *error)
{
	if (folder->folder_trouble)
		return error_say(error, EAGAIN, "%s", folder->folder_trouble) < 0;
	for (size_t i = 0; i < folder->files.count; i++) {
		const struct folder_file *file = &folder->files.items[i];
		if (file->trouble)
			return error_say(error, EAGAIN, "%s", file->trouble) < 0;
		if (file->quiet_at || !file->has_been_read)
			return error_say(error, EAGAIN, "%s/%s is being written", folder->files.path, file->name) < 0;
	}
	if (!folder->is_listed)
		return error_say(error, EAGAIN, "the folder %s has not been read yet", folder->files.path) < 0;
	return false;
}

static void answer(struct folder *folder, const struct source_request *request)
{
	struct error error = { 0 };
	const struct folder_object *object = folder_published_find(&folder->published, SOURCE_POD, request->key);
	if (object)
		request->answer(request->data, SOURCE_DONE, object->json, NULL);
	else if (may_come(folder, &error))
		request->answer(request->data, SOURCE_FAILED, NULL, &error);
	else
		request->answer(request->data, SOURCE_GONE, NULL, NULL);
}

static void answer_requests(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct folder *folder = data;
	/* The ones that a listener or an answer asks come next time; it may cancel any. */
	uint64_t round = ++folder->round;
	look(folder);
	while (folder->requests && folder->requests->round < round) {
		struct source_request *request = folder->requests;
		folder->requests = request->next;
		answer(folder, request);
		request_free(request);
	}
	if (folder->requests)
		event_active(folder->answering, EV_TIMEOUT, 0);
}

static int folder_get_pod(void *self, const char *namespace_name, const char *name, source_answer answer_function, void *data,
			  struct error *error, struct source_request **ret_request)
{
	struct folder *folder = self;
	struct source_request *request = calloc(1, sizeof *request), **end = &folder->requests;
	if (!request)
		return error_set(error, ENOMEM, "cannot look for pod %s/%s", namespace_name, name);
	*request = (struct source_request){ .round = folder->round, .answer = answer_function, .data = data };
	if (asprintf(&request->key, "%s/%s", namespace_name, name) < 0) {
		free(request);
		return error_set(error, ENOMEM, "cannot look for pod %s/%s", namespace_name, name);
	}
	while (*end)
		end = &(*end)->next;
	*end = request;
	event_active(folder->answering, EV_TIMEOUT, 0);
	*ret_request = request;
	return 0;
}

static void folder_cancel(void *self, struct source_request *request)
{
	struct folder *folder = self;
	for (struct source_request **at = &folder->requests; *at; at = &(*at)->next) {
		if (*at != request)
			continue;
		*at = request->next;
		request_free(request);
		return;
	}
}

static void folder_free(void *self)
{
	struct folder *folder = self;
	if (!folder)
		return;
	while (folder->requests)
		folder_cancel(folder, folder->requests);
	if (folder->readable)
		event_free(folder->readable);
	if (folder->timer)
		event_free(folder->timer);
	if (folder->answering)
		event_free(folder->answering);
	folder_watch_close(&folder->watch);
	folder_published_clear(&folder->published);
	folder_files_clear(&folder->files);
	for (enum source_kind kind = 0; kind < SOURCE_KIND_COUNT; kind++)
		free(folder->reported[kind]);
	free(folder->folder_trouble);
	free(folder);
}

static void folder_freep(struct folder **folder)
{
	folder_free(*folder);
}

int folder_source_new(struct event_base *base, const char *path, const char *node_name, const struct source_listener *listener,
		      struct error *error, struct source *ret_source)
{
	__attribute__((cleanup(folder_freep))) struct folder *folder = calloc(1, sizeof *folder);
	if (!folder)
		return error_set(error, ENOMEM, "cannot keep the folder %s", path);
	folder->listener = *listener;
	folder->watch.fd = -1;
	if (folder_files_init(path, node_name, error, &folder->files) < 0 || folder_watch_open(error, &folder->watch) < 0)
		return -1;
	folder->readable = event_new(base, folder->watch.fd, EV_READ | EV_PERSIST, watch_readable, folder);
	folder->timer = event_new(base, -1, 0, timer_ran, folder);
	folder->answering = event_new(base, -1, 0, answer_requests, folder);
	if (!folder->readable || !folder->timer || !folder->answering || event_add(folder->readable, NULL) < 0)
		return error_set(error, ENOMEM, "cannot watch the folder %s", path);
	/* The first list comes from the loop. */
	schedule(folder, clock_milliseconds());
	*ret_source = (struct source){
		.self = steal_pointer(folder),
		.get_pod = folder_get_pod,
		.cancel = folder_cancel,
		.free = folder_free,
	};
	return 0;
}
