/* What the node agent may ask of the kernel once it runs. */
#ifndef AMBIENT_INSTALLER_SECCOMP_H
#define AMBIENT_INSTALLER_SECCOMP_H

#include <stdbool.h>

#include "ambient/error.h"

/* Restricts the process, and what it starts, to the system calls of seccomp.c, for ever: everything else fails with EPERM.
 * `is_logged`: the kernel's log names what was refused. ENOSYS: a kernel without seccomp. */
int seccomp_restrict(bool is_logged, struct error *error);

#endif
