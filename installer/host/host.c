/* The keeper of the plugin's binary and configuration. See host.h.
 *
 * A look compares and puts right. Looks are caused by inotify (a moment later, so that a burst of changes is one look), by the
 * slow look, by a directory that is missing, and by what a look itself left to do. What we write is bounded by a bucket of
 * tokens: where somebody undoes our work all the time, the node is not churned; it is said who that may be. */
#include "installer/host/host.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "installer/host/binary.h"
#include "installer/host/configuration.h"
#include "installer/host/options.h"
#include "installer/host/replace.h"

/* Milliseconds. */
#define BURST 20
#define SLOW_LOOK 30000
#define MISSING_LOOK 1000
#define RETRY_FIRST 500
#define RETRY_LAST 30000
#define REFILL 6000
/* A file that is being written in place, or a rename by way of a removal, makes nobody not ready. */
#define GRACE 1500
#define WITHDRAW_AFTER 5000

#define TOKENS 10
#define FIGHT_WRITES 6
#define FIGHT_WINDOW 60000
#define REPEAT_AFTER 600000
#define TOLD_MAX 16

#define WATCHED                                                                                                                \
	(IN_CREATE | IN_CLOSE_WRITE | IN_MODIFY | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF |       \
	 IN_MOVE_SELF | IN_ONLYDIR)

struct bucket {
	double tokens;
	long refilled;
};

struct told {
	char *text;
	long time;
};

struct host {
	struct host_options options; /* owned copies */
	struct host_callbacks callbacks;
	void *data;
	struct host_state state;
	bool is_published;

	int inotify; /* -1: none */
	int bin_watch, conf_watch;
	struct event *readable, *timer;

	struct binary_seen seen;
	char binary_reason[HOST_REASON_MAX], configuration_reason[HOST_REASON_MAX]; /* of the last attempts */
	struct bucket binary_bucket, configuration_bucket;
	long binary_retry_at, binary_retry_pause;
	long configuration_retry_at, configuration_retry_pause;
	long unready_since; /* 0: not */
	long withdrawn_since;
	bool is_outrun;		   /* somebody wrote at the same moment */
	long writes[FIGHT_WRITES]; /* when we had to write, a ring */
	size_t writes_next;
	struct told told[TOLD_MAX];
	size_t told_next;
};

const char *host_file_name(enum host_file file)
{
	static const char *const names[HOST_FILE_COUNT] = {
		[HOST_FILE_BINARY] = "binary",
		[HOST_FILE_CONFIGURATION] = "configuration",
	};
	return names[file];
}

const char *host_result_name(enum host_result result)
{
	static const char *const names[HOST_RESULT_COUNT] = {
		[HOST_RESULT_WRITTEN] = "written",
		[HOST_RESULT_FAILED] = "failed",
		[HOST_RESULT_DEFERRED] = "deferred",
	};
	return names[result];
}

/* Milliseconds of a clock that never stands at 0. */
static long now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_BOOTTIME, &time);
	return time.tv_sec * 1000 + time.tv_nsec / 1000000 + 1;
}

static void tell(struct host *host, enum log_level level, const char *reason, const char *message)
{
	char *text = NULL;
	long time = now();
	if (!host->callbacks.event || asprintf(&text, "%s %s", reason, message) < 0)
		return;
	for (size_t i = 0; i < TOLD_MAX; i++) {
		const struct told *told = &host->told[i];
		if (told->text && strcmp(told->text, text) == 0 && time - told->time < REPEAT_AFTER) {
			free(text);
			return;
		}
	}
	struct told *slot = &host->told[host->told_next++ % TOLD_MAX];
	free(slot->text);
	*slot = (struct told){ .text = text, .time = time };
	host->callbacks.event(host->data, level, reason, message);
}

static bool has_token(struct bucket *bucket)
{
	long time = now();
	if (bucket->refilled == 0) {
		bucket->tokens = TOKENS;
	} else {
		bucket->tokens += (double)(time - bucket->refilled) / REFILL;
		if (bucket->tokens > TOKENS)
			bucket->tokens = TOKENS;
	}
	bucket->refilled = time;
	return bucket->tokens >= 1;
}

static void take_token(struct bucket *bucket)
{
	bucket->tokens -= 1;
}

