/* What the measuring programs share: namespaces made beforehand, and time. */
#ifndef AMBIENT_BENCH_FRESH_NETNS_H
#define AMBIENT_BENCH_FRESH_NETNS_H

#include <err.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static inline long nanoseconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Each namespace stays until the end: taking one away costs time in the kernel, later and elsewhere. */
static inline void allow_many_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/* A namespace as a container runtime leaves it: lo is up. Returns its descriptor. */
static inline int fresh_netns(void)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0 || unshare(CLONE_NEWNET) < 0)
		err(1, "cannot make a network namespace");
	int fresh = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	int inet = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = { .ifr_name = "lo" };
	if (fresh < 0 || inet < 0 || ioctl(inet, SIOCGIFFLAGS, &request) < 0)
		err(1, "cannot look at lo");
	request.ifr_flags |= IFF_UP;
	if (ioctl(inet, SIOCSIFFLAGS, &request) < 0)
		err(1, "cannot bring lo up");
	close(inet);
	if (setns(home, CLONE_NEWNET) < 0)
		err(1, "cannot come back");
	close(home);
	return fresh;
}

#endif
