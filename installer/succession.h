/* Whether an agent is there: before an uninstallation, and after a successor has taken over.
 *
 * One that is superseded has given everything away; where its successor goes before it does (two that started at once, an
 * upgrade that is taken back, a successor that fails), the node would have none. So it looks whether the successor is there
 * still. One that ends in order takes its socket's path along, and is missed within SUCCESSION_LOOK_MILLISECONDS * 3; one that
 * was killed leaves the path, may be started anew at once, and gets some seconds. */
#ifndef AMBIENT_INSTALLER_SUCCESSION_H
#define AMBIENT_INSTALLER_SUCCESSION_H

#include <stdbool.h>

/* Longer in all than a successor waits that binds again what somebody unlinked. */
#define SUCCESSION_LOOK_MILLISECONDS 100

/* Zeroed: it has been there just now. */
struct succession {
	unsigned int looks, gone, vacant;
};

/* To be called every SUCCESSION_LOOK_MILLISECONDS: whether whoever took over at this path has left. */
bool succession_is_over(struct succession *succession, const char *path);

/* Whether nobody listens at the path of a SOCK_SEQPACKET socket. What can't be told is no. */
bool succession_is_vacant(const char *path);

#endif
