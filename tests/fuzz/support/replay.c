/* Runs a target on each file of the folders and files named: a corpus is replayed without a fuzzer, by any compiler. */
#include "tests/fuzz/fuzz.h"

#include <ftw.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/file.h"

static size_t count;

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int run(const char *path, const struct stat *status, int type, struct FTW *place)
{
	struct error error = { 0 };
	cleanup_free char *text = NULL, *exact = NULL;
	size_t length = 0;
	(void)status;
	(void)place;
	if (type != FTW_F)
		return 0;
	if (file_read(path, 1 << 24, &error, &text, &length) < 0) {
		fprintf(stderr, "%s\n", error.message);
		return 1;
	}
	/* What stands behind the input is not to be read: under a sanitizer that is seen. */
	exact = malloc(length ? length : 1);
	memcpy(exact, text, length);
	LLVMFuzzerTestOneInput((const uint8_t *)exact, length);
	count++;
	return 0;
}

int main(int argc, char **argv)
{
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], run, 16, FTW_PHYS) != 0)
			return 1;
	/* A folder that is not there would replay nothing, for ever. */
	if (count == 0) {
		fprintf(stderr, "%s: no inputs\n", argv[0]);
		return 1;
	}
	printf("%zu inputs\n", count);
	return 0;
}
