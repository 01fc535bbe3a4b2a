/* The folder source on a real event loop and a directory of its own: what the listener is told, word for word, while files are
 * written, renamed, broken, mended and removed. */
#include "tests/unit/cmocka_headers.h"

#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "installer/folder/folder.h"

#define WAIT_MS 5000
/* Long enough for what must not happen to happen. */
#define QUIET_MS 60

struct fixture {
	struct event_base *base;
	struct source source;
	char directory[64]; /* the test's own */
	char folder[80];    /* in it, what the source watches */
	char log[1 << 16];
	int puts_until_refusal; /* 0: none is refused */
};

static void append(struct fixture *fixture, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void append(struct fixture *fixture, const char *format, ...)
{
	size_t length = strlen(fixture->log);
	va_list arguments;
	va_start(arguments, format);
	int added = vsnprintf(fixture->log + length, sizeof fixture->log - length, format, arguments);
	va_end(arguments);
	assert_true((size_t)added < sizeof fixture->log - length);
}

static const char *kind_name(enum source_kind kind)
{
	return kind == SOURCE_POD ? "Pod" : "Namespace";
}

static const char *get(const cJSON *object, const char *group, const char *key)
{
	const char *text =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, group), key));
	return text ? text : "";
}

static void append_object(struct fixture *fixture, enum source_kind kind, const cJSON *object)
{
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(object, "metadata");
	const char *namespace_name = get(object, "metadata", "namespace"), *version = get(metadata, "labels", "v");
	append(fixture, "%s %s%s%s%s%s\n", kind_name(kind), namespace_name, namespace_name[0] ? "/" : "",
	       get(object, "metadata", "name"), version[0] ? " v" : "", version);
}

static void list_started(void *data, enum source_kind kind)
{
	append(data, "list %s\n", kind_name(kind));
}

static bool put(void *data, enum source_kind kind, const cJSON *object)
{
	struct fixture *fixture = data;
	append(data, "+");
	append_object(data, kind, object);
	assert_true(get(object, "metadata", "uid")[0] != '\0');
	if (fixture->puts_until_refusal == 0 || --fixture->puts_until_refusal > 0)
		return true;
	append(data, "refused\n");
	return false;
}

static void gone(void *data, enum source_kind kind, const cJSON *object)
{
	append(data, "-");
	append_object(data, kind, object);
}

static void list_finished(void *data, enum source_kind kind)
{
	append(data, "end %s\n", kind_name(kind));
}

/* The folder's path is written as DIR. */
static void trouble(void *data, enum source_kind kind, const char *reason)
{
	struct fixture *fixture = data;
	if (kind == SOURCE_NAMESPACE) /* the same, but for duplicates */
		return;
	if (!reason) {
		append(fixture, "well\n");
		return;
	}
	append(fixture, "trouble: ");
	for (const char *at = reason; *at;) {
		bool is_path = strncmp(at, fixture->folder, strlen(fixture->folder)) == 0;
		append(fixture, "%.*s", is_path ? 3 : 1, is_path ? "DIR" : at);
		at += is_path ? strlen(fixture->folder) : 1;
	}
	append(fixture, "\n");
}

static void start(struct fixture *fixture)
{
	struct error error = { 0 };
	const struct source_listener listener = { list_started, put, gone, list_finished, trouble, fixture };
	if (folder_source_new(fixture->base, fixture->folder, "node-1", &listener, &error, &fixture->source) < 0)
		fail_msg("%s", error.message);
	assert_string_equal(fixture->log, ""); /* never from inside a function of the source */
}

static int set_up(void **state)
{
	struct fixture *fixture = calloc(1, sizeof *fixture);
	fixture->base = event_base_new();
	strcpy(fixture->directory, "/tmp/ambient-folder-XXXXXX");
	assert_non_null(mkdtemp(fixture->directory));
	snprintf(fixture->folder, sizeof fixture->folder, "%s/objects", fixture->directory);
	assert_int_equal(mkdir(fixture->folder, 0755), 0);
	*state = fixture;
	return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
	(void)status;
	(void)type;
	(void)walk;
	return remove(path);
}

