/* What the files of observe/ share. Private to installer/observe/. */
#ifndef AMBIENT_INSTALLER_OBSERVE_STATE_H
#define AMBIENT_INSTALLER_OBSERVE_STATE_H

#include <cjson/cJSON.h>
#include <event2/buffer.h>
#include <event2/http.h>
#include <stdint.h>
#include <time.h>

#include "installer/observe/listen.h"
#include "installer/observe/observe.h"

struct happening;
#define HAPPENINGS_MAX 64
#define TOLD_MAX 256

enum event_result { EVENT_SENT, EVENT_HELD_BACK, EVENT_FAILED, EVENT_RESULT_COUNT };
const char *event_result_name(enum event_result result);

/* What happened last, and what of it became Events. */
struct events {
	struct happening *happenings[HAPPENINGS_MAX]; /* the latest first; NULL: none */
	/* Which ones were told, so that none is told twice in a while. */
	struct told {
		uint64_t key;
		double until; /* CLOCK_MONOTONIC */
	} told[TOLD_MAX];
	double tokens, filled; /* a token bucket, and when it was filled last */
	uint64_t results[EVENT_RESULT_COUNT];
};

struct observe {
	struct observed seen;
	const struct host *host; /* NULL: host.install is false */
	struct mesh_observer observer;
	time_t started;
	struct events events;
	struct http_listener *health, *metrics, *admin, *admin_socket;
};

/* Where it was asked: what is answered depends on it. */
enum site { SITE_HEALTH = 1, SITE_METRICS = 2, SITE_ADMIN = 4, SITE_ADMIN_SOCKET = 8 };
/* pages.c */
void observe_answer_health(struct evhttp_request *request, void *observe);
void observe_answer_metrics(struct evhttp_request *request, void *observe);
void observe_answer_admin(struct evhttp_request *request, void *observe);
void observe_answer_admin_socket(struct evhttp_request *request, void *observe);

/* overview.c: a new object, NULL: no memory. */
cJSON *observe_overview(const struct observe *observe);
/* RFC 3339 in UTC; 0: an empty text. */
#define TIME_TEXT_MAX 40
void observe_print_time(time_t when, char text[TIME_TEXT_MAX]);

/* events.c */
void events_clear(struct events *events);
cJSON *events_to_json(const struct events *events);
void observe_pod_event(void *data, const struct pod *pod, bool is_warning, const char *reason, const char *message);

/* metrics_text.c: appends the text to `out`; -1: no memory. */
int metrics_print(const struct observe *observe, struct evbuffer *out);

/* process.c */
struct process_figures {
	double resident_bytes, virtual_bytes, cpu_seconds;
	unsigned long open_fds, max_fds;
};
void process_look(struct process_figures *ret_figures);

/* status_page.c */
extern const char status_page[], status_page_end[];

#endif
