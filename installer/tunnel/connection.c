/* One tunnel that is connected. See connection.h. */
#include "installer/tunnel/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"

/* Answers read for one wake-up: other connections get their turn. */
#define READS_AT_ONCE 128
/* The kernel's limit of descriptors in flight is the user's, not ours: it is tried again. */
#define RETRY_FIRST_MILLISECONDS 10
#define RETRY_LAST_MILLISECONDS 500

static struct entry **bucket_of(struct connection *connection, const struct entry *entry)
{
	return &connection->buckets[entry->hash % CONNECTION_BUCKETS];
}

static void add_waiting(struct connection *connection, struct entry *entry)
{
	struct entry **bucket = bucket_of(connection, entry);
	entry->next_of_hash = *bucket;
	*bucket = entry;
	connection->waiting_count++;
}

static void remove_waiting(struct connection *connection, struct entry *entry)
{
	struct entry **place = bucket_of(connection, entry);
	while (*place != entry)
		place = &(*place)->next_of_hash;
	*place = entry->next_of_hash;
	TAILQ_REMOVE(&connection->waiting, entry, link);
	connection->waiting_count--;
}

static void arm_deadline(struct connection *connection, int64_t delay_milliseconds)
{
	struct timeval delay = clock_span(delay_milliseconds);
	event_add(connection->deadline_event, &delay);
}

/* The timer is not moved with every answer: when it fires, what is left is looked at. */
static void on_deadline(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	struct connection *connection = data;
	const struct tunnel_limits *limits = server_limits(connection->server);
	if (connection->state == CONNECTION_SILENT) {
		connection_end(connection, TUNNEL_LATE, "it said no hello in time");
		return;
	}
	if (connection->unanswered_count == 0)
		return;
	int64_t waited = (clock_nanoseconds() - connection->progress) / 1000000;
	if (waited >= limits->answer_milliseconds)
		/* A late answer would be taken for the next one. */
		connection_end(connection, TUNNEL_LATE, "it did not answer in time");
	else
		arm_deadline(connection, limits->answer_milliseconds - waited + 1);
}

