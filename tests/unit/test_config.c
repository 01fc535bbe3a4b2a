/* The installer's configuration: where a value comes from and which one wins, what is refused and with which sentence, what is
 * printed, and the reference in docs/. */
#include "tests/unit/cmocka_headers.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "installer/cli/options.h"
#include "installer/config.h"

/* A file of the test's own, removed at the end of the scope. */
struct temporary {
	char path[64];
};

static void temporary_remove(struct temporary *file)
{
	unlink(file->path);
}

static struct temporary temporary_new(const char *text)
{
	struct temporary file = { .path = "/tmp/ambient-config-XXXXXX" };
	cleanup_close int fd = mkstemp(file.path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	return file;
}
#define cleanup_temporary __attribute__((cleanup(temporary_remove)))

static const char *empty_environment(const char *name)
{
	(void)name;
	return NULL;
}

static const char *full_environment(const char *name)
{
	static const char *const variables[][2] = {
		{ "NODE_NAME", "node-7" },
		{ "POD_NAME", "istio-cni-node-x" },
		{ "POD_NAMESPACE", "mesh" },
		{ "KUBERNETES_SERVICE_HOST", "10.96.0.1" },
		{ "KUBERNETES_SERVICE_PORT", "443" },
		{ "RUN_DIR", "/wrong" },
		{ "AMBIENT_RUN_DIR", "/wrong" },
	};
	for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
		if (strcmp(variables[i][0], name) == 0)
			return variables[i][1];
	return NULL;
}

static int load(const char *path, const char *const *set, size_t set_count, const char *(*environment)(const char *),
		struct error *error, struct installer_config *config)
{
	const struct installer_config_sources sources = { path, set, set_count, environment };
	return installer_config_load(&sources, error, config);
}

static void load_text(const char *text, struct installer_config *config)
{
	struct error error = { 0 };
	cleanup_temporary struct temporary file = temporary_new(text);
	if (load(file.path, NULL, 0, empty_environment, &error, config) < 0)
		fail_msg("%s", error.message);
}

static void load_set(const char *set, struct installer_config *config)
{
	struct error error = { 0 };
	if (load(NULL, &set, 1, empty_environment, &error, config) < 0)
		fail_msg("%s: %s", set, error.message);
}

static cJSON *values_of(const struct installer_config *config)
{
	cJSON *json = installer_config_to_json(config), *setting;
	assert_non_null(json);
	cJSON *values = cJSON_CreateObject();
	cJSON_ArrayForEach (setting, cJSON_GetObjectItem(json, "settings"))
		cJSON_AddItemToObject(values, setting->string,
				      cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(setting, "value"), true));
	cJSON_Delete(json);
	return values;
}

