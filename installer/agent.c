/* Putting the rooms together. See agent.h.
 *
 * One loop, one thread. What stands on the host, in pods and in files outlives the process: an ordinary stop leaves everything
 * as it is for the successor (agent_stop.c decides whether it is an ordinary one). */
#include "installer/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/netns.h"
#include "ambient/wire.h"
#include "installer/agent_state.h"
#include "installer/folder/folder.h"
#include "installer/kube/requests.h"
#include "installer/kube/source.h"
#include "installer/seccomp.h"
#include "installer/succession.h"
#include "version.h"

static void raise_limits(const struct log *log)
{
	/* Five descriptors a pod, and more while many change at once. */
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	rlim_t had = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		log_write(log, LOG_LEVEL_WARN, NULL,
			  "descriptors are limited to %llu: at most some %llu pods can be in the mesh", (unsigned long long)had,
			  (unsigned long long)had / 6);
}

/* Tokens and keys are in our memory: neither a core file nor a program that cores are piped to gets it. */
static void keep_out_of_cores(void)
{
	const struct rlimit none = { 0 };
	cleanup_close int filter = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
	(void)setrlimit(RLIMIT_CORE, &none);
	if (filter >= 0 && write(filter, "0", 1) < 0) {
		/* A kernel without it writes no core, or /proc is not there: the limit holds. */
	}
}

static int open_host_netns(const struct installer_config *config, struct error *error, int *ret_netns)
{
	const char *path = config->host.network_namespace[0] ? config->host.network_namespace : "/proc/thread-self/ns/net";
	return netns_open(path, error, ret_netns) < 0 ? error_wrap(error, "host.networkNamespace") : 0;
}

void agent_leave_host(struct agent *agent)
{
	if (agent->observe)
		observe_set_host(agent->observe, NULL);
	host_free(agent->host);
	agent->host = NULL;
}

static void begin_to_watch_successor(struct agent *agent)
{
	const struct timeval look = { .tv_usec = SUCCESSION_LOOK_MILLISECONDS * 1000 };
	if (!event_pending(agent->successor_look, EV_TIMEOUT, NULL))
		event_add(agent->successor_look, &look);
}

static void successor_serves_plugins(void *data)
{
	struct agent *agent = data;
	log_write(&agent->log, LOG_LEVEL_INFO, NULL, "a successor serves plugins now");
	/* It may bring another plugin and other settings: two would put right what the other writes. */
	agent_leave_host(agent);
	mesh_stop(agent->mesh);
	tunnel_server_close_connections(agent->tunnel);
	begin_to_watch_successor(agent);
}

/* What the kernel can't do is left out of the rules of every pod; where it can't be tried, enrolment will tell. */
static void look_at_kernel(struct agent *agent)
{
	cleanup_close int netns = -1;
	struct error error = { 0 };
	bool has_timeouts = true;
	if (netns_make(&error, &netns) < 0 || redirect_try_kernel(netns, &error, &has_timeouts) < 0)
		log_write(&agent->log, LOG_LEVEL_WARN, NULL, "cannot try what the kernel can do: %s", error.message);
	else if (!has_timeouts)
		log_write(&agent->log, LOG_LEVEL_WARN, NULL, REDIRECT_WITHOUT_TIMEOUTS);
	agent->redirect = agent->config->redirect;
	agent->redirect.conntrack_timeouts &= has_timeouts;
}

static int make_mesh(struct agent *agent, struct error *error)
{
	const struct installer_config *config = agent->config;
	look_at_kernel(agent);
	struct mesh_settings settings = {
		.selection = installer_config_selection(config),
		.release_drain_seconds = config->release_drain_seconds,
		.run_dir = config->run_dir,
		.proc_dir = config->host.proc_dir,
		.netns_dir = config->host.netns_dir,
		.host_netns = agent->host_netns,
		.aws_branch_eni = config->aws_branch_eni == AWS_BRANCH_ENI_AUTO,
		.is_closed_when_away = config->when_away == WHEN_AWAY_CLOSED,
		.log = &agent->log,
		.metrics = &agent->metrics,
	};
	settings.selection.defaults = &agent->redirect;
	if (mesh_new(agent->base, &settings, error, &agent->mesh) < 0)
		return -1;
	struct tunnel_listener listener = mesh_tunnel_listener(agent->mesh);
	if (tunnel_server_new(agent->base, config->tunnel_socket, &listener, NULL, &agent->log, error, &agent->tunnel) < 0)
		return -1;
	mesh_set_tunnel(agent->mesh, agent->tunnel);
	return 0;
}

