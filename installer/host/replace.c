/* Files of a directory replaced in one step. See replace.h. */
#include "installer/host/replace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"

bool replacement_same_file(const struct stat *a, const struct stat *b)
{
	/* ctime moves with every change of content, mode or links; rename(2) moves it on some file systems too. */
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* 1: a sweeper took it for a leftover in the moment before it was locked. */
static int try_begin(struct replacement *replacement, mode_t mode, struct error *error)
{
	uint64_t random = 0;
	struct stat status;
	if (getrandom(&random, sizeof random, 0) != sizeof random)
		return error_set(error, errno, "cannot name a temporary file");
	/* The dot hides it from people; a long name is cut, which changes nothing: it only helps whoever finds it. */
	char temporary[256];
	snprintf(temporary, sizeof temporary, ".%.128s.%016llx" REPLACEMENT_SUFFIX, replacement->name,
		 (unsigned long long)random);
	replacement->fd = openat(replacement->directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (replacement->fd < 0)
		return error_set(error, errno, "cannot write %s", replacement->name);
	snprintf(replacement->temporary, sizeof replacement->temporary, "%s", temporary);
	replacement->lock = openat(replacement->directory, temporary, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (replacement->lock < 0 || flock(replacement->lock, LOCK_EX | LOCK_NB) < 0)
		return errno == ENOENT || errno == EWOULDBLOCK ? 1
							       : error_set(error, errno, "cannot write %s", replacement->name);
	/* fchmod: the mode is the caller's, whatever the umask. */
	if (fchmod(replacement->fd, mode) < 0 || fstat(replacement->fd, &status) < 0)
		return error_set(error, errno, "cannot write %s", replacement->name);
	return status.st_nlink == 0 ? 1 : 0;
}

int replacement_begin(int directory, const char *name, mode_t mode, struct error *error, struct replacement *ret_replacement)
{
	for (int attempt = 0; attempt < 8; attempt++) {
		cleanup_replacement struct replacement replacement = { .directory = directory, .fd = -1, .lock = -1 };
		snprintf(replacement.name, sizeof replacement.name, "%s", name);
		int result = try_begin(&replacement, mode, error);
		if (result < 0)
			return -1;
		if (result == 0) {
			*ret_replacement = replacement;
			replacement = (struct replacement){ .fd = -1, .lock = -1 };
			return 0;
		}
	}
	return error_set(error, EAGAIN, "cannot write %s", name);
}

int replacement_write(struct replacement *replacement, const void *data, size_t length, struct error *error)
{
	for (const char *left = data; length > 0;) {
		ssize_t written = write(replacement->fd, left, length);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return error_set(error, errno, "cannot write %s, which stays as it was", replacement->name);
		left += written;
		length -= (size_t)written;
	}
	return 0;
}

int replacement_sync(struct replacement *replacement, struct error *error)
{
	if (fsync(replacement->fd) < 0)
		return error_set(error, errno, "cannot write %s, which stays as it was", replacement->name);
	/* Network file systems tell a full disk here. */
	int fd = steal_fd(&replacement->fd);
	if (close(fd) < 0)
		return error_set(error, errno, "cannot write %s, which stays as it was", replacement->name);
	return 0;
}

static int changed_meanwhile(const struct replacement *replacement, struct error *error)
{
	return error_say(error, EAGAIN, "%s was written by somebody else at the same moment", replacement->name);
}

/* Swaps the two names and looks at what came out: nobody's work is lost between a look and a rename. 1: this file system can't.
 */
static int commit_over(struct replacement *replacement, const struct stat *expected, struct error *error)
{
	const char *temporary = replacement->temporary, *name = replacement->name;
	int directory = replacement->directory;
	struct stat before;
	if (fstatat(directory, name, &before, AT_SYMLINK_NOFOLLOW) < 0 || !replacement_same_file(&before, expected))
		return changed_meanwhile(replacement, error);
	if (renameat2(directory, temporary, directory, name, RENAME_EXCHANGE) < 0) {
		if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)
			return 1;
		if (errno == ENOENT)
			return changed_meanwhile(replacement, error);
		return error_set(error, errno, "cannot write %s, which stays as it was", name);
	}
	struct stat out;
	if (fstatat(directory, temporary, &out, AT_SYMLINK_NOFOLLOW) == 0 && !replacement_same_file(&out, expected)) {
		/* Theirs goes back; ours is the temporary file again. */
		renameat2(directory, temporary, directory, name, RENAME_EXCHANGE);
		return changed_meanwhile(replacement, error);
	}
	return unlinkat(directory, temporary, 0) == 0 || errno == ENOENT
		       ? 0
		       : error_set(error, errno, "cannot remove %s", temporary);
}

int replacement_commit(struct replacement *replacement, const struct stat *expected, struct error *error)
{
	int result = 1;
	/* A link is replaced by a plain rename: whoever keeps the file elsewhere looks at it no more. */
	if (expected && !S_ISLNK(expected->st_mode))
		result = commit_over(replacement, expected, error);
	if (result < 0)
		return -1;
	if (result == 1 &&
	    renameat(replacement->directory, replacement->temporary, replacement->directory, replacement->name) < 0)
		return error_set(error, errno, "cannot write %s, which stays as it was", replacement->name);
	replacement->temporary[0] = '\0';
	/* Without it a power cut could bring the old file back, which the next start would put right: no reason to fail. */
	(void)!fsync(replacement->directory);
	return 0;
}

void replacement_end(struct replacement *replacement)
{
	int saved = errno;
	if (replacement->temporary[0] != '\0')
		unlinkat(replacement->directory, replacement->temporary, 0);
	if (replacement->fd >= 0)
		close(replacement->fd);
	if (replacement->lock >= 0)
		close(replacement->lock);
	*replacement = (struct replacement){ .fd = -1, .lock = -1 };
	errno = saved;
}

void replacement_sweep(int directory)
{
	cleanup_closedir DIR *stream = file_list_directory(directory);
	if (!stream)
		return;
	const size_t suffix = strlen(REPLACEMENT_SUFFIX);
	for (const struct dirent *entry; (entry = readdir(stream));) {
		size_t length = strlen(entry->d_name);
		if (entry->d_name[0] != '.' || length <= suffix ||
		    strcmp(entry->d_name + length - suffix, REPLACEMENT_SUFFIX) != 0)
			continue;
		cleanup_close int fd = openat(directory, entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			unlinkat(directory, entry->d_name, 0);
	}
}
