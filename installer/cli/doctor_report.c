/* What the checks of doctor have found. See doctor.h. */
#include <stdarg.h>
#include <stdio.h>

#include "ambient/json.h"
#include "installer/cli/doctor.h"
#include "installer/cli/print.h"

void report_add(struct report *report, enum verdict verdict, const char *what, const char *advice, const char *format, ...)
{
	static const char *const names[] = { [VERDICT_WELL] = "well", [VERDICT_NOTE] = "note", [VERDICT_PROBLEM] = "problem" };
	static const enum colour colours[] = { COLOUR_GOOD, COLOUR_WAIT, COLOUR_BAD };
	char text[2048];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	report->problems += verdict == VERDICT_PROBLEM;
	cJSON *finding = cJSON_CreateObject();
	cJSON_AddStringToObject(finding, "what", what);
	cJSON_AddStringToObject(finding, "verdict", names[verdict]);
	cJSON_AddStringToObject(finding, "finding", text);
	cJSON_AddStringToObject(finding, "advice", advice ? advice : "");
	json_append(report->findings, finding);
	if (report->is_json)
		return;
	printf("%s%-7s%s  %-12s  %s\n", colour_begin(colours[verdict]), names[verdict], colour_end(colours[verdict]), what,
	       text);
	if (advice)
		printf("                       %sdo: %s%s\n", colour_begin(COLOUR_STRONG), advice, colour_end(COLOUR_STRONG));
	fflush(stdout);
}
