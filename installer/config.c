/* Reading the installer's configuration. See config.h.
 *
 * The file's mappings and each --set are walked to the keys of the table; the last value that is given for a key stays, with
 * where it came from. Then every key is read once, whoever gave it: a default goes the same way as a value of the file. */
#include "installer/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/json.h"
#include "installer/config_keys.h"
#include "installer/yaml.h"

#define TEXT_MAX_BYTES (1 << 20)
#define WARNINGS_MAX 100
#define KEY_MAX_BYTES 64

struct loader {
	const struct installer_config_sources *sources;
	struct error *error;
	struct installer_config *config;
	struct yaml yaml;
	const cJSON **file_values; /* for each key of the table what the file says, in `yaml`; NULL: nothing */
};

static int no_memory(struct error *error)
{
	return error_set(error, ENOMEM, "cannot keep the configuration");
}

/* Where a message about the file begins: "FILE, line 3", or "FILE" where the line is not known. */
static int in_file(struct loader *loader, size_t line)
{
	const char *path = loader->sources->path;
	return line ? error_wrap(loader->error, "%s, line %zu", path, line) : error_wrap(loader->error, "%s", path);
}

/* Edit distance of two short texts, in which case does not count. */
static size_t distance(const char *a, const char *b)
{
	size_t row[KEY_MAX_BYTES + 1], length = strlen(b);
	for (size_t j = 0; j <= length; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= length; j++) {
			bool differs = tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]);
			size_t best = diagonal + differs;
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[length];
}

static const char *last_part(const char *name)
{
	const char *dot = strrchr(name, '.');
	return dot ? dot + 1 : name;
}

/* The key, or the beginning of one ("host"), that was probably meant; false: nothing is near. */
static bool suggest(const char *unknown, char ret_name[KEY_MAX_BYTES + 1])
{
	size_t length = strlen(unknown), nearest = length < 6 ? 2 : length / 3;
	bool is_found = false;
	if (length > KEY_MAX_BYTES)
		return false;
	for (size_t i = 0; i < config_keys_count; i++) {
		const char *name = config_keys[i].name;
		for (const char *end = name; end; end = *end ? strchr(end + 1, '.') : NULL) {
			char candidate[KEY_MAX_BYTES + 1];
			if (end == name) /* the whole key first */
				snprintf(candidate, sizeof candidate, "%s", name);
			else
				snprintf(candidate, sizeof candidate, "%.*s", (int)(end - name), name);
			size_t found = distance(unknown, candidate);
			/* The right key in the wrong place: "binDir" at the top. */
			if (end == name && strcasecmp(last_part(unknown), last_part(name)) == 0 && found > 1)
				found = 1;
			if (found > nearest || (found == nearest && is_found))
				continue;
			nearest = found;
			is_found = true;
			memcpy(ret_name, candidate, sizeof candidate);
		}
	}
	return is_found;
}

/* A key that is not in the table. An older program must start with a newer one's configuration: it is said, no more. */
static int warn_unknown(struct loader *loader, const char *name, const cJSON *file_value)
{
	struct installer_config *config = loader->config;
	char suggestion[KEY_MAX_BYTES + 1], place[300] = "--set", hint[KEY_MAX_BYTES + 32] = "";
	if (config->warnings_count >= WARNINGS_MAX)
		return 0;
	size_t line = yaml_line(&loader->yaml, file_value);
	if (file_value)
		snprintf(place, sizeof place, line ? "%.250s, line %zu" : "%.250s", loader->sources->path, line);
	if (suggest(name, suggestion))
		snprintf(hint, sizeof hint, "; did you mean \"%s\"?", suggestion);
	char **warnings = reallocarray(config->warnings, config->warnings_count + 1, sizeof *warnings);
	if (!warnings)
		return no_memory(loader->error);
	config->warnings = warnings;
	char *text = NULL;
	if (asprintf(&text, "%s: the key \"%.128s\" is not known and is passed over%s", place, name, hint) < 0)
		return no_memory(loader->error);
	warnings[config->warnings_count++] = text;
	return 0;
}

