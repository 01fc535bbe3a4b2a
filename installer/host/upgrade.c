/* Replaced or uninstalled? See upgrade.h. */
#include "installer/host/upgrade.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const cJSON *object, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static const cJSON *member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool is_one_of(const char *value, const cJSON *values)
{
	const cJSON *entry;
	cJSON_ArrayForEach (entry, values) {
		if (cJSON_IsString(entry) && strcmp(entry->valuestring, value) == 0)
			return true;
	}
	return false;
}

/* Gt and Lt compare integers; what is none matches nothing (k8s.io/component-helpers, nodeaffinity). */
static bool compare_integers(const char *value, const cJSON *values, bool greater)
{
	const cJSON *limit = cJSON_GetArrayItem(values, 0);
	char *value_end = NULL, *limit_end = NULL;
	if (!value || !cJSON_IsString(limit) || cJSON_GetArraySize(values) != 1)
		return false;
	errno = 0;
	long long left = strtoll(value, &value_end, 10), right = strtoll(limit->valuestring, &limit_end, 10);
	if (errno != 0 || value_end == value || *value_end != '\0' || limit_end == limit->valuestring || *limit_end != '\0')
		return false;
	return greater ? left > right : left < right;
}

/* `value` is NULL where the node has no such label. */
static bool requirement_matches(const cJSON *requirement, const char *value)
{
	const char *operator= text_of(requirement, "operator");
	const cJSON *values = member(requirement, "values");
	if (!operator)
		return false;
	if (strcmp(operator, "In") == 0)
		return value && is_one_of(value, values);
	if (strcmp(operator, "NotIn") == 0)
		return !value || !is_one_of(value, values);
	if (strcmp(operator, "Exists") == 0)
		return value != NULL;
	if (strcmp(operator, "DoesNotExist") == 0)
		return value == NULL;
	if (strcmp(operator, "Gt") == 0 || strcmp(operator, "Lt") == 0)
		return compare_integers(value, values, strcmp(operator, "Gt") == 0);
	return false;
}

/* All requirements of a term must hold; a term without any matches nothing. */
static bool term_matches(const cJSON *term, const cJSON *node)
{
	const cJSON *metadata = member(node, "metadata"), *labels = member(metadata, "labels");
	const cJSON *expressions = member(term, "matchExpressions"), *fields = member(term, "matchFields"), *requirement;
	if (cJSON_GetArraySize(expressions) == 0 && cJSON_GetArraySize(fields) == 0)
		return false;
	cJSON_ArrayForEach (requirement, expressions) {
		const char *key = text_of(requirement, "key");
		if (!key || !requirement_matches(requirement, text_of(labels, key)))
			return false;
	}
	cJSON_ArrayForEach (requirement, fields) {
		const char *key = text_of(requirement, "key");
		if (!key || strcmp(key, "metadata.name") != 0 || !requirement_matches(requirement, text_of(metadata, "name")))
			return false;
	}
	return true;
}

/* Whether the DaemonSet's *required* node affinity lets its pods onto the node (matchExpressions and matchFields; In, NotIn,
 * Exists, DoesNotExist, Gt, Lt). Node selectors and taints count for nothing here: they are changed to and fro, and what was
 * installed stays. */
static bool affinity_matches(const cJSON *daemon_set, const cJSON *node)
{
	const cJSON *pod = member(member(member(daemon_set, "spec"), "template"), "spec");
	const cJSON *required =
		member(member(member(pod, "affinity"), "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution");
	const cJSON *terms = member(required, "nodeSelectorTerms"), *term;
	if (!cJSON_IsObject(required))
		return true;
	cJSON_ArrayForEach (term, terms) {
		if (term_matches(term, node))
			return true;
	}
	return false;
}

static enum upgrade_verdict say(enum upgrade_verdict verdict, char *reason, size_t size, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static enum upgrade_verdict say(enum upgrade_verdict verdict, char *reason, size_t size, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(reason, size, format, arguments);
	va_end(arguments);
	return verdict;
}

enum upgrade_verdict upgrade_decide(const struct upgrade_question *question, char *ret_reason, size_t size)
{
	int status = question->status;
	if (!question->safe_upgrade)
		return say(UPGRADE_UNINSTALL, ret_reason, size,
			   "safeUpgrade is false: a stop takes plugin and configuration away");
	if (status == 404)
		return say(UPGRADE_UNINSTALL, ret_reason, size, "our DaemonSet is gone");
	if ((status == 401 || status == 403) && question->refused_seconds < UPGRADE_REFUSED_SECONDS)
		return say(UPGRADE_ASK_AGAIN, ret_reason, size,
			   "the API refuses to tell whether our DaemonSet stands (status %d)", status);
	if (status == 401 || status == 403)
		return say(UPGRADE_UNINSTALL, ret_reason, size,
			   "the API has refused us for %d seconds (status %d): our account is gone", UPGRADE_REFUSED_SECONDS,
			   status);
	if (status == 0)
		return say(UPGRADE_KEEP, ret_reason, size,
			   "the API can't be reached: plugin and configuration stay, which is the safe side");
	if (status != 200 || !cJSON_IsObject(question->daemon_set))
		return say(UPGRADE_KEEP, ret_reason, size,
			   "the API does not tell whether our DaemonSet stands (status %d): plugin and configuration stay",
			   status);
	if (text_of(member(question->daemon_set, "metadata"), "deletionTimestamp"))
		return say(UPGRADE_UNINSTALL, ret_reason, size, "our DaemonSet is being deleted");
	if (cJSON_IsObject(question->node) && !affinity_matches(question->daemon_set, question->node))
		return say(UPGRADE_UNINSTALL, ret_reason, size, "our DaemonSet's node affinity no longer covers this node");
	return say(UPGRADE_KEEP, ret_reason, size,
		   "our DaemonSet stands for this node: plugin and configuration wait for the successor");
}
