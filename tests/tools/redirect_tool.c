/* The redirection library as a command, for tests:
 *
 *     redirect_tool VERB --netns PATH [--redirect JSON]
 *
 * VERB: apply, guard (apply the stage guard), verify, verify-guard, remove, render, render-guard, counters.
 * Exit status: 0 done, 1 failed (a sentence on standard error), 2 usage, 3 a difference (on standard output). */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"

static int print_rendered(const struct redirect *redirect, enum redirect_stage stage, struct error *error)
{
	cleanup_free char *text = NULL;
	if (redirect_render(redirect, stage, error, &text) < 0)
		return -1;
	fputs(text, stdout);
	return 0;
}

static int print_difference(struct redirect_session *session, const struct redirect *redirect, enum redirect_stage stage,
			    struct error *error)
{
	struct redirect_difference difference;
	if (redirect_verify(session, redirect, stage, error, &difference) < 0)
		return -1;
	if (difference.text[0] == '\0')
		return 0;
	puts(difference.text);
	return 3;
}

static int print_counters(struct redirect_session *session, struct error *error)
{
	struct redirect_counters counters;
	if (redirect_read_counters(session, error, &counters) < 0)
		return -1;
	const char *separator = "{";
	for (enum redirect_outcome outcome = REDIRECT_OUTCOME_NONE + 1; outcome < REDIRECT_OUTCOME_COUNT; outcome++) {
		printf("%s\"%s\": %llu", separator, redirect_outcome_name(outcome),
		       (unsigned long long)counters.packets[outcome]);
		separator = ", ";
	}
	puts("}");
	return 0;
}

static int run(const char *verb, const char *path, const char *json, struct error *error)
{
	cleanup_redirect struct redirect redirect;
	redirect_init(&redirect);
	if (json) {
		cleanup_cjson cJSON *parsed = NULL;
		if (json_parse(json, strlen(json), 1 << 20, "--redirect", error, &parsed) < 0 ||
		    redirect_from_json(parsed, "redirect", error, &redirect) < 0)
			return -1;
	}
	if (strcmp(verb, "render") == 0)
		return print_rendered(&redirect, REDIRECT_STAGE_FULL, error);
	if (strcmp(verb, "render-guard") == 0)
		return print_rendered(&redirect, REDIRECT_STAGE_GUARD, error);

	cleanup_close int netns = -1;
	cleanup_redirect_session struct redirect_session *session = NULL;
	if (netns_open(path, error, &netns) < 0 || redirect_session_open(netns, error, &session) < 0)
		return -1;
	if (strcmp(verb, "apply") == 0)
		return redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, error);
	if (strcmp(verb, "guard") == 0)
		return redirect_apply(session, &redirect, REDIRECT_STAGE_GUARD, error);
	if (strcmp(verb, "verify") == 0)
		return print_difference(session, &redirect, REDIRECT_STAGE_FULL, error);
	if (strcmp(verb, "verify-guard") == 0)
		return print_difference(session, &redirect, REDIRECT_STAGE_GUARD, error);
	if (strcmp(verb, "remove") == 0)
		return redirect_remove(session, error);
	if (strcmp(verb, "counters") == 0)
		return print_counters(session, error);
	fprintf(stderr, "redirect_tool: unknown verb %s\n", verb);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "netns", required_argument, NULL, 'n' },
		{ "redirect", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	const char *path = "/proc/thread-self/ns/net", *json = NULL;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'n')
			path = optarg;
		else if (option == 'r')
			json = optarg;
		else
			return 2;
	}
	if (optind != argc - 1) {
		fputs("usage: redirect_tool VERB [--netns PATH] [--redirect JSON]\n", stderr);
		return 2;
	}
	struct error error = { 0 };
	int status = run(argv[optind], path, json, &error);
	if (status < 0)
		fprintf(stderr, "redirect_tool: %s\n", error.message);
	return status < 0 ? 1 : status;
}
