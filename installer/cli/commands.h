/* The subcommands of ambient-installer. Each gets its own name as argv[0] and returns the exit status. */
#ifndef AMBIENT_INSTALLER_CLI_COMMANDS_H
#define AMBIENT_INSTALLER_CLI_COMMANDS_H

enum exit_status {
	EXIT_STATUS_DONE = 0,
	EXIT_STATUS_FAILED = 1,
	EXIT_STATUS_USAGE = 2,
	EXIT_STATUS_DIFFERENCE = 3, /* or an unhealthy pod */
};

int command_config(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_install(int argc, char **argv);
int command_pause(int argc, char **argv);
int command_preview(int argc, char **argv);
int command_render(int argc, char **argv);
int command_status(int argc, char **argv);
int command_uninstall(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_run(int argc, char **argv);
int command_version(int argc, char **argv);

/* verify with --netns. */
int verify_namespace(int argc, char **argv);

#endif
