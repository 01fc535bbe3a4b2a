/* explain: one pod's story, from its labels to its annotation, the first thing that is wrong and the next command to run. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/admin_client.h"
#include "installer/cli/commands.h"
#include "installer/cli/diagnosis.h"
#include "installer/cli/policies.h"
#include "installer/cli/print.h"
#include "installer/cli/reach.h"
#include "installer/kube/client.h"
#include "installer/object.h"

#define PROBE_PORTS_MAX 8

__attribute__((format(printf, 3, 4))) static void step(const char *name, enum colour colour, const char *format, ...)
{
	char text[4096];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	printf("  %-11s %s%s%s\n", name, colour_begin(colour), text, colour_end(colour));
}

/* Those that have a say: of the mesh. */
static void print_labels(const char *name, const char *whose, const cJSON *labels)
{
	char text[2048] = "";
	size_t length = 0;
	const cJSON *label;
	cJSON_ArrayForEach (label, labels) {
		if (!strstr(label->string, "istio.io/") && !strstr(label->string, "ambient-cni.io/"))
			continue;
		int count = snprintf(text + length, sizeof text - length, "%s%s=%s", length ? ", " : "", label->string,
				     label->valuestring ? label->valuestring : "");
		if (count < 0 || (size_t)count >= sizeof text - length)
			break;
		length += (size_t)count;
	}
	step(name, COLOUR_NONE, "%s: %s", whose, length ? text : "none of the mesh");
}

static void print_rules(const cJSON *pod)
{
	const char *stage = json_text(pod, "rules.stage"), *difference = json_text(pod, "rules.difference");
	enum colour missing = json_truth(pod, "wanted") ? COLOUR_WAIT : COLOUR_NONE;
	if (difference[0])
		step("rules", COLOUR_BAD, "the kernel has something else than it should: %s", difference);
	else if (strcmp(stage, "full") == 0)
		step("rules", COLOUR_GOOD, "the redirection stands, as compared with the kernel just now");
	else if (strcmp(stage, "guard") == 0)
		step("rules", missing, "guard and routes stand, redirects do not");
	else
		step("rules", missing, "none");
}

static void print_packets(const cJSON *pod)
{
	char text[512] = "";
	size_t length = 0;
	const cJSON *count;
	cJSON_ArrayForEach (count, json_at(pod, "rules.packets")) {
		int more = snprintf(text + length, sizeof text - length, "%s%s %.0f", length ? ", " : "", count->string,
				    count->valuedouble);
		if (more < 0 || (size_t)more >= sizeof text - length)
			break;
		length += (size_t)more;
	}
	if (length)
		step("", COLOUR_SOFT, "first packets of connections so far: %s", text);
}

static void print_tunnel(const cJSON *pod)
{
	const cJSON *port;
	char text[512] = "";
	size_t length = 0;
	int connections = (int)json_number(pod, "tunnel.connections");
	if (json_truth(pod, "tunnel.acknowledged"))
		step("tunnel", COLOUR_GOOD, "it has accepted the pod as %s, service account %s", json_text(pod, "namespace"),
		     json_text(pod, "serviceAccount"));
	else
		step("tunnel", json_truth(pod, "wanted") ? COLOUR_WAIT : COLOUR_NONE, "%s",
		     connections == 0 ? "none is connected" : "it has not accepted the pod");
	cJSON_ArrayForEach (port, json_at(pod, "tunnel.listening")) {
		const char *families = port->valuestring ? port->valuestring : "";
		int more = snprintf(text + length, sizeof text - length, "%s%s %s%s%s", length ? ", " : "", port->string,
				    families[0] ? "(" : "", families[0] ? families : "not", families[0] ? ")" : "");
		if (more < 0 || (size_t)more >= sizeof text - length)
			break;
		length += (size_t)more;
	}
	if (length)
		step("", COLOUR_SOFT, "listening in the pod: %s", text);
}