static void look_again_in(struct host *host, long milliseconds)
{
	struct timeval wait = clock_span(milliseconds), due, time;
	if (!host->timer)
		return;
	/* The sooner one counts. */
	if (event_pending(host->timer, EV_TIMEOUT, &due)) {
		gettimeofday(&time, NULL);
		timeradd(&time, &wait, &time);
		if (timercmp(&due, &time, <))
			return;
	}
	event_add(host->timer, &wait);
}

/* Pauses double until they are half a minute; what succeeds starts anew. */
static void retry_later(struct host *host, long *retry_at, long *pause)
{
	*pause = *pause == 0 ? RETRY_FIRST : *pause * 2 > RETRY_LAST ? RETRY_LAST : *pause * 2;
	*retry_at = now() + *pause;
	look_again_in(host, *pause);
}

static int watch_one(const struct host *host, const char *path, int old)
{
	int watch = inotify_add_watch(host->inotify, path, WATCHED);
	/* Another directory under the same path: nobody cares for the old one. */
	if (old >= 0 && watch != old)
		inotify_rm_watch(host->inotify, old);
	return watch;
}

/* Again with each look: adding a watch that is there changes nothing, and a directory may be a new one. */
static void watch(struct host *host)
{
	if (host->inotify < 0)
		return;
	host->bin_watch = watch_one(host, host->options.bin_dir, host->bin_watch);
	host->conf_watch = watch_one(host, host->options.conf_dir, host->conf_watch);
	if (host->bin_watch < 0 || host->conf_watch < 0)
		look_again_in(host, MISSING_LOOK);
}

static void look_at_binary(struct host *host, struct error *ret_problem)
{
	struct host_state *state = &host->state;
	const struct host_options *options = &host->options;
	char message[HOST_REASON_MAX];
	bool is_written = false;
	long wait = host->binary_retry_at - now();
	if (!state->binary_ready && wait > 0) {
		look_again_in(host, wait + 1);
		error_say(ret_problem, 0, "%s", host->binary_reason);
		return;
	}
	if (!has_token(&host->binary_bucket)) {
		look_again_in(host, REFILL);
		host->seen.is_good = false;
		state->binary_ready = false;
		state->results[HOST_FILE_BINARY][HOST_RESULT_DEFERRED]++;
		error_set(ret_problem, 0, "somebody changes %s/" HOST_PLUGIN_NAME " again and again", options->bin_dir);
		return;
	}
	if (binary_install(options->bin_source, options->bin_dir, &host->seen, ret_problem, &is_written) < 0) {
		state->binary_ready = false;
		snprintf(host->binary_reason, sizeof host->binary_reason, "%s", ret_problem->message);
		if (ret_problem->number == ENOENT) {
			look_again_in(host, MISSING_LOOK);
			return;
		}
		state->results[HOST_FILE_BINARY][HOST_RESULT_FAILED]++;
		retry_later(host, &host->binary_retry_at, &host->binary_retry_pause);
		tell(host, LOG_LEVEL_WARN, "BinaryFailed", ret_problem->message);
		return;
	}
	state->binary_ready = true;
	host->binary_retry_at = host->binary_retry_pause = 0;
	if (is_written) {
		take_token(&host->binary_bucket);
		state->results[HOST_FILE_BINARY][HOST_RESULT_WRITTEN]++;
		snprintf(message, sizeof message, "installed %s/" HOST_PLUGIN_NAME, options->bin_dir);
		tell(host, LOG_LEVEL_INFO, "BinaryWritten", message);
	}
}

/* We had to write once more, or somebody wrote at the same moment. */
static void count_write(struct host *host, const struct configuration_report *report)
{
	char message[HOST_REASON_MAX];
	long time = now();
	host->writes[host->writes_next++ % FIGHT_WRITES] = time;
	long oldest = host->writes[host->writes_next % FIGHT_WRITES];
	if (oldest == 0 || time - oldest > FIGHT_WINDOW)
		return;
	snprintf(message, sizeof message,
		 "somebody changes the network configuration in %s against " HOST_PLUGIN_NAME
		 " again and again; it is put right every few seconds at most. %s",
		 host->options.conf_dir,
		 report->neighbour[0]
			 ? report->neighbour
			 : "Find out who writes there (two node agents with different settings, a network's operator)");
	tell(host, LOG_LEVEL_WARN, "ConfigurationFight", message);
}

