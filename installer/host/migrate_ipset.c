/* The ipsets of istio-cni's host rule, over nfnetlink (linux/netfilter/ipset/ip_set.h). */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "installer/host/migrate_parts.h"

/* A rule that was just deleted gives its set back only when the kernel's garbage collector has run. */
#define BUSY_ATTEMPTS 200
#define BUSY_PAUSE 5000000

static const char *const names[] = { "istio-inpod-probes-v4", "istio-inpod-probes-v6" };

/* 0, or -1 with errno. */
static int request(struct mnl_socket *socket, uint16_t command, const char *name, uint32_t sequence)
{
	char buffer[8192] = { 0 };
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = (uint16_t)(NFNL_SUBSYS_IPSET << 8 | command);
	header->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	header->nlmsg_seq = sequence;
	struct nfgenmsg *message = mnl_nlmsg_put_extra_header(header, sizeof *message);
	message->nfgen_family = AF_INET;
	message->version = NFNETLINK_V0;
	mnl_attr_put_u8(header, IPSET_ATTR_PROTOCOL, 6); /* the oldest that all kernels of these years speak */
	mnl_attr_put_strz(header, IPSET_ATTR_SETNAME, name);
	if (mnl_socket_sendto(socket, header, header->nlmsg_len) < 0)
		return -1;
	for (;;) {
		ssize_t received = mnl_socket_recvfrom(socket, buffer, sizeof buffer);
		if (received < 0 && errno == EINTR)
			continue;
		if (received < 0)
			return -1;
		int result = mnl_cb_run(buffer, (size_t)received, sequence, mnl_socket_get_portid(socket), NULL, NULL);
		if (result <= MNL_CB_STOP)
			return result;
	}
}

static int destroy(struct mnl_socket *socket, const char *name, struct error *error)
{
	for (uint32_t attempt = 1;; attempt++) {
		if (request(socket, IPSET_CMD_DESTROY, name, 100 + attempt) == 0 || errno == ENOENT)
			return 0;
		if (errno != IPSET_ERR_BUSY || attempt == BUSY_ATTEMPTS)
			return error_set(error, errno == IPSET_ERR_BUSY ? EBUSY : errno, "cannot remove the ipset %s", name);
		nanosleep(&(struct timespec){ .tv_nsec = BUSY_PAUSE }, NULL);
	}
}

int migrate_ipsets(int netns_fd, bool is_removing, struct error *error, bool *ret_found)
{
	/* Asking would load the module. */
	if (access("/sys/module/ip_set", F_OK) < 0) {
		*ret_found = false;
		return 0;
	}
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	if (netns_enter(netns_fd, error, &visit) < 0)
		return -1;
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
	int number = errno;
	netns_leave(&visit);
	if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		if (socket)
			mnl_socket_close(socket);
		return error_set(error, number, "cannot open a netfilter socket");
	}
	bool found = false;
	int result = 0;
	for (uint32_t i = 0; i < sizeof names / sizeof names[0] && result == 0; i++) {
		if (request(socket, IPSET_CMD_HEADER, names[i], i + 1) < 0)
			continue;
		found = true;
		if (is_removing)
			result = destroy(socket, names[i], error);
	}
	mnl_socket_close(socket);
	if (result == 0)
		*ret_found = found;
	return result;
}