static void remove_tree(const char *path)
{
	assert_int_equal(nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	if (fixture->source.free)
		fixture->source.free(fixture->source.self);
	event_base_free(fixture->base);
	remove_tree(fixture->directory);
	free(fixture);
	return 0;
}

static long now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void run(struct fixture *fixture, long milliseconds)
{
	const struct timeval time = { .tv_usec = milliseconds * 1000 };
	event_base_loopexit(fixture->base, &time);
	event_base_dispatch(fixture->base);
}

/* Runs until the listener was told this, and then a little longer: it is told no more. */
static void expect(struct fixture *fixture, const char *expected)
{
	long deadline = now_ms() + WAIT_MS;
	while (strcmp(fixture->log, expected) != 0 && now_ms() < deadline)
		run(fixture, 5);
	run(fixture, QUIET_MS);
	assert_string_equal(fixture->log, expected);
	fixture->log[0] = '\0';
}

static char *path_of(struct fixture *fixture, const char *name, char path[256])
{
	snprintf(path, 256, "%s/%s", fixture->folder, name);
	return path;
}

static void write_file(struct fixture *fixture, const char *name, const char *text)
{
	char path[256];
	cleanup_close int fd = open(path_of(fixture, name, path), O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void remove_file(struct fixture *fixture, const char *name)
{
	char path[256];
	assert_int_equal(unlink(path_of(fixture, name, path)), 0);
}

static void rename_file(struct fixture *fixture, const char *from, const char *to)
{
	char from_path[256], to_path[256];
	assert_int_equal(rename(path_of(fixture, from, from_path), path_of(fixture, to, to_path)), 0);
}

#define NAMESPACE(name) "{kind: Namespace, metadata: {name: " name ", uid: uid-" name "}}\n"
#define POD(namespace, name, version)                                                                                          \
	"{kind: Pod, metadata: {namespace: " namespace ", name: " name ", uid: uid-" name ", labels: {v: '" version "'}}}\n"
#define EMPTY_LISTS "list Namespace\nend Namespace\nlist Pod\nend Pod\n"

static void the_first_list_has_everything(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "b.yaml",
		   "apiVersion: v1\nkind: Pod\nmetadata:\n  name: cart\n  namespace: shop\n  labels: {v: '1'}\n---\n---\n"
		   "kind: Namespace\nmetadata:\n  name: shop\n");
	write_file(fixture, "a.json",
		   "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":"
		   "{\"name\":\"web\",\"namespace\":\"shop\",\"labels\":{\"v\":\"\\ud83d\\ude00\"}}},{\"kind\":\"Service\"}]}");
	write_file(fixture, "c.yml",
		   "kind: PodList\napiVersion: v1\nitems:\n- metadata: {name: db, namespace: data}\n---\n"
		   "kind: NamespaceList\nitems:\n- {metadata: {name: data}}\n---\nkind: List\nitems: null\n");
	write_file(fixture, "empty.yaml", "");
	write_file(fixture, "other.yaml", "apiVersion: metrics.example/v1\nkind: Pod\n---\nkind: ConfigMap\n");
	write_file(fixture, ".hidden.yaml", "not: [yaml\n");
	write_file(fixture, "readme.txt", "not: [yaml\n");
	write_file(fixture, "x.yaml~", "not: [yaml\n");
	start(fixture);
	expect(fixture, "list Namespace\n+Namespace data\n+Namespace shop\nend Namespace\n"
			"list Pod\n+Pod data/db\n+Pod shop/cart v1\n+Pod shop/web v\U0001f600\nend Pod\n");
}

static void only_differences_are_told(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "a.yaml", NAMESPACE("shop") "---\n" POD("shop", "a", "1") "---\n" POD("shop", "b", "1"));
	start(fixture);
	expect(fixture, "list Namespace\n+Namespace shop\nend Namespace\nlist Pod\n+Pod shop/a v1\n+Pod shop/b v1\nend Pod\n");
	write_file(fixture, "a.yaml", NAMESPACE("shop") "---\n" POD("shop", "a", "1") "---\n" POD("shop", "b", "2"));
	expect(fixture, "+Pod shop/b v2\n");
	/* The same in other words, at another place. */
	write_file(fixture, "a.yaml",
		   "# comment\n" POD("shop", "b", "2") "---\n" POD("shop", "a", "1") "---\n" NAMESPACE("shop"));
	expect(fixture, "");
	write_file(fixture, "a.yaml", POD("shop", "c", "1"));
	expect(fixture, "-Namespace shop\n-Pod shop/a v1\n-Pod shop/b v2\n+Pod shop/c v1\n");
	/* From one file into another. */
	write_file(fixture, "b.yaml", POD("shop", "d", "1"));
	expect(fixture, "+Pod shop/d v1\n");
	rename_file(fixture, "b.yaml", "c.yaml");
	expect(fixture, "");
	remove_file(fixture, "c.yaml");
	expect(fixture, "-Pod shop/d v1\n");
	/* A successor of the same name. */
	write_file(fixture, "a.yaml",
		   "{kind: Pod, metadata: {namespace: shop, name: c, uid: other}, status: {phase: Running}}");
	expect(fixture, "-Pod shop/c v1\n+Pod shop/c\n");
	/* Bookkeeping that concerns nobody. */
	write_file(fixture, "a.yaml",
		   "{kind: Pod, metadata: {namespace: shop, name: c, uid: other, managedFields: [{}]},"
		   " status: {phase: Running, conditions: [1]}}");
	expect(fixture, "");
}

/* For want of memory. What was told is listed anew, else the refused one would be taken for gone. */
static void what_is_refused_is_listed_again(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "a.yaml", NAMESPACE("shop") "---\n" POD("shop", "a", "1") "---\n" POD("shop", "b", "1"));
	fixture->puts_until_refusal = 2;
	start(fixture);
	expect(fixture, "list Namespace\n+Namespace shop\nend Namespace\nlist Pod\n+Pod shop/a v1\nrefused\n"
			"list Namespace\n+Namespace shop\nend Namespace\nlist Pod\n+Pod shop/a v1\n+Pod shop/b v1\nend Pod\n");
	fixture->puts_until_refusal = 1;
	write_file(fixture, "a.yaml", NAMESPACE("shop") "---\n" POD("shop", "b", "2") "---\n" POD("shop", "c", "1"));
	expect(fixture, "-Pod shop/a v1\n+Pod shop/b v2\nrefused\n"
			"list Namespace\n+Namespace shop\nend Namespace\nlist Pod\n+Pod shop/b v2\n+Pod shop/c v1\nend Pod\n");
}

