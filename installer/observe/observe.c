/* Whether the agent does its work. See observe.h. */
#include "installer/observe/observe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct observe {
	struct observed observed;
	struct mesh_observer mesh_observer;
};

int observe_new(struct event_base *base, const struct observed *observed, struct error *error, struct observe **ret_observe)
{
	(void)base;
	struct observe *observe = calloc(1, sizeof *observe);
	if (!observe)
		return error_set(error, ENOMEM, "cannot observe the agent");
	observe->observed = *observed;
	*ret_observe = observe;
	return 0;
}

void observe_free(struct observe *observe)
{
	free(observe);
}

bool observe_is_ready(const struct observe *observe, char *reason, size_t size)
{
	const struct observed *observed = &observe->observed;
	const char *trouble = mesh_source_trouble(observed->mesh);
	if (!mesh_is_synced(observed->mesh))
		snprintf(reason, size, "pods and namespaces are not listed yet%s%s", trouble ? ": " : "",
			 trouble ? trouble : "");
	else if (!observed->plugin_socket_listens(observed->data))
		snprintf(reason, size, "another agent has taken over the plugin's socket");
	else if (!mesh_host_rules_stand(observed->mesh))
		snprintf(reason, size, "the host's probe rules do not stand");
	else if (observed->host && !host_state(observed->host)->ready)
		snprintf(reason, size, "%s", host_state(observed->host)->reason);
	else
		return true;
	return false;
}

const struct mesh_observer *observe_mesh_observer(struct observe *observe)
{
	return &observe->mesh_observer;
}

void observe_host_event(struct observe *observe, enum log_level level, const char *reason, const char *message)
{
	(void)observe;
	(void)level;
	(void)reason;
	(void)message;
}
