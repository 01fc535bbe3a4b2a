/* The node's own: kernel, limits, paths. See doctor.c. */
#include <errno.h>
#include <event2/event.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "installer/cli/doctor.h"
#include "installer/probes/probe_set.h"

/* Descriptors: each pod of the mesh holds its namespace, a session and a watch open. */
#define FDS_LEAST 4096
#define INOTIFY_INSTANCES_LEAST 128

static int try_redirect(int netns, const struct redirect *wanted, bool has_timeouts, struct error *error)
{
	struct redirect without = *wanted;
	without.conntrack_timeouts &= has_timeouts;
	const struct redirect *redirect = &without;
	cleanup_redirect_session struct redirect_session *session = NULL;
	struct redirect_difference difference;
	if (redirect_session_open(netns, error, &session) < 0 ||
	    redirect_apply(session, redirect, REDIRECT_STAGE_FULL, error) < 0 ||
	    redirect_verify(session, redirect, REDIRECT_STAGE_FULL, error, &difference) < 0)
		return -1;
	if (difference.text[0])
		return error_say(error, EIO, "the kernel took the rules and shows others: %s", difference.text);
	return 0;
}

static int try_probe_set(int netns, const struct redirect *redirect, struct error *error)
{
	const struct probe_set_events events = { 0 };
	struct probe_set *set = NULL;
	struct event_base *base = event_base_new();
	if (!base)
		return error_set(error, ENOMEM, "cannot make an event loop");
	int result = probe_set_open(base, netns, redirect->host_probe_ipv4, redirect->host_probe_ipv6, &events, error, &set);
	probe_set_close(set);
	event_base_free(base);
	return result;
}

void doctor_kernel(struct report *report)
{
	static const char advice[] =
		"the kernel needs nf_tables with nat, conntrack, redirect and inet tables (CONFIG_NF_TABLES, "
		"CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_REDIR, CONFIG_NFT_CT) and policy routing "
		"(CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES), as modules that can be loaded or built in";
	struct utsname name = { 0 };
	struct error error = { 0 };
	cleanup_close int netns = -1;
	uname(&name);
	if (report->config->redirect.ipv6 && access("/proc/sys/net/ipv6", F_OK) < 0)
		report_add(report, VERDICT_PROBLEM, "kernel", "set redirect.ipv6=false, or boot without ipv6.disable=1",
			   "the kernel has no IPv6, and redirect.ipv6 is true");
	if (netns_make(&error, &netns) < 0) {
		report_add(report, VERDICT_PROBLEM, "kernel", "run it as root with CAP_SYS_ADMIN and CAP_NET_ADMIN", "%s",
			   error.message);
		return;
	}
	bool has_timeouts = true;
	if (redirect_try_kernel(netns, NULL, &has_timeouts) == 0 && !has_timeouts)
		report_add(report, VERDICT_NOTE, "kernel", "take a kernel with CONFIG_NF_CONNTRACK_TIMEOUT=y",
			   REDIRECT_WITHOUT_TIMEOUTS);
	if (try_redirect(netns, &report->config->redirect, has_timeouts, &error) < 0) {
		report_add(report, VERDICT_PROBLEM, "kernel", advice, "Linux %s can't redirect a pod: %s", name.release,
			   error.message);
		return;
	}
	if (try_probe_set(netns, &report->config->redirect, &error) < 0) {
		report_add(report, VERDICT_PROBLEM, "kernel", advice, "Linux %s can't hold the host's rules for probes: %s",
			   name.release, error.message);
		return;
	}
	report_add(report, VERDICT_WELL, "kernel", NULL,
		   "Linux %s: a trial redirection, and the host's rules, work in a namespace of their own", name.release);
}

/* -1: it can't be read. */
static long read_number(const char *path)
{
	cleanup_fclose FILE *file = fopen(path, "re");
	long value;
	return file && fscanf(file, "%ld", &value) == 1 ? value : -1;
}

void doctor_limits(struct report *report)
{
	struct rlimit files = { 0 };
	size_t before = report->problems;
	long instances = read_number("/proc/sys/fs/inotify/max_user_instances");
	long tracked = read_number("/proc/sys/net/netfilter/nf_conntrack_count");
	long trackable = read_number("/proc/sys/net/netfilter/nf_conntrack_max");
	bool is_noted = false;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < FDS_LEAST) {
		report_add(report, VERDICT_NOTE, "limits", "raise the runtime's LimitNOFILE (containerd.service)",
			   "a process may have %lu descriptors here; the agent holds about five for each pod of the mesh",
			   (unsigned long)files.rlim_max);
		is_noted = true;
	}
	if (instances >= 0 && instances < INOTIFY_INSTANCES_LEAST) {
		report_add(report, VERDICT_NOTE, "limits", "sysctl -w fs.inotify.max_user_instances=512",
			   "fs.inotify.max_user_instances is %ld, shared by all of root's processes: without one of its own "
			   "the agent notices changes on the host late",
			   instances);
		is_noted = true;
	}
	if (read_number("/proc/sys/user/max_net_namespaces") == 0)
		report_add(report, VERDICT_PROBLEM, "limits", "sysctl -w user.max_net_namespaces=65536",
			   "user.max_net_namespaces is 0: no pod can have a network of its own");
	if (tracked > 0 && trackable > 0 && tracked > trackable / 10 * 9)
		report_add(report, VERDICT_PROBLEM, "limits", "raise net.netfilter.nf_conntrack_max",
			   "%ld of %ld connections are tracked: new ones are dropped when the table is full", tracked,
			   trackable);
	if (report->problems == before && !is_noted)
		report_add(report, VERDICT_WELL, "limits", NULL,
			   "descriptors, inotify, namespaces and connection tracking have room");
}

