/* TLS to the API server. See tls.h. */
#include "installer/kube/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

struct kube_tls {
	SSL_CTX *context;
	SSL_SESSION *session; /* the latest ticket that the server gave; NULL: none yet */
	char *name;	      /* what the certificate must hold */
	bool is_address;
};

static int openssl_error(struct error *error, const char *what)
{
	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	ERR_clear_error();
	return error_set(error, 0, "%s: %s", what, reason ? reason : "OpenSSL gives no reason");
}

/* OpenSSL marks a session whose connection ended without a farewell as one not to resume; a copy is untouched by that. */
static int keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct kube_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	SSL_SESSION *copy = tls ? SSL_SESSION_dup(session) : NULL;
	if (copy) {
		SSL_SESSION_free(tls->session);
		tls->session = copy;
	}
	return 0;
}

/* libevent resets a connection's state when it breaks, so this is noted when it happens. */
static void note_progress(const SSL *ssl, int where, int result)
{
	(void)result;
	bool *was_established = SSL_get_app_data(ssl);
	if ((where & SSL_CB_HANDSHAKE_DONE) && was_established)
		*was_established = true;
}

static int add_authority(SSL_CTX *context, const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *certificate = NULL;
	int count = 0;
	while (bio && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		int added = X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate);
		X509_free(certificate);
		if (!added)
			break;
		count++;
	}
	BIO_free(bio);
	return count > 0 ? 0 : -1;
}

static int use_identity(SSL_CTX *context, const char *certificate_pem, const char *key_pem)
{
	int status = -1;
	BIO *certificates = BIO_new_mem_buf(certificate_pem, -1), *keys = BIO_new_mem_buf(key_pem, -1);
	X509 *certificate = certificates ? PEM_read_bio_X509(certificates, NULL, NULL, NULL) : NULL;
	EVP_PKEY *key = keys ? PEM_read_bio_PrivateKey(keys, NULL, NULL, NULL) : NULL;
	if (!certificate || !key || SSL_CTX_use_certificate(context, certificate) != 1)
		goto out;
	X509 *above;
	while ((above = PEM_read_bio_X509(certificates, NULL, NULL, NULL))) {
		int added = (int)SSL_CTX_add1_chain_cert(context, above);
		X509_free(above);
		if (!added)
			goto out;
	}
	/* The end of the text is an error to the PEM reader. */
	ERR_clear_error();
	if (SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1)
		status = 0;
out:
	X509_free(certificate);
	EVP_PKEY_free(key);
	BIO_free(certificates);
	BIO_free(keys);
	return status;
}

int kube_tls_new(const struct kube_credentials *credentials, struct error *error, struct kube_tls **ret_tls)
{
	struct kube_tls *tls = calloc(1, sizeof *tls);
	if (!tls || !(tls->name = strdup(credentials->tls_name))) {
		free(tls);
		return error_set(error, ENOMEM, "cannot prepare TLS");
	}
	struct in6_addr address;
	tls->is_address = inet_pton(AF_INET, tls->name, &address) == 1 || inet_pton(AF_INET6, tls->name, &address) == 1;
	ERR_clear_error();
	tls->context = SSL_CTX_new(TLS_client_method());
	if (!tls->context) {
		openssl_error(error, "cannot prepare TLS");
		goto failed;
	}
	SSL_CTX *context = tls->context;
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
	/* Idle connections give their buffers back. The other two are what libevent's way of writing needs. */
	SSL_CTX_set_mode(context,
			 SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
	SSL_CTX_sess_set_new_cb(context, keep_session);
	SSL_CTX_set_app_data(context, tls);
	SSL_CTX_set_info_callback(context, note_progress);
	static const unsigned char protocols[] = "\x08http/1.1";
	SSL_CTX_set_alpn_protos(context, protocols, sizeof protocols - 1);

	SSL_CTX_set_verify(context, credentials->insecure ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
	/* As Go does it: whatever stands in the CA file is trusted, be it a root or not. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
	if (credentials->authority ? add_authority(context, credentials->authority) < 0
				   : !credentials->insecure && SSL_CTX_set_default_verify_paths(context) != 1) {
		openssl_error(error, "cannot use the certificate authority");
		goto failed;
	}
	if (credentials->certificate && use_identity(context, credentials->certificate, credentials->key) < 0) {
		openssl_error(error, "cannot use the client's certificate and key");
		goto failed;
	}
	ERR_clear_error();
	*ret_tls = tls;
	return 0;
failed:
	kube_tls_free(tls);
	return -1;
}

void kube_tls_free(struct kube_tls *tls)
{
	if (!tls)
		return;
	if (tls->context)
		SSL_CTX_set_app_data(tls->context, NULL);
	SSL_SESSION_free(tls->session);
	SSL_CTX_free(tls->context);
	free(tls->name);
	free(tls);
}

int kube_tls_connection(struct kube_tls *tls, bool *was_established, struct error *error, SSL **ret_ssl)
{
	ERR_clear_error();
	SSL *ssl = SSL_new(tls->context);
	if (!ssl)
		return openssl_error(error, "cannot begin TLS");
	X509_VERIFY_PARAM *parameters = SSL_get0_param(ssl);
	/* A name in the subject alone is no name: certificates have had alternative names for decades, and Go reads no other.
	 */
	X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	int is_set = tls->is_address ? X509_VERIFY_PARAM_set1_ip_asc(parameters, tls->name)
				     : SSL_set1_host(ssl, tls->name) && SSL_set_tlsext_host_name(ssl, tls->name);
	if (!is_set) {
		SSL_free(ssl);
		return openssl_error(error, "cannot begin TLS");
	}
	/* A copy again: OpenSSL lets a session of TLS 1.3 be resumed once, and the connections of a burst share one ticket. */
	SSL_SESSION *session = tls->session ? SSL_SESSION_dup(tls->session) : NULL;
	if (session)
		SSL_set_session(ssl, session);
	SSL_SESSION_free(session);
	SSL_set_app_data(ssl, was_established);
	SSL_set_connect_state(ssl);
	*ret_ssl = ssl;
	return 0;
}

bool kube_tls_is_untrusted(const SSL *ssl, const char *server, struct error *error)
{
	long result = SSL_get_verify_result(ssl);
	if (result == X509_V_OK || SSL_get_verify_mode(ssl) == SSL_VERIFY_NONE)
		return false;
	const struct kube_tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH)
		error_set(error, 0, "the certificate of the API server at %s is for another name than %s", server,
			  tls ? tls->name : "its own");
	else
		error_set(error, 0, "the certificate of the API server at %s is not trusted: %s", server,
			  X509_verify_cert_error_string(result));
	return true;
}