static void print_addresses(const cJSON *pod)
{
	char text[512] = "";
	size_t length = 0;
	const cJSON *address;
	cJSON_ArrayForEach (address, json_at(pod, "addresses")) {
		int more = snprintf(text + length, sizeof text - length, "%s%s", length ? " and " : "", address->valuestring);
		if (more < 0 || (size_t)more >= sizeof text - length)
			break;
		length += (size_t)more;
	}
	bool holds = json_truth(pod, "probe"), is_one = cJSON_GetArraySize(json_at(pod, "addresses")) == 1;
	enum colour colour = holds ? COLOUR_GOOD : json_truth(pod, "wanted") ? COLOUR_WAIT : COLOUR_NONE;
	if (!length)
		step("probe", colour, "the pod has no address yet");
	else
		step("probe", colour, "%s %s in the host's set of pods that the node probes", text,
		     holds ? (is_one ? "stands" : "stand") : (is_one ? "is not" : "are not"));
}

static void print_story(const cJSON *pod)
{
	const char *annotation = json_text(pod, "annotation"), *state = json_text(pod, "state");
	bool is_wanted = json_truth(pod, "wanted"), has_traces = pod_has_traces(pod);
	char age[AGE_MAX];
	print_age(json_text(pod, "since"), age);
	printf("%s%s/%s%s: %s%s%s%s%s (uid %s)\n", colour_begin(COLOUR_STRONG), json_text(pod, "namespace"),
	       json_text(pod, "name"), colour_end(COLOUR_STRONG), colour_begin(colour_of_state(state)), state,
	       colour_end(colour_of_state(state)), age[0] ? " for " : "", age, json_text(pod, "uid"));
	print_labels("labels", "of the pod", json_at(pod, "seen.labels"));
	print_labels("", "of its namespace", json_at(pod, "seen.namespaceLabels"));
	step("decision", COLOUR_NONE, "%s: %s", is_wanted ? "it belongs to the mesh" : "it does not belong to the mesh",
	     json_text(pod, "reason"));
	if (json_text(pod, "warning")[0])
		step("", COLOUR_WAIT, "%s", json_text(pod, "warning"));
	if (!has_traces)
		return;
	const char *inode = json_text(pod, "netns.inode"), *path = json_text(pod, "netns.path");
	if (strcmp(inode, "0") == 0 || !inode[0])
		step("namespace", is_wanted ? COLOUR_WAIT : COLOUR_NONE, "its network namespace is not known");
	else
		step("namespace", COLOUR_GOOD, "network namespace %s%s%s", inode, path[0] ? " at " : "", path);
	print_rules(pod);
	print_packets(pod);
	print_tunnel(pod);
	print_addresses(pod);
	step("annotation",
	     strcmp(annotation, "enabled") == 0 ? COLOUR_GOOD
	     : is_wanted			? COLOUR_WAIT
						: COLOUR_NONE,
	     ANNOTATION_REDIRECTION "%s%s", annotation[0] ? ": " : " is not there: peers send plain text", annotation);
	if (json_number(pod, "repairPausedSeconds") > 0)
		step("repair", COLOUR_WAIT, "paused by hand for another %s",
		     print_seconds((long)json_number(pod, "repairPausedSeconds"), age));
}

/* What the cluster says of the pod, by a person's kubeconfig; and, in a second one, what connections to it met. */
struct cluster_story {
	cJSON *findings; /* [{"kind", "blocked", "finding"}] */
	char unread[1400];
	const char *blocked; /* the first finding that blocks; borrowed from `findings` */
};

static void take_finding(void *data, bool is_blocked, const char *kind, const char *text)
{
	struct cluster_story *story = data;
	cJSON *finding = cJSON_CreateObject();
	cJSON_AddStringToObject(finding, "kind", kind);
	cJSON_AddBoolToObject(finding, "blocked", is_blocked);
	cJSON_AddStringToObject(finding, "finding", text);
	if (json_append(story->findings, finding) && is_blocked && !story->blocked)
		story->blocked = json_text(finding, "finding");
}

