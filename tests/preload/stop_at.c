/* Loaded into the node agent by a test (LD_PRELOAD): kills it, as kill -9 does, right after a step of its work.
 *
 * A step is whatever somebody else can see: a message to the kernel, to the tunnel or to a plugin, a file that gets its place
 * or goes. Nothing counts before the file AMBIENT_STOP_FILE exists; it holds a number, and after that many steps the process is
 * dead (0: never). With AMBIENT_STOP_NAME only steps of that name count ("socket" is the API server, "netlink" the kernel,
 * "unix" the tunnel and plugins). Each step's name is appended to AMBIENT_STOP_FILE.steps. The steps are found at run time, so
 * that no list of them can be out of date, and the product knows nothing of it. */
/* libc declares these functions with reserved names for their parameters.
 * NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int is_counting(long *ret_last)
{
	const char *path = getenv("AMBIENT_STOP_FILE");
	char text[32] = "";
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd < 0)
		return 0;
	ssize_t length = read(fd, text, sizeof text - 1);
	close(fd);
	*ret_last = length > 0 ? atol(text) : 0;
	return length > 0;
}

static void step(const char *name)
{
	static long steps;
	long last = 0;
	char path[4096];
	const char *only = getenv("AMBIENT_STOP_NAME");
	if ((only && strcmp(only, name) != 0) || !is_counting(&last))
		return;
	snprintf(path, sizeof path, "%s.steps", getenv("AMBIENT_STOP_FILE"));
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0) {
		dprintf(fd, "%s\n", name);
		close(fd);
	}
	if (++steps == last)
		kill(getpid(), SIGKILL);
}

static const char *socket_name(int fd)
{
	int domain = 0;
	socklen_t length = sizeof domain;
	getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length);
	return domain == AF_NETLINK ? "netlink" : domain == AF_UNIX ? "unix" : "socket";
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t result = REAL(sendmsg)(fd, message, flags);
	step(socket_name(fd));
	return result;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
	ssize_t result = REAL(sendto)(fd, data, size, flags, address, length);
	step(socket_name(fd));
	return result;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
	ssize_t result = REAL(send)(fd, data, size, flags);
	step(socket_name(fd));
	return result;
}

/* TLS writes to its socket so; what is no socket (the log) does not count. */
ssize_t write(int fd, const void *data, size_t size)
{
	ssize_t result = REAL(write)(fd, data, size);
	int domain = 0;
	socklen_t length = sizeof domain;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0)
		step(socket_name(fd));
	return result;
}

int rename(const char *from, const char *to)
{
	int result = REAL(rename)(from, to);
	step(to);
	return result;
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
	int result = REAL(renameat)(from_folder, from, to_folder, to);
	step(to);
	return result;
}

int unlink(const char *path)
{
	int result = REAL(unlink)(path);
	step(path);
	return result;
}

int unlinkat(int folder, const char *path, int flags)
{
	int result = REAL(unlinkat)(folder, path, flags);
	step(path);
	return result;
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
