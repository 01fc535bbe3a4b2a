/* From the installer's configuration to the options of installer/host/: the plugin's entry, and the paths. */
#ifndef AMBIENT_INSTALLER_HOST_SETUP_H
#define AMBIENT_INSTALLER_HOST_SETUP_H

#include "installer/config.h"
#include "installer/host/host.h"

struct host_setup {
	struct host_options options; /* borrows from the configuration and from what follows */
	cJSON *plugin;
	char *results_dir;
};

/* The setup is valid as long as the configuration. */
int host_setup_make(const struct installer_config *config, struct error *error, struct host_setup *ret_setup);
void host_setup_clear(struct host_setup *setup); /* a zeroed struct is fine */
#define cleanup_host_setup __attribute__((cleanup(host_setup_clear)))

#endif
