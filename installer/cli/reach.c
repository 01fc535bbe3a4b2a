/* Connections tried to a pod. See reach.h.
 *
 * The kubelet's probes leave the host by a local socket and get the host probe address as source on their way; a connection of
 * this command from the host's network is treated the same. The mesh's connections leave a pod by a socket of the tunnel, which
 * bears the tunnel mark; one of this command in a neighbour's network namespace, with that mark, is not redirected either. */
#include "installer/cli/reach.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ambient/cleanup.h"
#include "ambient/clock.h"
#include "ambient/json.h"
#include "ambient/netns.h"
#include "ambient/redirect.h"
#include "installer/cli/policies_parts.h"
#include "installer/cli/print.h"
#include "installer/netns/netns_path.h"
#include "installer/object.h"

#define TRIES_MAX 16
/* Two repetitions of a lost SYN: a busy node is no firewall. */
#define PATIENCE_MILLISECONDS 3000

enum answer {
	ANSWER_NONE,	/* until the patience ended */
	ANSWER_YES,	/* connected */
	ANSWER_REFUSED, /* a reset, or what a firewall sends that rejects */
	ANSWER_ERROR,	/* the kernel, or a router, said that it can't be reached */
};

struct
try {
	int port;
	bool is_mesh;
	int socket; /* -1: over */
	enum answer answer;
	int number; /* errno of ANSWER_ERROR */
};

/* Where the agent finds the host, or this command does when it runs on the host itself. */
struct view {
	const char *proc_dir, *netns_dir;
	int host; /* its network namespace */
	struct netns_id id;
};

/* A setting of the agent's, by its flat name. */
static const char *setting(const cJSON *config, const char *key)
{
	return json_text(cJSON_GetObjectItemCaseSensitive(json_at(config, "settings"), key), "value");
}

static int open_view(const cJSON *config, struct error *error, struct view *view)
{
	const char *path = setting(config, "host.networkNamespace");
	*view = (struct view){ .proc_dir = setting(config, "host.procDir"),
			       .netns_dir = setting(config, "host.netnsDir"),
			       .host = -1 };
	/* The agent's mounts are not here: this is the host. */
	bool is_host = access(path[0] ? path : view->proc_dir, F_OK) < 0;
	if (is_host) {
		view->proc_dir = "/proc";
		view->netns_dir = "/var/run/netns";
	}
	if (netns_open(path[0] && !is_host ? path : "/proc/thread-self/ns/net", error, &view->host) < 0)
		return -1;
	return netns_identify(view->host, error, &view->id);
}

static void settle(struct try *try, int number)
{
	try->answer = number == 0 ? ANSWER_YES : number == ECONNREFUSED ? ANSWER_REFUSED : ANSWER_ERROR;
	try->number = number;
	/* A reset: nothing is left in the pod, not even for a minute. */
	(void)setsockopt(try->socket, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
	close(try->socket);
	try->socket = -1;
}

static void begin(struct try *try, int netns, const struct pod_address *address)
{
	struct sockaddr_in ipv4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)try->port), .sin_addr = address->ipv4 };
	struct sockaddr_in6 ipv6 = { .sin6_family = AF_INET6,
				     .sin6_port = htons((uint16_t)try->port),
				     .sin6_addr = address->ipv6 };
	const struct sockaddr *to = address->family == AF_INET ? (const void *)&ipv4 : (const void *)&ipv6;
	struct error error = { 0 };
	const uint32_t mark = REDIRECT_TUNNEL_MARK;
	if (netns_socket(netns, address->family, SOCK_STREAM | SOCK_NONBLOCK, 0, &error, &try->socket) < 0) {
		try->socket = -1;
		try->answer = ANSWER_ERROR;
		try->number = error.number;
	} else if ((try->is_mesh && setsockopt(try->socket, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) ||
		   connect(try->socket, to, address->family == AF_INET ? sizeof ipv4 : sizeof ipv6) < 0) {
		if (errno != EINPROGRESS)
			settle(try, errno);
	} else {
		settle(try, 0);
	}
}

