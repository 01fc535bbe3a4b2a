/* The fastest node tunnel there can be, on ZDS's other end (installer/tunnel/zds.proto): it says hello and accepts each request
 * at once, and does nothing else. What an ADD takes beside it is the plugin's and the agent's time alone.
 *
 *     tunnel SOCKET
 *
 * Dials until somebody listens, and says "ready" on standard output when the first snapshot is through. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/un.h>

#include "tests/bench/fresh_netns.h"

#define SNAPSHOT_SENT 0x1A /* the first byte of such a WorkloadRequest */

static int dial(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct timespec pause = { .tv_nsec = 2000000 };
	if (strlen(path) >= sizeof address.sun_path)
		errx(2, "%s is too long", path);
	memcpy(address.sun_path, path, strlen(path));
	for (;;) {
		int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		if (fd < 0)
			err(1, "cannot open a socket");
		if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
			return fd;
		close(fd);
		nanosleep(&pause, NULL);
	}
}

/* Closes what came; ztunnel keeps it, but its place in the pod is not what is measured. */
static void close_received(struct msghdr *message)
{
	for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
		int fds[4];
		size_t length = part->cmsg_len - CMSG_LEN(0);
		if (part->cmsg_type != SCM_RIGHTS || length > sizeof fds)
			errx(1, "an unexpected control message");
		memcpy(fds, CMSG_DATA(part), length);
		for (size_t i = 0; i < length / sizeof *fds; i++)
			close(fds[i]);
	}
}

int main(int argc, char **argv)
{
	static const char hello[] = { 0x08, 0x01 }, accepted[] = { 0x0A, 0x00 };
	bool is_ready = false;
	if (argc != 2)
		errx(2, "usage: tunnel SOCKET");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		int fd = dial(argv[1]);
		ssize_t got = send(fd, hello, sizeof hello, MSG_NOSIGNAL);
		while (got > 0) {
			char request[1024], control[CMSG_SPACE(4 * sizeof(int))];
			struct iovec bytes = { .iov_base = request, .iov_len = sizeof request };
			struct msghdr message = {
				.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control
			};
			got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
			if (got <= 0)
				break;
			close_received(&message);
			got = send(fd, accepted, sizeof accepted, MSG_NOSIGNAL);
			if (request[0] == SNAPSHOT_SENT && !is_ready) {
				is_ready = true;
				puts("ready");
				fflush(stdout);
			}
		}
		close(fd);
	}
}
