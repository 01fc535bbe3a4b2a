/* The keeper's options (host.h), as owned copies. */
#ifndef AMBIENT_INSTALLER_HOST_OPTIONS_H
#define AMBIENT_INSTALLER_HOST_OPTIONS_H

#include "installer/host/host.h"

/* Frees what host_options_copy made. */
void host_options_clear(struct host_options *options);
int host_options_copy(const struct host_options *from, struct error *error, struct host_options *ret_options);

/* File names that lead out of the directory, or that no runtime loads, are an error that names the key. */
int host_options_check(const struct host_options *options, struct error *error);

#endif
