/* What unit tests look at, and change, in their own process: its descriptors, its network namespace. */
#ifndef AMBIENT_TESTS_UNIT_PROCESS_H
#define AMBIENT_TESTS_UNIT_PROCESS_H

#include "tests/unit/cmocka_headers.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

static inline int count_descriptors(void)
{
	int count = 0;
	DIR *directory = opendir("/proc/self/fd");
	assert_non_null(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* A network namespace that nobody else has; the process is back where it was afterwards. */
static inline int make_namespace(void)
{
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(home >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	int made = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	close(home);
	return made;
}

#endif
