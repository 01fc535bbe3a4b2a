/* What a key of each type accepts, and how it gets into the struct. See config_keys.h. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/config_keys.h"

/* A name of Kubernetes (RFC 1123 subdomain), a path of Linux without its NUL, the names of a list. */
#define NAME_MAX_BYTES 253
#define PATH_MAX_BYTES 4095
#define TEXT_MAX_BYTES 1024
#define NAMES_MAX 1024

bool config_key_is_text(const struct config_key *key)
{
	switch (key->type) {
	case CONFIG_TYPE_BOOL:
	case CONFIG_TYPE_INTEGER:
	case CONFIG_TYPE_NAMES:
	case CONFIG_TYPE_SELECTORS:
		return false;
	case CONFIG_TYPE_REDIRECT:
		return key->default_value[0] == '"';
	default:
		return true;
	}
}

static size_t path_limit(const struct config_key *key)
{
	return key->maximum ? (size_t)key->maximum : PATH_MAX_BYTES;
}

static void join_choices(const char *const *choices, char *text, size_t size)
{
	size_t length = 0;
	text[0] = '\0';
	for (size_t i = 0; choices[i] && length < size; i++)
		length += (size_t)snprintf(text + length, size - length, "%s\"%s\"",
					   i == 0	    ? ""
					   : choices[i + 1] ? ", "
							    : " or ",
					   choices[i]);
}

void config_key_expected(const struct config_key *key, char *text, size_t size)
{
	static const char *const words[] = {
		[CONFIG_TYPE_TEXT] = "a text",
		[CONFIG_TYPE_NAME] = "a name of lower-case letters, digits, '-' and '.'",
		[CONFIG_TYPE_OPTIONAL_PATH] = "an absolute path, or nothing",
		[CONFIG_TYPE_FILE_NAME] = "a file name without directories",
		[CONFIG_TYPE_OPTIONAL_FILE] = "a file name without directories, or nothing",
		[CONFIG_TYPE_BOOL] = "true or false",
		[CONFIG_TYPE_NAMES] = "a list of names ([\"a\", \"b\"])",
		[CONFIG_TYPE_MODE] =
			"an octal mode that the owner may read and nobody else may write, in quotes (\"0600\", \"0644\")",
		[CONFIG_TYPE_LISTEN] = "ADDRESS:PORT or :PORT (\"10.0.0.1:8000\", \"[::1]:8000\", \":8000\"), or nothing",
		[CONFIG_TYPE_LISTEN_LOOPBACK] = "a loopback ADDRESS:PORT (\"127.0.0.1:15000\", \"[::1]:15000\"), or nothing",
		[CONFIG_TYPE_SOURCE] = "\"kubernetes\" or \"folder:PATH\"",
		[CONFIG_TYPE_SELECTORS] = "a list of objects with podSelector and namespaceSelector",
	};
	switch (key->type) {
	case CONFIG_TYPE_PATH:
		if (key->maximum)
			snprintf(text, size, "an absolute path of at most %ld bytes", key->maximum);
		else
			snprintf(text, size, "an absolute path");
		return;
	case CONFIG_TYPE_INTEGER:
		snprintf(text, size, "an integer from %ld to %ld", key->minimum, key->maximum);
		return;
	case CONFIG_TYPE_CHOICE:
		join_choices(key->choices, text, size);
		return;
	case CONFIG_TYPE_REDIRECT:
		snprintf(text, size, "%s", key->expected);
		return;
	default:
		snprintf(text, size, "%s", words[key->type]);
		return;
	}
}

static int unexpected(const struct config_key *key, const cJSON *value, struct error *error)
{
	char expected[256];
	config_key_expected(key, expected, sizeof expected);
	cleanup_free char *found = cJSON_PrintUnformatted(value);
	return error_set(error, 0, "%s: expected %s, found %.120s", key->name, expected, found ? found : json_type_name(value));
}

static int no_memory(const struct config_key *key, struct error *error)
{
	return error_set(error, ENOMEM, "cannot keep %s", key->name);
}

static bool is_name(const char *text)
{
	size_t length = strlen(text);
	if (length == 0 || length > NAME_MAX_BYTES)
		return false;
	for (const char *c = text; *c; c++)
		if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c) && (c == text || (*c != '-' && *c != '.')))
			return false;
	return isalnum((unsigned char)text[length - 1]) != 0;
}

static bool is_file_name(const char *text)
{
	return text[0] != '\0' && strlen(text) <= 255 && !strchr(text, '/') && strcmp(text, ".") != 0 &&
	       strcmp(text, "..") != 0;
}

