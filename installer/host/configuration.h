/* One look at the configuration directory: what should be there, and doing what is missing. Level-triggered; never waits. */
#ifndef AMBIENT_INSTALLER_HOST_CONFIGURATION_H
#define AMBIENT_INSTALLER_HOST_CONFIGURATION_H

#include <stdbool.h>

#include "ambient/error.h"
#include "installer/host/host.h"

struct configuration_report {
	bool is_ready;
	char reason[HOST_REASON_MAX]; /* why not */
	char file[256];		      /* the configuration that names us; empty: none */
	bool is_written;	      /* something was written or removed in this look */
	bool is_pending;	      /* something would have been written, had it been allowed */
	bool is_withdrawn;	      /* the primary is gone, and so must be our copy of it */
	bool is_outrun;		      /* somebody wrote at the same moment: look again soon */
	char written[512];	      /* what was done, as a sentence; empty: nothing */
	char istio[256];	      /* what of istio-cni's was replaced; empty: nothing */
	char warning[512];	      /* what a person should see although we are ready; empty: nothing */
	char neighbour[256];	      /* who is likely to write against us, and what to do about it; empty: not known */
};

/* `may_write` false: only says what would be done. `may_withdraw` false: a copy stays although the primary that it was made of
 * is gone, which may be back in a moment. -1: what should have been done failed (a full disk, a directory that can't be
 * written); the report holds what is known then too. */
int configuration_converge(const struct host_options *options, bool may_write, bool may_withdraw, struct error *error,
			   struct configuration_report *report);

/* Takes us out of every configuration of the directory: edited files lose our entry, a .conf that became a .conflist goes back,
 * files of our own are removed, those too that Cilium put away. -1: something stays; all others were tried. */
int configuration_remove(const struct host_options *options, struct error *error);

#endif