static int ask_pod(struct cluster *cluster, const cJSON *pod, struct error *error, cJSON **ret_object)
{
	cleanup_free char *place = kube_escape(json_text(pod, "namespace")), *name = kube_escape(json_text(pod, "name")),
			  *path = NULL;
	if (!place || !name || asprintf(&path, "/api/v1/namespaces/%s/pods/%s", place, name) < 0) {
		path = NULL;
		return error_set(error, ENOMEM, "cannot ask the API server");
	}
	return cluster_get(cluster, path, error, ret_object);
}

static int ask_cluster(struct cluster *cluster, const struct installer_config *config, const cJSON *pod, const cJSON *object,
		       struct error *error, struct cluster_story *story)
{
	cleanup_policies struct policies policies = { 0 };
	if (policies_read(cluster, config, json_text(pod, "namespace"), error, &policies) < 0)
		return -1;
	policies_of_waypoint(&policies, take_finding, story);
	policies_of_pod(&policies, object, take_finding, story);
	snprintf(story->unread, sizeof story->unread, "%s", policies.unread);
	return 0;
}

/* The pod's object, by whatever account there is: a person's, or the agent's own. Policies are asked for by a person's alone:
 * the agent's may not read them, and people's rights differ. */
static void read_cluster(const struct installer_config *config, const char *kubeconfig, const cJSON *pod,
			 struct cluster_story *story, cJSON **ret_object)
{
	cleanup_free char *own = kubeconfig ? NULL : cluster_kubectls_kubeconfig();
	cleanup_cluster struct cluster *cluster = NULL;
	struct error error = { 0 };
	bool is_persons = kubeconfig || own;
	int result = cluster_open(config, kubeconfig ? kubeconfig : own, &error, &cluster);
	if (result == 0)
		result = ask_pod(cluster, pod, &error, ret_object);
	if (result == 0 && is_persons)
		result = ask_cluster(cluster, config, pod, *ret_object, &error, story);
	if (!is_persons)
		snprintf(story->unread, sizeof story->unread,
			 "waypoint and policies: there is no kubeconfig here (--kubeconfig FILE, or $KUBECONFIG)");
	else if (result < 0)
		snprintf(story->unread, sizeof story->unread, "waypoint and policies: %s", error.message);
}

/* What is really answered, whatever policies say. */
static void try_connections(const struct admin *admin, const cJSON *pod, const cJSON *object, struct cluster_story *story)
{
	int ports[PROBE_PORTS_MAX];
	size_t count = object ? policies_probe_ports(object, ports, PROBE_PORTS_MAX) : 0;
	reach_try(admin, pod, ports, count, take_finding, story, story->unread, sizeof story->unread);
}

static void print_reach(const struct cluster_story *story)
{
	const cJSON *finding;
	cJSON_ArrayForEach (finding, story->findings)
		step(finding == story->findings->child ? "packets" : "",
		     json_truth(finding, "blocked") ? COLOUR_BAD : COLOUR_GOOD, "%s", json_text(finding, "finding"));
	if (story->unread[0])
		step("not tried", COLOUR_SOFT, "%s", story->unread);
}

static void print_cluster(const struct cluster_story *story)
{
	const cJSON *finding;
	cJSON_ArrayForEach (finding, story->findings) {
		bool is_waypoint = strcmp(json_text(finding, "kind"), "waypoint") == 0;
		step(is_waypoint ? "waypoint" : "policy", json_truth(finding, "blocked") ? COLOUR_BAD : COLOUR_NONE, "%s%s%s",
		     is_waypoint ? "" : json_text(finding, "kind"), is_waypoint ? "" : " ", json_text(finding, "finding"));
	}
	if (story->unread[0])
		step("not read", COLOUR_SOFT, "%s", story->unread);
	else if (cJSON_GetArraySize(story->findings) == 0)
		step("policy", COLOUR_NONE, "none selects it, and no waypoint is named");
}

