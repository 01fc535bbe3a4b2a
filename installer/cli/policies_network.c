/* NetworkPolicies that select a pod of the mesh. See policies.h.
 *
 * Between pods of the mesh everything travels in TCP to port 15008 of the destination, so a NetworkPolicy sees that port and no
 * other. The kubelet's probes go to the pod's first address (status.podIP) and come from the host's probe address of that
 * family, which no selector of pods or namespaces can name: it takes an ipBlock, or a rule for everybody. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "installer/cli/policies_parts.h"
#include "installer/cli/print.h"
#include "installer/object.h"

#define HBONE 15008
#define PORTS_MAX 16

/* `name`: what the pod calls that port; "" where it has no name for it. */
struct port {
	int number;
	const char *name;
};

/* Of a NetworkPolicy's rule: no ports at all means every port. */
static bool port_passes(const cJSON *rule, const struct port *port)
{
	const cJSON *ports = cJSON_GetObjectItemCaseSensitive(rule, "ports"), *entry;
	if (cJSON_GetArraySize(ports) == 0)
		return true;
	cJSON_ArrayForEach (entry, ports) {
		const char *protocol = json_text(entry, "protocol");
		const cJSON *first = cJSON_GetObjectItemCaseSensitive(entry, "port");
		double last = json_number(entry, "endPort");
		if (protocol[0] && strcmp(protocol, "TCP") != 0)
			continue;
		if (!first || (cJSON_IsString(first) && port->name[0] && strcmp(first->valuestring, port->name) == 0) ||
		    (cJSON_IsNumber(first) &&
		     (first->valuedouble == port->number || (first->valuedouble <= port->number && port->number <= last))))
			return true;
	}
	return false;
}

/* A CIDR; one that is none holds nothing. */
static bool range_holds(const char *range, const struct pod_address *address)
{
	char text[POD_ADDRESS_TEXT_MAX] = "";
	struct pod_address network;
	const char *slash = strchr(range, '/');
	size_t length = slash ? (size_t)(slash - range) : 0;
	if (!slash || length >= sizeof text)
		return false;
	memcpy(text, range, length);
	const unsigned char *a = (const unsigned char *)&address->ipv6, *b = (const unsigned char *)&network.ipv6;
	int bits = atoi(slash + 1), whole = bits / 8, rest = bits % 8;
	if (!pod_address_parse(text, &network) || network.family != address->family || bits < 0 ||
	    bits > (address->family == AF_INET ? 32 : 128))
		return false;
	return memcmp(a, b, (size_t)whole) == 0 && (rest == 0 || (a[whole] ^ b[whole]) >> (8 - rest) == 0);
}

static bool comes_in(const cJSON *rule, const struct pod_address *address)
{
	const cJSON *from = cJSON_GetObjectItemCaseSensitive(rule, "from"), *peer, *except;
	if (cJSON_GetArraySize(from) == 0)
		return true;
	cJSON_ArrayForEach (peer, from) {
		bool holds = range_holds(json_text(peer, "ipBlock.cidr"), address);
		cJSON_ArrayForEach (except, json_at(peer, "ipBlock.except"))
			holds = holds && !(cJSON_IsString(except) && range_holds(except->valuestring, address));
		if (holds)
			return true;
	}
	return false;
}

static bool is_of_type(const cJSON *policy, const char *type)
{
	const cJSON *types = json_at(policy, "spec.policyTypes"), *entry;
	if (cJSON_GetArraySize(types) == 0)
		return strcmp(type, "Ingress") == 0 || json_at(policy, "spec.egress");
	cJSON_ArrayForEach (entry, types)
		if (cJSON_IsString(entry) && strcmp(entry->valuestring, type) == 0)
			return true;
	return false;
}

/* A probe's port: a number, or the name of one of its container's. */
static struct port port_of_probe(const cJSON *container, const cJSON *port)
{
	struct port found = { .number = cJSON_IsNumber(port) ? (int)port->valuedouble : 0,
			      .name = cJSON_IsString(port) ? port->valuestring : "" };
	const cJSON *entry;
	cJSON_ArrayForEach (entry, cJSON_GetObjectItemCaseSensitive(container, "ports")) {
		int number = (int)json_number(entry, "containerPort");
		if (found.number ? number == found.number : strcmp(json_text(entry, "name"), found.name) == 0)
			found = (struct port){ .number = number, .name = json_text(entry, "name") };
	}
	return found;
}