static bool find_key(const char *name, size_t *ret_index)
{
	for (size_t i = 0; i < config_keys_count; i++) {
		if (strcmp(config_keys[i].name, name) != 0)
			continue;
		*ret_index = i;
		return true;
	}
	return false;
}

/* Whether keys begin with the name and a dot. */
static bool is_group(const char *name)
{
	size_t length = strlen(name);
	for (size_t i = 0; i < config_keys_count; i++)
		if (strncmp(config_keys[i].name, name, length) == 0 && config_keys[i].name[length] == '.')
			return true;
	return false;
}

/* The value of a key from now on. Empty is as good as absent where the default is found at the start: a template that has
 * nothing to say writes "". */
static int give(struct loader *loader, size_t index, const cJSON *value, struct config_origin origin)
{
	struct installer_config *config = loader->config;
	bool is_empty = cJSON_IsString(value) && value->valuestring[0] == '\0';
	if (is_empty && !config_keys[index].default_value)
		return 0;
	cJSON *copy = cJSON_Duplicate(value, true);
	if (!copy)
		return no_memory(loader->error);
	cJSON_Delete(config->values[index]);
	config->values[index] = copy;
	config->origins[index] = origin;
	return 0;
}

static int walk(struct loader *loader, const cJSON *object, const char *prefix, enum config_origin_kind kind);

static int walk_member(struct loader *loader, const cJSON *member, const char *prefix, enum config_origin_kind kind)
{
	bool is_file = kind == CONFIG_ORIGIN_FILE;
	size_t index, line = is_file ? yaml_line(&loader->yaml, member) : 0;
	cleanup_free char *name = NULL;
	if (asprintf(&name, "%s%s%s", prefix, prefix[0] ? "." : "", member->string) < 0) {
		name = NULL;
		return no_memory(loader->error);
	}
	if (!find_key(name, &index)) {
		if (!is_group(name))
			return warn_unknown(loader, name, is_file ? member : NULL);
		return cJSON_IsNull(member) ? 0 : walk(loader, member, name, kind);
	}
	if (cJSON_IsNull(member))
		return 0;
	if (is_file && loader->file_values[index]) {
		error_set(loader->error, 0, "the key \"%s\" is there already, on line %zu", name,
			  yaml_line(&loader->yaml, loader->file_values[index]));
		return in_file(loader, line);
	}
	if (is_file)
		loader->file_values[index] = member;
	return give(loader, index, member, (struct config_origin){ .kind = kind, .line = line });
}

/* Everything in an object whose place is `prefix`; empty: the top. */
static int walk(struct loader *loader, const cJSON *object, const char *prefix, enum config_origin_kind kind)
{
	if (!cJSON_IsObject(object)) {
		cleanup_free char *found = cJSON_PrintUnformatted(object);
		error_set(loader->error, 0, "%s%sexpected %s, found %.80s", prefix, prefix[0] ? ": " : "",
			  prefix[0] ? "an object" : "keys and values", found ? found : json_type_name(object));
		return kind == CONFIG_ORIGIN_FILE ? in_file(loader, yaml_line(&loader->yaml, object))
						  : error_wrap(loader->error, "--set");
	}
	const cJSON *member;
	cJSON_ArrayForEach (member, object) {
		if (walk_member(loader, member, prefix, kind) < 0)
			return -1;
	}
	return 0;
}

static int read_file(struct loader *loader)
{
	const char *path = loader->sources->path;
	cleanup_free char *text = NULL;
	size_t length = 0;
	if (!path)
		return 0;
	if (file_read(path, TEXT_MAX_BYTES, loader->error, &text, &length) < 0 ||
	    yaml_parse(text, length, TEXT_MAX_BYTES, path, loader->error, &loader->yaml) < 0)
		return -1;
	const cJSON *second = cJSON_GetArrayItem(loader->yaml.documents, 1);
	if (second) {
		error_set(loader->error, 0, "a second document, expected one");
		return in_file(loader, yaml_line(&loader->yaml, second));
	}
	const cJSON *document = cJSON_GetArrayItem(loader->yaml.documents, 0);
	/* A file of comments alone is a configuration too. */
	return !document || cJSON_IsNull(document) ? 0 : walk(loader, document, "", CONFIG_ORIGIN_FILE);
}