static void defaults_are_the_contract(void **state)
{
	(void)state;
	cleanup_installer_config struct installer_config config = { 0 };
	cleanup_redirect struct redirect redirect;
	char host[256];
	struct error error = { 0 };
	assert_int_equal(load(NULL, NULL, 0, empty_environment, &error, &config), 0);
	assert_int_equal(config.source, INSTALLER_SOURCE_KUBERNETES);
	assert_string_equal(config.source_folder, "");
	assert_string_equal(config.kubeconfig, "");
	gethostname(host, sizeof host);
	assert_int_equal(strcasecmp(config.node_name, host), 0);
	assert_string_equal(config.system_namespace, "istio-system");
	assert_string_equal(config.installer_namespace, "istio-system");
	assert_string_equal(config.daemon_set_name, "istio-cni-node");
	assert_int_equal(config.exclude_namespaces_count, 1);
	assert_string_equal(config.exclude_namespaces[0], "kube-system");
	redirect_init(&redirect);
	assert_true(redirect_equal(&config.redirect, &redirect));
	assert_false(config.allow_pod_exclusions);
	assert_int_equal(config.release_drain_seconds, 300);
	assert_int_equal(config.when_away, WHEN_AWAY_OUTSIDE);
	assert_string_equal(config.run_dir, "/var/run/ambient-cni");
	assert_string_equal(config.remove_taint, "");
	assert_int_equal(config.aws_branch_eni, AWS_BRANCH_ENI_AUTO);
	assert_true(config.safe_upgrade);
	assert_string_equal(config.tunnel_socket, "/var/run/ztunnel/ztunnel.sock");
	assert_string_equal(config.host.bin_dir, "/host/opt/cni/bin");
	assert_string_equal(config.host.conf_dir, "/host/etc/cni/net.d");
	assert_string_equal(config.host.proc_dir, "/host/proc");
	assert_string_equal(config.host.netns_dir, "/host/var/run/netns");
	assert_string_equal(strrchr(config.host.bin_source, '/'), "/tests"); /* where this program is */
	assert_string_equal(config.host.conf_file, "");
	assert_true(config.host.install && config.host.chained && !config.host.own_config);
	assert_int_equal(config.host.conf_mode, 0600);
	assert_string_equal(config.host.own_config_file, "02-ambient-cni.conflist");
	assert_string_equal(config.host.network_namespace, "");
	assert_true(config.listen.health.is_on && config.listen.metrics.is_on && config.listen.admin.is_on);
	assert_string_equal(config.listen.health.host, "");
	assert_int_equal(config.listen.health.port, 8000);
	assert_int_equal(config.listen.metrics.port, 15014);
	assert_string_equal(config.listen.admin.host, "127.0.0.1");
	assert_int_equal(config.listen.admin.port, 15000);
	assert_int_equal(config.log.level, LOG_LEVEL_INFO);
	assert_int_equal(config.log.format, LOG_FORMAT_TEXT);
	assert_string_equal(config.pod_name, "");
	assert_string_equal(config.kubernetes_service_host, "");
	assert_int_equal(config.warnings_count, 0);
}

/* Every key, none with its default. */
static const char everything[] = "source: folder:/srv/objects\n"
				 "kubeconfig: /root/.kube/config\n"
				 "nodeName: node-1\n"
				 "systemNamespace: a\n"
				 "installerNamespace: b\n"
				 "daemonSetName: c\n"
				 "excludeNamespaces: [x, y]\n"
				 "enablementSelectors: [{podSelector: {matchLabels: {a: b}}}]\n"
				 "redirect:\n"
				 "  ipv6: false\n"
				 "  dnsCapture: false\n"
				 "  bypassInbound: true\n"
				 "  virtualInterfaces: [net1]\n"
				 "  existingConnections: reset\n"
				 "  hostProbe: {ipv4: 192.0.2.1, ipv6: \"2001:db8::1\"}\n"
				 "  exclude:\n"
				 "    outboundPorts: [80, 90-100]\n"
				 "    outboundRanges: [10.0.0.0/8]\n"
				 "    inboundPorts: [22]\n"
				 "    interfaces: [eth1]\n"
				 "allowPodExclusions: true\n"
				 "releaseDrainSeconds: 0\n"
				 "whenAway: closed\n"
				 "runDir: /run/x\n"
				 "removeTaint: example.com/not-ready\n"
				 "awsBranchEni: \"off\"\n"
				 "safeUpgrade: false\n"
				 "tunnelSocket: /run/t.sock\n"
				 "host:\n"
				 "  binDir: /a\n"
				 "  confDir: /b\n"
				 "  procDir: /c\n"
				 "  netnsDir: /d\n"
				 "  binSource: /e\n"
				 "  confFile: 10-x.conflist\n"
				 "  install: false\n"
				 "  confMode: \"0644\"\n"
				 "  chained: false\n"
				 "  ownConfig: true\n"
				 "  ownConfigFile: 01-y.conflist\n"
				 "  networkNamespace: /proc/1/ns/net\n"
				 "listen:\n"
				 "  health: \"10.0.0.1:1\"\n"
				 "  metrics: \"\"\n"
				 "  admin: \"[::1]:3\"\n"
				 "log: {level: debug, format: json}\n";

