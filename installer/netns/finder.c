/* See finder.h.
 *
 * Of the namespaces of a pod's processes only the oldest few are kept, so that nobody can use up our descriptors.
 *
 * A process is looked at through one descriptor of its /proc folder: a number that is used again in between is not mixed up. */
#include "installer/netns/finder.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/netns/cgroup.h"
#include "installer/netns/netns_address.h"

#define UID_MAX 253	      /* metadata.uid is a UUID; a folder's objects may have anything that is a name */
#define CGROUP_FILE_MAX 16384 /* v1 has a dozen lines; a longer file is of a process that plays tricks */
#define STAT_FILE_MAX 1024
#define STAT_START_TIME 22 /* proc(5): the field's number */

/* A pod's processes may make namespaces without number; the sandbox's own is among the oldest. */
#define CANDIDATES_PER_WISH 8

const char *finder_result_words(enum finder_result result)
{
	static const char *const words[] = {
		[FINDER_NO_PROCESS] = "no process of the pod is seen on this node",
		[FINDER_ONLY_HOST] = "all of the pod's processes are in the host's network namespace",
		[FINDER_NO_ADDRESS] = "none of the pod's addresses is configured in a network namespace of its processes",
		[FINDER_FOUND] = "found",
	};
	return words[result];
}

/* A namespace in which a process of a wish's pod was seen. */
struct candidate {
	size_t wish;
	struct netns_id id;
	int netns;
	unsigned long long start_time; /* of its oldest process, clock ticks since boot */
};

struct scan {
	const struct netns_id *host;
	struct finder_wish *wishes;
	size_t wishes_count;
	size_t *sorted; /* indices of wishes, by uid */
	struct candidate *candidates;
	size_t candidates_count;
};

static void scan_clear(struct scan *scan)
{
	for (size_t i = 0; i < scan->candidates_count; i++)
		if (scan->candidates[i].netns >= 0)
			close(scan->candidates[i].netns);
	free(scan->candidates);
	free(scan->sorted);
}

static int compare_wishes(const void *a, const void *b, void *data)
{
	const struct finder_wish *wishes = data;
	const char *uid = wishes[*(const size_t *)a].uid;
	return cgroup_compare_uid(uid, strlen(uid), wishes[*(const size_t *)b].uid);
}

/* A process that can't be looked at: it is gone, or not for us to see, which is no error; but what lay in the moment is, as a
 * lack of descriptors. */
static int pass_over(int number, struct error *error)
{
	if (!error_may_pass(number))
		return 0;
	return error_set(error, number, "cannot look for pods' network namespaces");
}

/* Reads a small file of a process; false, with errno: it vanished, or is not for us, or is longer than `size` - 1. */
static bool read_file(int directory, const char *name, char *buffer, size_t size)
{
	cleanup_close int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	size_t length = 0;
	for (;;) {
		ssize_t part = read(fd, buffer + length, size - 1 - length);
		if (part < 0 && errno == EINTR)
			continue;
		if (part < 0)
			return false;
		if (part == 0)
			break;
		length += (size_t)part;
		if (length == size - 1) {
			errno = EFBIG;
			return false;
		}
	}
	buffer[length] = '\0';
	return true;
}

static bool read_start_time(int directory, unsigned long long *ret_time)
{
	char text[STAT_FILE_MAX];
	if (!read_file(directory, "stat", text, sizeof text))
		return false;
	/* The second field is the program's name in parentheses, with anything in it. */
	const char *field = strrchr(text, ')');
	for (int number = 2; field && number < STAT_START_TIME; number++) {
		field = strchr(field, ' ');
		field = field ? field + 1 : NULL;
	}
	if (!field || !isdigit((unsigned char)*field)) {
		errno = EINVAL;
		return false;
	}
	errno = 0;
	*ret_time = strtoull(field, NULL, 10);
	return errno == 0;
}

static struct candidate *find_candidate(struct scan *scan, size_t wish, const struct netns_id *id)
{
	for (size_t i = 0; i < scan->candidates_count; i++)
		if (scan->candidates[i].wish == wish && netns_id_equal(scan->candidates[i].id, *id))
			return &scan->candidates[i];
	return NULL;
}

/* The youngest candidate of a wish that has as many as are kept; NULL: there is room for one more. */
static struct candidate *find_youngest(struct scan *scan, size_t wish)
{
	struct candidate *youngest = NULL;
	size_t count = 0;
	for (size_t i = 0; i < scan->candidates_count; i++) {
		struct candidate *candidate = &scan->candidates[i];
		if (candidate->wish != wish)
			continue;
		count++;
		if (!youngest || candidate->start_time > youngest->start_time)
			youngest = candidate;
	}
	return count >= CANDIDATES_PER_WISH ? youngest : NULL;
}

