/* Which pods belong to the mesh. See selection.h.
 *
 * Opt-outs come first and are told by name: a person who asks why a labelled pod is not in the mesh wants to read "it runs in
 * the host's network", not "no selector matches". */
#include "installer/mesh/selection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

static void selector_clear(struct selector *selector)
{
	for (size_t i = 0; i < selector->requirements_count; i++) {
		struct selector_requirement *requirement = &selector->requirements[i];
		free(requirement->key);
		for (size_t value = 0; value < requirement->values_count; value++)
			free(requirement->values[value]);
		free(requirement->values);
	}
	free(selector->requirements);
	*selector = (struct selector){ 0 };
}

void enablement_selectors_clear(struct enablement_selectors *selectors)
{
	for (size_t i = 0; i < selectors->count; i++) {
		selector_clear(&selectors->items[i].pod);
		selector_clear(&selectors->items[i].namespace_object);
	}
	free(selectors->items);
	*selectors = (struct enablement_selectors){ 0 };
}

static struct selector_requirement *add_requirement(struct selector *selector, const char *key, enum selector_operator operator,
						    struct error * error)
{
	struct selector_requirement *requirements =
		reallocarray(selector->requirements, selector->requirements_count + 1, sizeof *requirements);
	char *copy = strdup(key);
	if (requirements)
		selector->requirements = requirements;
	if (!requirements || !copy) {
		free(copy);
		error_set(error, ENOMEM, "cannot keep a selector");
		return NULL;
	}
	struct selector_requirement *requirement = &requirements[selector->requirements_count++];
	*requirement = (struct selector_requirement){ .key = copy, .operator= operator};
	return requirement;
}

static int add_value(struct selector_requirement *requirement, const char *value, struct error *error)
{
	char **values = reallocarray(requirement->values, requirement->values_count + 1, sizeof *values);
	char *copy = strdup(value);
	if (values)
		requirement->values = values;
	if (!values || !copy) {
		free(copy);
		return error_set(error, ENOMEM, "cannot keep a selector");
	}
	values[requirement->values_count++] = copy;
	return 0;
}

static int read_expression(const cJSON *json, const char *where, struct error *error, struct selector *selector)
{
	static const struct {
		const char *name;
		enum selector_operator operator;
	} operators[] = {
		{ "In", SELECTOR_IN },
		{ "NotIn", SELECTOR_NOT_IN },
		{ "Exists", SELECTOR_EXISTS },
		{ "DoesNotExist", SELECTOR_DOES_NOT_EXIST },
	};
	const char *key = NULL, *name = NULL;
	const cJSON *values = NULL;
	if (!cJSON_IsObject(json))
		return error_set(error, 0, "%s: expected an object with key, operator and values, found %s", where,
				 json_type_name(json));
	if (json_get_string(json, "key", where, error, &key) < 0 ||
	    json_get_string(json, "operator", where, error, &name) < 0 ||
	    json_get_array(json, "values", where, error, &values) < 0)
		return -1;
	if (!key)
		return error_set(error, 0, "%s.key is missing: expected a label's key", where);
	for (size_t i = 0; name && i < sizeof operators / sizeof operators[0]; i++) {
		if (strcmp(operators[i].name, name) != 0)
			continue;
		bool needs_values = operators[i].operator== SELECTOR_IN || operators[i].operator== SELECTOR_NOT_IN;
		if (needs_values != (cJSON_GetArraySize(values) > 0))
			return error_set(error, 0, "%s.values: operator %s needs %s", where, name,
					 needs_values ? "at least one value" : "none");
		struct selector_requirement *requirement = add_requirement(selector, key, operators[i].operator, error);
		if (!requirement)
			return -1;
		const cJSON *value;
		cJSON_ArrayForEach (value, values) {
			if (!cJSON_IsString(value))
				return error_set(error, 0, "%s.values: expected strings, found %s", where,
						 json_type_name(value));
			if (add_value(requirement, value->valuestring, error) < 0)
				return -1;
		}
		return 0;
	}
	return error_set(error, 0, "%s.operator: expected In, NotIn, Exists or DoesNotExist, found %s", where,
			 name ? name : "nothing");
}

