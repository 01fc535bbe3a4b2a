/* Plugins' requests. See plugin_server.h.
 *
 * A conversation is small: a plugin sends one packet and gets one, twice at most. So a packet is sent at once, and a peer that
 * does not take it is a peer that is gone. A connection that says nothing is closed after a while; one whose plugin died is
 * noticed by its end of file, at any time. */
#include "installer/plugin_server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "ambient/wire.h"
#include "installer/unix_listener.h"

/* From connecting to the request, and from the result to the plugin's end of the connection. */
#define SILENCE_SECONDS 30

/* A pod start costs one; a node starts some hundred pods at once at most. */
#define CONVERSATIONS_MAX 1024

struct conversation {
	TAILQ_ENTRY(conversation) all;
	struct plugin_server *server;
	int fd;
	struct event *readable;
	struct mesh_arrival *arrival; /* an ADD is under way */
	char pod[320];		      /* NAMESPACE/NAME that it is about; empty: none */
	bool has_asked;
	bool is_over; /* answered: the next end of file is expected */
};
TAILQ_HEAD(conversations, conversation);

struct plugin_server {
	struct event_base *base;
	struct mesh *mesh;
	const struct log *log;
	struct unix_listener *listener;
	struct conversations conversations;
	size_t count;
	bool is_superseded;
	void (*superseded)(void *data);
	void *data;
};

static void conversation_end(struct conversation *conversation)
{
	struct plugin_server *server = conversation->server;
	struct mesh_arrival *arrival = conversation->arrival;
	conversation->arrival = NULL;
	if (arrival)
		mesh_arrival_abandon(arrival);
	TAILQ_REMOVE(&server->conversations, conversation, all);
	server->count--;
	event_free(conversation->readable);
	close(conversation->fd);
	free(conversation);
}

/* Whatever goes wrong, the plugin sees its connection end: it is the one that decides. */
static void answer(struct conversation *conversation, const struct wire_message *message)
{
	struct error error = { 0 };
	if (wire_send(conversation->fd, message, -1, &error) == 0)
		return;
	log_write(conversation->server->log, LOG_LEVEL_WARN, NULL, "a plugin can't be answered: %s", error.message);
	/* It asks once more at once, instead of waiting for what never comes; our end is closed when the loop sees it. */
	shutdown(conversation->fd, SHUT_RDWR);
}

static void answer_result(struct conversation *conversation, enum cni_code code, const char *message)
{
	struct wire_message result = { .kind = WIRE_RESULT, .code = (int)code, .message = (char *)message };
	conversation->is_over = true;
	answer(conversation, &result);
}

static void decided(void *data, enum mesh_verdict verdict, const char *reason, const struct redirect *redirect)
{
	struct conversation *conversation = data;
	/* Borrowed: the message is only encoded. */
	struct wire_message decision = { .kind = WIRE_DECISION, .reason = (char *)reason };
	if (verdict == MESH_VERDICT_SKIP) {
		decision.verdict = WIRE_VERDICT_SKIP;
		conversation->is_over = true;
		conversation->arrival = NULL;
	} else {
		decision.verdict = WIRE_VERDICT_REDIRECT;
		decision.redirect = *redirect;
	}
	answer(conversation, &decision);
}

static void finished(void *data, enum cni_code code, const char *message)
{
	struct conversation *conversation = data;
	conversation->arrival = NULL;
	answer_result(conversation, code, message);
}

/* The plugin sees its connection end, as when we were killed, and makes it again: where the successor is by now. */
static void handed_on(void *data)
{
	struct conversation *conversation = data;
	conversation->arrival = NULL;
	conversation->is_over = true;
	shutdown(conversation->fd, SHUT_RDWR);
}

/* The plugin's own lines, one a line. */
static void log_remarks(struct plugin_server *server, const char *pod, const char *remarks)
{
	cleanup_free char *copy = remarks ? strdup(remarks) : NULL;
	char *state = NULL;
	const struct log_field fields[] = { { "from", "plugin" }, { pod[0] ? "pod" : NULL, pod }, { NULL, NULL } };
	for (char *line = copy ? strtok_r(copy, "\n", &state) : NULL; line; line = strtok_r(NULL, "\n", &state)) {
		/* "warn: text", as the plugin wrote it. */
		enum log_level level = LOG_LEVEL_INFO;
		char *colon = strstr(line, ": ");
		if (colon) {
			*colon = '\0';
			if (log_level_parse(line, NULL, &level) == 0)
				line = colon + 2;
			else
				*colon = ':';
		}
		log_write(server->log, level, fields, "%s", line);
	}
}

static void begin_add(struct conversation *conversation, struct wire_message *message, int netns)
{
	struct error error = { 0 };
	struct mesh_arrival *arrival = NULL;
	const struct mesh_arrival_listener listener = {
		.decided = decided, .finished = finished, .handed_on = handed_on, .data = conversation
	};
	double timeout = (double)message->timeout_milliseconds / 1000;
	if (mesh_arrival_begin(conversation->server->mesh, &message->attachment, netns, timeout, &listener, &error, &arrival) <
	    0) {
		answer_result(conversation, error.number == EINVAL ? CNI_INVALID_ENVIRONMENT : CNI_TRY_AGAIN_LATER,
			      error.message);
		return;
	}
	/* It may be over already: then the pointer leads nowhere. */
	if (!conversation->is_over)
		conversation->arrival = arrival;
}