/* A directory that we write to. */
static void look_at_directory(struct report *report, const char *key, const char *path, const char *mounted_at,
			      bool is_executed)
{
	struct stat status;
	struct statvfs system;
	char advice[512];
	if (stat(path, &status) < 0) {
		bool is_mounted = strncmp(path, "/host/", strlen("/host/")) == 0;
		snprintf(
			advice, sizeof advice,
			"%s %s, or name the directory that this node's runtime uses: --set %s=PATH (see docs/compatibility.md)",
			is_mounted ? "mount the node's" : "the chart makes", mounted_at, key);
		report_add(report, is_mounted || errno != ENOENT ? VERDICT_PROBLEM : VERDICT_NOTE, "paths", advice,
			   "%s: %s: %s", key, path, strerror(errno));
		return;
	}
	snprintf(advice, sizeof advice, "name the directory that the runtime of this node uses: --set %s=PATH", key);
	if (!S_ISDIR(status.st_mode))
		report_add(report, VERDICT_PROBLEM, "paths", advice, "%s: %s is no directory", key, path);
	else if (statvfs(path, &system) == 0 && (system.f_flag & ST_RDONLY))
		report_add(report, VERDICT_PROBLEM, "paths", advice, "%s: %s is on a file system that is mounted read-only",
			   key, path);
	else if (access(path, W_OK) < 0)
		report_add(report, VERDICT_PROBLEM, "paths", advice, "%s: %s can't be written: %s", key, path, strerror(errno));
	else if (is_executed && (system.f_flag & ST_NOEXEC))
		report_add(report, VERDICT_NOTE, "paths", NULL,
			   "%s: %s is mounted noexec here; where the runtime sees it so too, it can't run the plugin", key,
			   path);
	else
		report_add(report, VERDICT_WELL, "paths", NULL, "%s: %s", key, path);
}

static void look_at_proc(struct report *report)
{
	const char *path = report->config->host.proc_dir;
	struct statfs system;
	char first[4096];
	snprintf(first, sizeof first, "%s/1/ns/net", path);
	if (statfs(path, &system) < 0 || system.f_type != PROC_SUPER_MAGIC)
		report_add(report, VERDICT_PROBLEM, "paths",
			   "mount the node's /proc there, or name it: --set host.procDir=PATH",
			   "host.procDir: %s is no /proc: running pods can't be found", path);
	else if (access(first, F_OK) < 0)
		report_add(report, VERDICT_PROBLEM, "paths",
			   "the agent needs CAP_SYS_PTRACE, and AppArmor must let it read /proc/PID/ns (Unconfined)",
			   "host.procDir: %s can't be read: %s", first, strerror(errno));
	else
		report_add(report, VERDICT_WELL, "paths", NULL, "host.procDir: %s", path);
}

static void look_at_run_dir(struct report *report)
{
	const char *path = report->config->run_dir;
	struct statvfs system;
	if (access(path, F_OK) < 0)
		report_add(report, VERDICT_WELL, "paths", NULL, "runDir: %s is not there yet; the agent makes it", path);
	else if (access(path, W_OK) < 0 || (statvfs(path, &system) == 0 && (system.f_flag & ST_RDONLY)))
		report_add(report, VERDICT_PROBLEM, "paths", "it must be a directory of the node that plugin and agent share",
			   "runDir: %s can't be written", path);
	else
		report_add(report, VERDICT_WELL, "paths", NULL, "runDir: %s", path);
}

void doctor_paths(struct report *report)
{
	const struct installer_config *config = report->config;
	struct error error = { 0 };
	cleanup_close int host = -1;
	if (config->host.install) {
		look_at_directory(report, "host.binDir", config->host.bin_dir, "/opt/cni/bin", true);
		look_at_directory(report, "host.confDir", config->host.conf_dir, "/etc/cni/net.d", false);
	}
	look_at_proc(report);
	look_at_run_dir(report);
	if (config->host.network_namespace[0] && netns_open(config->host.network_namespace, &error, &host) < 0)
		report_add(report, VERDICT_PROBLEM, "paths", "the agent does not start without it: mount the node's /proc",
			   "host.networkNamespace: %s", error.message);
}
