/* What an answer means: try again, or tell the caller. See client_parts.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/clock.h"
#include "ambient/json.h"
#include "installer/kube/client_parts.h"
#include "installer/kube/pause.h"

#define BACKOFF_GROWTH_MAX 120
/* A burst of 401s reads the token once. */
#define FORCED_RELOAD_MILLISECONDS 1000

static const char *const method_names[] = { "GET", "POST", "PUT", "PATCH", "DELETE" };

/* "PATCH /api/v1/...": without the query, for messages. */
#define NAME_FORMAT "%s %.*s"
#define NAME_OF(request) method_names[(request)->method], (int)strcspn((request)->path, "?"), (request)->path

static void pause_request(struct kube_request *request, int64_t until)
{
	request->resume = until;
	kube_request_set_state(request, REQUEST_PAUSED);
	kube_arm_until(request->timer, until < request->deadline ? until : request->deadline);
}

/* After an answer or a failure: whether and when to try again. */
static bool is_tried_again(struct kube_request *request)
{
	struct kube_client *client = request->client;
	int status = request->status;
	if (status == 401 && !request->token_was_renewed) {
		request->token_was_renewed = true;
		kube_access_reload(&client->access, FORCED_RELOAD_MILLISECONDS);
		kube_request_queue(request);
		return true;
	}
	if (request->is_stream || request->is_overdue || request->is_untrusted)
		return false;
	bool was_not_done = status == 429 || status == 503 || (status == 0 && !request->was_sent);
	bool may_be_repeated = status == 0 || status == 500 || status == 502 || status == 504;
	if (!was_not_done && (!may_be_repeated || request->once))
		return false;

	int64_t now = clock_milliseconds();
	int64_t until = now + kube_pause(client->backoff_milliseconds, BACKOFF_GROWTH_MAX, request->tries);
	if (request->retry_after) {
		until = now + kube_pause_as_asked(request->retry_after);
		kube_client_hold(client, until);
	} else if (status == 429) {
		kube_client_hold(client, until);
	} else if (status == 0 && !request->was_sent) {
		/* No connection: one more try a pause for all requests, not one for each. */
		until = now + kube_pause(client->backoff_milliseconds, BACKOFF_GROWTH_MAX, client->connect_failures);
		if (now >= client->hold_until)
			client->connect_failures++;
		client->hold_reason = request->error;
		kube_client_hold(client, until);
	}
	request->tries++;
	if (until >= request->deadline)
		return false;
	pause_request(request, until);
	return true;
}

static int number_of_status(int status)
{
	switch (status) {
	case 401:
	case 403:
		return EACCES;
	case 404:
	case 410:
		return ENOENT;
	case 409:
		return EEXIST;
	case 429:
	case 503:
		return EAGAIN;
	default:
		return EPROTO;
	}
}

/* The error of a request that is over. */
static void explain(struct kube_request *request, const cJSON *object, struct error *error)
{
	const cJSON *message = cJSON_GetObjectItemCaseSensitive(object, "message");
	/* One that never got its turn fails for the reason why the others wait. */
	if (request->is_overdue && !error_is_set(&request->error))
		request->error = request->client->hold_reason;
	if (request->is_overdue && error_is_set(&request->error))
		error_say(error, ETIMEDOUT, NAME_FORMAT ": no answer from the API server in time; the last try: %s",
			  NAME_OF(request), request->error.message);
	else if (request->is_overdue)
		error_say(error, ETIMEDOUT, NAME_FORMAT ": no answer from the API server at %s in time", NAME_OF(request),
			  request->client->access.server);
	else if (request->status == 0)
		error_say(error, request->error.number, NAME_FORMAT ": %s", NAME_OF(request), request->error.message);
	else if (cJSON_IsString(message))
		error_say(error, number_of_status(request->status), NAME_FORMAT ": the API server answered %d: %s",
			  NAME_OF(request), request->status, message->valuestring);
	else
		error_say(error, number_of_status(request->status), NAME_FORMAT ": the API server answered %d",
			  NAME_OF(request), request->status);
}

/* The body as JSON; NULL where it is none. */
static cJSON *parse_body(struct kube_request *request, struct error *error)
{
	size_t length = evbuffer_get_length(request->received);
	const char *text = length ? (const char *)evbuffer_pullup(request->received, -1) : "";
	cJSON *object = NULL;
	struct error parse_error = { 0 };
	if (!text || json_parse(text, length, request->response_limit, "the API server's answer", &parse_error, &object) < 0) {
		if (error)
			*error = parse_error;
		return NULL;
	}
	return object;
}

static void deliver_end(struct kube_request *request, const cJSON *object)
{
	struct kube_client *client = request->client;
	struct error error = { 0 };
	bool is_good = request->status >= 200 && request->status < 300 && !request->is_overdue;
	if (!is_good)
		explain(request, object, &error);
	int status = request->is_overdue ? 0 : request->status;
	if (!request->is_stream)
		client->statistics.requests[is_good  ? KUBE_RESULT_SUCCESS
					    : status ? KUBE_RESULT_REFUSED
						     : KUBE_RESULT_FAILED]++;
	kube_request_set_state(request, REQUEST_DELIVERING);
	event_del(request->timer);
	client->delivering = request;
	if (request->is_stream)
		request->stream.ended(request->stream.data, status, object, request->retry_after, &error);
	else
		request->done(request->data, status, object, &error);
	if (client->delivering == request)
		kube_request_free(request);
	client->delivering = NULL;
}

static void take_end(struct kube_request *request)
{
	struct error parse_error = { 0 };
	cleanup_cjson cJSON *object = NULL;
	/* Of a stream that went well nothing is left. */
	if (request->status && !(request->is_stream && request->status == 200))
		object = parse_body(request, &parse_error);
	if (!object && !request->is_stream && request->status >= 200 && request->status < 300) {
		request->status = 0;
		request->was_sent = true;
		request->error = parse_error;
	}
	bool is_good = request->status >= 200 && request->status < 300;
	if (is_good || !is_tried_again(request))
		deliver_end(request, object);
	else if (!request->is_stream)
		request->client->statistics.requests[KUBE_RESULT_RETRIED]++;
}

void kube_request_take_news(struct kube_request *request)
{
	struct kube_client *client = request->client;
	if (request->is_stream && request->status == 200) {
		client->delivering = request;
		if (request->has_begun) {
			request->has_begun = false;
			request->stream.begun(request->stream.data);
		}
		size_t length;
		while (client->delivering && (length = evbuffer_get_contiguous_space(request->received)) > 0) {
			const char *bytes = (const char *)evbuffer_pullup(request->received, (ev_ssize_t)length);
			request->stream.received(request->stream.data, bytes, length);
			if (client->delivering)
				evbuffer_drain(request->received, length);
		}
		if (!client->delivering)
			return;
		client->delivering = NULL;
	}
	if (request->has_ended)
		take_end(request);
}
