/* HTTP requests to the agent's own pages. The input is a byte that says where (health, metrics, admin, admin.sock), and the
 * request's bytes. The agent is the same for all of them. Whatever is asked, what changes anything is a POST on admin.sock. */
#include <event2/http.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "installer/observe/state.h"
#include "tests/fuzz/agent.h"

static struct fuzz_agent agent;
static struct installer_config config;
static unsigned int changes;

static const char *no_environment(const char *name)
{
	(void)name;
	return NULL;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	const struct installer_config_sources sources = { .environment = no_environment };
	struct error error = { 0 };
	HOLDS(installer_config_load(&sources, &error, &config) == 0);
	fuzz_agent_start(&agent, fuzz_agent_place());
	fuzz_agent_list(&agent);
	fuzz_agent_turn(&agent, 2);
	return 0;
}

static bool plugin_socket_listens(void *data)
{
	(void)data;
	return true;
}

static void set_log_level(void *data, enum log_level level)
{
	(void)data;
	HOLDS(level <= LOG_LEVEL_ERROR);
	changes++;
}

static int dial(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	strcpy(address.sun_path, path);
	HOLDS(fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
	return fd;
}

/* Whole answers alone are looked at: a big one does not come in one piece. The first line may say the request's path. */
static void look(const char *answer)
{
	unsigned int major, minor, status; /* evhttp answers in whatever version it was asked */
	HOLDS(sscanf(answer, "HTTP/%u.%u %u ", &major, &minor, &status) == 3 && status >= 200 && status < 600);
	const char *body = strstr(answer, "\r\n\r\n"), *type = strstr(answer, "\r\nContent-Type: application/json");
	const char *length = strstr(answer, "\r\nContent-Length: ");
	HOLDS(body);
	body += 4;
	cleanup_cjson cJSON *json = NULL;
	if (type && type < body && length && length < body && strtoul(length + 18, NULL, 10) == strlen(body))
		HOLDS(json_parse(body, strlen(body), 1 << 20, "answer", NULL, &json) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const http_answer answers[] = { observe_answer_health, observe_answer_metrics, observe_answer_admin,
					       observe_answer_admin_socket };
	static char answer[1 << 17];
	struct error error = { 0 };
	struct http_listener *listener = NULL;
	if (size == 0)
		return 0;
	const unsigned int site = data[0] & 3;
	struct observe observe = { .seen = { .config = &config,
					     .mesh = agent.mesh,
					     .metrics = &agent.metrics,
					     .tunnel = agent.tunnel,
					     .log = &agent.log,
					     .plugin_socket_listens = plugin_socket_listens,
					     .set_log_level = set_log_level } };
	changes = 0;
	HOLDS(http_listener_new_unix(agent.base, FUZZ_RUN_DIR "/http.sock", &agent.log, answers[site], &observe, &error,
				     &listener) == 0);
	int fd = dial(FUZZ_RUN_DIR "/http.sock");
	(void)!send(fd, data + 1, size - 1, MSG_NOSIGNAL);
	fuzz_agent_turn(&agent, 6);
	ssize_t length = recv(fd, answer, sizeof answer - 1, 0);
	if (length > 0) {
		answer[length] = '\0';
		if (strlen(answer) == (size_t)length)
			look(answer);
	}
	HOLDS(changes == 0 || (site == 3 && size > 5 && memmem(data + 1, size - 1, "POST ", 5)));
	close(fd);
	fuzz_agent_turn(&agent, 2);
	http_listener_free(listener);
	events_clear(&observe.events);
	return 0;
}
