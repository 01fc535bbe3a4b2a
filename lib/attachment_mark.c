/* Which attachment stands for a network namespace, without reading them all: runDir/namespaces/DEVICE:INODE is a symbolic link
 * whose text is the attachment's CONTAINER:INTERFACE, or "+" where there was a second one. Links are only read as text, never
 * followed.
 *
 * A mark that is missing where nothing else is marked, or is "+", costs time only: then all attachments are read. One that
 * names an attachment while another stands for the namespace too would let a DEL take the other's rules away. So the mark is
 * made before the attachment's file, a second one turns it into "+", and the files that a version without marks left are marked
 * before the first own mark stands: in a directory aside, which then gets its name. Such a version may come back for a while
 * and go again: so a new mark is "+" from the start where its container has another attachment. What a killed process left over
 * is a mark of an attachment that is gone: it becomes "+" when the inode is given out again, and goes with the next DEL there.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ambient/attachment.h"
#include "ambient/cleanup.h"
#include "ambient/file.h"

#define DIRECTORY "namespaces"
#define SHARED "+"
#define MARK_MAX 256 /* a container's id has 128 characters at most, an interface's name 15 */

static int path_of(const char *directory, struct netns_id netns, struct error *error, char **ret_path)
{
	char *path;
	if (asprintf(&path, "%s/%llu:%llu", directory, (unsigned long long)netns.device, (unsigned long long)netns.inode) < 0)
		return error_set(error, ENOMEM, "cannot name a namespace's mark");
	*ret_path = path;
	return 0;
}

static void own_text(const char *container_id, const char *interface, char text[MARK_MAX])
{
	snprintf(text, MARK_MAX, "%s:%s", container_id, interface);
}

/* False: there is none, or it can't be read. */
static bool read_mark(const char *path, char text[MARK_MAX])
{
	ssize_t length = readlink(path, text, MARK_MAX - 1);
	if (length < 0)
		return false;
	text[length] = '\0';
	return true;
}

static int share(const char *path, struct error *error)
{
	cleanup_free char *temporary = NULL;
	if (asprintf(&temporary, "%s.%d.new", path, (int)getpid()) < 0) {
		temporary = NULL;
		return error_set(error, ENOMEM, "cannot mark a network namespace");
	}
	int made = symlink(SHARED, temporary);
	if (made < 0 && errno == EEXIST && unlink(temporary) == 0) /* left by a process of this pid that was killed */
		made = symlink(SHARED, temporary);
	if (made < 0 || rename(temporary, path) < 0) {
		error_set(error, errno, "cannot mark a network namespace (%s)", path);
		unlink(temporary);
		return -1;
	}
	return 0;
}

/* `run_dir`: where an attachment without a mark is looked for; NULL: there is none. ENOENT: the directory is not there. */
static int mark_in(const char *directory, const char *run_dir, const struct attachment *attachment, struct error *error)
{
	cleanup_free char *path = NULL;
	char own[MARK_MAX], found[MARK_MAX];
	if (attachment->netns.inode == 0)
		return 0;
	if (path_of(directory, attachment->netns, error, &path) < 0)
		return -1;
	own_text(attachment->container_id, attachment->interface, own);
	/* Twice: it may go between the two calls. */
	for (int attempt = 0; attempt < 2; attempt++) {
		if (symlink(own, path) == 0)
			return run_dir && attachment_has_other_file(run_dir, attachment->container_id, attachment->interface)
				       ? share(path, error)
				       : 0;
		if (errno != EEXIST)
			return error_set(error, errno, "cannot mark a network namespace (%s)", path);
		if (read_mark(path, found))
			return strcmp(found, own) == 0 || strcmp(found, SHARED) == 0 ? 0 : share(path, error);
	}
	return share(path, error);
}

static int mark_one(void *data, struct attachment *attachment, struct error *error)
{
	return mark_in(data, NULL, attachment, error);
}

static DIR *open_directory(const char *path)
{
	cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (stream)
		steal_fd(&fd);
	return stream;
}

/* With the marks in it; what is no mark stays. */
static void remove_directory(const char *path)
{
	cleanup_closedir DIR *stream = open_directory(path);
	if (!stream)
		return;
	for (const struct dirent *entry = readdir(stream); entry; entry = readdir(stream)) {
		if (isdigit((unsigned char)entry->d_name[0]))
			unlinkat(dirfd(stream), entry->d_name, 0);
	}
	rmdir(path);
}

