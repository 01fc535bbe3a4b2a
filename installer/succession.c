/* See succession.h. */
#include "installer/succession.h"

#include <errno.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/unix_address.h"

bool succession_is_vacant(const char *path)
{
	struct sockaddr_un address;
	if (unix_address(path, NULL, &address) < 0)
		return false;
	/* A queue that is full is somebody's: not waited for. */
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
		return false;
	return errno == ECONNREFUSED || errno == ENOENT;
}
