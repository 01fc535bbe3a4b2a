/* Uninstalling from every node. See uninstall_all_nodes.h.
 *
 * The DaemonSet is deleted in the foreground: the API server keeps the object, marked for deletion, until the garbage collector
 * has seen the last of its pods go. So its absence is the end, and nothing has to be counted. */
#include "installer/cli/uninstall_all_nodes.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"
#include "ambient/log.h"
#include "installer/kube/client.h"
#include "installer/kube/requests.h"

#define LOOK_SECONDS 1
#define TELL_SECONDS 10
#define PODS_LABEL "k8s-app" /* the DaemonSet's selector: its value is the DaemonSet's own name */

struct removal {
	const struct installer_config *config;
	struct event_base *base;
	struct kube_client *client;
	struct event *look, *deadline;
	struct error *error;
	unsigned seconds, looks;
	int result;
};

static void end(struct removal *removal, int result)
{
	removal->result = result;
	event_base_loopbreak(removal->base);
}

static void look_again(struct removal *removal)
{
	evtimer_add(removal->look, &(struct timeval){ .tv_sec = LOOK_SECONDS });
}

static const char *text_of(const cJSON *object, const char *outer, const char *key)
{
	const char *text =
		cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(object, outer), key));
	return text ? text : "";
}

static void on_looked(void *data, int status, const cJSON *object, const struct error *error)
{
	struct removal *removal = data;
	if (status == 404) {
		printf("every agent has released its node and is gone\n");
		end(removal, 0);
		return;
	}
	if (status == 200 && text_of(object, "metadata", "deletionTimestamp")[0] == '\0') {
		error_set(
			removal->error, 0,
			"DaemonSet %s/%s stands again: somebody else (a GitOps controller?) has made it anew; stop that first",
			removal->config->installer_namespace, removal->config->daemon_set_name);
		end(removal, -1);
		return;
	}
	/* Any other answer: an API server that is busy is asked again until the deadline. */
	if (removal->looks++ % (TELL_SECONDS / LOOK_SECONDS) == 0)
		printf("waiting until every agent has released its node%s%s\n", status == 200 ? "" : ": ",
		       status == 200 ? "" : error->message);
	fflush(stdout);
	look_again(removal);
}

static void on_look(evutil_socket_t fd, short what, void *data)
{
	struct removal *removal = data;
	(void)fd, (void)what;
	if (kube_get_daemon_set(removal->client, removal->config->installer_namespace, removal->config->daemon_set_name,
				on_looked, removal, removal->error, &(struct kube_request *){ NULL }) < 0)
		end(removal, -1);
}

static void on_deleted(void *data, int status, const cJSON *object, const struct error *error)
{
	struct removal *removal = data;
	(void)object;
	if (status == 404) {
		printf("there is no DaemonSet %s in %s: nothing is to be done\n", removal->config->daemon_set_name,
		       removal->config->installer_namespace);
		end(removal, 0);
	} else if (status / 100 == 2) {
		look_again(removal);
	} else {
		*removal->error = *error;
		error_wrap(removal->error, "cannot delete DaemonSet %s/%s", removal->config->installer_namespace,
			   removal->config->daemon_set_name);
		end(removal, -1);
	}
}

static void on_left_over(void *data, int status, const cJSON *object, const struct error *error)
{
	struct removal *removal = data;
	char nodes[512] = "";
	const cJSON *pod;
	cJSON_ArrayForEach (pod, cJSON_GetObjectItemCaseSensitive(object, "items")) {
		size_t used = strlen(nodes);
		snprintf(nodes + used, sizeof nodes - used, "%s%s", used ? ", " : "", text_of(pod, "spec", "nodeName"));
	}
	(void)error;
	error_set(removal->error, 0,
		  "after %u s agents are still there on: %s; look at them (a node that is down keeps its pod), then try again, "
		  "or go on without them by helm uninstall --no-hooks: their pods stay redirected until the nodes restart",
		  removal->seconds, status == 200 && nodes[0] ? nodes : "unknown nodes");
	end(removal, -1);
}

/* The path of our DaemonSet, or of our pods; malloc'ed. */
static char *make_path(const struct installer_config *config, bool wants_pods)
{
	cleanup_free char *namespace = kube_escape(config->installer_namespace);
	cleanup_free char *name = kube_escape(config->daemon_set_name);
	char *path = NULL;
	if (!namespace || !name ||
	    asprintf(&path,
		     wants_pods ? "/api/v1/namespaces/%s/pods?labelSelector=" PODS_LABEL "%%3D%s"
				: "/apis/apps/v1/namespaces/%s/daemonsets/%s",
		     namespace, name) < 0)
		return NULL;
	return path;
}

static int ask(struct removal *removal, enum kube_method method, const char *body, kube_done done)
{
	cleanup_free char *path = make_path(removal->config, method == KUBE_GET);
	const struct kube_call call = { .method = method, .path = path, .body = body };
	if (!path)
		return error_set(removal->error, ENOMEM, "cannot ask the API server");
	return kube_client_request(removal->client, &call, done, removal, removal->error, &(struct kube_request *){ NULL });
}

static void on_deadline(evutil_socket_t fd, short what, void *data)
{
	struct removal *removal = data;
	(void)fd, (void)what;
	event_del(removal->look);
	if (ask(removal, KUBE_GET, NULL, on_left_over) < 0)
		end(removal, -1);
}

static int run(struct removal *removal)
{
	static const char options[] = "{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"propagationPolicy\":\"Foreground\"}";
	removal->look = evtimer_new(removal->base, on_look, removal);
	removal->deadline = evtimer_new(removal->base, on_deadline, removal);
	if (!removal->look || !removal->deadline ||
	    evtimer_add(removal->deadline, &(struct timeval){ .tv_sec = removal->seconds }) < 0)
		return error_set(removal->error, ENOMEM, "cannot set a timer");
	if (ask(removal, KUBE_DELETE, options, on_deleted) < 0)
		return -1;
	if (event_base_dispatch(removal->base) < 0)
		return error_set(removal->error, errno, "cannot wait for the API server");
	return removal->result;
}

int uninstall_all_nodes(const struct installer_config *config, unsigned seconds, struct error *error)
{
	const struct log log = {
		.fd = STDERR_FILENO, .level = config->log.level, .format = config->log.format, .program = "ambient-installer"
	};
	const struct kube_client_options options = {
		.origin = { .kubeconfig = config->kubeconfig,
			    .service_host = config->kubernetes_service_host,
			    .service_port = config->kubernetes_service_port },
		.log = &log,
	};
	struct removal removal = { .config = config, .error = error, .seconds = seconds, .result = -1 };
	int result = -1;
	removal.base = event_base_new();
	if (!removal.base)
		return error_set(error, ENOMEM, "cannot make an event loop");
	if (kube_client_new(removal.base, &options, error, &removal.client) == 0)
		result = run(&removal);
	kube_client_free(removal.client);
	if (removal.look)
		event_free(removal.look);
	if (removal.deadline)
		event_free(removal.deadline);
	event_base_free(removal.base);
	return result;
}