static int make_source(struct agent *agent, struct error *error)
{
	const struct installer_config *config = agent->config;
	struct source_listener listener = mesh_source_listener(agent->mesh);
	if (config->source == INSTALLER_SOURCE_FOLDER) {
		if (folder_source_new(agent->base, config->source_folder, config->node_name, &listener, error, &agent->source) <
		    0)
			return -1;
	} else {
		const struct kube_client_options client = {
			.origin = { .kubeconfig = config->kubeconfig,
				    .service_host = config->kubernetes_service_host,
				    .service_port = config->kubernetes_service_port },
			.log = &agent->log,
		};
		const struct kube_source_options options = { .node_name = config->node_name, .log = &agent->log };
		if (kube_client_new(agent->base, &client, error, &agent->client) < 0 ||
		    kube_source_new(agent->base, agent->client, &options, &listener, error, &agent->source) < 0)
			return -1;
	}
	mesh_set_source(agent->mesh, &agent->source);
	return 0;
}

static void taint_removed(void *data, int status, const cJSON *object, const struct error *error)
{
	struct agent *agent = data;
	(void)object;
	agent->taint_removal = NULL;
	agent->is_taint_removed = status >= 200 && status < 300;
	if (agent->is_taint_removed)
		log_write(&agent->log, LOG_LEVEL_INFO, NULL, "node %s bears no taint %s any more", agent->config->node_name,
			  agent->config->remove_taint);
	else
		log_write(&agent->log, LOG_LEVEL_WARN, NULL, "cannot take taint %s off node %s, it is tried again: %s",
			  agent->config->remove_taint, agent->config->node_name, error->message);
}

static void watch_successor(evutil_socket_t fd, short what, void *data)
{
	struct agent *agent = data;
	cleanup_free char *path = NULL;
	(void)fd;
	(void)what;
	if (agent->is_stopping)
		return;
	/* Where it took over from us. */
	if (!plugin_server_listens(agent->plugins) && file_join(agent->config->run_dir, WIRE_SOCKET, NULL, &path) < 0)
		return;
	if (!succession_is_over(&agent->succession, path ? path : agent->config->tunnel_socket))
		return;
	agent->is_left_alone = true;
	event_base_loopbreak(agent->base);
}

/* Once a second: what has no event of its own. */
static void tick(evutil_socket_t fd, short what, void *data)
{
	struct agent *agent = data;
	char reason[512];
	(void)fd;
	(void)what;
	log_tell_repeats(&agent->log, false);
	if (mesh_is_stopped(agent->mesh)) /* where it has the tunnel's socket alone, or an addition failed */
		begin_to_watch_successor(agent);
	bool is_ready = observe_is_ready(agent->observe, reason, sizeof reason);
	if (is_ready != agent->was_ready)
		log_write(&agent->log, LOG_LEVEL_INFO, NULL, is_ready ? "ready%s" : "not ready: %s", is_ready ? "" : reason);
	agent->was_ready = is_ready;
	struct error error = { 0 };
	if (is_ready && agent->client && agent->config->remove_taint[0] && !agent->is_taint_removed && !agent->taint_removal &&
	    kube_remove_taint(agent->client, agent->config->node_name, agent->config->remove_taint, taint_removed, agent,
			      &error, &agent->taint_removal) < 0)
		taint_removed(agent, 0, NULL, &error);
}

static void host_event(void *data, enum log_level level, const char *reason, const char *message)
{
	struct agent *agent = data;
	log_write(&agent->log, level, NULL, "%s", message);
	if (agent->observe)
		observe_host_event(agent->observe, level, reason, message);
}

static bool plugin_socket_listens(void *data)
{
	const struct agent *agent = data;
	return plugin_server_listens(agent->plugins);
}

static void set_log_level(void *data, enum log_level level)
{
	struct agent *agent = data;
	agent->log.level = level;
	log_write(&agent->log, LOG_LEVEL_INFO, NULL, "log.level is %s now", log_level_name(level));
}

static int make_host(struct agent *agent, struct error *error)
{
	const struct host_callbacks callbacks = { .event = host_event };
	if (!agent->config->host.install)
		return 0;
	if (host_setup_make(agent->config, error, &agent->setup) < 0)
		return -1;
	if (host_new(agent->base, &agent->setup.options, &callbacks, agent, error, &agent->host) < 0)
		return -1;
	observe_set_host(agent->observe, agent->host);
	return 0;
}

static int make_observe(struct agent *agent, struct error *error)
{
	const struct observed observed = {
		.config = agent->config,
		.mesh = agent->mesh,
		.metrics = &agent->metrics,
		.tunnel = agent->tunnel,
		.client = agent->client,
		.log = &agent->log,
		.plugin_socket_listens = plugin_socket_listens,
		.set_log_level = set_log_level,
		.data = agent,
	};
	if (observe_new(agent->base, &observed, error, &agent->observe) < 0)
		return -1;
	mesh_set_observer(agent->mesh, observe_mesh_observer(agent->observe));
	return 0;
}

static void told_to_stop(evutil_socket_t signal_number, short what, void *data)
{
	(void)what;
	agent_stop(data, (int)signal_number);
}

static void hold_signals(int how)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(how, &signals, NULL);
}