static bool is_valid_text(const struct config_key *key, const char *text)
{
	switch (key->type) {
	case CONFIG_TYPE_NAME:
		return is_name(text);
	case CONFIG_TYPE_PATH:
		return text[0] == '/' && strlen(text) <= path_limit(key);
	case CONFIG_TYPE_OPTIONAL_PATH:
		return text[0] == '\0' || (text[0] == '/' && strlen(text) <= path_limit(key));
	case CONFIG_TYPE_FILE_NAME:
		return is_file_name(text);
	case CONFIG_TYPE_OPTIONAL_FILE:
		return text[0] == '\0' || is_file_name(text);
	default:
		return strlen(text) <= TEXT_MAX_BYTES;
	}
}

static int read_text(const struct config_key *key, const cJSON *value, struct error *error, void *member)
{
	if (!cJSON_IsString(value) || !is_valid_text(key, value->valuestring))
		return unexpected(key, value, error);
	char *copy = strdup(value->valuestring);
	if (!copy)
		return no_memory(key, error);
	*(char **)member = copy;
	return 0;
}

static int read_choice(const struct config_key *key, const cJSON *value, struct error *error, void *member)
{
	for (unsigned int i = 0; cJSON_IsString(value) && key->choices[i]; i++) {
		if (strcmp(key->choices[i], value->valuestring) != 0)
			continue;
		/* gcc's enums are unsigned int here; -fshort-enums would change that. */
		_Static_assert(sizeof(enum when_away) == sizeof i, "an enum is as large as an int");
		memcpy(member, &i, sizeof i);
		return 0;
	}
	return unexpected(key, value, error);
}

static int read_integer(const struct config_key *key, const cJSON *value, struct error *error, void *member)
{
	double number = cJSON_IsNumber(value) ? value->valuedouble : -1;
	if (!cJSON_IsNumber(value) || !(number >= (double)key->minimum && number <= (double)key->maximum) ||
	    number != (double)(long)number)
		return unexpected(key, value, error);
	*(long *)member = (long)number;
	return 0;
}

/* Texts ("0600") and YAML's 0600 and 600, which is the same number there. A mode that a tool wrote in decimal (384, 420) has
 * a digit that makes it none of those accepted here. */
static int read_mode(const struct config_key *key, const cJSON *value, struct error *error, void *member)
{
	char digits[32];
	if (cJSON_IsString(value))
		snprintf(digits, sizeof digits, "%s", value->valuestring);
	else if (cJSON_IsNumber(value))
		snprintf(digits, sizeof digits, "%.0f", value->valuedouble);
	else
		return unexpected(key, value, error);
	const char *at = digits[0] == '0' ? digits + 1 : digits;
	if (strlen(at) != 3 || !strchr("46", at[0]) || !strchr("04", at[1]) || !strchr("04", at[2]))
		return unexpected(key, value, error);
	*(mode_t *)member = (mode_t)strtoul(at, NULL, 8);
	return 0;
}

/* "ADDRESS:PORT", "[ADDRESS]:PORT" or ":PORT". */
static bool split_address(const char *text, char *host, size_t host_size, const char **ret_port)
{
	const char *colon = strrchr(text, ':'), *start = text, *end = colon;
	if (!colon)
		return false;
	int family = AF_INET;
	if (text[0] == '[') {
		if (colon == text || colon[-1] != ']')
			return false;
		start++;
		end--;
		family = AF_INET6;
	}
	size_t length = (size_t)(end - start);
	if (length >= host_size)
		return false;
	memcpy(host, start, length);
	host[length] = '\0';
	*ret_port = colon + 1;
	struct in6_addr parsed;
	return (family == AF_INET && length == 0) || inet_pton(family, host, &parsed) == 1;
}

static int listen_address_parse(const char *text, struct error *error, struct listen_address *ret_address)
{
	struct listen_address address = { .is_on = text[0] != '\0' };
	const char *port = "0";
	char *end = NULL;
	if (address.is_on && !split_address(text, address.host, sizeof address.host, &port))
		return error_set(error, 0, "\"%.64s\" is no address to listen on", text);
	unsigned long number = strtoul(port, &end, 10);
	if (!isdigit((unsigned char)port[0]) || *end != '\0' || number > UINT16_MAX)
		return error_set(error, 0, "\"%.64s\" has no port (0 to 65535)", text);
	address.port = (uint16_t)number;
	address.text = strdup(text);
	if (!address.text)
		return error_set(error, ENOMEM, "cannot keep the address \"%.64s\"", text);
	*ret_address = address;
	return 0;
}

