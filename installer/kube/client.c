/* Requests to the API server. See client.h.
 *
 * A request waits in the queue, runs on a connection, pauses before it is sent again, or has news: bytes of a stream, an end.
 * evhttp's callbacks and timers only note what has happened and set off client_work, which is the one place where users are
 * called back, connections are freed and requests are started: so a callback may cancel anything, the client included. */
#include "installer/kube/client.h"

#include <ctype.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/kube/connection.h"
#include "installer/kube/resolve.h"
#include "installer/kube/tls.h"
#include "installer/memory.h"
#include "version.h"

#define CONNECTIONS_MAX 16
#define IDLE_MILLISECONDS 10000
#define RELOAD_MILLISECONDS 60000
#define BACKOFF_MILLISECONDS 250
#define BACKOFF_GROWTH_MAX 120
#define DEADLINE_MILLISECONDS 30000
#define RESPONSE_LIMIT ((size_t)4 * 1024 * 1024)
#define ERROR_BODY_LIMIT ((size_t)64 * 1024)
#define TRIM_MILLISECONDS 500
#define RETRY_AFTER_SECONDS_MAX 300
/* A burst of 401s reads the token once. */
#define FORCED_RELOAD_MILLISECONDS 1000

enum request_state { REQUEST_QUEUED, REQUEST_RUNNING, REQUEST_PAUSED, REQUEST_DELIVERING };

struct kube_request {
	struct kube_client *client;
	TAILQ_ENTRY(kube_request) link; /* in the list of its state */
	TAILQ_ENTRY(kube_request) news_link;
	bool has_news;
	enum request_state state;
	struct slot *slot; /* while running */
	struct event *timer;

	enum kube_method method;
	char *path, *accept, *content_type, *body;
	size_t response_limit;
	bool once;
	bool is_stream;
	kube_done done; /* of a plain request */
	void *data;
	struct kube_stream_listener stream;
	unsigned silence_milliseconds;

	uint64_t deadline, resume; /* by the monotonic clock, milliseconds */
	unsigned tries;
	bool token_was_renewed;

	/* The try under way. */
	int status;
	unsigned retry_after; /* milliseconds */
	struct evbuffer *received;
	bool has_begun; /* to be told */
	bool has_ended, was_sent, is_untrusted, is_overdue;
	struct error error; /* what the try, or the one before it, failed with */
};
TAILQ_HEAD(request_list, kube_request);

/* A connection, and the request that it serves. */
struct slot {
	TAILQ_ENTRY(slot) link;
	struct kube_client *client;
	struct kube_connection *connection;
	struct kube_request *request; /* NULL: idle, or about to be freed */
	struct event *idle_timer;
	bool is_idle, is_dead;
	unsigned generation;
};
TAILQ_HEAD(slot_list, slot);

struct kube_client {
	struct event_base *base;
	const struct log *log;
	const char *user_agent;
	unsigned connections_max, idle_milliseconds, reload_milliseconds, backoff_milliseconds;

	char *kubeconfig, *service_host, *service_port, *directory;
	struct kube_credentials credentials;
	uint64_t loaded; /* when */
	struct error load_error;
	unsigned generation; /* counts up when connections of before are of no use any more */
	struct kube_tls *tls;
	struct kube_resolver *resolver;
	char *server; /* "HOST:PORT", for messages and the Host header */

	struct request_list queue, running, paused, news;
	struct kube_request *delivering; /* NULL once it was cancelled in its own callback */
	struct slot_list slots;
	unsigned slots_count;
	struct event *work, *hold_timer, *trim_timer;
	uint64_t hold_until;	   /* plain requests wait until then */
	struct error hold_reason;  /* filled: because no connection could be made */
	unsigned connect_failures; /* in a row */
	bool is_working, is_freed;
	struct kube_statistics statistics;
};

static const char *const method_names[] = { "GET", "POST", "PUT", "PATCH", "DELETE" };
static const enum evhttp_cmd_type method_types[] = { EVHTTP_REQ_GET, EVHTTP_REQ_POST, EVHTTP_REQ_PUT, EVHTTP_REQ_PATCH,
						     EVHTTP_REQ_DELETE };

