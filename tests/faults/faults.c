/* Faults by force: a library to be preloaded, which makes one chosen call of a program fail.
 *
 * FAULTS_CONTROL names a file that is mapped by the program and by its test: the test writes which call is to fail, which one
 * of them from now on, and how; the library counts down, fails that call, and says so there. So a program that runs can be hit
 * in the middle of one step. Without the variable nothing fails.
 *
 * Calls that the C library makes inside of itself are not seen (fopen's open, say), allocations are.
 *
 * A program that serves allocates too often for each time to fail in a test of its own, and no two of its runs count alike. So
 * an allocation has a place as well: the addresses it returns to, one within the other. The test has the places of a way noted,
 * and names the one whose next allocation is to fail. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* The same numbers and the same layout are in tests/faults/control.py. */
enum call {
	CALL_NONE,
	CALL_MALLOC,
	CALL_OPEN,
	CALL_SOCKET,
	CALL_BIND,
	CALL_CONNECT,
	CALL_SENDMSG,
	CALL_RECVMSG,
	CALL_FSYNC,
	CALL_RENAME,
	CALL_FSTAT,
	CALL_SETNS,
	CALL_READ,
	CALL_WRITE,
	CALL_ACCEPT,
	CALL_STAT,
	CALL_DESCRIPTOR, /* what makes a descriptor, other than those above */
	CALL_DIRECTORY,	 /* made, read */
	CALL_UNLINK,
	CALL_ATTRIBUTE, /* modes, flags, locks, positions, links, kinds of file systems */
	CALL_OPTION,	/* of sockets and devices */
	CALL_WAIT,
	CALL_WATCH, /* epoll, inotify: one more descriptor or file to watch */
	CALL_PROCESS,
	CALL_CLOSE,   /* closed all the same, as Linux does it */
	CALL_NETLINK, /* the kernel refuses one message: it is sent with a type that does not exist */
	CALL_COUNT
};

#define PLACES_MAX 8192
/* Returns that make a place: enough to tell who asked a library for something, few enough for a recursion not to be endless. */
#define PLACE_DEPTH 8

struct control {
	int32_t call;	   /* which fails; 0: none */
	int32_t countdown; /* the how manieth from now on */
	int32_t number;	   /* the errno; 0 with read and write: half of what was asked for */
	int32_t fired;
	int32_t counts[CALL_COUNT];
	int32_t days; /* by which the clock of the day is ahead */
	int32_t is_noting;
	int32_t place_count; /* of those below; more than there is room for are counted, not kept */
	uint64_t place;	     /* whose allocations alone count down; 0: of any */
	uint64_t places[PLACES_MAX];
};

static struct control *control;

static int is_of(const void *caller, const char *library)
{
	Dl_info info;
	return control && caller && dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, library);
}

/* libseccomp 2.5 does not survive memory that runs out (it loops for ever in seccomp_load); it works once, at the start. Its
 * allocations are passed over: the next one of somebody else fails. */
static int is_passed_over(const void *caller)
{
	return is_of(caller, "libseccomp");
}

/* The same in every process: addresses are counted from the beginning of their file. Never 0. */
static uint64_t place_of_caller(void)
{
	static __thread int is_inside;
	void *returns[PLACE_DEPTH + 4];
	uint64_t place = 14695981039346656037U; /* FNV-1a */

	if (is_inside) /* the unwinder allocates */
		return 1;
	is_inside = 1;
	int count = backtrace(returns, PLACE_DEPTH + 4);
	/* This function, next_is, fails_for and malloc are the same for all. */
	for (int i = 0; i < count; i++) {
		Dl_info info;
		if (dladdr(returns[i], &info) == 0 || info.dli_fbase == (void *)0)
			continue;
		place = (place ^ (uint64_t)((const char *)returns[i] - (const char *)info.dli_fbase)) * 1099511628211U;
	}
	is_inside = 0;
	return place ? place : 1;
}

static void note_place(uint64_t place)
{
	int32_t count = __atomic_load_n(&control->place_count, __ATOMIC_ACQUIRE);
	for (int32_t i = 0; i < count && i < PLACES_MAX; i++) {
		if (control->places[i] == place)
			return;
	}
	count = __atomic_fetch_add(&control->place_count, 1, __ATOMIC_ACQ_REL);
	if (count < PLACES_MAX)
		control->places[count] = place;
}

