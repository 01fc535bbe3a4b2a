/* Rules that istio-cni left, in running pods and on the host, become ours (installer/host/migrate.h).
 *
 * In a pod they are taken for what an earlier run of ours would have left: they redirect to the same ports, so our redirects
 * come in, all at once, and theirs go. From there on the pod is like any other that is found with rules: it stays enrolled
 * where it is wanted, and else it is released, drain and all. One look for each namespace: closing the look's socket soon after
 * a table was removed there would wait for the kernel. On the host theirs go when our probe set holds every pod's address. */
#include "ambient/nft.h"
#include "installer/host/migrate.h"
#include "installer/mesh/state.h"

static void tell_legacy(struct mesh_pod *pod, const struct migrate_found *found)
{
	const struct sandbox *sandbox = &pod->sandbox;
	mesh_log(pod, LOG_LEVEL_WARN, "migrate",
		 "the pod has rules of istio-cni in legacy iptables, which can't be removed from here; on the node, with PATH "
		 "being %s: %s",
		 sandbox->netns_path ? sandbox->netns_path : "the pod's network namespace", found->legacy_command);
	mesh_event(
		pod, true, "LegacyRules",
		"rules of istio-cni in legacy iptables can't be removed by the node agent, whose log has the command to run");
}

int sandbox_take_over(struct mesh_pod *pod, struct error *error)
{
	struct sandbox *sandbox = &pod->sandbox;
	struct migrate_found found = { 0 };
	if (sandbox->is_taken_over)
		return 0;
	if (migrate_detect(sandbox->netns, MIGRATE_POD, error, &found) < 0)
		return -1;
	if (found.legacy)
		tell_legacy(pod, &found);
	if (!migrate_found_any(&found)) {
		sandbox->is_taken_over = true;
		return 0;
	}
	if (sandbox->standing != REDIRECT_STANDING_FULL && sandbox_apply(pod, REDIRECT_STAGE_FULL, &pod->wanted, error) < 0)
		return -1;
	nft_socket_close(sandbox->taken_over);
	sandbox->taken_over = NULL;
	if (migrate_remove(sandbox->netns, MIGRATE_POD, error, &found, &sandbox->taken_over) < 0)
		return -1;
	sandbox->is_taken_over = true;
	mesh_log(pod, LOG_LEVEL_INFO, "migrate", "istio-cni's rules in the pod (%s) were replaced by ours",
		 found.nftables ? "nftables" : "iptables");
	return 0;
}

void mesh_take_over_host(struct mesh *mesh)
{
	struct error error = { 0 };
	struct migrate_found found = { 0 };
	const struct log *log = mesh->settings.log;
	if (migrate_detect(mesh->settings.host_netns, MIGRATE_HOST, &error, &found) < 0 ||
	    (migrate_found_any(&found) && migrate_remove(mesh->settings.host_netns, MIGRATE_HOST, &error, &found, NULL) < 0)) {
		log_write(log, LOG_LEVEL_WARN, NULL, "what istio-cni left on the host is not all removed: %s", error.message);
		return;
	}
	if (migrate_found_any(&found))
		log_write(log, LOG_LEVEL_INFO, NULL, "istio-cni's rules on the host were replaced by ours");
	if (found.legacy)
		log_write(log, LOG_LEVEL_WARN, NULL,
			  "the host has rules of istio-cni in legacy iptables, which can't be removed from here; run on the "
			  "node: %s",
			  found.legacy_command);
}
