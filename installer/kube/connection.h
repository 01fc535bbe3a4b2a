/* One TLS connection to the API server and one HTTP exchange at a time on it, by libevent's evhttp.
 *
 * evhttp would connect anew on its own, with a TLS state that is used up; so a connection that has ended is never used again:
 * `ended` or `closed` says so, and its owner frees it. It may not be freed inside of its callbacks, which come from the middle
 * of evhttp: the owner notes what they say and acts later. */
#ifndef AMBIENT_INSTALLER_KUBE_CONNECTION_H
#define AMBIENT_INSTALLER_KUBE_CONNECTION_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/kube/tls.h"

struct kube_connection;

struct kube_exchange {
	enum evhttp_cmd_type method;
	const char *path; /* with query */
	struct {
		const char *name, *value;
	} headers[8];		 /* up to the first without a name */
	const char *body;	 /* NULL: none */
	size_t body_limit;	 /* bytes of the answer's body, or of each chunk of it where it is taken in pieces */
	bool is_taken_in_pieces; /* `received` is called as the body comes, else once, before `ended` */
};

struct kube_connection_listener {
	/* The answer's status line and headers: evhttp_request_get_input_headers. */
	void (*head)(void *data, int status, struct evkeyvalq *headers);
	/* The body or a piece of it: takes the bytes out of the buffer. */
	void (*received)(void *data, struct evbuffer *bytes);
	/* The answer is complete, or (error is not NULL) won't be. Afterwards the connection may be usable again. */
	void (*ended)(void *data, const struct error *error);
	/* Between two exchanges: the server has closed it. */
	void (*closed)(void *data);
	void *data;
};

/* Begins to connect with the first exchange. `server` names the server in messages. */
int kube_connection_new(struct event_base *base, struct kube_tls *tls, const char *address, uint16_t port, const char *server,
			const struct kube_connection_listener *listener, struct error *error,
			struct kube_connection **ret_connection);
void kube_connection_free(struct kube_connection *connection); /* NULL is fine */

int kube_connection_start(struct kube_connection *connection, const struct kube_exchange *exchange, struct error *error);

bool kube_connection_is_open(const struct kube_connection *connection); /* false before the handshake and after the end */
/* Whether the handshake was completed: from then on the server may have seen the request. */
bool kube_connection_was_open(const struct kube_connection *connection);
bool kube_connection_is_untrusted(const struct kube_connection *connection);
const char *kube_connection_address(const struct kube_connection *connection);

#endif