/* Whether an allocation is at the place that is to fail, or no place was named. */
static int is_at_place(enum call call)
{
	uint64_t wanted = __atomic_load_n(&control->place, __ATOMIC_ACQUIRE);
	int is_noting = __atomic_load_n(&control->is_noting, __ATOMIC_ACQUIRE);
	if (call != CALL_MALLOC || (!wanted && !is_noting))
		return 1;
	uint64_t place = place_of_caller();
	if (is_noting)
		note_place(place);
	return !wanted || place == wanted;
}

static int next_is(enum call call, const void *caller)
{
	if (!control)
		return 0;
	__atomic_add_fetch(&control->counts[call], 1, __ATOMIC_RELAXED);
	if (!is_at_place(call) || __atomic_load_n(&control->call, __ATOMIC_ACQUIRE) != (int32_t)call)
		return 0;
	if (__atomic_sub_fetch(&control->countdown, 1, __ATOMIC_ACQ_REL) != 0)
		return 0;
	if (is_passed_over(caller)) {
		__atomic_store_n(&control->countdown, 1, __ATOMIC_RELEASE);
		return 0;
	}
	__atomic_store_n(&control->fired, 1, __ATOMIC_RELEASE);
	return 1;
}

static int fails_for(enum call call, const void *caller)
{
	if (!next_is(call, caller))
		return 0;
	errno = control->number;
	return 1;
}

static int fails(enum call call)
{
	return fails_for(call, NULL);
}

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("FAULTS_CONTROL");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	if (fd < 0)
		return;
	/* It opens a library of its own when it is called first: now, before the program forbids itself that. */
	void *unused[1];
	backtrace(unused, 1);
	void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped != MAP_FAILED)
		control = mapped;
}

/* ---- Memory. The C library's own, by the names that it keeps for this purpose. ---- */

void *__libc_malloc(size_t size);		// NOLINT
void *__libc_calloc(size_t count, size_t size); // NOLINT
void *__libc_realloc(void *old, size_t size);	// NOLINT

// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
void *malloc(size_t size)
{
	return fails_for(CALL_MALLOC, __builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return fails_for(CALL_MALLOC, __builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	return fails_for(CALL_MALLOC, __builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

void *reallocarray(void *old, size_t count, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, bytes);
}

/* ---- System calls. ---- */

/* The C library's function of that name, looked up once. */
#define NEXT(name)                                                                                                             \
	({                                                                                                                     \
		static __typeof__(&(name)) next_;                                                                              \
		if (!next_)                                                                                                    \
			next_ = (__typeof__(&(name)))dlsym(RTLD_NEXT, #name);                                                  \
		next_;                                                                                                         \
	})

static mode_t mode_of(int flags, va_list arguments)
{
	return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, arguments);
	va_end(arguments);
	return fails(CALL_OPEN) ? -1 : NEXT(open)(path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, arguments);
	va_end(arguments);
	return fails(CALL_OPEN) ? -1 : NEXT(openat)(directory, path, flags, mode);
}

int socket(int domain, int type, int protocol)
{
	return fails(CALL_SOCKET) ? -1 : NEXT(socket)(domain, type, protocol);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	return fails(CALL_BIND) ? -1 : NEXT(bind)(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	return fails(CALL_CONNECT) ? -1 : NEXT(connect)(fd, address, length);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	return fails(CALL_ACCEPT) ? -1 : NEXT(accept4)(fd, address, length, flags);
}

/* Netlink messages that are sent. The kernel itself is to refuse one, so that nothing of it is done: it gets a type that its
 * family does not have. In a transaction of nftables that is one message of many, between begin and end. */

#define LONGEST (1 << 20)

static uint32_t refused; /* sequence number of the refused message */

static int socket_option(int fd, int option)
{
	int value = -1;
	socklen_t length = sizeof value;
	return syscall(SYS_getsockopt, fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

static void refuse_one(char *bytes, size_t length, int is_nftables)
{
	for (size_t at = 0; at + sizeof(struct nlmsghdr) <= length;) {
		struct nlmsghdr *message = (struct nlmsghdr *)(bytes + at);
		int is_bracket = is_nftables && message->nlmsg_type <= NLMSG_MIN_TYPE + 1;
		if (!is_bracket && next_is(CALL_NETLINK, NULL)) {
			message->nlmsg_type = is_nftables ? message->nlmsg_type | 0xff : 0x3fff;
			refused = message->nlmsg_seq;
		}
		if (message->nlmsg_len < sizeof *message)
			return;
		at += NLMSG_ALIGN(message->nlmsg_len);
	}
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	if (fails(CALL_SENDMSG))
		return -1;
	if (!control || socket_option(fd, SO_DOMAIN) != AF_NETLINK)
		return NEXT(sendmsg)(fd, message, flags);
	size_t length = 0;
	char *bytes = mmap(NULL, LONGEST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bytes == MAP_FAILED)
		return -1;
	for (size_t i = 0; i < message->msg_iovlen && length + message->msg_iov[i].iov_len <= LONGEST; i++) {
		memcpy(bytes + length, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
		length += message->msg_iov[i].iov_len;
	}
	refuse_one(bytes, length, socket_option(fd, SO_PROTOCOL) == NETLINK_NETFILTER);
	struct iovec part = { .iov_base = bytes, .iov_len = length };
	struct msghdr copy = *message;
	copy.msg_iov = &part;
	copy.msg_iovlen = 1;
	ssize_t sent = NEXT(sendmsg)(fd, &copy, flags);
	int number = errno;
	munmap(bytes, LONGEST);
	errno = number;
	return sent;
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t to_length)
{
	struct iovec part = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = length };
	return sendmsg(fd,
		       &(struct msghdr){
			       .msg_name = (void *)(uintptr_t)to, .msg_namelen = to_length, .msg_iov = &part, .msg_iovlen = 1 },
		       flags);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
	return sendto(fd, bytes, length, flags, NULL, 0);
}

/* The kernel's answer to a type that does not exist is EOPNOTSUPP, which may be an answer of a kernel without IPv6, too. */
static void name_refusal(int fd, char *bytes, ssize_t length)
{
	if (!control || !refused || length <= 0 || socket_option(fd, SO_DOMAIN) != AF_NETLINK)
		return;
	for (size_t at = 0; at + sizeof(struct nlmsghdr) + sizeof(int) <= (size_t)length;) {
		struct nlmsghdr *message = (struct nlmsghdr *)(bytes + at);
		int *number = NLMSG_DATA(message);
		if (message->nlmsg_type == NLMSG_ERROR && message->nlmsg_seq == refused && *number == -EOPNOTSUPP)
			*number = -control->number;
		if (message->nlmsg_len < sizeof *message)
			return;
		at += NLMSG_ALIGN(message->nlmsg_len);
	}
}

static ssize_t shorter_of(ssize_t received, size_t room)
{
	return received > (ssize_t)room ? (ssize_t)room : received;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	if (fails(CALL_RECVMSG))
		return -1;
	ssize_t received = NEXT(recvmsg)(fd, message, flags);
	if (message->msg_iovlen > 0)
		name_refusal(fd, message->msg_iov[0].iov_base, shorter_of(received, message->msg_iov[0].iov_len));
	return received;
}

ssize_t recv(int fd, void *bytes, size_t length, int flags)
{
	if (fails(CALL_RECVMSG))
		return -1;
	ssize_t received = NEXT(recv)(fd, bytes, length, flags);
	name_refusal(fd, bytes, shorter_of(received, length));
	return received;
}

int fsync(int fd)
{
	return fails(CALL_FSYNC) ? -1 : NEXT(fsync)(fd);
}

int rename(const char *from, const char *to)
{
	return fails(CALL_RENAME) ? -1 : NEXT(rename)(from, to);
}

int fstat(int fd, struct stat *status)
{
	return fails(CALL_FSTAT) ? -1 : NEXT(fstat)(fd, status);
}

int setns(int fd, int kind)
{
	return fails(CALL_SETNS) ? -1 : NEXT(setns)(fd, kind);
}

static size_t shorter(size_t length)
{
	return length > 1 ? length / 2 : length;
}

ssize_t read(int fd, void *bytes, size_t length)
{
	/* libevent reads with it from its own pipe of signals, which cannot fail. */
	if (!is_of(__builtin_return_address(0), "libevent") && next_is(CALL_READ, NULL)) {
		if (control->number) {
			errno = control->number;
			return -1;
		}
		length = shorter(length);
	}
	return NEXT(read)(fd, bytes, length);
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
	if (next_is(CALL_READ, NULL)) {
		if (control->number) {
			errno = control->number;
			return -1;
		}
		return NEXT(read)(fd, parts[0].iov_base, shorter(parts[0].iov_len));
	}
	return NEXT(readv)(fd, parts, count);
}

ssize_t __read_chk(int fd, void *bytes, size_t length, size_t size); // NOLINT
ssize_t __read_chk(int fd, void *bytes, size_t length, size_t size)  // NOLINT
{
	(void)size;
	return read(fd, bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	if (!is_of(__builtin_return_address(0), "libevent") && next_is(CALL_WRITE, NULL)) {
		if (control->number) {
			errno = control->number;
			return -1;
		}
		length = shorter(length);
	}
	return NEXT(write)(fd, bytes, length);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
	if (next_is(CALL_WRITE, NULL)) {
		if (control->number) {
			errno = control->number;
			return -1;
		}
		return write(fd, parts[0].iov_base, shorter(parts[0].iov_len));
	}
	return NEXT(writev)(fd, parts, count);
}

/* What is looked at, made, marked and removed in the file system. */

int stat(const char *path, struct stat *status)
{
	return fails(CALL_STAT) ? -1 : NEXT(stat)(path, status);
}

int lstat(const char *path, struct stat *status)
{
	return fails(CALL_STAT) ? -1 : NEXT(lstat)(path, status);
}

int fstatat(int directory, const char *path, struct stat *status, int flags)
{
	return fails(CALL_STAT) ? -1 : NEXT(fstatat)(directory, path, status, flags);
}

int access(const char *path, int mode)
{
	return fails(CALL_STAT) ? -1 : NEXT(access)(path, mode);
}

int mkdir(const char *path, mode_t mode)
{
	return fails(CALL_DIRECTORY) ? -1 : NEXT(mkdir)(path, mode);
}

DIR *opendir(const char *path)
{
	return fails(CALL_DIRECTORY) ? NULL : NEXT(opendir)(path);
}

DIR *fdopendir(int fd)
{
	return fails(CALL_DIRECTORY) ? NULL : NEXT(fdopendir)(fd);
}

struct dirent *readdir(DIR *directory)
{
	return fails(CALL_DIRECTORY) ? NULL : NEXT(readdir)(directory);
}

int unlink(const char *path)
{
	return fails(CALL_UNLINK) ? -1 : NEXT(unlink)(path);
}

int unlinkat(int directory, const char *path, int flags)
{
	return fails(CALL_UNLINK) ? -1 : NEXT(unlinkat)(directory, path, flags);
}

int rmdir(const char *path)
{
	return fails(CALL_UNLINK) ? -1 : NEXT(rmdir)(path);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to)
{
	return fails(CALL_RENAME) ? -1 : NEXT(renameat)(from_directory, from, to_directory, to);
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned int flags)
{
	return fails(CALL_RENAME) ? -1 : NEXT(renameat2)(from_directory, from, to_directory, to, flags);
}

int chmod(const char *path, mode_t mode)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(chmod)(path, mode);
}

int fchmod(int fd, mode_t mode)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(fchmod)(fd, mode);
}

int flock(int fd, int operation)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(flock)(fd, operation);
}

off_t lseek(int fd, off_t offset, int whence)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(lseek)(fd, offset, whence);
}

int statfs(const char *path, struct statfs *status)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(statfs)(path, status);
}

int fstatfs(int fd, struct statfs *status)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(fstatfs)(fd, status);
}

int statvfs(const char *path, struct statvfs *status)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(statvfs)(path, status);
}

