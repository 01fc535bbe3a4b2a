/* One look at the configuration directory. See configuration.h. Taking out is in configuration_remove.c.
 *
 *   chained       the first primary configuration gets our entry at its end; a .conf or .json becomes a .conflist: the new file
 * is written first, then the old removed, so that at no moment there is none own           a file of our own, first in order:
 * the primary's chain and us; it goes when the primary goes stand-alone   a file that holds us alone, for a meta plugin
 *
 * Whatever else names us, or istio-cni, is cleaned up once ours stands. */
#include "installer/host/configuration.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/host/configuration_file.h"
#include "installer/host/conflist.h"
#include "installer/host/replace.h"
#include "installer/host/runtime_order.h"

#define ISTIO_KUBECONFIG "ZZZ-istio-cni-kubeconfig"

struct look {
	const struct host_options *options;
	struct configuration_report *report;
	bool may_write, may_withdraw;
	int directory;
	struct runtime_directory files;
	char target[256]; /* the file that should name us; empty: not known yet */
};

static bool is_given(const char *text)
{
	return text && text[0] != '\0';
}

/* Not ready, for this reason. The look is done; that is no failure. */
static int wait_for(struct look *look, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int wait_for(struct look *look, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(look->report->reason, sizeof look->report->reason, format, arguments);
	va_end(arguments);
	return 0;
}

static bool is_istio_own(const struct runtime_file *file)
{
	return strstr(file->name, "istio-cni") && file->json && conflist_find(file->json, CONFLIST_ISTIO_TYPE);
}

static bool is_our_own(const struct look *look, const struct runtime_file *file)
{
	const cJSON *entry = conflist_find(file->json, HOST_PLUGIN_NAME);
	if (is_given(look->options->own_config_file) && strcmp(file->name, look->options->own_config_file) == 0 &&
	    (look->options->own_config || entry))
		return true;
	return entry && (cJSON_GetObjectItemCaseSensitive(entry, CONFLIST_COPY_KEY) || file->json == entry);
}

static bool is_primary(const struct look *look, const struct runtime_file *file)
{
	return file->owner == RUNTIME_FILE_PRIMARY && !is_istio_own(file) && !is_our_own(look, file);
}

/* host.confFile, or what it became or was: "10-x.conf" and "10-x.conflist" are one configuration. */
static const struct runtime_file *find_named(const struct look *look)
{
	const char *name = look->options->conf_file;
	const struct runtime_file *file = runtime_directory_find(&look->files, name);
	cleanup_free char *list = conflist_file_name(name);
	if (!file && list)
		file = runtime_directory_find(&look->files, list);
	for (size_t i = 0; i < look->files.count && !file && list; i++) {
		cleanup_free char *other = conflist_file_name(look->files.files[i].name);
		if (other && strcmp(other, list) == 0)
			file = &look->files.files[i];
	}
	return file;
}

/* The configuration to chain into; NULL, and the reason said, where there is none. */
static const struct runtime_file *find_primary(struct look *look)
{
	const char *conf_dir = look->options->conf_dir;
	if (is_given(look->options->conf_file)) {
		const struct runtime_file *named = find_named(look);
		if (!named)
			wait_for(look, "waiting for %s/%s, which host.confFile names", conf_dir, look->options->conf_file);
		else if (!named->json)
			wait_for(look, "host.confFile names a file that no runtime loads: %s", named->problem);
		return named && named->json ? named : NULL;
	}
	const struct runtime_file *invalid = NULL, *other = NULL;
	for (size_t i = 0; i < look->files.count; i++) {
		const struct runtime_file *file = &look->files.files[i];
		if (!is_primary(look, file))
			other = file;
		else if (file->json)
			return file;
		else if (!invalid)
			invalid = file;
	}
	if (invalid)
		wait_for(look, "the only network configuration is invalid: %s", invalid->problem);
	else if (other)
		wait_for(look,
			 "waiting for the primary network's configuration in %s: %s is not one (host.confFile can name it all "
			 "the same)",
			 conf_dir, other->name);
	else
		wait_for(look, "waiting for the primary network's configuration in %s", conf_dir);
	return NULL;
}

/* The file that a list of ours was made of, where it is (again) there. Its name comes from a file, so it must fit the list's.
 */
static const struct runtime_file *find_original(const struct look *look, const struct runtime_file *list)
{
	const cJSON *entry = conflist_find(list->json, HOST_PLUGIN_NAME);
	const cJSON *original = cJSON_GetObjectItemCaseSensitive(entry, CONFLIST_ORIGINAL_KEY);
	if (!cJSON_IsString(original))
		return NULL;
	const struct runtime_file *file = runtime_directory_find(&look->files, original->valuestring);
	cleanup_free char *name = file ? conflist_file_name(file->name) : NULL;
	return name && file != list && strcmp(name, list->name) == 0 ? file : NULL;
}

/* Never looser than what was there. */
static mode_t mode_for(const struct look *look, const struct runtime_file *existing)
{
	return existing ? look->options->conf_mode & existing->status.st_mode & 07777 : look->options->conf_mode;
}

/* A file of our own is written over nothing that is another's, whatever name it was given. */
static bool is_anothers(const struct look *look, const char *name)
{
	const struct runtime_file *file = runtime_directory_find(&look->files, name);
	return file && file->json && !strstr(name, HOST_PLUGIN_NAME) && !conflist_find(file->json, HOST_PLUGIN_NAME) &&
	       !is_istio_own(file);
}

/* Makes the target what `wanted` says. 1: not allowed now. */
static int write_target(struct look *look, const cJSON *wanted, const struct runtime_file *model, struct error *error)
{
	const struct runtime_file *existing = runtime_directory_find(&look->files, look->target);
	mode_t mode = mode_for(look, existing ? existing : model);
	if (existing && existing->json && !existing->is_link && (existing->status.st_mode & 07777 & ~mode) == 0 &&
	    conflist_equal(existing->json, wanted))
		return 0;
	if (!look->may_write) {
		look->report->is_pending = true;
		return 1;
	}
	if (configuration_file_write(look->directory, look->target, wanted, mode,
				     existing && !existing->is_link ? &existing->status : NULL, error) < 0)
		return -1;
	look->report->is_written = true;
	snprintf(look->report->written, sizeof look->report->written, "%s/%s now names " HOST_PLUGIN_NAME,
		 look->options->conf_dir, look->target);
	return 0;
}

static int remove_file(struct look *look, const struct runtime_file *file, struct error *error)
{
	if (!look->may_write) {
		look->report->is_pending = true;
		return 0;
	}
	if (configuration_file_remove(look->directory, file->name, &file->status, error) < 0)
		return -1;
	look->report->is_written = true;
	return 0;
}

static void note_drop_ins(struct look *look, const struct runtime_file *file)
{
	const cJSON *plugin;
	cJSON_ArrayForEach (plugin, file->drop_ins) {
		if (conflist_find(plugin, HOST_PLUGIN_NAME))
			snprintf(look->report->warning, sizeof look->report->warning,
				 "%s names " HOST_PLUGIN_NAME
				 " in %s, and a file in the directory of its network's drop-ins does so again: remove that one",
				 look->options->conf_dir, file->name);
	}
}

/* Who rewrites the files here, as far as one can see. */
static void note_neighbour(struct look *look, const struct runtime_file *primary)
{
	struct configuration_report *report = look->report;
	if (look->files.put_away_count > 0 || conflist_find(primary->json, "cilium-cni"))
		snprintf(report->neighbour, sizeof report->neighbour,
			 "Cilium rewrites its configuration and puts others away: set its cni.exclusive=false");
	for (size_t i = 0; i < look->files.count; i++)
		if (conflist_find(look->files.files[i].json, CONFLIST_ISTIO_TYPE))
			snprintf(report->neighbour, sizeof report->neighbour,
				 "istio-cni's node agent still runs here: remove its DaemonSet");
}

static int look_chained(struct look *look, struct error *error)
{
	const struct runtime_file *source = find_primary(look);
	if (!source)
		return 0;
	/* A .conf that its owner wrote again is newer than the list that we made of it; so is one that we had no time to
	 * remove. */
	const struct runtime_file *original = find_original(look, source);
	if (original && !original->json)
		return wait_for(look, "waiting for a valid configuration: %s", original->problem);
	if (original)
		source = original;
	note_neighbour(look, source);
	note_drop_ins(look, source);
	if (source->is_list && !cJSON_GetObjectItemCaseSensitive(source->json, "plugins"))
		return wait_for(look,
				"%s/%s has no plugin of its own, only drop-ins, before which " HOST_PLUGIN_NAME
				" would run: put its plugins into the file, or set host.ownConfig",
				look->options->conf_dir, source->name);

	cleanup_cjson cJSON *wanted = NULL;
	struct error problem = { 0 };
	if (conflist_add(source->json, look->options->plugin, source->is_list ? NULL : source->name, &problem, &wanted) < 0)
		return problem.number == ENOMEM ? error_set(error, 0, "%s", problem.message)
						: wait_for(look, "cannot chain into %s/%s: %s", look->options->conf_dir,
							   source->name, problem.message);
	cleanup_free char *target = conflist_file_name(source->name);
	if (!target)
		return error_set(error, ENOMEM, "cannot edit %s", source->name);
	snprintf(look->target, sizeof look->target, "%s", target);
	int result = write_target(look, wanted, source, error);
	if (result != 0)
		return result < 0 ? -1 : 0;
	return strcmp(source->name, target) == 0 ? 0 : remove_file(look, source, error);
}

static int look_own(struct look *look, struct error *error)
{
	const char *own = look->options->own_config_file;
	const struct runtime_file *primary = find_primary(look), *existing = runtime_directory_find(&look->files, own);
	if (!primary) {
		/* Without the network that it copies it would make the node ready for nothing. An invalid primary may be one
		 * that is being written: the copy stays. */
		for (size_t i = 0; i < look->files.count; i++)
			if (is_primary(look, &look->files.files[i]))
				return 0;
		if (!existing || !conflist_find(existing->json, HOST_PLUGIN_NAME))
			return 0;
		look->report->is_withdrawn = true;
		return look->may_withdraw ? remove_file(look, existing, error) : 0;
	}
	note_neighbour(look, primary);
	note_drop_ins(look, primary);
	cleanup_cjson cJSON *wanted = NULL;
	struct error problem = { 0 };
	if (conflist_add(primary->json, look->options->plugin, NULL, &problem, &wanted) < 0)
		return problem.number == ENOMEM ? error_set(error, 0, "%s", problem.message)
						: wait_for(look, "cannot chain to %s/%s: %s", look->options->conf_dir,
							   primary->name, problem.message);
	if (conflist_mark_copy(wanted, primary->name, error) < 0)
		return -1;
	if (strcmp(own, primary->name) >= 0)
		return wait_for(look,
				"host.ownConfigFile %s does not come before %s in the order of names, so that no runtime would "
				"use it: give it a lower number",
				own, primary->name);
	if (is_anothers(look, own))
		return wait_for(look, "%s/%s is another plugin's: give host.ownConfigFile another name",
				look->options->conf_dir, own);
	snprintf(look->target, sizeof look->target, "%s", own);
	int result = write_target(look, wanted, NULL, error);
	return result < 0 ? -1 : 0;
}

/* "02-ambient-cni.conflist" -> "ambient-cni": a meta plugin asks for a network by name. */
static void network_name(const char *file, char *name, size_t size)
{
	const char *start = file + strspn(file, "0123456789");
	if (start != file && *start == '-')
		start++;
	else
		start = file;
	snprintf(name, size, "%.*s", (int)strcspn(start, "."), start);
}

static int look_stand_alone(struct look *look, struct error *error)
{
	const struct host_options *options = look->options;
	const char *file = is_given(options->conf_file) ? options->conf_file : options->own_config_file;
	const char *extension = strrchr(file, '.');
	char name[256];
	cleanup_cjson cJSON *wanted = NULL;
	if (is_anothers(look, file))
		return wait_for(look, "%s/%s is another plugin's: name a file of our own in host.confFile, or set host.chained",
				options->conf_dir, file);
	network_name(file, name, sizeof name);
	if (conflist_stand_alone(options->plugin, name, extension && strcmp(extension, ".conflist") == 0, error, &wanted) < 0)
		return -1;
	snprintf(look->target, sizeof look->target, "%s", file);
	return write_target(look, wanted, NULL, error) < 0 ? -1 : 0;
}

/* The file that an entry of istio-cni names, by its last part only. */
static const char *kubeconfig_of(const cJSON *json)
{
	const cJSON *entry = conflist_find(json, CONFLIST_ISTIO_TYPE);
	const cJSON *kubernetes = cJSON_GetObjectItemCaseSensitive(entry, "kubernetes");
	const cJSON *path = cJSON_GetObjectItemCaseSensitive(kubernetes ? kubernetes : entry, "kubeconfig");
	const char *slash = cJSON_IsString(path) ? strrchr(path->valuestring, '/') : NULL;
	return slash ? slash + 1 : cJSON_IsString(path) ? path->valuestring : NULL;
}

static void remove_kubeconfig(struct look *look, const char *name)
{
	static const char suffix[] = "kubeconfig";
	size_t length = name ? strlen(name) : 0;
	if (length < strlen(suffix) || strcmp(name + length - strlen(suffix), suffix) != 0 || !look->may_write)
		return;
	if (unlinkat(look->directory, name, 0) == 0)
		snprintf(look->report->istio, sizeof look->report->istio, "its kubeconfig %.128s was removed", name);
}

/* What else names us or istio-cni: edited files lose the entry, files of their own go. */
static int clean_one(struct look *look, const struct runtime_file *file, struct error *error)
{
	bool names_us = conflist_find(file->json, HOST_PLUGIN_NAME),
	     names_istio = conflist_find(file->json, CONFLIST_ISTIO_TYPE);
	bool is_target = strcmp(file->name, look->target) == 0;
	if (names_istio)
		remove_kubeconfig(look, kubeconfig_of(file->json));
	if (is_target || file->owner != RUNTIME_FILE_PRIMARY || (!names_us && !names_istio))
		return 0;
	if (names_istio)
		snprintf(look->report->istio, sizeof look->report->istio, "its configuration %.200s was replaced", file->name);
	if (is_istio_own(file) || file->json == conflist_find(file->json, HOST_PLUGIN_NAME))
		return remove_file(look, file, error);
	if (!look->may_write) {
		look->report->is_pending = true;
		return 0;
	}
	look->report->is_written = true;
	if (names_istio) {
		cleanup_cjson cJSON *rest = NULL;
		if (conflist_remove_type(file->json, CONFLIST_ISTIO_TYPE, error, &rest) < 0)
			return -1;
		if (!rest)
			return remove_file(look, file, error);
		if (!names_us)
			return configuration_file_write(look->directory, file->name, rest, file->status.st_mode & 07777,
							&file->status, error);
		return configuration_file_take_out(look->directory, file, rest, &look->files, error);
	}
	return configuration_file_take_out(look->directory, file, file->json, &look->files, error);
}

static int clean_others(struct look *look, struct error *error)
{
	for (size_t i = 0; i < look->files.count; i++)
		if (clean_one(look, &look->files.files[i], error) < 0)
			return -1;
	remove_kubeconfig(look, ISTIO_KUBECONFIG);
	return 0;
}

/* Multus embeds the primary's chain, or names its file. */
static bool multus_knows_us(const struct look *look, const struct runtime_file *multus)
{
	const cJSON *delegates = cJSON_GetObjectItemCaseSensitive(multus->json, "delegates"), *delegate;
	const cJSON *network = cJSON_GetObjectItemCaseSensitive(multus->json, "clusterNetwork");
	bool embeds = false;
	cJSON_ArrayForEach (delegate, delegates) {
		if (conflist_find(delegate, HOST_PLUGIN_NAME))
			return true;
		embeds |= cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(delegate, "plugins")) ||
			  cJSON_IsString(cJSON_GetObjectItemCaseSensitive(delegate, "type"));
	}
	if (cJSON_IsString(network)) {
		/* A path, or a network's name. */
		const char *slash = strrchr(network->valuestring, '/');
		return !slash || strcmp(slash + 1, look->target) == 0;
	}
	return !embeds;
}

