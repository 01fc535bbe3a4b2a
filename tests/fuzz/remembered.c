/* What an earlier run of the agent has left in its runDir: enrolled.json, or outside.json, as the first byte says. Whatever it
 * is, the mesh starts. */
#include <event2/event.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/netns.h"
#include "installer/mesh/mesh.h"
#include "installer/observe/metrics.h"
#include "tests/fuzz/fuzz.h"

static int host_netns;
#define RUN_DIR "/tmp"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	struct error error = { 0 };
	/* A place of its own, gone with the process, and a network without anybody. */
	HOLDS(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	HOLDS(mount("tmpfs", RUN_DIR, "tmpfs", 0, "size=64m") == 0);
	HOLDS(netns_open("/proc/self/ns/net", &error, &host_netns) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	static struct metrics metrics;
	const struct log log = { .fd = -1 };
	struct enablement_selectors selectors = { 0 };
	struct redirect defaults;
	if (size == 0)
		return 0;
	HOLDS(file_write(data[0] & 1 ? RUN_DIR "/outside.json" : RUN_DIR "/enrolled.json", (const char *)data + 1, size - 1,
			 0600, &error) == 0);
	redirect_init(&defaults);
	HOLDS(enablement_selectors_default(&error, &selectors) == 0);
	struct mesh_settings settings = {
		.selection = { .selectors = &selectors,
			       .system_namespace = "istio-system",
			       .installer_namespace = "istio-system",
			       .daemon_set_name = "istio-cni-node",
			       .defaults = &defaults },
		.run_dir = RUN_DIR,
		.proc_dir = RUN_DIR "/proc",
		.netns_dir = RUN_DIR "/netns",
		.host_netns = host_netns,
		.log = &log,
		.metrics = &metrics,
	};
	struct event_base *base = event_base_new();
	struct mesh *mesh = NULL;
	struct tunnel_server *tunnel = NULL;
	if (mesh_new(base, &settings, &error, &mesh) < 0) {
		fprintf(stderr, "%s\n", error.message);
		abort();
	}
	const struct tunnel_listener listener = mesh_tunnel_listener(mesh);
	HOLDS(tunnel_server_new(base, RUN_DIR "/ztunnel.sock", &listener, NULL, &log, &error, &tunnel) == 0);
	mesh_set_tunnel(mesh, tunnel);
	cJSON_Delete(mesh_pods_view(mesh));
	mesh_free(mesh);
	tunnel_server_free(tunnel);
	event_base_free(base);
	enablement_selectors_clear(&selectors);
	unlink(RUN_DIR "/outside.json");
	unlink(RUN_DIR "/enrolled.json");
	unlink(RUN_DIR "/enrolled.json.corrupt");
	return 0;
}
