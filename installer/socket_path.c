/* See socket_path.h. */
#include "installer/socket_path.h"

#include <errno.h>
#include <sys/stat.h>

enum socket_path_state socket_path_look(const char *path, dev_t device, ino_t inode)
{
	struct stat status;
	if (lstat(path, &status) < 0)
		return errno == ENOENT || errno == ENOTDIR ? SOCKET_PATH_GONE : SOCKET_PATH_UNKNOWN;
	if (status.st_dev == device && status.st_ino == inode)
		return SOCKET_PATH_OURS;
	return S_ISSOCK(status.st_mode) ? SOCKET_PATH_FOREIGN_SOCKET : SOCKET_PATH_OTHER;
}
