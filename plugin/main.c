/* ambient-cni: reads the environment and standard input, calls the verb, prints the result or one error object. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/cni.h"
#include "ambient/json.h"
#include "plugin/call.h"
#include "version.h"

#define CONFIGURATION_MAX (1 << 20)

static bool write_all(const char *text)
{
	for (size_t left = strlen(text); left > 0;) {
		ssize_t written = write(STDOUT_FILENO, text, left);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return false;
		text += written;
		left -= (size_t)written;
	}
	return true;
}

/* Prints the error object; the exit status is never 0. */
static int fail(enum cni_version version, enum cni_code code, const char *message)
{
	cleanup_cjson cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "cniVersion", cni_version_name(version));
	cJSON_AddNumberToObject(object, "code", code);
	cJSON_AddStringToObject(object, "msg", message);
	/* Half an error object would mislead more than none. */
	bool is_whole = cJSON_AddStringToObject(object, "details", "ambient-cni " AMBIENT_VERSION) != NULL;
	cleanup_free char *text = is_whole ? cJSON_Print(object) : NULL;
	if (!text && !write_all("{\"cniVersion\":\"1.1.0\",\"code\":999,\"msg\":\"no memory is left to say what failed\"}"))
		return 1;
	if ((text && !write_all(text)) || !write_all("\n"))
		fprintf(stderr, "ambient-cni: %s\n", message);
	return 1;
}

