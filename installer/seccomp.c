/* The system calls of a running node agent. See seccomp.h.
 *
 * It is root on the node with CAP_SYS_ADMIN and CAP_NET_ADMIN, because entering a pod's network namespace needs them. What it
 * never does with them is taken away here: mounting, tracing and reading other processes, loading modules, BPF and keys,
 * changing users, opening files by handle, raw and packet sockets. The list is what the C library and the libraries that we
 * link use for our work, on every C library and kernel that we run on: so it names old and new forms of a call.
 *
 * It is applied when everything is made, before the loop runs. What is started by the agent (the plugin, tried before it is
 * installed) is bound by it too, and needs nothing more. */
#include "installer/seccomp.h"

#include <errno.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* What one line is for stands beside it. A name that the architecture does not have is passed over. */
static const char *const allowed[] = {
	/* The loop, its timers and signals. */
	"epoll_create",
	"epoll_create1",
	"epoll_ctl",
	"epoll_wait",
	"epoll_pwait",
	"epoll_pwait2",
	"poll",
	"ppoll",
	"select",
	"pselect6",
	"eventfd",
	"eventfd2",
	"timerfd_create",
	"timerfd_settime",
	"timerfd_gettime",
	"signalfd",
	"signalfd4",
	"pipe",
	"pipe2",
	"clock_gettime",
	"clock_getres",
	"clock_nanosleep",
	"nanosleep",
	"gettimeofday",
	"time",
	"times",
	/* Sockets: netlink, the API server, plugins, the tunnel, metrics. socket(2) itself is below. */
	"socketpair",
	"bind",
	"listen",
	"accept",
	"accept4",
	"connect",
	"getsockopt",
	"setsockopt",
	"getsockname",
	"getpeername",
	"sendto",
	"recvfrom",
	"sendmsg",
	"recvmsg",
	"sendmmsg",
	"recvmmsg",
	"shutdown",
	/* Pods' network namespaces; a namespace of its own to try rules in (the plugin's STATUS). */
	"setns",
	"unshare",
	/* Files: state, configuration, the plugin's binary, the host's /proc; inotify on folders. */
	"read",
	"write",
	"readv",
	"writev",
	"pread64",
	"pwrite64",
	"preadv",
	"pwritev",
	"open",
	"openat",
	"openat2",
	"creat",
	"close",
	"close_range",
	"lseek",
	"stat",
	"lstat",
	"fstat",
	"newfstatat",
	"fstatat64",
	"stat64",
	"lstat64",
	"fstat64",
	"statx",
	"statfs",
	"fstatfs",
	"access",
	"faccessat",
	"faccessat2",
	"readlink",
	"readlinkat",
	"getdents",
	"getdents64",
	"getcwd",
	"mkdir",
	"mkdirat",
	"rename",
	"renameat",
	"renameat2",
	"unlink",
	"unlinkat",
	"rmdir",
	"link",
	"linkat",
	"symlink",
	"symlinkat",
	"chmod",
	"fchmod",
	"fchmodat",
	"fchmodat2",
	"chown",
	"fchown",
	"fchownat",
	"lchown",
	"truncate",
	"ftruncate",
	"fallocate",
	"fsync",
	"fdatasync",
	"sync_file_range",
	"flock",
	"fcntl",
	"dup",
	"dup2",
	"dup3",
	"ioctl",
	"copy_file_range",
	"sendfile",
	"splice",
	"utimensat",
	"umask",
	"getxattr",
	"lgetxattr",
	"fgetxattr",
	"setxattr",
	"lsetxattr",
	"fsetxattr",
	"listxattr",
	"flistxattr",
	"fadvise64",
	"readahead",
	"inotify_init",
	"inotify_init1",
	"inotify_add_watch",
	"inotify_rm_watch",
	/* Memory. */
	"brk",
	"mmap",
	"munmap",
	"mremap",
	"mprotect",
	"madvise",
	"mincore",
	"memfd_create",
	"membarrier",
	/* The process itself, and the one that it starts to try the plugin. */
	"exit",
	"exit_group",
	"getpid",
	"getppid",
	"gettid",
	"getuid",
	"geteuid",
	"getgid",
	"getegid",
	"getpgrp",
	"getpgid",
	"getgroups",
	"getresuid",
	"getresgid",
	"setpgid",
	"getsid",
	"setsid",
	"kill",
	"tgkill",
	"tkill",
	"pidfd_open",
	"pidfd_send_signal",
	"rt_sigaction",
	"rt_sigprocmask",
	"rt_sigreturn",
	"rt_sigpending",
	"rt_sigtimedwait",
	"rt_sigsuspend",
	"rt_sigqueueinfo",
	"sigreturn",
	"sigaltstack",
	"restart_syscall",
	"pause",
	"alarm",
	"getitimer",
	"setitimer",
	"clone",
	"clone3",
	"fork",
	"vfork",
	"execve",
	"execveat",
	"wait4",
	"waitid",
	"set_tid_address",
	"set_robust_list",
	"get_robust_list",
	"rseq",
	"futex",
	"futex_waitv",
	"sched_yield",
	"sched_getaffinity",
	"sched_setaffinity",
	"sched_getparam",
	"sched_getscheduler",
	"sched_setscheduler",
	"getpriority",
	"getcpu",
	"prctl",
	"arch_prctl",
	"getrlimit",
	"setrlimit",
	"prlimit64",
	"getrusage",
	"sysinfo",
	"uname",
	"capget",
	"getrandom",
#ifdef __SANITIZE_ADDRESS__
	/* What looks for leaks at the end stops the process as a debugger does. */
	"ptrace",
	"process_vm_readv",
	"personality",
#endif
};

/* Files of the file system are not reached by packets: AF_PACKET, AF_VSOCK, AF_ALG, Bluetooth and the like are of no use here,
 * and a way in for whoever took over the process. */
static const int families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };

static int add_rules(scmp_filter_ctx filter)
{
	for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
		int number = seccomp_syscall_resolve_name(allowed[i]);
		if (number == __NR_SCMP_ERROR || number < 0)
			continue;
		int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, number, 0);
		if (result < 0)
			return result;
	}
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
		/* The kernel looks at the lower half of the register alone. */
		const struct scmp_arg_cmp is_family = {
			.arg = 0, .op = SCMP_CMP_MASKED_EQ, .datum_a = UINT32_MAX, .datum_b = (scmp_datum_t)families[i]
		};
		int result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, &is_family);
		if (result < 0)
			return result;
	}
	return 0;
}

int seccomp_restrict(bool is_logged, struct error *error)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!filter)
		return error_set(error, ENOMEM, "cannot restrict system calls");
	/* Logging needs a kernel from 4.14 on, sorting by a tree libseccomp 2.5: neither is worth failing for. */
	if (is_logged)
		(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	(void)seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	int result = add_rules(filter);
	if (result == 0)
		result = seccomp_load(filter);
	seccomp_release(filter);
	return result < 0 ? error_set(error, result == -EINVAL ? ENOSYS : -result, "cannot restrict system calls") : 0;
}
