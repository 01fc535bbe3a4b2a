/* See unix_address.h. */
#include "ambient/unix_address.h"

#include <string.h>
#include <sys/socket.h>

int unix_address(const char *path, struct error *error, struct sockaddr_un *ret_address)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path)
		return error_say(error, ENAMETOOLONG, "%s: a socket's path has at most %zu characters", path,
				 sizeof address.sun_path - 1);
	strcpy(address.sun_path, path);
	*ret_address = address;
	return 0;
}
