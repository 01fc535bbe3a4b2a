/* Whether an agent is there: before an uninstallation, and after a successor has taken over. */
#ifndef AMBIENT_INSTALLER_SUCCESSION_H
#define AMBIENT_INSTALLER_SUCCESSION_H

#include <stdbool.h>

/* Whether nobody listens at the path of a SOCK_SEQPACKET socket. What can't be told is no. */
bool succession_is_vacant(const char *path);

#endif