/* One packet with its descriptor. Returns 0, or -1 with errno. */
static int send_one(int fd, const struct request *request)
{
	union {
		char buffer[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec part = { .iov_base = (void *)request->bytes, .iov_len = request->length };
	struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
	if (request->netns >= 0) {
		packet.msg_control = control.buffer;
		packet.msg_controllen = sizeof control.buffer;
		struct cmsghdr *header = CMSG_FIRSTHDR(&packet);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof request->netns);
		memcpy(CMSG_DATA(header), &request->netns, sizeof request->netns);
	}
	ssize_t sent;
	do
		sent = sendmsg(fd, &packet, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? -1 : 0;
}

static void sending_failed(struct connection *connection, int number)
{
	switch (number) {
	case EAGAIN:
		event_add(connection->write_event, NULL);
		break;
	case EPIPE:
	case ECONNRESET:
		/* The tunnel is gone, its last answers may still lie in our queue: reading finds them, then the end. */
		connection->can_send = false;
		break;
	case ETOOMANYREFS:
	case ENOBUFS:
	case ENOMEM: {
		unsigned int wait =
			connection->retry_milliseconds ? connection->retry_milliseconds * 2 : RETRY_FIRST_MILLISECONDS;
		connection->retry_milliseconds = wait < RETRY_LAST_MILLISECONDS ? wait : RETRY_LAST_MILLISECONDS;
		struct timeval delay = clock_span(connection->retry_milliseconds);
		event_add(connection->retry_event, &delay);
		break;
	}
	default:
		connection_end(connection, TUNNEL_LOST, strerror(number));
	}
}

void connection_send(struct connection *connection)
{
	unsigned int window = server_limits(connection->server)->window;
	while (connection->state == CONNECTION_LIVE && connection->can_send && connection->unanswered_count < window) {
		struct entry *entry = TAILQ_FIRST(&connection->waiting);
		if (!entry || evtimer_pending(connection->retry_event, NULL))
			return;
		if (send_one(connection->fd, entry->request) < 0) {
			sending_failed(connection, errno);
			return;
		}
		connection->retry_milliseconds = 0;
		entry->sent = clock_nanoseconds();
		remove_waiting(connection, entry);
		TAILQ_INSERT_TAIL(&connection->unanswered, entry, link);
		if (connection->unanswered_count++ == 0) {
			connection->progress = entry->sent;
			if (!evtimer_pending(connection->deadline_event, NULL))
				arm_deadline(connection, server_limits(connection->server)->answer_milliseconds);
		}
		/* Sent: the kernel holds the namespace now. */
		if (entry->request->netns >= 0)
			close(steal_fd(&entry->request->netns));
	}
}

static void on_writable(evutil_socket_t fd, short what, void *data)
{
	(void)fd;
	(void)what;
	connection_send(data);
}

static int take_answer(struct connection *connection, const uint8_t *bytes, size_t length, struct error *error)
{
	struct entry *entry = TAILQ_FIRST(&connection->unanswered);
	if (!entry)
		return error_say(error, EPROTO, "it answered (%zu bytes) without being asked", length);
	bool is_accepted = false;
	struct error refusal = { 0 };
	if (tunnel_decode_answer(bytes, length, error, &is_accepted, &refusal) < 0)
		return -1;
	TAILQ_REMOVE(&connection->unanswered, entry, link);
	connection->unanswered_count--;
	connection->progress = clock_nanoseconds();
	if (entry->request->kind == TUNNEL_SNAPSHOT_SENT) {
		connection->is_snapshot_accepted = is_accepted;
		log_write(server_log(connection->server), is_accepted ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, NULL,
			  "%s: snapshot %s%s", connection->name, is_accepted ? "accepted" : "not accepted: ", refusal.message);
	}

	double seconds = (double)(connection->progress - entry->sent) / 1e9;
	struct tunnel_statistics *counters = server_counters(connection->server);
	size_t bucket = 0;
	while (bucket < TUNNEL_ANSWER_BUCKETS && seconds > tunnel_answer_bounds[bucket])
		bucket++;
	counters->buckets[bucket]++;
	counters->seconds_sum += seconds;
	counters->answers++;
	server_settle(connection->server, connection, entry, is_accepted ? TUNNEL_ACCEPTED : TUNNEL_REFUSED, &refusal);
	return 0;
}

static int take_packet(struct connection *connection, const uint8_t *bytes, size_t length, int flags, struct error *error)
{
	/* We give no room for descriptors: the kernel drops them and sets MSG_CTRUNC. */
	if (flags & MSG_TRUNC)
		return error_say(error, EPROTO, "it sent a message of more than %d bytes", TUNNEL_RECEIVE_MAX);
	if (flags & MSG_CTRUNC)
		return error_say(error, EPROTO, "it sent a descriptor");
	if (connection->state != CONNECTION_SILENT)
		return take_answer(connection, bytes, length, error);
	int version;
	if (tunnel_decode_hello(bytes, length, error, &version) < 0)
		return -1;
	if (version > 1)
		log_write(server_log(connection->server), LOG_LEVEL_WARN, NULL, "%s speaks protocol version %d, we speak 1",
			  connection->name, version);
	event_del(connection->deadline_event);
	connection->state = CONNECTION_NEW;
	server_said_hello(connection->server, connection);
	return 0;
}

/* Always armed: an answer that nobody asked for and the end of the connection are seen at once, busy or idle. */
static void on_readable(evutil_socket_t fd, short what, void *data)
{
	(void)what;
	struct connection *connection = data;
	uint8_t *buffer = server_receive_buffer(connection->server);
	for (int i = 0; i < READS_AT_ONCE && connection->state != CONNECTION_ENDED; i++) {
		struct iovec part = { .iov_base = buffer, .iov_len = TUNNEL_RECEIVE_MAX };
		struct msghdr packet = { .msg_iov = &part, .msg_iovlen = 1 };
		ssize_t received = recvmsg(fd, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (received < 0 && errno == EINTR)
			continue;
		if (received < 0 && errno == EAGAIN)
			break;
		if (received < 0 && errno == ECONNRESET && !connection->was_reset) {
			/* The tunnel closed with requests of ours unread. Said once; answers may be queued behind it. */
			connection->was_reset = true;
			connection->can_send = false;
			continue;
		}
		if (received <= 0) {
			connection_end(connection, TUNNEL_LOST, received == 0 ? "it closed the connection" : strerror(errno));
			return;
		}
		struct error error = { 0 };
		if (take_packet(connection, buffer, (size_t)received, packet.msg_flags, &error) < 0) {
			server_counters(connection->server)->protocol_errors++;
			connection_end(connection, TUNNEL_LOST, error.message);
			return;
		}
	}
	connection_send(connection);
}

int connection_new(struct tunnel_server *server, struct event_base *base, int fd, pid_t pid, struct error *error,
		   struct connection **ret_connection)
{
	struct connection *connection = calloc(1, sizeof *connection);
	if (!connection) {
		close(fd);
		return error_set(error, ENOMEM, "cannot serve a tunnel");
	}
	connection->server = server;
	connection->fd = fd;
	connection->pid = pid;
	snprintf(connection->name, sizeof connection->name, pid ? "tunnel (pid %d)" : "the tunnel", (int)pid);
	connection->can_send = true;
	connection->accepted = clock_nanoseconds();
	TAILQ_INIT(&connection->waiting);
	TAILQ_INIT(&connection->unanswered);
	connection->read_event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, connection);
	connection->write_event = event_new(base, fd, EV_WRITE, on_writable, connection);
	connection->deadline_event = evtimer_new(base, on_deadline, connection);
	connection->retry_event = evtimer_new(base, on_writable, connection);
	if (!connection->read_event || !connection->write_event || !connection->deadline_event || !connection->retry_event ||
	    event_add(connection->read_event, NULL) < 0) {
		connection_free(connection);
		return error_set(error, ENOMEM, "cannot serve a tunnel");
	}
	arm_deadline(connection, server_limits(server)->hello_milliseconds);
	*ret_connection = connection;
	return 0;
}

static void stop(struct connection *connection)
{
	struct event **events[] = { &connection->read_event, &connection->write_event, &connection->deadline_event,
				    &connection->retry_event };
	for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
		if (*events[i])
			event_free(*events[i]);
		*events[i] = NULL;
	}
	if (connection->fd >= 0)
		close(connection->fd);
	connection->fd = -1;
}

void connection_free(struct connection *connection)
{
	stop(connection);
	free(connection);
}

int connection_queue(struct connection *connection, struct request *request, struct error *error)
{
	struct entry *entry = calloc(1, sizeof *entry);
	if (!entry)
		return error_set(error, ENOMEM, "cannot ask the tunnel for workload %.64s", request->uid);
	entry->request = request;
	entry->hash = request_hash(request->uid);
	request->entries++;
	TAILQ_INSERT_TAIL(&connection->waiting, entry, link);
	add_waiting(connection, entry);
	return 0;
}

void connection_queue_first(struct connection *connection, struct entry_list *entries)
{
	struct entry *entry;
	TAILQ_FOREACH(entry, entries, link)
	add_waiting(connection, entry);
	TAILQ_CONCAT(entries, &connection->waiting, link);
	TAILQ_CONCAT(&connection->waiting, entries, link);
}

void connection_supersede(struct connection *connection, const char *uid, unsigned int kinds)
{
	uint32_t hash = request_hash(uid);
	struct entry *next;
	for (struct entry *entry = connection->buckets[hash % CONNECTION_BUCKETS]; entry; entry = next) {
		next = entry->next_of_hash;
		if (entry->hash != hash || !(kinds & 1u << entry->request->kind) || strcmp(entry->request->uid, uid) != 0)
			continue;
		struct error error = { 0 };
		error_say(&error, ECANCELED, "a later request took its place before it was sent");
		remove_waiting(connection, entry);
		server_settle(connection->server, connection, entry, TUNNEL_SUPERSEDED, &error);
	}
}

bool connection_is_deleting(const struct connection *connection, const char *uid)
{
	const struct entry *entry;
	TAILQ_FOREACH(entry, &connection->unanswered, link)
	if (entry->request->kind == TUNNEL_DELETE && strcmp(entry->request->uid, uid) == 0)
		return true;
	return false;
}

void connection_end(struct connection *connection, enum tunnel_outcome sent, const char *reason)
{
	if (connection->state == CONNECTION_ENDED)
		return;
	log_write(server_log(connection->server), LOG_LEVEL_INFO, NULL, "%s disconnected: %s", connection->name, reason);
	bool was_up = connection->state != CONNECTION_SILENT;
	connection->state = CONNECTION_ENDED;
	stop(connection);
	/* From here on what was not sent goes to the tunnel that is the newest now. */
	server_connection_ended(connection->server, connection, was_up);

	struct error lost = { 0 };
	error_say(&lost, sent == TUNNEL_LATE ? ETIMEDOUT : ECONNRESET, "no answer of the tunnel: %s", reason);
	struct entry *entry;
	while ((entry = TAILQ_FIRST(&connection->unanswered))) {
		TAILQ_REMOVE(&connection->unanswered, entry, link);
		server_settle(connection->server, connection, entry, sent, &lost);
	}
	connection->unanswered_count = 0;
	while ((entry = TAILQ_FIRST(&connection->waiting))) {
		remove_waiting(connection, entry);
		if (server_move(connection->server, entry))
			continue;
		struct error absent = { 0 };
		error_say(&absent, ENOTCONN, "no tunnel connected: %s", reason);
		server_settle(connection->server, connection, entry, TUNNEL_ABSENT, &absent);
	}
}