/* Marks what is there and makes the directory. */
static int make_directory(const char *run_dir, const char *directory, struct error *error)
{
	cleanup_free char *aside = NULL;
	if (asprintf(&aside, "%s.%d.new", directory, (int)getpid()) < 0) {
		aside = NULL;
		return error_set(error, ENOMEM, "cannot mark network namespaces");
	}
	remove_directory(aside);
	if (file_make_directory(aside, error) < 0 || attachment_list(run_dir, mark_one, NULL, aside, error) < 0) {
		remove_directory(aside);
		return error_wrap(error, "cannot mark the network namespaces of remembered attachments");
	}
	if (rename(aside, directory) == 0)
		return 0;
	int number = errno;
	remove_directory(aside);
	/* Another process was faster. */
	if (number == ENOTEMPTY || number == EEXIST)
		return 0;
	return error_set(error, number, "cannot make %s", directory);
}

int attachment_mark(const char *run_dir, const struct attachment *attachment, struct error *error)
{
	cleanup_free char *directory = NULL;
	struct error problem = { 0 };
	if (attachment->netns.inode == 0)
		return 0;
	if (file_join(run_dir, DIRECTORY, error, &directory) < 0)
		return -1;
	if (mark_in(directory, run_dir, attachment, &problem) == 0)
		return 0;
	if (problem.number != ENOENT)
		return error_copy(error, &problem);
	if (make_directory(run_dir, directory, error) < 0)
		return -1;
	return mark_in(directory, run_dir, attachment, error);
}

int attachment_mark_found(const char *run_dir, const struct attachment *attachment, struct error *error)
{
	cleanup_free char *directory = NULL;
	struct error problem = { 0 };
	if (file_join(run_dir, DIRECTORY, error, &directory) < 0)
		return -1;
	if (mark_in(directory, NULL, attachment, &problem) == 0 || problem.number == ENOENT)
		return 0;
	return error_copy(error, &problem);
}

bool attachment_is_alone(const char *run_dir, struct netns_id netns, const char *container_id, const char *interface)
{
	cleanup_free char *directory = NULL, *path = NULL;
	char own[MARK_MAX], found[MARK_MAX];
	if (netns.inode == 0 || file_join(run_dir, DIRECTORY, NULL, &directory) < 0 ||
	    path_of(directory, netns, NULL, &path) < 0 || !read_mark(path, found))
		return false;
	own_text(container_id, interface, own);
	return strcmp(found, own) == 0;
}

void attachment_unmark(const char *run_dir, struct netns_id netns)
{
	cleanup_free char *directory = NULL, *path = NULL;
	if (netns.inode != 0 && file_join(run_dir, DIRECTORY, NULL, &directory) == 0 &&
	    path_of(directory, netns, NULL, &path) == 0)
		unlink(path);
}

void attachment_unmark_all(const char *run_dir)
{
	cleanup_free char *directory = NULL;
	if (file_join(run_dir, DIRECTORY, NULL, &directory) == 0)
		remove_directory(directory);
}

/* Each mark that is made in a directory aside renews its time. */
static void remove_abandoned_directories(const char *run_dir)
{
	const struct dirent *entry;
	cleanup_closedir DIR *stream = open_directory(run_dir);
	while (stream && (entry = readdir(stream))) {
		cleanup_free char *path = NULL;
		if (strncmp(entry->d_name, DIRECTORY ".", strlen(DIRECTORY ".")) == 0 &&
		    file_is_abandoned(dirfd(stream), entry->d_name) && file_join(run_dir, entry->d_name, NULL, &path) == 0)
			remove_directory(path);
	}
}

void attachment_unmark_abandoned(const char *run_dir)
{
	cleanup_free char *directory = NULL;
	const struct dirent *entry;
	remove_abandoned_directories(run_dir);
	if (file_join(run_dir, DIRECTORY, NULL, &directory) < 0)
		return;
	cleanup_closedir DIR *stream = open_directory(directory);
	while (stream && (entry = readdir(stream))) {
		if (file_is_abandoned(dirfd(stream), entry->d_name))
			unlinkat(dirfd(stream), entry->d_name, 0);
	}
}
