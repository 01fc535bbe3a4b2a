/* verify: the kernel compared with what should be there, in the pods of a running agent or, with --netns, in one namespace. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/cli/admin_client.h"
#include "installer/cli/commands.h"
#include "installer/cli/print.h"

/* Whether it is as it should be; `text` says so, or what is not. */
static bool compare(const cJSON *pod, char *text, size_t size)
{
	const char *difference = json_text(pod, "rules.difference"), *stage = json_text(pod, "rules.stage");
	const char *waiting = json_text(pod, "waitingFor"), *problem = json_text(pod, "lastError");
	bool is_wanted = json_truth(pod, "wanted"), is_full = strcmp(stage, "full") == 0;
	bool is_releasing = strcmp(json_text(pod, "state"), "releasing") == 0;
	if (difference[0]) {
		snprintf(text, size, "%s%s", difference,
			 json_number(pod, "repairPausedSeconds") > 0 ? " (repair is paused by hand)" : "");
		return false;
	}
	if (is_wanted && !is_full) {
		snprintf(text, size, "it belongs to the mesh and its redirection does not stand%s%s%s",
			 waiting[0] || problem[0] ? ": " : "", problem[0] ? problem : waiting, "");
		return false;
	}
	if (!is_wanted && !is_releasing && strcmp(stage, "none") != 0) {
		snprintf(text, size, "it does not belong to the mesh and rules are left in it%s%s", problem[0] ? ": " : "",
			 problem);
		return false;
	}
	snprintf(text, size, "%s", is_wanted ? "as it should be" : "as it should be: outside the mesh");
	return true;
}

/* Adds what it found of one pod. */
static int verify_pod(const struct admin *admin, const char *name, bool may_be_gone, cJSON *findings, struct error *error,
		      bool *ret_is_well)
{
	cleanup_free char *path = NULL;
	cleanup_cjson cJSON *pod = NULL;
	char text[2048];
	if (admin_pod_path(name, "?verify=1", error, &path) < 0)
		return -1;
	if (admin_get(admin, path, error, &pod) < 0) {
		if (!may_be_gone || error->number != ENOENT)
			return -1;
		*error = (struct error){ 0 };
		return 0;
	}
	bool is_well = compare(pod, text, sizeof text);
	cJSON *finding = cJSON_CreateObject();
	if (!cJSON_AddStringToObject(finding, "pod", name) || !cJSON_AddBoolToObject(finding, "asItShouldBe", is_well) ||
	    !cJSON_AddStringToObject(finding, "finding", text) ||
	    (!is_well && json_at(pod, "rules.diff") &&
	     !cJSON_AddItemToObject(finding, "diff", cJSON_Duplicate(json_at(pod, "rules.diff"), true)))) {
		cJSON_Delete(finding);
		return error_set(error, ENOMEM, "cannot keep what was found");
	}
	if (!json_append(findings, finding))
		return error_set(error, ENOMEM, "cannot keep what was found");
	*ret_is_well &= is_well;
	return 0;
}

static int verify_all(const struct admin *admin, cJSON *findings, struct error *error, bool *ret_is_well)
{
	cleanup_cjson cJSON *pods = NULL;
	const cJSON *pod;
	char name[600];
	if (admin_get(admin, "/pods", error, &pods) < 0)
		return -1;
	cJSON_ArrayForEach (pod, pods) {
		snprintf(name, sizeof name, "%s/%s", json_text(pod, "namespace"), json_text(pod, "name"));
		if (pod_has_traces(pod) && verify_pod(admin, name, true, findings, error, ret_is_well) < 0)
			return -1;
	}
	return 0;
}

static int verify_pods(int argc, char **argv)
{
	bool is_json = false, is_well = true;
	const char *name = NULL;
	const struct command_option own[] = {
		OPTION_OUTPUT(&is_json),
		{ 0 },
	};
	cleanup_config_options struct config_options config_options = { 0 };
	cleanup_admin struct admin admin = { 0 };
	cleanup_cjson cJSON *findings = cJSON_CreateArray();
	struct error error = { 0 };
	const cJSON *finding, *line;
	if (options_parse(argc, argv, own, &config_options, &name) < 0)
		return EXIT_STATUS_USAGE;
	if (admin_find(&config_options, &error, &admin) < 0 ||
	    (name ? verify_pod(&admin, name, false, findings, &error, &is_well)
		  : verify_all(&admin, findings, &error, &is_well)) < 0)
		return command_failed(argv[0], &error, error.number == EINVAL && name ? EXIT_STATUS_USAGE : EXIT_STATUS_FAILED);
	if (is_json) {
		if (print_json(findings) < 0)
			return EXIT_STATUS_FAILED;
	} else {
		cJSON_ArrayForEach (finding, findings) {
			enum colour colour = json_truth(finding, "asItShouldBe") ? COLOUR_NONE : COLOUR_BAD;
			printf("%s: %s%s%s\n", json_text(finding, "pod"), colour_begin(colour), json_text(finding, "finding"),
			       colour_end(colour));
			cJSON_ArrayForEach (line, json_at(finding, "diff"))
				print_diff(cJSON_GetStringValue(line));
		}
		if (cJSON_GetArraySize(findings) == 0)
			puts("no pod of this node is in the mesh, and none should be");
	}
	return is_well ? EXIT_STATUS_DONE : EXIT_STATUS_DIFFERENCE;
}

int command_verify(int argc, char **argv)
{
	static const char *const of_a_namespace[] = { "--netns", "--redirect", "--stage" };
	for (int i = 1; i < argc; i++)
		for (size_t option = 0; option < sizeof of_a_namespace / sizeof of_a_namespace[0]; option++)
			if (strncmp(argv[i], of_a_namespace[option], strlen(of_a_namespace[option])) == 0)
				return verify_namespace(argc, argv);
	return verify_pods(argc, argv);
}