ssize_t readlink(const char *path, char *bytes, size_t length)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(readlink)(path, bytes, length);
}

ssize_t fgetxattr(int fd, const char *name, void *value, size_t size)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(fgetxattr)(fd, name, value, size);
}

int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(fsetxattr)(fd, name, value, size, flags);
}

int fcntl(int fd, int operation, ...)
{
	va_list arguments;
	va_start(arguments, operation);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	return fails(CALL_ATTRIBUTE) ? -1 : NEXT(fcntl)(fd, operation, argument);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	return fails(CALL_OPTION) ? -1 : NEXT(ioctl)(fd, request, argument);
}

/* Descriptors and what waits for them. */

FILE *fopen(const char *path, const char *mode)
{
	return fails(CALL_DESCRIPTOR) ? NULL : NEXT(fopen)(path, mode);
}

int pipe2(int fds[2], int flags)
{
	return fails(CALL_DESCRIPTOR) ? -1 : NEXT(pipe2)(fds, flags);
}

int socketpair(int domain, int type, int protocol, int fds[2])
{
	return fails(CALL_DESCRIPTOR) ? -1 : NEXT(socketpair)(domain, type, protocol, fds);
}

int eventfd(unsigned int value, int flags)
{
	return fails(CALL_DESCRIPTOR) ? -1 : NEXT(eventfd)(value, flags);
}