const char *kube_result_name(enum kube_result result)
{
	static const char *const names[] = { "success", "refused", "retried", "failed" };
	return names[result];
}

static uint64_t now_milliseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void arm(struct event *timer, uint64_t milliseconds)
{
	struct timeval time = { .tv_sec = (time_t)(milliseconds / 1000), .tv_usec = (suseconds_t)(milliseconds % 1000 * 1000) };
	evtimer_add(timer, &time);
}

static void arm_until(struct event *timer, uint64_t when)
{
	uint64_t now = now_milliseconds();
	/* A millisecond more than the remainder: a timer never fires just before its time. */
	arm(timer, when > now ? when - now + 1 : 0);
}

/* base * 2^tries, at most BACKOFF_GROWTH_MAX times, of which between a half and all is taken by chance. */
static unsigned backoff(unsigned base, unsigned tries)
{
	uint64_t pause = (uint64_t)base << (tries < 10 ? tries : 10);
	if (pause > (uint64_t)base * BACKOFF_GROWTH_MAX)
		pause = (uint64_t)base * BACKOFF_GROWTH_MAX;
	return (unsigned)(pause / 2 + arc4random_uniform((uint32_t)(pause / 2) + 1));
}

static void set_off_work(struct kube_client *client)
{
	event_active(client->work, EV_TIMEOUT, 0);
}

static struct request_list *list_of(struct kube_request *request)
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