static void tell_report(struct host *host, const struct configuration_report *report)
{
	char message[HOST_REASON_MAX];
	if (report->written[0])
		tell(host, LOG_LEVEL_INFO, "ConfigurationWritten", report->written);
	if (report->warning[0])
		tell(host, LOG_LEVEL_WARN, "InvalidConfiguration", report->warning);
	if (report->istio[0]) {
		snprintf(message, sizeof message, "istio-cni's place in %s was taken: %s", host->options.conf_dir,
			 report->istio);
		tell(host, LOG_LEVEL_INFO, "IstioCNIReplaced", message);
	}
}

static void look_at_configuration(struct host *host, struct configuration_report *report)
{
	struct host_state *state = &host->state;
	struct error problem = { 0 };
	long time = now();
	long wait = host->configuration_retry_at - time;
	bool has_means = has_token(&host->configuration_bucket) && wait <= 0;
	/* A configuration never names a plugin that is not there. */
	bool may_write = has_means && state->binary_ready;
	bool may_withdraw = !host->timer || (host->withdrawn_since != 0 && time - host->withdrawn_since >= WITHDRAW_AFTER);
	int result = configuration_converge(&host->options, may_write, may_withdraw, &problem, report);
	if (result == 0 && (report->is_written || report->is_outrun))
		count_write(host, report);

	if (report->is_withdrawn && host->withdrawn_since == 0)
		host->withdrawn_since = time;
	if (!report->is_withdrawn)
		host->withdrawn_since = 0;
	if (host->withdrawn_since != 0)
		look_again_in(host, WITHDRAW_AFTER);

	if (report->is_written || result < 0)
		take_token(&host->configuration_bucket);
	if (report->is_written)
		state->results[HOST_FILE_CONFIGURATION][HOST_RESULT_WRITTEN]++;
	if (result < 0) {
		state->results[HOST_FILE_CONFIGURATION][HOST_RESULT_FAILED]++;
		snprintf(host->configuration_reason, sizeof host->configuration_reason, "%s", problem.message);
		snprintf(report->reason, sizeof report->reason, "%s", problem.message);
		retry_later(host, &host->configuration_retry_at, &host->configuration_retry_pause);
		tell(host, LOG_LEVEL_WARN, "ConfigurationFailed", problem.message);
	} else if (may_write) {
		host->configuration_retry_at = host->configuration_retry_pause = 0;
	}
	if (report->is_pending && wait > 0) {
		/* What failed is still the reason. */
		snprintf(report->reason, sizeof report->reason, "%s", host->configuration_reason);
		look_again_in(host, wait + 1);
	} else if (report->is_pending && state->binary_ready) {
		state->results[HOST_FILE_CONFIGURATION][HOST_RESULT_DEFERRED]++;
		look_again_in(host, REFILL);
	}
	host->is_outrun = report->is_outrun;
	if (report->is_outrun)
		look_again_in(host, BURST);
	tell_report(host, report);
}

static bool is_same_state(const struct host_state *a, const struct host_state *b)
{
	return a->ready == b->ready && a->binary_ready == b->binary_ready && a->configuration_ready == b->configuration_ready &&
	       strcmp(a->reason, b->reason) == 0 && strcmp(a->file, b->file) == 0 &&
	       memcmp(a->results, b->results, sizeof a->results) == 0;
}

static void publish(struct host *host, const struct host_state *next)
{
	bool has_changed = !host->is_published || !is_same_state(&host->state, next);
	bool has_new_reason = !next->ready && strcmp(host->state.reason, next->reason) != 0;
	host->state = *next;
	host->is_published = true;
	if (has_new_reason)
		tell(host, LOG_LEVEL_INFO, "HostNotReady", next->reason);
	if (has_changed && host->callbacks.state_changed)
		host->callbacks.state_changed(host->data, &host->state);
}

static void look(struct host *host)
{
	struct configuration_report report;
	struct error binary_problem = { 0 };
	struct host_state before = host->state;
	/* Before reading: what changes from here on is seen by the next look. */
	watch(host);
	look_at_binary(host, &binary_problem);
	look_at_configuration(host, &report);

	struct host_state next = host->state;
	next.configuration_ready = report.is_ready;
	next.ready = next.binary_ready && next.configuration_ready;
	snprintf(next.file, sizeof next.file, "%s", report.file);
	const char *reason = !next.binary_ready ? binary_problem.message : report.reason;
	snprintf(next.reason, sizeof next.reason, "%s", next.ready ? "" : reason);

	host->state = before;
	long time = now();
	if (next.ready || !before.ready)
		host->unready_since = 0;
	else if (host->unready_since == 0)
		host->unready_since = time;
	if (host->unready_since != 0 && time - host->unready_since < GRACE) {
		/* Only what was counted counts. */
		memcpy(host->state.results, next.results, sizeof next.results);
		host->state.binary_ready = next.binary_ready;
		look_again_in(host, GRACE / 5);
		return;
	}
	publish(host, &next);
}

