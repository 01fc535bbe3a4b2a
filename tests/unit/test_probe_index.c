/* What the probe sets should hold, and nothing longer than it is needed: an address that was given away is remembered as long
 * as the pod that had it still claims it. What pods and kernel see of it: test_probe_set.c. */
#include "tests/unit/cmocka_headers.h"

#include "installer/probes/probe_index.h"

static struct pod_address parse(const char *text)
{
	struct pod_address address;
	assert_true(pod_address_parse(text, &address));
	return address;
}

static void claim(struct probe_index *index, const char *uid, const char *text)
{
	struct pod_address address = parse(text);
	bool changes = false;
	assert_int_equal(probe_index_claim(index, uid, &address, 1, NULL, &changes), 0);
	probe_index_settle(index);
}

static bool knows(struct probe_index *index, const char *text)
{
	struct pod_address address = parse(text);
	probe_index_settle(index);
	return probe_index_find(index, &address) != NULL;
}

static void what_was_given_away_is_forgotten_with_the_last_claim(void **state __attribute__((unused)))
{
	struct pod_address address = parse("10.0.0.1");
	for (int way = 0; way < 3; way++) {
		struct probe_index index = { 0 };
		claim(&index, "old", "10.0.0.1");
		assert_true(probe_index_give_away(&index, "outside", &address));
		claim(&index, "old", "10.0.0.1");
		assert_true(knows(&index, "10.0.0.1"));
		assert_false(probe_index_owns(&index, "old", &address));
		if (way == 0)
			claim(&index, "old", "10.0.0.2");
		else if (way == 1)
			assert_true(probe_index_release(&index, "old"));
		else
			assert_int_equal(probe_index_claim(&index, "old", NULL, 0, NULL, &(bool){ false }), 0);
		assert_false(knows(&index, "10.0.0.1"));
		assert_int_equal(knows(&index, "10.0.0.2"), way == 0);
		probe_index_clear(&index);
	}
}

/* Its late end takes nothing from the one that has the address by now. */
static void what_another_pod_has_stays(void **state __attribute__((unused)))
{
	struct pod_address address = parse("fd00::1");
	struct probe_index index = { 0 };
	claim(&index, "old", "fd00::1");
	claim(&index, "new", "fd00::1");
	claim(&index, "old", "fd00::2");
	assert_true(probe_index_owns(&index, "new", &address));
	assert_true(probe_index_release(&index, "old"));
	assert_false(probe_index_release(&index, "old"));
	assert_true(probe_index_owns(&index, "new", &address));
	assert_false(knows(&index, "fd00::2"));
	assert_true(probe_index_release(&index, "new"));
	assert_false(knows(&index, "fd00::1"));
	probe_index_clear(&index);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_given_away_is_forgotten_with_the_last_claim),
		cmocka_unit_test(what_another_pod_has_stays),
	};
	return cmocka_run_group_tests_name("probe index", tests, NULL, NULL);
}
