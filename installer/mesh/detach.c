/* What takes an attachment away again: DEL, and GC. Only the current sandbox's last attachment releases its pod; an older
 * sandbox's, or a second interface's, changes nothing. The rules are the plugin's to remove. */
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/wire.h"
#include "installer/mesh/state.h"

static void detach(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	if (pod->tunnel != POD_TUNNEL_UNKNOWN && pod->tunnel != POD_TUNNEL_DELETED && pod->tunnel != POD_TUNNEL_DELETING)
		mesh_tunnel_delete(pod);
	mesh_probe_remove(pod);
	if (mesh_state_of(pod) != MESH_STATE_NONE)
		mesh_log(pod, LOG_LEVEL_INFO, "del", "the pod's sandbox is removed");
	/* Unless the kubelet has reported another sandbox's addresses by now, one that no ADD told of. */
	pod->is_torn_down = !pod->sandbox.is_doubted;
	if (!pod->object) {
		/* It may have reported them before we started: its first object will tell. */
		free(pod->removed_addresses);
		pod->removed_addresses = steal_pointer(pod->sandbox.addresses);
		pod->removed_addresses_count = pod->sandbox.addresses_count;
		pod->sandbox.addresses_count = 0;
	}
	sandbox_forget(pod);
	pod->is_remembered = false;
	mesh_begin_anew(pod);
	mesh_remember_enrolled(mesh);
	mesh_queue(pod);
}

/* One interface of several goes, and with it its addresses, which another pod may get. */
static void forget_interface(struct mesh_pod *pod, const struct attachment *attachment)
{
	struct sandbox *sandbox = &pod->sandbox;
	cleanup_attachment struct attachment remembered = { 0 };
	bool is_found = false;
	if (pod->arrival || attachment_read(pod->mesh->settings.run_dir, attachment->container_id, attachment->interface, NULL,
					    &remembered, &is_found) < 0)
		return;
	for (size_t i = 0; is_found && i < remembered.addresses_count; i++) {
		struct pod_address gone;
		if (!pod_address_parse(remembered.addresses[i], &gone))
			continue;
		for (size_t j = 0; j < sandbox->addresses_count; j++) {
			if (!pod_address_equal(&sandbox->addresses[j], &gone))
				continue;
			sandbox->addresses[j--] = sandbox->addresses[--sandbox->addresses_count];
		}
	}
	mesh_queue(pod);
}

void mesh_detach(struct mesh *mesh, const struct attachment *attachment)
{
	struct mesh_pod *pod, *next;
	mesh->settings.metrics->plugin_requests[METRICS_VERB_DEL][METRICS_PLUGIN_DONE]++;
	for (pod = TAILQ_FIRST(&mesh->pods); pod; pod = next) {
		const struct sandbox *sandbox = &pod->sandbox;
		next = TAILQ_NEXT(pod, all);
		/* By the container's id; a pod that was found running has none: by the namespace. A sandbox that another one
		 * has replaced matches neither. */
		bool is_meant = sandbox->container_id
					? strcmp(sandbox->container_id, attachment->container_id) == 0
					: sandbox->id.inode != 0 && netns_id_equal(sandbox->id, attachment->netns);
		if (!is_meant)
			continue;
		if (attachment_has_other(mesh->settings.run_dir, attachment->container_id, attachment->interface, sandbox->id))
			forget_interface(pod, attachment);
		else
			detach(pod);
	}
}

static bool is_valid(const struct wire_message *gc, const char *container_id)
{
	for (size_t i = 0; i < gc->valid_count; i++) {
		if (strcmp(gc->valid[i].container_id, container_id) == 0)
			return true;
	}
	return false;
}

void mesh_collect(struct mesh *mesh, const struct wire_message *gc)
{
	struct mesh_pod *pod, *next;
	mesh->settings.metrics->plugin_requests[METRICS_VERB_GC][METRICS_PLUGIN_DONE]++;
	for (pod = TAILQ_FIRST(&mesh->pods); pod; pod = next) {
		const struct sandbox *sandbox = &pod->sandbox;
		next = TAILQ_NEXT(pod, all);
		if (!pod->arrival && sandbox->container_id && sandbox->network && strcmp(sandbox->network, gc->network) == 0 &&
		    !is_valid(gc, sandbox->container_id))
			detach(pod);
	}
}
