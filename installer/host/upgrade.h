/* When our pod stops: is it replaced, or is ambient-cni uninstalled from this node?
 *
 * As long as our DaemonSet stands for this node, plugin and configuration stay, so that pods of the mesh wait for the
 * successor. A pure function over what the API said; asking is the caller's. */
#ifndef AMBIENT_INSTALLER_HOST_UPGRADE_H
#define AMBIENT_INSTALLER_HOST_UPGRADE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* How long the API must refuse us (401, 403) before that counts: RBAC objects go first or last in an uninstallation, and a
 * token can be refused for a moment. */
#define UPGRADE_REFUSED_SECONDS 20

struct upgrade_question {
	bool safe_upgrade;	 /* false: a stop takes plugin and configuration away, always */
	int status;		 /* HTTP status of GET daemonset; 0: the API can't be reached */
	const cJSON *daemon_set; /* the object, for status 200 */
	const cJSON *node;	 /* our Node object; NULL: not known */
	double refused_seconds; /* since the first of the 401s or 403s that came without a break until now; 0: this is the first
				 */
};

enum upgrade_verdict {
	UPGRADE_KEEP,
	UPGRADE_UNINSTALL,
	UPGRADE_ASK_AGAIN, /* refused, but not long enough: ask again in a second */
};

/* `ret_reason`: a sentence for the log. */
enum upgrade_verdict upgrade_decide(const struct upgrade_question *question, char *ret_reason, size_t size);

#endif