/* Whether a runtime that loads its configuration now uses the target. */
static int judge(struct look *look)
{
	struct configuration_report *report = look->report;
	const char *conf_dir = look->options->conf_dir;
	const struct runtime_file *target = runtime_directory_find(&look->files, look->target);
	if (!target || !conflist_find(target->json, HOST_PLUGIN_NAME)) {
		if (report->is_pending)
			return wait_for(look, "%s/%s does not name " HOST_PLUGIN_NAME ": somebody takes it out again and again",
					conf_dir, look->target);
		return wait_for(look, "%s/%s does not name " HOST_PLUGIN_NAME " yet", conf_dir, look->target);
	}
	snprintf(report->file, sizeof report->file, "%s", look->target);
	/* A meta plugin's directory: no runtime reads it. */
	if (!look->options->chained) {
		report->is_ready = true;
		return 0;
	}
	struct runtime_choice choice;
	runtime_directory_choose(&look->files, &choice);
	if (choice.stops_at)
		return wait_for(look,
				"containerd can load no network, since it stops at an invalid file (CRI-O passes it over): %s",
				choice.stops_at->problem);
	if (choice.containerd->owner == RUNTIME_FILE_MULTUS) {
		if (!multus_knows_us(look, choice.containerd))
			return wait_for(look,
					"Multus (%s/%s) does not have the new %s yet: it follows by itself where it made that "
					"file, else restart its pods",
					conf_dir, choice.containerd->name, look->target);
	} else if (choice.containerd != target) {
		return wait_for(look, "the runtime uses %s/%s, which comes before %s and does not name " HOST_PLUGIN_NAME "%s",
				conf_dir, choice.containerd->name, look->target,
				choice.containerd->owner == RUNTIME_FILE_TOOL ? ": it is another tool's" : "");
	}
	if (report->is_pending)
		return wait_for(look, "%s is not as it should be: somebody changes it again and again", look->target);
	report->is_ready = true;
	return 0;
}

