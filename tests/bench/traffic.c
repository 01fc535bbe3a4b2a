/* Small requests over TCP, to be timed between two network namespaces:
 *
 *     traffic serve PORT                       answers each byte with a byte, until it is killed
 *     traffic requests ADDRESS PORT COUNT      one connection, a byte there and a byte back, one after the other
 *     traffic connections ADDRESS PORT COUNT   a new connection for each, one after the other
 *
 * The last two print the nanoseconds that one took, on average. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdbool.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/bench/fresh_netns.h"

static void set_no_delay(int fd)
{
	const int yes = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

static int dial(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
		err(1, "cannot connect");
	set_no_delay(fd);
	return fd;
}

static void ask(int fd)
{
	char byte = 'x';
	if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
		err(1, "no answer");
}

/* A reset: no port is kept in TIME_WAIT, of which there would be too many. */
static void reset(int fd)
{
	const struct linger at_once = { .l_onoff = 1 };
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
	close(fd);
}

/* One connection at a time is all that the clients use. */
static int serve(struct sockaddr_in *address)
{
	const int yes = 1;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	address->sin_addr.s_addr = htonl(INADDR_ANY);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (listener < 0 || bind(listener, (const struct sockaddr *)address, sizeof *address) < 0 || listen(listener, 128) < 0)
		err(1, "cannot listen");
	printf("listening\n");
	fflush(stdout);
	for (;;) {
		char byte;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		set_no_delay(fd);
		while (recv(fd, &byte, 1, 0) == 1 && send(fd, &byte, 1, MSG_NOSIGNAL) == 1)
			;
		close(fd);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	if (argc == 3 && strcmp(argv[1], "serve") == 0) {
		address.sin_port = htons((uint16_t)atoi(argv[2]));
		return serve(&address);
	}
	if (argc != 5 || inet_pton(AF_INET, argv[2], &address.sin_addr) != 1)
		errx(2, "usage: traffic serve PORT | traffic requests|connections ADDRESS PORT COUNT");
	address.sin_port = htons((uint16_t)atoi(argv[3]));
	long count = atol(argv[4]);
	bool is_connections = strcmp(argv[1], "connections") == 0;
	int fd = dial(&address);
	ask(fd);
	if (is_connections)
		reset(fd);
	long before = nanoseconds();
	for (long i = 0; i < count; i++) {
		if (is_connections)
			fd = dial(&address);
		ask(fd);
		if (is_connections)
			reset(fd);
	}
	printf("%ld\n", (nanoseconds() - before) / count);
	return 0;
}
