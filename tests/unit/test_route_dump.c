/* A dump of the kernel's that fails. The function is private, so its file is part of this program; a family that has no policy
 * rules at all stands for a kernel without IPv6. */
#include "tests/unit/cmocka_headers.h"

#include "lib/route_verify.c" // NOLINT(bugprone-suspicious-include)

static int look_at_nothing(const struct nlmsghdr *header, void *data)
{
	(void)header;
	(void)data;
	return 0;
}

static void a_family_that_the_kernel_lacks_is_told_from_one_without_rules(void **state)
{
	struct nl_sock *socket = NULL;
	(void)state;
	assert_int_equal(route_socket_open(NULL, &socket), 0);
	assert_int_equal(dump(socket, RTM_GETRULE, AF_INET, look_at_nothing, NULL), 0);
	int failed = dump(socket, RTM_GETRULE, AF_APPLETALK, look_at_nothing, NULL);
	assert_true(route_ipv6_is_missing(-failed));
	/* The socket is good for the next. */
	assert_int_equal(dump(socket, RTM_GETRULE, AF_INET, look_at_nothing, NULL), 0);
	route_socket_close(socket);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(a_family_that_the_kernel_lacks_is_told_from_one_without_rules) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