/* Reads standard input to its end. */
static int read_configuration(struct error *error, char **ret_text, size_t *ret_length)
{
	size_t capacity = 16384, length = 0;
	cleanup_free char *text = malloc(capacity);
	while (text) {
		if (length == capacity) {
			if (capacity > CONFIGURATION_MAX)
				return error_set(error, 0,
						 "the network configuration on standard input is larger than %d bytes",
						 CONFIGURATION_MAX);
			capacity *= 4;
			char *grown = realloc(text, capacity);
			if (!grown)
				break;
			text = grown;
		}
		ssize_t got = read(STDIN_FILENO, text + length, capacity - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_set(error, errno, "cannot read the network configuration from standard input");
		if (got == 0) {
			*ret_text = steal_pointer(text);
			*ret_length = length;
			return 0;
		}
		length += (size_t)got;
	}
	return error_set(error, ENOMEM, "cannot read the network configuration");
}

/* Runtimes put dummy values into the environment and may send nothing: look at none of it. */
static int print_versions(void)
{
	static const char answer[] = "{\"cniVersion\":\"1.1.0\","
				     "\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\",\"1.0.0\",\"1.1.0\"]}\n";
	return write_all(answer) ? 0 : 1;
}

static const char *environment(const char *name)
{
	const char *value = getenv(name);
	return value && value[0] != '\0' ? value : NULL;
}

static void open_log(struct call *call)
{
	call->log = (struct log){ .fd = STDERR_FILENO, .level = call->config.log_level, .program = "ambient-cni" };
	if (call->config.log_file[0] == '\0')
		return;
	/* O_NONBLOCK: a FIFO that nobody reads must not hold us. */
	int fd = open(call->config.log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0)
		log_write(&call->log, LOG_LEVEL_WARN, NULL, "cannot open logFile %s: %s", call->config.log_file,
			  strerror(errno));
	else
		call->log.fd = fd;
}

/* ADD, and its result printed. */
static enum cni_code run_add(struct call *call, struct error *error)
{
	cleanup_cjson cJSON *result = NULL;
	enum cni_code code = verb_add(call, error, &result);
	if (code != CNI_OK)
		return code;
	cleanup_free char *text = cJSON_Print(result), *line = NULL;
	if (!text || asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	/* At once: half a result and then an error object would be neither. */
	if (line && write_all(line))
		return CNI_OK;
	error_set(error, line ? errno : ENOMEM, "cannot print the result");
	/* The runtime never learns of this ADD. */
	verb_add_take_back(call);
	return CNI_IO_FAILURE;
}

/* What a verb needs of the environment, and the first version that has it. */
static const struct verb {
	const char *name;
	enum cni_code (*run)(struct call *call, struct error *error);
	enum cni_version since;
	bool needs_container, needs_netns;
} verbs[] = {
	{ "ADD", run_add, CNI_0_3_0, true, true },	    { "DEL", verb_del, CNI_0_3_0, true, false },
	{ "CHECK", verb_check, CNI_0_4_0, true, true },	    { "GC", verb_gc, CNI_1_1_0, false, false },
	{ "STATUS", verb_status, CNI_1_1_0, false, false },
};

/* Reads CNI_* into the call; the message names every variable that is missing or wrong. */
static int read_environment(const struct verb *verb, struct call *call, struct error *error)
{
	char problems[512] = "";
	size_t used = 0;
	call->container_id = environment("CNI_CONTAINERID");
	call->netns_path = environment("CNI_NETNS");
	call->interface = environment("CNI_IFNAME");
	call->args = environment("CNI_ARGS");
	if (!verb->needs_container)
		return 0;
	if (!call->container_id)
		used += (size_t)snprintf(problems + used, sizeof problems - used, "CNI_CONTAINERID is missing; ");
	else if (!attachment_container_id_is_valid(call->container_id))
		used += (size_t)snprintf(problems + used, sizeof problems - used,
					 "CNI_CONTAINERID \"%.64s\" is not allowed (letters, digits, '_', '.', '-'); ",
					 call->container_id);
	if (!call->interface)
		used += (size_t)snprintf(problems + used, sizeof problems - used, "CNI_IFNAME is missing; ");
	else if (!attachment_interface_is_valid(call->interface))
		used += (size_t)snprintf(problems + used, sizeof problems - used,
					 "CNI_IFNAME \"%.32s\" is not an interface's name; ", call->interface);
	if (verb->needs_netns && !call->netns_path)
		used += (size_t)snprintf(problems + used, sizeof problems - used, "CNI_NETNS is missing; ");
	if (used == 0)
		return 0;
	problems[used - 2] = '\0';
	return error_set(error, 0, "CNI_COMMAND=%s: %s", verb->name, problems);
}

static int run(const struct verb *verb)
{
	struct call call = { 0 };
	struct error error = { 0 };
	cleanup_free char *text = NULL;
	cleanup_cjson cJSON *json = NULL;
	size_t length = 0;
	enum cni_version version = CNI_VERSION_CURRENT;
	enum cni_code code;
	if (read_configuration(&error, &text, &length) < 0)
		return fail(version, error.number ? CNI_IO_FAILURE : CNI_DECODING_FAILURE, error.message);
	if (json_parse(text, length, CONFIGURATION_MAX, "the network configuration on standard input", &error, &json) < 0)
		return fail(version, CNI_DECODING_FAILURE, error.message);
	if (!cJSON_IsObject(json))
		return fail(version, CNI_DECODING_FAILURE, "the network configuration on standard input is not a JSON object");
	if (plugin_config_version(json, &error, &version, &code) < 0)
		return fail(version, code, error.message);
	if (version < verb->since) {
		error_set(&error, 0, "CNI_COMMAND=%s: a configuration of version %s does not have it, only from %s on",
			  verb->name, cni_version_name(version), cni_version_name(verb->since));
		return fail(version, CNI_INCOMPATIBLE_VERSION, error.message);
	}
	if (read_environment(verb, &call, &error) < 0)
		return fail(version, CNI_INVALID_ENVIRONMENT, error.message);
	call.config.cni_version = version;
	if (plugin_config_read(json, &error, &call.config) < 0)
		return fail(version, CNI_INVALID_CONFIGURATION, error.message);

	open_log(&call);
	code = verb->run(&call, &error);
	if (code != CNI_OK)
		log_write(&call.log, LOG_LEVEL_ERROR, NULL, "CNI_COMMAND=%s: %s", verb->name, error.message);
	if (call.log.fd != STDERR_FILENO)
		close(call.log.fd);
	plugin_config_clear(&call.config);
	return code == CNI_OK ? 0 : fail(version, code, error.message);
}

int main(void)
{
	const char *command = environment("CNI_COMMAND");
	/* A runtime that went away is an error of write(2), after which an ADD is taken back. */
	signal(SIGPIPE, SIG_IGN);
	if (command && strcmp(command, "VERSION") == 0)
		return print_versions();
	for (size_t i = 0; command && i < sizeof verbs / sizeof verbs[0]; i++)
		if (strcmp(verbs[i].name, command) == 0)
			return run(&verbs[i]);
	if (!command) {
		fputs("ambient-cni " AMBIENT_VERSION
		      ": a CNI plugin, called by a container runtime (see the CNI specification)\n",
		      stderr);
		return fail(CNI_VERSION_CURRENT, CNI_INVALID_ENVIRONMENT, "CNI_COMMAND is missing");
	}
	struct error error = { 0 };
	error_set(&error, 0, "CNI_COMMAND: expected ADD, DEL, CHECK, GC, STATUS or VERSION, found \"%.32s\"", command);
	return fail(CNI_VERSION_CURRENT, CNI_INVALID_ENVIRONMENT, error.message);
}