static int converge(struct look *look, struct error *error)
{
	const struct host_options *options = look->options;
	int result = !options->chained	   ? look_stand_alone(look, error)
		     : options->own_config ? look_own(look, error)
					   : look_chained(look, error);
	if (result < 0)
		return -1;
	if (look->target[0] == '\0')
		return 0;
	if (clean_others(look, error) < 0)
		return -1;
	if (look->report->is_written) {
		struct runtime_directory files = { 0 };
		if (runtime_directory_read(options->conf_dir, error, &files) < 0)
			return -1;
		runtime_directory_clear(&look->files);
		look->files = files;
	}
	return judge(look);
}

int configuration_converge(const struct host_options *options, bool may_write, bool may_withdraw, struct error *error,
			   struct configuration_report *report)
{
	struct look look = { .options = options, .report = report, .may_write = may_write, .may_withdraw = may_withdraw };
	*report = (struct configuration_report){ 0 };
	cleanup_close int directory = open(options->conf_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct error problem = { 0 };
	if (directory < 0 && errno == ENOENT) {
		return wait_for(&look, "waiting for the configuration directory %s to appear", options->conf_dir);
	}
	if (directory < 0)
		return error_set(error, errno, "cannot open the configuration directory %s", options->conf_dir);
	look.directory = directory;
	if (may_write)
		replacement_sweep(directory);
	if (runtime_directory_read(options->conf_dir, error, &look.files) < 0)
		return -1;
	int result = converge(&look, &problem);
	runtime_directory_clear(&look.files);
	if (result < 0 && problem.number == EAGAIN) {
		report->is_outrun = true;
		snprintf(report->reason, sizeof report->reason, "%s/%.900s", options->conf_dir, problem.message);
		return 0;
	}
	if (result < 0) {
		snprintf(report->reason, sizeof report->reason, "%s", problem.message);
		return error_say(error, problem.number, "%s: %s", options->conf_dir, problem.message);
	}
	return 0;
}
