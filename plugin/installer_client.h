/* The plugin's side of the conversation with the node agent (wire.h), and what is done while it is away. */
#ifndef AMBIENT_PLUGIN_INSTALLER_CLIENT_H
#define AMBIENT_PLUGIN_INSTALLER_CLIENT_H

#include "plugin/call.h"

/* Asks, applies, reports, waits for the tunnel. CNI_OK: the pod may start, redirected or not. */
enum cni_code installer_add(struct call *call, const struct attachment *attachment, int netns, struct error *error);

/* Tells the installer; one that is away finds out by itself. `netns` may be -1. */
void installer_del(struct call *call, const struct attachment *attachment, int netns);

/* Tells the installer which attachments are left. */
void installer_gc(struct call *call);

#endif
