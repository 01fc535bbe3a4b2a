/* What the node agent may ask of the kernel (installer/seccomp.c): its work goes on, everything else is refused with EPERM.
 * Each case is a process of its own, since there is no way back. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "installer/seccomp.h"

#ifndef __SANITIZE_ADDRESS__
static long mount_something(void)
{
	return mount("none", "/proc", "tmpfs", 0, NULL);
}

static long chroot_somewhere(void)
{
	return chroot("/");
}

static long packet_socket(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

static long other_user(void)
{
	return syscall(SYS_setuid, 0);
}

static long trace(void)
{
	return syscall(SYS_ptrace, 0, 0, 0, 0);
}

static long read_memory(void)
{
	return syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0);
}

static long load_module(void)
{
	return syscall(SYS_finit_module, -1, "", 0);
}

static long bpf(void)
{
	return syscall(SYS_bpf, -1, NULL, 0);
}

static long add_a_key(void)
{
	return syscall(SYS_add_key, "user", "a", "a", 1, -1);
}

static long use_keys(void)
{
	return syscall(SYS_keyctl, 0, -1, 0, 0, 0);
}

static long open_handle(void)
{
	return syscall(SYS_open_by_handle_at, -1, NULL, 0);
}

static long ring(void)
{
	return syscall(SYS_io_uring_setup, 1, NULL);
}

static long set_clock(void)
{
	return syscall(SYS_settimeofday, NULL, NULL);
}

static const struct {
	const char *name;
	long (*call)(void);
} refused[] = {
	{ "mount", mount_something },
	{ "chroot", chroot_somewhere },
	{ "AF_PACKET", packet_socket },
	{ "setuid", other_user },
	{ "ptrace", trace },
	{ "process_vm_readv", read_memory },
	{ "finit_module", load_module },
	{ "bpf", bpf },
	{ "add_key", add_a_key },
	{ "keyctl", use_keys },
	{ "open_by_handle_at", open_handle },
	{ "io_uring_setup", ring },
	{ "settimeofday", set_clock },
};
#endif

/* Runs `work` in a restricted child; its exit status. */
static int in_child(int (*work)(void))
{
	pid_t pid = fork();
	if (pid == 0) {
		struct error error = { 0 };
		if (seccomp_restrict(false, &error) < 0) {
			fprintf(stderr, "%s\n", error.message);
			_exit(99);
		}
		_exit(work());
	}
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#ifndef __SANITIZE_ADDRESS__
static int try_refused(void)
{
	int failures = 0;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		errno = 0;
		if (refused[i].call() != -1 || errno != EPERM) {
			fprintf(stderr, "%s was not refused\n", refused[i].name);
			failures++;
		}
	}
	return failures;
}

static void what_is_never_needed_is_refused(void **state)
{
	(void)state;
	assert_int_equal(in_child(try_refused), 0);
}
#endif

/* Entering a namespace, netfilter and routes, a file, another program: what the agent does all day. */
static int work(void)
{
	struct error error = { 0 };
	struct redirect redirect;
	struct redirect_session *session = NULL;
	struct redirect_difference difference;
	int netns = -1;
	redirect_init(&redirect);
	if (unshare(CLONE_NEWNET) < 0 || netns_open("/proc/self/ns/net", &error, &netns) < 0 ||
	    redirect_session_open(netns, &error, &session) < 0 ||
	    redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, &error) < 0 ||
	    redirect_verify(session, &redirect, REDIRECT_STAGE_FULL, &error, &difference) < 0 || difference.text[0] ||
	    redirect_remove(session, &error) < 0) {
		fprintf(stderr, "%s\n", error.message);
		return 1;
	}
	redirect_session_close(session);
	return system("exit 7") == 7 << 8 ? 0 : 2;
}

static void the_agents_work_goes_on(void **state)
{
	(void)state;
	assert_int_equal(in_child(work), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifndef __SANITIZE_ADDRESS__
		cmocka_unit_test(what_is_never_needed_is_refused),
#endif
		cmocka_unit_test(the_agents_work_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
