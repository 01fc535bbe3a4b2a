/* What explain finds wrong with a pod first, and what it advises: one case for each thing that can be wrong. */
#include <stdlib.h>
#include <string.h>

#include "ambient/json.h"
#include "installer/cli/diagnosis.h"
#include "tests/unit/cmocka_headers.h"

#define AGENT                                                                                                                  \
	"{\"node\":\"n\",\"systemNamespace\":\"istio-system\",\"installerNamespace\":\"istio-system\",\"daemonSet\":\"istio-"  \
	"cni-node\"}"
#define BOTH "\"ipv4 ipv6\""
#define WELL                                                                                                                   \
	"{\"namespace\":\"shop\",\"name\":\"cart\",\"wanted\":true,\"state\":\"enabled\",\"reason\":\"label\",\"waitingFor\":" \
	"\"\","                                                                                                                \
	"\"netns\":{\"inode\":\"7\"},\"addresses\":[\"10.0.0.1\",\"fd00::1\"],"                                                \
	"\"rules\":{\"stage\":\"full\",\"difference\":\"\",\"redirect\":{\"ipv6\":true,\"dnsCapture\":true}},"                 \
	"\"tunnel\":{\"acknowledged\":true,\"connections\":1,\"listening\":{\"15001\":" BOTH ",\"15006\":" BOTH                \
	",\"15008\":" BOTH ",\"15053/tcp\":" BOTH ",\"15053/udp\":" BOTH "}},"                                                 \
	"\"probe\":true,\"annotation\":\"enabled\",\"lastError\":\"\",\"lastErrorStep\":\"\"}"

/* The healthy pod with one value (JSON) put in at "key" or "key.key" or "key.key.key". */
static void diagnose_changed(const char *path, const char *value, struct diagnosis *ret_diagnosis)
{
	cleanup_cjson cJSON *pod = cJSON_Parse(WELL), *agent = cJSON_Parse(AGENT);
	assert_non_null(pod);
	assert_non_null(agent);
	cJSON *place = pod;
	char *copy = strdup(path), *rest = NULL, *key = strtok_r(copy, ".", &rest);
	for (char *next; (next = strtok_r(NULL, ".", &rest)); key = next)
		place = cJSON_GetObjectItemCaseSensitive(place, key);
	cJSON_DeleteItemFromObjectCaseSensitive(place, key);
	assert_true(cJSON_AddItemToObject(place, key, cJSON_Parse(value)));
	free(copy);
	diagnose(pod, agent, ret_diagnosis);
}

static void expect_wrong(const char *path, const char *value, const char *finding, const char *next)
{
	struct diagnosis diagnosis;
	diagnose_changed(path, value, &diagnosis);
	assert_true(diagnosis.is_wrong);
	if (!strstr(diagnosis.finding, finding) || !strstr(diagnosis.next, next))
		fail_msg("%s = %s: %s; next: %s", path, value, diagnosis.finding, diagnosis.next);
}

static void expect_well(const char *path, const char *value, const char *finding)
{
	struct diagnosis diagnosis;
	diagnose_changed(path, value, &diagnosis);
	if (diagnosis.is_wrong || !strstr(diagnosis.finding, finding))
		fail_msg("%s = %s: %s", path, value, diagnosis.finding);
}

static void test_well(void **state)
{
	(void)state;
	expect_well("name", "\"cart\"", "nothing is wrong with it on this node");
}

static void test_each_thing_that_can_be_wrong(void **state)
{
	(void)state;
	expect_wrong("netns.inode", "\"0\"", "network namespace has not been found", "kubectl describe pod -n shop cart");
	expect_wrong("tunnel.connections", "0", "enrolled and no tunnel is connected", "-l app=ztunnel");
	expect_wrong("rules.stage", "\"guard\"", "the redirection does not stand", "grep 'pod=shop/cart'");
	expect_wrong("rules.difference", "\"rule 1 is missing\"", "rule 1 is missing", "kubectl logs");
	expect_wrong("probe", "false", "probes", "doctor");
	expect_wrong("annotation", "\"\"", "peers send plain text", "kubectl get pod");
	expect_wrong("tunnel.listening.15008", "\"\"", "nothing listens on port 15008", "kubectl logs -n istio-system");
}

static void test_an_error_goes_first(void **state)
{
	(void)state;
	cleanup_cjson cJSON *pod = cJSON_Parse(WELL), *agent = cJSON_Parse(AGENT);
	struct diagnosis diagnosis;
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "lastError", cJSON_CreateString("the server says no"));
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "lastErrorStep", cJSON_CreateString("annotation"));
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "annotation", cJSON_CreateString(""));
	diagnose(pod, agent, &diagnosis);
	assert_true(diagnosis.is_wrong);
	assert_non_null(strstr(diagnosis.finding, "the server says no"));
	assert_non_null(strstr(diagnosis.next, "kubectl auth can-i patch pods --subresource=status"));
}

static void test_a_tunnel_without_ipv6(void **state)
{
	(void)state;
	expect_wrong("tunnel.listening.15006", "\"ipv4\"", "for IPv4 only", "IPV6_ENABLED");
	struct diagnosis diagnosis;
	cleanup_cjson cJSON *pod = cJSON_Parse(WELL), *agent = cJSON_Parse(AGENT);
	cJSON *listening = cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(pod, "tunnel"), "listening");
	cJSON_ReplaceItemInObjectCaseSensitive(listening, "15006", cJSON_CreateString("ipv4"));
	/* Nobody misses it in a pod that has no IPv6 address. */
	cJSON_DeleteItemFromArray(cJSON_GetObjectItemCaseSensitive(pod, "addresses"), 1);
	diagnose(pod, agent, &diagnosis);
	assert_false(diagnosis.is_wrong);
}

static void test_outside(void **state)
{
	(void)state;
	cleanup_cjson cJSON *pod = cJSON_Parse(WELL), *agent = cJSON_Parse(AGENT);
	struct diagnosis diagnosis;
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "wanted", cJSON_CreateFalse());
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "state", cJSON_CreateString("none"));
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "reason", cJSON_CreateString("no enablement selector matches"));
	diagnose(pod, agent, &diagnosis);
	assert_false(diagnosis.is_wrong);
	assert_string_equal(diagnosis.next, "ambient-installer preview shop");
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "reason", cJSON_CreateString("the pod has a sidecar"));
	diagnose(pod, agent, &diagnosis);
	assert_string_equal(diagnosis.next, "");
	cJSON_ReplaceItemInObjectCaseSensitive(pod, "lastError", cJSON_CreateString("no room"));
	diagnose(pod, agent, &diagnosis);
	assert_true(diagnosis.is_wrong);
	assert_non_null(strstr(diagnosis.finding, "no room"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_well),
		cmocka_unit_test(test_each_thing_that_can_be_wrong),
		cmocka_unit_test(test_an_error_goes_first),
		cmocka_unit_test(test_a_tunnel_without_ipv6),
		cmocka_unit_test(test_outside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
