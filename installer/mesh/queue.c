/* The queue of pods to look at, and what is said of a pod: when it is its turn again, what failed, what people are told. See
 * state.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "installer/mesh/state.h"

#define RETRY_LEAST 0.005
#define RETRY_MOST 5.0

void mesh_arm(struct event *event, double seconds)
{
	if (seconds < 0)
		seconds = 0;
	struct timeval wait = { .tv_sec = (time_t)seconds,
				.tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6) };
	evtimer_add(event, &wait);
}

void mesh_log(const struct mesh_pod *pod, enum log_level level, const char *step, const char *format, ...)
{
	char message[1400], name[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message, sizeof message, format, arguments);
	va_end(arguments);
	snprintf(name, sizeof name, "%s/%s", pod->namespace_name, pod->name);
	const struct log_field fields[] = { { "pod", name }, { "uid", pod->uid }, { "step", step }, { NULL, NULL } };
	log_write(pod->mesh->settings.log, level, fields, "%s", message);
}

void mesh_event(const struct mesh_pod *pod, bool is_warning, const char *reason, const char *message)
{
	const struct mesh_observer *observer = &pod->mesh->observer;
	if (observer->pod_event && pod->object)
		observer->pod_event(observer->data, pod->object, is_warning, reason, message);
}

void mesh_queue(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	if (pod->is_queued)
		return;
	pod->is_queued = true;
	TAILQ_INSERT_TAIL(&mesh->queue, pod, queue);
	if (!event_pending(mesh->run, EV_TIMEOUT, NULL))
		mesh_arm(mesh->run, 0);
}

static void timer_expired(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	mesh_queue(data);
}

void mesh_queue_after(struct mesh_pod *pod, double seconds)
{
	struct timeval due, now;
	if (!pod->timer)
		pod->timer = evtimer_new(pod->mesh->base, timer_expired, pod);
	if (!pod->timer) {
		mesh_queue(pod); /* no memory: a busy pod is better than one that is forgotten */
		return;
	}
	/* The earlier of two appointments stands. */
	if (event_pending(pod->timer, EV_TIMEOUT, &due)) {
		evutil_gettimeofday(&now, NULL);
		double left = (double)(due.tv_sec - now.tv_sec) + (double)(due.tv_usec - now.tv_usec) / 1e6;
		if (left <= seconds)
			return;
	}
	mesh_arm(pod->timer, seconds);
}

double mesh_retry_wait(double least, double most, unsigned int failures)
{
	double wait = least * (double)(1U << (failures < 10 ? failures : 10));
	return wait < most ? wait : most;
}

void mesh_failed(struct mesh_pod *pod, enum metrics_step step, const struct error *error)
{
	bool is_news = pod->failures == 0 || pod->last_error_step != step || !pod->last_error ||
		       strcmp(pod->last_error, error->message) != 0;
	double wait = mesh_retry_wait(RETRY_LEAST, RETRY_MOST, pod->failures);
	pod->mesh->settings.metrics->reconcile_errors[step]++;
	if (is_news) {
		free(pod->last_error);
		pod->last_error = strdup(error->message);
	}
	pod->last_error_step = step;
	pod->failures++;
	pod->retry_after = clock_seconds() + wait;
	if (is_news)
		mesh_log(pod, LOG_LEVEL_WARN, metrics_step_name(step), "%s; it is tried again", error->message);
	/* What passes in a moment is nobody's concern. */
	if (pod->failures == 8)
		mesh_event(pod, true, "EnrolmentFailing", error->message);
	mesh_queue_after(pod, wait);
}

void mesh_succeeded(struct mesh_pod *pod)
{
	pod->failures = 0;
	pod->retry_after = 0;
	free(pod->last_error);
	pod->last_error = NULL;
}

void mesh_step_succeeded(struct mesh_pod *pod, enum metrics_step step)
{
	if (pod->failures > 0 && pod->last_error_step == step)
		mesh_succeeded(pod);
}
