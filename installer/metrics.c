/* Counting. See metrics.h. */
#include "installer/metrics.h"

static const double bounds[] = HISTOGRAM_BOUNDS;

void histogram_observe(struct histogram *histogram, double seconds)
{
	size_t bucket = 0;
	while (bucket < sizeof bounds / sizeof bounds[0] && seconds > bounds[bucket])
		bucket++;
	histogram->buckets[bucket]++;
	histogram->sum += seconds;
}

const char *metrics_verb_name(enum metrics_verb verb)
{
	static const char *const names[METRICS_VERB_COUNT] = {
		[METRICS_VERB_ADD] = "ADD",
		[METRICS_VERB_DEL] = "DEL",
		[METRICS_VERB_GC] = "GC",
	};
	return names[verb];
}

const char *metrics_plugin_result_name(enum metrics_plugin_result result)
{
	static const char *const names[METRICS_PLUGIN_RESULT_COUNT] = {
		[METRICS_PLUGIN_ENROLLED] = "enrolled",	  [METRICS_PLUGIN_OUTSIDE] = "outside",
		[METRICS_PLUGIN_DONE] = "done",		  [METRICS_PLUGIN_REFUSED] = "refused",
		[METRICS_PLUGIN_ABANDONED] = "abandoned",
	};
	return names[result];
}

const char *metrics_phase_name(enum metrics_phase phase)
{
	static const char *const names[METRICS_PHASE_COUNT] = {
		[METRICS_PHASE_DECISION] = "decision",
		[METRICS_PHASE_APPLY] = "apply",
		[METRICS_PHASE_TUNNEL] = "tunnel",
		[METRICS_PHASE_TOTAL] = "total",
	};
	return names[phase];
}

const char *metrics_step_name(enum metrics_step step)
{
	static const char *const names[METRICS_STEP_COUNT] = {
		[METRICS_STEP_NAMESPACE] = "namespace",	  [METRICS_STEP_PROBE] = "probe",
		[METRICS_STEP_RULES] = "rules",		  [METRICS_STEP_TUNNEL] = "tunnel",
		[METRICS_STEP_ANNOTATION] = "annotation", [METRICS_STEP_STATE] = "state",
	};
	return names[step];
}

const char *metrics_drift_name(enum metrics_drift drift)
{
	static const char *const names[METRICS_DRIFT_COUNT] = {
		[METRICS_DRIFT_RULES] = "rules",
		[METRICS_DRIFT_ROUTES] = "routes",
		[METRICS_DRIFT_HOST] = "host",
	};
	return names[drift];
}

const char *metrics_change_name(enum metrics_change change)
{
	static const char *const names[METRICS_CHANGE_COUNT] = {
		[METRICS_CHANGE_ADD] = "add",
		[METRICS_CHANGE_UPDATE] = "update",
		[METRICS_CHANGE_DELETE] = "delete",
	};
	return names[change];
}

const char *metrics_patch_name(enum metrics_patch patch)
{
	static const char *const names[METRICS_PATCH_COUNT] = {
		[METRICS_PATCH_DONE] = "done",
		[METRICS_PATCH_GONE] = "gone",
		[METRICS_PATCH_FAILED] = "failed",
	};
	return names[patch];
}
