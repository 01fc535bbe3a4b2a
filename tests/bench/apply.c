/* A redirection into a fresh network namespace, by the library and by hand:
 *
 *     apply PAIRS        prints a line "by-hand library" in nanoseconds for each pair
 *     apply --leaks N    N namespaces get a redirection, are verified, replaced, and lose it again; prints what is left
 *
 * By hand: enter the namespace, open and bind the two sockets, send the very bytes that the library sends, read the answers,
 * come back and close. Nothing is built, asked or checked: the least that this work can cost. The bytes are recorded from the
 * library's own sendto(2), which this program stands in for. */
#include "tests/bench/fresh_netns.h"

#include <dirent.h>
#include <linux/netlink.h>
#include <malloc.h>
#include <sys/syscall.h>

#include "ambient/cleanup.h"
#include "ambient/redirect.h"

#define WARM_UP 10

/* The packets of one redirect_apply. */
static struct packet {
	int protocol; /* NETLINK_NETFILTER or NETLINK_ROUTE */
	size_t length;
	char *bytes;
	bool is_batch; /* answered by one acknowledgement, whatever it holds */
} packets[8];
static size_t packets_count;
static bool is_recording;

/* Stands before the C library's: libmnl and libnl send through it. */
// NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name) the C library's are reserved names
ssize_t sendto(int fd, const void *bytes, size_t length, int flags, const struct sockaddr *address, socklen_t address_length)
{
	if (is_recording && packets_count < sizeof packets / sizeof packets[0]) {
		struct packet *packet = &packets[packets_count++];
		socklen_t size = sizeof packet->protocol;
		getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &packet->protocol, &size);
		packet->bytes = memcpy(malloc(length), bytes, length);
		packet->length = length;
		packet->is_batch = packet->protocol == NETLINK_NETFILTER && length > 64;
	}
	return syscall(SYS_sendto, fd, bytes, length, flags, address, address_length);
}

static int open_netlink(int protocol)
{
	const struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
	if (fd < 0 || bind(fd, (const struct sockaddr *)&any, sizeof any) < 0)
		err(1, "cannot open a netlink socket");
	return fd;
}

/* Sends, and reads as many answers as there are messages that ask for one. */
static void exchange(int fd, const struct packet *packet)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	if (syscall(SYS_sendto, fd, packet->bytes, packet->length, 0, &kernel, sizeof kernel) < 0)
		err(1, "cannot send");
	size_t wanted = 0, left = packet->length;
	for (const struct nlmsghdr *header = (const struct nlmsghdr *)packet->bytes; left > 0;
	     header = (const struct nlmsghdr *)((const char *)header + NLMSG_ALIGN(header->nlmsg_len))) {
		wanted += (header->nlmsg_flags & NLM_F_ACK) != 0;
		left -= NLMSG_ALIGN(header->nlmsg_len) < left ? NLMSG_ALIGN(header->nlmsg_len) : left;
	}
	while (wanted > 0) {
		char buffer[16384];
		ssize_t got = recv(fd, buffer, sizeof buffer, 0);
		if (got < 0)
			err(1, "cannot read an answer");
		int rest = (int)got;
		for (const struct nlmsghdr *header = (const struct nlmsghdr *)buffer; NLMSG_OK(header, rest);
		     header = NLMSG_NEXT(header, rest)) {
			const struct nlmsgerr *answer = NLMSG_DATA(header);
			if (header->nlmsg_type != NLMSG_ERROR || answer->error != 0)
				errx(1, "the kernel refused the recorded messages: %s", strerror(-answer->error));
			wanted--;
		}
	}
}

static long by_hand(int netns)
{
	long before = nanoseconds();
	int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (home < 0 || setns(netns, CLONE_NEWNET) < 0)
		err(1, "cannot enter the namespace");
	int netfilter = open_netlink(NETLINK_NETFILTER), route = open_netlink(NETLINK_ROUTE);
	for (size_t i = 0; i < packets_count; i++)
		if (packets[i].protocol == NETLINK_ROUTE || packets[i].is_batch)
			exchange(packets[i].protocol == NETLINK_ROUTE ? route : netfilter, &packets[i]);
	if (setns(home, CLONE_NEWNET) < 0)
		err(1, "cannot come back");
	close(home);
	close(netfilter);
	close(route);
	return nanoseconds() - before;
}

