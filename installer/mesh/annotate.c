/* The annotation ambient.istio.io/redirection: what peers act on.
 *
 * Compared is what the source shows of the pod, or what we wrote last and the source has not shown yet. A patch bears the pod's
 * uid, so that a late one can't hit a successor of the same name. One is on its way at a time; when another value is wanted
 * meanwhile, it follows. A source that is never written to (a folder) is as good as written.
 *
 * While a patch is on its way the source may show the pod from before it, and from after it: then what somebody else has made
 * of the annotation since. The source shows things in their order, so what it shows once it has shown the patch is the later.
 * But a list after a break passes changes over, the patch among them: of one that does not show the patch it can't be told
 * whether it is the older or the later. Then the pod is read once the answer has come. */
#include <stdlib.h>
#include <string.h>

#include "installer/mesh/state.h"

#define RETRY_LEAST 0.05
#define RETRY_MOST 10.0

static bool texts_equal(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool set_text(char **text, const char *value)
{
	char *copy = value ? strdup(value) : NULL;
	if (value && !copy)
		return false;
	free(*text);
	*text = copy;
	return true;
}

static const char *shown_of(const struct mesh_pod *pod)
{
	return pod->object ? labels_get(&pod->object->annotations, ANNOTATION_REDIRECTION) : NULL;
}

void mesh_annotation_seen(struct mesh_pod *pod)
{
	const char *shown = shown_of(pod);
	if (pod->mesh->source.self && !pod->mesh->source.annotate_pod)
		return;
	if (!pod->patch) {
		set_text(&pod->annotation, shown);
		return;
	}
	pod->is_patch_shown |= texts_equal(shown, pod->patch_value);
	pod->is_patch_doubted |= pod->mesh->is_listing_pods && !pod->is_patch_shown;
}

void mesh_annotation_cancel(struct mesh_pod *pod)
{
	if (pod->patch)
		pod->mesh->source.cancel(pod->mesh->source.self, pod->patch);
	pod->patch = NULL;
}

static void try_later(struct mesh_pod *pod)
{
	pod->annotate_after = clock_seconds() + mesh_retry_wait(RETRY_LEAST, RETRY_MOST, pod->annotate_failures);
	pod->annotate_failures++;
}

static void answered(void *data, enum source_outcome outcome, const cJSON *object, const struct error *error)
{
	struct mesh_pod *pod = data;
	struct metrics *metrics = pod->mesh->settings.metrics;
	(void)object;
	pod->patch = NULL;
	if (pod->is_patch_shown)
		set_text(&pod->annotation, shown_of(pod));
	else if (pod->is_patch_doubted)
		pod->is_missed = true;
	switch (outcome) {
	case SOURCE_DONE:
		metrics->annotation_patches[METRICS_PATCH_DONE]++;
		pod->annotate_failures = 0;
		if (!pod->is_patch_shown)
			set_text(&pod->annotation, pod->patch_value);
		break;
	case SOURCE_GONE: /* the watch will say so too, unless something on the way to the server has said it */
		metrics->annotation_patches[METRICS_PATCH_GONE]++;
		set_text(&pod->annotation, pod->patch_value);
		pod->is_missed = true;
		try_later(pod);
		break;
	case SOURCE_FAILED:
		metrics->annotation_patches[METRICS_PATCH_FAILED]++;
		if (pod->annotate_failures == 0)
			mesh_log(pod, LOG_LEVEL_WARN, "annotate", "cannot set annotation %s, it is tried again: %s",
				 ANNOTATION_REDIRECTION, error->message);
		try_later(pod);
		metrics->reconcile_errors[METRICS_STEP_ANNOTATION]++;
		break;
	}
	mesh_queue(pod);
}

bool mesh_annotate(struct mesh_pod *pod, const char *value)
{
	const struct source *source = &pod->mesh->source;
	struct error error = { 0 };
	if (pod->patch)
		return false;
	if (texts_equal(pod->annotation, value))
		return true;
	if (!source->annotate_pod)
		return set_text(&pod->annotation, value);
	double now = clock_seconds();
	if (!pod->object)
		return false;
	if (pod->annotate_after > now) {
		mesh_queue_after(pod, pod->annotate_after - now);
		return false;
	}
	if (!set_text(&pod->patch_value, value))
		return false;
	pod->is_patch_shown = pod->is_patch_doubted = false;
	if (source->annotate_pod(source->self, pod->namespace_name, pod->name, pod->uid, ANNOTATION_REDIRECTION, value,
				 answered, pod, &error, &pod->patch) < 0)
		answered(pod, SOURCE_FAILED, NULL, &error);
	return false;
}
