/* What the node agent's own code does for a pod, to be counted by callgrind (tests/budgets): the mesh and the tunnel's server
 * in this process, with pods that are real network namespaces, a source that is called by hand, and a tunnel that accepts at
 * once.
 *
 *     flips PODS TIMES ADDS SAVES
 *
 * PODS pods, in a namespace that enters the mesh and leaves it TIMES times and then stays in; then ADDS more pods come by an
 * ADD each, as the plugin would bring them, while the others stand; then what is remembered is saved SAVES times. Printed is
 * how many bytes of the heap were in use when the PODS pods were in and nothing was under way. The agent saves by the clock,
 * which would make the counts vary: the linker leaves it out elsewhere (BENCH_WRAPS in the Makefile). All of it in namespaces
 * of its own. */
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "installer/mesh/mesh.h"
#include "installer/mesh/state.h"
#include "tests/bench/fresh_netns.h"

#define PLACE "/run" /* hidden by a file system of our own */
#define SOCKET PLACE "/ztunnel.sock"

void __wrap_mesh_remember_enrolled(struct mesh *mesh);
void __wrap_mesh_remember_outside(struct mesh *mesh);
void __wrap_mesh_remember_enrolled(struct mesh *mesh)
{
	(void)mesh;
}
void __wrap_mesh_remember_outside(struct mesh *mesh)
{
	(void)mesh;
}

struct bed {
	struct event_base *base;
	struct mesh *mesh;
	struct tunnel_server *tunnel;
	struct source_listener source;
	struct event *answering;
	int arriving; /* the namespace of the pod that an ADD brings */
	bool is_finished;
};

/* The tunnel's end: whatever is asked is accepted. */
static void accept_request(evutil_socket_t fd, short what, void *data)
{
	char request[1024], control[CMSG_SPACE(sizeof(int))];
	struct iovec bytes = { .iov_base = request, .iov_len = sizeof request };
	struct msghdr message = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
	};
	(void)what, (void)data;
	if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) <= 0)
		err(1, "the agent closed the tunnel's connection");
	const struct cmsghdr *part = CMSG_FIRSTHDR(&message);
	if (part) {
		int netns;
		memcpy(&netns, CMSG_DATA(part), sizeof netns);
		close(netns);
	}
	if (send(fd, "\x0a", 2, MSG_NOSIGNAL) != 2) /* an Ack without an error */
		err(1, "cannot answer the agent");
}

static void dial(struct bed *bed)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = SOCKET };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 || send(fd, "\x08\x01", 2, 0) != 2)
		err(1, "cannot connect to the agent");
	bed->answering = event_new(bed->base, fd, EV_READ | EV_PERSIST, accept_request, NULL);
	event_add(bed->answering, NULL);
}

static void write_file(const char *directory, const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	FILE *file = fopen(path, "we");
	if (!file || fputs(text, file) < 0 || fclose(file) != 0)
		err(1, "cannot write %s", path);
}

/* An address on lo; the pod's namespace is a process's of the node. */
static int make_pod(int number, bool has_process)
{
	char directory[64], text[256], target[64];
	int netns = fresh_netns(), home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	struct ifreq request = { .ifr_name = "lo:1" };
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a5c0000U + (unsigned int)number) };
	memcpy(&request.ifr_addr, &address, sizeof address);
	if (home < 0 || setns(netns, CLONE_NEWNET) < 0)
		err(1, "cannot enter a namespace");
	int inet = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (ioctl(inet, SIOCSIFADDR, &request) < 0 || setns(home, CLONE_NEWNET) < 0)
		err(1, "cannot give a pod its address");
	close(inet);
	close(home);
	if (!has_process)
		return netns;
	snprintf(directory, sizeof directory, PLACE "/proc/%d", 1000 + number);
	snprintf(text, sizeof text, "%s/ns", directory);
	if (mkdir(directory, 0700) < 0 || mkdir(text, 0700) < 0)
		err(1, "cannot make %s", text);
	snprintf(text, sizeof text, "%s/ns/net", directory);
	snprintf(target, sizeof target, "/proc/self/fd/%d", netns);
	if (symlink(target, text) < 0)
		err(1, "cannot make %s", text);
	snprintf(text, sizeof text, "0::/kubepods/besteffort/pod00000000-0000-4000-9000-%012d/x\n", number);
	write_file(directory, "cgroup", text);
	write_file(directory, "stat", "1 (x) S 1 1 1 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 100 0 0 0\n");
	return netns;
}

static void put(struct bed *bed, enum source_kind kind, const char *text)
{
	cJSON *json = cJSON_Parse(text);
	if (!json)
		errx(1, "no JSON: %s", text);
	bed->source.put(bed->source.data, kind, json);
	cJSON_Delete(json);
}