static bool is_loopback(const struct listen_address *address)
{
	struct in_addr ipv4;
	struct in6_addr ipv6;
	if (inet_pton(AF_INET, address->host, &ipv4) == 1)
		return (ntohl(ipv4.s_addr) >> 24) == IN_LOOPBACKNET;
	return inet_pton(AF_INET6, address->host, &ipv6) == 1 && IN6_IS_ADDR_LOOPBACK(&ipv6);
}

static int read_listen(const struct config_key *key, const cJSON *value, struct error *error, struct listen_address *member)
{
	struct listen_address address = { 0 };
	struct error why = { 0 };
	if (!cJSON_IsString(value) || listen_address_parse(value->valuestring, &why, &address) < 0)
		return why.number == ENOMEM ? no_memory(key, error) : unexpected(key, value, error);
	if (key->type == CONFIG_TYPE_LISTEN_LOOPBACK && address.is_on && !is_loopback(&address)) {
		free(address.text);
		return unexpected(key, value, error);
	}
	*member = address;
	return 0;
}

static int read_names(const struct config_key *key, const cJSON *value, struct error *error, struct installer_config *config)
{
	size_t count = (size_t)cJSON_GetArraySize(value);
	if (!cJSON_IsArray(value))
		return unexpected(key, value, error);
	if (count > NAMES_MAX)
		return error_set(error, 0, "%s: expected at most %d entries, found %zu", key->name, NAMES_MAX, count);
	config->exclude_namespaces = calloc(count + 1, sizeof *config->exclude_namespaces);
	if (!config->exclude_namespaces)
		return no_memory(key, error);
	const cJSON *entry;
	cJSON_ArrayForEach (entry, value) {
		if (!cJSON_IsString(entry) || !is_name(entry->valuestring)) {
			cleanup_free char *found = cJSON_PrintUnformatted(entry);
			return error_set(error, 0, "%s[%zu]: expected a namespace's name, found %.120s", key->name,
					 config->exclude_namespaces_count, found ? found : json_type_name(entry));
		}
		char *copy = strdup(entry->valuestring);
		if (!copy)
			return no_memory(key, error);
		config->exclude_namespaces[config->exclude_namespaces_count++] = copy;
	}
	return 0;
}

static int read_source(const struct config_key *key, const cJSON *value, struct error *error, struct installer_config *config)
{
	static const char prefix[] = "folder:";
	const char *text = cJSON_IsString(value) ? value->valuestring : "";
	bool is_folder = strncmp(text, prefix, strlen(prefix)) == 0 && text[strlen(prefix)] != '\0';
	if ((!is_folder && strcmp(text, "kubernetes") != 0) || strlen(text) > PATH_MAX_BYTES)
		return unexpected(key, value, error);
	config->source_folder = strdup(is_folder ? text + strlen(prefix) : "");
	if (!config->source_folder)
		return no_memory(key, error);
	config->source = is_folder ? INSTALLER_SOURCE_FOLDER : INSTALLER_SOURCE_KUBERNETES;
	return 0;
}

static int only_keys(const cJSON *object, const char *where, const char *const *allowed, struct error *error)
{
	const cJSON *member;
	cJSON_ArrayForEach (member, object) {
		bool is_allowed = false;
		for (size_t i = 0; allowed[i]; i++)
			is_allowed |= strcmp(allowed[i], member->string) == 0;
		if (!is_allowed)
			return error_set(error, 0, "%s.%.64s: there is no such key; expected %s%s%s%s%s", where, member->string,
					 allowed[0], allowed[2] ? ", " : " or ", allowed[1], allowed[2] ? " or " : "",
					 allowed[2] ? allowed[2] : "");
	}
	return 0;
}

static int check_selector_keys(const cJSON *selector, const char *where, struct error *error)
{
	static const char *const selector_keys[] = { "matchLabels", "matchExpressions", NULL };
	static const char *const expression_keys[] = { "key", "operator", "values", NULL };
	if (!cJSON_IsObject(selector))
		return 0;
	if (only_keys(selector, where, selector_keys, error) < 0)
		return -1;
	size_t index = 0;
	const cJSON *expression;
	cJSON_ArrayForEach (expression, cJSON_GetObjectItemCaseSensitive(selector, "matchExpressions")) {
		char place[128];
		snprintf(place, sizeof place, "%s.matchExpressions[%zu]", where, index++);
		if (cJSON_IsObject(expression) && only_keys(expression, place, expression_keys, error) < 0)
			return -1;
	}
	return 0;
}

