/* Namespaces by descriptor: what is refused, and that a visit comes back and leaves no descriptor. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "tests/unit/process.h"

static struct netns_id own_id(void)
{
	struct stat status;
	assert_int_equal(stat("/proc/thread-self/ns/net", &status), 0);
	return (struct netns_id){ .device = status.st_dev, .inode = status.st_ino };
}

static void what_is_no_network_namespace_is_refused(void **state)
{
	(void)state;
	static const struct {
		const char *path;
		int number;
	} cases[] = {
		{ "/etc/passwd", EINVAL }, { "/proc/self/ns/uts", EINVAL }, { "/", EINVAL },
		{ "/dev/null", EINVAL },   { "/nonexistent/x", ENOENT },    { "", ENOENT },
	};
	int before = count_descriptors();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct error error = { 0 };
		int fd = -7;
		assert_int_equal(netns_open(cases[i].path, &error, &fd), -1);
		assert_int_equal(error.number, cases[i].number);
		assert_int_equal(fd, -7);
		assert_non_null(strstr(error.message, cases[i].path));
	}
	assert_int_equal(count_descriptors(), before);
}

static void own_namespace_is_refused(void **state)
{
	(void)state;
	struct error error = { 0 };
	cleanup_close int own = -1;
	assert_int_equal(netns_open("/proc/self/ns/net", &error, &own), 0);
	assert_int_equal(netns_refuse_own(own, &error), -1);
	assert_int_equal(error.number, EPERM);
	cleanup_close int other = make_namespace();
	assert_int_equal(netns_refuse_own(other, NULL), 0);
}

static void a_visit_comes_back(void **state)
{
	(void)state;
	struct netns_id home = own_id(), there, id;
	cleanup_close int other = make_namespace();
	int before = count_descriptors();
	assert_int_equal(netns_identify(other, NULL, &there), 0);
	{
		cleanup_netns_leave struct netns_visit visit = { .home = -1 };
		assert_int_equal(netns_enter(other, NULL, &visit), 0);
		id = own_id();
		assert_true(id.inode == there.inode && id.device == there.device);
	}
	id = own_id();
	assert_true(id.inode == home.inode && id.inode != there.inode);
	assert_int_equal(count_descriptors(), before);
}

static void a_socket_stays_inside(void **state)
{
	(void)state;
	cleanup_close int other = make_namespace();
	struct netns_id home = own_id(), id;
	int fd = -1;
	assert_int_equal(netns_socket(other, AF_INET, SOCK_STREAM, 0, NULL, &fd), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	id = own_id();
	assert_true(id.inode == home.inode);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_network_namespace_is_refused),
		cmocka_unit_test(own_namespace_is_refused),
		cmocka_unit_test(a_visit_comes_back),
		cmocka_unit_test(a_socket_stays_inside),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
