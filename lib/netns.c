/* Network namespaces by descriptor. See netns.h. */
#include "ambient/netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "ambient/cleanup.h"

/* Of the calling thread: setns(2) changes one thread only, and /proc/self shows the main one. */
#define OWN_NETNS "/proc/thread-self/ns/net"

int netns_check(int fd, struct error *error)
{
	struct statfs filesystem;
	if (fstatfs(fd, &filesystem) < 0)
		return error_set(error, errno, "cannot look at the network namespace");
	/* Only on nsfs does the ioctl mean what it should: elsewhere its number may be another's. */
	int kind = filesystem.f_type == NSFS_MAGIC ? ioctl(fd, NS_GET_NSTYPE) : 0;
	if (kind < 0 && error_may_pass(errno))
		return error_set(error, errno, "cannot ask of what kind the namespace is");
	if (kind != CLONE_NEWNET)
		return error_say(error, EINVAL, "it is not a network namespace");
	return 0;
}

int netns_open(const char *path, struct error *error, int *ret_fd)
{
	/* O_NONBLOCK: a FIFO under this name must not hold us. */
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(error, errno, "cannot open network namespace %s", path);
	if (netns_check(fd, error) < 0)
		return error_wrap(error, "cannot use %s as a network namespace", path);
	*ret_fd = steal_fd(&fd);
	return 0;
}

int netns_identify(int fd, struct error *error, struct netns_id *ret_id)
{
	struct stat status;
	if (fstat(fd, &status) < 0)
		return error_set(error, errno, "cannot identify the network namespace");
	*ret_id = (struct netns_id){ .device = status.st_dev, .inode = status.st_ino };
	return 0;
}

int netns_refuse_own(int fd, struct error *error)
{
	struct stat own;
	struct netns_id id = { 0 };
	if (netns_identify(fd, error, &id) < 0)
		return -1;
	if (stat(OWN_NETNS, &own) < 0)
		return error_set(error, errno, "cannot look at our own network namespace %s", OWN_NETNS);
	if (id.device == own.st_dev && id.inode == own.st_ino)
		return error_say(error, EPERM, "the network namespace is the host's own");
	return 0;
}

int netns_enter(int fd, struct error *error, struct netns_visit *ret_visit)
{
	cleanup_close int home = open(OWN_NETNS, O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return error_set(error, errno, "cannot open our own network namespace %s", OWN_NETNS);
	if (setns(fd, CLONE_NEWNET) < 0)
		return error_set(error, errno, "cannot enter the network namespace%s",
				 errno == EPERM ? " (CAP_SYS_ADMIN is needed)" : "");
	*ret_visit = (struct netns_visit){ .home = steal_fd(&home) };
	return 0;
}

void netns_leave(struct netns_visit *visit)
{
	if (visit->home < 0)
		return;
	int saved = errno;
	if (setns(visit->home, CLONE_NEWNET) < 0)
		abort();
	close(visit->home);
	visit->home = -1;
	errno = saved;
}

int netns_make(struct error *error, int *ret_fd)
{
	cleanup_close int home = -1, made = -1;
	if (netns_open(OWN_NETNS, error, &home) < 0)
		return -1;
	if (unshare(CLONE_NEWNET) < 0)
		return error_set(error, errno, "cannot make a network namespace to try the rules in (CAP_SYS_ADMIN is needed)");
	int opened = netns_open(OWN_NETNS, error, &made);
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	if (opened < 0)
		return -1;
	*ret_fd = steal_fd(&made);
	return 0;
}

int netns_socket(int fd, int domain, int type, int protocol, struct error *error, int *ret_socket)
{
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	if (netns_enter(fd, error, &visit) < 0)
		return -1;
	int opened = socket(domain, type | SOCK_CLOEXEC, protocol);
	if (opened < 0)
		return error_set(error, errno, "cannot open a socket in the network namespace");
	*ret_socket = opened;
	return 0;
}
