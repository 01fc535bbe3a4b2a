/* How the Kubernetes API server is reached and who we are to it: the pod's service account in a cluster, or a kubeconfig.
 *
 * Everything is read into a plain struct. Tokens, CA and certificates rotate, so the client loads it anew from time to time
 * and at a 401 and compares; nothing here is cached. Only https:// servers are taken: a token never travels in clear text. */
#ifndef AMBIENT_INSTALLER_KUBE_CREDENTIALS_H
#define AMBIENT_INSTALLER_KUBE_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>

#include "ambient/error.h"

#define KUBE_SERVICE_ACCOUNT_DIRECTORY "/var/run/secrets/kubernetes.io/serviceaccount"

/* Where the credentials come from. All strings are borrowed for as long as somebody uses the struct. */
struct kube_origin {
	const char *kubeconfig;	  /* a file; NULL or empty: in cluster, as the rest says */
	const char *service_host; /* KUBERNETES_SERVICE_HOST: a name or an address, IPv6 without brackets */
	const char *service_port; /* KUBERNETES_SERVICE_PORT */
	const char *directory;	  /* of token and ca.crt; NULL: KUBE_SERVICE_ACCOUNT_DIRECTORY */
};

/* Strings are NULL where there is none, unless it says otherwise. */
struct kube_credentials {
	char *host; /* a name or an address (IPv6 without brackets), always there */
	uint16_t port;
	char *path;	   /* what stands before /api in every path, empty where nothing does; no slash at its end */
	char *tls_name;	   /* the name or address that the server's certificate must hold; always there */
	bool insecure;	   /* insecure-skip-tls-verify: the certificate is not looked at */
	char *authority;   /* PEM certificates that sign the server's; NULL: the machine's own */
	char *certificate; /* PEM, the client's certificate with its chain */
	char *key;	   /* PEM, the client's private key */
	char *token;	   /* sent as a bearer token */
};

/* Reads all of it. A missing or wrong key is an error that names file, entry and key and says what was expected. */
int kube_credentials_load(const struct kube_origin *origin, struct error *error, struct kube_credentials *ret_credentials);

/* Frees it, secrets overwritten; a zeroed struct is fine. */
void kube_credentials_clear(struct kube_credentials *credentials);
#define cleanup_kube_credentials __attribute__((cleanup(kube_credentials_clear)))

/* Whether connections made with one would be refused, or not be trusted, with the other: everything but the token. */
bool kube_credentials_same_server(const struct kube_credentials *a, const struct kube_credentials *b);

#endif
