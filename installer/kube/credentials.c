/* Credentials of a service account and of a kubeconfig. See credentials.h.
 *
 * A kubeconfig is YAML of three lists, clusters, users and contexts; a context names one of the others each. Of two ways to
 * give the same thing the one that client-go prefers wins: inline data beats a file, a token file beats a token. */
#include "installer/kube/credentials.h"

#include <ctype.h>
#include <errno.h>
#include <event2/http.h>
#include <libgen.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "installer/yaml.h"

#define TOKEN_LIMIT ((size_t)64 * 1024)
#define PEM_LIMIT ((size_t)1024 * 1024)
#define KUBECONFIG_LIMIT ((size_t)4 * 1024 * 1024)

static void secret_free(char *secret)
{
	if (secret)
		OPENSSL_cleanse(secret, strlen(secret));
	free(secret);
}

static void secret_freep(char **secret)
{
	secret_free(*secret);
}
#define cleanup_secret __attribute__((cleanup(secret_freep)))

void kube_credentials_clear(struct kube_credentials *credentials)
{
	free(credentials->host);
	free(credentials->path);
	free(credentials->tls_name);
	free(credentials->authority);
	free(credentials->certificate);
	secret_free(credentials->key);
	secret_free(credentials->token);
	*credentials = (struct kube_credentials){ 0 };
}

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

bool kube_credentials_same_server(const struct kube_credentials *a, const struct kube_credentials *b)
{
	return same(a->host, b->host) && a->port == b->port && same(a->path, b->path) && same(a->tls_name, b->tls_name) &&
	       a->insecure == b->insecure && same(a->authority, b->authority) && same(a->certificate, b->certificate) &&
	       same(a->key, b->key);
}

static int copy(const char *text, struct error *error, char **ret_text)
{
	char *made = strdup(text);
	if (!made)
		return error_set(error, ENOMEM, "cannot keep credentials");
	*ret_text = made;
	return 0;
}

/* A token goes into a header line: white space around it is cut off, and anything that could end the line is refused. */
static int take_token(const char *text, const char *what, struct error *error, char **ret_token)
{
	while (isspace((unsigned char)*text))
		text++;
	size_t length = strlen(text);
	while (length > 0 && isspace((unsigned char)text[length - 1]))
		length--;
	if (length == 0)
		return error_set(error, 0, "%s: the token is empty", what);
	for (size_t i = 0; i < length; i++) {
		if (text[i] <= ' ' || text[i] > '~')
			return error_set(error, 0, "%s: the token holds a character at %zu that no token may hold", what,
					 i + 1);
	}
	char *token = strndup(text, length);
	if (!token)
		return error_set(error, ENOMEM, "%s", what);
	*ret_token = token;
	return 0;
}

static int read_token(const char *path, struct error *error, char **ret_token)
{
	cleanup_secret char *text = NULL;
	size_t length;
	if (file_read(path, TOKEN_LIMIT, error, &text, &length) < 0)
		return -1;
	return take_token(text, path, error, ret_token);
}

/* A key with a passphrase must not make OpenSSL ask for it on a terminal. */
static int no_passphrase(char *buffer, int size, int writing, void *data)
{
	(void)buffer, (void)size, (void)writing, (void)data;
	return -1;
}

static int check_certificates(const char *pem, const char *what, struct error *error)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
	X509_free(certificate);
	BIO_free(bio);
	ERR_clear_error();
	return certificate ? 0 : error_set(error, 0, "%s: expected a certificate in PEM form", what);
}

static int check_key(const char *pem, const char *what, struct error *error)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	EVP_PKEY_free(key);
	BIO_free(bio);
	ERR_clear_error();
	return key ? 0 : error_set(error, 0, "%s: expected a private key in PEM form without a passphrase", what);
}

typedef int (*pem_check)(const char *pem, const char *what, struct error *error);

static int read_pem(const char *path, pem_check check, struct error *error, char **ret_pem)
{
	cleanup_secret char *text = NULL;
	size_t length;
	if (file_read(path, PEM_LIMIT, error, &text, &length) < 0 || check(text, path, error) < 0)
		return -1;
	*ret_pem = steal_pointer(text);
	return 0;
}