static void every_key_is_read(void **state)
{
	(void)state;
	cleanup_installer_config struct installer_config config = { 0 };
	load_text(everything, &config);
	assert_int_equal(config.source, INSTALLER_SOURCE_FOLDER);
	assert_string_equal(config.source_folder, "/srv/objects");
	assert_string_equal(config.kubeconfig, "/root/.kube/config");
	assert_string_equal(config.node_name, "node-1");
	assert_string_equal(config.system_namespace, "a");
	assert_string_equal(config.installer_namespace, "b");
	assert_string_equal(config.daemon_set_name, "c");
	assert_int_equal(config.exclude_namespaces_count, 2);
	assert_string_equal(config.exclude_namespaces[1], "y");
	assert_int_equal(config.enablement_selectors.count, 1);
	assert_false(config.redirect.ipv6);
	assert_false(config.redirect.dns_capture);
	assert_true(config.redirect.bypass_inbound);
	assert_string_equal(config.redirect.virtual_interfaces[0], "net1");
	assert_int_equal(config.redirect.existing_connections, EXISTING_CONNECTIONS_RESET);
	assert_int_equal(ntohl(config.redirect.host_probe_ipv4.s_addr), 0xc0000201);
	assert_int_equal(config.redirect.host_probe_ipv6.s6_addr[15], 1);
	assert_int_equal(config.redirect.exclude.outbound_ports_count, 2);
	assert_int_equal(config.redirect.exclude.outbound_ranges_count, 1);
	assert_int_equal(config.redirect.exclude.inbound_ports[0].first, 22);
	assert_string_equal(config.redirect.exclude.interfaces[0], "eth1");
	assert_true(config.allow_pod_exclusions);
	assert_int_equal(config.release_drain_seconds, 0);
	assert_int_equal(config.when_away, WHEN_AWAY_CLOSED);
	assert_string_equal(config.run_dir, "/run/x");
	assert_string_equal(config.remove_taint, "example.com/not-ready");
	assert_int_equal(config.aws_branch_eni, AWS_BRANCH_ENI_OFF);
	assert_false(config.safe_upgrade);
	assert_string_equal(config.tunnel_socket, "/run/t.sock");
	assert_string_equal(config.host.bin_dir, "/a");
	assert_string_equal(config.host.conf_dir, "/b");
	assert_string_equal(config.host.proc_dir, "/c");
	assert_string_equal(config.host.netns_dir, "/d");
	assert_string_equal(config.host.bin_source, "/e");
	assert_string_equal(config.host.conf_file, "10-x.conflist");
	assert_true(!config.host.install && !config.host.chained && config.host.own_config);
	assert_int_equal(config.host.conf_mode, 0644);
	assert_string_equal(config.host.own_config_file, "01-y.conflist");
	assert_string_equal(config.host.network_namespace, "/proc/1/ns/net");
	assert_string_equal(config.listen.health.host, "10.0.0.1");
	assert_false(config.listen.metrics.is_on);
	assert_string_equal(config.listen.admin.host, "::1");
	assert_int_equal(config.listen.admin.port, 3);
	assert_int_equal(config.log.level, LOG_LEVEL_DEBUG);
	assert_int_equal(config.log.format, LOG_FORMAT_JSON);
	assert_int_equal(config.warnings_count, 0);

	/* That no key of the table was left out above. */
	cleanup_cjson cJSON *json = installer_config_to_json(&config);
	const cJSON *setting;
	cJSON_ArrayForEach (setting, cJSON_GetObjectItem(json, "settings")) {
		if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(setting, "origin")), "file") != 0)
			fail_msg("%s is not in the test's file", setting->string);
		assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(setting, "line")) >= 1);
	}
	assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(
				 cJSON_GetObjectItem(cJSON_GetObjectItem(json, "settings"), "host.chained"), "line")),
			 38);
}

