/* The installer's configuration: every key of docs/configuration.md as a plain struct, and where each value came from.
 *
 * A key's value is looked for in `--set`, then the file, then (for a few) the environment, then the default. config_keys.c
 * holds the table of keys, which is the one place that names them: reading, warnings, `ambient-installer config` and the
 * reference all walk it. */
#ifndef AMBIENT_INSTALLER_CONFIG_H
#define AMBIENT_INSTALLER_CONFIG_H

#include <cjson/cJSON.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "ambient/error.h"
#include "ambient/log.h"
#include "ambient/redirect.h"
#include "installer/mesh/selection.h"

enum installer_source { INSTALLER_SOURCE_KUBERNETES, INSTALLER_SOURCE_FOLDER };
enum when_away { WHEN_AWAY_OUTSIDE, WHEN_AWAY_CLOSED };
enum aws_branch_eni { AWS_BRANCH_ENI_AUTO, AWS_BRANCH_ENI_OFF };

/* Where to listen. */
struct listen_address {
	bool is_on;		     /* false: the text is empty */
	char *text;		     /* as given: ":8000", "127.0.0.1:15000", "[::1]:15000" */
	char host[INET6_ADDRSTRLEN]; /* an address, never a name; empty: all addresses of both families */
	uint16_t port;		     /* 0: the kernel chooses one */
};

/* Where a value came from. */
enum config_origin_kind { CONFIG_ORIGIN_DEFAULT, CONFIG_ORIGIN_ENVIRONMENT, CONFIG_ORIGIN_FILE, CONFIG_ORIGIN_SET };
struct config_origin {
	enum config_origin_kind kind;
	size_t line;	      /* in the file; 0: not known */
	const char *variable; /* of the environment; static */
};

/* Every string is there, empty where there is none. Everything is owned by the struct. */
struct installer_config {
	enum installer_source source;
	char *source_folder; /* the PATH of folder:PATH */
	char *kubeconfig;    /* empty: in cluster */
	char *node_name;
	char *system_namespace;
	char *installer_namespace;
	char *daemon_set_name;
	char **exclude_namespaces;
	size_t exclude_namespaces_count;
	struct enablement_selectors enablement_selectors;
	struct redirect redirect;
	bool allow_pod_exclusions;
	long release_drain_seconds;
	enum when_away when_away;
	char *run_dir;
	char *remove_taint;
	enum aws_branch_eni aws_branch_eni;
	bool safe_upgrade;
	char *tunnel_socket;
	struct {
		char *bin_dir;
		char *conf_dir;
		char *proc_dir;
		char *netns_dir;
		char *bin_source;
		char *conf_file; /* empty: the first one that the runtime would use */
		bool install;
		mode_t conf_mode;
		bool chained;
		bool own_config;
		char *own_config_file;
		char *network_namespace; /* empty: our own */
	} host;
	struct {
		struct listen_address health;
		struct listen_address metrics;
		struct listen_address admin;
	} listen;
	struct {
		enum log_level level;
		enum log_format format;
	} log;

	/* From the environment alone; empty where not set. */
	char *pod_name;
	char *pod_namespace;
	char *kubernetes_service_host;
	char *kubernetes_service_port;

	/* Sentences for the log: unknown keys. */
	char **warnings;
	size_t warnings_count;

	/* What `config` prints: the file's name (empty: none), and for each key of the table its value and where it is from. */
	char *path;
	size_t keys_count;
	cJSON **values;
	struct config_origin *origins;
};

struct installer_config_sources {
	const char *path;	/* of --config; NULL: no file */
	const char *const *set; /* each KEY=VALUE of --set, the last one of a key wins */
	size_t set_count;
	const char *(*environment)(const char *name); /* NULL: the process's own */
};

/* Reads everything. A wrong type or value, or a file that can't be read, is an error that says where and what was expected;
 * an unknown key is a warning in the struct. */
int installer_config_load(const struct installer_config_sources *sources, struct error *error,
			  struct installer_config *ret_config);
void installer_config_clear(struct installer_config *config); /* a zeroed struct is fine */
#define cleanup_installer_config __attribute__((cleanup(installer_config_clear)))

/* What decides which pods belong to the mesh; borrows from the configuration. */
struct selection installer_config_selection(const struct installer_config *config);

/* {"file": PATH or null, "settings": {"host.binDir": {"value": ..., "origin": "default|environment|file|set", "line": N,
 * "variable": NAME}, ...}, "warnings": [...]}; NULL when there is no memory. */
cJSON *installer_config_to_json(const struct installer_config *config);

/* The same as lines for people. */
void installer_config_print(const struct installer_config *config, FILE *out);

/* The reference, docs/configuration.md, from the table alone. */
void installer_config_print_reference(FILE *out);

#endif