static void a_file_that_is_being_written_is_left_alone(void **state)
{
	struct fixture *fixture = *state;
	const char *text = POD("shop", "a", "2") "---\n" POD("shop", "b", "2");
	char path[256];
	write_file(fixture, "a.yaml", POD("shop", "a", "1") "---\n" POD("shop", "b", "1"));
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\n+Pod shop/b v1\nend Pod\n");
	for (int round = 0; round < 2; round++) {
		/* In place, or as a new file: empty for a while, then half (which is YAML with one pod less), then whole. */
		if (round == 1) {
			remove_file(fixture, "a.yaml");
			text = POD("shop", "a", "3") "---\n" POD("shop", "b", "3");
		}
		int fd = open(path_of(fixture, "a.yaml", path), O_WRONLY | O_CREAT | O_TRUNC, 0644);
		assert_true(fd >= 0);
		expect(fixture, "");
		size_t half = (size_t)(strstr(text, "---") - text);
		assert_int_equal(write(fd, text, half), (ssize_t)half);
		expect(fixture, "");
		assert_int_equal(write(fd, text + half, strlen(text) - half), (ssize_t)(strlen(text) - half));
		close(fd);
		expect(fixture, round == 0 ? "+Pod shop/a v2\n+Pod shop/b v2\n" : "+Pod shop/a v3\n+Pod shop/b v3\n");
	}
}

/* A descriptor that stays open does not hide what was written. */
static void a_file_that_stays_open_is_read_when_quiet(void **state)
{
	struct fixture *fixture = *state;
	const char *text = POD("shop", "a", "1");
	char path[256];
	start(fixture);
	expect(fixture, EMPTY_LISTS);
	cleanup_close int fd = open(path_of(fixture, "a.yaml", path), O_WRONLY | O_CREAT, 0644);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	expect(fixture, "+Pod shop/a v1\n");
}

