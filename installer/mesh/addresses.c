/* A pod's addresses: those that its ADD told of (prevResult), and where none did, those that the kubelet reports. A later
 * report may say otherwise:
 *
 *   - It names none that is known: the sandbox may have been made anew by a chain that did not name us just then. No ADD tells
 *     of it, and maybe no DEL of the old one.
 *   - It names one more, or lacks one that the report before it had: addresses came or went while the pod runs.
 *
 * The sandbox is doubted then, until the reported addresses are seen: in the namespace that is held they are the pod's from
 * there on, in another one that is the pod's (locate.c). An ADD comes before the kubelet's word; what the kubelet reported
 * before does not count against one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "installer/mesh/state.h"
#include "installer/netns/netns_address.h"

const struct pod_address *mesh_pod_addresses(const struct mesh_pod *pod, size_t *ret_count)
{
	if (pod->sandbox.addresses_count > 0) {
		*ret_count = pod->sandbox.addresses_count;
		return pod->sandbox.addresses;
	}
	*ret_count = pod->object ? pod->object->addresses_count : 0;
	return pod->object ? pod->object->addresses : NULL;
}

static bool is_reported(const struct pod *object, const struct pod_address *address)
{
	return pod_address_is_among(address, object->addresses, object->addresses_count);
}

/* Whether the object names none of these. */
static bool names_others(const struct pod *object, const struct pod_address *addresses, size_t count)
{
	for (size_t i = 0; i < object->addresses_count; i++)
		if (pod_address_is_among(&object->addresses[i], addresses, count))
			return false;
	return true;
}

static bool names_the_same(const struct pod *object, const struct pod_address *addresses, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!is_reported(object, &addresses[i]))
			return false;
	return object->addresses_count == count;
}

/* Whether, of the sandbox that is known, addresses came or went. Those of another interface no report names. */
static bool names_a_change(const struct mesh_pod *pod, const struct pod *put)
{
	const struct sandbox *sandbox = &pod->sandbox;
	for (size_t i = 0; i < put->addresses_count; i++)
		if (!pod_address_is_among(&put->addresses[i], sandbox->addresses, sandbox->addresses_count))
			return true;
	for (size_t i = 0; i < sandbox->addresses_count; i++) {
		/* The first report: what went before it, as while no agent ran, is not told otherwise. */
		bool is_first = !pod->object || pod->object->addresses_count == 0;
		bool was_reported = sandbox->is_doubted || is_first || is_reported(pod->object, &sandbox->addresses[i]);
		if (was_reported && !is_reported(put, &sandbox->addresses[i]))
			return true;
	}
	return false;
}

void mesh_addresses_reported(struct mesh_pod *pod, const struct pod *put)
{
	size_t count = 0;
	const struct pod_address *known = mesh_pod_addresses(pod, &count);
	if (put->addresses_count == 0)
		return;
	if (count == 0) {
		/* The first ones. After an ADD that failed, or a DEL, they are of a sandbox that no ADD told of; where the DEL
		 * came before any object, the first one may tell still of the sandbox that is gone. */
		if (pod->object || names_others(put, pod->removed_addresses, pod->removed_addresses_count))
			pod->is_torn_down = false;
		return;
	}
	if (!names_others(put, known, count)) {
		if (pod->sandbox.addresses_count > 0) {
			pod->sandbox.is_doubted = names_a_change(pod, put);
			return;
		}
		/* Of one that was found running the report alone tells. */
		if (!names_the_same(put, known, count) && sandbox_is_held(&pod->sandbox))
			mesh_remember_enrolled(pod->mesh);
		return;
	}
	if (pod->object && !names_others(put, pod->object->addresses, pod->object->addresses_count))
		return;
	pod->is_torn_down = false;
	pod->sandbox.is_doubted = true;
}

static void log_change(const struct mesh_pod *pod)
{
	const struct sandbox *sandbox = &pod->sandbox;
	char text[400] = "", address[POD_ADDRESS_TEXT_MAX];
	size_t length = 0;
	for (size_t i = 0; i < sandbox->addresses_count && length + sizeof address + 2 < sizeof text; i++)
		length += (size_t)snprintf(text + length, sizeof text - length, "%s%s", i ? ", " : "",
					   pod_address_print(&sandbox->addresses[i], address));
	mesh_log(pod, LOG_LEVEL_INFO, "addresses", "the pod's addresses have changed while it runs; they are %s now", text);
}

void mesh_addresses_take(struct mesh_pod *pod)
{
	struct sandbox *sandbox = &pod->sandbox;
	const struct pod *object = pod->object;
	size_t known = 0, count = object->addresses_count;
	const struct pod_address *before = mesh_pod_addresses(pod, &known);
	cleanup_free struct pod_address *addresses = calloc(count + known, sizeof *addresses);
	/* It stays doubted, and is looked at again with the next report. */
	if (!addresses)
		return;
	memcpy(addresses, object->addresses, count * sizeof *addresses);
	bool is_changed = false;
	for (size_t i = 0; i < count; i++)
		is_changed |= !pod_address_is_among(&addresses[i], before, known);
	for (size_t i = 0; i < known; i++) {
		bool has_address = true;
		if (is_reported(object, &before[i]))
			continue;
		/* Another interface's, which the kubelet does not report. One that can't be looked for stays. */
		netns_has_address(sandbox->netns, &before[i], 1, NULL, &has_address);
		if (has_address)
			addresses[count++] = before[i];
		is_changed |= !has_address;
	}
	sandbox->is_doubted = false;
	if (!is_changed)
		return;
	free(sandbox->addresses);
	sandbox->addresses = steal_pointer(addresses);
	sandbox->addresses_count = count;
	sandbox->is_readdressed = true;
	log_change(pod);
	mesh_remember_enrolled(pod->mesh);
}

/* Whether the namespace is held, and all that is reported is configured there. */
static bool is_reported_of_what_is_held(const struct mesh_pod *pod)
{
	const struct pod *object = pod->object;
	if (!object || object->addresses_count == 0 || !sandbox_is_held(&pod->sandbox) || pod->arrival)
		return false;
	for (size_t i = 0; i < object->addresses_count; i++) {
		bool has_address = false;
		if (netns_has_address(pod->sandbox.netns, &object->addresses[i], 1, NULL, &has_address) < 0 || !has_address)
			return false;
	}
	return true;
}

void mesh_addresses_settle(struct mesh_pod *pod)
{
	if (!pod->sandbox.is_doubted)
		return;
	if (is_reported_of_what_is_held(pod))
		mesh_addresses_take(pod);
	else
		mesh_locate_soon(pod);
}