/* Ports of probes over the network; an exec probe needs none. */
static size_t ports_of_probes(const cJSON *pod, struct port ports[PORTS_MAX])
{
	static const char *const lists[] = { "spec.containers", "spec.initContainers" };
	static const char *const probes[] = { "livenessProbe", "readinessProbe", "startupProbe" };
	static const char *const kinds[] = { "httpGet", "tcpSocket", "grpc" };
	size_t count = 0;
	const cJSON *container;
	for (size_t list = 0; list < sizeof lists / sizeof lists[0]; list++) {
		cJSON_ArrayForEach (container, json_at(pod, lists[list])) {
			for (size_t i = 0; i < sizeof probes / sizeof probes[0] * (sizeof kinds / sizeof kinds[0]); i++) {
				const cJSON *probe = cJSON_GetObjectItemCaseSensitive(container, probes[i / 3]);
				const cJSON *kind = cJSON_GetObjectItemCaseSensitive(probe, kinds[i % 3]);
				if (kind && count < PORTS_MAX)
					ports[count++] =
						port_of_probe(container, cJSON_GetObjectItemCaseSensitive(kind, "port"));
			}
		}
	}
	return count;
}

size_t policies_probe_ports(const cJSON *pod, int *ports, size_t max)
{
	struct port all[PORTS_MAX];
	size_t count = 0, found = ports_of_probes(pod, all);
	for (size_t i = 0; i < found && count < max; i++) {
		bool is_known = all[i].number <= 0 || all[i].number > 65535;
		for (size_t k = 0; k < count && !is_known; k++)
			is_known = ports[k] == all[i].number;
		if (!is_known)
			ports[count++] = all[i].number;
	}
	return count;
}

/* False: no probe of the pod comes from it. An IPv6 probe has the host's own address where IPv6 is not redirected. */
static bool probe_address(const struct policies *policies, const cJSON *pod, struct pod_address *ret_address)
{
	const struct redirect *redirect = &policies->config->redirect;
	struct pod_address own = { .family = AF_INET };
	const char *text = json_text(pod, "status.podIP");
	if (text[0] && !pod_address_parse(text, &own))
		return false;
	if (own.family == AF_INET)
		*ret_address = (struct pod_address){ .family = AF_INET, .ipv4 = redirect->host_probe_ipv4 };
	else
		*ret_address = (struct pod_address){ .family = AF_INET6, .ipv6 = redirect->host_probe_ipv6 };
	return own.family == AF_INET || redirect->ipv6;
}

/* NetworkPolicies add up: what one of them lets pass, passes. */
static void look(const struct policies *policies, const cJSON *pod, bool is_ingress, policy_finding finding, void *data)
{
	const char *rules = is_ingress ? "spec.ingress" : "spec.egress", *peers = is_ingress ? "from" : "to";
	const char *way = is_ingress ? "in" : "out";
	const struct port tunnel_port = { .number = HBONE, .name = "" };
	const cJSON *policy, *rule;
	char names[1024] = "", text[POD_ADDRESS_TEXT_MAX];
	bool is_selected = false, tunnel = false, tunnel_for_some = false;
	struct port ports[PORTS_MAX];
	struct pod_address address;
	size_t count = is_ingress && probe_address(policies, pod, &address) ? ports_of_probes(pod, ports) : 0;
	bool passes[PORTS_MAX] = { 0 };
	cJSON_ArrayForEach (policy, json_at(policies->network, "items")) {
		size_t length = strlen(names);
		if (!is_of_type(policy, is_ingress ? "Ingress" : "Egress") ||
		    !policies_select(json_at(policy, "spec.podSelector"), pod))
			continue;
		snprintf(names + length, sizeof names - length, "%s%s", is_selected ? ", " : "",
			 json_text(policy, "metadata.name"));
		is_selected = true;
		cJSON_ArrayForEach (rule, json_at(policy, rules)) {
			bool for_all = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(rule, peers)) == 0;
			tunnel |= port_passes(rule, &tunnel_port) && for_all;
			tunnel_for_some |= port_passes(rule, &tunnel_port) && !for_all;
			for (size_t i = 0; i < count; i++)
				passes[i] |= port_passes(rule, &ports[i]) && comes_in(rule, &address);
		}
	}
	if (!is_selected)
		return;
	const char *ending = strchr(names, ',') ? "" : "s";
	if (!tunnel && !tunnel_for_some)
		policies_tell(finding, data, true, "NetworkPolicy",
			      "%s let%s no TCP %d %s: the mesh's connections are blocked; allow that port", names, ending,
			      HBONE, way);
	else
		policies_tell(finding, data, false, "NetworkPolicy", "%s let%s TCP %d %s%s", names, ending, HBONE, way,
			      tunnel ? "" : ", for some peers only");
	for (size_t i = 0; i < count; i++) {
		if (passes[i])
			continue;
		pod_address_print(&address, text);
		policies_tell(finding, data, true, "NetworkPolicy",
			      "%s let%s nothing in to port %d from %s, where the node's probes come from: allow ipBlock %s/%d",
			      names, ending, ports[i].number, text, text, address.family == AF_INET ? 32 : 128);
		break;
	}
}

void policies_of_pods_network(const struct policies *policies, const cJSON *pod, policy_finding finding, void *data)
{
	look(policies, pod, true, finding, data);
	look(policies, pod, false, finding, data);
}
