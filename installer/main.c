/* ambient-installer: the node agent and its command line. Here stands the table of subcommands; each lives in cli/. */
#include <stdio.h>
#include <string.h>

#include "installer/cli/commands.h"
#include "installer/cli/options.h"

static const struct command {
	const char *name, *arguments, *summary;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "config", CONFIG_OPTIONS_USAGE " [-o text|json] [--reference]",
	  "print the configuration in force and where each value came from", command_config },
	{ "install", CONFIG_OPTIONS_USAGE " [-o text|json]", "put plugin and network configuration in place, once",
	  command_install },
	{ "run", CONFIG_OPTIONS_USAGE, "the node agent", command_run },
	{ "render", "[--redirect JSON] [--stage full|guard]", "print a pod's rules in nft syntax", command_render },
	{ "uninstall", CONFIG_OPTIONS_USAGE " [--force] [-o text|json] | --all-nodes [--timeout SECONDS]",
	  "take everything of ours off this node, or remove the DaemonSet and wait until every node is done",
	  command_uninstall },
	{ "verify", "--netns PATH [--redirect JSON] [--stage full|guard]",
	  "compare a namespace's rules with what should be there", command_verify },
	{ "version", "", "print the version", command_version },
};

static void print_help(FILE *out)
{
	fputs("usage: ambient-installer COMMAND [OPTION...]\n\n", out);
	for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
		fprintf(out, "  %-10s %s\n             %s\n", commands[i].name, commands[i].summary, commands[i].arguments);
	fputs("\nExit status: 0 done, 1 failed, 2 usage, 3 a difference or an unhealthy pod was found.\n", out);
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
