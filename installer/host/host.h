/* The keeper of what stands on the host's disk: the plugin's binary and its network configuration.
 *
 * It is level-triggered: whatever happened in the two directories (inotify, and a slow look for file systems that tell
 * nothing), it compares what is there with what should be, and does the next missing step. Every step is one rename, so that
 * a runtime sees the old state or the new one, and a process that is killed between two steps leaves what the next start
 * completes. The binary comes first: a configuration never names a plugin that is not there.
 *
 *   binary.c         the plugin in the runtime's binary directory; binary_try.c, whether it runs here
 *   runtime_order.c  which configuration a runtime would use
 *   conflist.c       editing a configuration: in, out, a copy with us, a stand-alone one
 *   configuration.c  one look at the configuration directory: what is to be done, and doing it; configuration_file.c, a file
 *   replace.c        a file replaced in one step
 *   host.c           the directories watched, at a bounded rate; options.c its options
 *   uninstall.c      both away again, in the order in which no runtime misses anything; results.c, who may still call us
 *
 * And beside the disk: migrate.c, rules that istio-cni left; release.c, pods let go without the agent; upgrade.c, whether the
 * agent's stop is one.
 *
 * Nothing here asks Kubernetes, or knows the mesh or the configuration file: options come as a plain struct. */
#ifndef AMBIENT_INSTALLER_HOST_HOST_H
#define AMBIENT_INSTALLER_HOST_HOST_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "ambient/error.h"
#include "ambient/log.h"

#define HOST_PLUGIN_NAME "ambient-cni" /* the file's name, and the `type` in a configuration */

/* The keys host.* of the configuration. All borrowed; host_new and the others copy what they keep. */
struct host_options {
	const char *bin_dir, *conf_dir; /* as this process sees them */
	const char *bin_source;		/* the directory that holds the plugin to install */
	const char *conf_file;		/* NULL or "": the first configuration that the runtime would use */
	mode_t conf_mode;		/* of configurations that we write, 0600 */
	bool chained;			/* false: a stand-alone configuration, for a meta plugin (multus) */
	bool own_config;		/* chained: a file of our own, first in order, instead of an edit */
	const char *own_config_file;	/* 02-ambient-cni.conflist; also the stand-alone one's name where conf_file is empty */
	/* The plugin's own keys ("enrollment", "runDir", ...) as they shall stand in its entry, without type, name and
	 * cniVersion. */
	const cJSON *plugin;
	const char *results_dir; /* the runtime's cached results (/host/var/lib/cni/results); NULL: not known */
};

enum host_file { HOST_FILE_BINARY, HOST_FILE_CONFIGURATION, HOST_FILE_COUNT };
enum host_result {
	HOST_RESULT_WRITTEN, /* installed, or put right */
	HOST_RESULT_FAILED,
	HOST_RESULT_DEFERRED, /* not written because somebody takes it out again and again */
	HOST_RESULT_COUNT,
};
const char *host_file_name(enum host_file file);       /* "binary", "configuration": label values of host_installs_total */
const char *host_result_name(enum host_result result); /* "written", "failed", "deferred" */

#define HOST_REASON_MAX 1024

struct host_state {
	bool ready; /* both stand, and a runtime that loads its configuration now uses us */
	bool binary_ready, configuration_ready;
	char reason[HOST_REASON_MAX];			      /* a sentence that says what is missing; empty when ready */
	char file[256];					      /* the configuration that names us; empty: none */
	uint64_t results[HOST_FILE_COUNT][HOST_RESULT_COUNT]; /* since the start */
};

struct host_callbacks {
	/* Something in the state changed; also once from the first look inside host_new. */
	void (*state_changed)(void *data, const struct host_state *state);
	/* What a person should see. `reason` is in the form that Kubernetes Events want ("ConfigurationFight",
	 * "ConfigurationWritten", "BinaryWritten", "InvalidConfiguration", "IstioCNIReplaced"); the same message is not told
	 * again within ten minutes. */
	void (*event)(void *data, enum log_level level, const char *reason, const char *message);
};

struct event_base;
struct host;

/* Looks at once, then watches. A directory that is missing is no failure: it is waited for. Failures are those of this
 * process only (no memory, no inotify instance is no failure: then only the slow look is left, and an event says so). */
int host_new(struct event_base *base, const struct host_options *options, const struct host_callbacks *callbacks, void *data,
	     struct error *error, struct host **ret_host);

/* Stops watching and leaves everything on the host as it is. NULL is fine. */
void host_free(struct host *host);

const struct host_state *host_state(const struct host *host);

/* One look and whatever it takes, without a loop: `install` by hand. Returns -1 only where nothing could be done; a state that
 * is not ready says why. */
int host_install_once(const struct host_options *options, const struct host_callbacks *callbacks, void *data,
		      struct error *error, struct host_state *ret_state);

/* Takes the configuration away first (a .conf that became a .conflist goes back), then the binary, unless a cached result of
 * the runtime names us, or the results can't be seen: then a runtime may still call it for a DEL, which it answers without us.
 * What is gone already is no error. -1: the configuration still names us, and `ret_uninstalled` says so too. */
struct host_uninstalled {
	bool configuration_gone, binary_gone;
	char remark[HOST_REASON_MAX]; /* why something stays; empty: nothing does */
};
int host_uninstall(const struct host_options *options, struct error *error, struct host_uninstalled *ret_uninstalled);

#endif
