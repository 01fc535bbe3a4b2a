/* Cleanup by attribute: what a scope owns is given back when the scope is left, on every path. */
#ifndef AMBIENT_CLEANUP_H
#define AMBIENT_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_closep(const int *fd)
{
	/* errno survives, so that a scope may be left between a failed call and the error that names it. */
	int saved = errno;
	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_freep(void *pointer)
{
	free(*(void **)pointer);
}

static inline void cleanup_fclosep(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void cleanup_closedirp(DIR **directory)
{
	if (*directory)
		closedir(*directory);
}

#define cleanup_close __attribute__((cleanup(cleanup_closep)))
#define cleanup_free __attribute__((cleanup(cleanup_freep)))
#define cleanup_fclose __attribute__((cleanup(cleanup_fclosep)))
#define cleanup_closedir __attribute__((cleanup(cleanup_closedirp)))

/* Hands a descriptor or pointer over to somebody else: the scope owns it no longer. */
static inline int steal_fd(int *fd)
{
	int value = *fd;
	*fd = -1;
	return value;
}

#define steal_pointer(pointer)                                                                                                 \
	({                                                                                                                     \
		__typeof__(pointer) stolen_ = (pointer);                                                                       \
		(pointer) = NULL;                                                                                              \
		stolen_;                                                                                                       \
	})

#endif
