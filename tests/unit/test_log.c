/* Log lines: one write each, whole whatever is in them. */
#include "tests/unit/cmocka_headers.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/log.h"

/* Packets keep the boundaries of write(2). */
struct pair {
	int ends[2];
	struct log log;
};

static int open_pair(void **state)
{
	static struct pair pair;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair.ends) < 0)
		return -1;
	pair.log = (struct log){ .fd = pair.ends[1], .level = LOG_LEVEL_INFO, .program = "ambient-cni" };
	*state = &pair;
	return 0;
}

static int close_pair(void **state)
{
	struct pair *pair = *state;
	close(pair->ends[0]);
	close(pair->ends[1]);
	return 0;
}

/* The one line that was written, without its end; an empty string where none was. */
static const char *line_of(const struct pair *pair)
{
	static char text[8192];
	ssize_t got = recv(pair->ends[0], text, sizeof text - 1, 0);
	if (got <= 0)
		return "";
	assert_true(got <= 4096);
	assert_int_equal(text[got - 1], '\n');
	text[got - 1] = '\0';
	assert_null(strchr(text, '\n'));
	char more;
	assert_int_equal(recv(pair->ends[0], &more, 1, 0), -1);
	return text;
}

static void text_for_people(void **state)
{
	struct pair *pair = *state;
	const struct log_field fields[] = { { "pod", "shop/cart" }, { "why", "two words" }, { "none", NULL }, { NULL, NULL } };
	log_write(&pair->log, LOG_LEVEL_WARN, fields, "line %d\nof \x1b[31m two", 1);
	const char *line = line_of(pair);
	assert_int_equal(line[strlen("2026-01-01T00:00:00.000")], 'Z');
	assert_string_equal(strchr(line, '\t'), "\twarn\tline 1 of  [31m two pod=shop/cart why=\"two words\" none=\"\"");
}

static void json_for_machines(void **state)
{
	struct pair *pair = *state;
	const struct log_field fields[] = { { "pod", "shop/\"cart\"\\\n\t\x01" }, { NULL, NULL } };
	pair->log.format = LOG_FORMAT_JSON;
	log_write(&pair->log, LOG_LEVEL_ERROR, fields, "a \"quoted\" \\ message\r\n");
	const char *line = line_of(pair);
	cleanup_cjson cJSON *json = cJSON_Parse(line);
	assert_non_null(json);
	assert_string_equal(cJSON_GetObjectItem(json, "level")->valuestring, "error");
	assert_string_equal(cJSON_GetObjectItem(json, "program")->valuestring, "ambient-cni");
	assert_string_equal(cJSON_GetObjectItem(json, "msg")->valuestring, "a \"quoted\" \\ message\r\n");
	assert_string_equal(cJSON_GetObjectItem(json, "pod")->valuestring, "shop/\"cart\"\\\n\t\x01");
}

static void however_long_a_line_is_whole(void **state)
{
	struct pair *pair = *state;
	static char bytes[10000];
	for (size_t length = 0; length < sizeof bytes; length += 97) {
		for (int kind = 0; kind < 2; kind++) {
			memset(bytes, kind ? '\x02' : 'x', length);
			bytes[length] = '\0';
			const struct log_field fields[] = {
				{ "first", bytes }, { "second", bytes }, { "third", "3" }, { NULL, NULL }
			};
			pair->log.format = LOG_FORMAT_JSON;
			log_write(&pair->log, LOG_LEVEL_ERROR, fields, "%s", bytes);
			cleanup_cjson cJSON *json = cJSON_Parse(line_of(pair));
			assert_non_null(json);
			pair->log.format = LOG_FORMAT_TEXT;
			log_write(&pair->log, LOG_LEVEL_ERROR, fields, "%s", bytes);
			assert_true(strlen(line_of(pair)) > 0);
		}
	}
}

static void below_the_level_nothing(void **state)
{
	struct pair *pair = *state;
	log_write(&pair->log, LOG_LEVEL_DEBUG, NULL, "not wanted");
	assert_string_equal(line_of(pair), "");
	for (enum log_level level = LOG_LEVEL_DEBUG; level <= LOG_LEVEL_ERROR; level++) {
		enum log_level read = LOG_LEVEL_DEBUG;
		assert_int_equal(log_level_parse(log_level_name(level), NULL, &read), 0);
		assert_int_equal(read, level);
	}
	struct error error = { 0 };
	enum log_level untouched = LOG_LEVEL_WARN;
	assert_int_equal(log_level_parse("verbose", &error, &untouched), -1);
	assert_int_equal(untouched, LOG_LEVEL_WARN);
	assert_non_null(strstr(error.message, "expected debug, info, warn or error, found \"verbose\""));
}

