/* A kubeconfig. Tokens travel by https alone. */
#include <string.h>

#include "installer/kube/credentials.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_fuzz_file struct fuzz_file file = fuzz_file_make(data, size);
	cleanup_kube_credentials struct kube_credentials credentials = { 0 };
	const struct kube_origin origin = { .kubeconfig = file.path };
	if (kube_credentials_load(&origin, &error, &credentials) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	HOLDS(credentials.host && credentials.host[0] && credentials.path && credentials.tls_name && credentials.port > 0);
	/* What goes into a header must not end it. */
	HOLDS(!credentials.token || !strpbrk(credentials.token, "\r\n"));
	HOLDS(!strpbrk(credentials.host, "\r\n /") && !strpbrk(credentials.path, "\r\n "));
	HOLDS(kube_credentials_same_server(&credentials, &credentials));
	return 0;
}