static int take_set(struct loader *loader, const char *argument)
{
	const char *equals = strchr(argument, '=');
	if (!equals || equals == argument)
		return error_set(loader->error, 0, "--set %.128s: expected KEY=VALUE", argument);
	cleanup_free char *name = strndup(argument, (size_t)(equals - argument));
	cleanup_cjson cJSON *value = NULL;
	size_t index = 0, length = strlen(equals + 1);
	if (!name)
		return no_memory(loader->error);
	bool is_key = find_key(name, &index);
	if (!is_key && !is_group(name))
		return warn_unknown(loader, name, NULL);
	/* What is no JSON is a text: the key's own message then says what it expected. */
	if ((is_key && config_key_is_text(&config_keys[index])) ||
	    json_parse(equals + 1, length, TEXT_MAX_BYTES, "--set", NULL, &value) < 0)
		value = cJSON_CreateString(equals + 1);
	if (!value)
		return no_memory(loader->error);
	if (!is_key)
		return walk(loader, value, name, CONFIG_ORIGIN_SET);
	return give(loader, index, value, (struct config_origin){ .kind = CONFIG_ORIGIN_SET });
}

/* Never NULL. */
static const char *environment(const struct loader *loader, const char *name)
{
	const char *value = loader->sources->environment ? loader->sources->environment(name) : getenv(name);
	return value ? value : "";
}

/* The defaults that the table has in words only. */
static int computed_default(struct loader *loader, const struct config_key *key, struct error *error, cJSON **ret_value)
{
	char text[4096] = "";
	size_t system_namespace = 0;
	if (strcmp(key->name, "nodeName") == 0) {
		if (gethostname(text, sizeof text) < 0)
			return error_set(error, errno, "cannot read the host's name");
		/* As the kubelet does. */
		for (char *c = text; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	} else if (strcmp(key->name, "installerNamespace") == 0) {
		find_key("systemNamespace", &system_namespace);
		*ret_value = cJSON_Duplicate(loader->config->values[system_namespace], true);
		return *ret_value ? 0 : no_memory(error);
	} else { /* host.binSource */
		ssize_t length = readlink("/proc/self/exe", text, sizeof text - 1);
		char *slash = length > 0 ? strrchr(text, '/') : NULL;
		if (!slash)
			return error_set(error, errno, "cannot find the directory of this program");
		slash[slash == text] = '\0';
	}
	*ret_value = cJSON_CreateString(text);
	return *ret_value ? 0 : no_memory(error);
}

static int give_default(struct loader *loader, size_t index)
{
	const struct config_key *key = &config_keys[index];
	cleanup_cjson cJSON *value = NULL;
	struct config_origin origin = { .kind = CONFIG_ORIGIN_DEFAULT };
	const char *text = key->variable ? environment(loader, key->variable) : "";
	if (text[0]) {
		value = cJSON_CreateString(text);
		origin = (struct config_origin){ .kind = CONFIG_ORIGIN_ENVIRONMENT, .variable = key->variable };
	} else if (key->default_value) {
		value = cJSON_Parse(key->default_value);
	} else if (computed_default(loader, key, loader->error, &value) < 0) {
		return -1;
	}
	return value ? give(loader, index, value, origin) : no_memory(loader->error);
}

/* The deepest value with a known line on the path that a message begins with ("[1].podSelector: expected ..."). */
static size_t line_within(const struct yaml *yaml, const cJSON *value, const char *path)
{
	size_t line = yaml_line(yaml, value);
	while (value && (*path == '[' || *path == '.')) {
		if (*path == '[') {
			char *end;
			value = cJSON_GetArrayItem(value, (int)strtol(path + 1, &end, 10));
			path = *end == ']' ? end + 1 : end;
		} else {
			char name[128];
			size_t length = strcspn(++path, ".[: ");
			snprintf(name, sizeof name, "%.*s", (int)length, path);
			value = cJSON_GetObjectItemCaseSensitive(value, name);
			path += length;
		}
		size_t deeper = yaml_line(yaml, value);
		line = deeper ? deeper : line;
	}
	return line;
}

static int read_key(struct loader *loader, size_t index)
{
	const struct config_key *key = &config_keys[index];
	struct installer_config *config = loader->config;
	struct error *error = loader->error;
	const struct config_origin *origin = &config->origins[index];
	if (config_key_read(key, config->values[index], error, config) == 0)
		return 0;
	switch (origin->kind) {
	case CONFIG_ORIGIN_FILE:
		return in_file(loader,
			       line_within(&loader->yaml, loader->file_values[index], error->message + strlen(key->name)));
	case CONFIG_ORIGIN_SET:
		return error_wrap(error, "--set");
	case CONFIG_ORIGIN_ENVIRONMENT:
		return error_wrap(error, "environment variable %s", origin->variable);
	case CONFIG_ORIGIN_DEFAULT:
		break;
	}
	return key->default_words ? error_wrap(error, "%s can't be used, set %s", key->default_words, key->name) : -1;
}

static int read_environment(struct loader *loader)
{
	struct installer_config *config = loader->config;
	const struct {
		const char *name;
		char **member;
	} variables[] = {
		{ "POD_NAME", &config->pod_name },
		{ "POD_NAMESPACE", &config->pod_namespace },
		{ "KUBERNETES_SERVICE_HOST", &config->kubernetes_service_host },
		{ "KUBERNETES_SERVICE_PORT", &config->kubernetes_service_port },
	};
	for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
		*variables[i].member = strdup(environment(loader, variables[i].name));
		if (!*variables[i].member)
			return no_memory(loader->error);
	}
	config->path = strdup(loader->sources->path ? loader->sources->path : "");
	return config->path ? 0 : no_memory(loader->error);
}

