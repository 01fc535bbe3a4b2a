/* Releasing a sandbox: our rules go with its last attachment. */
#ifndef AMBIENT_PLUGIN_SANDBOX_H
#define AMBIENT_PLUGIN_SANDBOX_H

#include "plugin/call.h"

/* Forgets the call's attachment, and removes our rules from the namespace unless another attachment of the same sandbox is
 * left. `netns` is -1 where there is none any more. What is gone already is no error. */
int sandbox_release(struct call *call, int netns, struct error *error);

/* The same for a remembered attachment (GC): its namespace is found by its remembered path, and touched only if it still is
 * the namespace that it was. */
int sandbox_release_remembered(struct call *call, const struct attachment *attachment, struct error *error);

#endif
