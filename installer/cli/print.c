/* Printing for people. See print.h. */
#include "installer/cli/print.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/cli/commands.h"

static bool is_coloured(void)
{
	const char *terminal = getenv("TERM");
	return isatty(STDOUT_FILENO) && !getenv("NO_COLOR") && terminal && strcmp(terminal, "dumb") != 0;
}

const char *colour_begin(enum colour colour)
{
	static const char *const codes[] = {
		[COLOUR_NONE] = "",	     [COLOUR_GOOD] = "\033[32m", [COLOUR_WAIT] = "\033[33m",
		[COLOUR_BAD] = "\033[1;31m", [COLOUR_SOFT] = "\033[2m",	 [COLOUR_STRONG] = "\033[1m",
	};
	return is_coloured() ? codes[colour] : "";
}

const char *colour_end(enum colour colour)
{
	return colour != COLOUR_NONE && is_coloured() ? "\033[0m" : "";
}

enum colour colour_of_state(const char *state)
{
	return strcmp(state, "enabled") == 0					  ? COLOUR_GOOD
	       : strcmp(state, "failed") == 0					  ? COLOUR_BAD
	       : strcmp(state, "pending") == 0 || strcmp(state, "releasing") == 0 ? COLOUR_WAIT
										  : COLOUR_NONE;
}

const cJSON *json_at(const cJSON *json, const char *path)
{
	char key[64];
	while (json && *path) {
		size_t length = strcspn(path, ".");
		if (length >= sizeof key)
			return NULL;
		memcpy(key, path, length);
		key[length] = '\0';
		json = cJSON_GetObjectItemCaseSensitive(json, key);
		path += length + (path[length] == '.');
	}
	return json;
}

const char *json_text(const cJSON *json, const char *path)
{
	const char *text = cJSON_GetStringValue(json_at(json, path));
	return text ? text : "";
}

double json_number(const cJSON *json, const char *path)
{
	const cJSON *value = json_at(json, path);
	return cJSON_IsNumber(value) ? value->valuedouble : 0;
}

bool json_truth(const cJSON *json, const char *path)
{
	return cJSON_IsTrue(json_at(json, path));
}

const char *print_seconds(long seconds, char text[AGE_MAX])
{
	if (seconds < 120)
		snprintf(text, AGE_MAX, "%ld s", seconds);
	else if (seconds < 7200)
		snprintf(text, AGE_MAX, "%ld min", seconds / 60);
	else if (seconds < 172800)
		snprintf(text, AGE_MAX, "%ld h", seconds / 3600);
	else
		snprintf(text, AGE_MAX, "%ld d", seconds / 86400);
	return text;
}

const char *print_age(const char *when, char text[AGE_MAX])
{
	struct tm utc = { 0 };
	text[0] = '\0';
	if (!strptime(when, "%Y-%m-%dT%H:%M:%SZ", &utc))
		return text;
	long seconds = (long)(time(NULL) - timegm(&utc));
	return print_seconds(seconds > 0 ? seconds : 0, text);
}

bool pod_has_traces(const cJSON *pod)
{
	return json_truth(pod, "wanted") || strcmp(json_text(pod, "state"), "none") != 0 ||
	       strcmp(json_text(pod, "rules.stage"), "none") != 0 || json_text(pod, "annotation")[0] != '\0';
}

int print_json(const cJSON *json)
{
	cleanup_free char *text = cJSON_Print(json);
	if (!text)
		return -1;
	puts(text);
	return 0;
}

int command_failed(const char *command, const struct error *error, int status)
{
	fprintf(stderr, "ambient-installer %s: %s\n", command, error->message);
	return status;
}

int command_misused(const char *command, const char *format, ...)
{
	char text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fprintf(stderr, "ambient-installer %s: %s; see ambient-installer %s --help\n", command, text, command);
	return EXIT_STATUS_USAGE;
}

void print_warnings(const char *command, const struct installer_config *config)
{
	for (size_t i = 0; i < config->warnings_count; i++)
		fprintf(stderr, "ambient-installer %s: %s\n", command, config->warnings[i]);
}

void print_diff(const char *line)
{
	enum colour colour = line[0] == '-'   ? COLOUR_BAD
			     : line[0] == '+' ? COLOUR_GOOD
			     : line[0] == '!' ? COLOUR_WAIT
					      : COLOUR_NONE;
	printf("  %s%s%s\n", colour_begin(colour), line, colour_end(colour));
}
