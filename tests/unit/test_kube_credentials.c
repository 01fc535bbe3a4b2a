/* Credentials: a service account, every key of a kubeconfig, and the words for what is wrong with one. */
#include "tests/unit/cmocka_headers.h"

#include <malloc.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "installer/kube/credentials.h"

#ifndef __SANITIZE_ADDRESS__
/* What is freed is looked at first, whoever frees it. Volatile: the compiler knows that free(3) changes nothing of ours. */
static const char *volatile secret;
static volatile size_t seen_in_freed;

void __libc_free(void *block);

void free(void *block) /* NOLINT(readability-inconsistent-declaration-parameter-name): stdlib.h has its own */
{
	if (block && secret && memmem(block, malloc_usable_size(block), secret, strlen(secret)))
		seen_in_freed++;
	__libc_free(block);
}
#endif

static char folder[] = "/tmp/ambient-credentials-XXXXXX";
static char *certificate_pem, *key_pem, *certificate_base64, *key_base64;

static void write_text(const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	struct error error = { 0 };
	if (file_write(path, text, strlen(text), 0600, &error) < 0)
		fail_msg("%s", error.message);
}

static char *text_of(BIO *bio)
{
	char *bytes;
	long length = BIO_get_mem_data(bio, &bytes);
	char *text = strndup(bytes, (size_t)length);
	BIO_free(bio);
	return text;
}

static char *base64_of(const char *text)
{
	char *encoded = malloc(strlen(text) * 2 + 4);
	EVP_EncodeBlock((unsigned char *)encoded, (const unsigned char *)text, (int)strlen(text));
	return encoded;
}

static int prepare(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_set_pubkey(certificate, key);
	X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_sign(certificate, key, EVP_sha256());
	BIO *certificates = BIO_new(BIO_s_mem()), *keys = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(certificates, certificate);
	PEM_write_bio_PrivateKey(keys, key, NULL, NULL, 0, NULL, NULL);
	certificate_pem = text_of(certificates);
	key_pem = text_of(keys);
	certificate_base64 = base64_of(certificate_pem);
	key_base64 = base64_of(key_pem);
	X509_free(certificate);
	EVP_PKEY_free(key);
	write_text("token", "  abc.def\n");
	write_text("ca.crt", certificate_pem);
	write_text("client.key", key_pem);
	return 0;
}

static int clear(void **state)
{
	(void)state;
	static const char *const names[] = { "token", "ca.crt", "client.key", "config" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		char path[256];
		snprintf(path, sizeof path, "%s/%s", folder, names[i]);
		unlink(path);
	}
	rmdir(folder);
	free(certificate_pem);
	free(key_pem);
	free(certificate_base64);
	free(key_base64);
	return 0;
}

