/* Label selectors, and pods with annotations that they decide on: {"selectors": [...], "pod": {...}, "namespace": {...}}.
 * An exclusion of a pod's own never counts where the operator does not allow it. */
#include "installer/mesh/selection.h"

#include "ambient/json.h"
#include "tests/fuzz/fuzz.h"

static void decide(const struct selection *selection, const struct pod *pod, const struct namespace_object *object)
{
	struct selection_decision decision = { 0 };
	cleanup_redirect struct redirect redirect = { 0 };
	char warning[SELECTION_WARNING_MAX] = "";
	struct error error = { 0 };
	selection_decide(selection, pod, object, &decision);
	HOLDS(decision.reason[0] != '\0');
	HOLDS(!decision.wanted || (!pod->host_network && !selection->releases_all));
	if (selection_redirect(selection, pod, &error, &redirect, warning) < 0) {
		HOLDS(error_is_set(&error));
		return;
	}
	if (!selection->allow_pod_exclusions)
		HOLDS(redirect.exclude.outbound_ports_count == 0 && redirect.exclude.outbound_ranges_count == 0 &&
		      redirect.exclude.inbound_ports_count == 0 && redirect.exclude.interfaces_count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_cjson cJSON *json = NULL;
	cleanup_pod struct pod *pod = NULL;
	cleanup_namespace struct namespace_object *object = NULL;
	struct enablement_selectors selectors = { 0 };
	if (json_parse((const char *)data, size, 65536, "input", &error, &json) < 0)
		return 0;
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, "selectors");
	if (list ? enablement_selectors_from_json(list, "selectors", &error, &selectors) < 0
		 : enablement_selectors_default(&error, &selectors) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	struct redirect defaults;
	redirect_init(&defaults);
	struct selection selection = { .selectors = &selectors,
				       .system_namespace = "istio-system",
				       .installer_namespace = "istio-system",
				       .daemon_set_name = "istio-cni-node",
				       .defaults = &defaults };
	namespace_from_json(cJSON_GetObjectItemCaseSensitive(json, "namespace"), NULL, &object);
	if (pod_from_json(cJSON_GetObjectItemCaseSensitive(json, "pod"), NULL, &pod) == 0) {
		decide(&selection, pod, object);
		selection.allow_pod_exclusions = true;
		decide(&selection, pod, object);
		selection.releases_all = true;
		decide(&selection, pod, object);
	}
	if (object)
		selection_namespace_is_outside(&selection, object);
	enablement_selectors_clear(&selectors);
	return 0;
}
