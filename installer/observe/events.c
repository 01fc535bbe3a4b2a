/* What happened last, for the status page, and Events of the Kubernetes kind.
 *
 * Everything that is told is kept here for a while, the same thing once with a count. What becomes an Event is bounded twice:
 * the same reason of the same pod once in ten minutes, and all of them together by a token bucket, of which warnings may take
 * the last tokens and ordinary news may not. An Event is a courtesy: none is tried again, and none delays anything. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/clock.h"
#include "installer/kube/requests.h"
#include "installer/observe/state.h"

#define AGAIN_SECONDS 600.0
#define BUCKET 50.0
#define BUCKET_PER_SECOND 1.0
#define BUCKET_FOR_WARNINGS 20.0

struct happening {
	time_t first, last;
	unsigned long count;
	bool is_warning;
	char *about; /* "shop/cart"; empty: the node */
	char *reason, *message;
};

const char *event_result_name(enum event_result result)
{
	static const char *const names[EVENT_RESULT_COUNT] = {
		[EVENT_SENT] = "sent",
		[EVENT_HELD_BACK] = "held-back",
		[EVENT_FAILED] = "failed",
	};
	return names[result];
}

static void happening_free(struct happening *happening)
{
	if (!happening)
		return;
	free(happening->about);
	free(happening->reason);
	free(happening->message);
	free(happening);
}

void events_clear(struct events *events)
{
	for (size_t i = 0; i < HAPPENINGS_MAX; i++)
		happening_free(events->happenings[i]);
	*events = (struct events){ 0 };
}

/* Without memory it is not kept: nothing depends on it. */
static void keep(struct events *events, const char *about, bool is_warning, const char *reason, const char *message)
{
	struct happening **all = events->happenings, *found = NULL;
	size_t place = 0;
	for (; place < HAPPENINGS_MAX - 1 && all[place]; place++) {
		if (strcmp(all[place]->about, about) == 0 && strcmp(all[place]->reason, reason) == 0 &&
		    strcmp(all[place]->message, message) == 0)
			break;
	}
	/* `place` is the same one's, or a free one, or the oldest one's. */
	if (all[place] && strcmp(all[place]->about, about) == 0 && strcmp(all[place]->reason, reason) == 0 &&
	    strcmp(all[place]->message, message) == 0) {
		found = all[place];
	} else {
		found = calloc(1, sizeof *found);
		if (!found)
			return;
		*found = (struct happening){ .first = time(NULL),
					     .is_warning = is_warning,
					     .about = strdup(about),
					     .reason = strdup(reason),
					     .message = strdup(message) };
		if (!found->about || !found->reason || !found->message) {
			happening_free(found);
			return;
		}
		happening_free(all[place]);
	}
	found->last = time(NULL);
	found->count++;
	memmove(&all[1], &all[0], place * sizeof all[0]);
	all[0] = found;
}

cJSON *events_to_json(const struct events *events)
{
	cJSON *array = cJSON_CreateArray();
	for (size_t i = 0; array && i < HAPPENINGS_MAX && events->happenings[i]; i++) {
		const struct happening *happening = events->happenings[i];
		char first[TIME_TEXT_MAX], last[TIME_TEXT_MAX];
		cJSON *entry = cJSON_CreateObject();
		observe_print_time(happening->first, first);
		observe_print_time(happening->last, last);
		if (!cJSON_AddStringToObject(entry, "time", last) || !cJSON_AddStringToObject(entry, "first", first) ||
		    !cJSON_AddNumberToObject(entry, "count", (double)happening->count) ||
		    !cJSON_AddStringToObject(entry, "type", happening->is_warning ? "Warning" : "Normal") ||
		    !cJSON_AddStringToObject(entry, "pod", happening->about) ||
		    !cJSON_AddStringToObject(entry, "reason", happening->reason) ||
		    !cJSON_AddStringToObject(entry, "message", happening->message) || !cJSON_AddItemToArray(array, entry)) {
			cJSON_Delete(entry);
			cJSON_Delete(array);
			return NULL;
		}
	}
	return array;
}

/* FNV-1a. */
static uint64_t hash(uint64_t key, const char *text)
{
	for (const char *c = text; *c; c++)
		key = (key ^ (unsigned char)*c) * 0x100000001b3;
	return key * 0x100000001b3;
}

/* Whether it is told now: not told in the last while, and within the rate. */
static bool may_tell(struct events *events, const char *uid, bool is_warning, const char *reason)
{
	double time = clock_seconds();
	uint64_t key = hash(hash(0xcbf29ce484222325, uid), reason);
	struct told *place = &events->told[0];
	for (size_t i = 0; i < TOLD_MAX; i++) {
		struct told *told = &events->told[i];
		if (told->key == key && told->until > time)
			return false;
		if (told->until < place->until)
			place = told;
	}
	events->tokens = events->filled == 0 ? BUCKET : events->tokens + (time - events->filled) * BUCKET_PER_SECOND;
	if (events->tokens > BUCKET)
		events->tokens = BUCKET;
	events->filled = time;
	if (events->tokens < 1 + (is_warning ? 0 : BUCKET_FOR_WARNINGS))
		return false;
	events->tokens--;
	*place = (struct told){ .key = key, .until = time + AGAIN_SECONDS };
	return true;
}

static void tell(struct observe *observe, const struct kube_event *event)
{
	struct error error = { 0 };
	if (!observe->seen.client)
		return;
	if (!may_tell(&observe->events, event->uid ? event->uid : "", event->is_warning, event->reason)) {
		observe->events.results[EVENT_HELD_BACK]++;
		return;
	}
	if (kube_create_event(observe->seen.client, event, NULL, NULL, &error, NULL) == 0) {
		observe->events.results[EVENT_SENT]++;
		return;
	}
	observe->events.results[EVENT_FAILED]++;
	log_write(observe->seen.log, LOG_LEVEL_WARN, NULL, "an Event (%s) can't be sent: %s", event->reason, error.message);
}

void observe_pod_event(void *data, const struct pod *pod, bool is_warning, const char *reason, const char *message)
{
	struct observe *observe = data;
	char about[600];
	snprintf(about, sizeof about, "%s/%s", pod->namespace_name, pod->name);
	keep(&observe->events, about, is_warning, reason, message);
	tell(observe, &(struct kube_event){ .namespace_name = pod->namespace_name,
					    .name = pod->name,
					    .uid = pod->uid,
					    .is_warning = is_warning,
					    .reason = reason,
					    .message = message,
					    .node_name = observe->seen.config->node_name });
}

void observe_host_event(struct observe *observe, enum log_level level, const char *reason, const char *message)
{
	const char *node = observe->seen.config->node_name;
	bool is_warning = level >= LOG_LEVEL_WARN;
	keep(&observe->events, "", is_warning, reason, message);
	tell(observe,
	     &(struct kube_event){
		     .name = node, .is_warning = is_warning, .reason = reason, .message = message, .node_name = node });
}