/* A process of the wish's pod. -1: no memory. */
static int look_at_namespace(struct scan *scan, size_t wish, int directory, struct error *error)
{
	struct stat status;
	unsigned long long start_time;
	if (fstatat(directory, "ns/net", &status, 0) < 0 || !read_start_time(directory, &start_time))
		return pass_over(errno, error);
	struct netns_id id = { .device = status.st_dev, .inode = status.st_ino };
	if (netns_id_equal(id, *scan->host)) {
		/* conmon runs in the pod's cgroup and the host's namespace. */
		if (scan->wishes[wish].result == FINDER_NO_PROCESS)
			scan->wishes[wish].result = FINDER_ONLY_HOST;
		return 0;
	}
	struct candidate *candidate = find_candidate(scan, wish, &id);
	if (candidate) {
		if (start_time < candidate->start_time)
			candidate->start_time = start_time;
		return 0;
	}
	struct candidate *youngest = find_youngest(scan, wish);
	if (youngest && youngest->start_time <= start_time)
		return 0;
	cleanup_close int netns = openat(directory, "ns/net", O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct netns_id opened;
	if (netns < 0)
		return pass_over(errno, error);
	if (netns_check(netns, NULL) < 0 || netns_identify(netns, NULL, &opened) < 0)
		return 0;
	/* The process may have gone elsewhere between the two looks: what is open counts. */
	if (!netns_id_equal(opened, id))
		return 0;
	scan->wishes[wish].result = FINDER_NO_ADDRESS;
	if (youngest) {
		close(youngest->netns);
		*youngest = (struct candidate){ .wish = wish, .id = id, .netns = steal_fd(&netns), .start_time = start_time };
		return 0;
	}
	candidate = reallocarray(scan->candidates, scan->candidates_count + 1, sizeof *candidate);
	if (!candidate)
		return error_set(error, ENOMEM, "cannot look for pods' network namespaces");
	scan->candidates = candidate;
	scan->candidates[scan->candidates_count++] =
		(struct candidate){ .wish = wish, .id = id, .netns = steal_fd(&netns), .start_time = start_time };
	return 0;
}

static int look_at_process(struct scan *scan, int proc, const char *number, struct error *error)
{
	char text[CGROUP_FILE_MAX];
	cleanup_close int directory = openat(proc, number, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const char *uid = NULL;
	if (directory < 0 || !read_file(directory, "cgroup", text, sizeof text))
		return pass_over(errno, error);
	size_t length = cgroup_find_uid(text, &uid);
	if (length == 0 || length > UID_MAX)
		return 0;

	size_t low = 0, high = scan->wishes_count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = cgroup_compare_uid(uid, length, scan->wishes[scan->sorted[middle]].uid);
		if (order == 0)
			return look_at_namespace(scan, scan->sorted[middle], directory, error);
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return 0;
}

static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *left = a, *right = b;
	if (left->wish != right->wish)
		return left->wish < right->wish ? -1 : 1;
	if (left->start_time != right->start_time)
		return left->start_time < right->start_time ? -1 : 1;
	return 0;
}

/* Of each wish's candidates the oldest in which an address of the pod is configured. */
static void choose(struct scan *scan)
{
	if (scan->candidates_count > 0)
		qsort(scan->candidates, scan->candidates_count, sizeof *scan->candidates, compare_candidates);
	for (size_t i = 0; i < scan->candidates_count; i++) {
		struct candidate *candidate = &scan->candidates[i];
		struct finder_wish *wish = &scan->wishes[candidate->wish];
		bool has_address = false;
		if (wish->result == FINDER_FOUND)
			continue;
		/* A namespace that can't be looked into is no proof. */
		if (netns_has_address(candidate->netns, wish->addresses, wish->addresses_count, NULL, &has_address) < 0 ||
		    !has_address)
			continue;
		wish->result = FINDER_FOUND;
		wish->id = candidate->id;
		wish->netns = steal_fd(&candidate->netns);
	}
}

int finder_scan(const char *proc_dir, const struct netns_id *host, struct finder_wish *wishes, size_t count,
		struct error *error)
{
	__attribute__((cleanup(scan_clear))) struct scan scan = { .host = host, .wishes = wishes, .wishes_count = count };
	for (size_t i = 0; i < count; i++) {
		wishes[i].result = FINDER_NO_PROCESS;
		wishes[i].netns = -1;
		wishes[i].id = (struct netns_id){ 0 };
	}
	if (count == 0)
		return 0;
	cleanup_closedir DIR *directory = opendir(proc_dir);
	if (!directory)
		return error_set(error, errno, "cannot look for pods' network namespaces among the processes of %s", proc_dir);
	scan.sorted = calloc(count, sizeof *scan.sorted);
	if (!scan.sorted)
		return error_set(error, ENOMEM, "cannot look for pods' network namespaces");
	for (size_t i = 0; i < count; i++)
		scan.sorted[i] = i;
	qsort_r(scan.sorted, count, sizeof *scan.sorted, compare_wishes, wishes);

	const struct dirent *entry;
	while ((entry = readdir(directory)))
		if (isdigit((unsigned char)entry->d_name[0]) &&
		    look_at_process(&scan, dirfd(directory), entry->d_name, error) < 0)
			return -1;
	choose(&scan);
	return 0;
}