static void what_is_printed_is_a_configuration(void **state)
{
	(void)state;
	cleanup_installer_config struct installer_config first = { 0 }, second = { 0 };
	cleanup_free char *text = NULL;
	size_t length;
	load_text(everything, &first);
	FILE *out = open_memstream(&text, &length);
	installer_config_print(&first, out);
	fclose(out);
	assert_non_null(strstr(text, "host.chained: false"));
	assert_non_null(strstr(text, ", line 38\n"));
	load_text(text, &second);
	cleanup_cjson cJSON *first_values = values_of(&first), *second_values = values_of(&second);
	assert_true(cJSON_Compare(first_values, second_values, true));
	assert_true(redirect_equal(&first.redirect, &second.redirect));
}

static void the_last_word_wins(void **state)
{
	(void)state;
	cleanup_installer_config struct installer_config config = { 0 };
	cleanup_temporary struct temporary file =
		temporary_new("nodeName: from-file\nrunDir: /file\ninstallerNamespace: \"\"\nkubeconfig:\nlog: {level: warn}\n"
			      "redirect:\n  ipv6: false\n  exclude: {outboundPorts: [1], inboundPorts: [2]}\nhost:\n");
	static const char *const set[] = {
		"runDir=/first",
		"runDir=/second",
		"daemonSetName=123",
		"redirect={\"bypassInbound\":true,\"exclude\":{\"outboundPorts\":[7,\"8-9\"]}}",
		"redirect.dnsCapture=false",
		"excludeNamespaces=[\"a\",\"b\"]",
		"releaseDrainSeconds=5",
		"listen.metrics=",
		"host.confMode=0640",
		"removeTaint=a=b",
	};
	struct error error = { 0 };
	if (load(file.path, set, sizeof set / sizeof set[0], full_environment, &error, &config) < 0)
		fail_msg("%s", error.message);
	assert_string_equal(config.node_name, "from-file");
	assert_string_equal(config.run_dir, "/second");
	assert_string_equal(config.daemon_set_name, "123");
	assert_string_equal(config.installer_namespace, "mesh"); /* empty is absent, then comes the environment */
	assert_string_equal(config.kubeconfig, "");
	assert_int_equal(config.log.level, LOG_LEVEL_WARN);
	/* An object sets the keys that are in it, no others. */
	assert_false(config.redirect.ipv6);
	assert_true(config.redirect.bypass_inbound);
	assert_false(config.redirect.dns_capture);
	assert_int_equal(config.redirect.exclude.outbound_ports_count, 2);
	assert_int_equal(config.redirect.exclude.inbound_ports[0].first, 2);
	assert_string_equal(config.exclude_namespaces[1], "b");
	assert_int_equal(config.release_drain_seconds, 5);
	assert_false(config.listen.metrics.is_on);
	assert_int_equal(config.host.conf_mode, 0640);
	assert_string_equal(config.remove_taint, "a=b");
	assert_string_equal(config.pod_name, "istio-cni-node-x");
	assert_string_equal(config.pod_namespace, "mesh");
	assert_string_equal(config.kubernetes_service_host, "10.96.0.1");
	assert_string_equal(config.kubernetes_service_port, "443");

	cleanup_cjson cJSON *json = installer_config_to_json(&config);
	const cJSON *settings = cJSON_GetObjectItem(json, "settings");
	static const char *const origins[][2] = {
		{ "nodeName", "{\"value\":\"from-file\",\"origin\":\"file\",\"line\":1}" },
		{ "runDir", "{\"value\":\"/second\",\"origin\":\"set\"}" },
		{ "installerNamespace", "{\"value\":\"mesh\",\"origin\":\"environment\",\"variable\":\"POD_NAMESPACE\"}" },
		{ "whenAway", "{\"value\":\"outside\",\"origin\":\"default\"}" },
		{ "redirect.exclude.inboundPorts", "{\"value\":[2],\"origin\":\"file\",\"line\":8}" },
	};
	for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++) {
		cleanup_free char *found = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(settings, origins[i][0]));
		assert_string_equal(found, origins[i][1]);
	}
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "file")), file.path);
}

