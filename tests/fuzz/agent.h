/* The rooms of a node agent for targets that speak to one: a mesh with a pod of each kind and a tunnel server, in a place of
 * their own that is gone with the process. Nobody waits: what has a time limit does not come to it. */
#ifndef AMBIENT_TESTS_FUZZ_AGENT_H
#define AMBIENT_TESTS_FUZZ_AGENT_H

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/netns.h"
#include "installer/mesh/mesh.h"
#include "installer/unix_listener.h"
#include "tests/fuzz/fuzz.h"

/* A place that every machine has and where no checkout and no corpus lie: the mount hides what is there from this process. */
#define FUZZ_RUN_DIR "/run"

/* Once: a network without anybody, and an empty FUZZ_RUN_DIR. Returns the network namespace that counts as the host's. */
static inline int fuzz_agent_place(void)
{
	struct error error = { 0 };
	int host_netns = -1;
	HOLDS(unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
	HOLDS(mount("tmpfs", FUZZ_RUN_DIR, "tmpfs", 0, "size=64m") == 0);
	HOLDS(netns_open("/proc/self/ns/net", &error, &host_netns) == 0);
	return host_netns;
}

struct fuzz_agent {
	struct event_base *base;
	struct mesh *mesh;
	struct tunnel_server *tunnel;
	struct enablement_selectors selectors;
	struct redirect defaults;
	struct log log;
	struct metrics metrics;
	struct mesh_settings settings;
	struct source source;
	int descriptors; /* before it came */
};

static inline int fuzz_agent_count_descriptors(void)
{
	int count = 0;
	DIR *directory = opendir("/proc/self/fd");
	HOLDS(directory);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* The API server is away. */
static inline int fuzz_agent_get_pod(void *self, const char *namespace_name, const char *name, source_answer answer, void *data,
				     struct error *error, struct source_request **ret_request)
{
	(void)self, (void)namespace_name, (void)name, (void)answer, (void)data, (void)ret_request;
	return error_set(error, ETIMEDOUT, "no answer from the API server");
}

static inline void fuzz_agent_start(struct fuzz_agent *agent, int host_netns)
{
	struct error error = { 0 };
	*agent = (struct fuzz_agent){ .log = { .fd = -1 }, .descriptors = fuzz_agent_count_descriptors() };
	redirect_init(&agent->defaults);
	HOLDS(enablement_selectors_default(&error, &agent->selectors) == 0);
	agent->settings = (struct mesh_settings){
		.selection = { .selectors = &agent->selectors,
			       .system_namespace = "istio-system",
			       .installer_namespace = "istio-system",
			       .daemon_set_name = "istio-cni-node",
			       .defaults = &agent->defaults },
		.run_dir = FUZZ_RUN_DIR,
		.proc_dir = FUZZ_RUN_DIR "/proc",
		.netns_dir = FUZZ_RUN_DIR "/netns",
		.host_netns = host_netns,
		.log = &agent->log,
		.metrics = &agent->metrics,
	};
	agent->base = event_base_new();
	if (mesh_new(agent->base, &agent->settings, &error, &agent->mesh) < 0) {
		fprintf(stderr, "%s\n", error.message);
		abort();
	}
	const struct tunnel_listener listener = mesh_tunnel_listener(agent->mesh);
	HOLDS(tunnel_server_new(agent->base, FUZZ_RUN_DIR "/ztunnel.sock", &listener, NULL, &agent->log, &error,
				&agent->tunnel) == 0);
	mesh_set_tunnel(agent->mesh, agent->tunnel);
	agent->source = (struct source){ .get_pod = fuzz_agent_get_pod };
	mesh_set_source(agent->mesh, &agent->source);
}

/* What the target has opened on top is closed by now: no descriptor may be left over. */
static inline void fuzz_agent_stop(struct fuzz_agent *agent)
{
	mesh_free(agent->mesh);
	tunnel_server_free(agent->tunnel);
	event_base_free(agent->base);
	enablement_selectors_clear(&agent->selectors);
	HOLDS(fuzz_agent_count_descriptors() == agent->descriptors);
}

/* The source has listed namespace "shop", in the mesh, and "other", outside; pods shop/pod-1 (uid u1) and other/pod-2 (u2). */
static inline void fuzz_agent_list(struct fuzz_agent *agent)
{
	static const char *const objects[][2] = {
		{ "{\"metadata\":{\"name\":\"shop\",\"uid\":\"n1\",\"labels\":{\"istio.io/dataplane-mode\":\"ambient\"}}}",
		  "{\"metadata\":{\"name\":\"other\",\"uid\":\"n2\"}}" },
		{ "{\"metadata\":{\"name\":\"pod-1\",\"namespace\":\"shop\",\"uid\":\"u1\"},\"spec\":{\"nodeName\":\"node\"},"
		  "\"status\":{\"podIPs\":[{\"ip\":\"10.1.0.7\"}]}}",
		  "{\"metadata\":{\"name\":\"pod-2\",\"namespace\":\"other\",\"uid\":\"u2\"},\"spec\":{\"nodeName\":\"node\"}"
		  "}" },
	};
	static const enum source_kind kinds[] = { SOURCE_NAMESPACE, SOURCE_POD };
	const struct source_listener listener = mesh_source_listener(agent->mesh);
	for (size_t i = 0; i < 2; i++) {
		listener.list_started(listener.data, kinds[i]);
		for (size_t j = 0; j < 2; j++) {
			cJSON *json = cJSON_Parse(objects[i][j]);
			listener.put(listener.data, kinds[i], json);
			cJSON_Delete(json);
		}
		listener.list_finished(listener.data, kinds[i]);
	}
}

/* A peer connects to the listener that a target has put itself in place of: its end. */
static inline int fuzz_agent_connect(const struct unix_listener_events *listener)
{
	int pair[2];
	HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	listener->accepted(listener->data, pair[1], 1);
	return pair[0];
}

static inline void fuzz_agent_turn(struct fuzz_agent *agent, int turns)
{
	while (turns-- > 0)
		event_base_loop(agent->base, EVLOOP_NONBLOCK);
}

#endif
