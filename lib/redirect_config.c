/* The struct redirect: its defaults, and the `redirect` object of a configuration from and to JSON. */
#include "ambient/redirect.h"

#include <arpa/inet.h>
#include <cjson/cJSON.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

/* Of one list: far more than anybody needs, and a bound on what a configuration can cost. */
#define LIST_MAX 1024

#define PROBE_IPV4 "169.254.7.127"
#define PROBE_IPV6 "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"

void redirect_init(struct redirect *redirect)
{
	*redirect = (struct redirect){ .ipv6 = true, .dns_capture = true, .conntrack_timeouts = true };
	inet_pton(AF_INET, PROBE_IPV4, &redirect->host_probe_ipv4);
	inet_pton(AF_INET6, PROBE_IPV6, &redirect->host_probe_ipv6);
}

void redirect_clear(struct redirect *redirect)
{
	free(redirect->virtual_interfaces);
	free(redirect->exclude.outbound_ports);
	free(redirect->exclude.outbound_ranges);
	free(redirect->exclude.inbound_ports);
	free(redirect->exclude.interfaces);
	*redirect = (struct redirect){ 0 };
}

/* A list of the struct, whatever it holds. */
struct list {
	void **items;
	size_t *count;
	size_t item_size;
};
enum { LIST_VIRTUAL_INTERFACES, LIST_OUTBOUND_PORTS, LIST_OUTBOUND_RANGES, LIST_INBOUND_PORTS, LIST_INTERFACES, LIST_COUNT };

static struct list list_of(struct redirect *redirect, int which)
{
	switch (which) {
	case LIST_VIRTUAL_INTERFACES:
		return (struct list){ (void **)&redirect->virtual_interfaces, &redirect->virtual_interfaces_count,
				      sizeof *redirect->virtual_interfaces };
	case LIST_OUTBOUND_PORTS:
		return (struct list){ (void **)&redirect->exclude.outbound_ports, &redirect->exclude.outbound_ports_count,
				      sizeof *redirect->exclude.outbound_ports };
	case LIST_OUTBOUND_RANGES:
		return (struct list){ (void **)&redirect->exclude.outbound_ranges, &redirect->exclude.outbound_ranges_count,
				      sizeof *redirect->exclude.outbound_ranges };
	case LIST_INBOUND_PORTS:
		return (struct list){ (void **)&redirect->exclude.inbound_ports, &redirect->exclude.inbound_ports_count,
				      sizeof *redirect->exclude.inbound_ports };
	default:
		return (struct list){ (void **)&redirect->exclude.interfaces, &redirect->exclude.interfaces_count,
				      sizeof *redirect->exclude.interfaces };
	}
}

static void forget_lists(struct redirect *redirect)
{
	for (int which = 0; which < LIST_COUNT; which++) {
		struct list list = list_of(redirect, which);
		*list.items = NULL;
		*list.count = 0;
	}
}

int redirect_copy(const struct redirect *from, struct error *error, struct redirect *ret_copy)
{
	cleanup_redirect struct redirect copy = *from;
	struct redirect source = *from;
	forget_lists(&copy);
	for (int which = 0; which < LIST_COUNT; which++) {
		struct list have = list_of(&source, which), want = list_of(&copy, which);
		if (*have.count == 0)
			continue;
		*want.items = calloc(*have.count, have.item_size);
		if (!*want.items)
			return error_set(error, ENOMEM, "cannot copy a redirect");
		memcpy(*want.items, *have.items, *have.count * have.item_size);
		*want.count = *have.count;
	}
	*ret_copy = copy;
	forget_lists(&copy);
	return 0;
}

static bool address_range_equal(const struct address_range *a, const struct address_range *b)
{
	if (a->family != b->family || a->prefix_length != b->prefix_length)
		return false;
	return a->family == AF_INET ? a->ipv4.s_addr == b->ipv4.s_addr : IN6_ARE_ADDR_EQUAL(&a->ipv6, &b->ipv6);
}

bool redirect_equal(const struct redirect *a, const struct redirect *b)
{
	if (a->ipv6 != b->ipv6 || a->dns_capture != b->dns_capture || a->bypass_inbound != b->bypass_inbound ||
	    a->conntrack_timeouts != b->conntrack_timeouts || a->existing_connections != b->existing_connections ||
	    a->host_probe_ipv4.s_addr != b->host_probe_ipv4.s_addr ||
	    !IN6_ARE_ADDR_EQUAL(&a->host_probe_ipv6, &b->host_probe_ipv6))
		return false;
	struct redirect left = *a, right = *b;
	for (int which = 0; which < LIST_COUNT; which++) {
		struct list x = list_of(&left, which), y = list_of(&right, which);
		if (*x.count != *y.count)
			return false;
		if (which == LIST_OUTBOUND_RANGES) {
			for (size_t i = 0; i < *x.count; i++)
				if (!address_range_equal(&left.exclude.outbound_ranges[i], &right.exclude.outbound_ranges[i]))
					return false;
		} else if (*x.count > 0 && memcmp(*x.items, *y.items, *x.count * x.item_size) != 0) {
			return false;
		}
	}
	return true;
}

