/* The wall time of one start of a program, beside the start of one that does nothing:
 *
 *     start PAIRS OTHERS VERB CONFIGURATION FLOOR PROGRAM [NAMESPACE]
 *
 * With NAMESPACE, each call is for a pod of its own in it, named bench-N as its uid is, N from 0; its configuration is
 * CONFIGURATION.N.
 *
 * In turn: FLOOR, PROGRAM as a container runtime would call it with VERB (in a fresh network namespace each), so that whatever
 * else the machine does hits both alike. OTHERS namespaces with a redirection stand meanwhile. Prints a line "floor program" in
 * nanoseconds for each pair. */
#include "tests/bench/fresh_netns.h"

#include <spawn.h>
#include <sys/wait.h>

#include "ambient/cleanup.h"
#include "ambient/redirect.h"

#define WARM_UP 10

static long start(const char *program, char **environment, const posix_spawn_file_actions_t *actions)
{
	char *const arguments[] = { (char *)program, NULL };
	int status;
	pid_t pid;
	long before = nanoseconds();
	if ((errno = posix_spawn(&pid, program, actions, NULL, arguments, environment)) != 0)
		err(1, "cannot start %s", program);
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			err(1, "cannot wait for %s", program);
	long took = nanoseconds() - before;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		errx(1, "%s failed (status 0x%x)", program, status);
	return took;
}

static void redirect_others(int count)
{
	struct redirect redirect;
	redirect_init(&redirect);
	for (int i = 0; i < count; i++) {
		struct error error = { 0 };
		struct redirect_session *session = NULL;
		if (redirect_session_open(fresh_netns(), &error, &session) < 0 ||
		    redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, &error) < 0)
			errx(1, "%s", error.message);
		/* Kept open, as the node agent does. */
	}
}

int main(int argc, char **argv)
{
	if (argc < 7 || argc > 8)
		errx(2, "usage: start PAIRS OTHERS VERB CONFIGURATION FLOOR PROGRAM [NAMESPACE]");
	int pairs = atoi(argv[1]), others = atoi(argv[2]);
	const char *verb = argv[3], *configuration = argv[4], *floor_program = argv[5], *program = argv[6];

	allow_many_descriptors();
	redirect_others(others);
	for (int i = -WARM_UP; i < pairs; i++) {
		char command[64], container[64], netns[64], pod[256] = "CNI_ARGS=", path[4096];
		int fd = fresh_netns();
		snprintf(command, sizeof command, "CNI_COMMAND=%s", verb);
		snprintf(container, sizeof container, "CNI_CONTAINERID=bench%d", i + WARM_UP);
		snprintf(netns, sizeof netns, "CNI_NETNS=/proc/%d/fd/%d", (int)getpid(), fd);
		snprintf(path, sizeof path, "%s", configuration);
		if (argc == 8) {
			snprintf(pod, sizeof pod,
				 "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=bench-%d;K8S_POD_UID=bench-%d",
				 argv[7], i + WARM_UP, i + WARM_UP);
			snprintf(path, sizeof path, "%s.%d", configuration, i + WARM_UP);
		}
		char *environment[] = { command, container, netns, pod, "CNI_IFNAME=eth0", "CNI_PATH=/nowhere", NULL };
		posix_spawn_file_actions_t actions;
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, path, O_RDONLY, 0);
		posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
		long nothing = start(floor_program, environment, &actions);
		long something = start(program, environment, &actions);
		posix_spawn_file_actions_destroy(&actions);
		if (i >= 0)
			printf("%ld %ld\n", nothing, something);
	}
	return 0;
}
