/* Memory that runs out: each allocation of a whole life of a redirection, and of a message's way, fails in turn. The work then
 * fails with ENOMEM and leaves nothing, or needed that allocation for nothing; it is never half done and never crashes.
 *
 * malloc and its kin are this program's own, so that the libraries' allocations count too. Under the address sanitizer they are
 * the sanitizer's: there each piece of work is done once, and the sanitizer looks for what is lost. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "ambient/wire.h"

static long countdown; /* the allocation that fails; 0: none */
static long balance;   /* allocations that were not freed, while counting */
static bool is_counting;

#ifdef __SANITIZE_ADDRESS__
#define FIRST_FAILURE 1000000
#else
#define FIRST_FAILURE 1

/* The C library's own, by the names that it keeps for this purpose. */
void *__libc_malloc(size_t size);		// NOLINT
void *__libc_calloc(size_t count, size_t size); // NOLINT
void *__libc_realloc(void *old, size_t size);	// NOLINT
void __libc_free(void *memory);			// NOLINT

// The C library's names of the arguments are reserved ones.
// NOLINTBEGIN(readability-inconsistent-declaration-parameter-name)
static bool fails(void)
{
	return is_counting && countdown > 0 && --countdown == 0;
}

void *malloc(size_t size)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	void *memory = __libc_malloc(size);
	balance += is_counting && memory;
	return memory;
}

void *calloc(size_t count, size_t size)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	void *memory = __libc_calloc(count, size);
	balance += is_counting && memory;
	return memory;
}

void *realloc(void *old, size_t size)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	void *memory = __libc_realloc(old, size);
	balance += is_counting && !old && memory;
	return memory;
}

void *reallocarray(void *old, size_t count, size_t size)
{
	size_t bytes;
	if (__builtin_mul_overflow(count, size, &bytes)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(old, bytes);
}

void free(void *memory)
{
	balance -= is_counting && memory;
	__libc_free(memory);
}
// NOLINTEND(readability-inconsistent-declaration-parameter-name)
#endif

static const char *const configuration =
	"{\"virtualInterfaces\":[\"eth7\",\"eth8\"],\"existingConnections\":\"reset\",\"exclude\":{\"outboundPorts\":[1,\"5-"
	"9\"],"
	"\"inboundPorts\":[2],\"interfaces\":[\"eth9\"],\"outboundRanges\":[\"10.0.0.0/8\",\"fd00::/8\"]}}";

static int read_configuration(struct error *error, struct redirect *redirect)
{
	cleanup_cjson cJSON *json = NULL;
	redirect_init(redirect);
	if (json_parse(configuration, strlen(configuration), 4096, "configuration", error, &json) < 0)
		return -1;
	return redirect_from_json(json, "redirect", error, redirect);
}

/* Apply, look, count, render, change, remove: what could not be done for want of memory is told, and taken back. */
static int live(int netns, struct error *error)
{
	cleanup_redirect struct redirect redirect;
	cleanup_redirect struct redirect copy = { 0 };
	cleanup_redirect_session struct redirect_session *session = NULL;
	cleanup_free char *text = NULL;
	struct redirect_difference difference;
	struct redirect_counters counters;
	if (read_configuration(error, &redirect) < 0 || redirect_copy(&redirect, error, &copy) < 0 ||
	    redirect_render(&redirect, REDIRECT_STAGE_FULL, error, &text) < 0 ||
	    redirect_session_open(netns, error, &session) < 0)
		return -1;
	if (redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, error) < 0)
		return -1;
	if (redirect_verify(session, &copy, REDIRECT_STAGE_FULL, error, &difference) < 0 ||
	    redirect_read_counters(session, error, &counters) < 0 ||
	    redirect_apply(session, &redirect, REDIRECT_STAGE_GUARD, error) < 0 || redirect_remove(session, error) < 0) {
		/* What was there before a call that failed stays: now there is memory again. */
		countdown = 0;
		if (redirect_remove(session, NULL) < 0)
			fail_msg("nothing could be removed");
		return -1;
	}
	if (difference.text[0] != '\0')
		fail_msg("an allocation that failed was not told, but \"%s\"", difference.text);
	return 0;
}

