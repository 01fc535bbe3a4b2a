/* What an earlier run of the agent has left in its runDir: enrolled.json, or outside.json, as the first byte says. Whatever it
 * is, the mesh starts; and the namespaces that are outside are written and read the same again. */
#include "ambient/file.h"
#include "ambient/outside.h"
#include "tests/fuzz/agent.h"

static int host_netns;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	host_netns = fuzz_agent_place();
	return 0;
}

static void write_and_read_outside(void)
{
	struct error error = { 0 };
	cleanup_outside struct outside outside = { 0 }, again = { 0 };
	if (outside_read(FUZZ_RUN_DIR, &error, &outside) < 0) {
		HOLDS(error_is_set(&error));
		return;
	}
	HOLDS(outside_write(FUZZ_RUN_DIR, &outside, &error) == 0 && outside_read(FUZZ_RUN_DIR, &error, &again) == 0);
	HOLDS(again.time == outside.time && again.count == outside.count);
	for (size_t i = 0; i < outside.count; i++)
		HOLDS(outside_is_listed(&outside, outside.namespaces[i].name) ==
			      outside_is_listed(&again, outside.namespaces[i].name) &&
		      strcmp(outside.namespaces[i].uid, again.namespaces[i].uid) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	struct fuzz_agent agent;
	if (size == 0)
		return 0;
	bool is_outside = data[0] & 1;
	HOLDS(file_write(is_outside ? FUZZ_RUN_DIR "/outside.json" : FUZZ_RUN_DIR "/enrolled.json", (const char *)data + 1,
			 size - 1, 0600, &error) == 0);
	if (is_outside)
		write_and_read_outside();
	fuzz_agent_start(&agent, host_netns);
	fuzz_agent_list(&agent);
	cJSON_Delete(mesh_pods_view(agent.mesh));
	fuzz_agent_stop(&agent);
	unlink(FUZZ_RUN_DIR "/outside.json");
	unlink(FUZZ_RUN_DIR "/enrolled.json");
	unlink(FUZZ_RUN_DIR "/enrolled.json.corrupt");
	return 0;
}