static void a_json_file_is_read_too(void **state)
{
	(void)state;
	cleanup_installer_config struct installer_config config = { 0 };
	load_text("{\n\t\"host\": {\"binDir\": \"/x\"},\n\t\"removeTaint\": \"\\ud83d\\ude00\"\n}\n", &config);
	assert_string_equal(config.host.bin_dir, "/x");
	assert_string_equal(config.remove_taint, "\U0001f600");
}

static void an_empty_file_means_defaults(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "---\n", "# nothing here\n", "{}" };
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		cleanup_installer_config struct installer_config config = { 0 };
		load_text(texts[i], &config);
		assert_int_equal(config.release_drain_seconds, 300);
	}
}

/* A text, and the sentence after the file's name. */
static const char *const refused_files[][2] = {
	{ "host:\n  chained: yes\n", ", line 2: host.chained: expected true or false, found \"yes\"" },
	{ "a: 1\nhost:\n  chained:\n    - 1\n", ", line 3: host.chained: expected true or false, found [1]" },
	{ "nodeName: 123\n", ", line 1: nodeName: expected a name of lower-case letters, digits, '-' and '.', found 123" },
	{ "nodeName: UPPER\n", ", line 1: nodeName: expected a name" },
	{ "systemNamespace: ''\n", ", line 1: systemNamespace: expected a name" },
	{ "host: [1]\n", ", line 1: host: expected an object, found [1]" },
	{ "redirect:\n  hostProbe: 3\n", ", line 2: redirect.hostProbe: expected an object, found 3" },
	{ "[1, 2]\n", ", line 1: expected keys and values, found [1,2]" },
	{ "just a text\n", ", line 1: expected keys and values, found \"just a text\"" },
	{ "a: 1\n---\nb: 2\n", ", line 3: a second document, expected one" },
	{ "a: 1\na: 2\n", ", line 2: the key \"a\" is there already, on line 1" },
	{ "host: {chained: true}\nhost.chained: false\n", ", line 2: the key \"host.chained\" is there already, on line 1" },
	{ "a: [\n", ", line 2 column 1: " },
	{ "source: folder:\n", ", line 1 column 15: mapping values are not allowed" },
	{ "source: 'folder:'\n", ", line 1: source: expected \"kubernetes\" or \"folder:PATH\", found \"folder:\"" },
	{ "source: api\n", ", line 1: source: expected \"kubernetes\" or \"folder:PATH\", found \"api\"" },
	{ "runDir: run\n", ", line 1: runDir: expected an absolute path of at most 88 bytes, found \"run\"" },
	{ "runDir: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
	  ", line 1: runDir: expected an absolute path of at most 88 bytes" },
	{ "host: {binDir: ''}\n", ", line 1: host.binDir: expected an absolute path, found \"\"" },
	{ "host: {confFile: a/b}\n", ", line 1: host.confFile: expected a file name without directories, or nothing" },
	{ "host: {ownConfigFile: ..}\n", ", line 1: host.ownConfigFile: expected a file name without directories, found" },
	{ "whenAway: open\n", ", line 1: whenAway: expected \"outside\" or \"closed\", found \"open\"" },
	{ "awsBranchEni: off\nsafeUpgrade: off\n", ", line 2: safeUpgrade: expected true or false, found \"off\"" },
	{ "log: {level: verbose}\n", ", line 1: log.level: expected \"debug\", \"info\", \"warn\" or \"error\", found" },
	{ "releaseDrainSeconds: -1\n", ", line 1: releaseDrainSeconds: expected an integer from 0 to 86400, found -1" },
	{ "releaseDrainSeconds: 1.5\n", ", line 1: releaseDrainSeconds: expected an integer" },
	{ "releaseDrainSeconds: 1e30\n", ", line 1: releaseDrainSeconds: expected an integer" },
	{ "releaseDrainSeconds: '5'\n", ", line 1: releaseDrainSeconds: expected an integer" },
	{ "host: {confMode: 384}\n", ", line 1: host.confMode: expected an octal mode" }, /* 0600 in decimal */
	{ "host: {confMode: 420}\n", ", line 1: host.confMode: expected an octal mode" }, /* 0644 in decimal */
	{ "host: {confMode: 0o644}\n", ", line 1: host.confMode: expected an octal mode" },
	{ "host: {confMode: '0666'}\n", ", line 1: host.confMode: expected an octal mode" },
	{ "host: {confMode: '00600'}\n", ", line 1: host.confMode: expected an octal mode" },
	{ "listen: {health: 8000}\n", ", line 1: listen.health: expected ADDRESS:PORT or :PORT" },
	{ "listen: {health: ':'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {health: ':65536'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {health: ':+1'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {health: '::1:80'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {health: '[::1:80'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {health: '[]:80'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {health: '[10.0.0.1]:80'}\n", ", line 1: listen.health: expected ADDRESS:PORT" },
	{ "listen: {metrics: 'localhost:80'}\n", ", line 1: listen.metrics: expected ADDRESS:PORT" },
	{ "listen: {admin: ':15000'}\n", ", line 1: listen.admin: expected a loopback ADDRESS:PORT" },
	{ "listen: {admin: '10.0.0.1:15000'}\n", ", line 1: listen.admin: expected a loopback ADDRESS:PORT" },
	{ "listen: {admin: '[fd00::1]:15000'}\n", ", line 1: listen.admin: expected a loopback ADDRESS:PORT" },
	{ "excludeNamespaces: kube-system\n", ", line 1: excludeNamespaces: expected a list of names" },
	{ "excludeNamespaces:\n- a\n- 7\n", ", line 3: excludeNamespaces[1]: expected a namespace's name, found 7" },
	{ "redirect:\n  exclude:\n    outboundPorts:\n      - 80\n      - x\n",
	  ", line 5: redirect.exclude.outboundPorts[1]: expected a port (1 to 65535) or a range \"a-b\", found \"x\"" },
	{ "redirect: {ipv6: 1}\n", ", line 1: redirect.ipv6: expected true or false, found a number" },
	{ "redirect:\n  hostProbe:\n    ipv4: 127.0.0.1\n", ", line 3: redirect.hostProbe.ipv4: expected a unicast IPv4" },
	{ "enablementSelectors: {}\n", ", line 1: enablementSelectors: expected a list of objects with podSelector" },
	{ "enablementSelectors:\n- podSelector:\n    matchExpressions:\n    - key: a\n      operator: Near\n",
	  ", line 5: enablementSelectors[0].podSelector.matchExpressions[0].operator: expected In, NotIn" },
	/* A typing error must not make a selector match everything. */
	{ "enablementSelectors:\n- {}\n- podSelektor: {}\n",
	  ", line 3: enablementSelectors[1].podSelektor: there is no such key; expected podSelector or namespaceSelector" },
	{ "enablementSelectors:\n- namespaceSelector:\n    matchLabel: {a: b}\n",
	  ", line 3: enablementSelectors[0].namespaceSelector.matchLabel: there is no such key" },
	{ "enablementSelectors:\n- podSelector:\n    matchExpressions:\n    - {key: a, operator: Exists, value: b}\n",
	  ", line 4: enablementSelectors[0].podSelector.matchExpressions[0].value: there is no such key; expected key, "
	  "operator or values" },
};