static void set_state(struct kube_request *request, enum request_state state)
{
	struct request_list *list = list_of(request);
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

static void set_news(struct kube_request *request)
{
	if (!request->has_news) {
		request->has_news = true;
		TAILQ_INSERT_TAIL(&request->client->news, request, news_link);
	}
	set_off_work(request->client);
}

static void free_request(struct kube_request *request)
{
	if (request->has_news)
		TAILQ_REMOVE(&request->client->news, request, news_link);
	struct request_list *list = list_of(request);
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

/* Takes the request off its connection, which is of no use in the middle of an answer. */
static void leave_slot(struct kube_request *request)
{
	if (!request->slot)
		return;
	request->slot->request = NULL;
	request->slot->is_dead = true;
	request->slot = NULL;
	set_off_work(request->client);
}

void kube_request_cancel(struct kube_request *request)
{
	if (!request)
		return;
	leave_slot(request);
	if (request->client->delivering == request)
		request->client->delivering = NULL;
	free_request(request);
}

/* ---- What connections say: noted here, acted upon in client_work. ---- */

static unsigned parse_retry_after(const char *text)
{
	if (!text || !isdigit((unsigned char)*text))
		return 0; /* the date form is not used by API servers */
	unsigned long seconds = strtoul(text, NULL, 10);
	return (unsigned)(seconds > RETRY_AFTER_SECONDS_MAX ? RETRY_AFTER_SECONDS_MAX : seconds) * 1000;
}

static void slot_head(void *data, int status, struct evkeyvalq *headers)
{
	struct slot *slot = data;
	struct kube_request *request = slot->request;
	struct kube_client *client = slot->client;
	client->connect_failures = 0;
	if (error_is_set(&client->hold_reason)) {
		/* The server is back. */
		client->hold_reason = (struct error){ 0 };
		client->hold_until = 0;
		set_off_work(client);
	}
	if (!request)
		return;
	request->status = status;
	request->retry_after = parse_retry_after(evhttp_find_header(headers, "Retry-After"));
	if (request->is_stream) {
		arm(request->timer, request->silence_milliseconds);
		request->has_begun = status == 200;
		if (request->has_begun)
			set_news(request);
	}
}

static void slot_received(void *data, struct evbuffer *bytes)
{
	struct slot *slot = data;
	struct kube_request *request = slot->request;
	if (!request) {
		evbuffer_drain(bytes, evbuffer_get_length(bytes));
		return;
	}
	evbuffer_add_buffer(request->received, bytes);
	if (!request->is_stream)
		return;
	arm(request->timer, request->silence_milliseconds);
	if (request->status == 200) {
		set_news(request);
	} else if (evbuffer_get_length(request->received) > ERROR_BODY_LIMIT) {
		/* No Status object is that long: the words are lost, the number is what counts. */
		evbuffer_drain(request->received, evbuffer_get_length(request->received));
	}
}

static void slot_ended(void *data, const struct error *error)
{
	struct slot *slot = data;
	struct kube_client *client = slot->client;
	struct kube_request *request = slot->request;
	bool was_open = kube_connection_was_open(slot->connection);
	slot->request = NULL;
	if (error || !kube_connection_is_open(slot->connection) || slot->generation != client->generation) {
		slot->is_dead = true;
	} else {
		slot->is_idle = true;
		arm(slot->idle_timer, client->idle_milliseconds);
	}
	if (error && !was_open)
		kube_resolver_failed(client->resolver, kube_connection_address(slot->connection));
	if (request) {
		request->slot = NULL;
		request->has_ended = true;
		request->was_sent = was_open;
		request->is_untrusted = error && kube_connection_is_untrusted(slot->connection);
		if (error) {
			request->error = *error;
			request->status = 0;
		}
		set_news(request);
	}
	set_off_work(client);
}

static void slot_closed(void *data)
{
	struct slot *slot = data;
	slot->is_dead = true;
	set_off_work(slot->client);
}

static void slot_idle(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	slot_closed(data);
}

static void free_slot(struct slot *slot)
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

static struct slot *new_slot(struct kube_client *client, const char *address, struct error *error)
{
	struct slot *slot = calloc(1, sizeof *slot);
	if (!slot) {
		error_set(error, ENOMEM, "cannot connect to the API server");
		return NULL;
	}
	slot->client = client;
	slot->generation = client->generation;
	TAILQ_INSERT_HEAD(&client->slots, slot, link);
	client->slots_count++;
	const struct kube_connection_listener listener = {
		.head = slot_head, .received = slot_received, .ended = slot_ended, .closed = slot_closed, .data = slot
	};
	slot->idle_timer = evtimer_new(client->base, slot_idle, slot);
	if (!slot->idle_timer || kube_connection_new(client->base, client->tls, address, client->credentials.port,
						     client->server, &listener, error, &slot->connection) < 0) {
		free_slot(slot);
		error_set(error, ENOMEM, "cannot connect to the API server");
		return NULL;
	}
	client->statistics.connections++;
	client->statistics.open_connections = client->slots_count;
	return slot;
}

/* ---- Credentials. ---- */

static void resolver_changed(void *data)
{
	set_off_work(data);
}

/* Takes what `credentials` holds; on failure the client is as before. */
static int use_credentials(struct kube_client *client, struct kube_credentials *credentials, struct error *error)
{
	if (!client->tls || !kube_credentials_same_server(&client->credentials, credentials)) {
		struct kube_tls *tls = NULL;
		struct kube_resolver *resolver = NULL;
		char *server = NULL;
		bool has_brackets = strchr(credentials->host, ':') != NULL;
		if (asprintf(&server, has_brackets ? "[%s]:%u" : "%s:%u", credentials->host, credentials->port) < 0)
			return error_set(error, ENOMEM, "cannot use credentials");
		if (kube_tls_new(credentials, error, &tls) < 0 ||
		    kube_resolver_new(client->base, credentials->host, resolver_changed, client, error, &resolver) < 0) {
			kube_tls_free(tls);
			free(server);
			return -1;
		}
		/* Exchanges under way go on to their end; idle connections are closed. */
		struct slot *slot;
		TAILQ_FOREACH(slot, &client->slots, link)
		{
			slot->is_dead = slot->is_dead || slot->is_idle;
		}
		client->generation++;
		kube_tls_free(client->tls);
		kube_resolver_free(client->resolver);
		free(client->server);
		client->tls = tls;
		client->resolver = resolver;
		client->server = server;
		set_off_work(client);
	}
	kube_credentials_clear(&client->credentials);
	client->credentials = *credentials;
	*credentials = (struct kube_credentials){ 0 };
	return 0;
}

static int load_credentials(struct kube_client *client, struct error *error)
{
	cleanup_kube_credentials struct kube_credentials credentials = { 0 };
	const struct kube_origin origin = { .kubeconfig = client->kubeconfig,
					    .service_host = client->service_host,
					    .service_port = client->service_port,
					    .directory = client->directory };
	client->loaded = now_milliseconds();
	if (kube_credentials_load(&origin, error, &credentials) < 0)
		return -1;
	return use_credentials(client, &credentials, error);
}

/* What is there goes on being used when it can't be read anew; each reason is said once. */
static void reload_credentials(struct kube_client *client, unsigned at_least_old)
{
	if (now_milliseconds() - client->loaded < at_least_old)
		return;
	struct error error = { 0 };
	bool failed = load_credentials(client, &error) < 0;
	if (failed && strcmp(error.message, client->load_error.message) != 0)
		log_write(client->log, LOG_LEVEL_WARN, NULL, "the credentials in use are kept: %s", error.message);
	if (!failed && error_is_set(&client->load_error))
		log_write(client->log, LOG_LEVEL_INFO, NULL, "the credentials for the API server can be read again");
	client->load_error = error;
}

/* ---- Answers. ---- */

/* "PATCH /api/v1/...": without the query, for messages. */
#define NAME_FORMAT "%s %.*s"
#define NAME_OF(request) method_names[(request)->method], (int)strcspn((request)->path, "?"), (request)->path

static void pause_request(struct kube_request *request, uint64_t until)
{
	request->resume = until;
	set_state(request, REQUEST_PAUSED);
	arm_until(request->timer, until < request->deadline ? until : request->deadline);
}

static void hold(struct kube_client *client, uint64_t until)
{
	if (until > client->hold_until)
		client->hold_until = until;
}

/* After an answer or a failure: whether and when to try again. */
static bool is_tried_again(struct kube_request *request)
{
	struct kube_client *client = request->client;
	int status = request->status;
	if (status == 401 && !request->token_was_renewed) {
		request->token_was_renewed = true;
		reload_credentials(client, FORCED_RELOAD_MILLISECONDS);
		set_state(request, REQUEST_QUEUED);
		arm_until(request->timer, request->deadline);
		set_off_work(client);
		return true;
	}
	if (request->is_stream || request->is_overdue || request->is_untrusted)
		return false;
	bool was_not_done = status == 429 || status == 503 || (status == 0 && !request->was_sent);
	bool may_be_repeated = status == 0 || status == 500 || status == 502 || status == 504;
	if (!was_not_done && (!may_be_repeated || request->once))
		return false;

	uint64_t now = now_milliseconds();
	uint64_t until = now + backoff(client->backoff_milliseconds, request->tries);
	if (request->retry_after) {
		until = now + request->retry_after + arc4random_uniform(request->retry_after / 4 + 1);
		hold(client, until);
	} else if (status == 429) {
		hold(client, until);
	} else if (status == 0 && !request->was_sent) {
		/* No connection: one more try a pause for all requests, not one for each. */
		until = now + backoff(client->backoff_milliseconds, client->connect_failures);
		if (now >= client->hold_until)
			client->connect_failures++;
		client->hold_reason = request->error;
		hold(client, until);
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
			  request->client->server);
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
	set_state(request, REQUEST_DELIVERING);
	event_del(request->timer);
	client->delivering = request;
	if (request->is_stream)
		request->stream.ended(request->stream.data, status, object, request->retry_after, &error);
	else
		request->done(request->data, status, object, &error);
	if (client->delivering == request)
		free_request(request);
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

static void take_news(struct kube_request *request)
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

/* ---- Starting. ---- */

static int start(struct slot *slot, struct kube_request *request, struct error *error)
{
	struct kube_client *client = slot->client;
	cleanup_free char *path = NULL, *authorization = NULL;
	if (asprintf(&path, "%s%s", client->credentials.path, request->path) < 0 ||
	    (client->credentials.token && asprintf(&authorization, "Bearer %s", client->credentials.token) < 0))
		return error_set(error, ENOMEM, "cannot ask the API server");
	struct kube_exchange exchange = {
		.method = method_types[request->method],
		.path = path,
		.headers = { { "Host", client->server }, { "User-Agent", client->user_agent }, { "Accept", request->accept } },
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
	set_state(request, REQUEST_RUNNING);
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

static void fail(struct kube_request *request, const struct error *error)
{
	leave_slot(request);
	request->has_ended = true;
	request->was_sent = false;
	request->status = 0;
	request->error = *error;
	set_state(request, REQUEST_RUNNING);
	set_news(request);
}

static struct slot *find_idle(struct kube_client *client)
{
	struct slot *slot;
	TAILQ_FOREACH(slot, &client->slots, link)
	{
		if (slot->is_idle && !slot->is_dead)
			return slot;
	}
	return NULL;
}

static bool is_connecting(const struct kube_client *client)
{
	const struct slot *slot;
	TAILQ_FOREACH(slot, &client->slots, link)
	{
		if (slot->request && !kube_connection_was_open(slot->connection))
			return true;
	}
	return false;
}

static void dispatch(struct kube_client *client)
{
	struct kube_request *request;
	while ((request = TAILQ_FIRST(&client->queue))) {
		if (!request->is_stream && now_milliseconds() < client->hold_until) {
			arm_until(client->hold_timer, client->hold_until);
			return;
		}
		/* A server that could not be reached is tried by one, and the others wait for what comes of it. */
		if (!request->is_stream && error_is_set(&client->hold_reason) && is_connecting(client))
			return;
		reload_credentials(client, client->reload_milliseconds);
		struct error error = { 0 };
		struct slot *slot = find_idle(client);
		if (!slot) {
			if (client->slots_count >= client->connections_max)
				return;
			const char *address = kube_resolver_address(client->resolver);
			if (!address) {
				if (kube_resolver_take_error(client->resolver, &error)) {
					while ((request = TAILQ_FIRST(&client->queue)))
						fail(request, &error);
				}
				return;
			}
			slot = new_slot(client, address, &error);
		}
		if (!slot || start(slot, request, &error) < 0)
			fail(request, &error);
	}
}

static void free_for_good(struct kube_client *client)
{
	struct slot *slot;
	while ((slot = TAILQ_FIRST(&client->slots)))
		free_slot(slot);
	if (client->work)
		event_free(client->work);
	if (client->hold_timer)
		event_free(client->hold_timer);
	if (client->trim_timer)
		event_free(client->trim_timer);
	kube_resolver_free(client->resolver);
	kube_tls_free(client->tls);
	kube_credentials_clear(&client->credentials);
	free(client->kubeconfig);
	free(client->service_host);
	free(client->service_port);
	free(client->directory);
	free(client->server);
	free(client);
}

/* Connections were idle and are gone, also from libevent, which frees them a round later: their memory is left in pieces. */
static void trim(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what, (void)data;
	memory_give_back();
}

static void client_work(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	struct kube_client *client = data;
	client->is_working = true;
	struct kube_request *request;
	while (!client->is_freed && (request = TAILQ_FIRST(&client->news))) {
		TAILQ_REMOVE(&client->news, request, news_link);
		request->has_news = false;
		take_news(request);
	}
	struct slot *slot = TAILQ_FIRST(&client->slots);
	while (slot) {
		struct slot *next = TAILQ_NEXT(slot, link);
		if (slot->is_dead && slot->is_idle)
			arm(client->trim_timer, TRIM_MILLISECONDS);
		if (slot->is_dead)
			free_slot(slot);
		slot = next;
	}
	if (!client->is_freed)
		dispatch(client);
	client->is_working = false;
	if (client->is_freed)
		free_for_good(client);
}

static void request_timer(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what;
	struct kube_request *request = data;
	if (request->has_ended && request->has_news)
		return; /* its end is about to be told */
	/* Timers may be some milliseconds early, as libevent reads the clock once in a round: the time says nothing here. */
	if (request->state == REQUEST_PAUSED && request->resume < request->deadline) {
		set_state(request, REQUEST_QUEUED);
		arm_until(request->timer, request->deadline);
		set_off_work(request->client);
		return;
	}
	leave_slot(request);
	if (request->is_stream && request->status == 200) {
		error_say(&request->error, ETIMEDOUT, "nothing has come from the API server at %s for %u s",
			  request->client->server, request->silence_milliseconds / 1000);
	} else {
		request->is_overdue = true;
	}
	request->status = 0;
	request->has_ended = true;
	set_state(request, REQUEST_RUNNING);
	set_news(request);
}

/* ---- The interface. ---- */

static int copy_text(const char *text, const char *fallback, char **ret_copy)
{
	if (!text && !fallback)
		return 0;
	*ret_copy = strdup(text ? text : fallback);
	return *ret_copy ? 0 : -1;
}

int kube_client_new(struct event_base *base, const struct kube_client_options *options, struct error *error,
		    struct kube_client **ret_client)
{
	struct kube_client *client = calloc(1, sizeof *client);
	if (!client)
		return error_set(error, ENOMEM, "cannot prepare the API client");
	client->base = base;
	client->log = options->log;
	client->user_agent = options->user_agent ? options->user_agent : "ambient-installer/" AMBIENT_VERSION;
	client->connections_max = options->connections_max ? options->connections_max : CONNECTIONS_MAX;
	client->idle_milliseconds = options->idle_milliseconds ? options->idle_milliseconds : IDLE_MILLISECONDS;
	client->reload_milliseconds = options->reload_milliseconds ? options->reload_milliseconds : RELOAD_MILLISECONDS;
	client->backoff_milliseconds = options->backoff_milliseconds ? options->backoff_milliseconds : BACKOFF_MILLISECONDS;
	TAILQ_INIT(&client->queue);
	TAILQ_INIT(&client->running);
	TAILQ_INIT(&client->paused);
	TAILQ_INIT(&client->news);
	TAILQ_INIT(&client->slots);
	client->work = event_new(base, -1, 0, client_work, client);
	client->hold_timer = evtimer_new(base, client_work, client);
	client->trim_timer = evtimer_new(base, trim, client);
	if (!client->work || !client->hold_timer || !client->trim_timer ||
	    copy_text(options->origin.kubeconfig, NULL, &client->kubeconfig) < 0 ||
	    copy_text(options->origin.service_host, NULL, &client->service_host) < 0 ||
	    copy_text(options->origin.service_port, NULL, &client->service_port) < 0 ||
	    copy_text(options->origin.directory, NULL, &client->directory) < 0) {
		free_for_good(client);
		return error_set(error, ENOMEM, "cannot prepare the API client");
	}
	if (load_credentials(client, error) < 0) {
		free_for_good(client);
		return -1;
	}
	*ret_client = client;
	return 0;
}

void kube_client_free(struct kube_client *client)
{
	if (!client)
		return;
	struct request_list *lists[] = { &client->queue, &client->running, &client->paused };
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
		struct kube_request *request;
		while ((request = TAILQ_FIRST(lists[i])))
			kube_request_cancel(request);
	}
	client->is_freed = true;
	/* From inside of a callback: client_work does it when it is back there. */
	if (!client->is_working)
		free_for_good(client);
}

struct kube_statistics *kube_client_statistics(struct kube_client *client)
{
	return &client->statistics;
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
		now_milliseconds() + (call->deadline_milliseconds ? call->deadline_milliseconds : DEADLINE_MILLISECONDS);
	request->timer = evtimer_new(client->base, request_timer, request);
	request->received = evbuffer_new();
	if (!request->timer || !request->received || copy_text(call->path, NULL, &request->path) < 0 ||
	    copy_text(call->accept, "application/json", &request->accept) < 0 ||
	    copy_text(call->content_type, "application/json", &request->content_type) < 0 ||
	    copy_text(call->body, NULL, &request->body) < 0) {
		free_request(request);
		error_set(error, ENOMEM, "cannot ask the API server");
		return NULL;
	}
	arm_until(request->timer, request->deadline);
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
	set_state(request, REQUEST_QUEUED);
	set_off_work(client);
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
	set_state(request, REQUEST_QUEUED);
	set_off_work(client);
	*ret_request = request;
	return 0;
}

char *kube_escape(const char *text)
{
	return evhttp_uriencode(text, -1, 0);
}
