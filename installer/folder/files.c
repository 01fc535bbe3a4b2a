/* The files of a folder. See files.h. */
#include "installer/folder/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"

/* A mistake (the wrong folder, a log file under a wrong name) must not eat the node's memory. */
#define FILES_MAX 4096
#define FILE_BYTES_MAX (16 << 20)
#define FOLDER_BYTES_MAX (64 << 20)

/* A file that is open for writing is left alone until it has been quiet for so long, and no longer than that in all. */
#define QUIET_MS 1000
#define WRITING_MAX_MS 5000

int folder_files_init(const char *path, const char *node_name, struct error *error, struct folder_files *ret_files)
{
	struct folder_files files = { .path = strdup(path), .node_name = strdup(node_name) };
	if (!files.path || !files.node_name) {
		folder_files_clear(&files);
		return error_set(error, ENOMEM, "cannot keep the folder %s", path);
	}
	*ret_files = files;
	return 0;
}

static void file_clear(struct folder_file *file)
{
	free(file->name);
	free(file->trouble);
	folder_objects_clear(&file->objects);
}

void folder_files_clear(struct folder_files *files)
{
	for (size_t i = 0; i < files->count; i++)
		file_clear(&files->items[i]);
	free(files->items);
	free(files->path);
	free(files->node_name);
	*files = (struct folder_files){ 0 };
}

/* Names that begin with a dot are editors' and ConfigMaps' own. */
static bool is_ours(const char *name)
{
	static const char *const endings[] = { ".yaml", ".yml", ".json" };
	size_t length = strlen(name);
	for (size_t i = 0; name[0] != '.' && i < sizeof endings / sizeof endings[0]; i++)
		if (length > strlen(endings[i]) && strcmp(name + length - strlen(endings[i]), endings[i]) == 0)
			return true;
	return false;
}

/* The file of that name, which is made where it is not known; NULL: there is no memory. */
static struct folder_file *get_file(struct folder_files *files, const char *name)
{
	size_t low = 0, high = files->count;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(files->items[middle].name, name);
		if (order == 0)
			return &files->items[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	struct folder_file *items = reallocarray(files->items, files->count + 1, sizeof *items);
	if (!items)
		return NULL;
	files->items = items;
	char *copy = strdup(name);
	if (!copy)
		return NULL;
	memmove(&items[low + 1], &items[low], (files->count - low) * sizeof *items);
	items[low] = (struct folder_file){ .name = copy, .is_dirty = true };
	files->count++;
	return &items[low];
}

/* A file that was just made by open(2) is about to be written to; one that came by link(2) or symlink(2) is complete. */
static bool is_being_made(const struct folder_files *files, const char *name)
{
	struct stat status;
	cleanup_free char *path = NULL;
	return file_join(files->path, name, NULL, &path) == 0 && lstat(path, &status) == 0 && S_ISREG(status.st_mode) &&
	       status.st_nlink == 1;
}

void folder_files_changed(struct folder_files *files, const char *name, uint32_t mask, int64_t now)
{
	if (!is_ours(name) || (files->count >= 2 * (size_t)FILES_MAX))
		return;
	struct folder_file *file = get_file(files, name);
	if (!file)
		return;
	file->is_dirty = true;
	if (mask & (IN_DELETE | IN_MOVED_FROM | IN_CREATE | IN_MOVED_TO))
		file->is_deleted = (mask & (IN_DELETE | IN_MOVED_FROM)) != 0;
	if (mask & IN_MODIFY || (mask & IN_CREATE && is_being_made(files, name))) {
		file->writing_since = file->writing_since ? file->writing_since : now;
		file->quiet_at = now + QUIET_MS;
		if (file->quiet_at > file->writing_since + WRITING_MAX_MS)
			file->quiet_at = file->writing_since + WRITING_MAX_MS;
	} else if (mask & (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE)) {
		file->writing_since = file->quiet_at = 0;
	}
}

void folder_files_all_changed(struct folder_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		files->items[i].is_dirty = true;
		files->items[i].writing_since = files->items[i].quiet_at = 0;
	}
}