static void wrong_values_stop_the_start(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused_files / sizeof refused_files[0]; i++) {
		struct installer_config config = { 0 };
		struct error error = { 0 };
		cleanup_temporary struct temporary file = temporary_new(refused_files[i][0]);
		if (load(file.path, NULL, 0, empty_environment, &error, &config) != -1)
			fail_msg("%s was read", refused_files[i][0]);
		assert_null(config.values);
		size_t length = strlen(file.path);
		if (strncmp(error.message, file.path, length) != 0 ||
		    strncmp(error.message + length, refused_files[i][1], strlen(refused_files[i][1])) != 0)
			fail_msg("%s: \"%s\" is not \"FILE%s\"", refused_files[i][0], error.message, refused_files[i][1]);
	}
}

static const char *const refused_sets[][2] = {
	{ "host.chained", "--set host.chained: expected KEY=VALUE" },
	{ "=x", "--set =x: expected KEY=VALUE" },
	{ "host.chained=yes", "--set: host.chained: expected true or false, found \"yes\"" },
	{ "host.chained=", "--set: host.chained: expected true or false, found \"\"" },
	{ "host.chained=null", "--set: host.chained: expected true or false, found null" },
	{ "host=x", "--set: host: expected an object, found \"x\"" },
	{ "excludeNamespaces=a", "--set: excludeNamespaces: expected a list of names ([\"a\", \"b\"]), found \"a\"" },
	{ "redirect.exclude.inboundPorts=[0]", "--set: redirect.exclude.inboundPorts[0]: expected a port" },
	{ "redirect.existingConnections=cut", "--set: redirect.existingConnections: expected \"keep\" or \"reset\"" },
};