static int load_in_cluster(const struct kube_origin *origin, struct error *error, struct kube_credentials *credentials)
{
	if (!origin->service_host || !*origin->service_host || !origin->service_port || !*origin->service_port)
		return error_set(
			error, 0,
			"KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, so this is no pod of a cluster: "
			"set \"kubeconfig\", or \"source\" to folder:PATH");
	char *end;
	errno = 0;
	unsigned long port = strtoul(origin->service_port, &end, 10);
	if (errno || *end || !isdigit((unsigned char)*origin->service_port) || port == 0 || port > 65535)
		return error_set(error, 0, "KUBERNETES_SERVICE_PORT: expected a port, found \"%s\"", origin->service_port);
	credentials->port = (uint16_t)port;

	const char *directory = origin->directory ? origin->directory : KUBE_SERVICE_ACCOUNT_DIRECTORY;
	cleanup_free char *token_path = NULL, *authority_path = NULL;
	if (copy(origin->service_host, error, &credentials->host) < 0 ||
	    copy(origin->service_host, error, &credentials->tls_name) < 0 || copy("", error, &credentials->path) < 0 ||
	    file_join(directory, "token", error, &token_path) < 0 ||
	    file_join(directory, "ca.crt", error, &authority_path) < 0 ||
	    read_token(token_path, error, &credentials->token) < 0 ||
	    read_pem(authority_path, check_certificates, error, &credentials->authority) < 0)
		return error_wrap(error, "the pod's service account");
	return 0;
}

/* One entry of a kubeconfig's lists, and what messages need to name it. */
struct entry {
	const struct yaml *yaml;
	const char *path;   /* of the kubeconfig */
	const cJSON *value; /* the mapping */
	char where[256];    /* "PATH, line 3: user \"admin\"" */
};

static int find_entry(const struct yaml *yaml, const char *path, const char *list_name, const char *kind, const char *name,
		      struct error *error, struct entry *ret_entry)
{
	const cJSON *list = NULL, *item;
	if (json_get_array(cJSON_GetArrayItem(yaml->documents, 0), list_name, "", error, &list) < 0)
		return error_wrap(error, "%s", path);
	cJSON_ArrayForEach (item, list) {
		const char *item_name = NULL;
		const cJSON *value = NULL;
		if (!cJSON_IsObject(item))
			return error_set(error, 0, "%s, line %zu: expected an object with \"name\" and \"%s\", found %s", path,
					 yaml_line(yaml, item), kind, json_type_name(item));
		if (json_get_string(item, "name", list_name, error, &item_name) < 0)
			return error_wrap(error, "%s, line %zu", path, yaml_line(yaml, item));
		if (!item_name || strcmp(item_name, name) != 0)
			continue;
		if (json_get_object(item, kind, list_name, error, &value) < 0)
			return error_wrap(error, "%s, line %zu", path, yaml_line(yaml, item));
		if (!value)
			return error_set(error, 0, "%s, line %zu: %s \"%s\" has no \"%s\"", path, yaml_line(yaml, item), kind,
					 name, kind);
		*ret_entry = (struct entry){ .yaml = yaml, .path = path, .value = value };
		snprintf(ret_entry->where, sizeof ret_entry->where, "%s, line %zu: %s \"%s\"", path, yaml_line(yaml, item),
			 kind, name);
		return 0;
	}
	return error_set(error, 0, "%s: there is no %s \"%s\" in \"%s\"", path, kind, name, list_name);
}

/* NULL where the key is missing or its text is empty. */
static int get_text(const struct entry *entry, const char *key, struct error *error, const char **ret_text)
{
	const char *text = NULL;
	if (json_get_string(entry->value, key, "", error, &text) < 0)
		return error_wrap(error, "%s", entry->where);
	*ret_text = text && *text ? text : NULL;
	return 0;
}

/* Relative paths are relative to the kubeconfig. */
static int resolve_path(const struct entry *entry, const char *file, struct error *error, char **ret_path)
{
	if (*file == '/')
		return copy(file, error, ret_path);
	cleanup_free char *copied = NULL;
	if (copy(entry->path, error, &copied) < 0)
		return -1;
	return file_join(dirname(copied), file, error, ret_path);
}

static int decode_base64(const char *text, struct error *error, char **ret_decoded)
{
	size_t length = strlen(text);
	if (length > PEM_LIMIT)
		return error_set(error, 0, "longer than %zu bytes", PEM_LIMIT);
	cleanup_secret char *decoded = calloc(1, length / 4 * 3 + 4);
	EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
	if (!decoded || !context) {
		EVP_ENCODE_CTX_free(context);
		return error_set(error, ENOMEM, "cannot decode");
	}
	EVP_DecodeInit(context);
	int first = 0, last = 0;
	bool is_good =
		EVP_DecodeUpdate(context, (unsigned char *)decoded, &first, (const unsigned char *)text, (int)length) >= 0 &&
		EVP_DecodeFinal(context, (unsigned char *)decoded + first, &last) >= 0;
	EVP_ENCODE_CTX_free(context);
	if (!is_good || strlen(decoded) != (size_t)first + (size_t)last)
		return error_set(error, 0, "expected base64 text");
	*ret_decoded = steal_pointer(decoded);
	return 0;
}