static void put_pod(struct bed *bed, int number)
{
	char text[512];
	snprintf(text, sizeof text,
		 "{\"metadata\":{\"name\":\"pod-%d\",\"namespace\":\"shop\",\"uid\":\"00000000-0000-4000-9000-%012d\"},"
		 "\"spec\":{\"nodeName\":\"node\",\"serviceAccountName\":\"account\"},"
		 "\"status\":{\"phase\":\"Running\",\"podIPs\":[{\"ip\":\"10.92.%d.%d\"}]}}",
		 number, number, number >> 8, number & 255);
	put(bed, SOURCE_POD, text);
}

static void label(struct bed *bed, bool is_in)
{
	put(bed, SOURCE_NAMESPACE,
	    is_in ? "{\"metadata\":{\"name\":\"shop\",\"uid\":\"n\",\"labels\":{\"istio.io/dataplane-mode\":\"ambient\"}}}"
		  : "{\"metadata\":{\"name\":\"shop\",\"uid\":\"n\"}}");
}

static void wait_until_all_are(struct bed *bed, enum mesh_state state)
{
	size_t counts[MESH_STATE_COUNT];
	size_t others;
	do {
		if (event_base_loop(bed->base, EVLOOP_ONCE) != 0)
			errx(1, "nothing is left to wait for");
		mesh_count_states(bed->mesh, counts);
		others = 0;
		for (int other = 0; other < MESH_STATE_COUNT; other++)
			others += other == (int)state ? 0 : counts[other];
	} while (others > 0);
}

/* ---- An ADD: what the plugin does is done here. ---- */

static void decided(void *data, enum mesh_verdict verdict, const char *reason, const struct redirect *redirect)
{
	const struct bed *bed = data;
	struct error error = { 0 };
	cleanup_redirect_session struct redirect_session *session = NULL;
	if (verdict != MESH_VERDICT_REDIRECT)
		errx(1, "the pod is outside: %s", reason);
	if (redirect_session_open(bed->arriving, &error, &session) < 0 ||
	    redirect_apply(session, redirect, REDIRECT_STAGE_FULL, &error) < 0)
		errx(1, "%s", error.message);
}

static void finished(void *data, enum cni_code code, const char *message)
{
	if (code != CNI_OK)
		errx(1, "the ADD failed: %s", message);
	((struct bed *)data)->is_finished = true;
}

static void add(struct bed *bed, int number)
{
	const struct mesh_arrival_listener listener = { .decided = decided, .finished = finished, .data = bed };
	struct error error = { 0 };
	struct mesh_arrival *arrival = NULL;
	char container[32], name[32];
	put_pod(bed, number);
	snprintf(container, sizeof container, "c%d", number);
	snprintf(name, sizeof name, "pod-%d", number);
	bed->arriving = make_pod(number, false);
	struct attachment attachment = { .network = strdup("net"),
					 .container_id = strdup(container),
					 .interface = strdup("eth0"),
					 .pod_namespace = strdup("shop"),
					 .pod_name = strdup(name) };
	if (netns_identify(bed->arriving, &error, &attachment.netns) < 0)
		errx(1, "%s", error.message);
	bed->is_finished = false;
	if (mesh_arrival_begin(bed->mesh, &attachment, bed->arriving, 60, &listener, &error, &arrival) < 0)
		errx(1, "%s", error.message);
	mesh_arrival_reported(arrival, NULL);
	while (!bed->is_finished)
		event_base_loop(bed->base, EVLOOP_ONCE);
}

static void ignore(evutil_socket_t fd, short what, void *data)
{
	(void)fd, (void)what, (void)data;
}

/* libevent has tables that double: one by descriptor, one for what is ready at once. How high the numbers of descriptors get,
 * and how much is ready, depends on how fast all of this is (sockets are closed late): so the tables have the size that is
 * enough for everything from the beginning. A pod has one descriptor of ours, and five while it is held; those of the one time
 * before may be open still. */
static void let_tables_grow(struct event_base *base, int pods)
{
	enum { READY = 2048 };
	static struct event events[READY];
	int descriptors = 8192, pair[2];
	while (pods * 12 + 64 > descriptors - READY)
		descriptors *= 2;
	if (pipe2(pair, O_CLOEXEC) < 0 || write(pair[1], "", 1) != 1)
		err(1, "cannot make a pipe");
	for (int i = 0; i < READY; i++) {
		if (dup3(pair[0], descriptors - READY + i, O_CLOEXEC) < 0)
			errx(1, "%d descriptors are needed (ulimit -n)", descriptors);
		event_assign(&events[i], base, descriptors - READY + i, EV_READ | EV_PERSIST, ignore, NULL);
		event_add(&events[i], NULL);
	}
	for (int turn = 0; turn < 10; turn++)
		event_base_loop(base, EVLOOP_ONCE);
	for (int i = 0; i < READY; i++) {
		event_del(&events[i]);
		close(descriptors - READY + i);
	}
	close(pair[0]);
	close(pair[1]);
}

