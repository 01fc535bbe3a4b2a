/* istio-cni's chains in the legacy x_tables of a namespace. They are only looked at: replacing an x_tables table means to write
 * all of it, counters and other people's rules included, which is iptables-legacy's to do. */
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "installer/host/migrate_parts.h"

#define ENTRIES_MAX (64 << 20)

struct family {
	int domain, level, get_info, get_entries;
	const char *names;		   /* the file that lists the tables that exist: asking for another would make it */
	size_t target_offset, next_offset; /* in an entry */
};

static const struct family families[] = {
	{ AF_INET, SOL_IP, IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, "/proc/thread-self/net/ip_tables_names",
	  offsetof(struct ipt_entry, target_offset), offsetof(struct ipt_entry, next_offset) },
	{ AF_INET6, SOL_IPV6, IP6T_SO_GET_INFO, IP6T_SO_GET_ENTRIES, "/proc/thread-self/net/ip6_tables_names",
	  offsetof(struct ip6t_entry, target_offset), offsetof(struct ip6t_entry, next_offset) },
};

struct seen {
	enum migrate_place place;
	bool has_ambient, has_sidecar;
};

/* A user's chain begins with an entry whose target is "ERROR" and holds the chain's name. */
static void see_entries(const struct family *family, const char *entries, size_t size, struct seen *seen)
{
	size_t smallest = family->domain == AF_INET ? sizeof(struct ipt_entry) : sizeof(struct ip6t_entry);
	for (size_t offset = 0; offset + smallest <= size;) {
		uint16_t target_offset, next_offset;
		memcpy(&target_offset, entries + offset + family->target_offset, sizeof target_offset);
		memcpy(&next_offset, entries + offset + family->next_offset, sizeof next_offset);
		if (next_offset < smallest || offset + next_offset > size)
			return;
		struct xt_error_target target;
		if ((size_t)target_offset + sizeof target <= next_offset) {
			memcpy(&target, entries + offset + target_offset, sizeof target);
			target.target.u.user.name[sizeof target.target.u.user.name - 1] = '\0';
			target.errorname[sizeof target.errorname - 1] = '\0';
			if (strcmp(target.target.u.user.name, XT_ERROR_TARGET) == 0) {
				seen->has_ambient |= migrate_is_ambient_chain(target.errorname, seen->place);
				seen->has_sidecar |= migrate_is_sidecar_chain(target.errorname);
			}
		}
		offset += next_offset;
	}
}

/* ipt_getinfo and ip6t_getinfo are of one layout; so are the two *_get_entries. */
static int see_table(const struct family *family, int fd, const char *table, struct error *error, struct seen *seen)
{
	/* The table can grow between the two questions. */
	for (int attempt = 0; attempt < 16; attempt++) {
		struct ipt_getinfo info = { 0 };
		socklen_t length = sizeof info;
		snprintf(info.name, sizeof info.name, "%.31s", table);
		if (getsockopt(fd, family->level, family->get_info, &info, &length) < 0)
			return errno == ENOENT || errno == ENOPROTOOPT
				       ? 0
				       : error_set(error, errno, "cannot read legacy table %s", table);
		if (info.size > ENTRIES_MAX)
			return error_say(error, EFBIG, "cannot read legacy table %s: it is too large", table);
		length = (socklen_t)(sizeof(struct ipt_get_entries) + info.size);
		cleanup_free struct ipt_get_entries *entries = calloc(1, length);
		if (!entries)
			return error_set(error, ENOMEM, "cannot read legacy table %s", table);
		snprintf(entries->name, sizeof entries->name, "%.31s", table);
		entries->size = info.size;
		if (getsockopt(fd, family->level, family->get_entries, entries, &length) == 0) {
			see_entries(family, (const char *)entries->entrytable, info.size, seen);
			return 0;
		}
		if (errno != EAGAIN)
			return error_set(error, errno, "cannot read legacy table %s", table);
	}
	return error_set(error, EAGAIN, "cannot read legacy table %s", table);
}

static int see_family(const struct family *family, struct error *error, struct seen *seen)
{
	cleanup_fclose FILE *names = fopen(family->names, "re");
	cleanup_close int fd = -1;
	char line[64];
	if (!names)
		return 0;
	while (fgets(line, sizeof line, names)) {
		line[strcspn(line, "\n")] = '\0';
		if (strcmp(line, "nat") != 0 && strcmp(line, "mangle") != 0 && strcmp(line, "raw") != 0)
			continue;
		if (fd < 0)
			fd = socket(family->domain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
		if (fd < 0)
			return error_set(error, errno, "cannot open a socket to read legacy tables");
		if (see_table(family, fd, line, error, seen) < 0)
			return -1;
	}
	return 0;
}

int migrate_detect_legacy(int netns_fd, enum migrate_place place, struct error *error, struct migrate_found *found)
{
	struct seen seen = { .place = place };
	cleanup_netns_leave struct netns_visit visit = { .home = -1 };
	if (netns_enter(netns_fd, error, &visit) < 0)
		return -1;
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
		if (see_family(&families[i], error, &seen) < 0)
			return -1;
	found->legacy = seen.has_ambient && !seen.has_sidecar;
	if (!found->legacy)
		return 0;
	/* The host's tables are everybody's: only what is istio-cni's is named. A pod's are few, and saved and restored as a
	 * whole. */
	snprintf(found->legacy_command, sizeof found->legacy_command, "%s",
		 place == MIGRATE_HOST
			 ? "for i in iptables-legacy ip6tables-legacy; do $i -w -t nat -D POSTROUTING -j ISTIO_POSTRT; "
			   "$i -w -t nat -F ISTIO_POSTRT; $i -w -t nat -X ISTIO_POSTRT; done"
			 : "nsenter --net=PATH sh -c 'for i in iptables-legacy ip6tables-legacy; do $i-save | grep -v ISTIO_ | "
			   "$i-restore; done'");
	return 0;
}