/* KEY-data inline, or else the file that KEY names; NULL where neither is given. */
static int get_pem(const struct entry *entry, const char *key, pem_check check, struct error *error, char **ret_pem)
{
	char data_key[64];
	snprintf(data_key, sizeof data_key, "%s-data", key);
	const char *file = NULL, *data = NULL;
	if (get_text(entry, key, error, &file) < 0 || get_text(entry, data_key, error, &data) < 0)
		return -1;
	if (data) {
		cleanup_secret char *pem = NULL;
		char what[sizeof entry->where + sizeof data_key + 2];
		snprintf(what, sizeof what, "%s: %s", entry->where, data_key);
		if (decode_base64(data, error, &pem) < 0)
			return error_wrap(error, "%s", what);
		if (check(pem, what, error) < 0)
			return -1;
		*ret_pem = steal_pointer(pem);
		return 0;
	}
	if (!file)
		return 0;
	cleanup_free char *path = NULL;
	if (resolve_path(entry, file, error, &path) < 0 || read_pem(path, check, error, ret_pem) < 0)
		return error_wrap(error, "%s: %s", entry->where, key);
	return 0;
}

static int parse_server(const struct entry *entry, const char *server, struct error *error,
			struct kube_credentials *credentials)
{
	struct evhttp_uri *uri = evhttp_uri_parse(server);
	const char *scheme = uri ? evhttp_uri_get_scheme(uri) : NULL;
	const char *host = uri ? evhttp_uri_get_host(uri) : NULL;
	const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
	int port = uri ? evhttp_uri_get_port(uri) : -1;
	int status = -1;
	if (scheme && strcasecmp(scheme, "http") == 0) {
		error_set(error, 0, "%s: server: expected https://, found \"%s\": credentials are not sent in clear text",
			  entry->where, server);
		goto out;
	}
	if (!scheme || strcasecmp(scheme, "https") != 0 || !host || !*host || port == 0 || evhttp_uri_get_userinfo(uri) ||
	    evhttp_uri_get_query(uri) || evhttp_uri_get_fragment(uri)) {
		error_set(error, 0, "%s: server: expected https://HOST[:PORT][/PATH], found \"%s\"", entry->where, server);
		goto out;
	}
	credentials->port = port < 0 ? 443 : (uint16_t)port;
	size_t length = strlen(host);
	bool has_brackets = host[0] == '[' && host[length - 1] == ']';
	credentials->host = has_brackets ? strndup(host + 1, length - 2) : strdup(host);
	size_t path_length = path ? strlen(path) : 0;
	while (path_length > 0 && path[path_length - 1] == '/')
		path_length--;
	credentials->path = strndup(path ? path : "", path_length);
	if (!credentials->host || !credentials->path) {
		error_set(error, ENOMEM, "%s", entry->where);
		goto out;
	}
	status = 0;
out:
	if (uri)
		evhttp_uri_free(uri);
	return status;
}

static int load_cluster(const struct entry *cluster, struct error *error, struct kube_credentials *credentials)
{
	const char *server = NULL, *tls_name = NULL, *proxy = NULL;
	bool insecure = false;
	if (get_text(cluster, "server", error, &server) < 0 || get_text(cluster, "tls-server-name", error, &tls_name) < 0 ||
	    get_text(cluster, "proxy-url", error, &proxy) < 0)
		return -1;
	if (json_get_bool(cluster->value, "insecure-skip-tls-verify", "", error, &insecure) < 0)
		return error_wrap(error, "%s", cluster->where);
	if (!server)
		return error_set(error, 0, "%s has no \"server\"", cluster->where);
	if (proxy)
		return error_set(error, 0, "%s: proxy-url is not supported: the API server must be reached directly",
				 cluster->where);
	if (parse_server(cluster, server, error, credentials) < 0 ||
	    copy(tls_name ? tls_name : credentials->host, error, &credentials->tls_name) < 0 ||
	    get_pem(cluster, "certificate-authority", check_certificates, error, &credentials->authority) < 0)
		return -1;
	if (insecure && credentials->authority)
		return error_set(error, 0, "%s: insecure-skip-tls-verify and a certificate authority exclude each other",
				 cluster->where);
	credentials->insecure = insecure;
	return 0;
}

