/* The client itself: what is done next, and when. See client.h, and client_parts.h for how its parts work together. */
#include "installer/kube/client.h"

#include <errno.h>
#include <stdlib.h>

#include "ambient/clock.h"
#include "installer/kube/client_parts.h"
#include "installer/kube/pause.h"
#include "installer/memory.h"
#include "version.h"

#define CONNECTIONS_MAX 16
#define IDLE_MILLISECONDS 10000
#define RELOAD_MILLISECONDS 60000
#define BACKOFF_MILLISECONDS 250
#define TRIM_MILLISECONDS 500

const char *kube_result_name(enum kube_result result)
{
	static const char *const names[] = { "success", "refused", "retried", "failed" };
	return names[result];
}

void kube_client_set_off_work(struct kube_client *client)
{
	event_active(client->work, EV_TIMEOUT, 0);
}

void kube_client_hold(struct kube_client *client, int64_t until)
{
	if (until > client->hold_until)
		client->hold_until = until;
}

static void dispatch(struct kube_client *client)
{
	struct kube_request *request;
	while ((request = TAILQ_FIRST(&client->queue))) {
		if (!request->is_stream && clock_milliseconds() < client->hold_until) {
			kube_arm_until(client->hold_timer, client->hold_until);
			return;
		}
		/* A server that could not be reached is tried by one, and the others wait for what comes of it. */
		if (!request->is_stream && error_is_set(&client->hold_reason) && kube_slot_is_one_connecting(client))
			return;
		kube_access_reload(&client->access, client->reload_milliseconds);
		struct error error = { 0 };
		struct kube_slot *slot = kube_slot_find_idle(client);
		if (!slot) {
			if (client->slots_count >= client->connections_max)
				return;
			const char *address = kube_resolver_address(client->access.resolver);
			if (!address) {
				if (kube_resolver_take_error(client->access.resolver, &error)) {
					while ((request = TAILQ_FIRST(&client->queue)))
						kube_request_fail(request, &error);
				}
				return;
			}
			slot = kube_slot_new(client, address, &error);
		}
		if (!slot || kube_slot_start(slot, request, &error) < 0)
			kube_request_fail(request, &error);
	}
}

static void free_for_good(struct kube_client *client)
{
	struct kube_slot *slot;
	while ((slot = TAILQ_FIRST(&client->slots)))
		kube_slot_free(slot);
	if (client->work)
		event_free(client->work);
	if (client->hold_timer)
		event_free(client->hold_timer);
	if (client->trim_timer)
		event_free(client->trim_timer);
	kube_access_clear(&client->access);
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
		kube_request_take_news(request);
	}
	struct kube_slot *slot = TAILQ_FIRST(&client->slots);
	while (slot) {
		struct kube_slot *next = TAILQ_NEXT(slot, link);
		if (kube_slot_is_over(slot) && slot->is_idle)
			kube_arm(client->trim_timer, TRIM_MILLISECONDS);
		if (kube_slot_is_over(slot))
			kube_slot_free(slot);
		slot = next;
	}
	if (!client->is_freed)
		dispatch(client);
	client->is_working = false;
	if (client->is_freed)
		free_for_good(client);
}

static void access_changed(void *data)
{
	kube_client_set_off_work(data);
}

int kube_client_new(struct event_base *base, const struct kube_client_options *options, struct error *error,
		    struct kube_client **ret_client)
{
	struct kube_client *client = calloc(1, sizeof *client);
	if (!client)
		return error_set(error, ENOMEM, "cannot prepare the API client");
	client->base = base;
	client->access = (struct kube_access){ .base = base, .log = options->log, .changed = access_changed, .data = client };
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
	if (!client->work || !client->hold_timer || !client->trim_timer) {
		free_for_good(client);
		return error_set(error, ENOMEM, "cannot prepare the API client");
	}
	if (kube_access_init(&client->access, &options->origin, error) < 0) {
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
	struct kube_request_list *lists[] = { &client->queue, &client->running, &client->paused };
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

char *kube_escape(const char *text)
{
	return evhttp_uriencode(text, -1, 0);
}
