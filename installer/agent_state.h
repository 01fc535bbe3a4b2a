/* What agent.c and agent_stop.c share. */
#ifndef AMBIENT_INSTALLER_AGENT_STATE_H
#define AMBIENT_INSTALLER_AGENT_STATE_H

#include <event2/event.h>

#include "ambient/log.h"
#include "installer/agent.h"
#include "installer/host/host.h"
#include "installer/host_setup.h"
#include "installer/kube/client.h"
#include "installer/mesh/mesh.h"
#include "installer/metrics.h"
#include "installer/observe/observe.h"
#include "installer/plugin_server.h"
#include "installer/source.h"
#include "installer/succession.h"
#include "installer/tunnel/server.h"

struct kube_taint_removal;

struct agent {
	const struct installer_config *config;
	struct redirect redirect; /* the configuration's, as the kernel can do it; its lists are borrowed */
	struct log log;
	struct metrics metrics;
	int host_netns;
	struct event_base *base;
	struct event *terminate, *interrupt, *tick, *successor_look;
	struct mesh *mesh;
	struct tunnel_server *tunnel;
	struct kube_client *client; /* NULL: the source is a folder */
	struct source source;
	struct plugin_server *plugins;
	struct host_setup setup;
	struct host *host; /* NULL: host.install is false */
	struct observe *observe;
	bool was_ready;
	struct succession succession; /* since a successor took over */
	bool is_left_alone;	      /* by that successor: the loop ends for it */
	struct kube_taint_removal *taint_removal;
	bool is_taint_removed;

	/* agent_stop.c */
	bool is_stopping;
	struct event *stop_timer;
	struct kube_request *stop_request;
	cJSON *node;
	double refused_since; /* CLOCK_MONOTONIC; 0: not refused */
};

/* Binary and configuration are not kept in place any more. */
void agent_leave_host(struct agent *agent);

/* A signal came: finds out whether this is an upgrade or an uninstallation, does what follows, and ends the loop. A second
 * signal ends it at once. */
void agent_stop(struct agent *agent, int signal_number);
void agent_stop_clear(struct agent *agent);

#endif
