/* The host's probe set as a command, for tests:
 *
 *     probe_set_tool put PATH [ADDRESS...]     the table stands in the namespace at PATH, with these addresses of one pod and
 *                                              what was there before
 *     probe_set_tool only PATH [ADDRESS...]    the same, without what was there before
 *     probe_set_tool uninstall PATH
 *
 * Exit status: 0 done, 1 failed (a sentence on standard error), 2 usage. */
#include <arpa/inet.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "installer/probes/probe_set.h"

static int put(struct event_base *base, int netns, bool only, char **texts, size_t count, struct error *error)
{
	struct pod_address addresses[64];
	struct redirect defaults;
	struct probe_set *set = NULL;
	redirect_init(&defaults);
	if (count > sizeof addresses / sizeof addresses[0])
		return error_say(error, 0, "too many addresses");
	for (size_t i = 0; i < count; i++)
		if (!pod_address_parse(texts[i], &addresses[i]))
			return error_say(error, 0, "%s is no address", texts[i]);
	if (probe_set_open(base, netns, defaults.host_probe_ipv4, defaults.host_probe_ipv6, NULL, error, &set) < 0)
		return -1;
	int result = probe_set_put(set, "pod", addresses, count, error);
	if (result == 0)
		result = only ? probe_set_prune(set, error) : probe_set_flush(set, error);
	probe_set_close(set);
	return result;
}

int main(int argc, char **argv)
{
	struct error error = { 0 };
	cleanup_close int netns = -1;
	int result = -1;
	if (argc < 3) {
		fputs("usage: probe_set_tool put|only|uninstall PATH [ADDRESS...]\n", stderr);
		return 2;
	}
	struct event_base *base = event_base_new();
	if (base && netns_open(argv[2], &error, &netns) == 0) {
		if (strcmp(argv[1], "uninstall") == 0)
			result = probe_set_uninstall(netns, &error);
		else
			result = put(base, netns, strcmp(argv[1], "only") == 0, argv + 3, (size_t)argc - 3, &error);
	}
	event_base_free(base);
	if (result < 0)
		fprintf(stderr, "probe_set_tool: %s\n", error.message);
	return result < 0 ? 1 : 0;
}
