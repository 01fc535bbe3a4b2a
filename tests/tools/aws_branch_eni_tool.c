/* The rules for pods with an AWS branch interface as a command, for tests:
 *
 *     aws_branch_eni_tool add|remove PATH ADDRESS...     in the namespace at PATH, for one pod
 *
 * Exit status: 0 done, 1 failed (a sentence on standard error), 2 usage, 3 the pod has no branch interface. */
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/netns.h"
#include "installer/probes/aws_branch_eni.h"

static int run(int argc, char **argv, struct error *error)
{
	struct pod_address addresses[8];
	size_t count = 0;
	struct aws_branch_eni *eni = NULL;
	cleanup_close int netns = -1;
	bool applies = strcmp(argv[1], "remove") == 0;
	for (int i = 3; i < argc && count < sizeof addresses / sizeof addresses[0]; i++)
		if (!pod_address_parse(argv[i], &addresses[count++]))
			return error_say(error, 0, "%s is no address", argv[i]);
	if (netns_open(argv[2], error, &netns) < 0 || aws_branch_eni_open(netns, error, &eni) < 0)
		return -1;
	int result = 0;
	for (size_t i = 0; i < count && result == 0; i++) {
		bool has_branch = false;
		result = strcmp(argv[1], "add") == 0 ? aws_branch_eni_add(eni, &addresses[i], error, &has_branch)
						     : aws_branch_eni_remove(eni, &addresses[i], error);
		applies |= has_branch;
	}
	aws_branch_eni_close(eni);
	return result < 0 ? -1 : applies ? 0 : 3;
}

int main(int argc, char **argv)
{
	struct error error = { 0 };
	if (argc < 4) {
		fputs("usage: aws_branch_eni_tool add|remove PATH ADDRESS...\n", stderr);
		return 2;
	}
	int status = run(argc, argv, &error);
	if (status < 0)
		fprintf(stderr, "aws_branch_eni_tool: %s\n", error.message);
	return status < 0 ? 1 : status;
}
