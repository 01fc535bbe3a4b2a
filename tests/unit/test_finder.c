/* Finding pods' namespaces: a /proc made of files, with every layout of cgroups, and a real process in a real cgroup. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/netns/finder.h"
#include "installer/netns/netns_address.h"
#include "installer/netns/netns_path.h"
#include "tests/unit/process.h"

#define UID_A "3c1e6c1a-9f54-4b8e-8d8c-0a1b2c3d4e5f"
#define UID_A_SYSTEMD "3c1e6c1a_9f54_4b8e_8d8c_0a1b2c3d4e5f"
#define UID_B "77777777-9f54-4b8e-8d8c-0a1b2c3d4e5f"
#define UID_STATIC "0123456789abcdef0123456789abcdef"
#define CONTAINER "d759a13ae62013adef92f54fbd14c6b5d759a13ae62013adef92f54fbd14c6b5"

/* Namespaces with an address each, held by descriptors; the test's own is the host's. */
static struct {
	char proc[64];
	int pod_a, pod_b, stranger;
	struct netns_id host, pod_a_id, pod_b_id;
	struct pod_address address_a, address_a6, address_b;
} world;

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
	char command[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(command, sizeof command, format, arguments);
	va_end(arguments);
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

static int make_namespace_with(const char *address, struct netns_id *ret_id)
{
	cleanup_close int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	run("ip link add eth0 type veth peer name other && ip link set eth0 up && ip addr add %s dev eth0 %s", address,
	    strchr(address, ':') ? "nodad" : "");
	int made = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(made >= 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
	assert_int_equal(netns_identify(made, NULL, ret_id), 0);
	return made;
}

static int set_up(void **state __attribute__((unused)))
{
	struct netns_id stranger;
	cleanup_close int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	strcpy(world.proc, "/tmp/test_finder.XXXXXX");
	if (!mkdtemp(world.proc) || netns_identify(own, NULL, &world.host) < 0)
		return -1;
	world.pod_a = make_namespace_with("10.1.0.2/24", &world.pod_a_id);
	world.pod_b = make_namespace_with("fd99::b/64", &world.pod_b_id);
	world.stranger = make_namespace_with("10.1.0.99/24", &stranger);
	assert_true(pod_address_parse("10.1.0.2", &world.address_a));
	assert_true(pod_address_parse("fd99::a", &world.address_a6));
	assert_true(pod_address_parse("fd99::b", &world.address_b));
	return 0;
}

static int tear_down(void **state __attribute__((unused)))
{
	close(world.pod_a);
	close(world.pod_b);
	close(world.stranger);
	run("rm -rf %s", world.proc);
	return 0;
}

static void write_text(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* A process of the /proc made of files. `netns` -1: its namespace may not be looked at. */
static void add_process(int number, const char *cgroup, int netns, unsigned long long start_time)
{
	char path[256], text[1024], target[64];
	snprintf(path, sizeof path, "%s/%d", world.proc, number);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/%d/ns", world.proc, number);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/%d/cgroup", world.proc, number);
	write_text(path, cgroup);
	snprintf(path, sizeof path, "%s/%d/stat", world.proc, number);
	snprintf(text, sizeof text, "%d (a) 1 (b) S 1 1 1 0 -1 4194560 1 1 0 0 0 0 0 0 20 0 1 0 %llu 1 1 1\n", number,
		 start_time);
	write_text(path, text);
	snprintf(path, sizeof path, "%s/%d/ns/net", world.proc, number);
	snprintf(target, sizeof target, "/proc/%d/fd/%d", (int)getpid(), netns);
	if (netns >= 0)
		assert_int_equal(symlink(target, path), 0);
}

static void forget_processes(void)
{
	run("rm -rf %s/*", world.proc);
}

static enum finder_result find(const char *uid, const struct pod_address *addresses, size_t count, struct netns_id *ret_id)
{
	struct error error = { 0 };
	struct finder_wish wish = { .uid = uid, .addresses = addresses, .addresses_count = count };
	if (finder_scan(world.proc, &world.host, &wish, 1, &error) < 0)
		fail_msg("%s", error.message);
	assert_true((wish.result == FINDER_FOUND) == (wish.netns >= 0));
	if (wish.netns >= 0)
		close(wish.netns);
	*ret_id = wish.id;
	return wish.result;
}

static void assert_found(const char *uid, const struct pod_address *address, const struct netns_id *expected)
{
	struct netns_id id;
	assert_int_equal(find(uid, address, 1, &id), FINDER_FOUND);
	assert_int_equal(id.inode, expected->inode);
}

static void assert_result(const char *uid, const struct pod_address *address, enum finder_result expected)
{
	struct netns_id id;
	assert_int_equal(find(uid, address, 1, &id), expected);
}

static void every_layout(void **state __attribute__((unused)))
{
	static const struct {
		const char *uid, *cgroup;
	} layouts[] = {
		/* v2, cgroupfs driver: the three classes of service. */
		{ UID_A, "0::/kubepods/besteffort/pod" UID_A "/" CONTAINER "\n" },
		{ UID_A, "0::/kubepods/burstable/pod" UID_A "/" CONTAINER "\n" },
		{ UID_A, "0::/kubepods/pod" UID_A "/" CONTAINER "\n" },
		/* v2, systemd driver: containerd, CRI-O, Docker (cri-dockerd). */
		{ UID_A, "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" UID_A_SYSTEMD
			 ".slice/cri-containerd-" CONTAINER ".scope\n" },
		{ UID_A, "0::/kubepods.slice/kubepods-pod" UID_A_SYSTEMD ".slice/crio-" CONTAINER ".scope\n" },
		{ UID_A, "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_A_SYSTEMD
			 ".slice/docker-" CONTAINER ".scope\n" },
		/* CRI-O's container cgroup below its scope. */
		{ UID_A, "0::/kubepods.slice/kubepods-pod" UID_A_SYSTEMD ".slice/crio-" CONTAINER ".scope/container\n" },
		/* v1, many lines, some of which name nothing. */
		{ UID_A, "12:pids:/kubepods/besteffort/pod" UID_A "/" CONTAINER "\n11:perf_event:/\n"
			 "2:cpu,cpuacct:/kubepods/besteffort/pod" UID_A "/" CONTAINER
			 "\n1:name=systemd:/kubepods/besteffort/pod" UID_A "/" CONTAINER "\n0::/\n" },
		{ UID_A, "5:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_A_SYSTEMD
			 ".slice/docker-" CONTAINER ".scope\n1:name=systemd:/system.slice/kubelet.service\n" },
		/* containerd told of one driver, the kubelet of the other. */
		{ UID_A, "0::/system.slice/containerd.service/kubepods-besteffort-pod" UID_A_SYSTEMD
			 ".slice:cri-containerd:" CONTAINER "\n" },
		/* A cgroup root of the kubelet's own; a node that is itself a container. */
		{ UID_A, "0::/kubelet/kubepods/besteffort/pod" UID_A "/" CONTAINER "\n" },
		{ UID_A, "0::/docker/" CONTAINER "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
			 "kubelet-kubepods-besteffort-pod" UID_A_SYSTEMD ".slice/cri-containerd-" CONTAINER ".scope\n" },
		/* Seen from a cgroup namespace of our own. */
		{ UID_A, "0::/../../kubepods-besteffort-pod" UID_A_SYSTEMD ".slice/cri-containerd-" CONTAINER ".scope\n" },
		{ UID_A, "0::/../../pod" UID_A "/" CONTAINER "\n" },
		/* A pod's cgroup itself. */
		{ UID_A, "0::/kubepods/besteffort/pod" UID_A "\n" },
		{ UID_A, "0::/kubepods/besteffort/pod" UID_A },
		/* Static pods. */
		{ UID_STATIC, "0::/kubepods/burstable/pod" UID_STATIC "/" CONTAINER "\n" },
		{ UID_STATIC, "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_STATIC
			      ".slice/cri-containerd-" CONTAINER ".scope\n" },
		/* A uid that is no UUID (a folder's objects). */
		{ "pod-1", "0::/kubepods/podpod-1/x\n" },
	};
	for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
		struct netns_id id;
		forget_processes();
		add_process(100, layouts[i].cgroup, world.pod_a, 500);
		if (find(layouts[i].uid, &world.address_a, 1, &id) != FINDER_FOUND)
			fail_msg("not found: %s", layouts[i].cgroup);
		assert_int_equal(id.inode, world.pod_a_id.inode);
		assert_result(UID_B, &world.address_a, FINDER_NO_PROCESS);
	}
}

static void what_names_no_pod(void **state __attribute__((unused)))
{
	static const char *const cgroups[] = {
		"",
		"\n",
		"0::/\n",
		"0::/kubepods/besteffort\n",
		"0::/kubepods/besteffort/pod\n",
		"0::/system.slice/pod" UID_A "x.service\n",
		"0::/kubepods/besteffort/pod" UID_A "0/x\n",
		"0::/kubepods/besteffort/pod3c1e6c1a/x\n",
		"0::/kubepods/besteffort/" UID_A "/x\n",
		"0::/kubepods/besteffort/superpod" UID_A "/x\n",
		"0:name=pod" UID_A ":/\n",
		/* Two lines that name different pods: no honest process has that. */
		"2:cpu:/kubepods/pod" UID_A "/x\n1:pids:/kubepods/pod" UID_B "/x\n",
		/* What pod B made below its own cgroup is not pod A. */
		"0::/kubepods/pod" UID_B "/" CONTAINER "/pod" UID_A "\n",
	};
	for (size_t i = 0; i < sizeof cgroups / sizeof cgroups[0]; i++) {
		struct netns_id id;
		forget_processes();
		add_process(100, cgroups[i], world.pod_a, 500);
		if (find(UID_A, &world.address_a, 1, &id) != FINDER_NO_PROCESS)
			fail_msg("found: %s", cgroups[i]);
	}
}

#define IN_POD_A "0::/kubepods/pod" UID_A "/" CONTAINER "\n"
#define IN_POD_B "0::/kubepods/pod" UID_B "/" CONTAINER "\n"

static void many_wishes_with_one_scan(void **state __attribute__((unused)))
{
	struct error error = { 0 };
	struct pod_address addresses_a[] = { world.address_a6, world.address_a };
	struct finder_wish wishes[] = {
		{ .uid = UID_B, .addresses = &world.address_b, .addresses_count = 1 },
		{ .uid = "nobody", .addresses = &world.address_b, .addresses_count = 1 },
		{ .uid = UID_A, .addresses = addresses_a, .addresses_count = 2 },
		{ .uid = UID_STATIC, .addresses = &world.address_a, .addresses_count = 1 },
	};
	add_process(1, "0::/init.scope\n", -1, 1);
	add_process(10, IN_POD_A, world.pod_a, 100);
	add_process(11, IN_POD_A, world.pod_a, 90);
	add_process(20, IN_POD_B, world.pod_b, 100);
	assert_int_equal(finder_scan(world.proc, &world.host, wishes, 4, &error), 0);
	assert_int_equal(wishes[0].result, FINDER_FOUND);
	assert_int_equal(wishes[0].id.inode, world.pod_b_id.inode);
	assert_int_equal(wishes[1].result, FINDER_NO_PROCESS);
	assert_int_equal(wishes[2].result, FINDER_FOUND);
	assert_int_equal(wishes[2].id.inode, world.pod_a_id.inode);
	assert_int_equal(wishes[3].result, FINDER_NO_PROCESS);
	struct netns_id id;
	assert_int_equal(netns_identify(wishes[2].netns, NULL, &id), 0);
	assert_int_equal(id.inode, world.pod_a_id.inode);
	assert_true(fcntl(wishes[2].netns, F_GETFD) & FD_CLOEXEC);
	close(wishes[0].netns);
	close(wishes[2].netns);
}

static int open_host(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

static void the_hosts_namespace_is_no_pods(void **state __attribute__((unused)))
{
	cleanup_close int host = open_host();
	add_process(10, IN_POD_A, host, 1); /* conmon, older than the pod */
	assert_result(UID_A, &world.address_a, FINDER_ONLY_HOST);
	add_process(11, IN_POD_A, world.pod_a, 100);
	assert_found(UID_A, &world.address_a, &world.pod_a_id);
}

static void a_stranger_in_the_cgroup_is_not_taken(void **state __attribute__((unused)))
{
	add_process(10, IN_POD_A, world.stranger, 1);
	assert_result(UID_A, &world.address_a, FINDER_NO_ADDRESS);
	/* Older than the pod's own, and still not it. */
	add_process(11, IN_POD_A, world.pod_a, 100);
	assert_found(UID_A, &world.address_a, &world.pod_a_id);
}

/* Of two namespaces that both could be it, the older one's. */
static void the_oldest_process_decides(void **state __attribute__((unused)))
{
	struct pod_address either[] = { world.address_a, world.address_b };
	struct netns_id id;
	add_process(10, IN_POD_A, world.pod_b, 200);
	add_process(9, IN_POD_A, world.pod_a, 100);
	assert_int_equal(find(UID_A, either, 2, &id), FINDER_FOUND);
	assert_int_equal(id.inode, world.pod_a_id.inode);
	add_process(11, IN_POD_A, world.pod_b, 50);
	assert_int_equal(find(UID_A, either, 2, &id), FINDER_FOUND);
	assert_int_equal(id.inode, world.pod_b_id.inode);
}

/* A pod whose processes make namespaces without number: neither descriptors nor the pod's own namespace are lost. */
static void many_namespaces_of_one_pod(void **state __attribute__((unused)))
{
	int namespaces[40];
	for (int i = 0; i < 40; i++) {
		cleanup_close int home = open_host();
		assert_int_equal(unshare(CLONE_NEWNET), 0);
		namespaces[i] = open_host();
		assert_int_equal(setns(home, CLONE_NEWNET), 0);
		add_process(100 + i, IN_POD_A, namespaces[i], 1000 + (unsigned int)(i * 7) % 40);
	}
	add_process(99, IN_POD_A, world.pod_a, 900);
	add_process(999, IN_POD_B, world.pod_b, 900);
	int before = count_descriptors();
	assert_found(UID_A, &world.address_a, &world.pod_a_id);
	assert_found(UID_B, &world.address_b, &world.pod_b_id);
	assert_int_equal(count_descriptors(), before);

	/* With few descriptors left it still works; with none it says so. */
	struct rlimit old, limit;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	limit = old;
	limit.rlim_cur = (rlim_t)before + 16;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	struct netns_id id;
	enum finder_result result = find(UID_A, &world.address_a, 1, &id);
	struct error error = { 0 };
	struct finder_wish wish = { .uid = UID_A, .addresses = &world.address_a, .addresses_count = 1 };
	int lowest = dup(0);
	close(lowest);
	limit.rlim_cur = (rlim_t)lowest + 2; /* the folder and a process's, no file of it */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	int scanned = finder_scan(world.proc, &world.host, &wish, 1, &error);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(result, FINDER_FOUND);
	assert_int_equal(scanned, -1);
	assert_int_equal(error.number, EMFILE);
	assert_int_equal(wish.netns, -1);
	assert_int_equal(count_descriptors(), before);
	for (int i = 0; i < 40; i++)
		close(namespaces[i]);
}

static void without_an_address_nothing_is_proven(void **state __attribute__((unused)))
{
	struct netns_id id;
	add_process(10, IN_POD_A, world.pod_a, 100);
	assert_int_equal(find(UID_A, NULL, 0, &id), FINDER_NO_ADDRESS);
}

static void processes_that_vanish_or_are_hidden(void **state __attribute__((unused)))
{
	/* No namespace to see, no start time, no cgroup, a folder that is empty, a file where a folder should be. */
	add_process(10, IN_POD_A, -1, 1);
	add_process(11, IN_POD_A, world.stranger, 2);
	run("rm %s/11/stat", world.proc);
	add_process(12, IN_POD_A, world.stranger, 2);
	run("echo '12 (x' >%s/12/stat", world.proc);
	add_process(13, IN_POD_A, world.stranger, 3);
	run("rm %s/13/cgroup && mkdir %s/14 && touch %s/15 %s/uptime && mkdir %s/self", world.proc, world.proc, world.proc,
	    world.proc, world.proc);
	/* A namespace that is none. */
	add_process(16, IN_POD_A, -1, 4);
	run("touch %s/16/ns/net", world.proc);
	assert_result(UID_A, &world.address_a, FINDER_NO_PROCESS);
	add_process(17, IN_POD_A, world.pod_a, 100);
	assert_found(UID_A, &world.address_a, &world.pod_a_id);
}

static void a_proc_that_can_not_be_read(void **state __attribute__((unused)))
{
	struct error error = { 0 };
	struct finder_wish wish = { .uid = UID_A, .netns = 77 };
	assert_int_equal(finder_scan("/nowhere/proc", &world.host, &wish, 1, &error), -1);
	assert_int_equal(error.number, ENOENT);
	assert_non_null(strstr(error.message, "/nowhere/proc"));
	assert_int_equal(wish.netns, -1);
}

/* The machine's own /proc, and a cgroup that is made for a process of ours. */
static void a_real_process_in_a_real_cgroup(void **state __attribute__((unused)))
{
	char mounted[64] = "/tmp/test_finder_cgroup.XXXXXX", path[256], uid[64];
	assert_non_null(mkdtemp(mounted));
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	assert_int_equal(mount("cgroup2", mounted, "cgroup2", 0, NULL), 0);
	snprintf(uid, sizeof uid, "0a1b2c3d-0000-4000-8000-%012d", (int)getpid());
	snprintf(path, sizeof path, "%s/pod%s", mounted, uid);
	assert_int_equal(mkdir(path, 0755), 0);

	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		setns(world.pod_a, CLONE_NEWNET);
		pause();
		_exit(0);
	}
	char procs[300], number[16];
	snprintf(procs, sizeof procs, "%s/cgroup.procs", path);
	snprintf(number, sizeof number, "%d", (int)child);
	write_text(procs, number);

	struct finder_wish wish = { .uid = uid, .addresses = &world.address_a, .addresses_count = 1 };
	/* The child may not have entered its namespace yet. */
	for (int i = 0; i < 200; i++) {
		assert_int_equal(finder_scan("/proc", &world.host, &wish, 1, NULL), 0);
		if (wish.result == FINDER_FOUND)
			break;
		usleep(5000);
	}
	enum finder_result result = wish.result;
	struct netns_id id = wish.id;
	close(wish.netns);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	/* A cgroup is empty a moment after its last process is. */
	for (int i = 0; i < 200 && rmdir(path) < 0; i++)
		usleep(5000);
	assert_int_equal(access(path, F_OK), -1);
	umount(mounted);
	rmdir(mounted);
	assert_int_equal(result, FINDER_FOUND);
	assert_int_equal(id.inode, world.pod_a_id.inode);
}

static bool has(int netns, const char *text)
{
	struct pod_address address;
	bool found = false;
	assert_true(pod_address_parse(text, &address));
	assert_int_equal(netns_has_address(netns, &address, 1, NULL, &found), 0);
	return found;
}

static void addresses_of_a_namespace(void **state __attribute__((unused)))
{
	assert_true(has(world.pod_a, "10.1.0.2"));
	assert_true(has(world.pod_b, "fd99::b"));
	assert_false(has(world.pod_a, "10.1.0.3"));
	assert_false(has(world.pod_a, "fd99::b"));
	/* The other end of a point-to-point link is not the pod's. */
	struct netns_id id;
	cleanup_close int pointed = make_namespace_with("10.5.0.1 peer 10.5.0.2/32", &id);
	assert_true(has(pointed, "10.5.0.1"));
	assert_false(has(pointed, "10.5.0.2"));
}

static void assert_path(const char *path, const char *netns_dir, const struct netns_id *expected)
{
	struct error error = { 0 };
	struct netns_id id;
	int netns = -1;
	if (netns_path_open(path, world.proc, netns_dir, &world.host, &error, &netns) < 0)
		fail_msg("%s", error.message);
	assert_int_equal(netns_identify(netns, NULL, &id), 0);
	assert_int_equal(id.inode, expected->inode);
	close(netns);
}

static void assert_refused(const char *path, const char *netns_dir, int number, const char *words)
{
	struct error error = { 0 };
	int netns = -1;
	assert_int_equal(netns_path_open(path, world.proc, netns_dir, &world.host, &error, &netns), -1);
	assert_int_equal(netns, -1);
	assert_int_equal(error.number, number);
	if (!strstr(error.message, words))
		fail_msg("\"%s\" does not say \"%s\"", error.message, words);
}

static void paths_of_annotations(void **state __attribute__((unused)))
{
	char netns_dir[128], path[256];
	cleanup_close int host = open_host();
	snprintf(netns_dir, sizeof netns_dir, "%s/netns", world.proc);
	run("mkdir %s && ln -s /proc/%d/fd/%d %s/a && touch %s/none && ln -s /proc/%d/fd/%d %s/host", netns_dir, (int)getpid(),
	    world.pod_a, netns_dir, netns_dir, (int)getpid(), host, netns_dir);
	add_process(12, IN_POD_B, world.pod_b, 1);

	assert_path("a", netns_dir, &world.pod_a_id);
	assert_path("/run/netns/a", netns_dir, &world.pod_a_id);
	assert_path("/var/run/netns/a", netns_dir, &world.pod_a_id);
	snprintf(path, sizeof path, "%s/a", netns_dir);
	assert_path(path, netns_dir, &world.pod_a_id);
	assert_path("/proc/12/ns/net", netns_dir, &world.pod_b_id);

	assert_refused("b", netns_dir, ENOENT, "netns/b");
	assert_refused("none", netns_dir, EINVAL, "not a network namespace");
	assert_refused("host", netns_dir, EPERM, "the host's own");
	assert_refused("../12/ns/net", netns_dir, EINVAL, "..");
	assert_refused("/run/netns/../../x", netns_dir, EINVAL, "..");
	assert_refused("", netns_dir, EINVAL, "expected");
}

/* Below the root of the host's process 1, with links that are absolute there. */
static void paths_below_the_hosts_root(void **state __attribute__((unused)))
{
	char root[128];
	snprintf(root, sizeof root, "%s/1/root", world.proc);
	run("mkdir -p %s/data/netns && ln -s /data %s/absolute && touch %s/data/netns/a", root, root, root);
	assert_int_equal(unshare(CLONE_NEWNS), 0);
	assert_int_equal(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	char source[64], target[256];
	snprintf(source, sizeof source, "/proc/self/fd/%d", world.pod_a);
	snprintf(target, sizeof target, "%s/data/netns/a", root);
	assert_int_equal(mount(source, target, NULL, MS_BIND, NULL), 0);
	assert_path("/data/netns/a", "/nowhere", &world.pod_a_id);
	assert_path("/absolute/netns/a", "/nowhere", &world.pod_a_id);
	assert_refused("/data/netns/b", "/nowhere", ENOENT, "on the host");
	umount(target);

	/* No process 1 to see: the path as it stands. */
	forget_processes();
	char own[128];
	snprintf(own, sizeof own, "%s/n", world.proc);
	run("ln -s /proc/%d/fd/%d %s", (int)getpid(), world.pod_a, own);
	assert_path(own, "/nowhere", &world.pod_a_id);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_layout),
		TEST(what_names_no_pod),
		TEST(many_wishes_with_one_scan),
		TEST(the_hosts_namespace_is_no_pods),
		TEST(a_stranger_in_the_cgroup_is_not_taken),
		TEST(the_oldest_process_decides),
		TEST(many_namespaces_of_one_pod),
		TEST(without_an_address_nothing_is_proven),
		TEST(processes_that_vanish_or_are_hidden),
		TEST(a_proc_that_can_not_be_read),
		TEST(a_real_process_in_a_real_cgroup),
		TEST(addresses_of_a_namespace),
		TEST(paths_of_annotations),
		TEST(paths_below_the_hosts_root),
	};
	/* The machine's own network is never the test's. */
	if (unshare(CLONE_NEWNET) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