static void a_broken_file_keeps_its_objects(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\n");
	write_file(fixture, "a.yaml", "kind: Pod\nmetadata:\n  name: a\n  name: b\n");
	expect(fixture, "trouble: DIR/a.yaml, line 4: the key \"name\" is there already, on line 3\n");
	write_file(fixture, "b.yaml", "[1]");
	expect(fixture, "trouble: DIR/a.yaml, line 4: the key \"name\" is there already, on line 3 (and 1 more)\n");
	/* The others go on. */
	write_file(fixture, "c.yaml", POD("shop", "c", "1"));
	expect(fixture, "+Pod shop/c v1\n");
	remove_file(fixture, "b.yaml");
	expect(fixture, "trouble: DIR/a.yaml, line 4: the key \"name\" is there already, on line 3\n");
	write_file(fixture, "a.yaml", POD("shop", "a", "2"));
	expect(fixture, "+Pod shop/a v2\nwell\n");
	write_file(fixture, "a.yaml", "a: [");
	run(fixture, 20);
	fixture->log[0] = '\0';
	remove_file(fixture, "a.yaml");
	expect(fixture, "-Pod shop/a v2\nwell\n");
}

static void no_list_is_finished_before_every_file_was_read(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	write_file(fixture, "b.yaml", "kind: Pod\nmetadata: {name: b}\n");
	start(fixture);
	expect(fixture, "trouble: DIR/b.yaml, line 1: a Pod without metadata.namespace\n");
	write_file(fixture, "b.yaml", POD("shop", "b", "1"));
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\n+Pod shop/b v1\nend Pod\nwell\n");
}

static const char *const broken[][2] = {
	{ "a text", "line 1: expected a Kubernetes object, found a string" },
	{ "---\n- a: 1\n", "line 2: expected a Kubernetes object, found a list" },
	{ "a: 1\n", "line 1: an object without kind, expected Namespace, Pod or List" },
	{ "kind: [Pod]\n", "line 1: an object without kind" },
	{ "kind: Namespace\nmetadata:\n  name: 7\n", "line 3: a Namespace without metadata.name" },
	{ "kind: Pod\nmetadata: {name: '', namespace: x}\n", "line 2: a Pod without metadata.name" },
	{ "kind: Pod\nmetadata:\n  name: a\n  namespace:\n", "line 4: a Pod without metadata.namespace" },
	{ "kind: Pod\nmetadata:\n  name: a\n  namespace: b\n  uid: 12\n", "line 5: metadata.uid: expected a string" },
	{ "kind: List\nitems: {}\n", "line 2: items: expected a list" },
	{ "kind: List\nitems:\n- kind: Pod\n- 1\n", "line 3: a Pod without metadata.name" },
	{ "kind: List\nitems:\n- 1\n", "line 3: expected a Kubernetes object, found a number" },
	{ "{\"kind\":\"Pod\",\"x\":\"\\ud83d\\ude00\"}", "DIR/a.yaml: a Pod without metadata.name" },
};