static long by_library(int netns)
{
	struct redirect redirect;
	struct error error = { 0 };
	struct redirect_session *session = NULL;
	long before = nanoseconds();
	redirect_init(&redirect);
	if (redirect_session_open(netns, &error, &session) < 0 ||
	    redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, &error) < 0)
		errx(1, "%s", error.message);
	redirect_session_close(session);
	return nanoseconds() - before;
}

/* The recorded messages make what the library makes. */
static void check_by_hand(int netns)
{
	struct redirect redirect;
	struct error error = { 0 };
	struct redirect_session *session = NULL;
	struct redirect_difference difference;
	redirect_init(&redirect);
	if (redirect_session_open(netns, &error, &session) < 0 ||
	    redirect_verify(session, &redirect, REDIRECT_STAGE_FULL, &error, &difference) < 0)
		errx(1, "%s", error.message);
	if (difference.text[0] != '\0')
		errx(1, "the recorded messages do not make the redirection: %s", difference.text);
	redirect_session_close(session);
}

static int count_descriptors(void)
{
	int count = 0;
	DIR *directory = opendir("/proc/self/fd");
	while (directory && readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static long resident_kilobytes(void)
{
	long total = 0, resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");
	if (!file || fscanf(file, "%ld %ld", &total, &resident) != 2)
		err(1, "cannot read /proc/self/statm");
	fclose(file);
	return resident * sysconf(_SC_PAGESIZE) / 1024;
}

/* One whole life; counts what stands afterwards. */
static int live(int netns)
{
	struct redirect redirect;
	struct error error = { 0 };
	struct redirect_session *session = NULL;
	struct redirect_difference difference, after;
	redirect_init(&redirect);
	if (redirect_session_open(netns, &error, &session) < 0 ||
	    redirect_apply(session, &redirect, REDIRECT_STAGE_FULL, &error) < 0 ||
	    redirect_verify(session, &redirect, REDIRECT_STAGE_FULL, &error, &difference) < 0 ||
	    redirect_apply(session, &redirect, REDIRECT_STAGE_GUARD, &error) < 0 || redirect_remove(session, &error) < 0 ||
	    redirect_verify(session, &redirect, REDIRECT_STAGE_GUARD, &error, &after) < 0)
		errx(1, "%s", error.message);
	redirect_session_close(session);
	if (difference.text[0] != '\0')
		errx(1, "%s", difference.text);
	return strcmp(after.text, "table inet " REDIRECT_TABLE " is missing") != 0;
}

static int measure_leaks(int count)
{
	int netns[16];
	for (int i = 0; i < WARM_UP; i++)
		live(netns[i] = fresh_netns());
	for (int i = 0; i < WARM_UP; i++)
		close(netns[i]);
	/* The allocator keeps what was freed for the next time: both questions are asked once before they count. */
	count_descriptors();
	resident_kilobytes();
	int descriptors = count_descriptors(), left = 0;
	size_t heap = mallinfo2().uordblks;
	long resident = resident_kilobytes();
	for (int i = 0; i < count; i++) {
		int fd = fresh_netns();
		left += live(fd);
		close(fd);
	}
	printf("%d %ld %ld %d\n", count_descriptors() - descriptors, (long)(mallinfo2().uordblks - heap),
	       resident_kilobytes() - resident, left);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--leaks") == 0)
		return measure_leaks(atoi(argv[2]));
	if (argc != 2)
		errx(2, "usage: apply PAIRS | apply --leaks COUNT");
	int pairs = atoi(argv[1]);
	allow_many_descriptors();
	is_recording = true;
	by_library(fresh_netns());
	is_recording = false;
	int first = fresh_netns();
	by_hand(first);
	check_by_hand(first);
	for (int i = -WARM_UP; i < pairs; i++) {
		int hand = fresh_netns(), library = fresh_netns();
		long hand_took = by_hand(hand), library_took = by_library(library);
		if (i >= 0)
			printf("%ld %ld\n", hand_took, library_took);
	}
	return 0;
}
