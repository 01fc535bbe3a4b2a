/* Which pods belong to the mesh and how each is redirected: every opt-out, every operator, every spelling of a boolean. */
#include "tests/unit/cmocka_headers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/redirect.h"
#include "installer/mesh/selection.h"

static const char *const excluded[] = { "kube-system", "other-system" };

static struct pod *make_pod(const char *text)
{
	cleanup_cjson cJSON *json = cJSON_Parse(text);
	struct error error = { 0 };
	struct pod *pod = NULL;
	assert_non_null(json);
	if (pod_from_json(json, &error, &pod) < 0)
		fail_msg("%s", error.message);
	return pod;
}

/* `metadata` and `rest` are members of the objects, with a comma before. */
static struct pod *pod_of(const char *namespace_name, const char *name, const char *metadata, const char *rest)
{
	char text[2048];
	snprintf(text, sizeof text, "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\",\"uid\":\"u\"%s}%s}", name,
		 namespace_name, metadata, rest);
	return make_pod(text);
}

static struct namespace_object *namespace_of(const char *name, const char *labels)
{
	char text[1024];
	snprintf(text, sizeof text, "{\"metadata\":{\"name\":\"%s\",\"uid\":\"n\",\"labels\":{%s}}}", name, labels);
	cleanup_cjson cJSON *json = cJSON_Parse(text);
	struct namespace_object *object = NULL;
	assert_non_null(json);
	assert_int_equal(namespace_from_json(json, NULL, &object), 0);
	return object;
}

static struct selection selection_with(const struct enablement_selectors *selectors, const struct redirect *defaults)
{
	return (struct selection){
		.selectors = selectors,
		.exclude_namespaces = excluded,
		.exclude_namespaces_count = 2,
		.system_namespace = "istio-system",
		.installer_namespace = "cni-system",
		.daemon_set_name = "istio-cni-node",
		.defaults = defaults,
	};
}

#define AMBIENT "\"istio.io/dataplane-mode\":\"ambient\""
#define NONE "\"istio.io/dataplane-mode\":\"none\""
#define OTHER "\"istio.io/dataplane-mode\":\"sidecar\""
#define LABELS(text) ",\"labels\":{" text "}"
#define SIDECAR ",\"annotations\":{\"sidecar.istio.io/status\":\"\"}"

