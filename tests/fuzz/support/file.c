/* An input as a file in memory. */
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

struct fuzz_file fuzz_file_make(const uint8_t *data, size_t size)
{
	struct fuzz_file file = { .fd = memfd_create("input", MFD_CLOEXEC) };
	HOLDS(file.fd >= 0 && write(file.fd, data, size) == (ssize_t)size);
	snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
	return file;
}

void fuzz_file_clear(struct fuzz_file *file)
{
	close(file->fd);
}
