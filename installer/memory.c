/* See memory.h. */
#include "installer/memory.h"

#include <link.h>
#include <malloc.h>
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