static void what_is_wrong_with_an_object_is_said(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "a.yaml", "");
	start(fixture);
	expect(fixture, EMPTY_LISTS);
	for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
		write_file(fixture, "a.yaml", broken[i][0]);
		long deadline = now_ms() + WAIT_MS;
		while (!strstr(fixture->log, broken[i][1]) && now_ms() < deadline)
			run(fixture, 2);
		if (!strstr(fixture->log, broken[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", broken[i][0], fixture->log, broken[i][1]);
		write_file(fixture, "a.yaml", "");
		while (!strstr(fixture->log, "well\n") && now_ms() < deadline)
			run(fixture, 2);
		fixture->log[0] = '\0';
	}
}

static void the_folder_may_come_and_go(void **state)
{
	struct fixture *fixture = *state;
	char away[80];
	snprintf(fixture->folder, sizeof fixture->folder, "%s/deep/er/objects", fixture->directory);
	snprintf(away, sizeof away, "%s/away", fixture->directory);
	start(fixture);
	expect(fixture, "trouble: cannot read the folder DIR: No such file or directory\n");
	char above[80];
	snprintf(above, sizeof above, "%s/deep", fixture->directory);
	assert_int_equal(mkdir(above, 0755), 0);
	expect(fixture, "");
	strcat(above, "/er");
	assert_int_equal(mkdir(above, 0755), 0);
	assert_int_equal(mkdir(fixture->folder, 0755), 0);
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\nwell\n");

	/* Moved away as a whole: we know nothing, so nothing goes. */
	assert_int_equal(rename(fixture->folder, away), 0);
	expect(fixture, "trouble: cannot read the folder DIR: No such file or directory\n");
	assert_int_equal(rename(away, fixture->folder), 0);
	expect(fixture, "well\n");
	/* Another one in its place. */
	assert_int_equal(rename(fixture->folder, away), 0);
	assert_int_equal(mkdir(fixture->folder, 0755), 0);
	write_file(fixture, "b.yaml", POD("shop", "b", "1"));
	expect(fixture, "-Pod shop/a v1\n+Pod shop/b v1\n");
	/* Its files are watched. */
	write_file(fixture, "b.yaml", POD("shop", "b", "2"));
	expect(fixture, "+Pod shop/b v2\n");
	/* Removed file by file: those are gone. */
	remove_tree(fixture->folder);
	expect(fixture, "-Pod shop/b v2\ntrouble: cannot read the folder DIR: No such file or directory\n");
	remove_tree(above);
	expect(fixture, "");
	assert_int_equal(mkdir(above, 0755), 0);
	assert_int_equal(mkdir(fixture->folder, 0755), 0);
	write_file(fixture, "b.yaml", POD("shop", "b", "3"));
	expect(fixture, "+Pod shop/b v3\nwell\n");
}

static void links_are_followed_as_a_config_map_has_them(void **state)
{
	struct fixture *fixture = *state;
	char path[256], old_path[256];
	assert_int_equal(mkdir(path_of(fixture, "..1", path), 0755), 0);
	assert_int_equal(mkdir(path_of(fixture, "..2", path), 0755), 0);
	write_file(fixture, "..1/a.yaml", POD("shop", "a", "1"));
	write_file(fixture, "..2/a.yaml", POD("shop", "a", "2"));
	assert_int_equal(symlink("..1", path_of(fixture, "..data", path)), 0);
	assert_int_equal(symlink("..data/a.yaml", path_of(fixture, "a.yaml", path)), 0);
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\n");
	assert_int_equal(symlink("..2", path_of(fixture, "..new", old_path)), 0);
	assert_int_equal(rename(old_path, path_of(fixture, "..data", path)), 0);
	expect(fixture, "+Pod shop/a v2\n");
	/* Renamed over, as editors and we ourselves write files. */
	write_file(fixture, ".a.swp", POD("shop", "a", "3"));
	rename_file(fixture, ".a.swp", "a.yaml");
	expect(fixture, "+Pod shop/a v3\n");
	/* A link to nothing keeps what was there. */
	assert_int_equal(symlink("nowhere", path_of(fixture, "..new", old_path)), 0);
	assert_int_equal(rename(old_path, path_of(fixture, "a.yaml", path)), 0);
	expect(fixture, "trouble: cannot read DIR/a.yaml: No such file or directory\n");
	remove_file(fixture, "a.yaml");
	expect(fixture, "-Pod shop/a v3\nwell\n");
}

static void an_object_counts_once(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "b.yaml", POD("shop", "a", "2"));
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v2\nend Pod\n");
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	expect(fixture, "+Pod shop/a v1\ntrouble: Pod shop/a is in a.yaml and again in b.yaml: the first one counts\n");
	remove_file(fixture, "a.yaml");
	expect(fixture, "+Pod shop/a v2\nwell\n");
	write_file(fixture, "c.yaml", "{kind: Pod, metadata: {namespace: shop, name: x, uid: uid-a}}");
	expect(fixture,
	       "trouble: Pod shop/a in b.yaml and Pod shop/x in c.yaml have the same uid uid-a: the first one counts\n");
	write_file(fixture, "c.yaml", POD("shop", "c", "1") "---\n" POD("shop", "c", "2") "---\n" POD("shop", "c", "3"));
	expect(fixture,
	       "+Pod shop/c v1\ntrouble: Pod shop/c is in c.yaml and again in c.yaml: the first one counts (and 1 more)\n");
}

struct answers {
	struct fixture *fixture;
	char log[1024];
	struct source_request *to_cancel;
	char uid[64];
};

static void take_answer(void *data, enum source_outcome outcome, const cJSON *object, const struct error *error)
{
	struct answers *answers = data;
	size_t length = strlen(answers->log);
	assert_true((outcome == SOURCE_DONE) == (object != NULL));
	assert_true((outcome == SOURCE_FAILED) == (error != NULL));
	if (object)
		snprintf(answers->uid, sizeof answers->uid, "%s", get(object, "metadata", "uid"));
	snprintf(answers->log + length, sizeof answers->log - length, "%s %s;",
		 outcome == SOURCE_DONE	  ? "done"
		 : outcome == SOURCE_GONE ? "gone"
					  : "failed",
		 object	 ? get(object, "metadata", "name")
		 : error ? error->message
			 : "");
	if (answers->to_cancel)
		answers->fixture->source.cancel(answers->fixture->source.self, answers->to_cancel);
	answers->to_cancel = NULL;
}

