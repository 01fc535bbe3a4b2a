/* ZDS: the bytes that the real tunnel sends and expects, and what is refused before it is sent. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <string.h>

#include "installer/tunnel/message.h"

static struct tunnel_workload example(void)
{
	return (struct tunnel_workload){
		.uid = "u1", .name = "cart", .namespace_name = "shop", .service_account = "sa", .netns = 3
	};
}

static void expect_bytes(const struct tunnel_message *message, const char *bytes, size_t length)
{
	assert_int_equal(message->length, length);
	assert_memory_equal(message->bytes, bytes, length);
}

static void requests_have_the_reference_bytes(void **state)
{
	(void)state;
	struct tunnel_message message;
	struct tunnel_workload workload = example();
	tunnel_encode_snapshot_sent(&message);
	expect_bytes(&message, "\x1a\x00", 2);
	assert_int_equal(tunnel_encode_add(&workload, NULL, &message), 0);
	expect_bytes(&message,
		     "\x0a\x16\x0a\x02u1\x12\x10\x0a\x04"
		     "cart\x12\x04shop\x1a\x02sa",
		     24);
	assert_int_equal(tunnel_encode_delete("u1", NULL, &message), 0);
	expect_bytes(&message, "\x12\x04\x12\x02u1", 6);
	assert_int_equal(tunnel_encode_keep("u1", NULL, &message), 0);
	expect_bytes(&message, "\x2a\x04\x0a\x02u1", 6);
}

static void no_request_is_larger_than_the_tunnel_reads(void **state)
{
	(void)state;
	struct tunnel_message message;
	char name[254], space[64], account[1000], uid[1100];
	memset(name, 'n', sizeof name - 1);
	memset(space, 's', sizeof space - 1);
	memset(account, 'a', sizeof account - 1);
	memset(uid, 'u', sizeof uid - 1);
	name[253] = space[63] = account[253] = uid[1099] = '\0';
	/* The longest names that Kubernetes has. */
	struct tunnel_workload workload = { .uid = "12345678-1234-1234-1234-123456789012",
					    .name = name,
					    .namespace_name = space,
					    .service_account = account,
					    .netns = 3 };
	assert_int_equal(tunnel_encode_add(&workload, NULL, &message), 0);

	account[253] = 'a';
	for (size_t length = 600; length < 700; length++) {
		struct error error = { 0 };
		account[length] = '\0';
		if (tunnel_encode_add(&workload, &error, &message) == 0) {
			assert_true(message.length <= 1024);
		} else {
			assert_int_equal(error.number, EMSGSIZE);
			assert_non_null(strstr(error.message, "at most 1024"));
			assert_true(length > 640);
		}
		account[length] = 'a';
	}
	struct error error = { 0 };
	assert_int_equal(tunnel_encode_delete(uid, &error, &message), -1);
	assert_int_equal(error.number, EMSGSIZE);
	assert_int_equal(tunnel_encode_keep(uid, NULL, &message), -1);
}

static void bad_names_are_refused(void **state)
{
	(void)state;
	struct tunnel_message message;
	static const char *const bad[] = { NULL, "", "a b", "caf\xc3\xa9", "a\n", "\xff" };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct error error = { 0 };
		struct tunnel_workload workload = example();
		workload.name = bad[i];
		assert_int_equal(tunnel_encode_add(&workload, &error, &message), -1);
		assert_int_equal(error.number, EINVAL);
		assert_non_null(strstr(error.message, "name"));
		workload = example();
		workload.namespace_name = bad[i];
		assert_int_equal(tunnel_encode_add(&workload, NULL, &message), -1);
		assert_int_equal(tunnel_encode_keep(bad[i], NULL, &message), -1);
		assert_int_equal(tunnel_encode_delete(bad[i], NULL, &message), -1);
	}
}

static int decode_hello(const char *bytes, size_t length, int *ret_version)
{
	return tunnel_decode_hello((const uint8_t *)bytes, length, NULL, ret_version);
}

static void hellos(void **state)
{
	(void)state;
	int version = 0;
	assert_int_equal(decode_hello("\x08\x01", 2, &version), 0);
	assert_int_equal(version, 1);
	/* A later tunnel: another version, a field more. */
	assert_int_equal(decode_hello("\x08\x02", 2, &version), 0);
	assert_int_equal(version, 2);
	assert_int_equal(decode_hello("\x08\x01\x7a\x01x", 5, &version), 0);
	version = 77;
	assert_int_equal(decode_hello("\x08\x00", 2, &version), -1);
	assert_int_equal(decode_hello("\x08", 1, &version), -1);
	assert_int_equal(decode_hello("GET / HTTP/1.1\r\n", 16, &version), -1);
	assert_int_equal(version, 77);
}

static void answers(void **state)
{
	(void)state;
	bool is_accepted = false;
	struct error refusal = { 0 };
	assert_int_equal(tunnel_decode_answer((const uint8_t *)"\x0a\x00", 2, NULL, &is_accepted, &refusal), 0);
	assert_true(is_accepted);
	assert_false(error_is_set(&refusal));
	assert_int_equal(tunnel_decode_answer((const uint8_t *)"\x0a\x06\x0a\x04"
							       "busy",
					      8, NULL, &is_accepted, &refusal),
			 0);
	assert_false(is_accepted);
	assert_int_equal(refusal.number, EREMOTEIO);
	assert_non_null(strstr(refusal.message, "busy"));
	static const struct {
		const char *bytes;
		size_t length;
	} bad[] = { { "\x12\x00", 2 }, { "\x0a\x05", 2 }, { "\x0a", 1 }, { "\xff\xff\xff", 3 } };
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct error error = { 0 };
		assert_int_equal(
			tunnel_decode_answer((const uint8_t *)bad[i].bytes, bad[i].length, &error, &is_accepted, &refusal), -1);
		assert_int_equal(error.number, EPROTO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_have_the_reference_bytes),
		cmocka_unit_test(no_request_is_larger_than_the_tunnel_reads),
		cmocka_unit_test(bad_names_are_refused),
		cmocka_unit_test(hellos),
		cmocka_unit_test(answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
