/* Asking the node agent on this node, by its admin socket. */
#ifndef AMBIENT_INSTALLER_CLI_ADMIN_CLIENT_H
#define AMBIENT_INSTALLER_CLI_ADMIN_CLIENT_H

#include <cjson/cJSON.h>

#include "ambient/error.h"
#include "installer/cli/options.h"

struct admin {
	char *socket; /* its path */
};

/* Finds runDir as config_options_load_agents does. */
int admin_find(const struct config_options *options, struct error *error, struct admin *ret_admin);
void admin_clear(struct admin *admin);
#define cleanup_admin __attribute__((cleanup(admin_clear)))

/* GET of a path that answers with JSON. Characters that a terminal acts upon are taken out of its texts. An error is the
 * agent's own sentence, ENOENT where it knows of no such thing; ECONNREFUSED and a sentence where no agent runs. */
int admin_get(const struct admin *admin, const char *path, struct error *error, cJSON **ret_json);
/* POST without a body. */
int admin_post(const struct admin *admin, const char *path, struct error *error);

/* "/pods/NAMESPACE/NAME" and `rest` behind it, of "NAMESPACE/NAME" as it stands on the command line. */
int admin_pod_path(const char *pod, const char *rest, struct error *error, char **ret_path);

#endif
