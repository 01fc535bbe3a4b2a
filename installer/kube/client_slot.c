/* Connections, and the requests that they serve. See client_parts.h.
 *
 * What evhttp calls here only notes what has happened: in the middle of evhttp nothing can be freed. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "installer/kube/client_parts.h"
#include "installer/kube/pause.h"

#define ERROR_BODY_LIMIT ((size_t)64 * 1024)
#define RETRY_AFTER_SECONDS_MAX 300

static const enum evhttp_cmd_type method_types[] = { EVHTTP_REQ_GET, EVHTTP_REQ_POST, EVHTTP_REQ_PUT, EVHTTP_REQ_PATCH,
						     EVHTTP_REQ_DELETE };

static unsigned parse_retry_after(const char *text)
{
	if (!text || !isdigit((unsigned char)*text))
		return 0; /* the date form is not used by API servers */
	unsigned long seconds = strtoul(text, NULL, 10);
	return (unsigned)(seconds > RETRY_AFTER_SECONDS_MAX ? RETRY_AFTER_SECONDS_MAX : seconds) * 1000;
}

static void slot_head(void *data, int status, struct evkeyvalq *headers)
{
	struct kube_slot *slot = data;
	struct kube_request *request = slot->request;
	struct kube_client *client = slot->client;
	client->connect_failures = 0;
	if (error_is_set(&client->hold_reason)) {
		/* The server is back. */
		client->hold_reason = (struct error){ 0 };
		client->hold_until = 0;
		kube_client_set_off_work(client);
	}
	if (!request)
		return;
	request->status = status;
	request->retry_after = parse_retry_after(evhttp_find_header(headers, "Retry-After"));
	if (request->is_stream) {
		kube_arm(request->timer, request->silence_milliseconds);
		request->has_begun = status == 200;
		if (request->has_begun)
			kube_request_set_news(request);
	}
}

static void slot_received(void *data, struct evbuffer *bytes)
{
	struct kube_slot *slot = data;
	struct kube_request *request = slot->request;
	if (!request) {
		evbuffer_drain(bytes, evbuffer_get_length(bytes));
		return;
	}
	evbuffer_add_buffer(request->received, bytes);
	if (!request->is_stream)
		return;
	kube_arm(request->timer, request->silence_milliseconds);
	if (request->status == 200) {
		kube_request_set_news(request);
	} else if (evbuffer_get_length(request->received) > ERROR_BODY_LIMIT) {
		/* No Status object is that long: the words are lost, the number is what counts. */
		evbuffer_drain(request->received, evbuffer_get_length(request->received));
	}
}

static void slot_ended(void *data, const struct error *error)
{
	struct kube_slot *slot = data;
	struct kube_client *client = slot->client;
	struct kube_request *request = slot->request;
	bool was_open = kube_connection_was_open(slot->connection);
	slot->request = NULL;
	if (error || !kube_connection_is_open(slot->connection) || slot->generation != client->access.generation) {
		slot->is_dead = true;
	} else {
		slot->is_idle = true;
		kube_arm(slot->idle_timer, client->idle_milliseconds);
	}
	if (error && !was_open)
		kube_resolver_failed(client->access.resolver, kube_connection_address(slot->connection));
	if (request) {
		request->slot = NULL;
		request->has_ended = true;
		request->was_sent = was_open;
		request->is_untrusted = error && kube_connection_is_untrusted(slot->connection);
		if (error) {
			request->error = *error;
			request->status = 0;
		}
		kube_request_set_news(request);
	}
	kube_client_set_off_work(client);
}

static void slot_closed(void *data)
{
	struct kube_slot *slot = data;
	slot->is_dead = true;
	kube_client_set_off_work(slot->client);
}

static void slot_idle(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	slot_closed(data);
}

void kube_slot_free(struct kube_slot *slot)
{
	struct kube_client *client = slot->client;
	TAILQ_REMOVE(&client->slots, slot, link);
	client->slots_count--;
	kube_connection_free(slot->connection);
	if (slot->idle_timer)
		event_free(slot->idle_timer);
	free(slot);
	client->statistics.open_connections = client->slots_count;
}

struct kube_slot *kube_slot_new(struct kube_client *client, const char *address, struct error *error)
{
	struct kube_slot *slot = calloc(1, sizeof *slot);
	if (!slot) {
		error_set(error, ENOMEM, "cannot connect to the API server");
		return NULL;
	}
	slot->client = client;
	slot->generation = client->access.generation;
	TAILQ_INSERT_HEAD(&client->slots, slot, link);
	client->slots_count++;
	const struct kube_connection_listener listener = {
		.head = slot_head, .received = slot_received, .ended = slot_ended, .closed = slot_closed, .data = slot
	};
	slot->idle_timer = evtimer_new(client->base, slot_idle, slot);
	if (!slot->idle_timer || kube_connection_new(client->base, client->access.tls, address, client->access.credentials.port,
						     client->access.server, &listener, error, &slot->connection) < 0) {
		kube_slot_free(slot);
		error_set(error, ENOMEM, "cannot connect to the API server");
		return NULL;
	}
	client->statistics.connections++;
	client->statistics.open_connections = client->slots_count;
	return slot;
}

struct kube_slot *kube_slot_find_idle(struct kube_client *client)
{
	struct kube_slot *slot;
	TAILQ_FOREACH(slot, &client->slots, link)
	{
		if (slot->is_idle && !kube_slot_is_over(slot))
			return slot;
	}
	return NULL;
}

bool kube_slot_is_one_connecting(const struct kube_client *client)
{
	const struct kube_slot *slot;
	TAILQ_FOREACH(slot, &client->slots, link)
	{
		if (slot->request && !kube_connection_was_open(slot->connection))
			return true;
	}
	return false;
}

bool kube_slot_is_over(const struct kube_slot *slot)
{
	return slot->is_dead || (slot->is_idle && slot->generation != slot->client->access.generation);
}

int kube_slot_start(struct kube_slot *slot, struct kube_request *request, struct error *error)
{
	struct kube_client *client = slot->client;
	cleanup_free char *path = NULL, *authorization = NULL;
	if (asprintf(&path, "%s%s", client->access.credentials.path, request->path) < 0 ||
	    (client->access.credentials.token && asprintf(&authorization, "Bearer %s", client->access.credentials.token) < 0))
		return error_set(error, ENOMEM, "cannot ask the API server");
	struct kube_exchange exchange = {
		.method = method_types[request->method],
		.path = path,
		.headers = { { "Host", client->access.server },
			     { "User-Agent", client->user_agent },
			     { "Accept", request->accept } },
		.body = request->body,
		.body_limit = request->response_limit,
		.is_taken_in_pieces = request->is_stream,
	};
	size_t count = 3;
	if (request->body) {
		exchange.headers[count].name = "Content-Type";
		exchange.headers[count++].value = request->content_type;
	}
	if (authorization) {
		exchange.headers[count].name = "Authorization";
		exchange.headers[count].value = authorization;
	}
	request->status = 0;
	request->retry_after = 0;
	request->has_begun = request->has_ended = request->was_sent = request->is_untrusted = false;
	evbuffer_drain(request->received, evbuffer_get_length(request->received));
	kube_request_set_state(request, REQUEST_RUNNING);
	request->slot = slot;
	slot->request = request;
	slot->is_idle = false;
	event_del(slot->idle_timer);
	/* This may call slot_ended. */
	int status = kube_connection_start(slot->connection, &exchange, error);
	if (authorization)
		explicit_bzero(authorization, strlen(authorization));
	return status;
}
