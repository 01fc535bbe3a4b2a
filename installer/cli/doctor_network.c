/* What is on the node's disk and in its kernel of others: the primary CNI, an istio-cni. See doctor.c. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "installer/cli/doctor.h"
#include "installer/host/host.h"
#include "installer/host/migrate.h"
#include "installer/host/runtime_order.h"

/* The chain's types, "calico portmap ambient-cni". */
static void list_types(const struct runtime_file *file, char *text, size_t size, bool *ret_is_ours, bool *ret_is_istio)
{
	const cJSON *plugins = cJSON_GetObjectItemCaseSensitive(file->json, "plugins"), *plugin;
	size_t length = 0;
	text[0] = '\0';
	*ret_is_ours = *ret_is_istio = false;
	if (!cJSON_IsArray(plugins)) {
		const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file->json, "type"));
		snprintf(text, size, "%s", type ? type : "?");
		*ret_is_ours = type && strcmp(type, HOST_PLUGIN_NAME) == 0;
		return;
	}
	cJSON_ArrayForEach (plugin, plugins) {
		const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(plugin, "type"));
		*ret_is_ours |= type && strcmp(type, HOST_PLUGIN_NAME) == 0;
		*ret_is_istio |= type && strcmp(type, "istio-cni") == 0;
		int more = snprintf(text + length, size - length, "%s%s", length ? ", " : "", type ? type : "?");
		if (more < 0 || (size_t)more >= size - length)
			return;
		length += (size_t)more;
	}
}

static void look_at_choice(struct report *report, const struct runtime_directory *directory)
{
	const char *path = report->config->host.conf_dir;
	struct runtime_choice choice;
	char types[512];
	bool is_ours, is_istio;
	runtime_directory_choose(directory, &choice);
	if (choice.stops_at) {
		report_add(report, VERDICT_PROBLEM, "primary CNI",
			   "mend or remove that file: containerd has no network until then",
			   "%s/%s is not valid, and containerd stops at it: %s", path, choice.stops_at->name,
			   choice.stops_at->problem);
		return;
	}
	if (!choice.containerd && !choice.crio) {
		report_add(report, VERDICT_NOTE, "primary CNI",
			   "install the cluster's network (Calico, Cilium, ...); where one is installed: is this the runtime's "
			   "directory?",
			   "%s holds no network configuration yet: the plugin is chained to it when it comes", path);
		return;
	}
	const struct runtime_file *file = choice.containerd ? choice.containerd : choice.crio;
	list_types(file, types, sizeof types, &is_ours, &is_istio);
	report_add(report, VERDICT_WELL, "primary CNI", NULL, "%s/%s: %s%s", path, file->name, types,
		   is_ours ? "" : "; " HOST_PLUGIN_NAME " is not chained to it yet");
	if (choice.containerd && choice.crio && choice.containerd != choice.crio)
		report_add(report, VERDICT_NOTE, "primary CNI", "name the right one: --set host.confFile=FILE",
			   "containerd would use %s, CRI-O %s", choice.containerd->name, choice.crio->name);
	if (is_istio)
		report_add(report, VERDICT_NOTE, "istio-cni", NULL,
			   "istio-cni is chained in %s: the agent replaces it, and takes over its pods without a break",
			   file->name);
	if (file->owner == RUNTIME_FILE_TOOL)
		report_add(report, VERDICT_NOTE, "primary CNI", "name the cluster's: --set host.confFile=FILE",
			   "%s belongs to another tool than the kubelet's network", file->name);
	if (strstr(types, "cilium"))
		report_add(report, VERDICT_NOTE, "primary CNI", NULL,
			   "Cilium must be installed with cni.exclusive=false, or it takes the plugin out again and again");
}

void doctor_primary_cni(struct report *report)
{
	cleanup_runtime_directory struct runtime_directory directory = { 0 };
	struct error error = { 0 };
	if (!report->config->host.install) {
		report_add(report, VERDICT_NOTE, "primary CNI", NULL,
			   "host.install is false: plugin and configuration are left to "
			   "somebody else");
		return;
	}
	if (runtime_directory_read(report->config->host.conf_dir, &error, &directory) < 0) {
		if (error.number != ENOENT) /* told as a path already */
			report_add(report, VERDICT_PROBLEM, "primary CNI", NULL, "%s", error.message);
		return;
	}
	look_at_choice(report, &directory);
	for (size_t i = 0; i < directory.put_away_count; i++)
		report_add(report, VERDICT_NOTE, "primary CNI", "set cni.exclusive=false for Cilium",
			   "Cilium has put a configuration away: %s", directory.put_away[i]);
}

void doctor_istio_cni(struct report *report)
{
	const char *path = report->config->host.network_namespace;
	struct migrate_found found = { 0 };
	struct error error = { 0 };
	cleanup_close int netns = -1;
	if (netns_open(path[0] ? path : "/proc/thread-self/ns/net", &error, &netns) < 0 ||
	    migrate_detect(netns, MIGRATE_HOST, &error, &found) < 0) {
		report_add(report, VERDICT_NOTE, "istio-cni", NULL,
			   "what istio-cni may have left on the host can't be looked for: %s", error.message);
		return;
	}
	if (found.legacy)
		report_add(report, VERDICT_PROBLEM, "istio-cni", found.legacy_command,
			   "rules of istio-cni stand in the host's legacy iptables, which the agent can't take away");
	if (migrate_found_any(&found))
		report_add(report, VERDICT_NOTE, "istio-cni", NULL,
			   "rules or sets of istio-cni stand on the host: the agent takes their place");
	else if (!found.legacy)
		report_add(report, VERDICT_WELL, "istio-cni", NULL, "nothing of it is left on the host");
}
