/* What people and machines are shown of the mesh: pods as JSON (docs/operate.md says what the keys mean). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/netns/listening.h"
#include "installer/mesh/state.h"

const char *mesh_state_name(enum mesh_state state)
{
	static const char *const names[MESH_STATE_COUNT] = {
		[MESH_STATE_NONE] = "none",	      [MESH_STATE_PENDING] = "pending", [MESH_STATE_ENABLED] = "enabled",
		[MESH_STATE_RELEASING] = "releasing", [MESH_STATE_FAILED] = "failed",
	};
	return names[state];
}

void mesh_count_states(const struct mesh *mesh, size_t ret_counts[MESH_STATE_COUNT])
{
	const struct mesh_pod *pod;
	memset(ret_counts, 0, MESH_STATE_COUNT * sizeof *ret_counts);
	TAILQ_FOREACH(pod, &mesh->pods, all)
	ret_counts[mesh_state_of(pod)]++;
}

static bool add_time(cJSON *json, const char *key, time_t when)
{
	char text[40] = "";
	struct tm utc;
	if (when != 0 && gmtime_r(&when, &utc))
		strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
	return cJSON_AddStringToObject(json, key, text);
}

/* Why the pod is where it is, where that is not plain from its state: the first thing that is missing. */
static void describe_wait(const struct mesh_pod *pod, char *text, size_t size)
{
	size_t count = 0;
	mesh_pod_addresses(pod, &count);
	text[0] = '\0';
	if (pod->is_stranded)
		snprintf(text, size, "the annotation can't be taken off, so the pod stays in the mesh");
	else if (pod->arrival)
		snprintf(text, size, "the pod is starting: its ADD is under way");
	else if (!pod->decision.wanted && pod->is_releasing)
		snprintf(text, size, "%s",
			 pod->is_listened_to
				 ? "no tunnel is connected, and one listens in the pod still: the guard stays before "
				   "its ports until it is back or has ended"
			 : pod->drain_began > 0 ? "the tunnel's connections are let come to their end"
						: "the annotation is being taken off");
	else if (!pod->decision.wanted)
		return;
	else if (pod->is_torn_down)
		snprintf(text, size, "the pod's sandbox was removed; a new one has not been made yet");
	else if (!sandbox_is_held(&pod->sandbox) && count == 0)
		snprintf(text, size, "the pod has no address yet: it has not started");
	else if (!sandbox_is_held(&pod->sandbox))
		snprintf(text, size, "the pod's network namespace has not been found yet");
	else if (tunnel_connections(pod->mesh->tunnel) == 0)
		snprintf(text, size,
			 "no tunnel is connected: a ztunnel dials when it has its first configuration from istiod "
			 "(kubectl get pods -n %s -l app=ztunnel)",
			 pod->mesh->settings.selection.system_namespace);
	else if (pod->tunnel == POD_TUNNEL_ADDING)
		snprintf(text, size, "the tunnel has not answered yet");
	else if (pod->tunnel == POD_TUNNEL_REFUSED)
		snprintf(text, size, "the tunnel refuses the pod");
	else if (pod->tunnel == POD_TUNNEL_ACCEPTED && pod->patch)
		snprintf(text, size, "the annotation is being written");
}

static bool add_packets(cJSON *rules, struct mesh_pod *pod)
{
	struct redirect_counters counters;
	cJSON *packets = cJSON_AddObjectToObject(rules, "packets");
	if (!sandbox_is_held(&pod->sandbox) || redirect_read_counters(pod->sandbox.session, NULL, &counters) < 0)
		return packets != NULL;
	for (enum redirect_outcome outcome = REDIRECT_OUTCOME_NONE + 1; outcome < REDIRECT_OUTCOME_COUNT; outcome++)
		if (!cJSON_AddNumberToObject(packets, redirect_outcome_name(outcome), (double)counters.packets[outcome]))
			return false;
	return true;
}

static bool add_lines(cJSON *json, const char *key, char *text)
{
	char *state = NULL;
	cJSON *lines = cJSON_AddArrayToObject(json, key);
	for (char *line = strtok_r(text, "\n", &state); lines && line; line = strtok_r(NULL, "\n", &state))
		if (!cJSON_AddItemToArray(lines, cJSON_CreateString(line)))
			return false;
	return lines;
}