static int read_selector(const cJSON *object, const char *key, const char *where, struct error *error,
			 struct selector *selector)
{
	char place[160];
	const cJSON *json = NULL, *labels = NULL, *expressions = NULL;
	if (json_get_object(object, key, where, error, &json) < 0)
		return -1;
	if (!json)
		return 0;
	snprintf(place, sizeof place, "%s.%s", where, key);
	if (json_get_object(json, "matchLabels", place, error, &labels) < 0 ||
	    json_get_array(json, "matchExpressions", place, error, &expressions) < 0)
		return -1;
	const cJSON *entry;
	cJSON_ArrayForEach (entry, labels) {
		if (!cJSON_IsString(entry))
			return error_set(error, 0, "%s.matchLabels.%s: expected a string, found %s", place, entry->string,
					 json_type_name(entry));
		struct selector_requirement *requirement = add_requirement(selector, entry->string, SELECTOR_IN, error);
		if (!requirement || add_value(requirement, entry->valuestring, error) < 0)
			return -1;
	}
	size_t index = 0;
	cJSON_ArrayForEach (entry, expressions) {
		char expression_place[200];
		snprintf(expression_place, sizeof expression_place, "%s.matchExpressions[%zu]", place, index++);
		if (read_expression(entry, expression_place, error, selector) < 0)
			return -1;
	}
	return 0;
}

int enablement_selectors_from_json(const cJSON *json, const char *where, struct error *error,
				   struct enablement_selectors *ret_selectors)
{
	__attribute__((cleanup(enablement_selectors_clear))) struct enablement_selectors selectors = { 0 };
	if (!cJSON_IsArray(json))
		return error_set(error, 0, "%s: expected a list of objects with podSelector and namespaceSelector, found %s",
				 where, json_type_name(json));
	size_t count = (size_t)cJSON_GetArraySize(json);
	selectors.items = calloc(count ? count : 1, sizeof *selectors.items);
	if (!selectors.items)
		return error_set(error, ENOMEM, "cannot keep %s", where);
	const cJSON *entry;
	cJSON_ArrayForEach (entry, json) {
		char place[128];
		snprintf(place, sizeof place, "%s[%zu]", where, selectors.count);
		if (!cJSON_IsObject(entry))
			return error_set(error, 0, "%s: expected an object with podSelector and namespaceSelector, found %s",
					 place, json_type_name(entry));
		struct enablement_selector *item = &selectors.items[selectors.count++];
		if (read_selector(entry, "podSelector", place, error, &item->pod) < 0 ||
		    read_selector(entry, "namespaceSelector", place, error, &item->namespace_object) < 0)
			return -1;
	}
	*ret_selectors = selectors;
	selectors = (struct enablement_selectors){ 0 };
	return 0;
}

int enablement_selectors_default(struct error *error, struct enablement_selectors *ret_selectors)
{
	cleanup_cjson cJSON *json = cJSON_Parse(ENABLEMENT_SELECTORS_DEFAULT);
	if (!json)
		return error_set(error, ENOMEM, "cannot keep the default enablementSelectors");
	return enablement_selectors_from_json(json, "enablementSelectors", error, ret_selectors);
}

bool selector_matches(const struct selector *selector, const struct labels *labels)
{
	for (size_t i = 0; i < selector->requirements_count; i++) {
		const struct selector_requirement *requirement = &selector->requirements[i];
		const char *found = labels_get(labels, requirement->key);
		bool is_listed = false;
		for (size_t value = 0; found && value < requirement->values_count; value++)
			is_listed |= strcmp(requirement->values[value], found) == 0;
		bool matches = false;
		switch (requirement->operator) {
		case SELECTOR_IN:
			matches = is_listed;
			break;
		case SELECTOR_NOT_IN: /* Kubernetes: an absent key is not in the list either */
			matches = !is_listed;
			break;
		case SELECTOR_EXISTS:
			matches = found != NULL;
			break;
		case SELECTOR_DOES_NOT_EXIST:
			matches = !found;
			break;
		}
		if (!matches)
			return false;
	}
	return true;
}

static bool decides(const void *data, const char *key)
{
	const struct enablement_selectors *selectors = data;
	if (strcmp(key, LABEL_DATAPLANE_MODE) == 0) /* reasons name it */
		return true;
	for (size_t i = 0; i < selectors->count; i++) {
		const struct selector *selector = &selectors->items[i].namespace_object;
		for (size_t j = 0; j < selector->requirements_count; j++)
			if (strcmp(selector->requirements[j].key, key) == 0)
				return true;
	}
	return false;
}

void selection_trim_namespace(const struct selection *selection, struct namespace_object *namespace_object)
{
	labels_filter(&namespace_object->labels, decides, selection->selectors);
}

