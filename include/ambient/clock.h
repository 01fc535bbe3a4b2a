/* The time that only goes forward (CLOCK_MONOTONIC): for deadlines and spans. No date: it begins somewhere. */
#ifndef AMBIENT_CLOCK_H
#define AMBIENT_CLOCK_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

static inline int64_t clock_nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t clock_milliseconds(void)
{
	return clock_nanoseconds() / 1000000;
}

static inline double clock_seconds(void)
{
	return (double)clock_nanoseconds() / 1e9;
}

/* A span as timers and sockets take it; a negative one is none. */
static inline struct timeval clock_span(int64_t milliseconds)
{
	if (milliseconds < 0)
		milliseconds = 0;
	return (struct timeval){ .tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000 };
}

#endif