static void who_belongs(void **state)
{
	(void)state;
	static const struct {
		const char *namespace_name, *name, *metadata, *rest, *namespace_labels;
		bool wanted, by_pod_label;
		const char *reason;
	} cases[] = {
		/* The default pair. */
		{ "shop", "cart", "", "", "", false, false, "no enablement selector matches" },
		{ "shop", "cart", LABELS(AMBIENT), "", "", true, true, "the pod has label" },
		{ "shop", "cart", "", "", AMBIENT, true, false, "its namespace has label" },
		{ "shop", "cart", LABELS(AMBIENT), "", AMBIENT, true, true, "the pod has label" },
		{ "shop", "cart", LABELS(AMBIENT), "", NONE, true, true, "the pod has label" },
		{ "shop", "cart", LABELS(NONE), "", AMBIENT, false, false, "istio.io/dataplane-mode=none" },
		{ "shop", "cart", LABELS(OTHER), "", AMBIENT, true, false, "its namespace has label" },
		{ "shop", "cart", LABELS(OTHER), "", "", false, false, "no enablement selector matches" },
		{ "shop", "cart", "", "", NONE, false, false, "no enablement selector matches" },
		{ "shop", "cart", LABELS("\"istio.io/dataplane-mode\":\"Ambient\""), "", "", false, false, "no enablement" },
		/* What goes before any label. */
		{ "shop", "cart", LABELS(AMBIENT), ",\"spec\":{\"hostNetwork\":true}", AMBIENT, false, false, "hostNetwork" },
		{ "shop", "cart", LABELS(AMBIENT), ",\"spec\":{\"hostNetwork\":false}", AMBIENT, true, true, "the pod has" },
		{ "shop", "cart", LABELS(AMBIENT) SIDECAR, "", AMBIENT, false, false, "sidecar" },
		{ "kube-system", "dns", LABELS(AMBIENT), "", AMBIENT, false, false, "kube-system is excluded" },
		{ "other-system", "dns", LABELS(AMBIENT), "", AMBIENT, false, false, "other-system is excluded" },
		{ "kube-system-2", "dns", LABELS(AMBIENT), "", "", true, true, "the pod has" },
		{ "istio-system", "ztunnel-x", LABELS("\"app\":\"ztunnel\"," AMBIENT), "", AMBIENT, false, false,
		  "the tunnel" },
		{ "istio-system", "ztunnel-x", LABELS("\"app\":\"other\""), "", AMBIENT, true, false, "its namespace" },
		{ "shop", "ztunnel-x", LABELS("\"app\":\"ztunnel\"," AMBIENT), "", "", true, true, "the pod has" },
		{ "cni-system", "x", LABELS("\"k8s-app\":\"istio-cni-node\"," AMBIENT), "", "", false, false,
		  "this node agent" },
		{ "cni-system", "istio-cni-node-x", LABELS(AMBIENT), "", AMBIENT, false, false, "this node agent" },
		{ "cni-system", "istio-cni-nodes", LABELS(AMBIENT), "", "", true, true, "the pod has" },
		{ "shop", "istio-cni-node-x", LABELS("\"k8s-app\":\"istio-cni-node\"," AMBIENT), "", "", true, true,
		  "the pod" },
		{ "shop", "job", LABELS(AMBIENT), ",\"status\":{\"phase\":\"Succeeded\"}", "", false, false, "has ended" },
		{ "shop", "job", LABELS(AMBIENT), ",\"status\":{\"phase\":\"Failed\"}", "", false, false, "has ended" },
		{ "shop", "job", LABELS(AMBIENT), ",\"status\":{\"phase\":\"Running\"}", "", true, true, "the pod has" },
		{ "shop", "job", LABELS(AMBIENT), ",\"status\":{\"phase\":\"Unknown\"}", "", true, true, "the pod has" },
	};
	__attribute__((cleanup(enablement_selectors_clear))) struct enablement_selectors selectors = { 0 };
	cleanup_redirect struct redirect defaults;
	redirect_init(&defaults);
	assert_int_equal(enablement_selectors_default(NULL, &selectors), 0);
	struct selection selection = selection_with(&selectors, &defaults);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_pod struct pod *pod = pod_of(cases[i].namespace_name, cases[i].name, cases[i].metadata, cases[i].rest);
		cleanup_namespace struct namespace_object *object =
			namespace_of(cases[i].namespace_name, cases[i].namespace_labels);
		struct selection_decision decision;
		selection_decide(&selection, pod, object, &decision);
		if (decision.wanted != cases[i].wanted || decision.by_pod_label != cases[i].by_pod_label ||
		    !strstr(decision.reason, cases[i].reason))
			fail_msg("case %zu: wanted %d, by the pod's label %d: %s", i, decision.wanted, decision.by_pod_label,
				 decision.reason);
		/* A namespace whose pods without labels belong is never told to be outside. */
		if (decision.wanted && !decision.by_pod_label)
			assert_false(selection_namespace_is_outside(&selection, object));
	}
	/* Uninstalling goes before everything. */
	cleanup_pod struct pod *pod = pod_of("shop", "cart", LABELS(AMBIENT), "");
	struct selection_decision decision;
	selection.releases_all = true;
	selection_decide(&selection, pod, NULL, &decision);
	assert_false(decision.wanted);
}

static void namespaces_outside(void **state)
{
	(void)state;
	static const struct {
		const char *name, *labels;
		bool is_outside;
	} cases[] = {
		{ "shop", "", true }, { "shop", AMBIENT, false }, { "shop", NONE, true }, { "kube-system", AMBIENT, true }
	};
	__attribute__((cleanup(enablement_selectors_clear))) struct enablement_selectors selectors = { 0 };
	assert_int_equal(enablement_selectors_default(NULL, &selectors), 0);
	const struct selection selection = selection_with(&selectors, NULL);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		cleanup_namespace struct namespace_object *object = namespace_of(cases[i].name, cases[i].labels);
		assert_int_equal(selection_namespace_is_outside(&selection, object), cases[i].is_outside);
	}
}

static bool matches(const char *selector, const char *labels)
{
	char text[512];
	struct error error = { 0 };
	__attribute__((cleanup(enablement_selectors_clear))) struct enablement_selectors selectors = { 0 };
	snprintf(text, sizeof text, "[{\"podSelector\":%s}]", selector);
	cleanup_cjson cJSON *json = cJSON_Parse(text);
	assert_non_null(json);
	if (enablement_selectors_from_json(json, "enablementSelectors", &error, &selectors) < 0)
		fail_msg("%s: %s", selector, error.message);
	snprintf(text, sizeof text, ",\"labels\":{%s}", labels);
	cleanup_pod struct pod *pod = pod_of("shop", "cart", text, "");
	/* An absent selector of namespaces matches all. */
	assert_true(selector_matches(&selectors.items[0].namespace_object, &pod->labels));
	return selector_matches(&selectors.items[0].pod, &pod->labels);
}

