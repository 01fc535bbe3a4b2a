/* /status: the agent in one JSON object, made when it is asked for. */
#include <stdio.h>
#include <string.h>

#include "installer/observe/state.h"
#include "version.h"

void observe_print_time(time_t when, char text[TIME_TEXT_MAX])
{
	struct tm utc;
	text[0] = '\0';
	if (when != 0 && gmtime_r(&when, &utc))
		strftime(text, TIME_TEXT_MAX, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static bool add_source(cJSON *overview, const struct observed *seen)
{
	const char *trouble = mesh_source_trouble(seen->mesh);
	bool is_folder = seen->config->source == INSTALLER_SOURCE_FOLDER;
	cJSON *source = cJSON_AddObjectToObject(overview, "source");
	return cJSON_AddStringToObject(source, "kind", is_folder ? "folder" : "kubernetes") &&
	       cJSON_AddStringToObject(source, "from",
				       is_folder			     ? seen->config->source_folder
				       : seen->config->kubeconfig[0] != '\0' ? seen->config->kubeconfig
									     : "in cluster") &&
	       cJSON_AddBoolToObject(source, "synced", mesh_is_synced(seen->mesh)) &&
	       cJSON_AddStringToObject(source, "trouble", trouble ? trouble : "");
}

static bool add_tunnel(cJSON *overview, const struct observed *seen)
{
	struct tunnel_connection_state state;
	cJSON *tunnel = cJSON_AddObjectToObject(overview, "tunnel");
	bool is_built = cJSON_AddStringToObject(tunnel, "socket", seen->config->tunnel_socket);
	cJSON *connections = cJSON_AddArrayToObject(tunnel, "connections");
	for (size_t i = 0; is_built && connections && tunnel_connection_state(seen->tunnel, i, &state); i++) {
		cJSON *connection = cJSON_CreateObject();
		is_built = cJSON_AddNumberToObject(connection, "pid", state.pid) &&
			   cJSON_AddNumberToObject(connection, "seconds", (double)(long)state.seconds) &&
			   cJSON_AddBoolToObject(connection, "snapshotAccepted", state.is_snapshot_accepted) &&
			   cJSON_AddNumberToObject(connection, "waiting", (double)state.waiting) &&
			   cJSON_AddNumberToObject(connection, "unanswered", (double)state.unanswered);
		if (!is_built || !cJSON_AddItemToArray(connections, connection)) {
			cJSON_Delete(connection);
			return false;
		}
	}
	return is_built && connections;
}

static bool add_host(cJSON *overview, const struct observe *observe)
{
	const struct host_state *state = observe->host ? host_state(observe->host) : NULL;
	cJSON *host = cJSON_AddObjectToObject(overview, "host");
	return cJSON_AddBoolToObject(host, "rules", mesh_host_rules_stand(observe->seen.mesh)) &&
	       cJSON_AddBoolToObject(host, "install", state != NULL) &&
	       (!state ||
		(cJSON_AddBoolToObject(host, "ready", state->ready) &&
		 cJSON_AddBoolToObject(host, "binary", state->binary_ready) &&
		 cJSON_AddBoolToObject(host, "configuration", state->configuration_ready) &&
		 cJSON_AddStringToObject(host, "file", state->file) && cJSON_AddStringToObject(host, "reason", state->reason)));
}

static bool add_pods(cJSON *overview, const struct observed *seen)
{
	size_t counts[MESH_STATE_COUNT];
	cJSON *pods = cJSON_AddObjectToObject(overview, "pods");
	mesh_count_states(seen->mesh, counts);
	for (enum mesh_state state = 0; state < MESH_STATE_COUNT; state++)
		if (!cJSON_AddNumberToObject(pods, mesh_state_name(state), (double)counts[state]))
			return false;
	return true;
}

static bool add_process(cJSON *overview)
{
	struct process_figures figures;
	cJSON *process = cJSON_AddObjectToObject(overview, "process");
	process_look(&figures);
	return cJSON_AddNumberToObject(process, "residentBytes", figures.resident_bytes) &&
	       cJSON_AddNumberToObject(process, "cpuSeconds", figures.cpu_seconds) &&
	       cJSON_AddNumberToObject(process, "openFds", (double)figures.open_fds) &&
	       cJSON_AddNumberToObject(process, "maxFds", (double)figures.max_fds);
}

static double sum(const uint64_t *values, size_t count)
{
	double total = 0;
	for (size_t i = 0; i < count; i++)
		total += (double)values[i];
	return total;
}

/* What a person watches; /metrics has all of them. */
static bool add_counters(cJSON *overview, const struct observed *seen)
{
	const struct metrics *metrics = seen->metrics;
	const uint64_t *add = metrics->plugin_requests[METRICS_VERB_ADD];
	cJSON *counters = cJSON_AddObjectToObject(overview, "counters");
	return cJSON_AddNumberToObject(counters, "podsStartedInside", (double)add[METRICS_PLUGIN_ENROLLED]) &&
	       cJSON_AddNumberToObject(counters, "podsStartedOutside", (double)add[METRICS_PLUGIN_OUTSIDE]) &&
	       cJSON_AddNumberToObject(counters, "podStartsRefused", (double)add[METRICS_PLUGIN_REFUSED]) &&
	       cJSON_AddNumberToObject(counters, "runningPodsEnrolled",
				       sum(metrics->reconcile_seconds.buckets, HISTOGRAM_BUCKETS)) &&
	       cJSON_AddNumberToObject(counters, "errors", sum(metrics->reconcile_errors, METRICS_STEP_COUNT)) &&
	       cJSON_AddNumberToObject(counters, "repairs", sum(metrics->drift_repairs, METRICS_DRIFT_COUNT)) &&
	       cJSON_AddNumberToObject(counters, "stalePodsOutside", (double)metrics->stale_outside_pods);
}

cJSON *observe_overview(const struct observe *observe)
{
	const struct observed *seen = &observe->seen;
	char started[TIME_TEXT_MAX], reason[HOST_REASON_MAX + 128];
	cJSON *overview = cJSON_CreateObject();
	observe_print_time(observe->started, started);
	bool is_ready = observe_is_ready(observe, reason, sizeof reason);
	cJSON *events = events_to_json(&observe->events);
	bool is_built =
		cJSON_AddStringToObject(overview, "version", AMBIENT_VERSION) &&
		cJSON_AddStringToObject(overview, "node", seen->config->node_name) &&
		cJSON_AddStringToObject(overview, "systemNamespace", seen->config->system_namespace) &&
		cJSON_AddStringToObject(overview, "installerNamespace", seen->config->installer_namespace) &&
		cJSON_AddStringToObject(overview, "daemonSet", seen->config->daemon_set_name) &&
		cJSON_AddStringToObject(overview, "since", started) && cJSON_AddBoolToObject(overview, "ready", is_ready) &&
		cJSON_AddStringToObject(overview, "reason", reason) && add_source(overview, seen) && add_tunnel(overview, seen);
	cJSON *plugin = cJSON_AddObjectToObject(overview, "plugin");
	is_built = is_built && cJSON_AddStringToObject(plugin, "runDir", seen->config->run_dir) &&
		   cJSON_AddBoolToObject(plugin, "listens", seen->plugin_socket_listens(seen->data)) &&
		   add_host(overview, observe) && add_pods(overview, seen) && add_counters(overview, seen) &&
		   add_process(overview) && cJSON_AddStringToObject(overview, "logLevel", log_level_name(seen->log->level)) &&
		   events;
	if (is_built && cJSON_AddItemToObject(overview, "events", events))
		return overview;
	cJSON_Delete(events);
	cJSON_Delete(overview);
	return NULL;
}
