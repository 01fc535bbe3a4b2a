/* The text for Prometheus (exposition format 0.0.4): docs/operate.md says what each metric means, deploy/observe uses them.
 *
 * Every series is there from the start, at 0: an alert on a rate sees the first increment. */
#include <stdarg.h>
#include <stdio.h>

#include "installer/observe/state.h"
#include "version.h"

struct text {
	struct evbuffer *out;
	bool has_failed;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (evbuffer_add_vprintf(text->out, format, arguments) < 0)
		text->has_failed = true;
	va_end(arguments);
}

static void head(struct text *text, const char *name, const char *type, const char *help)
{
	add(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void single(struct text *text, const char *name, const char *type, const char *help, double value)
{
	head(text, name, type, help);
	add(text, "%s %.17g\n", name, value);
}

static void add_plugin(struct text *text, const struct metrics *metrics)
{
	head(text, "ambient_cni_plugin_requests_total", "counter", "What plugins asked, and what became of it.");
	for (enum metrics_verb verb = 0; verb < METRICS_VERB_COUNT; verb++) {
		for (enum metrics_plugin_result result = 0; result < METRICS_PLUGIN_RESULT_COUNT; result++) {
			bool is_possible = (verb == METRICS_VERB_ADD) == (result != METRICS_PLUGIN_DONE) ||
					   result == METRICS_PLUGIN_REFUSED;
			if (is_possible)
				add(text, "ambient_cni_plugin_requests_total{verb=\"%s\",result=\"%s\"} %llu\n",
				    metrics_verb_name(verb), metrics_plugin_result_name(result),
				    (unsigned long long)metrics->plugin_requests[verb][result]);
		}
	}
}

/* `labels` without a comma at its end, or empty. */
static void add_histogram(struct text *text, const char *name, const char *labels, const struct histogram *histogram)
{
	static const double bounds[] = HISTOGRAM_BOUNDS;
	const char *comma = labels[0] ? "," : "";
	uint64_t count = 0;
	for (size_t i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
		count += histogram->buckets[i];
		add(text, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, labels, comma, bounds[i], (unsigned long long)count);
	}
	count += histogram->buckets[HISTOGRAM_BUCKETS - 1];
	add(text, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, comma, (unsigned long long)count);
	const char *open = labels[0] ? "{" : "", *close = labels[0] ? "}" : "";
	add(text, "%s_sum%s%s%s %.17g\n%s_count%s%s%s %llu\n", name, open, labels, close, histogram->sum, name, open, labels,
	    close, (unsigned long long)count);
}

static void add_mesh(struct text *text, const struct observed *seen)
{
	const struct metrics *metrics = seen->metrics;
	size_t counts[MESH_STATE_COUNT];
	mesh_count_states(seen->mesh, counts);
	head(text, "ambient_cni_pods", "gauge", "Pods of this node by their state.");
	for (enum mesh_state state = 0; state < MESH_STATE_COUNT; state++)
		add(text, "ambient_cni_pods{state=\"%s\"} %zu\n", mesh_state_name(state), counts[state]);

	head(text, "ambient_cni_plugin_request_seconds", "histogram", "Time of an ADD by its phases.");
	for (enum metrics_phase phase = 0; phase < METRICS_PHASE_COUNT; phase++) {
		char labels[64];
		snprintf(labels, sizeof labels, "phase=\"%s\"", metrics_phase_name(phase));
		add_histogram(text, "ambient_cni_plugin_request_seconds", labels, &metrics->plugin_request_seconds[phase]);
	}

	head(text, "ambient_cni_reconcile_seconds", "histogram", "A running pod's way into the mesh.");
	add_histogram(text, "ambient_cni_reconcile_seconds", "", &metrics->reconcile_seconds);

	head(text, "ambient_cni_reconcile_errors_total", "counter", "Steps of a pod's way in or out that failed.");
	for (enum metrics_step step = 0; step < METRICS_STEP_COUNT; step++)
		add(text, "ambient_cni_reconcile_errors_total{step=\"%s\"} %llu\n", metrics_step_name(step),
		    (unsigned long long)metrics->reconcile_errors[step]);

	head(text, "ambient_cni_drift_repairs_total", "counter", "What somebody else took away and was put back.");
	for (enum metrics_drift cause = 0; cause < METRICS_DRIFT_COUNT; cause++)
		add(text, "ambient_cni_drift_repairs_total{cause=\"%s\"} %llu\n", metrics_drift_name(cause),
		    (unsigned long long)metrics->drift_repairs[cause]);

	head(text, "ambient_cni_annotation_patches_total", "counter", "Writes of ambient.istio.io/redirection.");
	for (enum metrics_patch result = 0; result < METRICS_PATCH_COUNT; result++)
		add(text, "ambient_cni_annotation_patches_total{result=\"%s\"} %llu\n", metrics_patch_name(result),
		    (unsigned long long)metrics->annotation_patches[result]);

	single(text, "ambient_cni_stale_outside_pods_total", "counter",
	       "Pods of the mesh that started outside while no agent was there to be asked.",
	       (double)metrics->stale_outside_pods);
}

static void add_tunnel(struct text *text, const struct observed *seen)
{
	const struct tunnel_statistics *tunnel = tunnel_server_statistics(seen->tunnel);
	uint64_t count = 0;
	single(text, "ambient_cni_tunnel_connections", "gauge", "Tunnels (ztunnel) that are connected.",
	       (double)tunnel_connections(seen->tunnel));
	head(text, "ambient_cni_tunnel_requests_total", "counter", "Requests to the tunnel, and what became of them.");
	for (enum tunnel_request_kind kind = 0; kind < TUNNEL_REQUEST_KINDS; kind++)
		for (enum tunnel_outcome outcome = 0; outcome < TUNNEL_OUTCOMES; outcome++)
			add(text, "ambient_cni_tunnel_requests_total{kind=\"%s\",result=\"%s\"} %llu\n",
			    tunnel_request_kind_name(kind), tunnel_outcome_name(outcome),
			    (unsigned long long)tunnel->requests[kind][outcome]);
	head(text, "ambient_cni_tunnel_ack_seconds", "histogram", "From a request to the tunnel's acknowledgement.");
	for (size_t i = 0; i < TUNNEL_ANSWER_BUCKETS; i++) {
		count += tunnel->buckets[i];
		add(text, "ambient_cni_tunnel_ack_seconds_bucket{le=\"%g\"} %llu\n", tunnel_answer_bounds[i],
		    (unsigned long long)count);
	}
	count += tunnel->buckets[TUNNEL_ANSWER_BUCKETS];
	add(text,
	    "ambient_cni_tunnel_ack_seconds_bucket{le=\"+Inf\"} %llu\n"
	    "ambient_cni_tunnel_ack_seconds_sum %.17g\nambient_cni_tunnel_ack_seconds_count %llu\n",
	    (unsigned long long)count, tunnel->seconds_sum, (unsigned long long)count);
}

/* A folder is no API server: its series stay at 0. */
static void add_source(struct text *text, const struct observe *observe)
{
	static const struct kube_statistics none = { 0 };
	struct kube_client *client = observe->seen.client;
	const struct kube_statistics *kube = client ? kube_client_statistics(client) : &none;
	head(text, "ambient_cni_watch_events_total", "counter", "Objects that came from the API server by watches.");
	add(text, "ambient_cni_watch_events_total{resource=\"pods\"} %llu\n",
	    (unsigned long long)kube->watch_events[SOURCE_POD]);
	add(text, "ambient_cni_watch_events_total{resource=\"namespaces\"} %llu\n",
	    (unsigned long long)kube->watch_events[SOURCE_NAMESPACE]);
	single(text, "ambient_cni_watch_restarts_total", "counter", "Watches that broke and were begun anew.",
	       (double)kube->watch_restarts);
	head(text, "ambient_cni_api_requests_total", "counter", "Requests to the API server, lists and watches aside.");
	for (enum kube_result result = 0; result < KUBE_RESULT_COUNT; result++)
		add(text, "ambient_cni_api_requests_total{result=\"%s\"} %llu\n", kube_result_name(result),
		    (unsigned long long)kube->requests[result]);
	head(text, "ambient_cni_events_total", "counter", "Events for people: sent, held back by their rate, failed.");
	for (enum event_result result = 0; result < EVENT_RESULT_COUNT; result++)
		add(text, "ambient_cni_events_total{result=\"%s\"} %llu\n", event_result_name(result),
		    (unsigned long long)observe->events.results[result]);
}

static void add_host(struct text *text, const struct observe *observe)
{
	static const struct host_state nothing = { .ready = true };
	const struct host_state *state = observe->host ? host_state(observe->host) : &nothing;
	head(text, "ambient_cni_host_installs_total", "counter", "Writes of plugin and configuration on the host.");
	for (enum host_file file = 0; file < HOST_FILE_COUNT; file++)
		for (enum host_result result = 0; result < HOST_RESULT_COUNT; result++)
			add(text, "ambient_cni_host_installs_total{file=\"%s\",result=\"%s\"} %llu\n", host_file_name(file),
			    host_result_name(result), (unsigned long long)state->results[file][result]);
}

/* Dashboards and alerts of an istio-cni go on working: its names, its labels, its values. */
static void add_istio_cni(struct text *text, const struct observe *observe)
{
	static const struct host_state nothing = { .ready = true };
	const struct host_state *state = observe->host ? host_state(observe->host) : &nothing;
	const struct metrics *metrics = observe->seen.metrics;
	const uint64_t *requests = metrics->plugin_requests[METRICS_VERB_ADD];
	head(text, "istio_cni_installs_total", "counter", "Installations of the plugin, under istio-cni's name.");
	add(text, "istio_cni_installs_total{result=\"SUCCESS\"} %llu\n",
	    (unsigned long long)state->results[HOST_FILE_CONFIGURATION][HOST_RESULT_WRITTEN]);
	add(text, "istio_cni_installs_total{result=\"COPY_BINARIES_FAILURE\"} %llu\n",
	    (unsigned long long)state->results[HOST_FILE_BINARY][HOST_RESULT_FAILED]);
	add(text, "istio_cni_installs_total{result=\"CREATE_CNI_CONFIG_FAILURE\"} %llu\n",
	    (unsigned long long)state->results[HOST_FILE_CONFIGURATION][HOST_RESULT_FAILED]);
	single(text, "istio_cni_install_ready", "gauge", "Whether plugin and configuration are in place.", state->ready);
	head(text, "istio_cni_plugin_requests_total", "counter", "ADDs by their answer, under istio-cni's name.");
	add(text, "istio_cni_plugin_requests_total{response_code=\"200\"} %llu\n",
	    (unsigned long long)requests[METRICS_PLUGIN_ENROLLED] + requests[METRICS_PLUGIN_OUTSIDE]);
	add(text, "istio_cni_plugin_requests_total{response_code=\"500\"} %llu\n",
	    (unsigned long long)requests[METRICS_PLUGIN_REFUSED]);
	head(text, "nodeagent_reconcile_events_total", "counter", "Changes of pods, under istio-cni's name.");
	for (enum metrics_change change = 0; change < METRICS_CHANGE_COUNT; change++)
		add(text, "nodeagent_reconcile_events_total{type=\"%s\"} %llu\n", metrics_change_name(change),
		    (unsigned long long)metrics->changes[change]);
	single(text, "ztunnel_connected", "gauge", "Tunnels that are connected, under istio-cni's name.",
	       (double)tunnel_connections(observe->seen.tunnel));
}

static void add_process(struct text *text, time_t started)
{
	struct process_figures figures;
	process_look(&figures);
	single(text, "process_resident_memory_bytes", "gauge", "Resident memory.", figures.resident_bytes);
	single(text, "process_virtual_memory_bytes", "gauge", "Virtual memory.", figures.virtual_bytes);
	single(text, "process_cpu_seconds_total", "counter", "Processor time, user and system.", figures.cpu_seconds);
	single(text, "process_open_fds", "gauge", "Open descriptors.", (double)figures.open_fds);
	single(text, "process_max_fds", "gauge", "The limit of open descriptors.", (double)figures.max_fds);
	single(text, "process_start_time_seconds", "gauge", "When the agent started, in seconds since 1970.", (double)started);
}

int metrics_print(const struct observe *observe, struct evbuffer *out)
{
	const struct observed *seen = &observe->seen;
	struct text text = { .out = out };
	char reason[HOST_REASON_MAX + 128];
	head(&text, "ambient_cni_build_info", "gauge", "Always 1.");
	add(&text, "ambient_cni_build_info{version=\"%s\"} 1\n", AMBIENT_VERSION);
	single(&text, "ambient_cni_ready", "gauge", "Whether the agent is ready, as /readyz says.",
	       observe_is_ready(observe, reason, sizeof reason));
	add_mesh(&text, seen);
	add_plugin(&text, seen->metrics);
	add_tunnel(&text, seen);
	add_source(&text, observe);
	add_host(&text, observe);
	add_istio_cni(&text, observe);
	add_process(&text, observe->started);
	return text.has_failed ? -1 : 0;
}
