/* What the commands for people share in printing: colour, tables, times. */
#ifndef AMBIENT_INSTALLER_CLI_PRINT_H
#define AMBIENT_INSTALLER_CLI_PRINT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

#include "ambient/error.h"
#include "installer/config.h"

/* Only on a terminal, and not where NO_COLOR or TERM=dumb asks for none. */
enum colour { COLOUR_NONE, COLOUR_GOOD, COLOUR_WAIT, COLOUR_BAD, COLOUR_SOFT, COLOUR_STRONG };
const char *colour_begin(enum colour colour);
const char *colour_end(enum colour colour);

/* Of a pod's state: "enabled" is good, "failed" is bad. */
enum colour colour_of_state(const char *state);

/* Values of an object by "key" or "key.key"; "", 0 and false where there is none. */
const char *json_text(const cJSON *json, const char *path);
double json_number(const cJSON *json, const char *path);
bool json_truth(const cJSON *json, const char *path);
const cJSON *json_at(const cJSON *json, const char *path);

/* "3 min" since an RFC 3339 time; "" where it is none. */
#define AGE_MAX 24
const char *print_age(const char *when, char text[AGE_MAX]);
const char *print_seconds(long seconds, char text[AGE_MAX]);

/* A pod has rules, listeners or an annotation of ours, or should have. */
bool pod_has_traces(const cJSON *pod);

int print_json(const cJSON *json);

/* "ambient-installer COMMAND: MESSAGE" on stderr. Both give the exit status back: the one given, EXIT_STATUS_USAGE. */
int command_failed(const char *command, const struct error *error, int status);
/* What is wrong with the command's line; names its help. */
int command_misused(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What the configuration is warned of. */
void print_warnings(const char *command, const struct installer_config *config);

/* A line of a diff, which begins with "-", "+" or "!", in its colour and a little to the right. */
void print_diff(const char *line);

#endif
