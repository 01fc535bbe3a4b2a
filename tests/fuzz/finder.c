/* What a process says of itself below /proc: cgroup and stat, as a container may have made them. The input is cgroup, a NUL,
 * stat. A process counts for a pod only where its cgroup names the pod, and of two pods' names the first counts. */
#include "installer/netns/finder.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "tests/fuzz/agent.h"

#define PROCESS FUZZ_RUN_DIR "/proc/7"

static struct netns_id host_id;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	struct error error = { 0 };
	HOLDS(netns_identify(fuzz_agent_place(), &error, &host_id) == 0);
	/* The processes' namespace is another than the host's. */
	HOLDS(unshare(CLONE_NEWNET) == 0);
	HOLDS(mkdir(FUZZ_RUN_DIR "/proc", 0700) == 0 && mkdir(PROCESS, 0700) == 0 && mkdir(PROCESS "/ns", 0700) == 0);
	HOLDS(symlink("/proc/thread-self/ns/net", PROCESS "/ns/net") == 0);
	return 0;
}

static void put(const char *path, const uint8_t *bytes, size_t size)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	HOLDS(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
}

/* Another way to look: "pod" and the uid, dashes as underscores or not, anywhere in the text. */
static bool names(const char *text, const char *uid)
{
	for (const char *found = strstr(text, "pod"); found; found = strstr(found + 1, "pod")) {
		size_t i = 0;
		while (uid[i] && (found[3 + i] == uid[i] || (uid[i] == '-' && found[3 + i] == '_')))
			i++;
		if (!uid[i])
			return true;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const uids[] = { "3c1e6c1a-0000-4000-8000-000000000001", "3c1e6c1a-0000-4000-8000-000000000002",
					    "a" };
	struct finder_wish wishes[3];
	struct error error = { 0 };
	cleanup_free char *text = strndup((const char *)data, size);
	size_t length = strlen(text), seen = 0;
	const uint8_t *rest = data + length + (length < size);
	for (size_t i = 0; i < 3; i++)
		wishes[i] = (struct finder_wish){ .uid = uids[i] };
	put(PROCESS "/cgroup", data, length);
	put(PROCESS "/stat", rest, size - (size_t)(rest - data));
	HOLDS(finder_scan(FUZZ_RUN_DIR "/proc", &host_id, wishes, 3, &error) == 0);
	for (size_t i = 0; i < 3; i++) {
		/* Without one of the pod's addresses in it no namespace is the pod's. */
		HOLDS(wishes[i].netns < 0 && (wishes[i].result == FINDER_NO_PROCESS || wishes[i].result == FINDER_NO_ADDRESS));
		if (wishes[i].result == FINDER_NO_ADDRESS)
			HOLDS(names(text, uids[i]));
		seen += wishes[i].result == FINDER_NO_ADDRESS;
	}
	HOLDS(seen <= 1);
	return 0;
}