static void loader_clear(struct loader *loader)
{
	yaml_clear(&loader->yaml);
	free(loader->file_values);
}

int installer_config_load(const struct installer_config_sources *sources, struct error *error,
			  struct installer_config *ret_config)
{
	struct error own = { 0 };
	cleanup_installer_config struct installer_config config = {
		.keys_count = config_keys_count,
		.values = calloc(config_keys_count, sizeof *config.values),
		.origins = calloc(config_keys_count, sizeof *config.origins),
	};
	__attribute__((cleanup(loader_clear))) struct loader loader = {
		.sources = sources,
		.error = &own,
		.config = &config,
		.file_values = calloc(config_keys_count, sizeof *loader.file_values),
	};
	if (!config.values || !config.origins || !loader.file_values)
		return no_memory(error);
	redirect_init(&config.redirect);

	int outcome = read_file(&loader);
	for (size_t i = 0; outcome == 0 && i < sources->set_count; i++)
		outcome = take_set(&loader, sources->set[i]);
	for (size_t i = 0; outcome == 0 && i < config_keys_count; i++)
		if (!config.values[i])
			outcome = give_default(&loader, i);
	for (size_t i = 0; outcome == 0 && i < config_keys_count; i++)
		outcome = read_key(&loader, i);
	if (outcome < 0 || read_environment(&loader) < 0)
		return error_copy(error, &own);
	*ret_config = config;
	config = (struct installer_config){ 0 };
	return 0;
}

void installer_config_clear(struct installer_config *config)
{
	for (size_t i = 0; i < config->keys_count; i++) {
		config_key_clear(&config_keys[i], config);
		if (config->values)
			cJSON_Delete(config->values[i]);
	}
	for (size_t i = 0; i < config->warnings_count; i++)
		free(config->warnings[i]);
	free(config->warnings);
	free((void *)config->values);
	free(config->origins);
	free(config->pod_name);
	free(config->pod_namespace);
	free(config->kubernetes_service_host);
	free(config->kubernetes_service_port);
	free(config->path);
	*config = (struct installer_config){ 0 };
}

struct selection installer_config_selection(const struct installer_config *config)
{
	return (struct selection){
		.selectors = &config->enablement_selectors,
		.exclude_namespaces = (const char *const *)config->exclude_namespaces,
		.exclude_namespaces_count = config->exclude_namespaces_count,
		.system_namespace = config->system_namespace,
		.installer_namespace = config->installer_namespace,
		.daemon_set_name = config->daemon_set_name,
		.defaults = &config->redirect,
		.allow_pod_exclusions = config->allow_pod_exclusions,
	};
}