static struct source_request *ask(struct fixture *fixture, struct answers *answers, const char *name)
{
	struct source_request *request = NULL;
	size_t length = strlen(answers->log);
	struct error error = { 0 };
	answers->fixture = fixture;
	assert_int_equal(fixture->source.get_pod(fixture->source.self, "shop", name, take_answer, answers, &error, &request),
			 0);
	assert_non_null(request);
	assert_int_equal(strlen(answers->log), length); /* never from inside */
	return request;
}

static void objects_without_uid_get_a_lasting_one(void **state)
{
	struct fixture *fixture = *state;
	struct answers answers = { 0 };
	char uid[FOLDER_UID_MAX];
	/* printf Pod/shop/a | sha256sum */
	folder_object_uid(SOURCE_POD, "shop", "a", uid);
	assert_string_equal(uid, "ba7615a8-09f9-8dae-8b2a-cc13bf6866d8");
	folder_object_uid(SOURCE_NAMESPACE, "", "a", uid);
	assert_string_equal(uid, "df36f0b8-c9ea-8da8-b75a-065d0f8d0126");
	write_file(fixture, "a.yaml", "{kind: Pod, metadata: {namespace: shop, name: a}}");
	write_file(fixture, "b.yaml", "{kind: Pod, metadata: {namespace: shop, name: b, uid: null}}");
	write_file(fixture, "c.yaml", "{kind: Pod, metadata: {namespace: shop, name: c, uid: ''}}");
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a\n+Pod shop/b\n+Pod shop/c\nend Pod\n");
	ask(fixture, &answers, "a");
	run(fixture, 20);
	assert_string_equal(answers.log, "done a;");
	assert_string_equal(answers.uid, "ba7615a8-09f9-8dae-8b2a-cc13bf6866d8");
}

static void pods_of_other_nodes_are_passed_over(void **state)
{
	struct fixture *fixture = *state;
	write_file(fixture, "a.yaml",
		   "{kind: Pod, metadata: {namespace: shop, name: ours}, spec: {nodeName: node-1}}\n---\n"
		   "{kind: Pod, metadata: {namespace: shop, name: theirs}, spec: {nodeName: node-2}}\n---\n"
		   "{kind: Pod, metadata: {namespace: shop, name: anywhere}, spec: {}}\n");
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/anywhere\n+Pod shop/ours\nend Pod\n");
}

static void a_pod_is_read_on_demand(void **state)
{
	struct fixture *fixture = *state;
	struct answers answers = { 0 };
	char path[256];
	assert_null(fixture->source.annotate_pod);
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	start(fixture);
	/* Before the first list too. */
	ask(fixture, &answers, "a");
	ask(fixture, &answers, "b");
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\n");
	assert_string_equal(answers.log, "done a;gone ;");

	/* What was written just now is seen, and told to the listener first. */
	write_file(fixture, "b.yaml", POD("shop", "b", "1"));
	answers.log[0] = '\0';
	ask(fixture, &answers, "b");
	expect(fixture, "+Pod shop/b v1\n");
	assert_string_equal(answers.log, "done b;");

	/* It may be in a file that is being written, or can't be read. */
	answers.log[0] = '\0';
	int fd = open(path_of(fixture, "c.yaml", path), O_WRONLY | O_CREAT, 0644);
	ask(fixture, &answers, "c");
	ask(fixture, &answers, "a");
	run(fixture, 20);
	close(fd);
	snprintf(path, sizeof path, "failed %s/c.yaml is being written;done a;", fixture->folder);
	assert_string_equal(answers.log, path);
	write_file(fixture, "c.yaml", "[]");
	answers.log[0] = '\0';
	ask(fixture, &answers, "c");
	run(fixture, 20);
	assert_non_null(strstr(answers.log, "c.yaml, line 1: expected a Kubernetes object, found a list;"));
	remove_file(fixture, "c.yaml");

	/* A cancelled one is not answered, whoever cancels it. */
	answers.log[0] = '\0';
	struct source_request *request = ask(fixture, &answers, "a");
	fixture->source.cancel(fixture->source.self, request);
	ask(fixture, &answers, "b");
	answers.to_cancel = ask(fixture, &answers, "a");
	ask(fixture, &answers, "x");
	run(fixture, 20);
	run(fixture, 20);
	assert_string_equal(answers.log, "done b;gone ;");
	/* One that is under way when the source ends is not either. */
	ask(fixture, &answers, "a");
}