static int make_loop(struct agent *agent, struct error *error)
{
	const struct timeval second = { .tv_sec = 1 };
	/* libevent chooses by EVENT_* of the environment otherwise. */
	struct event_config *config = event_config_new();
	agent->base = config && event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV) == 0
			      ? event_base_new_with_config(config)
			      : NULL;
	if (config)
		event_config_free(config);
	if (!agent->base)
		return error_set(error, ENOMEM, "cannot make the event loop");
	agent->terminate = evsignal_new(agent->base, SIGTERM, told_to_stop, agent);
	agent->interrupt = evsignal_new(agent->base, SIGINT, told_to_stop, agent);
	agent->tick = event_new(agent->base, -1, EV_PERSIST, tick, agent);
	agent->successor_look = event_new(agent->base, -1, EV_PERSIST, watch_successor, agent);
	if (!agent->terminate || !agent->interrupt || !agent->tick || !agent->successor_look ||
	    evsignal_add(agent->terminate, NULL) < 0 || evsignal_add(agent->interrupt, NULL) < 0 ||
	    event_add(agent->tick, &second) < 0)
		return error_set(error, ENOMEM, "cannot make the event loop");
	hold_signals(SIG_UNBLOCK);
	return 0;
}

static void agent_clear(struct agent *agent)
{
	agent_stop_clear(agent);
	kube_taint_removal_cancel(agent->taint_removal);
	/* The sockets first: nobody is taken on any more. What observes goes before what it observes. */
	plugin_server_free(agent->plugins);
	if (agent->mesh)
		mesh_set_observer(agent->mesh, &(struct mesh_observer){ 0 });
	observe_free(agent->observe);
	host_free(agent->host);
	host_setup_clear(&agent->setup);
	mesh_free(agent->mesh);
	if (agent->source.free)
		agent->source.free(agent->source.self);
	kube_client_free(agent->client);
	tunnel_server_free(agent->tunnel);
	struct event *events[] = { agent->terminate, agent->interrupt, agent->tick, agent->successor_look };
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
		if (events[i])
			event_free(events[i]);
	}
	if (agent->base)
		event_base_free(agent->base);
	if (agent->host_netns >= 0)
		close(agent->host_netns);
	log_tell_repeats(&agent->log, true);
	log_repeats_free(agent->log.repeats);
}

/* True in `ret_is_left_alone`: the loop ended since a successor took over, and is gone. */
static int run_once(const struct installer_config *config, bool is_restricted, struct error *error, bool *ret_is_left_alone)
{
	__attribute__((cleanup(agent_clear))) struct agent agent = {
		.config = config,
		.host_netns = -1,
		.log = { .fd = STDERR_FILENO,
			 .level = config->log.level,
			 .format = config->log.format,
			 .program = "ambient-installer",
			 .repeats = log_repeats_new() },
	};
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < config->warnings_count; i++)
		log_write(&agent.log, LOG_LEVEL_WARN, NULL, "%s", config->warnings[i]);
	log_write(&agent.log, LOG_LEVEL_INFO, NULL, "ambient-installer %s starts on node %s", AMBIENT_VERSION,
		  config->node_name);
	raise_limits(&agent.log);
	keep_out_of_cores();
	if (open_host_netns(config, error, &agent.host_netns) < 0 || make_loop(&agent, error) < 0 ||
	    make_mesh(&agent, error) < 0 || make_source(&agent, error) < 0 ||
	    plugin_server_new(agent.base, config->run_dir, agent.mesh, &agent.log, successor_serves_plugins, &agent, error,
			      &agent.plugins) < 0 ||
	    make_observe(&agent, error) < 0 || make_host(&agent, error) < 0)
		return -1;
	struct error problem = { 0 };
	if (!is_restricted && seccomp_restrict(config->log.level == LOG_LEVEL_DEBUG, &problem) < 0)
		log_write(&agent.log, LOG_LEVEL_WARN, NULL, "%s", problem.message);
	if (event_base_dispatch(agent.base) < 0)
		return error_set(error, errno, "the event loop failed");
	if (agent.is_left_alone) {
		/* A signal that has come is looked at still, one that comes from here on waits for the next loop. */
		hold_signals(SIG_BLOCK);
		event_base_loop(agent.base, EVLOOP_NONBLOCK);
		agent.is_left_alone = !agent.is_stopping;
	}
	log_write(&agent.log, LOG_LEVEL_INFO, NULL,
		  agent.is_left_alone ? "the successor that took over is gone: this agent begins anew"
				      : "ambient-installer stops");
	*ret_is_left_alone = agent.is_left_alone;
	return 0;
}

int agent_run(const struct installer_config *config, struct error *error)
{
	bool is_restricted = false, is_left_alone = false;
	/* What was given to a successor is not ours any more: all is made as at a start. */
	do {
		if (run_once(config, is_restricted, error, &is_left_alone) < 0)
			return -1;
		is_restricted = true;
	} while (is_left_alone);
	return 0;
}
