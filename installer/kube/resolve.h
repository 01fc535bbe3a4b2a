/* The API server's address: an address as it is, a name by libevent's own resolver (/etc/hosts and /etc/resolv.conf). The C
 * library's resolver would block the loop, and does not work in a static program. */
#ifndef AMBIENT_INSTALLER_KUBE_RESOLVE_H
#define AMBIENT_INSTALLER_KUBE_RESOLVE_H

#include <event2/event.h>
#include <stdbool.h>

#include "ambient/error.h"

struct kube_resolver;

/* `changed` is called, from the loop, when a lookup that kube_resolver_address began has ended. */
int kube_resolver_new(struct event_base *base, const char *host, void (*changed)(void *data), void *data, struct error *error,
		      struct kube_resolver **ret_resolver);
void kube_resolver_free(struct kube_resolver *resolver); /* NULL is fine */

/* The address to connect to, as text. NULL: not known yet, a lookup is under way. */
const char *kube_resolver_address(struct kube_resolver *resolver);

/* Whether the latest lookup failed, and with what. Asked once: after that the next kube_resolver_address looks up anew. */
bool kube_resolver_take_error(struct kube_resolver *resolver, struct error *error);

/* No connection to this address: the next one is taken, and after the last the name is looked up anew. */
void kube_resolver_failed(struct kube_resolver *resolver, const char *address);

#endif
