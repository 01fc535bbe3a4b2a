/* What stands at the path of a socket that we listen on. */
#ifndef AMBIENT_INSTALLER_SOCKET_PATH_H
#define AMBIENT_INSTALLER_SOCKET_PATH_H

#include <sys/types.h>

enum socket_path_state {
	SOCKET_PATH_OURS,
	SOCKET_PATH_GONE,
	SOCKET_PATH_FOREIGN_SOCKET, /* a successor's */
	SOCKET_PATH_OTHER,	    /* what is no socket */
	SOCKET_PATH_UNKNOWN,	    /* it can't be looked at: left alone */
};

/* `device` and `inode` are those of our socket's file. */
enum socket_path_state socket_path_look(const char *path, dev_t device, ino_t inode);

#endif
