/* An HTTP server at one address: libevent's evhttp, with the bounds that it lacks.
 *
 * Anybody who reaches the address may connect, so nothing that a peer does may cost much: a connection carries one request of
 * bounded size and is closed after the answer, or ten seconds after it was accepted, whatever it says until then; only so many
 * are open at once, and where another one comes the oldest is closed for it. */
#ifndef AMBIENT_INSTALLER_OBSERVE_LISTEN_H
#define AMBIENT_INSTALLER_OBSERVE_LISTEN_H

#include <event2/event.h>
#include <event2/http.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/config.h"

struct http_listener;

/* Answers it, by evhttp's functions, before it returns. */
typedef void (*http_answer)(struct evhttp_request *request, void *data);

/* Listens at an address. One that is in use (an agent that is about to leave, an istio-cni that is being replaced) is logged
 * and tried again every second; every other failure is an error. `what` names it in messages: "health". `address` is borrowed.
 */
int http_listener_new(struct event_base *base, const struct listen_address *address, const char *what, const struct log *log,
		      http_answer answer, void *data, struct error *error, struct http_listener **ret_listener);

/* Listens at a path, for root alone: the socket has mode 0600, and who connects must be of uid 0. It takes the place of what
 * lies there in one step, and is removed at the end unless a successor's has taken its place. Where somebody removes it, it is
 * made again within two seconds. */
int http_listener_new_unix(struct event_base *base, const char *path, const struct log *log, http_answer answer, void *data,
			   struct error *error, struct http_listener **ret_listener);

void http_listener_free(struct http_listener *listener); /* NULL is fine */

#endif