int command_explain(int argc, char **argv)
{
	bool is_json = false;
	const char *kubeconfig = NULL, *name = NULL;
	const struct command_option own[] = {
		OPTION_OUTPUT(&is_json),
		OPTION_KUBECONFIG(&kubeconfig),
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_admin struct admin admin = { 0 };
	cleanup_installer_config struct installer_config config = { 0 };
	cleanup_cjson cJSON *agent = NULL, *pod = NULL, *object = NULL;
	cleanup_free char *path = NULL;
	struct error error = { 0 };
	if (options_parse(argc, argv, own, &config_options, &name) < 0)
		return EXIT_STATUS_USAGE;
	if (!name)
		return command_misused(argv[0], "expected NAMESPACE/POD");
	if (admin_pod_path(name, "?verify=1", &error, &path) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_USAGE);
	if (admin_find(&config_options, &error, &admin) < 0 ||
	    config_options_load_agents(&config_options, &error, &config) < 0 ||
	    admin_get(&admin, "/status", &error, &agent) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (admin_get(&admin, path, &error, &pod) < 0) {
		command_failed(argv[0], &error, EXIT_STATUS_FAILED);
		if (error.number == ENOENT)
			fprintf(stderr, "this is node %s; where the pod is: kubectl get pod -o wide -n %.*s %s\n",
				json_text(agent, "node"), (int)strcspn(name, "/"), name, strchr(name, '/') + 1);
		return EXIT_STATUS_FAILED;
	}
	struct diagnosis diagnosis;
	diagnose(pod, agent, &diagnosis);
	cleanup_cjson cJSON *findings = cJSON_CreateArray(), *tried = cJSON_CreateArray();
	struct cluster_story story = { .findings = findings }, reach = { .findings = tried };
	if (json_truth(pod, "wanted")) {
		read_cluster(&config, kubeconfig, pod, &story, &object);
		try_connections(&admin, pod, object, &reach);
	}
	if (!diagnosis.is_wrong && story.blocked) {
		diagnosis.is_wrong = true;
		snprintf(diagnosis.finding, sizeof diagnosis.finding,
			 "It is in the mesh, nothing is wrong with it on this node, and the cluster stands in its way: %s.",
			 story.blocked);
	} else if (!diagnosis.is_wrong && reach.blocked) {
		diagnosis.is_wrong = true;
		snprintf(diagnosis.finding, sizeof diagnosis.finding,
			 "It is in the mesh, nothing is wrong with it on this node, and something drops its packets: %s.",
			 reach.blocked);
	}
	if (is_json) {
		if (!cJSON_AddBoolToObject(pod, "healthy", !diagnosis.is_wrong) ||
		    !cJSON_AddStringToObject(pod, "finding", diagnosis.finding) ||
		    !cJSON_AddStringToObject(pod, "next", diagnosis.next) ||
		    !cJSON_AddItemReferenceToObject(pod, "policies", findings) ||
		    !cJSON_AddStringToObject(pod, "unread", story.unread) ||
		    !cJSON_AddItemReferenceToObject(pod, "reach", tried) ||
		    !cJSON_AddStringToObject(pod, "untried", reach.unread) || print_json(pod) < 0)
			return EXIT_STATUS_FAILED;
	} else {
		print_story(pod);
		if (!json_truth(agent, "ready"))
			step("agent", COLOUR_BAD, "not ready: %s", json_text(agent, "reason"));
		if (json_truth(pod, "wanted")) {
			print_cluster(&story);
			print_reach(&reach);
		}
		enum colour colour = diagnosis.is_wrong ? COLOUR_BAD : COLOUR_GOOD;
		printf("\n%s%s%s\n", colour_begin(colour), diagnosis.finding, colour_end(colour));
		if (diagnosis.next[0])
			printf("Next: %s\n", diagnosis.next);
	}
	return diagnosis.is_wrong ? EXIT_STATUS_DIFFERENCE : EXIT_STATUS_DONE;
}