static bool add_rules(cJSON *json, struct mesh_pod *pod, bool is_whole, bool verify)
{
	struct sandbox *sandbox = &pod->sandbox;
	cJSON *rules = cJSON_AddObjectToObject(json, "rules");
	bool is_held = sandbox_is_held(sandbox);
	const char *stage = !is_held || sandbox->standing == REDIRECT_STANDING_NOTHING ? "none"
			    : sandbox->standing == REDIRECT_STANDING_FULL	       ? "full"
										       : "guard";
	struct redirect_difference difference = { 0 };
	cleanup_free char *diff = NULL;
	if (verify && is_held && sandbox->standing != REDIRECT_STANDING_NOTHING) {
		struct error error = { 0 };
		enum redirect_stage expected =
			sandbox->standing == REDIRECT_STANDING_FULL ? REDIRECT_STAGE_FULL : REDIRECT_STAGE_GUARD;
		if (redirect_verify(sandbox->session, &sandbox->in_force, expected, &error, &difference) < 0)
			snprintf(difference.text, sizeof difference.text, "%.500s", error.message);
		else if (difference.text[0] != '\0' &&
			 redirect_diff(sandbox->session, &sandbox->in_force, expected, &difference, &error, &diff) < 0)
			diff = NULL;
		else if (difference.text[0] == '\0')
			sandbox->verified = time(NULL);
	}
	if (!cJSON_AddBoolToObject(rules, "present", is_held && sandbox->standing == REDIRECT_STANDING_FULL) ||
	    !cJSON_AddStringToObject(rules, "stage", stage) || !add_time(rules, "verified", sandbox->verified) ||
	    (verify && !cJSON_AddStringToObject(rules, "difference", difference.text)) ||
	    (diff && !add_lines(rules, "diff", diff)))
		return false;
	if (is_whole && pod->decision.wanted) {
		cJSON *redirect = redirect_to_json(&pod->wanted);
		if (!cJSON_AddItemToObject(rules, "redirect", redirect)) {
			cJSON_Delete(redirect);
			return false;
		}
	}
	return add_packets(rules, pod);
}

/* Which of the tunnel's ports answer inside the pod, in each family. */
static bool add_listening(cJSON *tunnel, const struct mesh_pod *pod)
{
	static const char *const names[LISTENING_PORT_COUNT] = { "15001", "15006", "15008", "15053/tcp", "15053/udp" };
	struct listening listening = { 0 };
	if (!sandbox_is_held(&pod->sandbox) || listening_look(pod->sandbox.netns, NULL, &listening) < 0)
		return true;
	cJSON *object = cJSON_AddObjectToObject(tunnel, "listening");
	for (int port = 0; port < LISTENING_PORT_COUNT; port++) {
		const char *families = listening.ipv4[port] && listening.ipv6[port] ? "ipv4 ipv6"
				       : listening.ipv4[port]			    ? "ipv4"
				       : listening.ipv6[port]			    ? "ipv6"
										    : "";
		if (!cJSON_AddStringToObject(object, names[port], families))
			return false;
	}
	return true;
}

static bool add_labels(cJSON *json, const char *key, const struct labels *labels)
{
	cJSON *object = cJSON_AddObjectToObject(json, key);
	for (size_t i = 0; object && labels && i < labels->count; i++)
		if (!cJSON_AddStringToObject(object, labels->items[i].key, labels->items[i].value))
			return false;
	return object != NULL;
}

/* What the decision was made of. */
static bool add_seen(cJSON *json, const struct mesh_pod *pod)
{
	const struct mesh_namespace *entry = mesh_find_namespace(pod->mesh, pod->namespace_name);
	cJSON *seen = cJSON_AddObjectToObject(json, "seen");
	return seen && add_labels(seen, "labels", pod->object ? &pod->object->labels : NULL) &&
	       add_labels(seen, "annotations", pod->object ? &pod->object->annotations : NULL) &&
	       add_labels(seen, "namespaceLabels", entry ? &entry->object->labels : NULL);
}