static void a_pod_of_a_missing_folder_may_come(void **state)
{
	struct fixture *fixture = *state;
	struct answers answers = { 0 };
	remove_tree(fixture->folder);
	start(fixture);
	ask(fixture, &answers, "a");
	run(fixture, 20);
	assert_non_null(strstr(answers.log, "failed cannot read the folder"));
}

static void lost_events_mean_another_look(void **state)
{
	struct fixture *fixture = *state;
	char path[256], other[256];
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\n");
	/* More than /proc/sys/fs/inotify/max_queued_events (16384), while the loop does not run. */
	path_of(fixture, ".x", path);
	path_of(fixture, ".y", other);
	write_file(fixture, ".x", "");
	for (int i = 0; i < 5000; i++)
		assert_int_equal(rename(path, other) | rename(other, path), 0);
	write_file(fixture, "a.yaml", POD("shop", "a", "2"));
	write_file(fixture, "b.yaml", POD("shop", "b", "1"));
	expect(fixture, "+Pod shop/a v2\n+Pod shop/b v1\n");
}

static void what_a_folder_may_cost_is_bounded(void **state)
{
	struct fixture *fixture = *state;
	char path[256];
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\n");
	write_file(fixture, "b.yaml", "");
	assert_int_equal(truncate(path_of(fixture, "b.yaml", path), (16 << 20) + 1), 0);
	/* Truncated from outside: nobody closes it, so it is read when it has been quiet. */
	expect(fixture, "trouble: cannot read DIR/b.yaml: it is larger than 16777216 bytes\n");
	remove_file(fixture, "b.yaml");
	expect(fixture, "well\n");
	for (int i = 0; i < 5; i++) {
		char name[32];
		snprintf(name, sizeof name, ".%d.yaml", i);
		write_file(fixture, name, "");
		assert_int_equal(truncate(path_of(fixture, name, path), 15 << 20), 0);
		rename_file(fixture, name, name + 1);
	}
	expect(fixture, "trouble: the files of the folder DIR have more than 67108864 bytes and stay as they were read\n");
	for (int i = 0; i < 5; i++) {
		char name[32];
		snprintf(name, sizeof name, "%d.yaml", i);
		remove_file(fixture, name);
	}
	expect(fixture, "well\n");
	for (int i = 0; i < 4096; i++) {
		char name[32];
		snprintf(name, sizeof name, "%d.yml", i);
		assert_int_equal(symlink("a.yaml", path_of(fixture, name, path)), 0);
	}
	long deadline = now_ms() + WAIT_MS;
	while (!strstr(fixture->log, "more than 4096 files") && now_ms() < deadline)
		run(fixture, 5);
	assert_non_null(
		strstr(fixture->log, "trouble: the folder DIR has more than 4096 files, which stay as they were read\n"));
	assert_null(strstr(fixture->log, "-Pod"));
}

static void no_file_stays_open(void **state)
{
	struct fixture *fixture = *state;
	int before = dup(0);
	close(before);
	write_file(fixture, "a.yaml", POD("shop", "a", "1"));
	start(fixture);
	expect(fixture, "list Namespace\nend Namespace\nlist Pod\n+Pod shop/a v1\nend Pod\n");
	fixture->source.free(fixture->source.self);
	fixture->source.free = NULL;
	int after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_first_list_has_everything),
		TEST(only_differences_are_told),
		TEST(what_is_refused_is_listed_again),
		TEST(a_file_that_is_being_written_is_left_alone),
		TEST(a_file_that_stays_open_is_read_when_quiet),
		TEST(a_broken_file_keeps_its_objects),
		TEST(no_list_is_finished_before_every_file_was_read),
		TEST(what_is_wrong_with_an_object_is_said),
		TEST(the_folder_may_come_and_go),
		TEST(links_are_followed_as_a_config_map_has_them),
		TEST(an_object_counts_once),
		TEST(objects_without_uid_get_a_lasting_one),
		TEST(pods_of_other_nodes_are_passed_over),
		TEST(a_pod_is_read_on_demand),
		TEST(a_pod_of_a_missing_folder_may_come),
		TEST(lost_events_mean_another_look),
		TEST(what_a_folder_may_cost_is_bounded),
		TEST(no_file_stays_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
