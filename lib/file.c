/* Small files. See file.h. */
#include "ambient/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "ambient/cleanup.h"

#define SIZE_UNKNOWN 4096
#define ABANDONED_SECONDS 600

int file_read(const char *path, size_t limit, struct error *error, char **ret_text, size_t *ret_length)
{
	/* O_NONBLOCK: a FIFO under this name must not hold us. */
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return error_set(error, errno, "cannot read %s", path);
	struct stat status;
	if (fstat(fd, &status) < 0)
		return error_set(error, errno, "cannot read %s", path);
	if (!S_ISREG(status.st_mode))
		return error_say(error, EINVAL, "cannot read %s: it is not a regular file", path);

	/* As large as it is said to be, which files of the kernel's do not know and others may outgrow. One more than may be is
	 * read, so that one that is too large is found, and one is for the end of the text. */
	size_t size = status.st_size > 0 ? (size_t)status.st_size : SIZE_UNKNOWN;
	size_t capacity = (size < limit ? size : limit) + 2, length = 0;
	cleanup_free char *text = malloc(capacity);
	if (!text)
		return error_set(error, ENOMEM, "cannot read %s", path);
	while (length <= limit) {
		if (length + 1 == capacity) {
			capacity = capacity < limit / 2 ? 2 * capacity : limit + 2;
			char *grown = realloc(text, capacity);
			if (!grown)
				return error_set(error, ENOMEM, "cannot read %s", path);
			text = grown;
		}
		ssize_t got = read(fd, text + length, capacity - 1 - length);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_set(error, errno, "cannot read %s", path);
		if (got == 0)
			break;
		length += (size_t)got;
	}
	if (length > limit)
		return error_say(error, EFBIG, "cannot read %s: it is larger than %zu bytes", path, limit);
	text[length] = '\0';
	*ret_text = steal_pointer(text);
	*ret_length = length;
	return 0;
}

static int write_all(int fd, const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, text, length);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -1;
		text += written;
		length -= (size_t)written;
	}
	return 0;
}

int file_write(const char *path, const char *text, size_t length, mode_t mode, struct error *error)
{
	/* The pid keeps two writers apart; O_EXCL refuses a name that somebody prepared. */
	cleanup_free char *temporary = NULL;
	if (asprintf(&temporary, "%s.%d.new", path, (int)getpid()) < 0) {
		temporary = NULL;
		return error_set(error, ENOMEM, "cannot write %s", path);
	}
	cleanup_close int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0 && errno == EEXIST && unlink(temporary) == 0) /* left by a process of this pid that was killed */
		fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return error_set(error, errno, "cannot write %s", temporary);
	/* fchmod: the mode is the caller's, whatever the umask. */
	if (fchmod(fd, mode) < 0 || write_all(fd, text, length) < 0 || fsync(fd) < 0 || rename(temporary, path) < 0) {
		error_set(error, errno, "cannot write %s, which stays as it was", path);
		unlink(temporary);
		return -1;
	}
	return 0;
}

bool file_is_abandoned(int directory, const char *name)
{
	size_t length = strlen(name);
	struct stat status;
	return length > 4 && strcmp(name + length - 4, ".new") == 0 &&
	       fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_mtime + ABANDONED_SECONDS < time(NULL);
}

DIR *file_list_directory(int directory)
{
	cleanup_close int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = copy < 0 ? NULL : fdopendir(copy);
	if (stream)
		steal_fd(&copy);
	return stream;
}

int file_make_directory(const char *path, struct error *error)
{
	/* It nearly always is there. */
	if (mkdir(path, 0700) == 0 || errno == EEXIST)
		return 0;
	if (errno != ENOENT)
		return error_set(error, errno, "cannot make directory %s", path);
	cleanup_free char *parent = strdup(path);
	if (!parent)
		return error_set(error, ENOMEM, "cannot make directory %s", path);
	for (char *slash = strchr(parent + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(parent, 0755) < 0 && errno != EEXIST)
			return error_set(error, errno, "cannot make directory %s", parent);
		*slash = '/';
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(error, errno, "cannot make directory %s", path);
	return 0;
}

int file_join(const char *directory, const char *name, struct error *error, char **ret_path)
{
	char *path;
	if (asprintf(&path, "%s/%s", directory, name) < 0)
		return error_set(error, ENOMEM, "cannot name %s/%s", directory, name);
	*ret_path = path;
	return 0;
}