/* Keys of a user that we can't follow; better to say so than to be somebody else. */
static const struct {
	const char *key, *hint;
} refused_keys[] = {
	{ "exec", "programs are not run for credentials: use token, tokenFile or a client certificate" },
	{ "auth-provider", "auth providers are not supported: use token, tokenFile or a client certificate" },
	{ "username", "passwords are not supported: use token, tokenFile or a client certificate" },
	{ "as", "impersonation is not supported" },
	{ "as-uid", "impersonation is not supported" },
	{ "as-groups", "impersonation is not supported" },
};

static int load_user(const struct entry *user, struct error *error, struct kube_credentials *credentials)
{
	for (size_t i = 0; i < sizeof refused_keys / sizeof refused_keys[0]; i++) {
		const cJSON *value = cJSON_GetObjectItemCaseSensitive(user->value, refused_keys[i].key);
		if (value && !cJSON_IsNull(value))
			return error_set(error, 0, "%s: %s (line %zu): %s", user->where, refused_keys[i].key,
					 yaml_line(user->yaml, value), refused_keys[i].hint);
	}
	const char *token = NULL, *token_file = NULL;
	if (get_text(user, "token", error, &token) < 0 || get_text(user, "tokenFile", error, &token_file) < 0 ||
	    get_pem(user, "client-certificate", check_certificates, error, &credentials->certificate) < 0 ||
	    get_pem(user, "client-key", check_key, error, &credentials->key) < 0)
		return -1;
	if (credentials->certificate && !credentials->key)
		return error_set(error, 0, "%s has a client certificate but no client-key", user->where);
	if (credentials->key && !credentials->certificate)
		return error_set(error, 0, "%s has a client-key but no client certificate", user->where);
	if (token_file) {
		cleanup_free char *path = NULL;
		if (resolve_path(user, token_file, error, &path) < 0 || read_token(path, error, &credentials->token) < 0)
			return error_wrap(error, "%s: tokenFile", user->where);
	} else if (token) {
		char what[sizeof user->where + 16];
		snprintf(what, sizeof what, "%s: token", user->where);
		if (take_token(token, what, error, &credentials->token) < 0)
			return -1;
	}
	if (!credentials->token && !credentials->certificate)
		return error_set(error, 0, "%s: expected one of token, tokenFile, client-certificate", user->where);
	return 0;
}

static int load_kubeconfig(const char *path, struct error *error, struct kube_credentials *credentials)
{
	cleanup_secret char *text = NULL;
	size_t length;
	if (file_read(path, KUBECONFIG_LIMIT, error, &text, &length) < 0)
		return -1;
	cleanup_yaml struct yaml yaml = { 0 };
	if (yaml_parse(text, length, KUBECONFIG_LIMIT, path, error, &yaml) < 0)
		return -1;
	const cJSON *document = cJSON_GetArrayItem(yaml.documents, 0);
	if (!cJSON_IsObject(document) || cJSON_GetArraySize(yaml.documents) != 1)
		return error_set(error, 0, "%s: expected a kubeconfig, which is one object", path);

	const char *current = NULL;
	if (json_get_string(document, "current-context", "", error, &current) < 0)
		return error_wrap(error, "%s", path);
	if (!current || !*current)
		return error_set(error, 0, "%s: current-context is not set", path);

	struct entry context = { 0 }, cluster = { 0 }, user = { 0 };
	const char *cluster_name = NULL, *user_name = NULL;
	if (find_entry(&yaml, path, "contexts", "context", current, error, &context) < 0 ||
	    get_text(&context, "cluster", error, &cluster_name) < 0 || get_text(&context, "user", error, &user_name) < 0)
		return -1;
	if (!cluster_name || !user_name)
		return error_set(error, 0, "%s has no \"%s\"", context.where, cluster_name ? "user" : "cluster");
	if (find_entry(&yaml, path, "clusters", "cluster", cluster_name, error, &cluster) < 0 ||
	    find_entry(&yaml, path, "users", "user", user_name, error, &user) < 0 ||
	    load_cluster(&cluster, error, credentials) < 0 || load_user(&user, error, credentials) < 0)
		return -1;
	return 0;
}

int kube_credentials_load(const struct kube_origin *origin, struct error *error, struct kube_credentials *ret_credentials)
{
	cleanup_kube_credentials struct kube_credentials credentials = { 0 };
	bool has_kubeconfig = origin->kubeconfig && *origin->kubeconfig;
	if ((has_kubeconfig ? load_kubeconfig(origin->kubeconfig, error, &credentials)
			    : load_in_cluster(origin, error, &credentials)) < 0)
		return error_wrap(error, "cannot read credentials for the API server");
	*ret_credentials = credentials;
	credentials = (struct kube_credentials){ 0 };
	return 0;
}
