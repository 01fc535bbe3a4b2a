/*
 * What runs in the test's pods: one static program, so that the images need nothing else.
 *
 *   workload pause                         wait for a signal
 *   workload serve PORT...                 answer: a line "ping N" by "pong N from ADDRESS", an HTTP GET by a page
 *   workload first ADDRESS PORT            one connection at once, one ping; prints the answer; status 0 only with an answer
 *   workload traffic LINGER ADDRESS PORT   until SIGTERM, and LINGER seconds more: a ping every 20 ms on one connection that
 * stays open, and a new connection with a ping every 20 ms. Every second, and at the end, one line that says what was lost.
 *
 * A process 1 has no default signal actions, hence the handlers.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PERIOD_MS = 20, ANSWER_MS = 5000 };

static volatile sig_atomic_t is_terminated;

static void terminate(int signal_number)
{
	(void)signal_number;
	is_terminated = 1;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Sends all of a line and reads one line back; the time-outs are the socket's. */
static int exchange(int fd, int number, char *answer, size_t size)
{
	char line[64];
	size_t used = 0;
	int length = snprintf(line, sizeof(line), "ping %d\n", number);

	if (send(fd, line, (size_t)length, MSG_NOSIGNAL) != length)
		return -1;
	while (used + 1 < size) {
		ssize_t count = recv(fd, answer + used, size - used - 1, 0);

		if (count == 0)
			errno = ECONNRESET;
		if (count <= 0)
			return -1;
		used += (size_t)count;
		answer[used] = '\0';
		if (strchr(answer, '\n')) {
			*strchr(answer, '\n') = '\0';
			return 0;
		}
	}
	errno = EMSGSIZE;
	return -1;
}

static int open_connection(const char *address, const char *port)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *found;
	struct timeval timeout = { .tv_sec = ANSWER_MS / 1000 };
	int fd, error = getaddrinfo(address, port, &hints, &found);

	if (error) {
		fprintf(stderr, "%s port %s: %s\n", address, port, gai_strerror(error));
		exit(2);
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) ||
	    connect(fd, found->ai_addr, found->ai_addrlen)) {
		error = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
		errno = error;
	}
	freeaddrinfo(found);
	return fd;
}

static int first(const char *address, const char *port)
{
	char answer[256];
	int fd = open_connection(address, port);

	if (fd < 0 || exchange(fd, 1, answer, sizeof(answer))) {
		printf("lost: %s\n", strerror(errno));
		return 1;
	}
	puts(answer);
	return 0;
}

static void *serve_connection(void *argument)
{
	int fd = (int)(intptr_t)argument;
	struct sockaddr_storage peer;
	socklen_t length = sizeof(peer);
	char host[INET6_ADDRSTRLEN] = "?", request[1024], *at = host;
	FILE *in = fdopen(fd, "r");

	if (!in || getpeername(fd, (struct sockaddr *)&peer, &length))
		goto out;
	getnameinfo((struct sockaddr *)&peer, length, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	if (!strncmp(host, "::ffff:", 7))
		at += 7;
	while (fgets(request, sizeof(request), in)) {
		if (!strncmp(request, "GET ", 4)) {
			dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
			shutdown(fd, SHUT_WR);
			while (fgets(request, sizeof(request), in))
				;
			break;
		}
		request[strcspn(request, "\n")] = '\0';
		if (strncmp(request, "ping ", 5) != 0)
			break;
		dprintf(fd, "pong %s from %s\n", request + 5, at);
	}
out:
	if (in)
		fclose(in);
	else
		close(fd);
	return NULL;
}

static int listen_on(const char *port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6,
				    .sin6_addr = IN6ADDR_ANY_INIT,
				    .sin6_port = htons((uint16_t)atoi(port)) };
	struct sockaddr_in any4 = { .sin_family = AF_INET, .sin_port = any.sin6_port };
	int one = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (!bind(fd, (struct sockaddr *)&any, sizeof(any)) && !listen(fd, SOMAXCONN))
			return fd;
		close(fd);
	}
	/* No IPv6 here. */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&any4, sizeof(any4)) || listen(fd, SOMAXCONN)) {
		perror(port);
		exit(1);
	}
	return fd;
}

