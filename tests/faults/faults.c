/* Faults by force: a library to be preloaded, which makes one chosen call of a program fail.
 *
 * FAULTS_CONTROL names a file that is mapped by the program and by its test: the test writes which call is to fail, which one
 * of them from now on, and how; the library counts down, fails that call, and says so there. So a program that runs can be hit
 * in the middle of one step. Without the variable nothing fails.
 *
 * Calls that the C library makes inside of itself are not seen (fopen's open, say), allocations are. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
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
	CALL_COUNT
};

struct control {
	int32_t call;	   /* which fails; 0: none */
	int32_t countdown; /* the how manieth from now on */
	int32_t number;	   /* the errno; 0 with read and write: half of what was asked for */
	int32_t fired;
	int32_t counts[CALL_COUNT];
};

static struct control *control;

/* libseccomp 2.5 does not survive memory that runs out (it loops for ever in seccomp_load); it works once, at the start. Its
 * allocations are passed over: the next one of somebody else fails. */
static int is_passed_over(const void *caller)
{
	Dl_info info;
	return caller && dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libseccomp");
}

static int next_is(enum call call, const void *caller)
{
	if (!control)
		return 0;
	__atomic_add_fetch(&control->counts[call], 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&control->call, __ATOMIC_ACQUIRE) != (int32_t)call)
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

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	return fails(CALL_SENDMSG) ? -1 : NEXT(sendmsg)(fd, message, flags);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
	return fails(CALL_SENDMSG) ? -1 : NEXT(send)(fd, bytes, length, flags);
}

ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *to, socklen_t to_length)
{
	return fails(CALL_SENDMSG) ? -1 : NEXT(sendto)(fd, bytes, length, flags, to, to_length);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	return fails(CALL_RECVMSG) ? -1 : NEXT(recvmsg)(fd, message, flags);
}

ssize_t recv(int fd, void *bytes, size_t length, int flags)
{
	return fails(CALL_RECVMSG) ? -1 : NEXT(recv)(fd, bytes, length, flags);
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
	if (next_is(CALL_READ, NULL)) {
		if (control->number) {
			errno = control->number;
			return -1;
		}
		length = shorter(length);
	}
	return NEXT(read)(fd, bytes, length);
}

ssize_t __read_chk(int fd, void *bytes, size_t length, size_t size); // NOLINT
ssize_t __read_chk(int fd, void *bytes, size_t length, size_t size)  // NOLINT
{
	(void)size;
	return read(fd, bytes, length);
}

ssize_t write(int fd, const void *bytes, size_t length)
{
	if (next_is(CALL_WRITE, NULL)) {
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
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
