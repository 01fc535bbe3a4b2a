/* The pod that a process's cgroup names. See cgroup.h. */
#include "installer/netns/cgroup.h"

#include <stdbool.h>
#include <string.h>

/* systemd's unit names have no dashes inside a part: the kubelet writes a uid's as underscores. */
static int plain(char c)
{
	return c == '_' ? '-' : c;
}

int cgroup_compare_uid(const char *token, size_t length, const char *uid)
{
	for (size_t i = 0; i < length; i++) {
		int order = plain(token[i]) - plain(uid[i]);
		if (order != 0 || uid[i] == '\0')
			return order;
	}
	return uid[length] == '\0' ? 0 : -1;
}

/* The uid that a component of a cgroup's path names; its length, 0: none. */
static size_t component_uid(const char *component, size_t length, const char **ret_uid)
{
	size_t end = length;
	const char *colon = memchr(component, ':', length);
	if (colon)
		end = (size_t)(colon - component);
	const size_t suffix = strlen(".slice");
	if (end > suffix && memcmp(component + end - suffix, ".slice", suffix) == 0)
		end -= suffix;
	for (size_t i = 0; i + strlen("pod") < end; i++) {
		if ((i == 0 || component[i - 1] == '-') && memcmp(component + i, "pod", strlen("pod")) == 0) {
			*ret_uid = component + i + strlen("pod");
			return end - i - strlen("pod");
		}
	}
	return 0;
}

/* The uid that a line of /proc/PID/cgroup names first: "ID:CONTROLLERS:PATH". */
static size_t line_uid(const char *line, size_t length, const char **ret_uid)
{
	const char *end = line + length;
	const char *part = memchr(line, '/', length);
	while (part && part < end) {
		part++;
		const char *next = memchr(part, '/', (size_t)(end - part));
		size_t uid_length = component_uid(part, (size_t)((next ? next : end) - part), ret_uid);
		if (uid_length > 0)
			return uid_length;
		part = next;
	}
	return 0;
}

size_t cgroup_find_uid(const char *text, const char **ret_uid)
{
	size_t found = 0;
	while (*text) {
		const char *uid;
		size_t line = strcspn(text, "\n"), length = line_uid(text, line, &uid);
		if (length > 0 && found == 0) {
			found = length;
			*ret_uid = uid;
		} else if (length > 0) {
			bool same = length == found;
			for (size_t i = 0; same && i < length; i++)
				same = plain(uid[i]) == plain((*ret_uid)[i]);
			if (!same)
				return 0;
		}
		text += line + (text[line] == '\n');
	}
	return found;
}
