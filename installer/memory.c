/* See memory.h. */
#include "installer/memory.h"

#include <event2/event.h>
#include <link.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The program is the first object. Segments that are written to hold relocations: only the others are as the file is. */
static int unmap_code(struct dl_phdr_info *object, size_t size, void *data)
{
	(void)size, (void)data;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	for (size_t i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
		if (segment->p_type != PT_LOAD || (segment->p_flags & PF_W))
			continue;
		size_t begin = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
		size_t end = object->dlpi_addr + segment->p_vaddr + segment->p_memsz;
		/* Best effort: what stays mapped is only counted. */
		(void)madvise((void *)begin, end - begin, MADV_DONTNEED); /* NOLINT(performance-no-int-to-ptr) */
	}
	return 1;
}

void memory_give_back(void)
{
	malloc_trim(0);
	dl_iterate_phdr(unmap_code, NULL);
}

static void *or_end(void *memory)
{
	static const char text[] = "ambient-installer: out of memory inside of libevent: the agent ends, rules in pods stay\n";
	if (memory)
		return memory;
	/* No log: it would need memory. The status is that of any failure (main.c). */
	if (write(STDERR_FILENO, text, sizeof text - 1) < 0) {
		/* Nobody listens. */
	}
	_exit(EXIT_FAILURE);
}

static void *allocate_or_end(size_t size)
{
	return or_end(malloc(size));
}

static void *reallocate_or_end(void *memory, size_t size)
{
	return or_end(realloc(memory, size ? size : 1));
}

void memory_end_without_any_in_libevent(void)
{
	event_set_mem_functions(allocate_or_end, reallocate_or_end, free);
}
