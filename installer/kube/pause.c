/* Timers and pauses. See pause.h. */
#include "installer/kube/pause.h"

#include <stdlib.h>

#include "ambient/clock.h"

void kube_arm(struct event *timer, int64_t milliseconds)
{
	const struct timeval span = clock_span(milliseconds);
	evtimer_add(timer, &span);
}

void kube_arm_until(struct event *timer, int64_t when)
{
	int64_t left = when - clock_milliseconds();
	/* A millisecond more than the remainder: a timer never fires just before its time. */
	kube_arm(timer, left > 0 ? left + 1 : 0);
}

int64_t kube_pause(unsigned first, unsigned growth_max, unsigned failures)
{
	int64_t pause = (int64_t)first << (failures < 10 ? failures : 10);
	if (pause > (int64_t)first * growth_max)
		pause = (int64_t)first * growth_max;
	return pause / 2 + arc4random_uniform((uint32_t)(pause / 2) + 1);
}

int64_t kube_pause_as_asked(unsigned milliseconds)
{
	return (int64_t)milliseconds + arc4random_uniform(milliseconds / 4 + 1);
}
