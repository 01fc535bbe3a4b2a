/* One connection to the API server. See connection.h. */
#include "installer/kube/connection.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"

#define HEADERS_LIMIT 65536
/* evhttp's own time limit is off: requests have deadlines, and a watch may be silent. */
#define NEVER_SECONDS (7 * 24 * 3600)

struct kube_connection {
	struct kube_connection_listener listener;
	struct evhttp_connection *http;
	struct bufferevent *bufferevent; /* owned by http */
	SSL *ssl;			 /* a reference of our own */
	char *server, *address;
	bool has_ended;
	bool was_open; /* set by the handshake's end */

	/* The exchange under way. */
	struct evhttp_request *request; /* owned by http */
	bool is_taken_in_pieces;
	size_t body_limit, body_received;
	enum evhttp_request_error failure;
	bool has_failure;
};

static void http_closed(struct evhttp_connection *http, void *data)
{
	(void)http;
	struct kube_connection *connection = data;
	bool was_idle = !connection->request;
	if (connection->has_ended)
		return;
	connection->has_ended = true;
	if (was_idle)
		connection->listener.closed(connection->listener.data);
}

/* What evhttp does not say, in the order of how much it explains. */
static void explain_failure(struct kube_connection *connection, int number, struct error *error)
{
	if (connection->has_failure && connection->failure == EVREQ_HTTP_DATA_TOO_LONG) {
		error_say(error, EMSGSIZE, "the API server at %s sent more than %zu bytes at once, or a broken chunk",
			  connection->server, connection->body_limit);
		return;
	}
	if (connection->has_failure && connection->failure == EVREQ_HTTP_INVALID_HEADER) {
		error_say(error, EPROTO, "the API server at %s sent no valid HTTP", connection->server);
		return;
	}
	if (kube_tls_is_untrusted(connection->ssl, connection->server, error))
		return;
	unsigned long code = bufferevent_get_openssl_error(connection->bufferevent);
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	/* OpenSSL 3 says so of a connection that ended without TLS's farewell, which is every one that broke. */
	bool is_plain_end = reason && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
	if (reason && !is_plain_end) {
		error_say(error, EPROTO, "TLS to the API server at %s failed: %s", connection->server, reason);
		return;
	}
	if (kube_connection_was_open(connection) || is_plain_end)
		error_say(error, ECONNRESET, "the connection to the API server at %s broke before the answer was complete",
			  connection->server);
	else /* evhttp treats a refusal in a way of its own, in which errno is lost to a shutdown. */
		error_set(error, number == 0 || number == ENOTCONN ? ECONNREFUSED : number,
			  "cannot connect to the API server at %s", connection->server);
}

static void request_failed(enum evhttp_request_error failure, void *data)
{
	struct kube_connection *connection = data;
	connection->failure = failure;
	connection->has_failure = true;
}

static void request_done(struct evhttp_request *request, void *data)
{
	/* evhttp keeps errno of the failure for this callback. */
	int number = errno;
	struct kube_connection *connection = data;
	connection->request = NULL;
	if (request && evhttp_request_get_response_code(request) != 0 && !connection->has_failure) {
		struct evbuffer *body = evhttp_request_get_input_buffer(request);
		if (evbuffer_get_length(body) > 0)
			connection->listener.received(connection->listener.data, body);
		connection->listener.ended(connection->listener.data, NULL);
		return;
	}
	connection->has_ended = true;
	struct error error = { 0 };
	explain_failure(connection, number, &error);
	connection->listener.ended(connection->listener.data, &error);
}

static int request_head(struct evhttp_request *request, void *data)
{
	struct kube_connection *connection = data;
	connection->listener.head(connection->listener.data, evhttp_request_get_response_code(request),
				  evhttp_request_get_input_headers(request));
	return 0;
}

static void request_piece(struct evhttp_request *request, void *data)
{
	struct kube_connection *connection = data;
	struct evbuffer *piece = evhttp_request_get_input_buffer(request);
	connection->body_received += evbuffer_get_length(piece);
	/* evhttp's limit is for the whole body, ours for what comes at once: it moves along. */
	evhttp_connection_set_max_body_size(connection->http, (ev_ssize_t)(connection->body_received + connection->body_limit));
	connection->listener.received(connection->listener.data, piece);
}

