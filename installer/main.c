/* ambient-installer: the node agent and its command line. Here stands the table of subcommands; each lives in cli/. */
#include <stdio.h>
#include <string.h>

#include "installer/cli/commands.h"
#include "installer/cli/options.h"
#include "installer/memory.h"

static const struct command {
	const char *name, *arguments, *summary;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "run", CONFIG_OPTIONS_USAGE, "the node agent", command_run },
	{ "status", CONFIG_OPTIONS_USAGE " [--all] [-o text|json]", "the agent's health and the pods of this node",
	  command_status },
	{ "explain", CONFIG_OPTIONS_USAGE " [--kubeconfig FILE] [-o text|json] NAMESPACE/POD",
	  "why a pod is in the mesh or not, and what is wrong with it", command_explain },
	{ "verify",
	  CONFIG_OPTIONS_USAGE " [-o text|json] [NAMESPACE/POD] | --netns PATH [--redirect JSON] [--stage full|guard]",
	  "compare the kernel with what should be there", command_verify },
	{ "preview", CONFIG_OPTIONS_USAGE " [--kubeconfig FILE] [-o text|json] NAMESPACE",
	  "what the mesh's label on a namespace would do", command_preview },
	{ "pause", CONFIG_OPTIONS_USAGE " NAMESPACE/POD --for TIME", "leave a pod's rules alone for a time (10m; 0: no longer)",
	  command_pause },
	{ "doctor", CONFIG_OPTIONS_USAGE " [--kubeconfig FILE] [-o text|json]",
	  "what on this node stands in the way, and what to do about it", command_doctor },
	{ "install", CONFIG_OPTIONS_USAGE " [-o text|json]", "put plugin and network configuration in place, once",
	  command_install },
	{ "uninstall", CONFIG_OPTIONS_USAGE " [--force] [-o text|json] | --all-nodes [--timeout SECONDS]",
	  "take everything of ours off this node, or off all nodes", command_uninstall },
	{ "config", CONFIG_OPTIONS_USAGE " [-o text|json] [--reference]",
	  "the configuration in force and where each value came from", command_config },
	{ "render", "[--redirect JSON] [--stage full|guard]", "a pod's rules in nft syntax", command_render },
	{ "version", "", "the version", command_version },
};

/* One screen: what each command takes is in its own help. */
static void print_help(FILE *out)
{
	fputs("usage: ambient-installer COMMAND [OPTION...]\n\n", out);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fputs("\nambient-installer COMMAND --help says more. Exit status: 0 done, 1 failed,\n"
	      "2 usage, 3 a difference or an unhealthy pod was found.\n",
	      out);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_help(stderr);
		return EXIT_STATUS_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		print_help(stdout);
		return EXIT_STATUS_DONE;
	}
	memory_end_without_any_in_libevent();
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
		if (strcmp(commands[i].name, argv[1]) != 0)
			continue;
		if (argc > 2 && strcmp(argv[2], "--help") == 0) {
			printf("usage: ambient-installer %s %s\n%s\n", commands[i].name, commands[i].arguments,
			       commands[i].summary);
			return EXIT_STATUS_DONE;
		}
		return commands[i].run(argc - 1, argv + 1);
	}
	fprintf(stderr, "ambient-installer: there is no command \"%s\"; see ambient-installer --help\n", argv[1]);
	return EXIT_STATUS_USAGE;
}
