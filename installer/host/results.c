/* Results that a runtime keeps (libcni's cache, /var/lib/cni/results): a CRI-O runs DEL with the chain of the ADD, and strands
 * a pod whose plugin is gone. Each file is {"kind": "cniCacheV1", "config": BASE64 OF THE CONFIGURATION, ...}. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "installer/host/binary.h"
#include "installer/host/conflist.h"

#define RESULT_MAX (4 << 20)

/* -1: it can't be understood. */
static int names_type(const char *path, const char *type, bool *ret_names)
{
	cleanup_free char *text = NULL;
	cleanup_free unsigned char *configuration = NULL;
	cleanup_cjson cJSON *json = NULL, *list = NULL;
	size_t length = 0;
	const char *encoded = NULL;
	struct error problem = { 0 };
	if (file_read(path, RESULT_MAX, &problem, &text, &length) < 0) {
		*ret_names = false;
		/* The pod went meanwhile; or it is no file at all. */
		return problem.number == ENOENT || problem.number == EINVAL ? 0 : -1;
	}
	if (json_parse(text, length, RESULT_MAX, path, NULL, &json) < 0 ||
	    json_get_string(json, "config", "", NULL, &encoded) < 0)
		return -1;
	if (!encoded) {
		/* Before cniCacheV1 the file is the result alone, and the runtime runs DEL with the configuration of now. */
		*ret_names = false;
		return 0;
	}
	size_t encoded_length = strlen(encoded);
	configuration = malloc(encoded_length / 4 * 3 + 4);
	int decoded = configuration && encoded_length <= INT_MAX
			      ? EVP_DecodeBlock(configuration, (const unsigned char *)encoded, (int)encoded_length)
			      : -1;
	/* It counts the padding as bytes. */
	for (size_t end = encoded_length; decoded > 0 && end > 0 && encoded[end - 1] == '='; end--)
		decoded--;
	if (decoded < 0 || json_parse((char *)configuration, (size_t)decoded, RESULT_MAX, path, NULL, &list) < 0)
		return -1;
	*ret_names = conflist_find(list, type) != NULL;
	return 0;
}

/* libcni makes the directory with the first ADD; its parent tells whether we look at the right place. */
static bool has_parent(const char *path)
{
	cleanup_free char *parent = strdup(path);
	char *slash = parent ? strrchr(parent, '/') : NULL;
	if (!slash || slash == parent)
		return false;
	*slash = '\0';
	return access(parent, F_OK) == 0;
}

int binary_is_needed(const char *results_dir, const char *type, struct error *error, bool *ret_needed)
{
	cleanup_closedir DIR *stream = opendir(results_dir);
	if (!stream && errno == ENOENT && has_parent(results_dir)) {
		*ret_needed = false;
		return 0;
	}
	if (!stream)
		return error_set(error, errno, "cannot list the runtime's results in %s", results_dir);
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (!entry && errno != 0)
			return error_set(error, errno, "cannot list the runtime's results in %s", results_dir);
		if (!entry)
			break;
		cleanup_free char *path = NULL;
		bool names = false;
		if (entry->d_name[0] == '.')
			continue;
		if (file_join(results_dir, entry->d_name, error, &path) < 0)
			return -1;
		if (names_type(path, type, &names) < 0 || names) {
			*ret_needed = true;
			return 0;
		}
	}
	*ret_needed = false;
	return 0;
}