int kube_connection_new(struct event_base *base, struct kube_tls *tls, const char *address, uint16_t port, const char *server,
			const struct kube_connection_listener *listener, struct error *error,
			struct kube_connection **ret_connection)
{
	struct kube_connection *connection = calloc(1, sizeof *connection);
	if (!connection)
		return error_set(error, ENOMEM, "cannot connect to the API server at %s", server);
	connection->listener = *listener;
	SSL *ssl = NULL;
	if (!(connection->server = strdup(server)) || !(connection->address = strdup(address)) ||
	    kube_tls_connection(tls, &connection->was_open, error, &ssl) < 0)
		goto failed;
	SSL_up_ref(ssl);
	connection->ssl = ssl;
	connection->bufferevent = bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_CONNECTING,
								 BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);
	if (!connection->bufferevent) {
		SSL_free(ssl);
		goto failed;
	}
	connection->http = evhttp_connection_base_bufferevent_new(base, NULL, connection->bufferevent, address, port);
	if (!connection->http) {
		bufferevent_free(connection->bufferevent);
		goto failed;
	}
	evhttp_connection_set_timeout(connection->http, NEVER_SECONDS);
	evhttp_connection_set_retries(connection->http, 0);
	evhttp_connection_set_max_headers_size(connection->http, HEADERS_LIMIT);
	evhttp_connection_set_closecb(connection->http, http_closed, connection);
	*ret_connection = connection;
	return 0;
failed:
	kube_connection_free(connection);
	return error_set(error, ENOMEM, "cannot connect to the API server at %s", server);
}

void kube_connection_free(struct kube_connection *connection)
{
	if (!connection)
		return;
	connection->has_ended = true;
	if (connection->http) {
		evhttp_connection_set_closecb(connection->http, NULL, NULL);
		evhttp_connection_free(connection->http);
	}
	SSL_free(connection->ssl);
	free(connection->server);
	free(connection->address);
	free(connection);
}

static void set_socket_options(evutil_socket_t fd)
{
	/* Header and body are two writes: without NODELAY the second waits for the server's delayed acknowledgement. Keepalive
	 * and the user timeout find a server that is gone without a word within about half a minute. */
	static const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },   { SOL_SOCKET, SO_KEEPALIVE, 1 }, { IPPROTO_TCP, TCP_KEEPIDLE, 15 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 5 }, { IPPROTO_TCP, TCP_KEEPCNT, 3 }, { IPPROTO_TCP, TCP_USER_TIMEOUT, 30000 },
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		(void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof options[i].value);
}

int kube_connection_start(struct kube_connection *connection, const struct kube_exchange *exchange, struct error *error)
{
	struct evhttp_request *request = evhttp_request_new(request_done, connection);
	if (!request)
		return error_set(error, ENOMEM, "cannot ask the API server at %s", connection->server);
	evhttp_request_set_error_cb(request, request_failed);
	evhttp_request_set_header_cb(request, request_head);
	if (exchange->is_taken_in_pieces)
		evhttp_request_set_chunked_cb(request, request_piece);
	struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
	for (size_t i = 0; i < sizeof exchange->headers / sizeof exchange->headers[0] && exchange->headers[i].name; i++) {
		if (evhttp_add_header(headers, exchange->headers[i].name, exchange->headers[i].value) < 0) {
			evhttp_request_free(request);
			return error_set(error, EINVAL, "cannot send header %s", exchange->headers[i].name);
		}
	}
	if (exchange->body) {
		/* evhttp counts for POST and PUT alone. */
		size_t length = strlen(exchange->body);
		char length_text[32];
		snprintf(length_text, sizeof length_text, "%zu", length);
		if (evhttp_add_header(headers, "Content-Length", length_text) < 0 ||
		    evbuffer_add(evhttp_request_get_output_buffer(request), exchange->body, length) < 0) {
			evhttp_request_free(request);
			return error_set(error, ENOMEM, "cannot ask the API server at %s", connection->server);
		}
	}
	connection->is_taken_in_pieces = exchange->is_taken_in_pieces;
	connection->body_limit = exchange->body_limit;
	connection->body_received = 0;
	connection->has_failure = false;
	evhttp_connection_set_max_body_size(connection->http, (ev_ssize_t)exchange->body_limit);
	/* evhttp waits for the end of a chunk, or of a line of headers, however long: this is what it can hold meanwhile. */
	bufferevent_setwatermark(connection->bufferevent, EV_READ, 0, exchange->body_limit + HEADERS_LIMIT);
	connection->request = request;
	bool is_first = bufferevent_getfd(connection->bufferevent) < 0;
	if (evhttp_make_request(connection->http, request, exchange->method, exchange->path) < 0) {
		connection->request = NULL;
		connection->has_ended = true;
		return error_set(error, errno, "cannot ask the API server at %s", connection->server);
	}
	evutil_socket_t fd = bufferevent_getfd(connection->bufferevent);
	if (is_first && fd >= 0)
		set_socket_options(fd);
	return 0;
}

bool kube_connection_is_open(const struct kube_connection *connection)
{
	return connection->was_open && !connection->has_ended;
}

bool kube_connection_was_open(const struct kube_connection *connection)
{
	return connection->was_open;
}

bool kube_connection_is_untrusted(const struct kube_connection *connection)
{
	return kube_tls_is_untrusted(connection->ssl, connection->server, NULL);
}

const char *kube_connection_address(const struct kube_connection *connection)
{
	return connection->address;
}