static const char *bad_environment(const char *name)
{
	return strcmp(name, "NODE_NAME") == 0 ? "not a name" : NULL;
}

static void wrong_sets_and_variables_too(void **state)
{
	(void)state;
	struct installer_config config = { 0 };
	for (size_t i = 0; i < sizeof refused_sets / sizeof refused_sets[0]; i++) {
		struct error error = { 0 };
		assert_int_equal(load(NULL, &refused_sets[i][0], 1, empty_environment, &error, &config), -1);
		if (strncmp(error.message, refused_sets[i][1], strlen(refused_sets[i][1])) != 0)
			fail_msg("%s: \"%s\" is not \"%s\"", refused_sets[i][0], error.message, refused_sets[i][1]);
	}
	struct error error = { 0 };
	assert_int_equal(load(NULL, NULL, 0, bad_environment, &error, &config), -1);
	assert_non_null(strstr(error.message, "environment variable NODE_NAME: nodeName: expected a name"));
	error = (struct error){ 0 };
	assert_int_equal(load("/nonexistent/x.yaml", NULL, 0, empty_environment, &error, &config), -1);
	assert_string_equal(error.message, "cannot read /nonexistent/x.yaml: No such file or directory");
}

static void unknown_keys_are_warnings(void **state)
{
	(void)state;
	static const char *const warnings[] = {
		", line 1: the key \"nodename\" is not known and is passed over; did you mean \"nodeName\"?",
		", line 3: the key \"host.chaned\" is not known and is passed over; did you mean \"host.chained\"?",
		", line 4: the key \"host.newThing\" is not known and is passed over",
		", line 5: the key \"hots\" is not known and is passed over; did you mean \"host\"?",
		", line 6: the key \"confDir\" is not known and is passed over; did you mean \"host.confDir\"?",
		", line 7: the key \"somethingElseEntirely\" is not known and is passed over",
	};
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	cleanup_temporary struct temporary file = temporary_new("nodename: x\nhost:\n  chaned: 1\n  newThing: {a: 1}\nhots: 1\n"
								"confDir: 1\nsomethingElseEntirely: null\n");
	const char *set = "host.bindir=/x";
	assert_int_equal(load(file.path, &set, 1, empty_environment, &error, &config), 0);
	assert_int_equal(config.warnings_count, 7);
	for (size_t i = 0; i < 6; i++)
		assert_string_equal(config.warnings[i] + strlen(file.path), warnings[i]);
	assert_string_equal(config.warnings[6],
			    "--set: the key \"host.bindir\" is not known and is passed over; did you mean \"host.binDir\"?");
	cleanup_cjson cJSON *json = installer_config_to_json(&config);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "warnings")), 7);
}

