/* The plugin's network configuration: what the runtime gives on standard input. */
#ifndef AMBIENT_PLUGIN_CONFIG_H
#define AMBIENT_PLUGIN_CONFIG_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "ambient/cni.h"
#include "ambient/error.h"
#include "ambient/log.h"
#include "ambient/redirect.h"

enum enrollment {
	ENROLLMENT_INSTALLER, /* ask the node agent */
	ENROLLMENT_ALWAYS,    /* redirect every pod and ask nobody */
};

/* Texts are borrowed from `json`, which the caller owns. */
struct plugin_config {
	enum cni_version cni_version;
	const char *name;
	enum enrollment enrollment;
	const char *run_dir;
	const char *installer_namespace, *installer_pod_prefix;
	const cJSON *exclude_namespaces; /* a list of strings, or NULL: kube-system */
	long timeout_seconds;
	bool waits_when_away; /* whenAway closed: also pods outside the mesh wait for the installer */
	enum log_level log_level;
	const char *log_file; /* empty: none */
	struct redirect redirect;
	const cJSON *previous_result;	/* NULL: none; not looked into, whatever it is */
	const cJSON *valid_attachments; /* GC; NULL: not given */
};

/* Reads everything but cniVersion, which plugin_config_version reads first. An error is one of code 7. */
int plugin_config_read(const cJSON *json, struct error *error, struct plugin_config *ret_config);
void plugin_config_clear(struct plugin_config *config);

/* A missing cniVersion means 0.1.0 (CNI specification), which can't be chained. On failure `ret_code` says which kind. */
int plugin_config_version(const cJSON *json, struct error *error, enum cni_version *ret_version, enum cni_code *ret_code);

bool plugin_config_excludes(const struct plugin_config *config, const char *namespace_name);

#endif
