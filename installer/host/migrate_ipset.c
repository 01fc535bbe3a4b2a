/* The ipsets of istio-cni's host rule, over nfnetlink (linux/netfilter/ipset/ip_set.h).
 *
 * No such set is what the kernel calls so, and nothing else:
 *
 *   ENOENT  ip_set knows no set of that name (ip_set_header and ip_set_destroy in ip_set_core.c)
 *   EINVAL  nfnetlink knows no ip_set (nfnetlink_rcv_msg: no such subsystem, not after asking for its module either). Where
 *           ip_set is known to be there it is a refusal like any other.
 *
 * ip_set has errors of its own above 4096, which strerror(3) has no words for. */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/ipset/ip_set.h>
#include <linux/netfilter/nfnetlink.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#include "ambient/netlink.h"
#include "installer/host/migrate_parts.h"

/* A rule that was just deleted gives its set back only when the kernel's garbage collector has run. */
#define BUSY_ATTEMPTS 200
#define BUSY_PAUSE 5000000

#define PROTOCOL 6 /* the oldest that all kernels of these years speak */

static const char *const names[] = { "istio-inpod-probes-v4", "istio-inpod-probes-v6" };

enum kernel_part { PART_THERE, PART_MISSING, PART_UNKNOWN };

/* ip_set has a parameter, so that it is listed where it is built in, too. */
static enum kernel_part look_for_ip_set(void)
{
	if (access("/sys/module/ip_set", F_OK) == 0)
		return PART_THERE;
	/* Without sysfs nothing is listed. */
	return errno == ENOENT && access("/sys/module", F_OK) == 0 ? PART_MISSING : PART_UNKNOWN;
}

/* 0, or the kernel's errno. */
static int request(struct mnl_socket *socket, uint16_t command, const char *name)
{
	char buffer[256] = { 0 };
	struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
	header->nlmsg_type = (uint16_t)(NFNL_SUBSYS_IPSET << 8 | command);
	struct nfgenmsg *message = mnl_nlmsg_put_extra_header(header, sizeof *message);
	message->nfgen_family = AF_INET;
	message->version = NFNETLINK_V0;
	mnl_attr_put_u8(header, IPSET_ATTR_PROTOCOL, PROTOCOL);
	mnl_attr_put_strz(header, IPSET_ATTR_SETNAME, name);
	return netlink_request(socket, header);
}

static int refuse(struct error *error, int number, const char *step, const char *name)
{
	if (number == IPSET_ERR_BUSY)
		return error_set(error, EBUSY, "cannot %s the ipset %s, which a rule or a list uses", step, name);
	if (number == IPSET_ERR_PROTOCOL)
		return error_set(error, EPROTONOSUPPORT, "cannot %s the ipset %s by protocol %d of ip_set", step, name,
				 PROTOCOL);
	if (number > IPSET_ERR_PRIVATE)
		return error_set(error, EPROTO, "cannot %s the ipset %s (error %d of ip_set)", step, name, number);
	return error_set(error, number, "cannot %s the ipset %s", step, name);
}

static int look_for(struct mnl_socket *socket, const char *name, enum kernel_part ip_set, struct error *error, bool *ret_found)
{
	int number = request(socket, IPSET_CMD_HEADER, name);
	bool is_missing = number == ENOENT || (number == EINVAL && ip_set == PART_UNKNOWN);
	if (number != 0 && !is_missing)
		return refuse(error, number, "look for", name);
	*ret_found = !is_missing;
	return 0;
}

static int destroy(struct mnl_socket *socket, const char *name, struct error *error)
{
	for (int attempt = 1;; attempt++) {
		int number = request(socket, IPSET_CMD_DESTROY, name);
		/* Somebody else was first. */
		if (number == 0 || number == ENOENT)
			return 0;
		if (number != IPSET_ERR_BUSY || attempt == BUSY_ATTEMPTS)
			return refuse(error, number, "remove", name);
		nanosleep(&(struct timespec){ .tv_nsec = BUSY_PAUSE }, NULL);
	}
}

int migrate_ipsets(int netns_fd, bool is_removing, struct error *error, bool *ret_found)
{
	/* Asking would load the module. */
	enum kernel_part ip_set = look_for_ip_set();
	bool found = false;
	cleanup_netlink struct mnl_socket *socket = NULL;
	if (ip_set != PART_MISSING && netlink_open(netns_fd, NETLINK_NETFILTER, error, &socket) < 0)
		return error_wrap(error, "cannot look for the ipsets of istio-cni");
	for (size_t i = 0; i < sizeof names / sizeof names[0] && socket; i++) {
		bool is_there = false;
		if (look_for(socket, names[i], ip_set, error, &is_there) < 0 ||
		    (is_removing && is_there && destroy(socket, names[i], error) < 0))
			return -1;
		found |= is_there;
	}
	*ret_found = found;
	return 0;
}