bool selection_is_excluded(const struct selection *selection, const char *namespace_name)
{
	for (size_t i = 0; i < selection->exclude_namespaces_count; i++)
		if (strcmp(selection->exclude_namespaces[i], namespace_name) == 0)
			return true;
	return false;
}

static bool has_label(const struct labels *labels, const char *key, const char *value)
{
	const char *found = labels_get(labels, key);
	return found && strcmp(found, value) == 0;
}

static bool is_installer(const struct selection *selection, const struct pod *pod)
{
	size_t length = strlen(selection->daemon_set_name);
	return strcmp(pod->namespace_name, selection->installer_namespace) == 0 &&
	       (has_label(&pod->labels, "k8s-app", "istio-cni-node") ||
		(strncmp(pod->name, selection->daemon_set_name, length) == 0 && pod->name[length] == '-'));
}

#define DECIDE(decision, is_wanted, ...)                                                                                       \
	do {                                                                                                                   \
		(decision)->wanted = (is_wanted);                                                                              \
		snprintf((decision)->reason, sizeof(decision)->reason, __VA_ARGS__);                                           \
	} while (0)

/* Words for a label that is or is not there: "label istio.io/dataplane-mode=ambient". */
static void describe_mode(const struct labels *labels, char *text, size_t size)
{
	const char *mode = labels_get(labels, LABEL_DATAPLANE_MODE);
	snprintf(text, size, mode ? "label %s=%s" : "no label %s%s", LABEL_DATAPLANE_MODE, mode ? mode : "");
}

void selection_decide(const struct selection *selection, const struct pod *pod, const struct namespace_object *namespace_object,
		      struct selection_decision *ret_decision)
{
	static const struct labels no_labels = { 0 };
	const struct labels *namespace_labels = namespace_object ? &namespace_object->labels : &no_labels;
	struct selection_decision decision = { 0 };
	char pod_mode[96], namespace_mode[96];
	describe_mode(&pod->labels, pod_mode, sizeof pod_mode);
	describe_mode(namespace_labels, namespace_mode, sizeof namespace_mode);

	if (selection->releases_all)
		DECIDE(&decision, false, "ambient-cni is being uninstalled");
	else if (pod->host_network)
		DECIDE(&decision, false, "the pod runs in the host's network (spec.hostNetwork)");
	else if (labels_get(&pod->annotations, ANNOTATION_SIDECAR))
		DECIDE(&decision, false, "the pod has a sidecar (annotation " ANNOTATION_SIDECAR ")");
	else if (selection_is_excluded(selection, pod->namespace_name))
		DECIDE(&decision, false, "namespace %s is excluded (setting excludeNamespaces)", pod->namespace_name);
	else if (strcmp(pod->namespace_name, selection->system_namespace) == 0 && has_label(&pod->labels, "app", "ztunnel"))
		DECIDE(&decision, false, "the pod is the tunnel (label app=ztunnel in namespace %s)", pod->namespace_name);
	else if (is_installer(selection, pod))
		DECIDE(&decision, false, "the pod is this node agent");
	else if (pod->has_ended)
		DECIDE(&decision, false, "the pod has ended (status.phase)");
	else
		DECIDE(&decision, false, "no enablement selector matches: the pod has %s, its namespace has %s", pod_mode,
		       namespace_object ? namespace_mode : "not been seen yet");
	bool may_match = strncmp(decision.reason, "no enablement", strlen("no enablement")) == 0;
	for (size_t i = 0; may_match && i < selection->selectors->count; i++) {
		const struct enablement_selector *item = &selection->selectors->items[i];
		if (!selector_matches(&item->pod, &pod->labels) || !selector_matches(&item->namespace_object, namespace_labels))
			continue;
		decision.by_pod_label = !selector_matches(&item->pod, &no_labels);
		DECIDE(&decision, true, "%s %s (enablementSelectors[%zu])",
		       decision.by_pod_label ? "the pod has" : "its namespace has",
		       decision.by_pod_label ? pod_mode : namespace_mode, i);
		break;
	}
	*ret_decision = decision;
}

bool selection_namespace_is_outside(const struct selection *selection, const struct namespace_object *namespace_object)
{
	static const struct labels no_labels = { 0 };
	if (selection_is_excluded(selection, namespace_object->name))
		return true;
	for (size_t i = 0; i < selection->selectors->count; i++) {
		const struct enablement_selector *item = &selection->selectors->items[i];
		if (selector_matches(&item->pod, &no_labels) &&
		    selector_matches(&item->namespace_object, &namespace_object->labels))
			return false;
	}
	return true;
}