static cJSON *view(struct mesh_pod *pod, bool is_whole, bool verify)
{
	cJSON *json = cJSON_CreateObject();
	char device[32], inode[32], wait[512];
	size_t count = 0;
	const struct pod_address *addresses = mesh_pod_addresses(pod, &count);
	snprintf(device, sizeof device, "%llu", (unsigned long long)pod->sandbox.id.device);
	snprintf(inode, sizeof inode, "%llu", (unsigned long long)pod->sandbox.id.inode);
	describe_wait(pod, wait, sizeof wait);
	const char *state = mesh_state_name(mesh_state_of(pod));
	bool is_built = cJSON_AddStringToObject(json, "namespace", pod->namespace_name) &&
			cJSON_AddStringToObject(json, "name", pod->name) && cJSON_AddStringToObject(json, "uid", pod->uid) &&
			cJSON_AddStringToObject(json, "serviceAccount", pod->service_account) &&
			cJSON_AddBoolToObject(json, "wanted", pod->decision.wanted) &&
			cJSON_AddStringToObject(json, "state", state) &&
			cJSON_AddStringToObject(json, "reason", pod->decision.reason) &&
			cJSON_AddStringToObject(json, "waitingFor", wait);
	cJSON *netns = cJSON_AddObjectToObject(json, "netns");
	is_built = is_built && cJSON_AddStringToObject(netns, "device", device) &&
		   cJSON_AddStringToObject(netns, "inode", inode) &&
		   (!pod->sandbox.netns_path || cJSON_AddStringToObject(netns, "path", pod->sandbox.netns_path));
	cJSON *list = cJSON_AddArrayToObject(json, "addresses");
	for (size_t i = 0; is_built && list && i < count; i++) {
		char text[POD_ADDRESS_TEXT_MAX];
		is_built = cJSON_AddItemToArray(list, cJSON_CreateString(pod_address_print(&addresses[i], text)));
	}
	is_built = is_built && add_rules(json, pod, is_whole, verify);
	cJSON *tunnel = cJSON_AddObjectToObject(json, "tunnel");
	is_built = is_built && cJSON_AddBoolToObject(tunnel, "acknowledged", pod->tunnel == POD_TUNNEL_ACCEPTED) &&
		   cJSON_AddNumberToObject(tunnel, "connections", (double)tunnel_connections(pod->mesh->tunnel)) &&
		   (!is_whole || add_listening(tunnel, pod)) && cJSON_AddBoolToObject(json, "probe", mesh_probe_holds(pod)) &&
		   cJSON_AddStringToObject(json, "annotation", pod->annotation ? pod->annotation : "") &&
		   add_time(json, "since", pod->since) &&
		   cJSON_AddStringToObject(json, "lastError", pod->failures > 0 && pod->last_error ? pod->last_error : "") &&
		   cJSON_AddStringToObject(json, "lastErrorStep",
					   pod->failures > 0 ? metrics_step_name(pod->last_error_step) : "") &&
		   cJSON_AddStringToObject(json, "warning", pod->warning ? pod->warning : "") &&
		   (!is_whole || add_seen(json, pod));
	double paused = pod->paused_until - clock_seconds();
	if (is_built && paused > 0)
		is_built = cJSON_AddNumberToObject(json, "repairPausedSeconds", (double)(long)paused) != NULL;
	if (!is_built) {
		cJSON_Delete(json);
		return NULL;
	}
	return json;
}

cJSON *mesh_pods_view(struct mesh *mesh)
{
	struct mesh_pod *pod;
	cJSON *array = cJSON_CreateArray();
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		cJSON *entry = view(pod, false, false);
		if (!cJSON_AddItemToArray(array, entry)) {
			cJSON_Delete(entry);
			cJSON_Delete(array);
			return NULL;
		}
	}
	return array;
}

cJSON *mesh_pod_view(struct mesh *mesh, const char *namespace_name, const char *name, bool verify)
{
	struct mesh_pod *pod = mesh_find_pod_by_name(mesh, namespace_name, name);
	return pod ? view(pod, true, verify) : NULL;
}
