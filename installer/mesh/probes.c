/* What the mesh keeps on the host for probes: the addresses of its pods in the probe set, and where AWS's branch interfaces
 * are, the rules for those. See probe_set.h and aws_branch_eni.h. */
#include <errno.h>
#include <stdlib.h>

#include "ambient/cleanup.h"
#include "installer/mesh/state.h"

static void host_repaired(void *data, const char *difference)
{
	struct mesh *mesh = data;
	mesh->settings.metrics->drift_repairs[METRICS_DRIFT_HOST]++;
	log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "somebody changed the host's probe rules, they were put right: %s",
		  difference);
}

static void host_failed(void *data, const struct error *error)
{
	struct mesh *mesh = data;
	mesh->settings.metrics->reconcile_errors[METRICS_STEP_PROBE]++;
	log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s; it is tried again", error->message);
}

static void host_flushed(void *data)
{
	struct mesh *mesh = data;
	struct mesh_pod *pod;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		if (pod->tunnel == POD_TUNNEL_ACCEPTED && !pod->is_enrolled && pod->decision.wanted)
			mesh_queue(pod);
	}
}

int mesh_probes_open(struct mesh *mesh, struct error *error)
{
	const struct mesh_settings *settings = &mesh->settings;
	const struct redirect *defaults = settings->selection.defaults;
	const struct probe_set_events events = {
		.repaired = host_repaired, .failed = host_failed, .flushed = host_flushed, .data = mesh
	};
	if (probe_set_open(mesh->base, settings->host_netns, defaults->host_probe_ipv4, defaults->host_probe_ipv6, &events,
			   error, &mesh->probes) < 0)
		return -1;
	return settings->aws_branch_eni ? aws_branch_eni_open(settings->host_netns, error, &mesh->aws) : 0;
}

static void remove_branch_rules(struct mesh *mesh, const char *uid, const struct pod_address *address)
{
	struct error error = { 0 };
	if (mesh->aws && aws_branch_eni_remove(mesh->aws, address, &error) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "pod %s: %s", uid ? uid : "outside", error.message);
}

static bool owns(const struct mesh_pod *pod, const struct pod_address *address)
{
	return probe_set_owns(pod->mesh->probes, pod->uid, address);
}

/* What the pod has of what it claims: another one may have got some of that. */
static int copy_owned(const struct mesh_pod *pod, struct error *error, struct pod_address **ret_addresses, size_t *ret_count)
{
	size_t claimed_count = 0, count = 0;
	const struct pod_address *claimed = probe_set_claimed(pod->mesh->probes, pod->uid, &claimed_count);
	struct pod_address *addresses = calloc(claimed_count + 1, sizeof *addresses);
	if (!addresses)
		return error_set(error, ENOMEM, "cannot keep the addresses of pod %s", pod->uid);
	for (size_t i = 0; i < claimed_count; i++)
		if (owns(pod, &claimed[i]))
			addresses[count++] = claimed[i];
	*ret_addresses = addresses;
	*ret_count = count;
	return 0;
}

static int add_branch_rules(struct mesh_pod *pod, const struct pod_address *addresses, size_t count, struct error *error)
{
	for (size_t i = 0; i < count; i++) {
		bool applies = false;
		if (owns(pod, &addresses[i]) && aws_branch_eni_add(pod->mesh->aws, &addresses[i], error, &applies) < 0)
			return -1;
		pod->has_branch_eni |= applies;
	}
	pod->is_branch_eni_settled = true;
	return 0;
}

