/* Which pods belong to the mesh, and how a pod's own annotations change its redirection. The one place that decides. */
#ifndef AMBIENT_INSTALLER_MESH_SELECTION_H
#define AMBIENT_INSTALLER_MESH_SELECTION_H

#include "ambient/redirect.h"
#include "installer/object.h"

enum selector_operator { SELECTOR_IN, SELECTOR_NOT_IN, SELECTOR_EXISTS, SELECTOR_DOES_NOT_EXIST };

struct selector_requirement {
	char *key;
	enum selector_operator operator;
	char **values;
	size_t values_count;
};

/* A Kubernetes label selector; without requirements it matches everything. matchLabels are requirements In [value]. */
struct selector {
	struct selector_requirement *requirements;
	size_t requirements_count;
};

struct enablement_selector {
	struct selector pod, namespace_object;
};

struct enablement_selectors {
	struct enablement_selector *items;
	size_t count;
};

/* Reads a list of {"podSelector": {...}, "namespaceSelector": {...}}. `where` is its place in the file. */
int enablement_selectors_from_json(const cJSON *json, const char *where, struct error *error,
				   struct enablement_selectors *ret_selectors);

/* The setting's default: the pod's label is ambient; or the namespace's is, and the pod's is not none. */
#define ENABLEMENT_SELECTORS_DEFAULT                                                                                           \
	"[{\"podSelector\":{\"matchLabels\":{\"" LABEL_DATAPLANE_MODE "\":\"ambient\"}}},"                                     \
	"{\"namespaceSelector\":{\"matchLabels\":{\"" LABEL_DATAPLANE_MODE "\":\"ambient\"}},"                                 \
	"\"podSelector\":{\"matchExpressions\":[{\"key\":\"" LABEL_DATAPLANE_MODE                                              \
	"\",\"operator\":\"NotIn\",\"values\":[\"none\"]}]}}]"
int enablement_selectors_default(struct error *error, struct enablement_selectors *ret_selectors);
void enablement_selectors_clear(struct enablement_selectors *selectors);

bool selector_matches(const struct selector *selector, const struct labels *labels);

/* What decides besides the objects; all borrowed. */
struct selection {
	const struct enablement_selectors *selectors;
	const char *const *exclude_namespaces;
	size_t exclude_namespaces_count;
	const char *system_namespace;	 /* where the tunnel runs */
	const char *installer_namespace; /* where we run */
	const char *daemon_set_name;
	const struct redirect *defaults; /* the node's */
	bool allow_pod_exclusions;
	bool releases_all; /* an uninstall: no pod is wanted any more */
};

struct selection_decision {
	bool wanted;
	/* Whether the pod's own label, not its namespace's, put it in: such a namespace is not known to be outside. */
	bool by_pod_label;
	char reason[256]; /* names the label, annotation or setting that decided */
};

/* `namespace_object` is NULL where it is not known: then only the pod's own labels count. */
void selection_decide(const struct selection *selection, const struct pod *pod, const struct namespace_object *namespace_object,
		      struct selection_decision *ret_decision);

/* Drops a namespace's labels that nothing is decided by: a cluster has many namespaces. */
void selection_trim_namespace(const struct selection *selection, struct namespace_object *namespace_object);

/* Whether the setting excludeNamespaces names it. */
bool selection_is_excluded(const struct selection *selection, const char *namespace_name);

/* Whether the namespace is outside the mesh for every pod in it that does not opt in itself. */
bool selection_namespace_is_outside(const struct selection *selection, const struct namespace_object *namespace_object);

/* The node's defaults with the pod's annotations over them. An annotation that is ignored (not a boolean, not a port, or an
 * exclusion that the operator does not allow) leaves a sentence in `ret_warning`, which is empty otherwise. */
#define SELECTION_WARNING_MAX 512
int selection_redirect(const struct selection *selection, const struct pod *pod, struct error *error,
		       struct redirect *ret_redirect, char *ret_warning);

#endif