static void on_timer(evutil_socket_t fd, short what, void *data)
{
	struct host *host = data;
	(void)fd;
	(void)what;
	look(host);
	look_again_in(host, SLOW_LOOK);
}

/* Whether an event tells more than our own temporary files. */
static bool is_of_interest(const struct inotify_event *event)
{
	size_t length = event->len > 0 ? strlen(event->name) : 0;
	const size_t suffix = strlen(REPLACEMENT_SUFFIX);
	return length < suffix || strcmp(event->name + length - suffix, REPLACEMENT_SUFFIX) != 0;
}

static void on_readable(evutil_socket_t fd, short what, void *data)
{
	struct host *host = data;
	bool is_interesting = false;
	(void)what;
	for (;;) {
		char buffer[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
		ssize_t length = read(fd, buffer, sizeof buffer);
		if (length < 0 && errno == EINTR)
			continue;
		if (length <= 0)
			break;
		const struct inotify_event *event;
		for (char *next = buffer; next < buffer + length; next += sizeof *event + event->len) {
			event = (const struct inotify_event *)next;
			is_interesting |= is_of_interest(event);
		}
	}
	if (is_interesting)
		look_again_in(host, BURST);
}

static struct host *make(const struct host_options *options, const struct host_callbacks *callbacks, void *data,
			 struct error *error)
{
	struct host *host = calloc(1, sizeof *host);
	if (!host) {
		error_set(error, ENOMEM, "cannot watch the host's files");
		return NULL;
	}
	*host = (struct host){ .data = data, .inotify = -1, .bin_watch = -1, .conf_watch = -1 };
	if (callbacks)
		host->callbacks = *callbacks;
	if (host_options_check(options, error) < 0 || host_options_copy(options, error, &host->options) < 0) {
		host_free(host);
		return NULL;
	}
	return host;
}

int host_new(struct event_base *base, const struct host_options *options, const struct host_callbacks *callbacks, void *data,
	     struct error *error, struct host **ret_host)
{
	struct host *host = make(options, callbacks, data, error);
	if (!host)
		return -1;
	host->timer = event_new(base, -1, 0, on_timer, host);
	host->inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	int number = errno;
	if (host->inotify >= 0)
		host->readable = event_new(base, host->inotify, EV_READ | EV_PERSIST, on_readable, host);
	if (!host->timer || (host->inotify >= 0 && (!host->readable || event_add(host->readable, NULL) < 0))) {
		host_free(host);
		return error_set(error, ENOMEM, "cannot watch the host's files");
	}
	if (host->inotify < 0) {
		char message[256];
		snprintf(message, sizeof message, "changes on the host are seen every %d seconds only, there is no inotify: %s",
			 SLOW_LOOK / 1000, strerror(number));
		tell(host, LOG_LEVEL_WARN, "NoWatch", message);
	}
	look(host);
	look_again_in(host, SLOW_LOOK);
	*ret_host = host;
	return 0;
}

void host_free(struct host *host)
{
	if (!host)
		return;
	if (host->readable)
		event_free(host->readable);
	if (host->timer)
		event_free(host->timer);
	if (host->inotify >= 0)
		close(host->inotify);
	for (size_t i = 0; i < TOLD_MAX; i++)
		free(host->told[i].text);
	host_options_clear(&host->options);
	free(host);
}

const struct host_state *host_state(const struct host *host)
{
	return &host->state;
}

int host_install_once(const struct host_options *options, const struct host_callbacks *callbacks, void *data,
		      struct error *error, struct host_state *ret_state)
{
	struct host *host = make(options, callbacks, data, error);
	if (!host)
		return -1;
	/* Somebody who wrote at the same moment: again, with what they wrote. */
	for (int i = 0; i < 5 && (i == 0 || host->is_outrun); i++)
		look(host);
	*ret_state = host->state;
	host_free(host);
	return 0;
}
