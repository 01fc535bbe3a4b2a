/* Requests to the Kubernetes API server: HTTP/1.1 by libevent's evhttp over OpenSSL, at most 16 connections, kept alive while
 * there is work and closed when they have been idle for some seconds.
 *
 * A request that the server could not take (429, 503 and their Retry-After, other 5xx, a connection that broke) is sent again
 * with growing, jittered pauses until its deadline, as far as that can do no harm; a 401 makes the token be read anew, and is
 * tried once more. A 429 holds back every request of this client, not the one alone. Callbacks come from the event loop, never
 * from inside a function of the client, and may call all of them. */
#ifndef AMBIENT_INSTALLER_KUBE_CLIENT_H
#define AMBIENT_INSTALLER_KUBE_CLIENT_H

#include <cjson/cJSON.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/kube/credentials.h"
#include "installer/source.h"

struct kube_client;
struct kube_request;

enum kube_result {
	KUBE_RESULT_SUCCESS, /* 2xx */
	KUBE_RESULT_REFUSED, /* another answer that is final: 403, 404, 409, ... */
	KUBE_RESULT_RETRIED, /* an answer or a failure after which the request was sent again */
	KUBE_RESULT_FAILED,  /* no answer, or none that could be used, until the deadline */
	KUBE_RESULT_COUNT
};
const char *kube_result_name(enum kube_result result); /* "success", ...: a metric's label */

/* Counted from the start. Plain requests alone are in `requests`; lists and watches count as themselves. */
struct kube_statistics {
	uint64_t requests[KUBE_RESULT_COUNT];
	uint64_t watch_events[SOURCE_KIND_COUNT]; /* objects received by watches, bookmarks aside */
	uint64_t watch_lists[SOURCE_KIND_COUNT];  /* lists begun, streaming ones too */
	uint64_t watch_restarts;		  /* watches that ended otherwise than by the server's own time limit */
	uint64_t connections;			  /* TCP connections opened */
	unsigned open_connections;
};

struct kube_client_options {
	struct kube_origin origin; /* copied */
	const struct log *log;	   /* borrowed */
	const char *user_agent;	   /* borrowed; NULL: ambient-installer/VERSION */

	/* Zero: the default. Tests shorten the times. */
	unsigned connections_max;      /* 16 */
	unsigned idle_milliseconds;    /* 10 000: an idle connection is closed after that */
	unsigned reload_milliseconds;  /* 60 000: credentials are read anew after that */
	unsigned backoff_milliseconds; /* 250: the first pause, doubled up to 120 times of it */
};

/* Reads the credentials; no connection is made before the first request. */
int kube_client_new(struct event_base *base, const struct kube_client_options *options, struct error *error,
		    struct kube_client **ret_client);

/* Ends every request without its callback. May be called from a callback. NULL is fine. */
void kube_client_free(struct kube_client *client);

/* Belongs to the client; watches add to it. */
struct kube_statistics *kube_client_statistics(struct kube_client *client);

enum kube_method { KUBE_GET, KUBE_POST, KUBE_PUT, KUBE_PATCH, KUBE_DELETE };

#define KUBE_MERGE_PATCH "application/merge-patch+json"
#define KUBE_JSON_PATCH "application/json-patch+json"

struct kube_call {
	enum kube_method method;
	const char *path;		/* "/api/v1/..." with its query, its variable parts by kube_escape */
	const char *accept;		/* NULL: application/json */
	const char *content_type;	/* of the body; NULL: application/json */
	const char *body;		/* NULL: none */
	size_t response_limit;		/* bytes; 0: 4 MiB */
	unsigned deadline_milliseconds; /* for everything, retries and waiting in line included; 0: 30 s */
	bool once; /* doing it twice is not the same as doing it once: sent again only where the server did not do it */
};

/* `status`: the answer's HTTP status, 0 where none came. `object`: its body if that is JSON, else NULL; borrowed. `error` is
 * filled unless the status is 2xx, with the server's own words where it has said any. */
typedef void (*kube_done)(void *data, int status, const cJSON *object, const struct error *error);

/* `done` is called exactly once, unless the request is cancelled before. Everything in `call` is copied. */
int kube_client_request(struct kube_client *client, const struct kube_call *call, kube_done done, void *data,
			struct error *error, struct kube_request **ret_request);

/* The callback does not come. A request whose callback has been called is gone already. NULL is fine. */
void kube_request_cancel(struct kube_request *request);

/* An answer that is taken piece by piece, as it comes: lists and watches. Nothing is tried again here but a 401, once. */
struct kube_stream_listener {
	/* The server has accepted: its answer is a 200. */
	void (*begun)(void *data);
	/* Bytes of the body of a 200. */
	void (*received)(void *data, const char *bytes, size_t length);
	/* The last call: the whole body of a 200 has come (error is not filled), or what went wrong. `status` and `object` as
	 * in kube_done, an object never with a 200; `retry_after` in milliseconds as the server asked, 0 where it did not. */
	void (*ended)(void *data, int status, const cJSON *object, unsigned retry_after, const struct error *error);
	void *data;
};

/* `call->deadline_milliseconds` is for the answer's head; after that, silence longer than `silence_milliseconds` ends the
 * stream with ETIMEDOUT. `call->response_limit` is for each piece that the server sends at once (an HTTP chunk). */
int kube_client_stream(struct kube_client *client, const struct kube_call *call, unsigned silence_milliseconds,
		       const struct kube_stream_listener *listener, struct error *error, struct kube_request **ret_request);

/* Escapes one segment of a path or one value of a query; malloc'ed, NULL: no memory. */
char *kube_escape(const char *text);

#endif