int inotify_init1(int flags)
{
	return fails(CALL_DESCRIPTOR) ? -1 : NEXT(inotify_init1)(flags);
}

int epoll_create1(int flags)
{
	return fails(CALL_DESCRIPTOR) ? -1 : NEXT(epoll_create1)(flags);
}

int inotify_add_watch(int fd, const char *path, uint32_t mask)
{
	return fails(CALL_WATCH) ? -1 : NEXT(inotify_add_watch)(fd, path, mask);
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
	/* A descriptor that is taken out, or made to wait for less, needs no memory. */
	return operation == EPOLL_CTL_ADD && fails(CALL_WATCH) ? -1 : NEXT(epoll_ctl)(epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int milliseconds)
{
	return fails(CALL_WAIT) ? -1 : NEXT(epoll_wait)(epoll, events, count, milliseconds);
}

int poll(struct pollfd *fds, nfds_t count, int milliseconds)
{
	return fails(CALL_WAIT) ? -1 : NEXT(poll)(fds, count, milliseconds);
}

pid_t waitpid(pid_t pid, int *status, int options)
{
	return fails(CALL_WAIT) ? -1 : NEXT(waitpid)(pid, status, options);
}

int listen(int fd, int backlog)
{
	return fails(CALL_OPTION) ? -1 : NEXT(listen)(fd, backlog);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	return fails(CALL_OPTION) ? -1 : NEXT(setsockopt)(fd, level, option, value, length);
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
	return fails(CALL_OPTION) ? -1 : NEXT(getsockopt)(fd, level, option, value, length);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
	return fails(CALL_OPTION) ? -1 : NEXT(getsockname)(fd, address, length);
}

int close(int fd)
{
	int result = NEXT(close)(fd);
	return fails(CALL_CLOSE) ? -1 : result;
}

/* The clock of the day, which somebody sets while the program runs. CLOCK_MONOTONIC never jumps. */

#define SECONDS_OF_DAY 86400L

static long ahead(void)
{
	return control ? __atomic_load_n(&control->days, __ATOMIC_ACQUIRE) * SECONDS_OF_DAY : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = NEXT(clock_gettime)(clock, now);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		now->tv_sec += ahead();
	return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
	int result = NEXT(gettimeofday)(now, zone);
	if (result == 0)
		now->tv_sec += ahead();
	return result;
}

time_t time(time_t *ret_now)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (ret_now)
		*ret_now = now.tv_sec;
	return now.tv_sec;
}

/* Processes. */

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
		char *const arguments[], char *const environment[])
{
	/* It returns its error. */
	if (fails(CALL_PROCESS))
		return control->number;
	return NEXT(posix_spawn)(pid, path, actions, attributes, arguments, environment);
}

int unshare(int kinds)
{
	return fails(CALL_PROCESS) ? -1 : NEXT(unshare)(kinds);
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
