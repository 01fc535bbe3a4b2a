/* Answers of the API server to a list and a watch, good, cut and broken. kube_client_stream is replaced by the linker: each
 * request of the watch is answered by the next piece of the input, pieces end with a 0xff, and the first byte of a piece says
 * how: bit 0 to 1 the status, bit 2 whether the answer ends well, bits 3 to 6 into how small pieces it is cut. */
#include "installer/kube/watch.h"

#include <string.h>

#include "ambient/cleanup.h"
#include "tests/fuzz/fuzz.h"

struct kube_request {
	struct kube_stream_listener listener;
	bool is_cancelled;
	bool is_in_use;
};

static struct kube_request request;
static struct kube_statistics statistics;
static bool is_in_list[SOURCE_KIND_COUNT], is_refused;

int __wrap_kube_client_stream(struct kube_client *client, const struct kube_call *call, unsigned silence_milliseconds,
			      const struct kube_stream_listener *listener, struct error *error,
			      struct kube_request **ret_request);
void __wrap_kube_request_cancel(struct kube_request *cancelled);
struct kube_statistics *__wrap_kube_client_statistics(struct kube_client *client);
int __wrap_event_add(struct event *event, const struct timeval *time);
int __real_event_add(struct event *event, const struct timeval *time);

int __wrap_kube_client_stream(struct kube_client *client, const struct kube_call *call, unsigned silence_milliseconds,
			      const struct kube_stream_listener *listener, struct error *error,
			      struct kube_request **ret_request)
{
	(void)client, (void)silence_milliseconds, (void)error;
	HOLDS(!request.is_in_use); /* one at a time */
	HOLDS(call->path[0] == '/' && !strpbrk(call->path, " \r\n"));
	request = (struct kube_request){ .listener = *listener, .is_in_use = true };
	*ret_request = &request;
	return 0;
}

void __wrap_kube_request_cancel(struct kube_request *cancelled)
{
	if (cancelled) {
		HOLDS(cancelled == &request && request.is_in_use);
		request.is_in_use = false;
	}
}

struct kube_statistics *__wrap_kube_client_statistics(struct kube_client *client)
{
	(void)client;
	return &statistics;
}

/* No pauses. */
int __wrap_event_add(struct event *event, const struct timeval *time)
{
	static const struct timeval none;
	return __real_event_add(event, time ? &none : NULL);
}

static void list_started(void *data, enum source_kind kind)
{
	(void)data;
	is_in_list[kind] = true;
	is_refused = false;
}

static void changed(void *data, enum source_kind kind, const cJSON *object)
{
	(void)data, (void)kind;
	HOLDS(cJSON_IsObject(object));
	HOLDS(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, "metadata"), "name"));
}

/* A name that begins with an R is refused, as for want of memory: that list must not come to its end. */
static bool put(void *data, enum source_kind kind, const cJSON *object)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, "name"));
	changed(data, kind, object);
	is_refused |= name[0] == 'R';
	return name[0] != 'R';
}

static void list_finished(void *data, enum source_kind kind)
{
	(void)data;
	HOLDS(is_in_list[kind] && !is_refused);
	is_in_list[kind] = false;
}

static void trouble(void *data, enum source_kind kind, const char *reason)
{
	(void)data, (void)kind;
	HOLDS(!reason || reason[0]);
}

static void answer(uint8_t how, const char *bytes, size_t size)
{
	static const int statuses[] = { 200, 410, 400, 0 };
	int status = statuses[how & 3];
	struct kube_stream_listener listener = request.listener;
	struct error error = { 0 };
	if (status == 200) {
		listener.begun(listener.data);
		size_t piece = (how >> 3 & 15) * 8U + 1;
		for (size_t at = 0; request.is_in_use && at < size; at += piece)
			listener.received(listener.data, bytes + at, size - at < piece ? size - at : piece);
	}
	if (!request.is_in_use)
		return;
	request.is_in_use = false;
	if (status != 200 || (how & 4))
		error_set(&error, 104, "the connection broke");
	listener.ended(listener.data, status == 200 && (how & 4) ? 0 : status, NULL, 0, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	const struct log log = { .fd = -1 };
	const struct kube_watch_options options = { .kind = SOURCE_POD, .path = "/api/v1/pods", .log = &log };
	const struct source_listener listener = { list_started, put, changed, list_finished, trouble, NULL };
	struct event_base *base = event_base_new();
	struct kube_watch *watch = NULL;
	request = (struct kube_request){ 0 };
	memset(is_in_list, 0, sizeof is_in_list);
	is_refused = false;
	HOLDS(kube_watch_new(base, NULL, &options, &listener, &error, &watch) == 0);
	for (size_t at = 0; at < size;) {
		const uint8_t *end = memchr(data + at, 0xff, size - at);
		size_t next = end ? (size_t)(end - data) : size;
		for (int turn = 0; turn < 4 && !request.is_in_use; turn++)
			event_base_loop(base, EVLOOP_NONBLOCK);
		/* It never stops asking. */
		HOLDS(request.is_in_use);
		if (next > at)
			answer(data[at], (const char *)data + at + 1, next - at - 1);
		at = next + 1;
	}
	kube_watch_free(watch);
	HOLDS(!request.is_in_use);
	event_base_free(base);
	return 0;
}
