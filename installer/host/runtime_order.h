/* Which network configuration a runtime would use.
 *
 * containerd (go-cni) and CRI-O (ocicni) list the files *.conf, *.conflist and *.json of the directory, dot files too, in the
 * order of their names, and take the first. containerd stops at the first file that it can't load and then has no network at
 * all; CRI-O passes it over. */
#ifndef AMBIENT_INSTALLER_HOST_RUNTIME_ORDER_H
#define AMBIENT_INSTALLER_HOST_RUNTIME_ORDER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "ambient/error.h"

enum runtime_file_owner {
	RUNTIME_FILE_PRIMARY, /* a cluster's network, as far as the name says */
	RUNTIME_FILE_MULTUS,  /* 00-multus.conf, .conflist: a meta plugin that embeds the primary's list */
	RUNTIME_FILE_TOOL,    /* nerdctl-*, 87-podman-*, 100-crio-*: another tool's own network */
};

struct runtime_file {
	char *name; /* "10-calico.conflist" */
	bool is_list;
	struct stat status; /* of the file that was read (a link's target) */
	bool is_link;
	enum runtime_file_owner owner;
	cJSON *json;	   /* NULL: not valid */
	char problem[512]; /* what a runtime would say of it; empty: it loads */
	/* The chain's plugins in CONFDIR/NETWORK/, which libcni from 1.3.0 on appends. */
	cJSON *drop_ins; /* a list; NULL: none */
};

struct runtime_directory {
	struct runtime_file *files; /* in the runtime's order */
	size_t count;
	/* "05-x.conflist.cilium_bak": a configuration that Cilium with cni.exclusive put away. */
	char **put_away;
	size_t put_away_count;
};

/* ENOENT where the directory is missing. A file that goes while we read is as if it had not been there. */
int runtime_directory_read(const char *conf_dir, struct error *error, struct runtime_directory *ret_directory);
void runtime_directory_clear(struct runtime_directory *directory);
#define cleanup_runtime_directory __attribute__((cleanup(runtime_directory_clear)))

/* What the two runtimes make of it; NULL: nothing. */
struct runtime_choice {
	const struct runtime_file *containerd; /* NULL also where `stops_at` is set */
	const struct runtime_file *stops_at;   /* the invalid file that containerd fails at */
	const struct runtime_file *crio;
};
void runtime_directory_choose(const struct runtime_directory *directory, struct runtime_choice *ret_choice);

const struct runtime_file *runtime_directory_find(const struct runtime_directory *directory, const char *name);

/* Which tool a file belongs to, by its name. */
enum runtime_file_owner runtime_file_owner(const char *name);

#endif