/* Reads a decimal port from 1 to 65535 that fills the text up to `end`. */
static bool parse_port(const char *text, const char *end, uint16_t *ret_port)
{
	unsigned int port = 0;
	if (text == end || end - text > 5)
		return false;
	for (; text < end; text++) {
		if (!isdigit((unsigned char)*text))
			return false;
		port = port * 10 + (unsigned int)(*text - '0');
	}
	if (port == 0 || port > UINT16_MAX)
		return false;
	*ret_port = (uint16_t)port;
	return true;
}

static bool parse_port_range(const cJSON *json, struct port_range *ret_range)
{
	struct port_range range = { 0 };
	if (cJSON_IsNumber(json)) {
		if (!(json->valuedouble >= 1 && json->valuedouble <= UINT16_MAX) || json->valuedouble != (int)json->valuedouble)
			return false;
		range.first = range.last = (uint16_t)json->valuedouble;
	} else if (cJSON_IsString(json)) {
		const char *text = json->valuestring, *end = text + strlen(text), *dash = strchr(text, '-');
		if (!parse_port(text, dash ? dash : end, &range.first))
			return false;
		range.last = range.first;
		if (dash && (!parse_port(dash + 1, end, &range.last) || range.last < range.first))
			return false;
	} else {
		return false;
	}
	*ret_range = range;
	return true;
}

static bool parse_address_range(const cJSON *json, struct address_range *ret_range)
{
	if (!cJSON_IsString(json))
		return false;
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(json->valuestring, '/');
	size_t length = slash ? (size_t)(slash - json->valuestring) : strlen(json->valuestring);
	if (length >= sizeof address)
		return false;
	memcpy(address, json->valuestring, length);
	address[length] = '\0';

	struct address_range range = { .family = strchr(address, ':') ? AF_INET6 : AF_INET };
	uint8_t bytes[sizeof(struct in6_addr)] = { 0 };
	unsigned int bits = range.family == AF_INET ? 32 : 128, prefix_length = bits;
	if (inet_pton(range.family, address, bytes) != 1)
		return false;
	if (slash) {
		prefix_length = 0;
		size_t digits = strlen(slash + 1);
		if (digits == 0 || digits > 3)
			return false;
		for (const char *digit = slash + 1; *digit; digit++) {
			if (!isdigit((unsigned char)*digit))
				return false;
			prefix_length = prefix_length * 10 + (unsigned int)(*digit - '0');
		}
		if (prefix_length > bits)
			return false;
	}
	/* 10.1.2.3/8 means 10.0.0.0/8, as everywhere in the field. */
	for (unsigned int bit = prefix_length; bit < bits; bit++)
		bytes[bit / 8] &= (uint8_t) ~(0x80u >> (bit % 8));
	memcpy(range.family == AF_INET ? (void *)&range.ipv4 : (void *)&range.ipv6, bytes, bits / 8);
	range.prefix_length = (uint8_t)prefix_length;
	*ret_range = range;
	return true;
}