static void take_request(struct conversation *conversation, struct wire_message *message, int netns)
{
	struct mesh *mesh = conversation->server->mesh;
	conversation->has_asked = true;
	switch (message->kind) {
	case WIRE_ADD:
		begin_add(conversation, message, netns);
		break;
	case WIRE_DEL:
		mesh_detach(mesh, &message->attachment);
		answer_result(conversation, CNI_OK, NULL);
		break;
	case WIRE_GC:
		mesh_collect(mesh, message);
		answer_result(conversation, CNI_OK, NULL);
		break;
	default:
		answer_result(conversation, CNI_INTERNAL, "a conversation begins with add, del or gc");
		break;
	}
}

static void readable(evutil_socket_t fd, short what, void *data)
{
	struct conversation *conversation = data;
	struct plugin_server *server = conversation->server;
	struct error error = { 0 };
	cleanup_close int netns = -1;
	cleanup_wire_message struct wire_message message = { 0 };
	/* An ADD under way has a time of its own. */
	if ((what & EV_TIMEOUT) && conversation->arrival)
		return;
	if (what & EV_TIMEOUT) {
		log_write(server->log, LOG_LEVEL_WARN, NULL, "a plugin said nothing for %d s: its connection is closed",
			  SILENCE_SECONDS);
		conversation_end(conversation);
		return;
	}
	if (wire_receive(fd, &error, &message, &netns) < 0) {
		if (error.number == EAGAIN)
			return;
		/* What may pass is no answer to a DEL: the plugin asks once more. */
		if (error_may_pass(error.number))
			log_write(server->log, LOG_LEVEL_WARN, NULL, "a plugin's connection is closed: %s", error.message);
		else if (error.number != ECONNRESET)
			log_write(server->log, LOG_LEVEL_WARN, NULL,
				  "a plugin broke the protocol, its connection is closed: %s", error.message);
		if (error.number == EPROTONOSUPPORT && !conversation->has_asked)
			answer_result(conversation, CNI_INCOMPATIBLE_VERSION, error.message);
		conversation_end(conversation);
		return;
	}
	if ((message.kind == WIRE_ADD || message.kind == WIRE_DEL) && message.attachment.pod_namespace &&
	    message.attachment.pod_name)
		snprintf(conversation->pod, sizeof conversation->pod, "%s/%s", message.attachment.pod_namespace,
			 message.attachment.pod_name);
	log_remarks(server, conversation->pod, message.log);
	if (!conversation->has_asked) {
		take_request(conversation, &message, netns);
	} else if (conversation->arrival && message.kind == WIRE_REPORT) {
		mesh_arrival_reported(conversation->arrival, message.message);
	} else {
		log_write(server->log, LOG_LEVEL_WARN, NULL,
			  "a plugin sent what it was not asked for: its connection is closed");
		conversation_end(conversation);
	}
}

static void accepted(void *data, int fd, pid_t pid)
{
	struct plugin_server *server = data;
	struct conversation *conversation = server->count < CONVERSATIONS_MAX ? calloc(1, sizeof *conversation) : NULL;
	const struct timeval silence = { .tv_sec = SILENCE_SECONDS };
	if (conversation)
		conversation->readable = event_new(server->base, fd, EV_READ | EV_PERSIST, readable, conversation);
	if (!conversation || !conversation->readable || event_add(conversation->readable, &silence) < 0) {
		log_write(server->log, LOG_LEVEL_WARN, NULL, "a plugin (pid %d) is turned away: %s", (int)pid,
			  server->count < CONVERSATIONS_MAX ? "there is no memory for it" : "there are too many already");
		if (conversation && conversation->readable)
			event_free(conversation->readable);
		free(conversation);
		close(fd);
		return;
	}
	conversation->server = server;
	conversation->fd = fd;
	TAILQ_INSERT_TAIL(&server->conversations, conversation, all);
	server->count++;
	/* The request is nearly always there: a turn of the loop is saved. */
	readable(fd, EV_READ, conversation);
}

static void superseded(void *data)
{
	struct plugin_server *server = data;
	server->is_superseded = true;
	if (server->superseded)
		server->superseded(server->data);
}

int plugin_server_new(struct event_base *base, const char *run_dir, struct mesh *mesh, const struct log *log,
		      void (*on_superseded)(void *data), void *data, struct error *error, struct plugin_server **ret_server)
{
	cleanup_free char *path = NULL;
	struct plugin_server *server = calloc(1, sizeof *server);
	if (!server)
		return error_set(error, ENOMEM, "cannot serve plugins");
	server->base = base;
	server->mesh = mesh;
	server->log = log;
	server->superseded = on_superseded;
	server->data = data;
	TAILQ_INIT(&server->conversations);
	const struct unix_listener_events events = { .accepted = accepted, .superseded = superseded, .data = server };
	const struct unix_listener_limits limits = { .absence_milliseconds = 100 };
	if (file_join(run_dir, WIRE_SOCKET, error, &path) < 0 ||
	    unix_listener_new(base, path, &events, &limits, log, error, &server->listener) < 0) {
		free(server);
		return error_wrap(error, "cannot serve plugins");
	}
	*ret_server = server;
	return 0;
}

void plugin_server_free(struct plugin_server *server)
{
	if (!server)
		return;
	unix_listener_free(server->listener);
	while (!TAILQ_EMPTY(&server->conversations))
		conversation_end(TAILQ_FIRST(&server->conversations));
	free(server);
}

bool plugin_server_listens(const struct plugin_server *server)
{
	return !server->is_superseded;
}