static const char *const nothing_stands = "test -z \"$(nft list ruleset)\" && ! ip rule | grep -q 0x111 && "
					  "! ip -6 rule | grep -q 0x111 && test -z \"$( (ip route show table 100; ip -6 route "
					  "show table 100) 2>/dev/null)\"";

static void a_life_with_one_allocation_less(void **state)
{
	(void)state;
	cleanup_close int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	/* A visit comes back here. */
	cleanup_close int netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_int_equal(system("ip link set lo up"), 0);

	int result = -1;
	long number = FIRST_FAILURE - 1, failures = 0;
	while (result < 0) {
		struct error error = { 0 };
		number++;
		countdown = number;
		balance = 0;
		is_counting = true;
		result = live(netns, &error);
		is_counting = false;
		if (result < 0) {
			failures++;
			if (error.number != ENOMEM && !strstr(error.message, "memory"))
				fail_msg("allocation %ld: \"%s\" does not say that memory is missing", number, error.message);
		}
		if (balance != 0)
			fail_msg("allocation %ld: %ld were not freed", number, balance);
		/* The look costs 30 ms: at each of the first, where an apply fails half way, then at some. */
		if (number % 16 == 0 && system(nothing_stands) != 0)
			fail_msg("allocation %ld: something is left", number);
		/* Where every allocation of a life was passed, it succeeds with a countdown that is not over. */
		if (result == 0 && countdown == 0)
			result = -1;
	}
	assert_true(failures > 100 || FIRST_FAILURE > 1);
	assert_int_equal(system(nothing_stands), 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
}

static int go_and_come(struct error *error)
{
	char *addresses[] = { "10.0.0.1", "fd00::1" };
	struct wire_message message = {
		.kind = WIRE_ADD,
		.attachment = { .network = "n",
				.container_id = "c",
				.interface = "i",
				.netns_path = "/p",
				.pod_namespace = "ns",
				.pod_name = "pod",
				.pod_uid = "u",
				.netns = { 1, 2 },
				.addresses = addresses,
				.addresses_count = 2,
				.is_enrolled = true },
		.log = "a line",
	};
	cleanup_redirect struct redirect redirect;
	cleanup_free char *text = NULL, *decision_text = NULL;
	cleanup_wire_message struct wire_message back = { 0 }, decision_back = { 0 };
	if (read_configuration(error, &redirect) < 0)
		return -1;
	struct wire_message decision = { .kind = WIRE_DECISION, .redirect = redirect, .reason = "a label" };
	message.attachment.redirect = redirect;
	if (wire_encode(&message, error, &text) < 0 || wire_decode(text, strlen(text), error, &back) < 0 ||
	    wire_encode(&decision, error, &decision_text) < 0 ||
	    wire_decode(decision_text, strlen(decision_text), error, &decision_back) < 0)
		return -1;
	if (strcmp(back.attachment.pod_name, "pod") != 0 || back.attachment.addresses_count != 2 ||
	    !redirect_equal(&back.attachment.redirect, &redirect) || !redirect_equal(&decision_back.redirect, &redirect))
		fail_msg("an allocation that failed was not told, and the message is another");
	return 0;
}

static void a_message_with_one_allocation_less(void **state)
{
	(void)state;
	int result = -1;
	for (long number = FIRST_FAILURE; result < 0; number++) {
		struct error error = { 0 };
		countdown = number;
		balance = 0;
		is_counting = true;
		result = go_and_come(&error);
		is_counting = false;
		if (balance != 0)
			fail_msg("allocation %ld: %ld were not freed", number, balance);
		if (result == 0 && countdown == 0)
			result = -1;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_life_with_one_allocation_less),
		cmocka_unit_test(a_message_with_one_allocation_less),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
