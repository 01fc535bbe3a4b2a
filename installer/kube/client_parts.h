/* What the parts of the client share. Private to installer/kube/client*.c:
 *
 *   client.c          the client itself: what is done next, and when
 *   client_request.c  a request: from the call to its end, in the list of its state
 *   client_answer.c   what an answer means: try again, or tell the caller
 *   client_slot.c     connections, and the requests that they serve
 *
 * A request waits in the queue, runs on a connection, pauses before it is sent again, or has news: bytes of a stream, an end.
 * evhttp's callbacks and timers only note what has happened and set off client_work, which is the one place where users are
 * called back, connections are freed and requests are started: so a callback may cancel anything, the client included. */
#ifndef AMBIENT_INSTALLER_KUBE_CLIENT_PARTS_H
#define AMBIENT_INSTALLER_KUBE_CLIENT_PARTS_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "ambient/error.h"
#include "installer/kube/access.h"
#include "installer/kube/client.h"
#include "installer/kube/connection.h"

enum kube_request_state { REQUEST_QUEUED, REQUEST_RUNNING, REQUEST_PAUSED, REQUEST_DELIVERING };

struct kube_request {
	struct kube_client *client;
	TAILQ_ENTRY(kube_request) link; /* in the list of its state */
	TAILQ_ENTRY(kube_request) news_link;
	bool has_news;
	enum kube_request_state state;
	struct kube_slot *slot; /* while running */
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

	int64_t deadline, resume; /* by the monotonic clock, milliseconds */
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
TAILQ_HEAD(kube_request_list, kube_request);

/* A connection, and the request that it serves. */
struct kube_slot {
	TAILQ_ENTRY(kube_slot) link;
	struct kube_client *client;
	struct kube_connection *connection;
	struct kube_request *request; /* NULL: idle, or about to be freed */
	struct event *idle_timer;
	bool is_idle, is_dead;
	unsigned generation;
};
TAILQ_HEAD(kube_slot_list, kube_slot);

struct kube_client {
	struct event_base *base;
	const char *user_agent;
	unsigned connections_max, idle_milliseconds, reload_milliseconds, backoff_milliseconds;

	struct kube_access access;

	struct kube_request_list queue, running, paused, news;
	struct kube_request *delivering; /* NULL once it was cancelled in its own callback */
	struct kube_slot_list slots;
	unsigned slots_count;
	struct event *work, *hold_timer, *trim_timer;
	int64_t hold_until;	   /* plain requests wait until then, by clock_milliseconds() */
	struct error hold_reason;  /* filled: because no connection could be made */
	unsigned connect_failures; /* in a row */
	bool is_working, is_freed;
	struct kube_statistics statistics;
};

/* client.c */
void kube_client_set_off_work(struct kube_client *client);
/* No plain request is sent before `until`. */
void kube_client_hold(struct kube_client *client, int64_t until);

/* client_request.c. A new state puts it in that state's list; news let client_work look at it. */
void kube_request_set_state(struct kube_request *request, enum kube_request_state state);
/* In line to be sent, at once or once more. */
void kube_request_queue(struct kube_request *request);
void kube_request_set_news(struct kube_request *request);
/* It could not be sent. */
void kube_request_fail(struct kube_request *request, const struct error *error);
void kube_request_free(struct kube_request *request);

/* client_answer.c. Calls the request's owner, if it is his turn; then the request, or the client, may be gone. */
void kube_request_take_news(struct kube_request *request);

/* client_slot.c */
struct kube_slot *kube_slot_new(struct kube_client *client, const char *address, struct error *error);
struct kube_slot *kube_slot_find_idle(struct kube_client *client); /* NULL: there is none */
bool kube_slot_is_one_connecting(const struct kube_client *client);
/* Sends the request. */
int kube_slot_start(struct kube_slot *slot, struct kube_request *request, struct error *error);
/* Of no use any more: dead, or idle with credentials of before. */
bool kube_slot_is_over(const struct kube_slot *slot);
void kube_slot_free(struct kube_slot *slot);

#endif
