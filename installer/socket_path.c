/* See socket_path.h. */
#include "installer/socket_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/unix_address.h"

enum socket_path_state socket_path_look(const char *path, const struct socket_file *ours)
{
	struct stat status;
	if (lstat(path, &status) < 0)
		return errno == ENOENT || errno == ENOTDIR ? SOCKET_PATH_GONE : SOCKET_PATH_UNKNOWN;
	if (status.st_dev == ours->device && status.st_ino == ours->inode)
		return SOCKET_PATH_OURS;
	return S_ISSOCK(status.st_mode) ? SOCKET_PATH_FOREIGN_SOCKET : SOCKET_PATH_OTHER;
}

static int move(const char *from, const char *to, bool replace)
{
	int result = renameat2(AT_FDCWD, from, AT_FDCWD, to, replace ? 0 : RENAME_NOREPLACE);
	/* A file system without RENAME_NOREPLACE. */
	return result < 0 && errno == EINVAL && !replace ? rename(from, to) : result;
}

int socket_path_bind(const char *path, int type, bool replace, struct error *error, struct socket_file *ret_file, int *ret_fd)
{
	cleanup_free char *beside = NULL;
	struct sockaddr_un address;
	struct stat status;
	if (asprintf(&beside, "%s.%d", path, (int)getpid()) < 0) {
		beside = NULL;
		return error_set(error, ENOMEM, "a socket can't be put there");
	}
	if (unix_address(beside, error, &address) < 0)
		return error_wrap(error, "another name is bound first");
	cleanup_close int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_set(error, errno, "a socket can't be put there");
	unlink(beside);
	/* The socket's mode becomes the file's: there is no moment without it, and no path that could lead elsewhere by then.
	 */
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) < 0 ||
	    lstat(beside, &status) < 0 || listen(fd, SOMAXCONN) < 0 || move(beside, path, replace) < 0) {
		error_set(error, errno, "a socket can't be put there");
		unlink(beside);
		return -1;
	}
	*ret_file = (struct socket_file){ .device = status.st_dev, .inode = status.st_ino };
	*ret_fd = steal_fd(&fd);
	return 0;
}
