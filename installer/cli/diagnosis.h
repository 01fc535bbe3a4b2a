/* What is wrong with a pod first, in the order in which a person would look, and what to do next. */
#ifndef AMBIENT_INSTALLER_CLI_DIAGNOSIS_H
#define AMBIENT_INSTALLER_CLI_DIAGNOSIS_H

#include <cjson/cJSON.h>
#include <stdbool.h>

struct diagnosis {
	bool is_wrong;
	char finding[2048]; /* a sentence */
	char next[1024];    /* a command; empty: none */
};

/* `pod` is the agent's /pods/NAMESPACE/NAME?verify=1, `agent` its /status. */
void diagnose(const cJSON *pod, const cJSON *agent, struct diagnosis *ret_diagnosis);

#endif
