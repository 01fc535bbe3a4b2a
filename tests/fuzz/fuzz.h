/* What the fuzz targets share. A target is one function; a property that does not hold ends the program as a crash does. */
#ifndef AMBIENT_TESTS_FUZZ_H
#define AMBIENT_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Optional: once, before all inputs. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* The input as a file that a function can be given the path of. */
struct fuzz_file {
	int fd;
	char path[40];
};
struct fuzz_file fuzz_file_make(const uint8_t *data, size_t size);
void fuzz_file_clear(struct fuzz_file *file);
#define cleanup_fuzz_file __attribute__((cleanup(fuzz_file_clear)))

#define HOLDS(property)                                                                                                        \
	do {                                                                                                                   \
		if (!(property)) {                                                                                             \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #property);                          \
			abort();                                                                                               \
		}                                                                                                              \
	} while (0)

#endif