static int put_with_branch_rules(struct mesh_pod *pod, const struct pod_address *addresses, size_t count, struct error *error)
{
	struct mesh *mesh = pod->mesh;
	cleanup_free struct pod_address *before = NULL;
	size_t before_count = 0;
	if (copy_owned(pod, error, &before, &before_count) < 0 ||
	    probe_set_put(mesh->probes, pod->uid, addresses, count, error) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (owns(pod, &addresses[i]) && !pod_address_is_among(&addresses[i], before, before_count))
			pod->is_branch_eni_settled = false;
	/* First what comes, then what goes: the way back that they share stays. */
	int result = pod->is_branch_eni_settled ? 0 : add_branch_rules(pod, addresses, count, error);
	for (size_t i = 0; i < before_count; i++)
		if (!pod_address_is_among(&before[i], addresses, count))
			remove_branch_rules(mesh, pod->uid, &before[i]);
	return result;
}

int mesh_probe_put(struct mesh_pod *pod, struct error *error)
{
	struct mesh *mesh = pod->mesh;
	size_t count = 0;
	const struct pod_address *addresses = mesh_pod_addresses(pod, &count);
	if (!mesh->probes)
		return 0;
	return mesh->aws ? put_with_branch_rules(pod, addresses, count, error)
			 : probe_set_put(mesh->probes, pod->uid, addresses, count, error);
}

void mesh_probe_remove(struct mesh_pod *pod)
{
	struct mesh *mesh = pod->mesh;
	cleanup_free struct pod_address *owned = NULL;
	size_t count = 0;
	struct error error = { 0 };
	if (!mesh->probes)
		return;
	if (mesh->aws && copy_owned(pod, &error, &owned, &count) < 0)
		log_write(mesh->settings.log, LOG_LEVEL_WARN, NULL, "%s", error.message);
	probe_set_remove(mesh->probes, pod->uid);
	/* Taken away with the others of this turn. But where there is a branch interface, at once: a probe from the host's
	 * probe address is lost without the rules. What fails is tried again. */
	if (pod->has_branch_eni)
		probe_set_flush(mesh->probes, NULL);
	if (!event_pending(mesh->run, EV_TIMEOUT, NULL))
		mesh_arm(mesh->run, 0);
	for (size_t i = 0; i < count; i++)
		remove_branch_rules(mesh, pod->uid, &owned[i]);
	pod->is_branch_eni_settled = pod->has_branch_eni = false;
}

void mesh_probe_give_away(struct mesh *mesh, const struct attachment *attachment)
{
	/* Of a static pod the runtime tells another uid than its mirror has. */
	const char *uid = attachment->pod_uid;
	const struct mesh_pod *pod =
		uid ? mesh_find_pod_of_sandbox(mesh, attachment->pod_namespace, attachment->pod_name, uid) : NULL;
	struct pod_address address;
	for (size_t i = 0; mesh->probes && i < attachment->addresses_count; i++)
		if (pod_address_parse(attachment->addresses[i], &address) &&
		    probe_set_give_away(mesh->probes, pod ? pod->uid : uid, &address))
			remove_branch_rules(mesh, uid, &address);
}

bool mesh_probe_holds(const struct mesh_pod *pod)
{
	return pod->mesh->probes && probe_set_holds(pod->mesh->probes, pod->uid);
}

static bool is_enrolled_address(void *data, const struct pod_address *address)
{
	const struct mesh *mesh = data;
	const struct mesh_pod *pod;
	TAILQ_FOREACH(pod, &mesh->pods, all)
	{
		size_t count = 0;
		const struct pod_address *addresses = mesh_pod_addresses(pod, &count);
		for (size_t i = 0; i < count; i++) {
			/* One that has ended still names the address that another one has by now. */
			if (pod_address_equal(&addresses[i], address) && mesh_probe_holds(pod))
				return true;
		}
	}
	return false;
}

int mesh_probes_prune(struct mesh *mesh, struct error *error)
{
	if (probe_set_prune(mesh->probes, error) < 0)
		return -1;
	return mesh->aws ? aws_branch_eni_prune(mesh->aws, is_enrolled_address, mesh, error) : 0;
}

bool mesh_host_rules_stand(const struct mesh *mesh)
{
	return mesh->probes && probe_set_stands(mesh->probes);
}
