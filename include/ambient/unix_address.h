/* The address of a Unix socket that has a path. */
#ifndef AMBIENT_UNIX_ADDRESS_H
#define AMBIENT_UNIX_ADDRESS_H

#include <sys/un.h>

#include "ambient/error.h"

/* ENAMETOOLONG: the kernel takes 107 characters, and a path of runDir may be longer. */
int unix_address(const char *path, struct error *error, struct sockaddr_un *ret_address);

#endif
