/* What the parts of a watch share. Private to installer/kube/watch*.c:
 *
 *   watch.c          the steps: which request is under way, and which one follows its end
 *   watch_objects.c  what comes: events, pages and their objects
 *   watch_trouble.c  what goes wrong: pauses, and who is told */
#ifndef AMBIENT_INSTALLER_KUBE_WATCH_PARTS_H
#define AMBIENT_INSTALLER_KUBE_WATCH_PARTS_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "ambient/error.h"
#include "installer/kube/list_scanner.h"
#include "installer/kube/watch.h"

/* etcd holds no object above 1.5 MiB; its JSON may be longer. */
#define WATCH_LINE_LIMIT ((size_t)4 * 1024 * 1024)

enum kube_watch_step { STEP_STREAM, STEP_PAGE, STEP_WATCH };

struct kube_watch {
	struct event_base *base;
	struct kube_client *client;
	const struct log *log;
	struct source_listener listener;
	enum source_kind kind;
	const char *path;
	char *selector; /* "&fieldSelector=..." or "" */
	bool metadata_only;
	struct kube_watch_timing timing;

	enum kube_watch_step step;
	struct kube_request *request;
	struct event *timer; /* until the next try */
	unsigned failures;   /* in a row */
	int64_t begun;	     /* when the step's answer began, by clock_milliseconds(); 0: not yet */
	bool *is_freed;	     /* set while a listener's function runs: whether it has freed us */

	char *resource_version;	   /* NULL: list */
	char *continue_token;	   /* of the next page */
	bool streaming_is_refused; /* the next list is a paged one */
	bool reads_consistently;   /* its first page may not come from the server's cache, which has expired */
	bool is_whole;		   /* and comes without pages: the rest of one expired before it was asked for */
	bool in_list;		   /* list_started has been said, list_finished has not */
	struct evbuffer *lines;
	struct kube_list_scanner scanner;
	struct error broken;  /* why the answer under way is of no use */
	bool is_expired;      /* 410: its state is gone */
	int64_t expired_when; /* the last time that it was; 0: never */

	bool is_in_trouble;
	struct error said; /* logged last */
	int64_t said_when;
};

/* Calls into the listener, which may free the watch; false: it did, return at once. */
#define CALL(watch, statement)                                                                                                 \
	({                                                                                                                     \
		bool freed_ = false, *outer_ = (watch)->is_freed;                                                              \
		(watch)->is_freed = &freed_;                                                                                   \
		statement;                                                                                                     \
		if (freed_ && outer_)                                                                                          \
			*outer_ = true;                                                                                        \
		if (!freed_)                                                                                                   \
			(watch)->is_freed = outer_;                                                                            \
		!freed_;                                                                                                       \
	})
#define TELL(watch, function, ...) CALL(watch, (watch)->listener.function((watch)->listener.data, (watch)->kind, ##__VA_ARGS__))

const char *kube_watch_name(const struct kube_watch *watch); /* "pods" */

/* watch_objects.c. Each of them: -1: begin anew; 1: the watch has been freed. */
int kube_watch_take_lines(struct kube_watch *watch, const char *bytes, size_t length, struct error *error);
int kube_watch_page_is_finished(struct kube_watch *watch, struct error *error); /* the whole page has come */
/* Of the list scanner; false: the watch has been freed. */
bool kube_watch_take_item(void *data, const cJSON *item);

/* watch_trouble.c */
/* False: the watch has been freed. */
bool kube_watch_all_is_well(struct kube_watch *watch);
/* A try has failed. The next one comes after a pause, or `retry_after` if that is longer. The watch may be freed. */
void kube_watch_try_later(struct kube_watch *watch, unsigned retry_after, const struct error *error);
/* Something ended that had worked: the next try comes soon, and it is no trouble yet. That it becomes if it happens again and
 * again before the watch has settled; twice is what a break makes that outlasts the server's memory. The watch may be freed. */
void kube_watch_try_soon(struct kube_watch *watch, const struct error *error);
/* The state that we were at is gone, and everything is listed anew. The server that says so is well again, however often it was
 * tried before; only one that says so again and again is not. The watch may be freed. */
void kube_watch_list_soon(struct kube_watch *watch, const struct error *error);
/* The next step is a list. */
void kube_watch_list_again(struct kube_watch *watch);

#endif
