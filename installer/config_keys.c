/* The table of the configuration's keys: the one place that names them. docs/configuration.md is made from it. */
#include "installer/config_keys.h"

#include <stddef.h>

#define MEMBER(member) .offset = offsetof(struct installer_config, member)

/* A socket's path has room for 107 bytes (unix(7)); the longest name below runDir, with what a new one is called while it
 * is made, takes the rest. */
#define SOCKET_PATH_MAX 107
#define RUN_DIR_MAX 88

#define DAY_SECONDS 86400

static const char *const when_away[] = { [WHEN_AWAY_OUTSIDE] = "outside", [WHEN_AWAY_CLOSED] = "closed", NULL };
static const char *const aws_branch_eni[] = { [AWS_BRANCH_ENI_AUTO] = "auto", [AWS_BRANCH_ENI_OFF] = "off", NULL };
static const char *const log_levels[] = {
	[LOG_LEVEL_DEBUG] = "debug", [LOG_LEVEL_INFO] = "info", [LOG_LEVEL_WARN] = "warn", [LOG_LEVEL_ERROR] = "error", NULL,
};
static const char *const log_formats[] = { [LOG_FORMAT_TEXT] = "text", [LOG_FORMAT_JSON] = "json", NULL };

const struct config_key config_keys[] = {
	{ "source", CONFIG_TYPE_SOURCE, MEMBER(source), .default_value = "\"kubernetes\"",
	  .description =
		  "Where pods and namespaces come from: the API server (in cluster, or by `kubeconfig`), or the YAML and "
		  "JSON files of a folder." },
	{ "kubeconfig", CONFIG_TYPE_OPTIONAL_PATH, MEMBER(kubeconfig), .default_value = "\"\"",
	  .description = "A kubeconfig file for the API server; empty: the service account that the pod was given." },
	{ "nodeName", CONFIG_TYPE_NAME, MEMBER(node_name), .default_words = "the host's name", .variable = "NODE_NAME",
	  .description = "The node whose pods are ours, as Kubernetes calls it." },
	{ "systemNamespace", CONFIG_TYPE_NAME, MEMBER(system_namespace), .default_value = "\"istio-system\"",
	  .description = "The namespace in which the tunnel runs." },
	{ "installerNamespace", CONFIG_TYPE_NAME, MEMBER(installer_namespace), .default_words = "`systemNamespace`",
	  .variable = "POD_NAMESPACE", .description = "The namespace in which this agent runs." },
	{ "daemonSetName", CONFIG_TYPE_NAME, MEMBER(daemon_set_name), .default_value = "\"istio-cni-node\"",
	  .description = "The DaemonSet that runs this agent." },
	{ "excludeNamespaces", CONFIG_TYPE_NAMES, MEMBER(exclude_namespaces), .default_value = "[\"kube-system\"]",
	  .description = "Namespaces whose pods are never in the mesh, whatever their labels." },
	{ "enablementSelectors", CONFIG_TYPE_SELECTORS, MEMBER(enablement_selectors),
	  .default_value = ENABLEMENT_SELECTORS_DEFAULT,
	  .description =
		  "A pod is in the mesh when one entry's `podSelector` and `namespaceSelector` both match; an absent one "
		  "matches all." },
	{ "redirect.ipv6", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "true", .expected = "true or false",
	  .description = "Redirect IPv6 too." },
	{ "redirect.dnsCapture", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "true", .expected = "true or false",
	  .description = "Redirect port 53 to the tunnel's DNS proxy; a pod's annotation may say otherwise." },
	{ "redirect.bypassInbound", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "false",
	  .expected = "true or false", .description = "Leave inbound traffic alone." },
	{ "redirect.virtualInterfaces", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "[]",
	  .expected = "a list of interfaces", .description = "Interfaces whose inbound traffic is treated as outbound." },
	{ "redirect.existingConnections", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "\"keep\"",
	  .expected = "`keep` or `reset`",
	  .description = "`keep`: only connections that open after enrolment are redirected; `reset`: running ones are cut." },
	{ "redirect.hostProbe.ipv4", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "\"169.254.7.127\"",
	  .expected = "an IPv4 address", .description = "The source address that this node's probes get." },
	{ "redirect.hostProbe.ipv6", CONFIG_TYPE_REDIRECT, MEMBER(redirect),
	  .default_value = "\"fd16:9254:7127:1337:ffff:ffff:ffff:ffff\"", .expected = "an IPv6 address",
	  .description = "The same for IPv6." },
	{ "redirect.exclude.outboundPorts", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "[]",
	  .expected = "a list of ports or ranges `\"a-b\"`", .description = "Ports that pods reach without the tunnel." },
	{ "redirect.exclude.outboundRanges", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "[]",
	  .expected = "a list of CIDRs", .description = "Addresses that pods reach without the tunnel." },
	{ "redirect.exclude.inboundPorts", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "[]",
	  .expected = "a list of ports or ranges `\"a-b\"`",
	  .description = "Ports of pods that are reached without the tunnel." },
	{ "redirect.exclude.interfaces", CONFIG_TYPE_REDIRECT, MEMBER(redirect), .default_value = "[]",
	  .expected = "a list of interfaces", .description = "Interfaces whose traffic is never redirected." },
	{ "allowPodExclusions", CONFIG_TYPE_BOOL, MEMBER(allow_pod_exclusions), .default_value = "false",
	  .description = "Whether pods may exclude ports, ranges and interfaces by annotation." },
	{ "releaseDrainSeconds", CONFIG_TYPE_INTEGER, MEMBER(release_drain_seconds), .minimum = 0, .maximum = DAY_SECONDS,
	  .default_value = "300",
	  .description =
		  "How long, at most, a released pod's open connections may go on through the tunnel; 0: they are cut." },
	{ "whenAway", CONFIG_TYPE_CHOICE, MEMBER(when_away), .choices = when_away, .default_value = "\"outside\"",
	  .description = "Which new pods the plugin lets start while this agent is away: those of namespaces last known to be "
			 "outside the mesh, or (`closed`) none of them." },
	{ "runDir", CONFIG_TYPE_PATH, MEMBER(run_dir), .maximum = RUN_DIR_MAX, .default_value = "\"/var/run/ambient-cni\"",
	  .description = "The directory of our sockets and of what is remembered, the same path for the plugin on the host." },
	{ "removeTaint", CONFIG_TYPE_TEXT, MEMBER(remove_taint), .default_value = "\"\"",
	  .description = "The key of a taint that is taken off our node when this agent is ready; empty: none." },
	{ "awsBranchEni", CONFIG_TYPE_CHOICE, MEMBER(aws_branch_eni), .choices = aws_branch_eni, .default_value = "\"auto\"",
	  .description =
		  "Whether the policy rules that pods with AWS branch interfaces need are kept where such pods are found." },
	{ "safeUpgrade", CONFIG_TYPE_BOOL, MEMBER(safe_upgrade), .default_value = "true",
	  .description = "Whether a stop keeps the plugin and its configuration on the node while our DaemonSet stands." },
	{ "tunnelSocket", CONFIG_TYPE_PATH, MEMBER(tunnel_socket), .maximum = SOCKET_PATH_MAX,
	  .default_value = "\"/var/run/ztunnel/ztunnel.sock\"",
	  .description = "The socket on which the tunnel finds us (ZDS)." },
	{ "host.binDir", CONFIG_TYPE_PATH, MEMBER(host.bin_dir), .default_value = "\"/host/opt/cni/bin\"",
	  .description = "The host's directory of CNI plugins, as this agent sees it." },
	{ "host.confDir", CONFIG_TYPE_PATH, MEMBER(host.conf_dir), .default_value = "\"/host/etc/cni/net.d\"",
	  .description = "The host's directory of CNI network configurations, as this agent sees it." },
	{ "host.procDir", CONFIG_TYPE_PATH, MEMBER(host.proc_dir), .default_value = "\"/host/proc\"",
	  .description = "The host's /proc, in which the network namespaces of running pods are found." },
	{ "host.netnsDir", CONFIG_TYPE_PATH, MEMBER(host.netns_dir), .default_value = "\"/host/var/run/netns\"",
	  .description = "The host's directory of named network namespaces." },
	{ "host.binSource", CONFIG_TYPE_PATH, MEMBER(host.bin_source), .default_words = "the directory of this program",
	  .description = "The directory that holds the plugin to install." },
	{ "host.confFile", CONFIG_TYPE_OPTIONAL_FILE, MEMBER(host.conf_file), .default_value = "\"\"",
	  .description = "The network configuration in `host.confDir` to add the plugin to; empty: the first that the runtime "
			 "would use." },
	{ "host.install", CONFIG_TYPE_BOOL, MEMBER(host.install), .default_value = "true",
	  .description = "Whether the plugin and its configuration are put on the host at all." },
	{ "host.confMode", CONFIG_TYPE_MODE, MEMBER(host.conf_mode), .default_value = "\"0600\"",
	  .description = "The mode of the network configuration." },
	{ "host.chained", CONFIG_TYPE_BOOL, MEMBER(host.chained), .default_value = "true",
	  .description =
		  "Whether the plugin is added to the configuration that is there; false: a configuration of its own, for "
		  "meta plugins such as multus." },
	{ "host.ownConfig", CONFIG_TYPE_BOOL, MEMBER(host.own_config), .default_value = "false",
	  .description =
		  "Whether the chain goes into a file of its own, first in order, instead of into the primary plugin's." },
	{ "host.ownConfigFile", CONFIG_TYPE_FILE_NAME, MEMBER(host.own_config_file),
	  .default_value = "\"02-ambient-cni.conflist\"",
	  .description =
		  "The name of that file in `host.confDir`, and of the one without a chain where `host.confFile` is empty." },
	{ "host.networkNamespace", CONFIG_TYPE_OPTIONAL_PATH, MEMBER(host.network_namespace), .default_value = "\"\"",
	  .description = "The host's network namespace, such as /host/proc/1/ns/net; empty: this agent runs in it." },
	{ "listen.health", CONFIG_TYPE_LISTEN, MEMBER(listen.health), .default_value = "\":8000\"",
	  .description = "Where `/healthz` and `/readyz` are served; empty: nowhere." },
	{ "listen.metrics", CONFIG_TYPE_LISTEN, MEMBER(listen.metrics), .default_value = "\":15014\"",
	  .description = "Where `/metrics` is served; empty: nowhere." },
	{ "listen.admin", CONFIG_TYPE_LISTEN_LOOPBACK, MEMBER(listen.admin), .default_value = "\"127.0.0.1:15000\"",
	  .description = "Where the status page, `/pods` and `/config` are served besides admin.sock; empty: nowhere else." },
	{ "log.level", CONFIG_TYPE_CHOICE, MEMBER(log.level), .choices = log_levels, .default_value = "\"info\"",
	  .description = "The least grave lines that are logged." },
	{ "log.format", CONFIG_TYPE_CHOICE, MEMBER(log.format), .choices = log_formats, .default_value = "\"text\"",
	  .description = "Log lines for people or for machines." },
};
const size_t config_keys_count = sizeof config_keys / sizeof config_keys[0];
