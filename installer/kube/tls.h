/* TLS to the API server: what credentials mean to OpenSSL, one session that new connections resume, and why a handshake
 * failed in words. */
#ifndef AMBIENT_INSTALLER_KUBE_TLS_H
#define AMBIENT_INSTALLER_KUBE_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "ambient/error.h"
#include "installer/kube/credentials.h"

struct kube_tls;

int kube_tls_new(const struct kube_credentials *credentials, struct error *error, struct kube_tls **ret_tls);

/* Connections that are open go on. NULL is fine. */
void kube_tls_free(struct kube_tls *tls);

/* A connection's state: chain and name (or address) are verified, SNI is sent for a name. Owned by the caller.
 * `was_established` becomes true when the handshake is done, and stays so; it must live as long as the connection. */
int kube_tls_connection(struct kube_tls *tls, bool *was_established, struct error *error, SSL **ret_ssl);

/* Whether the server's certificate was the reason; if so, says it. */
bool kube_tls_is_untrusted(const SSL *ssl, const char *server, struct error *error);

#endif
