/* The end of the node agent.
 *
 * As long as our DaemonSet stands for this node, a stop is an upgrade or a restart: binary, configuration, rules and state
 * stay, and pods of the mesh wait for the successor. Else we are uninstalled: the configuration goes first, so that no new pod
 * asks for us, and the binary with it, where no runtime may call it any more; the pods are released while the API still lets us
 * take their annotations off; the host's rules and what is remembered go last. A pod whose annotation can't be removed stays
 * enrolled, since its peers go on with HBONE, and is named. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/file.h"
#include "installer/agent_state.h"
#include "installer/host/upgrade.h"
#include "installer/kube/requests.h"
#include "installer/probes/probe_set.h"

/* How long releasing may take in all: a pod's grace period is 30 s by default, the chart asks for more. */
#define RELEASE_SECONDS 25

static void end(struct agent *agent)
{
	event_base_loopbreak(agent->base);
}

static void wait_then(struct agent *agent, int seconds, event_callback_fn what_then)
{
	const struct timeval wait = { .tv_sec = seconds };
	if (agent->stop_timer)
		event_free(agent->stop_timer);
	agent->stop_timer = evtimer_new(agent->base, what_then, agent);
	if (!agent->stop_timer || evtimer_add(agent->stop_timer, &wait) < 0)
		end(agent);
}

static int forget_attachment(void *data, struct attachment *attachment, struct error *error)
{
	const struct agent *agent = data;
	return attachment_remove(agent->config->run_dir, attachment->container_id, attachment->interface, error);
}

static void remove_state(struct agent *agent)
{
	static const char *const names[] = { "outside.json", "enrolled.json" };
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		cleanup_free char *path = NULL;
		if (file_join(agent->config->run_dir, names[i], NULL, &path) == 0)
			unlink(path);
	}
	attachment_list(agent->config->run_dir, forget_attachment, NULL, agent, NULL);
	attachment_unmark_all(agent->config->run_dir);
}

static void released(void *data, size_t stranded)
{
	struct agent *agent = data;
	struct error error = { 0 };
	if (stranded > 0) {
		log_write(&agent->log, LOG_LEVEL_ERROR, NULL,
			  "%zu pods stay in the mesh, since their annotation could not be removed: restart them", stranded);
	} else {
		mesh_remove_host_rules(agent->mesh);
		if (probe_set_uninstall(agent->host_netns, &error) < 0)
			log_write(&agent->log, LOG_LEVEL_ERROR, NULL, "%s", error.message);
		remove_state(agent);
	}
	log_write(&agent->log, LOG_LEVEL_INFO, NULL, "ambient-cni is uninstalled from this node");
	end(agent);
}

static void give_up(evutil_socket_t fd, short what, void *data)
{
	struct agent *agent = data;
	(void)fd;
	(void)what;
	mesh_release_give_up(agent->mesh);
}

static void uninstall(struct agent *agent)
{
	struct error error = { 0 };
	if (agent->host) {
		/* The keeper would put everything back. */
		agent_leave_host(agent);
		struct host_uninstalled uninstalled = { 0 };
		if (host_uninstall(&agent->setup.options, &error, &uninstalled) < 0)
			log_write(&agent->log, LOG_LEVEL_ERROR, NULL, "%s", error.message);
		else
			log_write(&agent->log, LOG_LEVEL_INFO, NULL, "no configuration names the plugin any more%s%s",
				  uninstalled.remark[0] ? "; " : "", uninstalled.remark);
	}
	wait_then(agent, RELEASE_SECONDS, give_up);
	mesh_release_all(agent->mesh, released, agent);
}

static void ask(struct agent *agent);

static void ask_again(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	ask(data);
}

static void answered(void *data, int status, const cJSON *object, const struct error *error)
{
	struct agent *agent = data;
	char reason[512];
	(void)error;
	agent->stop_request = NULL;
	if (status == 401 || status == 403) {
		if (agent->refused_since == 0)
			agent->refused_since = clock_seconds();
	} else {
		agent->refused_since = 0;
	}
	const struct upgrade_question question = {
		.safe_upgrade = agent->config->safe_upgrade,
		.status = status,
		.daemon_set = object,
		.node = agent->node,
		.refused_seconds = agent->refused_since > 0 ? clock_seconds() - agent->refused_since : 0,
	};
	enum upgrade_verdict verdict = upgrade_decide(&question, reason, sizeof reason);
	log_write(&agent->log, LOG_LEVEL_INFO, NULL, "%s", reason);
	switch (verdict) {
	case UPGRADE_KEEP:
		end(agent);
		break;
	case UPGRADE_UNINSTALL:
		uninstall(agent);
		break;
	case UPGRADE_ASK_AGAIN:
		wait_then(agent, 1, ask_again);
		break;
	}
}

static void node_read(void *data, int status, const cJSON *object, const struct error *error)
{
	struct agent *agent = data;
	struct error problem = { 0 };
	agent->stop_request = NULL;
	if (status == 0) {
		/* Not to be reached: it would not tell of the DaemonSet either, and the kubelet waits for our end. */
		answered(agent, 0, NULL, error);
		return;
	}
	cJSON_Delete(agent->node);
	agent->node = status == 200 && object ? cJSON_Duplicate(object, true) : NULL;
	if (kube_get_daemon_set(agent->client, agent->config->installer_namespace, agent->config->daemon_set_name, answered,
				agent, &problem, &agent->stop_request) < 0)
		answered(agent, 0, NULL, &problem);
}

static void ask(struct agent *agent)
{
	struct error error = { 0 };
	if (kube_get_node(agent->client, agent->config->node_name, node_read, agent, &error, &agent->stop_request) < 0)
		node_read(agent, 0, NULL, &error);
}

void agent_stop(struct agent *agent, int signal_number)
{
	if (agent->is_stopping) {
		end(agent);
		return;
	}
	agent->is_stopping = true;
	log_write(&agent->log, LOG_LEVEL_INFO, NULL, "signal %d: told to stop", signal_number);
	bool has_successor = mesh_is_stopped(agent->mesh);
	if (!has_successor && !agent->config->safe_upgrade) {
		log_write(&agent->log, LOG_LEVEL_INFO, NULL, "safeUpgrade is false: a stop uninstalls");
		uninstall(agent);
	} else if (!has_successor && agent->client) {
		ask(agent);
	} else {
		end(agent);
	}
}

void agent_stop_clear(struct agent *agent)
{
	kube_request_cancel(agent->stop_request);
	if (agent->stop_timer)
		event_free(agent->stop_timer);
	cJSON_Delete(agent->node);
}
