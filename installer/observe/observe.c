/* The observer as an object, and readiness. See observe.h. */
#include "installer/observe/observe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/wire.h"
#include "installer/observe/state.h"

static int listen_at(struct event_base *base, struct observe *observe, const struct listen_address *address, const char *what,
		     http_answer answer, struct error *error, struct http_listener **ret_listener)
{
	if (!address->is_on)
		return 0;
	return http_listener_new(base, address, what, observe->seen.log, answer, observe, error, ret_listener);
}

static int listen_everywhere(struct event_base *base, struct observe *observe, struct error *error)
{
	const struct installer_config *config = observe->seen.config;
	cleanup_free char *path = NULL;
	if (file_make_directory(config->run_dir, error) < 0 ||
	    file_join(config->run_dir, OBSERVE_ADMIN_SOCKET, error, &path) < 0 ||
	    http_listener_new_unix(base, path, observe->seen.log, observe_answer_admin_socket, observe, error,
				   &observe->admin_socket) < 0 ||
	    listen_at(base, observe, &config->listen.health, "health", observe_answer_health, error, &observe->health) < 0 ||
	    listen_at(base, observe, &config->listen.metrics, "metrics", observe_answer_metrics, error, &observe->metrics) < 0)
		return -1;
	return listen_at(base, observe, &config->listen.admin, "admin", observe_answer_admin, error, &observe->admin);
}

int observe_new(struct event_base *base, const struct observed *observed, struct error *error, struct observe **ret_observe)
{
	struct observe *observe = calloc(1, sizeof *observe);
	if (!observe)
		return error_set(error, ENOMEM, "cannot make the observer");
	observe->seen = *observed;
	observe->observer = (struct mesh_observer){ .pod_event = observe_pod_event, .data = observe };
	observe->started = time(NULL);
	if (listen_everywhere(base, observe, error) < 0) {
		observe_free(observe);
		return -1;
	}
	*ret_observe = observe;
	return 0;
}

void observe_free(struct observe *observe)
{
	if (!observe)
		return;
	http_listener_free(observe->admin_socket);
	http_listener_free(observe->admin);
	http_listener_free(observe->metrics);
	http_listener_free(observe->health);
	events_clear(&observe->events);
	free(observe);
}

const struct mesh_observer *observe_mesh_observer(struct observe *observe)
{
	return &observe->observer;
}

void observe_set_host(struct observe *observe, const struct host *host)
{
	observe->host = host;
}

bool observe_is_ready(const struct observe *observe, char *reason, size_t size)
{
	const struct observed *seen = &observe->seen;
	const char *trouble = mesh_source_trouble(seen->mesh);
	bool listens_to_plugins = seen->plugin_socket_listens(seen->data);
	reason[0] = '\0';
	if (mesh_is_stopped(seen->mesh))
		snprintf(reason, size, "another agent has taken this node over: it listens at %s%s",
			 listens_to_plugins ? seen->config->tunnel_socket : seen->config->run_dir,
			 listens_to_plugins ? "" : "/" WIRE_SOCKET);
	else if (!mesh_is_synced(seen->mesh))
		snprintf(reason, size, "pods and namespaces have not been listed yet%s%s", trouble ? ": " : "",
			 trouble ? trouble : "");
	else if (!mesh_host_rules_stand(seen->mesh))
		snprintf(reason, size, "the host's rules for probes do not stand: the log says why");
	else if (observe->host && !host_state(observe->host)->ready)
		snprintf(reason, size, "plugin and configuration are not in place: %s", host_state(observe->host)->reason);
	return reason[0] == '\0';
}
