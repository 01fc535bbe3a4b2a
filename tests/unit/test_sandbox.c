/* What is open in a pod's network namespace is closed late, and all of it by one clock: nothing waits for the kernel then. In a
 * namespace of the test's own; nft(8) is somebody else. */
#include "tests/unit/cmocka_headers.h"

#include <dirent.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "ambient/nft.h"
#include "installer/mesh/state.h"

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s failed", command);
}

static int count_descriptors(void)
{
	int count = 0;
	DIR *directory = opendir("/proc/self/fd");
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void nothing(evutil_socket_t fd __attribute__((unused)), short what __attribute__((unused)),
		    void *data __attribute__((unused)))
{
}

struct node {
	struct mesh mesh;
	struct mesh_pod pod;
	int descriptors; /* before anything is held */
};

static int set_up(void **state)
{
	struct node *node = calloc(1, sizeof *node);
	if (!node || unshare(CLONE_NEWNET) < 0)
		return -1;
	node->mesh.base = event_base_new();
	node->mesh.run = event_new(node->mesh.base, -1, 0, nothing, NULL);
	node->mesh.close = event_new(node->mesh.base, -1, 0, sandbox_close_due, &node->mesh);
	TAILQ_INIT(&node->mesh.closings);
	TAILQ_INIT(&node->mesh.queue);
	node->pod = (struct mesh_pod){ .mesh = &node->mesh, .sandbox = { .netns = -1 } };
	redirect_init(&node->pod.sandbox.in_force);
	node->descriptors = count_descriptors();
	struct error error = { 0 };
	cleanup_close int netns = -1;
	if (netns_open("/proc/thread-self/ns/net", &error, &netns) < 0 || sandbox_hold_unseen(&node->pod, netns, &error) < 0 ||
	    nft_socket_open(&error, &node->pod.sandbox.taken_over) < 0)
		fail_msg("%s", error.message);
	*state = node;
	return 0;
}

static int tear_down(void **state)
{
	struct node *node = *state;
	sandbox_forget(&node->pod);
	sandbox_close_all(&node->mesh);
	event_free(node->mesh.run);
	event_free(node->mesh.close);
	event_base_free(node->mesh.base);
	free(node);
	return 0;
}

static void turn(struct mesh *mesh, int milliseconds)
{
	const struct timeval time = { .tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000 };
	event_base_loopexit(mesh->base, &time);
	event_base_dispatch(mesh->base);
}

static void what_is_let_go_is_closed_late_and_tells_nothing(void **state)
{
	struct node *node = *state;
	int held = count_descriptors();
	sandbox_let_go(&node->pod);
	/* The namespace, and the watch of routes: what nftables was spoken by waits. */
	assert_int_equal(count_descriptors(), held - 2);
	run("nft add table inet somebody");
	turn(&node->mesh, 200);
	assert_false(node->pod.sandbox.is_suspect);
	assert_int_equal(count_descriptors(), held - 2);
	double began = clock_seconds();
	while (count_descriptors() > node->descriptors && clock_seconds() < began + 20)
		turn(&node->mesh, 50);
	assert_int_equal(count_descriptors(), node->descriptors);
	assert_true(TAILQ_EMPTY(&node->mesh.closings));
}

/* A mesh that goes leaves nobody to close them later. */
static void all_that_waits_can_be_closed_at_once(void **state)
{
	struct node *node = *state;
	sandbox_let_go(&node->pod);
	sandbox_close_all(&node->mesh);
	assert_int_equal(count_descriptors(), node->descriptors);
	sandbox_let_go(&node->pod);
	assert_true(TAILQ_EMPTY(&node->mesh.closings));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_is_let_go_is_closed_late_and_tells_nothing),
		TEST(all_that_waits_can_be_closed_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
