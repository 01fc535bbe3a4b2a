/* pause: no drift repair of one pod for a time, for whoever wants to change its rules by hand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "installer/cli/admin_client.h"
#include "installer/cli/commands.h"
#include "installer/cli/print.h"

#define PAUSE_SECONDS_MAX 86400L

/* "90", "90s", "10m", "2h". */
static int parse_time(const char *text, struct error *error, long *ret_seconds)
{
	static const struct {
		const char *name;
		long seconds;
	} units[] = { { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 } };
	char *end = NULL;
	errno = 0;
	long value = text[0] >= '0' && text[0] <= '9' ? strtol(text, &end, 10) : -1;
	for (size_t i = 0; value >= 0 && errno == 0 && i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(end, units[i].name) == 0 && value <= PAUSE_SECONDS_MAX / units[i].seconds) {
			*ret_seconds = value * units[i].seconds;
			return 0;
		}
	}
	return error_say(error, EINVAL,
			 "--for: expected a time like 90s, 10m or 2h, at most 24h, or 0 to end a pause; found "
			 "\"%.32s\"",
			 text);
}

int command_pause(int argc, char **argv)
{
	const char *time = NULL, *name = NULL;
	const struct command_option own[] = {
		{ .name = "for", .text = &time },
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_admin struct admin admin = { 0 };
	cleanup_free char *path = NULL;
	struct error error = { 0 };
	char rest[64], age[AGE_MAX];
	long seconds = 0;
	if (options_parse(argc, argv, own, &config_options, &name) < 0)
		return EXIT_STATUS_USAGE;
	if (!name || !time)
		return command_misused(argv[0], "expected NAMESPACE/POD and --for TIME");
	if (parse_time(time, &error, &seconds) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_USAGE);
	snprintf(rest, sizeof rest, "/pause?seconds=%ld", seconds);
	if (admin_pod_path(name, rest, &error, &path) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_USAGE);
	if (admin_find(&config_options, &error, &admin) < 0 || admin_post(&admin, path, &error) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (seconds > 0)
		printf("%s: its redirection is not repaired for %s; ambient-installer pause %s --for 0 ends that\n", name,
		       print_seconds(seconds, age), name);
	else
		printf("%s: its redirection is repaired again\n", name);
	return EXIT_STATUS_DONE;
}