static void an_error_on_the_way_is_nobodys(void **state)
{
	struct pair *pair = *state;
	cleanup_close int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct log log = { .fd = full, .level = LOG_LEVEL_INFO, .program = "p" };
	errno = EEXIST;
	log_write(&log, LOG_LEVEL_ERROR, NULL, "x");
	log.fd = -1;
	log_write(&log, LOG_LEVEL_ERROR, NULL, "x");
	assert_int_equal(errno, EEXIST);
	assert_string_equal(line_of(pair), "");
}

static const char *text_of(const struct pair *pair)
{
	const char *tab = strchr(line_of(pair), '\t');
	return tab ? tab + 1 : "";
}

static void no_line_twice_a_second(void **state)
{
	struct pair *pair = *state;
	const struct log_field fields[] = { { "pod", "shop/cart" }, { NULL, NULL } };
	const struct log_field others[] = { { "pod", "shop/till" }, { NULL, NULL } };
	pair->log.repeats = log_repeats_new();
	assert_non_null(pair->log.repeats);
	for (int i = 0; i < 5; i++) {
		log_write(&pair->log, LOG_LEVEL_WARN, fields, "put right in %d.%d ms: a rule", 10 + i, i);
		assert_string_equal(text_of(pair), i ? "" : "warn\tput right in 10.0 ms: a rule pod=shop/cart");
	}
	/* Another pod, another number, another level are other lines. */
	log_write(&pair->log, LOG_LEVEL_WARN, others, "put right in 1 ms: a rule");
	assert_string_equal(text_of(pair), "warn\tput right in 1 ms: a rule pod=shop/till");
	for (int i = 0; i < 3; i++) {
		log_write(&pair->log, LOG_LEVEL_ERROR, NULL, "port %d", i);
		assert_true(strstr(line_of(pair), "port"));
	}
	/* Decisions, and what is there to debug, are told each time. */
	pair->log.level = LOG_LEVEL_DEBUG;
	for (int i = 0; i < 2; i++) {
		log_write(&pair->log, LOG_LEVEL_INFO, fields, "in the mesh");
		assert_string_equal(text_of(pair), "info\tin the mesh pod=shop/cart");
		log_write(&pair->log, LOG_LEVEL_DEBUG, NULL, "looked");
		assert_string_equal(text_of(pair), "debug\tlooked");
		log_write(&pair->log, LOG_LEVEL_INFO, NULL, "ready");
		assert_string_equal(text_of(pair), i ? "" : "info\tready");
	}
	log_tell_repeats(&pair->log, false);
	assert_string_equal(line_of(pair), "");
	usleep(1050 * 1000);
	log_tell_repeats(&pair->log, false);
	char told[2][256];
	for (int i = 0; i < 2; i++) {
		char more[8192] = "";
		ssize_t got = recv(pair->ends[0], more, sizeof more - 1, 0);
		assert_true(got > 0);
		snprintf(told[i], sizeof told[i], "%s", strchr(more, '\t') + 1);
	}
	bool is_first = strstr(told[0], "put right");
	assert_string_equal(told[!is_first], "warn\tput right in 14.4 ms: a rule pod=shop/cart repeated=4\n");
	assert_string_equal(told[is_first], "info\tready repeated=1\n");
	/* The second begins anew with what was told; then nothing is held any more. */
	log_write(&pair->log, LOG_LEVEL_WARN, fields, "put right in 15 ms: a rule");
	assert_string_equal(line_of(pair), "");
	usleep(1050 * 1000);
	log_write(&pair->log, LOG_LEVEL_WARN, fields, "put right in 16 ms: a rule");
	assert_string_equal(text_of(pair), "warn\tput right in 16 ms: a rule pod=shop/cart repeated=2");
	log_write(&pair->log, LOG_LEVEL_WARN, NULL, "something else");
	assert_string_equal(text_of(pair), "warn\tsomething else");
	pair->log.format = LOG_FORMAT_JSON;
	log_repeats_free(pair->log.repeats);
	pair->log.repeats = log_repeats_new();
	for (int i = 0; i < 2; i++)
		log_write(&pair->log, LOG_LEVEL_WARN, fields, "again");
	assert_non_null(strstr(line_of(pair), "\"again\""));
	log_tell_repeats(&pair->log, true);
	cleanup_cjson cJSON *json = cJSON_Parse(line_of(pair));
	assert_string_equal(cJSON_GetObjectItem(json, "repeated")->valuestring, "1");
	assert_string_equal(cJSON_GetObjectItem(json, "pod")->valuestring, "shop/cart");
	log_repeats_free(pair->log.repeats);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, open_pair, close_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(text_for_people),
		TEST(json_for_machines),
		TEST(however_long_a_line_is_whole),
		TEST(below_the_level_nothing),
		TEST(an_error_on_the_way_is_nobodys),
		TEST(no_line_twice_a_second),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
