/* A request: from the call to its end. See client_parts.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/clock.h"
#include "installer/kube/client_parts.h"
#include "installer/kube/pause.h"

#define DEADLINE_MILLISECONDS 30000
#define RESPONSE_LIMIT ((size_t)4 * 1024 * 1024)

static struct kube_request_list *list_of(struct kube_request *request)
{
	struct kube_client *client = request->client;
	switch (request->state) {
	case REQUEST_QUEUED:
		return &client->queue;
	case REQUEST_RUNNING:
		return &client->running;
	case REQUEST_PAUSED:
		return &client->paused;
	case REQUEST_DELIVERING:
		break;
	}
	return NULL;
}

void kube_request_set_state(struct kube_request *request, enum kube_request_state state)
{
	struct kube_request_list *list = list_of(request);
	if (list)
		TAILQ_REMOVE(list, request, link);
	request->state = state;
	list = list_of(request);
	/* Streams first: a source that stands still is worse than a patch that waits. */
	if (list && state == REQUEST_QUEUED && request->is_stream)
		TAILQ_INSERT_HEAD(list, request, link);
	else if (list)
		TAILQ_INSERT_TAIL(list, request, link);
}

void kube_request_set_news(struct kube_request *request)
{
	if (!request->has_news) {
		request->has_news = true;
		TAILQ_INSERT_TAIL(&request->client->news, request, news_link);
	}
	kube_client_set_off_work(request->client);
}

void kube_request_free(struct kube_request *request)
{
	if (request->has_news)
		TAILQ_REMOVE(&request->client->news, request, news_link);
	struct kube_request_list *list = list_of(request);
	if (list)
		TAILQ_REMOVE(list, request, link);
	if (request->timer)
		event_free(request->timer);
	if (request->received)
		evbuffer_free(request->received);
	free(request->path);
	free(request->accept);
	free(request->content_type);
	free(request->body);
	free(request);
}

/* Takes it off its connection, which is of no use in the middle of an answer. */
static void leave_slot(struct kube_request *request)
{
	if (!request->slot)
		return;
	request->slot->request = NULL;
	request->slot->is_dead = true;
	request->slot = NULL;
	kube_client_set_off_work(request->client);
}

void kube_request_cancel(struct kube_request *request)
{
	if (!request)
		return;
	leave_slot(request);
	if (request->client->delivering == request)
		request->client->delivering = NULL;
	kube_request_free(request);
}

void kube_request_fail(struct kube_request *request, const struct error *error)
{
	leave_slot(request);
	request->has_ended = true;
	request->was_sent = false;
	request->status = 0;
	request->error = *error;
	kube_request_set_state(request, REQUEST_RUNNING);
	kube_request_set_news(request);
}

void kube_request_queue(struct kube_request *request)
{
	kube_request_set_state(request, REQUEST_QUEUED);
	kube_arm_until(request->timer, request->deadline);
	kube_client_set_off_work(request->client);
}

static void request_timer(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	struct kube_request *request = data;
	if (request->has_ended && request->has_news)
		return; /* its end is about to be told */
	/* Timers may be some milliseconds early, as libevent reads the clock once in a round: the time says nothing here. */
	if (request->state == REQUEST_PAUSED && request->resume < request->deadline) {
		kube_request_queue(request);
		return;
	}
	leave_slot(request);
	if (request->is_stream && request->status == 200) {
		error_say(&request->error, ETIMEDOUT, "nothing has come from the API server at %s for %u s",
			  request->client->access.server, request->silence_milliseconds / 1000);
	} else {
		request->is_overdue = true;
	}
	request->status = 0;
	request->has_ended = true;
	kube_request_set_state(request, REQUEST_RUNNING);
	kube_request_set_news(request);
}

static int copy_text(const char *text, const char *fallback, char **ret_copy)
{
	if (!text && !fallback)
		return 0;
	*ret_copy = strdup(text ? text : fallback);
	return *ret_copy ? 0 : -1;
}

/* NULL: no memory. */
static struct kube_request *new_request(struct kube_client *client, const struct kube_call *call, struct error *error)
{
	struct kube_request *request = calloc(1, sizeof *request);
	if (!request) {
		error_set(error, ENOMEM, "cannot ask the API server");
		return NULL;
	}
	request->client = client;
	request->state = REQUEST_DELIVERING; /* in no list */
	request->method = call->method;
	request->once = call->once;
	request->response_limit = call->response_limit ? call->response_limit : RESPONSE_LIMIT;
	request->deadline =
		clock_milliseconds() + (call->deadline_milliseconds ? call->deadline_milliseconds : DEADLINE_MILLISECONDS);
	request->timer = evtimer_new(client->base, request_timer, request);
	request->received = evbuffer_new();
	if (!request->timer || !request->received || copy_text(call->path, NULL, &request->path) < 0 ||
	    copy_text(call->accept, "application/json", &request->accept) < 0 ||
	    copy_text(call->content_type, "application/json", &request->content_type) < 0 ||
	    copy_text(call->body, NULL, &request->body) < 0) {
		kube_request_free(request);
		error_set(error, ENOMEM, "cannot ask the API server");
		return NULL;
	}
	return request;
}

int kube_client_request(struct kube_client *client, const struct kube_call *call, kube_done done, void *data,
			struct error *error, struct kube_request **ret_request)
{
	struct kube_request *request = new_request(client, call, error);
	if (!request)
		return -1;
	request->done = done;
	request->data = data;
	kube_request_queue(request);
	*ret_request = request;
	return 0;
}

int kube_client_stream(struct kube_client *client, const struct kube_call *call, unsigned silence_milliseconds,
		       const struct kube_stream_listener *listener, struct error *error, struct kube_request **ret_request)
{
	struct kube_request *request = new_request(client, call, error);
	if (!request)
		return -1;
	request->is_stream = true;
	request->stream = *listener;
	request->silence_milliseconds = silence_milliseconds;
	kube_request_queue(request);
	*ret_request = request;
	return 0;
}
