/* One call of the plugin: what the runtime asked, and what the verbs share. */
#ifndef AMBIENT_PLUGIN_CALL_H
#define AMBIENT_PLUGIN_CALL_H

#include "ambient/attachment.h"
#include "ambient/log.h"
#include "plugin/config.h"

struct call {
	const char *container_id, *netns_path, *interface, *args; /* CNI_*; NULL where not given */
	struct plugin_config config;
	struct log log;
	/* Log lines that the installer shall have too, sent with the next message. */
	char remarks[2048];
};

/* Logs a line here, and keeps it for the installer. */
void call_remark(struct call *call, enum log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fills in the attachment that this call is about: names from CNI_ARGS, addresses from `result` (a converted one, or NULL),
 * and, where `netns` is a descriptor, the namespace's identity. `ret_code` is the CNI code that fits the outcome. */
int call_describe(const struct call *call, const cJSON *result, int netns, struct error *error,
		  struct attachment *ret_attachment, enum cni_code *ret_code);

/* Opens CNI_NETNS. On failure `ret_code` is the CNI code that fits. */
int call_open_netns(const struct call *call, struct error *error, int *ret_netns, enum cni_code *ret_code);

/* The verbs. Each returns CNI_OK, or a code with `error` filled. ADD gives the result to print. */
enum cni_code verb_add(struct call *call, struct error *error, cJSON **ret_result);
enum cni_code verb_del(struct call *call, struct error *error);
enum cni_code verb_check(struct call *call, struct error *error);
enum cni_code verb_gc(struct call *call, struct error *error);
enum cni_code verb_status(struct call *call, struct error *error);

/* Takes back what an ADD did in the namespace, unless another attachment of the same sandbox still needs it. */
void verb_add_take_back(struct call *call);

#endif