static void await(struct try *tries, size_t count)
{
	int64_t end = clock_milliseconds() + PATIENCE_MILLISECONDS;
	for (;;) {
		struct pollfd waits[TRIES_MAX];
		size_t open = 0;
		for (size_t i = 0; i < count; i++) {
			waits[i] = (struct pollfd){ .fd = tries[i].socket, .events = POLLOUT };
			open += tries[i].socket >= 0;
		}
		int64_t rest = end - clock_milliseconds();
		if (open == 0 || rest <= 0)
			break;
		if (poll(waits, count, (int)rest) < 0 && errno != EINTR)
			break;
		for (size_t i = 0; i < count; i++) {
			int number = 0;
			socklen_t length = sizeof number;
			if (tries[i].socket < 0 || !(waits[i].revents & (POLLOUT | POLLERR | POLLHUP)))
				continue;
			if (getsockopt(tries[i].socket, SOL_SOCKET, SO_ERROR, &number, &length) < 0)
				number = errno;
			settle(&tries[i], number);
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (tries[i].socket >= 0) {
			close(tries[i].socket);
			tries[i].socket = -1;
		}
	}
}

static bool first_address(const cJSON *pod, struct pod_address *ret_address)
{
	const cJSON *first = cJSON_GetArrayItem(json_at(pod, "addresses"), 0);
	return cJSON_IsString(first) && pod_address_parse(first->valuestring, ret_address);
}

static bool has_family(const cJSON *pod, int family)
{
	const cJSON *entry;
	struct pod_address address;
	cJSON_ArrayForEach (entry, json_at(pod, "addresses"))
		if (cJSON_IsString(entry) && pod_address_parse(entry->valuestring, &address) && address.family == family)
			return true;
	return false;
}

/* The namespace that the agent holds for a pod: what has taken its path since is another's. */
static bool is_the_pods(int netns, const cJSON *pod)
{
	struct netns_id id;
	return netns_identify(netns, NULL, &id) == 0 && id.device == strtoull(json_text(pod, "netns.device"), NULL, 10) &&
	       id.inode == strtoull(json_text(pod, "netns.inode"), NULL, 10);
}

/* Another pod of the mesh here, which has the family: its namespace. -1: there is none. */
static int open_neighbour(const struct view *view, const cJSON *pods, const cJSON *pod, int family, const cJSON **ret_neighbour)
{
	const cJSON *other;
	cJSON_ArrayForEach (other, pods) {
		int netns = -1;
		if (strcmp(json_text(other, "uid"), json_text(pod, "uid")) == 0 || !json_truth(other, "rules.present") ||
		    !json_truth(other, "tunnel.acknowledged") || !has_family(other, family) ||
		    netns_path_open(json_text(other, "netns.path"), view->proc_dir, view->netns_dir, &view->id, NULL, &netns) <
			    0)
			continue;
		if (is_the_pods(netns, other)) {
			*ret_neighbour = other;
			return netns;
		}
		close(netns);
	}
	return -1;
}

static void tell_probe(const struct try *try, const char *address, const char *source, policy_finding finding, void *data)
{
	switch (try->answer) {
	case ANSWER_YES:
		policies_tell(finding, data, false, "probe", "the node reaches port %d, from %s as the kubelet's probes do",
			      try->port, source);
		return;
	case ANSWER_REFUSED:
		policies_tell(finding, data, false, "probe",
			      "port %d refuses the node's connections, and so the kubelet's probes: nothing listens on it, or "
			      "a firewall rejects what comes from %s",
			      try->port, source);
		return;
	case ANSWER_NONE:
	case ANSWER_ERROR:
		policies_tell(finding, data, true, "probe",
			      "the kubelet's probes do not get through: what the node sends to %s port %d from %s %s%s; a "
			      "NetworkPolicy's engine or a firewall must let that source address in",
			      address, try->port, source, try->answer == ANSWER_NONE ? "gets no answer" : "comes back: ",
			      try->answer == ANSWER_NONE ? "" : strerror(try->number));
		return;
	}
}

static void tell_mesh(const struct try *try, const char *address, const cJSON *neighbour, policy_finding finding, void *data)
{
	char from[600];
	snprintf(from, sizeof from, "%s/%s", json_text(neighbour, "namespace"), json_text(neighbour, "name"));
	if (try->answer == ANSWER_YES)
		policies_tell(finding, data, false, "mesh", "another pod of the mesh (%s) reaches port %d", from, try->port);
	else
		policies_tell(
			finding, data, true, "mesh",
			"the mesh's connections do not get through: what another pod of it (%s) sends to %s port %d %s%s; a "
			"NetworkPolicy's engine or a firewall must let TCP %d in",
			from, address, try->port,
			try->answer == ANSWER_NONE	? "gets no answer"
			: try->answer == ANSWER_REFUSED ? "is refused, although the tunnel listens"
							: "comes back: ",
			try->answer == ANSWER_ERROR ? strerror(try->number) : "", try->port);
}

__attribute__((format(printf, 3, 4))) static void note(char *unread, size_t size, const char *format, ...)
{
	size_t length = strlen(unread);
	va_list arguments;
	if (length && length + 3 < size)
		length += (size_t)snprintf(unread + length, size - length, "; ");
	va_start(arguments, format);
	vsnprintf(unread + length, size - length, format, arguments);
	va_end(arguments);
}

void reach_try(const struct admin *admin, const cJSON *pod, const int *probe_ports, size_t probe_ports_count,
	       policy_finding finding, void *data, char *unread, size_t size)
{
	cleanup_cjson cJSON *config = NULL, *pods = NULL;
	struct pod_address address;
	struct view view = { .host = -1 };
	struct error error = { 0 };
	char text[POD_ADDRESS_TEXT_MAX];
	const cJSON *neighbour = NULL;
	struct try tries[TRIES_MAX];
	size_t count = 0;
	if (!json_truth(pod, "rules.present") || !json_truth(pod, "tunnel.acknowledged") || !first_address(pod, &address))
		return;
	if (admin_get(admin, "/config", &error, &config) < 0 || admin_get(admin, "/pods", &error, &pods) < 0 ||
	    open_view(config, &error, &view) < 0) {
		note(unread, size, "whether anything is dropped on the way to the pod: %s", error.message);
		return;
	}
	cleanup_close int host = view.host;
	cleanup_close int near = open_neighbour(&view, pods, pod, address.family, &neighbour);
	const char *family = address.family == AF_INET ? "ipv4" : "ipv6";
	const cJSON *listens = cJSON_GetObjectItemCaseSensitive(json_at(pod, "tunnel.listening"), "15008");
	bool is_mesh_ready = cJSON_IsString(listens) && strstr(listens->valuestring, family);
	if (near >= 0 && is_mesh_ready)
		tries[count++] = (struct try){ .port = REDIRECT_PORT_HBONE, .is_mesh = true };
	else if (is_mesh_ready)
		note(unread, size, "whether port %d is let in: no other pod of the mesh is here to try it from",
		     REDIRECT_PORT_HBONE);
	for (size_t i = 0; i < probe_ports_count && count < TRIES_MAX; i++)
		tries[count++] = (struct try){ .port = probe_ports[i] };
	for (size_t i = 0; i < count; i++)
		begin(&tries[i], tries[i].is_mesh ? near : host, &address);
	await(tries, count);
	pod_address_print(&address, text);
	const cJSON *redirect = json_at(pod, "rules.redirect");
	const char *source = json_text(redirect, address.family == AF_INET ? "hostProbe.ipv4" : "hostProbe.ipv6");
	if (address.family == AF_INET6 && !json_truth(redirect, "ipv6"))
		source = "its own address";
	for (size_t i = 0; i < count; i++) {
		if (tries[i].is_mesh)
			tell_mesh(&tries[i], text, neighbour, finding, data);
		else
			tell_probe(&tries[i], text, source, finding, data);
	}
}
