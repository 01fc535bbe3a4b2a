/* What the checks of doctor report to. Private to installer/cli/doctor*.c. */
#ifndef AMBIENT_INSTALLER_CLI_DOCTOR_H
#define AMBIENT_INSTALLER_CLI_DOCTOR_H

#include <cjson/cJSON.h>

#include "installer/cli/cluster.h"
#include "installer/config.h"

enum verdict { VERDICT_WELL, VERDICT_NOTE, VERDICT_PROBLEM };

struct report {
	const struct installer_config *config;
	const char *kubeconfig; /* of --kubeconfig; NULL: none */
	bool is_json;
	size_t problems;
	cJSON *findings;
};

/* doctor_report.c. One finding: a sentence, and what to do about it (NULL: nothing). */
void report_add(struct report *report, enum verdict verdict, const char *what, const char *advice, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

/* doctor_node.c */
void doctor_kernel(struct report *report);
void doctor_limits(struct report *report);
void doctor_paths(struct report *report);
/* doctor_network.c */
void doctor_primary_cni(struct report *report);
void doctor_istio_cni(struct report *report);
/* doctor_cluster.c */
void doctor_agent(struct report *report);
void doctor_api(struct report *report);

#endif