/* As Kubernetes' labels.Requirement.Matches has it. */
static void operators(void **state)
{
	(void)state;
#define EXPRESSION(operator, values) "{\"matchExpressions\":[{\"key\":\"k\",\"operator\":\"" operator"\"" values "}]}"
	static const struct {
		const char *selector;
		bool absent, a, b;
	} cases[] = {
		{ "{}", true, true, true },
		{ "{\"matchLabels\":{}}", true, true, true },
		{ "{\"matchLabels\":{\"k\":\"a\"}}", false, true, false },
		{ "{\"matchLabels\":{\"k\":\"\"}}", false, false, false },
		{ EXPRESSION("In", ",\"values\":[\"a\"]"), false, true, false },
		{ EXPRESSION("In", ",\"values\":[\"x\",\"b\"]"), false, false, true },
		{ EXPRESSION("NotIn", ",\"values\":[\"a\"]"), true, false, true },
		{ EXPRESSION("NotIn", ",\"values\":[\"a\",\"b\"]"), true, false, false },
		{ EXPRESSION("Exists", ""), false, true, true },
		{ EXPRESSION("DoesNotExist", ",\"values\":[]"), true, false, false },
		{ "{\"matchLabels\":{\"k\":\"a\",\"l\":\"a\"}}", false, false, false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (matches(cases[i].selector, "") != cases[i].absent ||
		    matches(cases[i].selector, "\"k\":\"a\"") != cases[i].a ||
		    matches(cases[i].selector, "\"k\":\"b\",\"m\":\"a\"") != cases[i].b)
			fail_msg("%s", cases[i].selector);
	}
	static const char *const wrong[][2] = {
		{ "{}", "a list" },
		{ "[1]", "enablementSelectors[0]" },
		{ "[{},{\"podSelector\":[]}]", "enablementSelectors[1]" },
		{ "[{\"podSelector\":{\"matchLabels\":{\"k\":1}}}]", "podSelector.matchLabels.k" },
		{ "[{\"podSelector\":" EXPRESSION("in", ",\"values\":[\"a\"]") "}]", "found in" },
		{ "[{\"podSelector\":" EXPRESSION("In", "") "}]", "at least one value" },
		{ "[{\"podSelector\":" EXPRESSION("Exists", ",\"values\":[\"a\"]") "}]", "needs none" },
		{ "[{\"podSelector\":" EXPRESSION("In", ",\"values\":[1]") "}]", "expected strings" },
		{ "[{\"namespaceSelector\":{\"matchExpressions\":[{\"operator\":\"Exists\"}]}}]", "key is missing" },
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct error error = { 0 };
		struct enablement_selectors selectors = { 0 };
		cleanup_cjson cJSON *json = cJSON_Parse(wrong[i][0]);
		assert_non_null(json);
		assert_int_equal(enablement_selectors_from_json(json, "enablementSelectors", &error, &selectors), -1);
		assert_null(selectors.items);
		if (!strstr(error.message, wrong[i][1]))
			fail_msg("%s: %s", wrong[i][0], error.message);
	}
}

static void redirect_of(const char *annotations, bool allow, struct redirect *ret_redirect, char *warning)
{
	char text[1024];
	cleanup_redirect struct redirect defaults;
	redirect_init(&defaults);
	struct selection selection = selection_with(NULL, &defaults);
	struct error error = { 0 };
	selection.allow_pod_exclusions = allow;
	snprintf(text, sizeof text, ",\"annotations\":{%s}", annotations);
	cleanup_pod struct pod *pod = pod_of("shop", "cart", text, "");
	if (selection_redirect(&selection, pod, &error, ret_redirect, warning) < 0)
		fail_msg("%s", error.message);
}

/* Go's strconv.ParseBool. */
static void booleans(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int value; /* -1: none */
	} cases[] = { { "1", 1 },      { "t", 1 },    { "T", 1 },   { "TRUE", 1 },  { "true", 1 },  { "True", 1 },
		      { "0", 0 },      { "f", 0 },    { "F", 0 },   { "FALSE", 0 }, { "false", 0 }, { "False", 0 },
		      { "", -1 },      { "yes", -1 }, { "on", -1 }, { "tRUE", -1 }, { "2", -1 },    { "true ", -1 },
		      { " true", -1 }, { "01", -1 },  { "no", -1 }, { "none", -1 }, { "TrUe", -1 }, { "false\\n", -1 } };
	static const char *const names[] = { "ambient.istio.io/dns-capture", "ambient.istio.io/bypass-inbound-capture" };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (size_t name = 0; name < 2; name++) {
			char annotation[128], warning[SELECTION_WARNING_MAX];
			cleanup_redirect struct redirect redirect = { 0 };
			snprintf(annotation, sizeof annotation, "\"%s\":\"%s\"", names[name], cases[i].text);
			redirect_of(annotation, false, &redirect, warning);
			bool value = name == 0 ? redirect.dns_capture : redirect.bypass_inbound, usual = name == 0;
			if (value != (cases[i].value < 0 ? usual : cases[i].value == 1))
				fail_msg("%s", annotation);
			/* What is ignored is reported, with its name. */
			assert_int_equal(warning[0] != '\0', cases[i].value < 0);
			if (cases[i].value < 0)
				assert_non_null(strstr(warning, names[name]));
		}
	}
}

