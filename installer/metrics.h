/* What the node agent counts. A plain struct that the agent owns and lends to the rooms that count; the text for Prometheus is
 * made of it in observe/metrics_text.c. One thread, so that an increment is an increment. */
#ifndef AMBIENT_INSTALLER_METRICS_H
#define AMBIENT_INSTALLER_METRICS_H

#include <stddef.h>
#include <stdint.h>

/* Upper bounds in seconds, from 0.25 ms to 10 s; one more bucket takes the rest. */
#define HISTOGRAM_BOUNDS                                                                                                       \
	{                                                                                                                      \
		0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10                        \
	}
#define HISTOGRAM_BUCKETS 16

struct histogram {
	uint64_t buckets[HISTOGRAM_BUCKETS]; /* not cumulative */
	double sum;
};

void histogram_observe(struct histogram *histogram, double seconds);

enum metrics_verb { METRICS_VERB_ADD, METRICS_VERB_DEL, METRICS_VERB_GC, METRICS_VERB_COUNT };
enum metrics_plugin_result {
	METRICS_PLUGIN_ENROLLED,
	METRICS_PLUGIN_OUTSIDE,
	METRICS_PLUGIN_DONE, /* DEL, GC */
	METRICS_PLUGIN_REFUSED,
	METRICS_PLUGIN_ABANDONED, /* the plugin went away before the result */
	METRICS_PLUGIN_RESULT_COUNT,
};
enum metrics_phase {
	METRICS_PHASE_DECISION,
	METRICS_PHASE_APPLY,
	METRICS_PHASE_TUNNEL,
	METRICS_PHASE_TOTAL,
	METRICS_PHASE_COUNT
};

/* A step of a pod's way in or out, for errors. */
enum metrics_step {
	METRICS_STEP_NAMESPACE,
	METRICS_STEP_PROBE,
	METRICS_STEP_RULES,
	METRICS_STEP_TUNNEL,
	METRICS_STEP_ANNOTATION,
	METRICS_STEP_STATE, /* what is remembered on disk */
	METRICS_STEP_COUNT,
};
enum metrics_drift { METRICS_DRIFT_RULES, METRICS_DRIFT_ROUTES, METRICS_DRIFT_HOST, METRICS_DRIFT_COUNT };
/* Of pods, as the source tells them: istio-cni's nodeagent_reconcile_events_total. */
enum metrics_change { METRICS_CHANGE_ADD, METRICS_CHANGE_UPDATE, METRICS_CHANGE_DELETE, METRICS_CHANGE_COUNT };
enum metrics_patch { METRICS_PATCH_DONE, METRICS_PATCH_GONE, METRICS_PATCH_FAILED, METRICS_PATCH_COUNT };

struct metrics {
	uint64_t plugin_requests[METRICS_VERB_COUNT][METRICS_PLUGIN_RESULT_COUNT];
	struct histogram plugin_request_seconds[METRICS_PHASE_COUNT];
	struct histogram reconcile_seconds; /* from the first step of enrolling a running pod to its last rule */
	uint64_t reconcile_errors[METRICS_STEP_COUNT];
	uint64_t drift_repairs[METRICS_DRIFT_COUNT];
	uint64_t annotation_patches[METRICS_PATCH_COUNT];
	uint64_t changes[METRICS_CHANGE_COUNT];
	uint64_t stale_outside_pods; /* pods that started outside while the agent was away, although they belong to the mesh */
};

const char *metrics_verb_name(enum metrics_verb verb);
const char *metrics_plugin_result_name(enum metrics_plugin_result result);
const char *metrics_phase_name(enum metrics_phase phase);
const char *metrics_step_name(enum metrics_step step);
const char *metrics_drift_name(enum metrics_drift drift);
const char *metrics_change_name(enum metrics_change change);
const char *metrics_patch_name(enum metrics_patch patch);

#endif
