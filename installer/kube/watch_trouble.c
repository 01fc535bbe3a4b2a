/* What goes wrong with a watch: pauses, and who is told. See watch_parts.h. */
#include <stdlib.h>
#include <string.h>

#include "ambient/clock.h"
#include "installer/kube/pause.h"
#include "installer/kube/watch_parts.h"

#define BACKOFF_GROWTH_MAX 60
/* What has lived that long was no failed try. */
#define SETTLED_MILLISECONDS 10000
#define REPEAT_MILLISECONDS 60000

void kube_watch_list_again(struct kube_watch *watch)
{
	free(watch->resource_version);
	free(watch->continue_token);
	watch->resource_version = watch->continue_token = NULL;
}

bool kube_watch_all_is_well(struct kube_watch *watch)
{
	if (!watch->is_in_trouble)
		return true;
	watch->is_in_trouble = false;
	log_write(watch->log, LOG_LEVEL_INFO, NULL, "watching %s works again", kube_watch_name(watch));
	watch->said = (struct error){ 0 };
	return TELL(watch, trouble, NULL);
}

void kube_watch_try_later(struct kube_watch *watch, unsigned retry_after, const struct error *error)
{
	int64_t now = clock_milliseconds();
	if (watch->begun && now - watch->begun >= SETTLED_MILLISECONDS)
		watch->failures = 0;
	int64_t pause = kube_pause(watch->timing.backoff_milliseconds, BACKOFF_GROWTH_MAX, watch->failures);
	if (pause < retry_after)
		pause = kube_pause_as_asked(retry_after);
	watch->failures++;
	kube_arm(watch->timer, pause);

	bool is_same = strcmp(watch->said.message, error->message) == 0;
	if (!is_same || now - watch->said_when >= REPEAT_MILLISECONDS) {
		log_write(watch->log, LOG_LEVEL_WARN, NULL, "cannot watch %s, trying again: %s", kube_watch_name(watch),
			  error->message);
		watch->said_when = now;
	}
	watch->said = *error;
	if (!watch->is_in_trouble || !is_same) {
		watch->is_in_trouble = true;
		/* The listener's reason is borrowed: it must outlive a freed watch. */
		struct error reason = *error;
		(void)TELL(watch, trouble, reason.message);
	}
}

void kube_watch_try_soon(struct kube_watch *watch, const struct error *error)
{
	if (watch->begun && clock_milliseconds() - watch->begun >= SETTLED_MILLISECONDS)
		watch->failures = 0;
	if (watch->failures > 1) {
		kube_watch_try_later(watch, 0, error);
		return;
	}
	watch->failures++;
	log_write(watch->log, LOG_LEVEL_DEBUG, NULL, "watching %s goes on anew: %s", kube_watch_name(watch), error->message);
	unsigned pause = watch->timing.backoff_milliseconds;
	kube_arm(watch->timer, pause / 5 + arc4random_uniform(pause + 1));
}

void kube_watch_list_soon(struct kube_watch *watch, const struct error *error)
{
	int64_t now = clock_milliseconds();
	if (!watch->expired_when || now - watch->expired_when >= SETTLED_MILLISECONDS)
		watch->failures = 0;
	watch->expired_when = now;
	watch->reads_consistently = true;
	kube_watch_list_again(watch);
	kube_watch_try_soon(watch, error);
}
