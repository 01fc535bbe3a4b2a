/* render, verify --netns and version: what needs no running agent. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/cli/print.h"
#include "version.h"

#define REDIRECT_TEXT_MAX (1 << 20)

struct arguments {
	const char *netns, *redirect, *stage;
};

static int parse(int argc, char **argv, struct arguments *ret_arguments)
{
	struct arguments arguments = { .stage = "full" };
	const struct command_option own[] = {
		{ .name = "netns", .text = &arguments.netns },
		{ .name = "redirect", .text = &arguments.redirect },
		{ .name = "stage", .text = &arguments.stage },
		{ 0 },
	};
	if (options_parse(argc, argv, own, NULL, NULL) < 0)
		return -1;
	if (strcmp(arguments.stage, "full") != 0 && strcmp(arguments.stage, "guard") != 0) {
		command_misused(argv[0], "--stage: expected full or guard, found \"%.32s\"", arguments.stage);
		return -1;
	}
	*ret_arguments = arguments;
	return 0;
}

static enum redirect_stage stage_of(const struct arguments *arguments)
{
	return strcmp(arguments->stage, "guard") == 0 ? REDIRECT_STAGE_GUARD : REDIRECT_STAGE_FULL;
}

static int read_redirect(const struct arguments *arguments, struct error *error, struct redirect *redirect)
{
	cleanup_cjson cJSON *json = NULL;
	redirect_init(redirect);
	if (!arguments->redirect)
		return 0;
	if (json_parse(arguments->redirect, strlen(arguments->redirect), REDIRECT_TEXT_MAX, "--redirect", error, &json) < 0)
		return -1;
	return redirect_from_json(json, "redirect", error, redirect);
}

int command_render(int argc, char **argv)
{
	struct arguments arguments;
	struct error error = { 0 };
	cleanup_redirect struct redirect redirect = { 0 };
	cleanup_free char *text = NULL;
	if (parse(argc, argv, &arguments) < 0)
		return EXIT_STATUS_USAGE;
	if (read_redirect(&arguments, &error, &redirect) < 0 ||
	    redirect_render(&redirect, stage_of(&arguments), &error, &text) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	/* A full disk shows when the text leaves the buffer: half of the rules must not pass for all. */
	if (fputs(text, stdout) < 0 || fflush(stdout) != 0) {
		error_set(&error, errno, "cannot print the rules");
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	}
	return EXIT_STATUS_DONE;
}

int verify_namespace(int argc, char **argv)
{
	struct arguments arguments;
	struct error error = { 0 };
	struct redirect_difference difference;
	cleanup_free char *diff = NULL;
	cleanup_redirect struct redirect redirect = { 0 };
	cleanup_close int netns = -1;
	cleanup_redirect_session struct redirect_session *session = NULL;
	if (parse(argc, argv, &arguments) < 0)
		return EXIT_STATUS_USAGE;
	if (!arguments.netns)
		return command_misused(argv[0], "--netns PATH is missing");
	if (read_redirect(&arguments, &error, &redirect) < 0 || netns_open(arguments.netns, &error, &netns) < 0 ||
	    redirect_session_open(netns, &error, &session) < 0 ||
	    redirect_verify(session, &redirect, stage_of(&arguments), &error, &difference) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	if (difference.text[0] == '\0') {
		printf("%s: as it should be\n", arguments.netns);
		return EXIT_STATUS_DONE;
	}
	printf("%s: %s\n", arguments.netns, difference.text);
	if (redirect_diff(session, &redirect, stage_of(&arguments), &difference, &error, &diff) < 0)
		return command_failed(argv[0], &error, EXIT_STATUS_FAILED);
	for (char *state = NULL, *line = strtok_r(diff, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
		print_diff(line);
	return EXIT_STATUS_DIFFERENCE;
}

int command_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	puts(AMBIENT_VERSION);
	return EXIT_STATUS_DONE;
}