/* Forgets the files for which `is_gone`. */
static void forget(struct folder_files *files, bool (*is_gone)(const struct folder_file *file))
{
	size_t kept = 0;
	for (size_t i = 0; i < files->count; i++) {
		if (is_gone(&files->items[i]))
			file_clear(&files->items[i]);
		else
			files->items[kept++] = files->items[i];
	}
	files->count = kept;
}

static bool is_absent(const struct folder_file *file)
{
	return !file->is_there;
}

/* Deleted before the folder was, or never seen but in an event. */
static bool was_deleted(const struct folder_file *file)
{
	return file->is_deleted || (!file->has_been_read && !file->trouble);
}

static bool is_same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Keeps the file's identity, and marks it where it is another one. */
static void identify(struct folder_file *file, const struct stat *status)
{
	if (file->identity.device == status->st_dev && file->identity.inode == status->st_ino &&
	    file->identity.size == status->st_size && is_same_time(&file->identity.modified, &status->st_mtim) &&
	    is_same_time(&file->identity.changed, &status->st_ctim))
		return;
	file->is_dirty = true;
	file->identity.device = status->st_dev;
	file->identity.inode = status->st_ino;
	file->identity.size = status->st_size;
	file->identity.modified = status->st_mtim;
	file->identity.changed = status->st_ctim;
}

/* Finds which files there are. A name that is gone before its stat is not there; a dangling link is, and reading it says so. */
static int look(struct folder_files *files, struct error *error)
{
	cleanup_closedir DIR *directory = opendir(files->path);
	size_t count = 0;
	long long bytes = 0;
	if (!directory)
		return error_set(error, errno, "cannot read the folder %s", files->path);
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(directory);
		struct stat status = { 0 }, link;
		if (!entry && errno)
			return error_set(error, errno, "cannot read the folder %s", files->path);
		if (!entry)
			return 0;
		if (!is_ours(entry->d_name))
			continue;
		if (fstatat(dirfd(directory), entry->d_name, &status, 0) < 0 &&
		    fstatat(dirfd(directory), entry->d_name, &link, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (++count > FILES_MAX)
			return error_set(error, 0, "the folder %s has more than %d files, which stay as they were read",
					 files->path, FILES_MAX);
		bytes += S_ISREG(status.st_mode) ? status.st_size : 0;
		if (bytes > FOLDER_BYTES_MAX)
			return error_set(error, 0,
					 "the files of the folder %s have more than %d bytes and stay as they were read",
					 files->path, FOLDER_BYTES_MAX);
		struct folder_file *file = get_file(files, entry->d_name);
		if (!file)
			return error_set(error, ENOMEM, "cannot read the folder %s", files->path);
		file->is_there = true;
		file->is_deleted = false;
		identify(file, &status);
	}
}

/* Reads one file. Where that fails, what was read before stays. */
static void read_file(struct folder_files *files, struct folder_file *file)
{
	struct error error = { 0 };
	cleanup_free char *path = NULL, *text = NULL;
	cleanup_folder_objects struct folder_objects objects = { 0 };
	size_t length = 0;
	free(file->trouble);
	file->trouble = NULL;
	if (file_join(files->path, file->name, &error, &path) == 0 &&
	    file_read(path, FILE_BYTES_MAX, &error, &text, &length) == 0) {
		/* From here on it is the text that is wrong or not: only another text can change that. */
		file->is_dirty = false;
		if (folder_objects_read(text, length, path, files->node_name, &error, &objects) == 0) {
			struct folder_objects before = file->objects;
			file->objects = objects;
			objects = before;
			file->has_been_read = true;
			return;
		}
	}
	file->is_dirty |= error.number == ENOMEM;
	file->trouble = strdup(error.message);
}

int folder_files_scan(struct folder_files *files, int64_t now, struct error *error)
{
	for (size_t i = 0; i < files->count; i++)
		files->items[i].is_there = false;
	files->next_scan = 0;
	if (look(files, error) < 0) {
		forget(files, was_deleted);
		return -1;
	}
	forget(files, is_absent);
	for (size_t i = 0; i < files->count; i++) {
		struct folder_file *file = &files->items[i];
		if (file->quiet_at > now) {
			if (!files->next_scan || file->quiet_at < files->next_scan)
				files->next_scan = file->quiet_at;
			continue;
		}
		file->writing_since = file->quiet_at = 0;
		if (file->is_dirty)
			read_file(files, file);
	}
	return 0;
}
