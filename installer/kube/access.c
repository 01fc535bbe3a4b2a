/* How the API server is reached. See access.h. */
#include "installer/kube/access.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/clock.h"

/* Takes what `credentials` holds; on failure all is as before. */
static int use_credentials(struct kube_access *access, struct kube_credentials *credentials, struct error *error)
{
	if (!access->tls || !kube_credentials_same_server(&access->credentials, credentials)) {
		struct kube_tls *tls = NULL;
		struct kube_resolver *resolver = NULL;
		char *server = NULL;
		bool has_brackets = strchr(credentials->host, ':') != NULL;
		if (asprintf(&server, has_brackets ? "[%s]:%u" : "%s:%u", credentials->host, credentials->port) < 0)
			return error_set(error, ENOMEM, "cannot use credentials");
		if (kube_tls_new(credentials, error, &tls) < 0 ||
		    kube_resolver_new(access->base, credentials->host, access->changed, access->data, error, &resolver) < 0) {
			kube_tls_free(tls);
			free(server);
			return -1;
		}
		access->generation++;
		kube_tls_free(access->tls);
		kube_resolver_free(access->resolver);
		free(access->server);
		access->tls = tls;
		access->resolver = resolver;
		access->server = server;
		access->changed(access->data);
	}
	kube_credentials_clear(&access->credentials);
	access->credentials = *credentials;
	*credentials = (struct kube_credentials){ 0 };
	return 0;
}

static int load_credentials(struct kube_access *access, struct error *error)
{
	cleanup_kube_credentials struct kube_credentials credentials = { 0 };
	const struct kube_origin origin = { .kubeconfig = access->kubeconfig,
					    .service_host = access->service_host,
					    .service_port = access->service_port,
					    .directory = access->directory };
	access->loaded = clock_milliseconds();
	if (kube_credentials_load(&origin, error, &credentials) < 0)
		return -1;
	return use_credentials(access, &credentials, error);
}

/* What is there goes on being used when it can't be read anew; each reason is said once. */
void kube_access_reload(struct kube_access *access, unsigned at_least_old)
{
	if (clock_milliseconds() - access->loaded < at_least_old)
		return;
	struct error error = { 0 };
	bool failed = load_credentials(access, &error) < 0;
	if (failed && strcmp(error.message, access->load_error.message) != 0)
		log_write(access->log, LOG_LEVEL_WARN, NULL, "the credentials in use are kept: %s", error.message);
	if (!failed && error_is_set(&access->load_error))
		log_write(access->log, LOG_LEVEL_INFO, NULL, "the credentials for the API server can be read again");
	access->load_error = error;
}

static int copy_text(const char *text, char **ret_copy)
{
	*ret_copy = text ? strdup(text) : NULL;
	return text && !*ret_copy ? -1 : 0;
}

int kube_access_init(struct kube_access *access, const struct kube_origin *origin, struct error *error)
{
	if (copy_text(origin->kubeconfig, &access->kubeconfig) < 0 ||
	    copy_text(origin->service_host, &access->service_host) < 0 ||
	    copy_text(origin->service_port, &access->service_port) < 0 || copy_text(origin->directory, &access->directory) < 0)
		return error_set(error, ENOMEM, "cannot prepare the API client");
	return load_credentials(access, error);
}

void kube_access_clear(struct kube_access *access)
{
	kube_resolver_free(access->resolver);
	kube_tls_free(access->tls);
	kube_credentials_clear(&access->credentials);
	free(access->kubeconfig);
	free(access->service_host);
	free(access->service_port);
	free(access->directory);
	free(access->server);
	*access = (struct kube_access){ 0 };
}
