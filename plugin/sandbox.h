/* Releasing a sandbox: our rules go with its last attachment. */
#ifndef AMBIENT_PLUGIN_SANDBOX_H
#define AMBIENT_PLUGIN_SANDBOX_H

#include "plugin/call.h"

/* Opens the namespace that a DEL or GC is about: that at CNI_NETNS, or else at the remembered path, provided that it is still
 * the remembered one (`remembered` may be NULL) and not the host's. `ret_netns` is -1 where there is none any more. Fails when
 * that can't be told at the moment: forgotten then, its rules would stay for ever. */
int sandbox_open(struct call *call, const struct attachment *remembered, struct error *error, int *ret_netns);

/* Forgets the call's attachment, and removes our rules from the namespace unless another attachment of the same sandbox is
 * left. `netns` is -1 where there is none any more: then `remembered` says which one it was (0, 0: not known). What is gone
 * already is no error. */
int sandbox_release(struct call *call, struct netns_id remembered, int netns, struct error *error);

/* The same for a remembered attachment that the call did not name (GC). */
int sandbox_release_remembered(struct call *call, const struct attachment *attachment, struct error *error);

/* Removes what a killed ADD left in a namespace that is not to be redirected (any more): rules that no attachment stands for.
 */
int sandbox_remove_leftovers(struct call *call, int netns, struct error *error);

#endif