/* What the kernel accepts as a name (dev_valid_name in net/core/dev.c). */
static bool parse_interface(const cJSON *json, char (*ret_name)[IFNAMSIZ])
{
	if (!cJSON_IsString(json))
		return false;
	const char *text = json->valuestring;
	if (text[0] == '\0' || strlen(text) >= IFNAMSIZ || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	/* A quote can't be written in nft syntax. */
	for (const char *c = text; *c; c++)
		if (*c == '/' || *c == ':' || *c == '"' || !isgraph((unsigned char)*c))
			return false;
	memset(*ret_name, 0, sizeof *ret_name);
	memcpy(*ret_name, text, strlen(text));
	return true;
}

static bool parse_item(const cJSON *json, int which, void *ret_item)
{
	switch (which) {
	case LIST_OUTBOUND_PORTS:
	case LIST_INBOUND_PORTS:
		return parse_port_range(json, ret_item);
	case LIST_OUTBOUND_RANGES:
		return parse_address_range(json, ret_item);
	default:
		return parse_interface(json, ret_item);
	}
}

static int read_list(const cJSON *object, const char *key, const char *where, int which, struct error *error,
		     struct redirect *redirect)
{
	static const char *const expected[LIST_COUNT] = {
		[LIST_VIRTUAL_INTERFACES] = "an interface's name (1 to 15 characters)",
		[LIST_OUTBOUND_PORTS] = "a port (1 to 65535) or a range \"a-b\"",
		[LIST_OUTBOUND_RANGES] = "a range in CIDR notation (\"10.0.0.0/8\", \"fd00::/8\")",
		[LIST_INBOUND_PORTS] = "a port (1 to 65535) or a range \"a-b\"",
		[LIST_INTERFACES] = "an interface's name (1 to 15 characters)",
	};
	const cJSON *array = NULL;
	if (json_get_array(object, key, where, error, &array) < 0)
		return -1;
	if (!array)
		return 0;
	size_t count = (size_t)cJSON_GetArraySize(array);
	if (count > LIST_MAX)
		return error_set(error, 0, "%s.%s: expected at most %d entries, found %zu", where, key, LIST_MAX, count);

	struct list list = list_of(redirect, which);
	free(*list.items);
	*list.items = NULL;
	*list.count = 0;
	if (count == 0)
		return 0;
	*list.items = calloc(count, list.item_size);
	if (!*list.items)
		return error_set(error, ENOMEM, "cannot keep %s.%s", where, key);
	const cJSON *entry;
	cJSON_ArrayForEach (entry, array) {
		if (!parse_item(entry, which, (char *)*list.items + *list.count * list.item_size)) {
			cleanup_free char *found = cJSON_PrintUnformatted(entry);
			return error_set(error, 0, "%s.%s[%zu]: expected %s, found %.80s", where, key, *list.count,
					 expected[which], found ? found : "something else");
		}
		++*list.count;
	}
	return 0;
}

static int read_probe_address(const cJSON *object, const char *key, const char *where, int family, struct error *error,
			      void *address)
{
	const char *text = NULL;
	if (json_get_string(object, key, where, error, &text) < 0)
		return -1;
	if (!text)
		return 0;
	struct in6_addr parsed;
	bool is_valid = inet_pton(family, text, &parsed) == 1;
	if (is_valid && family == AF_INET) {
		uint32_t ipv4 = ntohl(*(const uint32_t *)&parsed);
		is_valid =
			ipv4 != INADDR_ANY && (ipv4 >> 24) != IN_LOOPBACKNET && !IN_MULTICAST(ipv4) && ipv4 != INADDR_BROADCAST;
	} else if (is_valid) {
		is_valid = !IN6_IS_ADDR_UNSPECIFIED(&parsed) && !IN6_IS_ADDR_LOOPBACK(&parsed) &&
			   !IN6_IS_ADDR_MULTICAST(&parsed) && !IN6_IS_ADDR_V4MAPPED(&parsed);
	}
	if (!is_valid)
		return error_set(error, 0, "%s.%s: expected a unicast %s address that is not loopback, found \"%.80s\"", where,
				 key, family == AF_INET ? "IPv4" : "IPv6", text);
	memcpy(address, &parsed, family == AF_INET ? sizeof(struct in_addr) : sizeof(struct in6_addr));
	return 0;
}

static int read_existing_connections(const cJSON *json, const char *where, struct error *error, struct redirect *redirect)
{
	const char *text = NULL;
	if (json_get_string(json, "existingConnections", where, error, &text) < 0)
		return -1;
	if (!text)
		return 0;
	if (strcmp(text, "keep") != 0 && strcmp(text, "reset") != 0)
		return error_set(error, 0, "%s.existingConnections: expected \"keep\" or \"reset\", found \"%.80s\"", where,
				 text);
	redirect->existing_connections = strcmp(text, "keep") == 0 ? EXISTING_CONNECTIONS_KEEP : EXISTING_CONNECTIONS_RESET;
	return 0;
}

int redirect_from_json(const cJSON *json, const char *where, struct error *error, struct redirect *redirect)
{
	cleanup_redirect struct redirect read = { 0 };
	const cJSON *probe = NULL, *exclude = NULL;
	char probe_place[192], exclude_place[192];

	if (!cJSON_IsObject(json))
		return error_set(error, 0, "%s: expected an object, found %s", where, json_type_name(json));
	snprintf(probe_place, sizeof probe_place, "%s.hostProbe", where);
	snprintf(exclude_place, sizeof exclude_place, "%s.exclude", where);
	if (redirect_copy(redirect, error, &read) < 0 || json_get_bool(json, "ipv6", where, error, &read.ipv6) < 0 ||
	    json_get_bool(json, "dnsCapture", where, error, &read.dns_capture) < 0 ||
	    json_get_bool(json, "bypassInbound", where, error, &read.bypass_inbound) < 0 ||
	    json_get_bool(json, "conntrackTimeouts", where, error, &read.conntrack_timeouts) < 0 ||
	    read_existing_connections(json, where, error, &read) < 0 ||
	    read_list(json, "virtualInterfaces", where, LIST_VIRTUAL_INTERFACES, error, &read) < 0 ||
	    json_get_object(json, "hostProbe", where, error, &probe) < 0 ||
	    read_probe_address(probe, "ipv4", probe_place, AF_INET, error, &read.host_probe_ipv4) < 0 ||
	    read_probe_address(probe, "ipv6", probe_place, AF_INET6, error, &read.host_probe_ipv6) < 0 ||
	    json_get_object(json, "exclude", where, error, &exclude) < 0 ||
	    read_list(exclude, "outboundPorts", exclude_place, LIST_OUTBOUND_PORTS, error, &read) < 0 ||
	    read_list(exclude, "outboundRanges", exclude_place, LIST_OUTBOUND_RANGES, error, &read) < 0 ||
	    read_list(exclude, "inboundPorts", exclude_place, LIST_INBOUND_PORTS, error, &read) < 0 ||
	    read_list(exclude, "interfaces", exclude_place, LIST_INTERFACES, error, &read) < 0)
		return -1;

	/* The caller's old lists go, the new ones stay. */
	redirect_clear(redirect);
	*redirect = read;
	read = (struct redirect){ 0 };
	return 0;
}

static cJSON *port_range_to_json(const struct port_range *range)
{
	char text[16];
	if (range->first == range->last)
		return cJSON_CreateNumber(range->first);
	snprintf(text, sizeof text, "%u-%u", range->first, range->last);
	return cJSON_CreateString(text);
}

static cJSON *address_range_to_json(const struct address_range *range)
{
	char address[INET6_ADDRSTRLEN], text[INET6_ADDRSTRLEN + 8];
	inet_ntop(range->family, range->family == AF_INET ? (const void *)&range->ipv4 : (const void *)&range->ipv6, address,
		  sizeof address);
	snprintf(text, sizeof text, "%s/%u", address, range->prefix_length);
	return cJSON_CreateString(text);
}

static bool add_list(cJSON *object, const char *key, const struct redirect *redirect, int which)
{
	struct redirect source = *redirect;
	struct list list = list_of(&source, which);
	cJSON *array = cJSON_AddArrayToObject(object, key);
	for (size_t i = 0; array && i < *list.count; i++) {
		const char *item = (const char *)*list.items + i * list.item_size;
		cJSON *entry;
		if (which == LIST_OUTBOUND_PORTS || which == LIST_INBOUND_PORTS)
			entry = port_range_to_json((const struct port_range *)item);
		else if (which == LIST_OUTBOUND_RANGES)
			entry = address_range_to_json((const struct address_range *)item);
		else
			entry = cJSON_CreateString(item);
		if (!json_append(array, entry))
			return false;
	}
	return array != NULL;
}

cJSON *redirect_to_json(const struct redirect *redirect)
{
	char ipv4[INET_ADDRSTRLEN], ipv6[INET6_ADDRSTRLEN];
	inet_ntop(AF_INET, &redirect->host_probe_ipv4, ipv4, sizeof ipv4);
	inet_ntop(AF_INET6, &redirect->host_probe_ipv6, ipv6, sizeof ipv6);
	bool keep = redirect->existing_connections == EXISTING_CONNECTIONS_KEEP;

	cleanup_cjson cJSON *json = cJSON_CreateObject();
	if (!cJSON_AddBoolToObject(json, "ipv6", redirect->ipv6) ||
	    !cJSON_AddBoolToObject(json, "dnsCapture", redirect->dns_capture) ||
	    !cJSON_AddBoolToObject(json, "bypassInbound", redirect->bypass_inbound) ||
	    !add_list(json, "virtualInterfaces", redirect, LIST_VIRTUAL_INTERFACES) ||
	    !cJSON_AddStringToObject(json, "existingConnections", keep ? "keep" : "reset"))
		return NULL;
	/* Of the kernel, no setting: it is told where it lacks something. */
	if (!redirect->conntrack_timeouts && !cJSON_AddBoolToObject(json, "conntrackTimeouts", false))
		return NULL;
	cJSON *probe = cJSON_AddObjectToObject(json, "hostProbe");
	cJSON *exclude = cJSON_AddObjectToObject(json, "exclude");
	if (!cJSON_AddStringToObject(probe, "ipv4", ipv4) || !cJSON_AddStringToObject(probe, "ipv6", ipv6) ||
	    !add_list(exclude, "outboundPorts", redirect, LIST_OUTBOUND_PORTS) ||
	    !add_list(exclude, "outboundRanges", redirect, LIST_OUTBOUND_RANGES) ||
	    !add_list(exclude, "inboundPorts", redirect, LIST_INBOUND_PORTS) ||
	    !add_list(exclude, "interfaces", redirect, LIST_INTERFACES))
		return NULL;
	return steal_pointer(json);
}