static void exclusions_need_the_operators_leave(void **state)
{
	(void)state;
	static const char annotations[] = "\"ambient-cni.io/exclude-outbound-ports\":\"99, 5000-5010\","
					  "\"ambient-cni.io/exclude-outbound-ranges\":\"192.0.2.0/24,2001:db8::/32\","
					  "\"ambient-cni.io/exclude-inbound-ports\":\"8081\","
					  "\"ambient-cni.io/exclude-interfaces\":\"net1\"";
	char warning[SELECTION_WARNING_MAX];
	cleanup_redirect struct redirect allowed = { 0 }, refused = { 0 }, wrong = { 0 }, usual;
	redirect_init(&usual);
	redirect_of(annotations, true, &allowed, warning);
	assert_string_equal(warning, "");
	assert_false(redirect_equal(&allowed, &usual));
	redirect_of(annotations, false, &refused, warning);
	assert_true(redirect_equal(&refused, &usual));
	assert_non_null(strstr(warning, "allowPodExclusions"));
	/* One that is wrong leaves the others. */
	redirect_of("\"ambient-cni.io/exclude-outbound-ports\":\"0\",\"ambient-cni.io/exclude-inbound-ports\":\"8081\"", true,
		    &wrong, warning);
	assert_non_null(strstr(warning, "exclude-outbound-ports"));
	assert_null(strstr(warning, "exclude-inbound-ports"));
	assert_false(redirect_equal(&wrong, &usual));
}

/* A warning is cut, never more than its room. */
static void long_annotations(void **state)
{
	(void)state;
	char annotations[900], warning[SELECTION_WARNING_MAX];
	cleanup_redirect struct redirect redirect = { 0 };
	int length = snprintf(annotations, sizeof annotations, "\"ambient.istio.io/dns-capture\":\"");
	memset(annotations + length, 'x', 700);
	snprintf(annotations + length + 700, sizeof annotations - (size_t)length - 700,
		 "\",\"ambient.istio.io/bypass-inbound-capture\":\"y\"");
	redirect_of(annotations, false, &redirect, warning);
	assert_int_equal(strlen(warning), SELECTION_WARNING_MAX - 1);
	assert_true(redirect.dns_capture);
}

static void only_labels_that_decide_are_kept(void **state)
{
	(void)state;
	__attribute__((cleanup(enablement_selectors_clear))) struct enablement_selectors selectors = { 0 };
	cleanup_cjson cJSON *json = cJSON_Parse("[{\"namespaceSelector\":{\"matchLabels\":{\"team\":\"x\"}}}]");
	assert_int_equal(enablement_selectors_from_json(json, "s", NULL, &selectors), 0);
	const struct selection selection = selection_with(&selectors, NULL);
	cleanup_namespace struct namespace_object *object = namespace_of("shop", "\"a\":\"b\",\"team\":\"x\"," AMBIENT);
	selection_trim_namespace(&selection, object);
	assert_int_equal(object->labels.count, 2);
	assert_string_equal(labels_get(&object->labels, "team"), "x");
	assert_string_equal(labels_get(&object->labels, "istio.io/dataplane-mode"), "ambient");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_belongs),
		cmocka_unit_test(namespaces_outside),
		cmocka_unit_test(operators),
		cmocka_unit_test(booleans),
		cmocka_unit_test(exclusions_need_the_operators_leave),
		cmocka_unit_test(long_annotations),
		cmocka_unit_test(only_labels_that_decide_are_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
