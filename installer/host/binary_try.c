/* Running the plugin: with CNI_COMMAND=VERSION, to see whether it runs on this host at all (a directory mounted noexec, a
 * plugin of another machine, a missing C library), and without a verb, to learn its version. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/json.h"
#include "installer/host/binary.h"
#include "installer/host/host.h"

#define TRY_MILLISECONDS 5000
#define ANSWER_MAX 16384

/* Starts `path` with standard output into a pipe, all else away. */
static int start(const char *path, char *const environment[], struct error *error, pid_t *ret_process, int *ret_output)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(error, errno, "cannot run %s", path);
	cleanup_close int output = ends[0], input = ends[1];
	posix_spawn_file_actions_t actions;
	char *const arguments[] = { (char *)HOST_PLUGIN_NAME, NULL };
	posix_spawn_file_actions_init(&actions);
	int number = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (number == 0)
		number = posix_spawn_file_actions_adddup2(&actions, input, STDOUT_FILENO);
	if (number == 0)
		number = posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	pid_t process = -1;
	if (number == 0)
		number = posix_spawn(&process, path, &actions, NULL, arguments, environment);
	posix_spawn_file_actions_destroy(&actions);
	if (number != 0)
		return error_say(error, number, "cannot run %s: %s%s", path, strerror(number),
				 number == EACCES ? " (is the directory mounted noexec?)"
				 : number == ENOENT
					 ? " (it needs a program loader that this system does not have: install a static build)"
					 : "");
	*ret_process = process;
	*ret_output = steal_fd(&output);
	return 0;
}

/* Waits until the process has ended; kills it at the deadline. */
static int wait_for(pid_t process, int64_t deadline, int *ret_status)
{
	for (;;) {
		pid_t ended = waitpid(process, ret_status, WNOHANG);
		if (ended == process)
			return 0;
		if (ended < 0 && errno != EINTR)
			return -1;
		if (clock_milliseconds() >= deadline) {
			kill(process, SIGKILL);
			waitpid(process, ret_status, 0);
			errno = ETIMEDOUT;
			return -1;
		}
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static int run(const char *path, char *const environment[], struct error *error, char answer[ANSWER_MAX], size_t *ret_length,
	       int *ret_status)
{
	pid_t process = -1;
	cleanup_close int output = -1;
	if (start(path, environment, error, &process, &output) < 0)
		return -1;
	int64_t deadline = clock_milliseconds() + TRY_MILLISECONDS;
	size_t length = 0;
	while (length < ANSWER_MAX) {
		struct pollfd wait = { .fd = output, .events = POLLIN };
		int64_t left = deadline - clock_milliseconds();
		int ready = left > 0 ? poll(&wait, 1, (int)left) : 0;
		if (ready < 0 && errno == EINTR)
			continue;
		ssize_t got = ready > 0 ? read(output, answer + length, ANSWER_MAX - length) : 0;
		if (got <= 0)
			break;
		length += (size_t)got;
	}
	if (wait_for(process, deadline, ret_status) < 0)
		return error_set(error, errno, "%s did not answer within %d seconds", path, TRY_MILLISECONDS / 1000);
	*ret_length = length;
	return 0;
}

int binary_try(const char *path, struct error *error)
{
	/* Dummy values, as libcni sends them. */
	static char *const environment[] = { "CNI_COMMAND=VERSION", "CNI_CONTAINERID=dummy", "CNI_NETNS=dummy",
					     "CNI_IFNAME=dummy",    "CNI_PATH=dummy",	     NULL };
	char answer[ANSWER_MAX];
	size_t length = 0;
	int status = 0;
	cleanup_cjson cJSON *json = NULL;
	const cJSON *versions = NULL, *version;
	if (run(path, environment, error, answer, &length, &status) < 0)
		return -1;
	if (WIFSIGNALED(status))
		return error_say(error, ENOEXEC, "%s, run with CNI_COMMAND=VERSION, was ended by signal %d (%s)", path,
				 WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status) != 0)
		return error_say(error, ENOEXEC, "%s, run with CNI_COMMAND=VERSION, ended with exit status %d", path,
				 WEXITSTATUS(status));
	if (json_parse(answer, length, ANSWER_MAX, "its answer", error, &json) < 0 ||
	    json_get_array(json, "supportedVersions", "", error, &versions) < 0)
		return error_wrap(error, "%s, run with CNI_COMMAND=VERSION", path);
	cJSON_ArrayForEach (version, versions) {
		if (cJSON_IsString(version) && strcmp(version->valuestring, "1.0.0") == 0)
			return 0;
	}
	return error_say(error, ENOEXEC, "%s, run with CNI_COMMAND=VERSION, does not answer as " HOST_PLUGIN_NAME " does",
			 path);
}

int binary_version(const char *path, struct error *error, char *ret_version, size_t size)
{
	static char *const environment[] = { NULL };
	char answer[ANSWER_MAX];
	size_t length = 0;
	int status = 0;
	cleanup_cjson cJSON *json = NULL;
	const char *details = NULL;
	static const char name[] = HOST_PLUGIN_NAME " ";
	if (run(path, environment, error, answer, &length, &status) < 0)
		return -1;
	if (json_parse(answer, length, ANSWER_MAX, "its answer", error, &json) < 0 ||
	    json_get_string(json, "details", "", error, &details) < 0)
		return error_wrap(error, "%s, run without CNI_COMMAND", path);
	if (!details || strncmp(details, name, strlen(name)) != 0)
		return error_say(error, EINVAL, "%s is not " HOST_PLUGIN_NAME, path);
	snprintf(ret_version, size, "%s", details + strlen(name));
	return 0;
}
