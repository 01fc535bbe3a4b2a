/* The order of a diagnosis. See diagnosis.h. */
#include "installer/cli/diagnosis.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "installer/cli/print.h"

__attribute__((format(printf, 2, 3))) static void find(struct diagnosis *diagnosis, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(diagnosis->finding, sizeof diagnosis->finding, format, arguments);
	va_end(arguments);
}

__attribute__((format(printf, 2, 3))) static void advise(struct diagnosis *diagnosis, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(diagnosis->next, sizeof diagnosis->next, format, arguments);
	va_end(arguments);
}

static void advise_tunnel_log(struct diagnosis *diagnosis, const cJSON *agent)
{
	advise(diagnosis,
	       "kubectl logs -n %s --tail 50 $(kubectl get pods -n %s -l app=ztunnel -o name --field-selector "
	       "spec.nodeName=%s)",
	       json_text(agent, "systemNamespace"), json_text(agent, "systemNamespace"), json_text(agent, "node"));
}

/* An error of a step explains more than the state that it left. */
static void diagnose_error(const cJSON *pod, const cJSON *agent, struct diagnosis *diagnosis)
{
	const char *step = json_text(pod, "lastErrorStep");
	find(diagnosis, "The first thing that is wrong: %s (step \"%s\", tried again until it works).",
	     json_text(pod, "lastError"), step);
	if (strcmp(step, "tunnel") == 0)
		advise_tunnel_log(diagnosis, agent);
	else if (strcmp(step, "annotation") == 0)
		advise(diagnosis, "kubectl auth can-i patch pods --subresource=status --as=system:serviceaccount:%s:%s -n %s",
		       json_text(agent, "installerNamespace"), json_text(agent, "daemonSet"), json_text(pod, "namespace"));
	else
		advise(diagnosis, "ambient-installer doctor");
}

static bool listens(const cJSON *pod, const char *port, const char *family)
{
	const cJSON *families = cJSON_GetObjectItemCaseSensitive(json_at(pod, "tunnel.listening"), port);
	return cJSON_IsString(families) && strstr(families->valuestring, family);
}

/* A pod without an IPv6 address has no IPv6 connections that could be refused. */
static bool has_ipv6(const cJSON *pod)
{
	const cJSON *address;
	cJSON_ArrayForEach (address, json_at(pod, "addresses"))
		if (cJSON_IsString(address) && strchr(address->valuestring, ':'))
			return true;
	return false;
}

/* The tunnel has accepted the pod: does it also answer where the rules lead? False: nothing was found. */
static bool diagnose_listeners(const cJSON *pod, const cJSON *agent, struct diagnosis *diagnosis)
{
	static const char *const ports[] = { "15008", "15006", "15001", "15053/udp", "15053/tcp" };
	bool dns = json_truth(pod, "rules.redirect.dnsCapture"), ipv6 = json_truth(pod, "rules.redirect.ipv6") && has_ipv6(pod);
	if (!json_at(pod, "tunnel.listening"))
		return false;
	for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
		bool is_dns = strncmp(ports[i], "15053", 5) == 0;
		if ((is_dns && !dns) || (listens(pod, ports[i], "ipv4") && (!ipv6 || listens(pod, ports[i], "ipv6"))))
			continue;
		if (listens(pod, ports[i], "ipv4")) {
			find(diagnosis,
			     "The first thing that is wrong: the tunnel listens on port %s for IPv4 only, and IPv6 is "
			     "redirected too: IPv6 connections of the pod are refused. Either ztunnel's IPV6_ENABLED is off, "
			     "or the setting redirect.ipv6 should be false.",
			     ports[i]);
			advise(diagnosis, "kubectl get daemonset -n %s ztunnel -o yaml | grep -A1 IPV6_ENABLED",
			       json_text(agent, "systemNamespace"));
		} else {
			find(diagnosis,
			     "The first thing that is wrong: the tunnel has accepted the pod, and nothing listens on port %s "
			     "in it.",
			     ports[i]);
			advise_tunnel_log(diagnosis, agent);
		}
		return true;
	}
	return false;
}

static void diagnose_outside(const cJSON *pod, struct diagnosis *diagnosis)
{
	const char *namespace_name = json_text(pod, "namespace");
	if (strcmp(json_text(pod, "state"), "releasing") == 0) {
		find(diagnosis, "It is leaving the mesh: %s.", json_text(pod, "waitingFor"));
		return;
	}
	if (json_text(pod, "lastError")[0]) {
		diagnosis->is_wrong = true;
		find(diagnosis, "It should have left the mesh, and can't: %s.", json_text(pod, "lastError"));
		advise(diagnosis, "ambient-installer doctor");
		return;
	}
	find(diagnosis, "It is outside the mesh, as it should be.");
	/* Everything else is somebody's will: an opt-out, a sidecar, an excluded namespace. */
	if (strncmp(json_text(pod, "reason"), "no enablement", strlen("no enablement")) == 0)
		advise(diagnosis, "ambient-installer preview %s", namespace_name);
}

