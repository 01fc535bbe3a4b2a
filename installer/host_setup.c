/* The options of installer/host/ from the installer's configuration. See host_setup.h. */
#include "installer/host_setup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

/* libcni's cache, which runtimes leave where it is by default. */
#define RESULTS_DIR "/var/lib/cni/results"

static cJSON *names_to_json(char **names, size_t count)
{
	cleanup_cjson cJSON *array = cJSON_CreateArray();
	for (size_t i = 0; i < count; i++)
		if (!cJSON_AddItemToArray(array, cJSON_CreateString(names[i])))
			return NULL;
	return steal_pointer(array);
}

/* No credentials, no addresses of servers: the plugin asks the node agent, which it finds by runDir. */
static cJSON *make_plugin(const struct installer_config *config)
{
	cleanup_cjson cJSON *plugin = cJSON_CreateObject();
	cJSON *names = names_to_json(config->exclude_namespaces, config->exclude_namespaces_count);
	char prefix[512];
	snprintf(prefix, sizeof prefix, "%s-", config->daemon_set_name);
	if (!names || !cJSON_AddItemToObject(plugin, "excludeNamespaces", names)) {
		cJSON_Delete(names);
		return NULL;
	}
	if (!cJSON_AddStringToObject(plugin, "enrollment", "installer") ||
	    !cJSON_AddStringToObject(plugin, "runDir", config->run_dir) ||
	    !cJSON_AddStringToObject(plugin, "systemNamespace", config->system_namespace) ||
	    !cJSON_AddStringToObject(plugin, "installerNamespace", config->installer_namespace) ||
	    !cJSON_AddStringToObject(plugin, "installerPodPrefix", prefix) ||
	    !cJSON_AddStringToObject(plugin, "whenAway", config->when_away == WHEN_AWAY_CLOSED ? "closed" : "outside") ||
	    !cJSON_AddStringToObject(plugin, "logLevel", log_level_name(config->log.level)))
		return NULL;
	return steal_pointer(plugin);
}

/* The host is mounted where its configurations are: below /host, or below whatever stands before /etc/cni/net.d. */
static char *results_dir(const char *conf_dir)
{
	static const char mount[] = "/host/", standard[] = "/etc/cni/net.d";
	size_t length = strlen(conf_dir), prefix = 0;
	char *path = NULL;
	if (strncmp(conf_dir, mount, strlen(mount)) == 0)
		prefix = strlen(mount) - 1;
	else if (length > strlen(standard) && strcmp(conf_dir + length - strlen(standard), standard) == 0)
		prefix = length - strlen(standard);
	return asprintf(&path, "%.*s" RESULTS_DIR, (int)prefix, conf_dir) < 0 ? NULL : path;
}

int host_setup_make(const struct installer_config *config, struct error *error, struct host_setup *ret_setup)
{
	cleanup_host_setup struct host_setup setup = { .plugin = make_plugin(config) };
	setup.results_dir = results_dir(config->host.conf_dir);
	if (!setup.plugin || !setup.results_dir)
		return error_set(error, ENOMEM, "cannot make the options of the host");
	setup.options = (struct host_options){
		.bin_dir = config->host.bin_dir,
		.conf_dir = config->host.conf_dir,
		.bin_source = config->host.bin_source,
		.conf_file = config->host.conf_file,
		.conf_mode = config->host.conf_mode,
		.chained = config->host.chained,
		.own_config = config->host.own_config,
		.own_config_file = config->host.own_config_file,
		.plugin = setup.plugin,
		.results_dir = setup.results_dir,
	};
	*ret_setup = setup;
	setup = (struct host_setup){ 0 };
	return 0;
}

void host_setup_clear(struct host_setup *setup)
{
	cJSON_Delete(setup->plugin);
	free(setup->results_dir);
	*setup = (struct host_setup){ 0 };
}
