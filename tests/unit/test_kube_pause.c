/* Pauses between two tries: they grow up to a bound, never end before a server wants it, and those of a thousand nodes that
 * begin at the same moment are spread over half of their length: an API server that returns is not asked by all of them at
 * once. */
#include "tests/unit/cmocka_headers.h"

#include <stdlib.h>

#include "installer/kube/pause.h"

#define NODES 1000
#define TENTHS 10

/* Draws a pause for each node: all lie within the bounds, and no tenth of the time between them has more than twice its share.
 */
static void assert_spread(int64_t (*draw)(void *data), void *data, int64_t least, int64_t most)
{
	unsigned tenths[TENTHS] = { 0 };
	for (int node = 0; node < NODES; node++) {
		int64_t pause = draw(data);
		assert_in_range(pause, least, most);
		tenths[(pause - least) * TENTHS / (most - least + 1)]++;
	}
	for (int i = 0; i < TENTHS; i++)
		assert_in_range(tenths[i], 1, 2 * NODES / TENTHS);
}

static int64_t after_failures(void *data)
{
	return kube_pause(500, 60, *(unsigned *)data);
}

static int64_t as_asked(void *data)
{
	return kube_pause_as_asked(*(unsigned *)data);
}

static void failed_tries(void **state)
{
	(void)state;
	for (unsigned failures = 0; failures < 6; failures++)
		assert_spread(after_failures, &failures, 250 << failures, 500 << failures);
	/* 500 ms, doubled, would be 32 s by now and overflow later. */
	for (unsigned failures = 6; failures < 1000; failures += 71)
		assert_spread(after_failures, &failures, 15000, 30000);
}

static void a_server_asks_for_a_pause(void **state)
{
	unsigned milliseconds = 4000;
	(void)state;
	assert_spread(as_asked, &milliseconds, 4000, 5000);
	assert_int_equal(kube_pause_as_asked(0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failed_tries),
		cmocka_unit_test(a_server_asks_for_a_pause),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
