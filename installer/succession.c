/* See succession.h. */
#include "installer/succession.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "ambient/cleanup.h"
#include "ambient/unix_address.h"

/* How often in a row nothing is at the path. */
#define GONE_LOOKS 3
/* How often in a row nobody answers there, and every how many looks that is asked: the successor has to take the connection. */
#define VACANT_LOOKS 3
#define VACANT_EVERY 20

bool succession_is_over(struct succession *succession, const char *path)
{
	struct stat status;
	bool is_gone = lstat(path, &status) < 0 && (errno == ENOENT || errno == ENOTDIR);
	succession->gone = is_gone ? succession->gone + 1 : 0;
	if (succession->gone >= GONE_LOOKS)
		return true;
	if (succession->looks++ % VACANT_EVERY == 0)
		succession->vacant = succession_is_vacant(path) ? succession->vacant + 1 : 0;
	return succession->vacant >= VACANT_LOOKS;
}

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
