/* What of earlier connections is forgotten when rules come into a namespace. Private to the library. */
#ifndef AMBIENT_LIB_REDIRECT_FORGET_H
#define AMBIENT_LIB_REDIRECT_FORGET_H

#include "ambient/redirect.h"

/* Every connection of the namespace: for existingConnections reset, when the redirects stand. */
int redirect_forget_all(struct redirect_session *session, struct error *error);

/* For existingConnections keep, before the first redirects: TCP connections (and, where DNS is captured, UDP ones to port 53)
 * that are neither redirected nor the tunnel's, unless others make conntrack work in the namespace. Does nothing where the
 * kernel can't be asked for its connections (CONFIG_NF_CT_NETLINK). */
int redirect_forget_not_redirected(struct redirect_session *session, bool is_dns_captured, struct error *error);

#endif
