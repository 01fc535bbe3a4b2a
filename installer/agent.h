/* The node agent: `ambient-installer run`. It puts the rooms together and runs their loop. */
#ifndef AMBIENT_INSTALLER_AGENT_H
#define AMBIENT_INSTALLER_AGENT_H

#include "ambient/error.h"
#include "installer/config.h"

/* Runs until a signal ends it. 0: it ended as it was told; -1: it could not start, or the successor that took over is gone
 * (ESRCH): then it is to be started anew. */
int agent_run(const struct installer_config *config, struct error *error);

#endif