static int serve(char **ports, int count)
{
	struct pollfd listeners[16];
	pthread_attr_t attributes;

	if (count > 16)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 65536);
	for (int i = 0; i < count; i++)
		listeners[i] = (struct pollfd){ .fd = listen_on(ports[i]), .events = POLLIN };
	puts("serving");
	while (!is_terminated && poll(listeners, (nfds_t)count, 1000) >= 0) {
		for (int i = 0; i < count; i++) {
			pthread_t thread;
			int fd = listeners[i].revents & POLLIN ? accept(listeners[i].fd, NULL, NULL) : -1;

			if (fd >= 0 && pthread_create(&thread, &attributes, serve_connection, (void *)(intptr_t)fd))
				close(fd);
		}
	}
	return 0;
}

/* What a stream of exchanges has seen. Each is written by one thread and read by the one that reports. */
struct seen {
	volatile int answered, lost;
	volatile int64_t longest_ms;
	char last_error[128];
};

struct target {
	const char *address, *port;
	struct seen kept, opened;
	volatile bool is_over;
};

static void count_lost(struct seen *seen, const char *step)
{
	snprintf(seen->last_error, sizeof(seen->last_error), "%s: %s", step, strerror(errno));
	seen->lost++;
}

static void count_answered(struct seen *seen, int64_t start_ms)
{
	int64_t took_ms = now_ms() - start_ms;

	if (took_ms > seen->longest_ms)
		seen->longest_ms = took_ms;
	seen->answered++;
}

static void *keep_connection(void *argument)
{
	struct target *target = argument;
	char answer[256];
	int fd = -1;

	for (int number = 0; !target->is_over; number++) {
		int64_t start_ms = now_ms();

		if (fd < 0) {
			fd = open_connection(target->address, target->port);
			if (fd < 0)
				count_lost(&target->kept, "connect");
		}
		if (fd >= 0 && exchange(fd, number, answer, sizeof(answer))) {
			count_lost(&target->kept, "exchange");
			close(fd);
			fd = -1;
		} else if (fd >= 0) {
			count_answered(&target->kept, start_ms);
		}
		poll(NULL, 0, PERIOD_MS);
	}
	if (fd >= 0)
		close(fd);
	return NULL;
}

static void *open_connections(void *argument)
{
	struct target *target = argument;
	char answer[256];

	for (int number = 0; !target->is_over; number++) {
		int64_t start_ms = now_ms();
		int fd = open_connection(target->address, target->port);

		if (fd < 0)
			count_lost(&target->opened, "connect");
		else if (exchange(fd, number, answer, sizeof(answer)))
			count_lost(&target->opened, "exchange");
		else
			count_answered(&target->opened, start_ms);
		if (fd >= 0)
			close(fd);
		poll(NULL, 0, PERIOD_MS);
	}
	return NULL;
}

static void report(const struct target *target, const char *word)
{
	printf("{\"at\": \"%s\", \"kept\": {\"answered\": %d, \"lost\": %d, \"longest_ms\": %lld, \"error\": \"%s\"}, "
	       "\"opened\": {\"answered\": %d, \"lost\": %d, \"longest_ms\": %lld, \"error\": \"%s\"}}\n",
	       word, target->kept.answered, target->kept.lost, (long long)target->kept.longest_ms, target->kept.last_error,
	       target->opened.answered, target->opened.lost, (long long)target->opened.longest_ms, target->opened.last_error);
}

static int traffic(int linger, const char *address, const char *port)
{
	struct target target = { .address = address, .port = port };
	pthread_t kept, opened;

	if (pthread_create(&kept, NULL, keep_connection, &target) || pthread_create(&opened, NULL, open_connections, &target))
		return 1;
	while (!is_terminated) {
		report(&target, "work");
		poll(NULL, 0, 1000);
	}
	report(&target, "terminated");
	for (int64_t end_ms = now_ms() + linger * 1000; now_ms() < end_ms;)
		poll(NULL, 0, 100);
	target.is_over = true;
	pthread_join(kept, NULL);
	pthread_join(opened, NULL);
	report(&target, "end");
	return 0;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = terminate };
	const char *verb = argc > 1 ? argv[1] : "pause";

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(verb, "serve") && argc > 2)
		return serve(argv + 2, argc - 2);
	if (!strcmp(verb, "first") && argc == 4)
		return first(argv[2], argv[3]);
	if (!strcmp(verb, "traffic") && argc == 5)
		return traffic(atoi(argv[2]), argv[3], argv[4]);
	if (!strcmp(verb, "pause")) {
		while (!is_terminated)
			poll(NULL, 0, -1);
		return 0;
	}
	fprintf(stderr, "usage: workload pause | serve PORT... | first ADDRESS PORT | traffic LINGER ADDRESS PORT\n");
	return 2;
}
