/* What conntrack is made to forget. See redirect_forget.c. Private to the library. */
#ifndef AMBIENT_LIB_REDIRECT_FORGET_H
#define AMBIENT_LIB_REDIRECT_FORGET_H

#include "ambient/redirect.h"

struct mnl_socket;

/* Every connection of the namespace: for existingConnections reset, when the redirects stand. */
int redirect_forget_all(struct redirect_session *session, struct error *error);

/* The same when our rules are gone, unless rules of somebody else make conntrack work in the namespace. What can't be forgotten
 * then (no memory, a kernel without CONFIG_NF_CT_NETLINK) is no reason for anything to fail. */
void redirect_forget_leftovers(struct redirect_session *session);

/* Around the transaction that brings the first table. `ret_listener` may be NULL afterwards: the kernel tells nothing, and the
 * end does nothing; it is closed by the end in any case. */
void redirect_forget_begin(struct redirect_session *session, struct mnl_socket **ret_listener);
void redirect_forget_end(struct redirect_session *session, struct mnl_socket *listener);

#endif
