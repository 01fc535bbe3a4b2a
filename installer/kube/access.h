/* How the API server is reached just now: credentials, read anew from time to time since they rotate, and what comes of them:
 * TLS and addresses. Credentials of before go on being used where they can't be read. */
#ifndef AMBIENT_INSTALLER_KUBE_ACCESS_H
#define AMBIENT_INSTALLER_KUBE_ACCESS_H

#include <event2/event.h>
#include <stdint.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "installer/kube/credentials.h"
#include "installer/kube/resolve.h"
#include "installer/kube/tls.h"

struct kube_access {
	struct event_base *base;
	const struct log *log;	     /* borrowed */
	void (*changed)(void *data); /* another server or other certificates, or its address has become known */
	void *data;

	struct kube_credentials credentials;
	struct kube_tls *tls;
	struct kube_resolver *resolver;
	char *server;	     /* "HOST:PORT", for messages and the Host header */
	unsigned generation; /* counts up when connections of before are of no use any more */

	char *kubeconfig, *service_host, *service_port, *directory; /* as in struct kube_origin */
	int64_t loaded;						    /* when, by clock_milliseconds() */
	struct error load_error;				    /* why not, the last time */
};

/* `access` has its first four members. Everything in `origin` is copied. On failure it is to be cleared too. */
int kube_access_init(struct kube_access *access, const struct kube_origin *origin, struct error *error);
void kube_access_clear(struct kube_access *access);

/* Reads the credentials anew, unless they were read within so many milliseconds. */
void kube_access_reload(struct kube_access *access, unsigned at_least_old);

#endif
