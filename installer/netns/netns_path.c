/* The network namespace that a path names. See netns_path.h. */
#include "installer/netns/netns_path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"

/* What follows `prefix` and a slash in `path`; NULL: the path is elsewhere. */
static const char *below(const char *path, const char *prefix)
{
	size_t length = strlen(prefix);
	while (length > 1 && prefix[length - 1] == '/')
		length--;
	if (length == 0 || strncmp(path, prefix, length) != 0 || path[length] != '/')
		return NULL;
	return path + length + 1;
}

static bool goes_up(const char *path)
{
	for (const char *part = path; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0'))
			return true;
	}
	return false;
}

static int open_in_directory(const char *directory, const char *name, struct error *error, int *ret_netns)
{
	cleanup_free char *path = NULL;
	if (file_join(directory, name, error, &path) < 0)
		return -1;
	return netns_open(path, error, ret_netns);
}

/* Symbolic links are followed as the host's processes would: its /var/run is often an absolute link to /run. */
static int open_below_host_root(const char *path, const char *proc_dir, struct error *error, int *ret_netns)
{
	cleanup_free char *root_path = NULL;
	if (file_join(proc_dir, "1/root", error, &root_path) < 0)
		return -1;
	cleanup_close int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return netns_open(path, error, ret_netns);
	struct open_how how = { .flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, .resolve = RESOLVE_IN_ROOT };
	cleanup_close int netns = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
	if (netns < 0 && errno == ENOSYS) {
		/* Before Linux 5.6: an absolute link on the way leads astray, which ends as a path that is not there. */
		return open_in_directory(root_path, path + 1, error, ret_netns);
	}
	if (netns < 0)
		return error_set(error, errno, "cannot open network namespace %s on the host", path);
	if (netns_check(netns, error) < 0)
		return error_wrap(error, "cannot use %s on the host as a network namespace", path);
	*ret_netns = steal_fd(&netns);
	return 0;
}

int netns_path_open(const char *path, const char *proc_dir, const char *netns_dir, const struct netns_id *host,
		    struct error *error, int *ret_netns)
{
	cleanup_close int netns = -1;
	struct netns_id id = { 0 };
	const char *name;
	int opened;

	if (path[0] == '\0' || goes_up(path))
		return error_say(error, EINVAL,
				 "\"%s\" is no path of a network namespace: expected a name or an absolute path "
				 "without \"..\"",
				 path);
	if (path[0] != '/')
		opened = open_in_directory(netns_dir, path, error, &netns);
	else if (below(path, netns_dir))
		opened = netns_open(path, error, &netns);
	else if ((name = below(path, "/var/run/netns")) || (name = below(path, "/run/netns")))
		opened = open_in_directory(netns_dir, name, error, &netns);
	else if ((name = below(path, "/proc")))
		opened = open_in_directory(proc_dir, name, error, &netns);
	else
		opened = open_below_host_root(path, proc_dir, error, &netns);
	if (opened < 0 || netns_identify(netns, error, &id) < 0)
		return -1;
	if (netns_id_equal(id, *host))
		return error_say(error, EPERM, "network namespace %s is the host's own", path);
	*ret_netns = steal_fd(&netns);
	return 0;
}