static void warnings_are_bounded(void **state)
{
	(void)state;
	cleanup_free char *text = NULL;
	size_t length;
	cleanup_installer_config struct installer_config config = { 0 };
	FILE *out = open_memstream(&text, &length);
	for (int i = 0; i < 5000; i++)
		fprintf(out, "k%d: 1\n", i);
	fclose(out);
	load_text(text, &config);
	assert_int_equal(config.warnings_count, 100);
}

static void modes_as_people_write_them(void **state)
{
	(void)state;
	static const char *const texts[] = { "0600", "600", "'0600'", "'600'" };
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		char text[64];
		cleanup_installer_config struct installer_config config = { 0 };
		snprintf(text, sizeof text, "host.confMode: %s\n", texts[i]);
		load_text(text, &config);
		assert_int_equal(config.host.conf_mode, 0600);
	}
	cleanup_installer_config struct installer_config config = { 0 };
	load_set("host.confMode=0440", &config);
	assert_int_equal(config.host.conf_mode, 0440);
}

static void options_are_taken(void **state)
{
	(void)state;
	cleanup_config_options struct config_options options = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	struct error error = { 0 };
	char *line[] = { "status", "--set", "runDir=/a", "-ojson", "a/b", "--all", "--set=runDir=/b", NULL };
	const char *operand = NULL;
	bool is_json = false, shows_all = false, is_forced = false;
	const struct command_option own[] = {
		OPTION_OUTPUT(&is_json),
		{ .name = "all", .letter = 'a', .is_given = &shows_all },
		{ .name = "force", .is_given = &is_forced },
		{ 0 },
	};
	assert_int_equal(options_parse(7, line, own, &options, &operand), 0);
	assert_true(is_json && shows_all && !is_forced);
	assert_string_equal(operand, "a/b");
	assert_int_equal(config_options_load(&options, &error, &config), 0);
	assert_string_equal(config.run_dir, "/b");
	/* Where no operand is expected, and no configuration read. */
	char *without[] = { "render", "-a", NULL }, *operands[] = { "render", "a/b", NULL },
	     *set[] = { "render", "--set", "a=b", NULL };
	assert_int_equal(options_parse(2, without, own, NULL, NULL), 0);
	assert_int_equal(options_parse(2, operands, own, NULL, NULL), -1);
	assert_int_equal(options_parse(3, set, own, NULL, NULL), -1);
}

/* build/ambient-installer config --reference > docs/configuration.md */
static void the_reference_is_up_to_date(void **state)
{
	(void)state;
	cleanup_free char *made = NULL, *committed = NULL;
	size_t length;
	struct error error = { 0 };
	FILE *out = open_memstream(&made, &length);
	installer_config_print_reference(out);
	fclose(out);
	if (file_read("docs/configuration.md", 1 << 20, &error, &committed, &length) < 0)
		fail_msg("%s", error.message);
	assert_string_equal(committed, made);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_contract),
		cmocka_unit_test(every_key_is_read),
		cmocka_unit_test(what_is_printed_is_a_configuration),
		cmocka_unit_test(the_last_word_wins),
		cmocka_unit_test(a_json_file_is_read_too),
		cmocka_unit_test(an_empty_file_means_defaults),
		cmocka_unit_test(wrong_values_stop_the_start),
		cmocka_unit_test(wrong_sets_and_variables_too),
		cmocka_unit_test(unknown_keys_are_warnings),
		cmocka_unit_test(warnings_are_bounded),
		cmocka_unit_test(modes_as_people_write_them),
		cmocka_unit_test(options_are_taken),
		cmocka_unit_test(the_reference_is_up_to_date),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