/* Elsewhere an unknown key is a warning. Here it is not: a selector without the requirement that was meant matches more pods,
 * up to all of them. */
static int read_selectors(const struct config_key *key, const cJSON *value, struct error *error,
			  struct enablement_selectors *member)
{
	static const char *const entry_keys[] = { "podSelector", "namespaceSelector", NULL };
	size_t index = 0;
	const cJSON *entry;
	if (!cJSON_IsArray(value))
		return unexpected(key, value, error);
	cJSON_ArrayForEach (entry, value) {
		char place[64];
		for (size_t i = 0; entry_keys[i] && cJSON_IsObject(entry); i++) {
			snprintf(place, sizeof place, "%s[%zu].%s", key->name, index, entry_keys[i]);
			if (check_selector_keys(cJSON_GetObjectItemCaseSensitive(entry, entry_keys[i]), place, error) < 0)
				return -1;
		}
		snprintf(place, sizeof place, "%s[%zu]", key->name, index++);
		if (cJSON_IsObject(entry) && only_keys(entry, place, entry_keys, error) < 0)
			return -1;
	}
	return enablement_selectors_from_json(value, key->name, error, member);
}

/* redirect_from_json reads the whole object; it gets one that holds this key alone ("redirect.exclude.interfaces"). */
static int read_redirect(const struct config_key *key, const cJSON *value, struct error *error, struct redirect *member)
{
	const char *name = strchr(key->name, '.') + 1;
	cleanup_cjson cJSON *object = cJSON_CreateObject();
	cJSON *inner = object;
	for (const char *dot; inner && (dot = strchr(name, '.')); name = dot + 1) {
		char group[32];
		snprintf(group, sizeof group, "%.*s", (int)(dot - name), name);
		inner = cJSON_AddObjectToObject(inner, group);
	}
	cJSON *copy = cJSON_Duplicate(value, true);
	if (!inner || !copy || !cJSON_AddItemToObject(inner, name, copy)) {
		cJSON_Delete(copy);
		return no_memory(key, error);
	}
	return redirect_from_json(object, "redirect", error, member);
}

int config_key_read(const struct config_key *key, const cJSON *value, struct error *error, struct installer_config *config)
{
	void *member = (char *)config + key->offset;
	switch (key->type) {
	case CONFIG_TYPE_BOOL:
		if (!cJSON_IsBool(value))
			return unexpected(key, value, error);
		*(bool *)member = cJSON_IsTrue(value);
		return 0;
	case CONFIG_TYPE_INTEGER:
		return read_integer(key, value, error, member);
	case CONFIG_TYPE_CHOICE:
		return read_choice(key, value, error, member);
	case CONFIG_TYPE_NAMES:
		return read_names(key, value, error, config);
	case CONFIG_TYPE_MODE:
		return read_mode(key, value, error, member);
	case CONFIG_TYPE_LISTEN:
	case CONFIG_TYPE_LISTEN_LOOPBACK:
		return read_listen(key, value, error, member);
	case CONFIG_TYPE_SOURCE:
		return read_source(key, value, error, config);
	case CONFIG_TYPE_SELECTORS:
		return read_selectors(key, value, error, member);
	case CONFIG_TYPE_REDIRECT:
		return read_redirect(key, value, error, member);
	default:
		return read_text(key, value, error, member);
	}
}

void config_key_clear(const struct config_key *key, struct installer_config *config)
{
	void *member = (char *)config + key->offset;
	switch (key->type) {
	case CONFIG_TYPE_BOOL:
	case CONFIG_TYPE_INTEGER:
	case CONFIG_TYPE_CHOICE:
	case CONFIG_TYPE_MODE:
		return;
	case CONFIG_TYPE_NAMES:
		for (size_t i = 0; i < config->exclude_namespaces_count; i++)
			free(config->exclude_namespaces[i]);
		free(config->exclude_namespaces);
		config->exclude_namespaces_count = 0;
		config->exclude_namespaces = NULL;
		return;
	case CONFIG_TYPE_LISTEN:
	case CONFIG_TYPE_LISTEN_LOOPBACK:
		free(((struct listen_address *)member)->text);
		((struct listen_address *)member)->text = NULL;
		return;
	case CONFIG_TYPE_SOURCE:
		free(config->source_folder);
		config->source_folder = NULL;
		return;
	case CONFIG_TYPE_SELECTORS:
		enablement_selectors_clear(member);
		return;
	case CONFIG_TYPE_REDIRECT:
		redirect_clear(member);
		return;
	default:
		free(*(char **)member);
		*(char **)member = NULL;
		return;
	}
}
