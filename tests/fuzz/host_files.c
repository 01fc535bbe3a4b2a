/* What lies on the host and others wrote: a configuration directory with two files, and a result that a runtime keeps. The
 * input is a byte that says how the first is called, its text, a NUL, the second's text. */
#include <fcntl.h>
#include <sys/stat.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/host/binary.h"
#include "installer/host/conflist.h"
#include "installer/host/runtime_order.h"
#include "tests/fuzz/agent.h"

#define CONF_DIR FUZZ_RUN_DIR "/net.d"
#define RESULTS_DIR FUZZ_RUN_DIR "/results"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	fuzz_agent_place();
	HOLDS(mkdir(CONF_DIR, 0700) == 0 && mkdir(CONF_DIR "/net", 0700) == 0 && mkdir(RESULTS_DIR, 0700) == 0);
	return 0;
}

static void put(const char *path, const uint8_t *bytes, size_t size)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	HOLDS(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
}

static void look_at_directory(void)
{
	struct error error = { 0 };
	cleanup_runtime_directory struct runtime_directory directory = { 0 };
	struct runtime_choice choice;
	HOLDS(runtime_directory_read(CONF_DIR, &error, &directory) == 0);
	for (size_t i = 0; i < directory.count; i++)
		HOLDS((directory.files[i].json != NULL) != (directory.files[i].problem[0] != '\0'));
	runtime_directory_choose(&directory, &choice);
	HOLDS(!choice.containerd || (choice.containerd == choice.crio && !choice.stops_at));
	HOLDS(!choice.crio || choice.crio->json);
	/* What a runtime would load has plugins, or becomes a list with us in it. */
	cleanup_cjson cJSON *plugin = cJSON_Parse("{}"), *list = NULL;
	if (choice.crio && !choice.crio->drop_ins &&
	    conflist_add(choice.crio->json, plugin, choice.crio->is_list ? NULL : choice.crio->name, &error, &list) == 0)
		HOLDS(conflist_find(list, "ambient-cni"));
}

/* A plugin that any kept result may need stays: only what is understood, and does not name it, lets it go. */
static void look_at_result(const char *text, size_t length)
{
	struct error error = { 0 };
	bool needed = false;
	cleanup_cjson cJSON *json = NULL;
	put(RESULTS_DIR "/net-1-eth0", (const uint8_t *)text, length);
	HOLDS(binary_is_needed(RESULTS_DIR, "ambient-cni", &error, &needed) == 0);
	HOLDS(needed || json_parse(text, length, 1 << 20, "result", NULL, &json) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { CONF_DIR "/10-a.conflist", CONF_DIR "/10-a.conf", CONF_DIR "/10-a.json",
					     CONF_DIR "/00-multus.conf", CONF_DIR "/net/10-b.conf" };
	if (size == 0)
		return 0;
	cleanup_free char *text = strndup((const char *)data + 1, size - 1);
	const char *name = names[data[0] % 5];
	size_t length = strlen(text);
	const uint8_t *rest = data + 1 + length + (length + 1 < size);
	put(name, data + 1, length);
	put(CONF_DIR "/20-b.conflist", rest, size - (size_t)(rest - data));
	look_at_directory();
	look_at_result(text, length);
	unlink(name);
	return 0;
}