static void a_service_account(void **state)
{
	(void)state;
	cleanup_kube_credentials struct kube_credentials credentials = { 0 };
	struct error error = { 0 };
	struct kube_origin origin = { .service_host = "fd00::1", .service_port = "6443", .directory = folder };
	if (kube_credentials_load(&origin, &error, &credentials) < 0)
		fail_msg("%s", error.message);
	assert_string_equal(credentials.host, "fd00::1");
	assert_string_equal(credentials.tls_name, "fd00::1");
	assert_string_equal(credentials.path, "");
	assert_int_equal(credentials.port, 6443);
	assert_string_equal(credentials.token, "abc.def");
	assert_string_equal(credentials.authority, certificate_pem);
	assert_false(credentials.insecure);

	static const struct {
		struct kube_origin origin;
		const char *words;
	} cases[] = {
		{ { .directory = folder }, "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set" },
		{ { .service_host = "h", .service_port = "0", .directory = folder }, "expected a port, found \"0\"" },
		{ { .service_host = "h", .service_port = "65536", .directory = folder }, "expected a port" },
		{ { .service_host = "h", .service_port = "44x", .directory = folder }, "expected a port, found \"44x\"" },
		{ { .service_host = "h", .service_port = "443", .directory = "/nonexistent" },
		  "cannot read /nonexistent/token" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct kube_credentials none = { 0 };
		error = (struct error){ 0 };
		assert_int_equal(kube_credentials_load(&cases[i].origin, &error, &none), -1);
		if (!strstr(error.message, cases[i].words))
			fail_msg("case %zu: %s", i, error.message);
	}
}

static int load(const char *cluster, const char *user, struct error *error, struct kube_credentials *credentials)
{
	cleanup_free char *text = NULL;
	char path[256];
	assert_true(asprintf(&text,
			     "current-context: here\n"
			     "contexts:\n- name: other\n  context: {cluster: x, user: y}\n"
			     "- name: here\n  context: {cluster: test, user: agent}\n"
			     "clusters:\n- name: test\n  cluster: {%s}\n"
			     "users:\n- name: other\n  user: {}\n- name: agent\n  user: {%s}\n",
			     cluster, user) > 0);
	write_text("config", text);
	snprintf(path, sizeof path, "%s/config", folder);
	return kube_credentials_load(&(struct kube_origin){ .kubeconfig = path }, error, credentials);
}

#ifndef __SANITIZE_ADDRESS__
static void secrets_are_overwritten_when_they_are_freed(void **state)
{
	(void)state;
	const struct kube_origin pod = { .service_host = "fd00::1", .service_port = "6443", .directory = folder };
	struct kube_credentials credentials = { 0 };
	struct error error = { 0 };
	/* The witness: it is seen where nobody overwrites it. */
	secret = "abc.def";
	seen_in_freed = 0;
	free(strdup("  abc.def"));
	assert_int_equal(seen_in_freed, 1);

	seen_in_freed = 0;
	assert_int_equal(kube_credentials_load(&pod, &error, &credentials), 0);
	assert_non_null(strstr(credentials.token, secret));
	kube_credentials_clear(&credentials);
	assert_int_equal(seen_in_freed, 0);

	secret = key_pem;
	assert_int_equal(load("server: https://h", "client-certificate: ca.crt, client-key: client.key", &error, &credentials),
			 0);
	assert_string_equal(credentials.key, secret);
	kube_credentials_clear(&credentials);
	secret = NULL;
	assert_int_equal(seen_in_freed, 0);
}
#endif

static void a_kubeconfig(void **state)
{
	(void)state;
	struct error error = { 0 };
	cleanup_free char *inline_data = NULL, *inline_cluster = NULL;
	assert_true(asprintf(&inline_data, "client-certificate-data: %s, client-key-data: %s", certificate_base64, key_base64) >
		    0);
	assert_true(asprintf(&inline_cluster, "server: 'https://[::1]:8443/k8s/c/', certificate-authority-data: %s",
			     certificate_base64) > 0);
	const struct {
		const char *cluster, *user;
		struct kube_credentials expected;
	} cases[] = {
		{ "server: https://api.example, certificate-authority: ca.crt",
		  "token: abc",
		  { .host = "api.example",
		    .port = 443,
		    .path = "",
		    .tls_name = "api.example",
		    .authority = certificate_pem,
		    .token = "abc" } },
		{ inline_cluster,
		  inline_data,
		  { .host = "::1",
		    .port = 8443,
		    .path = "/k8s/c",
		    .tls_name = "::1",
		    .authority = certificate_pem,
		    .certificate = certificate_pem,
		    .key = key_pem } },
		{ "server: https://10.0.0.1:6443, tls-server-name: kubernetes, insecure-skip-tls-verify: true",
		  "tokenFile: token, token: of-before",
		  { .host = "10.0.0.1",
		    .port = 6443,
		    .path = "",
		    .tls_name = "kubernetes",
		    .insecure = true,
		    .token = "abc.def" } },
		{ "server: https://h",
		  "client-certificate: ca.crt, client-key: client.key, exec: null",
		  { .host = "h", .port = 443, .path = "", .tls_name = "h", .certificate = certificate_pem, .key = key_pem } },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_kube_credentials struct kube_credentials credentials = { 0 };
		if (load(cases[i].cluster, cases[i].user, &error, &credentials) < 0)
			fail_msg("case %zu: %s", i, error.message);
		assert_true(kube_credentials_same_server(&credentials, &cases[i].expected));
		assert_string_equal(credentials.token ? credentials.token : "",
				    cases[i].expected.token ? cases[i].expected.token : "");
	}
}

static void what_is_wrong_with_a_kubeconfig(void **state)
{
	(void)state;
	static const struct {
		const char *cluster, *user, *words;
	} cases[] = {
		{ "server: http://h", "token: x", "line 8: cluster \"test\": server: expected https://" },
		{ "server: h", "token: x", "expected https://HOST[:PORT][/PATH], found \"h\"" },
		{ "server: 'https://u:p@h'", "token: x", "expected https://HOST" },
		{ "server: 'https://h?a=b'", "token: x", "expected https://HOST" },
		{ "server: 7", "token: x", "expected a string, found" },
		{ "a: b", "token: x", "has no \"server\"" },
		{ "server: https://h, proxy-url: http://p", "token: x", "proxy-url is not supported" },
		{ "server: https://h, insecure-skip-tls-verify: true, certificate-authority: ca.crt", "token: x",
		  "exclude each other" },
		{ "server: https://h, insecure-skip-tls-verify: maybe", "token: x", "insecure-skip-tls-verify" },
		{ "server: https://h, certificate-authority: nothing", "token: x", "/nothing: No such file" },
		{ "server: https://h, certificate-authority: token", "token: x", "expected a certificate in PEM form" },
		{ "server: https://h, certificate-authority-data: '***'", "token: x",
		  "certificate-authority-data: expected base64" },
		{ "server: https://h, certificate-authority-data: YWJj", "token: x", "expected a certificate in PEM form" },
		{ "server: https://h", "exec: {command: aws}", "programs are not run for credentials" },
		{ "server: https://h", "auth-provider: {name: gcp}", "auth providers are not supported" },
		{ "server: https://h", "username: u, password: p", "passwords are not supported" },
		{ "server: https://h", "token: x, as: admin", "impersonation is not supported" },
		{ "server: https://h", "token: \"a\\nHost: x\"", "a character at 2 that no token may hold" },
		{ "server: https://h", "token: ' '", "the token is empty" },
		{ "server: https://h", "tokenFile: nothing", "/nothing: No such file" },
		{ "server: https://h", "client-certificate: ca.crt", "has a client certificate but no client-key" },
		{ "server: https://h", "client-key: client.key", "has a client-key but no client certificate" },
		{ "server: https://h", "client-certificate: ca.crt, client-key: ca.crt", "expected a private key in PEM form" },
		{ "server: https://h", "a: b", "expected one of token, tokenFile, client-certificate" },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct error error = { 0 };
		struct kube_credentials credentials = { 0 };
		assert_int_equal(load(cases[i].cluster, cases[i].user, &error, &credentials), -1);
		if (!strstr(error.message, cases[i].words) || !strstr(error.message, folder))
			fail_msg("case %zu: %s", i, error.message);
	}

	static const struct {
		const char *text, *words;
	} files[] = {
		{ "", "expected a kubeconfig" },
		{ "[]", "expected a kubeconfig" },
		{ "a: b\n---\na: b\n", "expected a kubeconfig" },
		{ "a: b", "current-context is not set" },
		{ "current-context: x", "there is no context \"x\" in \"contexts\"" },
		{ "current-context: x\ncontexts: {}", "contexts" },
		{ "current-context: x\ncontexts:\n- y", "line 3: expected an object" },
		{ "current-context: x\ncontexts:\n- name: x", "context \"x\" has no \"context\"" },
		{ "current-context: x\ncontexts:\n- name: x\n  context: {user: y}", "has no \"cluster\"" },
		{ "current-context: x\ncontexts:\n- name: x\n  context: {user: y, cluster: z}", "there is no cluster \"z\"" },
		{ "a: [", "line" },
	};
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		struct error error = { 0 };
		struct kube_credentials credentials = { 0 };
		char path[256];
		snprintf(path, sizeof path, "%s/config", folder);
		write_text("config", files[i].text);
		assert_int_equal(kube_credentials_load(&(struct kube_origin){ .kubeconfig = path }, &error, &credentials), -1);
		if (!strstr(error.message, files[i].words) || !strstr(error.message, path))
			fail_msg("file %zu: %s", i, error.message);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_service_account),
#ifndef __SANITIZE_ADDRESS__
		cmocka_unit_test(secrets_are_overwritten_when_they_are_freed),
#endif
		cmocka_unit_test(a_kubeconfig),
		cmocka_unit_test(what_is_wrong_with_a_kubeconfig),
	};
	return cmocka_run_group_tests(tests, prepare, clear);
}