static int nobody_asks(void *self, const char *namespace_name, const char *name, source_answer answer, void *data,
		       struct error *error, struct source_request **ret_request)
{
	(void)self, (void)namespace_name, (void)name, (void)answer, (void)data, (void)ret_request;
	return error_set(error, 0, "the source was asked for a pod");
}

int main(int argc, char **argv)
{
	static struct metrics metrics;
	const struct log log = { .fd = -1 };
	struct enablement_selectors selectors = { 0 };
	struct redirect defaults;
	struct error error = { 0 };
	struct bed bed = { .base = event_base_new() };
	int host_netns = -1;
	if (argc != 5)
		errx(2, "usage: flips PODS TIMES ADDS SAVES");
	int pods = atoi(argv[1]), times = atoi(argv[2]), adds = atoi(argv[3]), saves = atoi(argv[4]);

	/* Pods that never come in are not waited for forever. */
	alarm(600);
	allow_many_descriptors();
	let_tables_grow(bed.base, pods);
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("tmpfs", PLACE, "tmpfs", 0, "size=64m") < 0 || mkdir(PLACE "/proc", 0700) < 0)
		err(1, "cannot make a place of our own");
	redirect_init(&defaults);
	if (netns_open("/proc/self/ns/net", &error, &host_netns) < 0 || enablement_selectors_default(&error, &selectors) < 0)
		errx(1, "%s", error.message);
	const struct mesh_settings settings = {
		.selection = { .selectors = &selectors,
			       .system_namespace = "istio-system",
			       .installer_namespace = "istio-system",
			       .daemon_set_name = "istio-cni-node",
			       .defaults = &defaults },
		.run_dir = PLACE,
		.proc_dir = PLACE "/proc",
		.netns_dir = PLACE "/netns",
		.host_netns = host_netns,
		.log = &log,
		.metrics = &metrics,
	};
	if (mesh_new(bed.base, &settings, &error, &bed.mesh) < 0)
		errx(1, "%s", error.message);
	const struct tunnel_listener tunnel_listener = mesh_tunnel_listener(bed.mesh);
	/* Under callgrind a turn of the loop may take seconds. */
	struct tunnel_limits limits = TUNNEL_LIMITS_DEFAULT;
	limits.hello_milliseconds = limits.answer_milliseconds = 600000;
	if (tunnel_server_new(bed.base, SOCKET, &tunnel_listener, &limits, &log, &error, &bed.tunnel) < 0)
		errx(1, "%s", error.message);
	mesh_set_tunnel(bed.mesh, bed.tunnel);
	const struct source source = { .get_pod = nobody_asks };
	mesh_set_source(bed.mesh, &source);
	bed.source = mesh_source_listener(bed.mesh);
	for (int kind = 0; kind < SOURCE_KIND_COUNT; kind++) {
		bed.source.list_started(bed.source.data, (enum source_kind)kind);
		if (kind == SOURCE_NAMESPACE)
			label(&bed, false);
		for (int number = 1; kind == SOURCE_POD && number <= pods; number++) {
			make_pod(number, true);
			put_pod(&bed, number);
		}
		bed.source.list_finished(bed.source.data, (enum source_kind)kind);
	}
	dial(&bed);
	for (int time = 0; time <= times; time++) {
		label(&bed, true);
		wait_until_all_are(&bed, MESH_STATE_ENABLED);
		if (time == times)
			break;
		label(&bed, false);
		wait_until_all_are(&bed, MESH_STATE_NONE);
	}
	/* What was let go is closed a second late: how much of it waits depends on how fast all of this was. */
	while (!TAILQ_EMPTY(&bed.mesh->closings))
		event_base_loop(bed.base, EVLOOP_ONCE);
	printf("%zu\n", mallinfo2().uordblks);
	for (int number = 1; number <= adds; number++)
		add(&bed, pods + number);
	for (int number = 0; number < saves; number++) {
		bed.mesh->is_enrolled_dirty = true;
		mesh_save(-1, 0, bed.mesh);
		if (bed.mesh->is_enrolled_dirty)
			errx(1, "nothing was saved");
	}
	mesh_free(bed.mesh);
	tunnel_server_free(bed.tunnel);
	return 0;
}
