/* The path of a socket that we listen on: put there, and looked at. */
#ifndef AMBIENT_INSTALLER_SOCKET_PATH_H
#define AMBIENT_INSTALLER_SOCKET_PATH_H

#include <stdbool.h>
#include <sys/types.h>

#include "ambient/error.h"

/* A socket's file, which tells ours from another at the same path. All zero: none. */
struct socket_file {
	dev_t device;
	ino_t inode;
};

enum socket_path_state {
	SOCKET_PATH_OURS,
	SOCKET_PATH_GONE,
	SOCKET_PATH_FOREIGN_SOCKET, /* a successor's */
	SOCKET_PATH_OTHER,	    /* what is no socket */
	SOCKET_PATH_UNKNOWN,	    /* it can't be looked at: left alone */
};

enum socket_path_state socket_path_look(const char *path, const struct socket_file *ours);

/* A listening socket of `type` (SOCK_STREAM, SOCK_SEQPACKET), CLOEXEC and non-blocking, for root alone (mode 0600). It is bound
 * beside the path, whose folder is there, and renamed: at every moment somebody answers. `replace`: whatever lies there goes;
 * else EEXIST says that somebody came first. */
int socket_path_bind(const char *path, int type, bool replace, struct error *error, struct socket_file *ret_file, int *ret_fd);

#endif
