/* The Container Network Interface: versions, error codes, CNI_ARGS and results (CNI specification 1.1.0). */
#ifndef AMBIENT_CNI_H
#define AMBIENT_CNI_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "ambient/error.h"

/* "Error Codes" of the specification; from 100 on ours. */
enum cni_code {
	CNI_OK = 0,
	CNI_INCOMPATIBLE_VERSION = 1,
	CNI_UNSUPPORTED_FIELD = 2,
	CNI_UNKNOWN_CONTAINER = 3, /* never on ADD: a runtime then takes it that nothing is to be cleaned up */
	CNI_INVALID_ENVIRONMENT = 4,
	CNI_IO_FAILURE = 5,
	CNI_DECODING_FAILURE = 6,
	CNI_INVALID_CONFIGURATION = 7,
	CNI_INVALID_NAMESPACE = 8, /* the host's own */
	CNI_TRY_AGAIN_LATER = 11,
	CNI_NOT_AVAILABLE = 50,	   /* STATUS */
	CNI_CANNOT_REDIRECT = 100, /* the kernel refused the rules */
	CNI_DIFFERENCE = 101,	   /* CHECK: the pod's rules are not what they should be */
	CNI_TUNNEL_REFUSED = 102,  /* the pod, or a family that it needs */
	CNI_INTERNAL = 999,
};

enum cni_version { CNI_0_3_0, CNI_0_3_1, CNI_0_4_0, CNI_1_0_0, CNI_1_1_0, CNI_VERSION_COUNT };
#define CNI_VERSION_CURRENT CNI_1_1_0

const char *cni_version_name(enum cni_version version);
/* false: a version that is not supported, or none. */
bool cni_version_parse(const char *text, enum cni_version *ret_version);

/* The value of a key in CNI_ARGS ("K=V;K=V", NULL for none), as a new string; NULL where it is absent or empty. Longer than any
 * Kubernetes name (253 characters) is an error. */
int cni_args_get(const char *args, const char *key, struct error *error, char **ret_value);

/* A result of any version up to 1.1.0 as a new one of `version`: the same where the versions share a type, else with the fields
 * that differ. `previous` is prevResult (without a cniVersion it has the configuration's), or NULL: then an empty result, as
 * the Go library writes one. What no runtime could read (`ips` that is no list, an address that is none) is an error. */
int cni_result_convert(const cJSON *previous, enum cni_version version, struct error *error, cJSON **ret_result);

#endif
