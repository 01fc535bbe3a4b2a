/* The plugin in the runtime's binary directory. See binary.h; the test run of a plugin is in binary_try.c. */
#include "installer/host/binary.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"
#include "installer/host/host.h"
#include "installer/host/replace.h"

#define MODE 0755
#define BLOCK 65536
#define CONTEXT_ATTRIBUTE "security.selinux"
#define CONTEXT_MAX 512

static bool is_unchanged(const struct stat *a, const struct stat *b)
{
	return replacement_same_file(a, b) && a->st_mode == b->st_mode && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Reads until the block is full or the file ends. */
static ssize_t read_block(int fd, char *block)
{
	size_t length = 0;
	while (length < BLOCK) {
		ssize_t got = read(fd, block + length, BLOCK - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		length += (size_t)got;
	}
	return (ssize_t)length;
}

static int compare(int source, int target, bool *ret_equal)
{
	char a[BLOCK], b[BLOCK];
	for (;;) {
		ssize_t a_length = read_block(source, a), b_length = read_block(target, b);
		if (a_length < 0 || b_length < 0)
			return -1;
		if (a_length != b_length || memcmp(a, b, (size_t)a_length) != 0) {
			*ret_equal = false;
			return 0;
		}
		if (a_length == 0) {
			*ret_equal = true;
			return 0;
		}
	}
}

/* The security context of a file, without a NUL at its end; 0: it has none. */
static size_t read_context(int directory, const char *name, char context[CONTEXT_MAX])
{
	cleanup_close int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	ssize_t length = fd < 0 ? -1 : fgetxattr(fd, CONTEXT_ATTRIBUTE, context, CONTEXT_MAX);
	return length > 0 ? (size_t)length : 0;
}

/* A plugin that its distribution put there, and labelled: any executable file. */
static size_t neighbour_context(int directory, char context[CONTEXT_MAX])
{
	cleanup_closedir DIR *stream = file_list_directory(directory);
	size_t length = 0;
	if (!stream)
		return 0;
	for (const struct dirent *entry; length == 0 && (entry = readdir(stream));) {
		struct stat status;
		if (entry->d_name[0] != '.' && fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(status.st_mode) && (status.st_mode & S_IXUSR))
			length = read_context(directory, entry->d_name, context);
	}
	return length;
}

/* What a container makes gets the container's context, which a runtime's domain may not execute. Where there is no SELinux, no
 * file has one and nothing is set; where setting is not allowed, the directory's rule stands. */
static void keep_context(int directory, const char *name, int fd)
{
	char context[CONTEXT_MAX];
	size_t length = read_context(directory, name, context);
	if (length == 0)
		length = neighbour_context(directory, context);
	if (length > 0)
		(void)!fsetxattr(fd, CONTEXT_ATTRIBUTE, context, length, 0);
}

static int copy_content(int source, struct replacement *replacement, struct error *error)
{
	char block[BLOCK];
	for (;;) {
		ssize_t length = read_block(source, block);
		if (length < 0)
			return error_set(error, errno, "cannot read the plugin to install");
		if (length == 0)
			return 0;
		if (replacement_write(replacement, block, (size_t)length, error) < 0)
			return -1;
	}
}

static bool cannot_be_written(int number)
{
	return number == EROFS || number == EACCES || number == EPERM;
}

/* 1: the directory can't be written. 0: `ret_status` is of the file that was written, whoever has its name by now. */
static int write_binary(int source, const char *bin_dir, int directory, struct error *error, struct stat *ret_status)
{
	cleanup_replacement struct replacement replacement = { .fd = -1, .lock = -1 };
	cleanup_free char *path = NULL;
	if (lseek(source, 0, SEEK_SET) < 0)
		return error_set(error, errno, "cannot read the plugin to install");
	struct error problem = { 0 };
	if (replacement_begin(directory, HOST_PLUGIN_NAME, MODE, &problem, &replacement) < 0)
		return cannot_be_written(problem.number) ? 1 : error_copy(error, &problem);
	keep_context(directory, HOST_PLUGIN_NAME, replacement.fd);
	if (copy_content(source, &replacement, error) < 0 || replacement_sync(&replacement, error) < 0 ||
	    file_join(bin_dir, replacement.temporary, error, &path) < 0)
		return -1;
	if (binary_try(path, error) < 0)
		return error_wrap(error, "the new plugin does not run on this host, the old one stays");
	if (replacement_commit(&replacement, NULL, error) < 0)
		return -1;
	return fstat(replacement.lock, ret_status) < 0 ? error_set(error, errno, "cannot look at the plugin that was written")
						       : 0;
}

/* Where nothing can be written: what is preinstalled will do when it is the same version. */
static int accept_preinstalled(const char *source_path, const char *target_path, const char *bin_dir, struct error *error)
{
	char ours[128], theirs[128];
	struct error problem = { 0 };
	if (binary_version(source_path, error, ours, sizeof ours) < 0)
		return -1;
	if (access(target_path, F_OK) < 0)
		return error_say(error, EROFS,
				 "%s can't be written and has no " HOST_PLUGIN_NAME
				 ": make it writable, or preinstall version %s",
				 bin_dir, ours);
	if (binary_version(target_path, &problem, theirs, sizeof theirs) < 0)
		return error_say(error, EROFS, "%s can't be written, and what stands there is not usable: %s", bin_dir,
				 problem.message);
	if (strcmp(ours, theirs) != 0)
		return error_say(error, EROFS, "%s can't be written and holds version %s, not %s: preinstall that one", bin_dir,
				 theirs, ours);
	return binary_try(target_path, error);
}

int binary_install(const char *bin_source, const char *bin_dir, struct binary_seen *seen, struct error *error,
		   bool *ret_written)
{
	cleanup_free char *source_path = NULL, *target_path = NULL;
	if (file_join(bin_source, HOST_PLUGIN_NAME, error, &source_path) < 0 ||
	    file_join(bin_dir, HOST_PLUGIN_NAME, error, &target_path) < 0)
		return -1;
	cleanup_close int directory = open(bin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0)
		return error_set(error, errno, "cannot open the binary directory %s", bin_dir);
	cleanup_close int source = open(source_path, O_RDONLY | O_CLOEXEC);
	struct stat source_status, target_status;
	if (source < 0 || fstat(source, &source_status) < 0)
		return error_say(error, EINVAL, "cannot read the plugin to install, %s: %s", source_path, strerror(errno));
	/* A link under our name is replaced: who made it can't mean another plugin. */
	cleanup_close int target = openat(directory, HOST_PLUGIN_NAME, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	bool is_file = target >= 0 && fstat(target, &target_status) == 0 && S_ISREG(target_status.st_mode);
	if (is_file && seen->is_good && is_unchanged(&seen->source, &source_status) &&
	    is_unchanged(&seen->target, &target_status)) {
		*ret_written = false;
		return 0;
	}

	seen->is_good = false;
	replacement_sweep(directory);
	bool is_equal = false, is_written = false;
	if (is_file && target_status.st_size == source_status.st_size && compare(source, target, &is_equal) < 0)
		return error_set(error, errno, "cannot compare %s with %s", target_path, source_path);
	if (is_equal && (target_status.st_mode & 07777) != MODE) {
		if (fchmod(target, MODE) < 0 && (target_status.st_mode & 0555) != 0555)
			return error_set(error, errno, "cannot make %s executable", target_path);
		is_written = true;
	}
	if (is_equal && binary_try(target_path, error) < 0)
		return -1;
	if (is_equal && fstat(target, &target_status) < 0)
		return error_set(error, errno, "cannot look at %s", target_path);
	if (!is_equal) {
		int result = write_binary(source, bin_dir, directory, error, &target_status);
		if (result < 0)
			return error_wrap(error, "cannot install the plugin in %s", bin_dir);
		if (result == 1 && accept_preinstalled(source_path, target_path, bin_dir, error) < 0)
			return -1;
		is_written = result == 0;
	}
	/* Never what has the name by now: it may be another's already. */
	if (is_file || is_written)
		*seen = (struct binary_seen){ .is_good = true, .source = source_status, .target = target_status };
	*ret_written = is_written;
	return 0;
}

int binary_remove(const char *bin_dir, struct error *error, bool *ret_removed)
{
	cleanup_close int directory = open(bin_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		*ret_removed = false;
		return 0;
	}
	if (directory < 0)
		return error_set(error, errno, "cannot open the binary directory %s", bin_dir);
	replacement_sweep(directory);
	bool removed = unlinkat(directory, HOST_PLUGIN_NAME, 0) == 0;
	if (!removed && errno != ENOENT)
		return error_set(error, errno, "cannot remove %s/" HOST_PLUGIN_NAME, bin_dir);
	*ret_removed = removed;
	return 0;
}