static void diagnose_wanted(const cJSON *pod, const cJSON *agent, struct diagnosis *diagnosis)
{
	const char *waiting = json_text(pod, "waitingFor"), *difference = json_text(pod, "rules.difference");
	const char *namespace_name = json_text(pod, "namespace"), *name = json_text(pod, "name");
	diagnosis->is_wrong = true;
	if (json_text(pod, "lastError")[0]) {
		diagnose_error(pod, agent, diagnosis);
	} else if (strcmp(json_text(pod, "netns.inode"), "0") == 0 || !json_text(pod, "netns.inode")[0]) {
		find(diagnosis, "The first thing that is missing: %s.",
		     waiting[0] ? waiting : "the pod's network namespace has not been found");
		advise(diagnosis, "kubectl describe pod -n %s %s", namespace_name, name);
	} else if (json_number(pod, "tunnel.connections") == 0 && strcmp(json_text(pod, "rules.stage"), "full") != 0) {
		find(diagnosis, "The first thing that is missing: no tunnel is connected. A ztunnel dials when it has its "
				"first configuration from istiod; the pod's traffic goes on as before until then.");
		advise(diagnosis, "kubectl get pods -n %s -l app=ztunnel -o wide --field-selector spec.nodeName=%s",
		       json_text(agent, "systemNamespace"), json_text(agent, "node"));
	} else if (!json_truth(pod, "tunnel.acknowledged") && strcmp(json_text(pod, "state"), "enabled") != 0) {
		find(diagnosis, "The first thing that is missing: %s.",
		     waiting[0] ? waiting : "the tunnel has not accepted the pod");
		advise_tunnel_log(diagnosis, agent);
	} else if (difference[0] || strcmp(json_text(pod, "rules.stage"), "full") != 0) {
		find(diagnosis, "The first thing that is wrong: %s%s%s.",
		     difference[0] ? "the kernel has something else: " : "",
		     difference[0] ? difference : "the redirection does not stand in the pod",
		     json_number(pod, "repairPausedSeconds") > 0 ? "; repair is paused by hand" : "");
		if (json_number(pod, "repairPausedSeconds") > 0)
			advise(diagnosis, "ambient-installer pause %s/%s --for 0", namespace_name, name);
		else
			advise(diagnosis, "kubectl logs -n %s -l k8s-app=istio-cni-node --tail 1000 | grep 'pod=%s/%s'",
			       json_text(agent, "installerNamespace"), namespace_name, name);
	} else if (json_number(pod, "tunnel.connections") == 0) {
		find(diagnosis, "The first thing that is wrong: the pod is enrolled and no tunnel is connected to the agent. A "
				"tunnel that runs goes on carrying its traffic; one that does not run leaves it without any.");
		advise(diagnosis, "kubectl get pods -n %s -l app=ztunnel -o wide --field-selector spec.nodeName=%s",
		       json_text(agent, "systemNamespace"), json_text(agent, "node"));
	} else if (diagnose_listeners(pod, agent, diagnosis)) {
		return;
	} else if (!json_truth(pod, "probe")) {
		find(diagnosis,
		     "The first thing that is wrong: its addresses are not in the host's set: the kubelet's probes are "
		     "redirected too, and fail where policies are strict.");
		advise(diagnosis, "ambient-installer doctor");
	} else if (strcmp(json_text(pod, "annotation"), "enabled") != 0) {
		find(diagnosis,
		     "The first thing that is missing: %s; peers send plain text until the annotation says \"enabled\".",
		     waiting[0] ? waiting : "the annotation");
		advise(diagnosis, "kubectl get pod -n %s %s -o jsonpath='{.metadata.annotations}'", namespace_name, name);
	} else {
		diagnosis->is_wrong = false;
		find(diagnosis, "It is in the mesh, and nothing is wrong with it on this node.");
	}
}

void diagnose(const cJSON *pod, const cJSON *agent, struct diagnosis *ret_diagnosis)
{
	*ret_diagnosis = (struct diagnosis){ 0 };
	if (json_truth(pod, "wanted"))
		diagnose_wanted(pod, agent, ret_diagnosis);
	else
		diagnose_outside(pod, ret_diagnosis);
}
