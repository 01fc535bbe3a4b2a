/* CNI versions, arguments and results. See cni.h.
 *
 * A result of 0.3.0 to 0.4.0 has ips[].version; of 1.0.0 and later it does not; of 0.1.0 and 0.2.0 it has ip4 and ip6 instead
 * of ips. Everything else is passed on as it came: a chained plugin changes nothing. */
#include "ambient/cni.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

#define NAME_MAX_LENGTH 253

static const char *const version_names[CNI_VERSION_COUNT] = {
	[CNI_0_3_0] = "0.3.0", [CNI_0_3_1] = "0.3.1", [CNI_0_4_0] = "0.4.0", [CNI_1_0_0] = "1.0.0", [CNI_1_1_0] = "1.1.0",
};

const char *cni_version_name(enum cni_version version)
{
	return version_names[version];
}

bool cni_version_parse(const char *text, enum cni_version *ret_version)
{
	for (int version = 0; version < CNI_VERSION_COUNT; version++) {
		if (strcmp(version_names[version], text) == 0) {
			*ret_version = (enum cni_version)version;
			return true;
		}
	}
	return false;
}

int cni_args_get(const char *args, const char *key, struct error *error, char **ret_value)
{
	size_t key_length = strlen(key);
	char *value = NULL;
	while (args && *args) {
		size_t length = strcspn(args, ";");
		if (length > key_length + 1 && strncmp(args, key, key_length) == 0 && args[key_length] == '=') {
			size_t value_length = length - key_length - 1;
			if (value_length > NAME_MAX_LENGTH)
				return error_set(error, 0, "CNI_ARGS: %s has %zu characters, expected at most %d", key,
						 value_length, NAME_MAX_LENGTH);
			value = strndup(args + key_length + 1, value_length);
			if (!value)
				return error_set(error, ENOMEM, "cannot keep %s of CNI_ARGS", key);
			break;
		}
		args += length;
		args += *args == ';';
	}
	*ret_value = value;
	return 0;
}

/* ips[].version, for results before 1.0.0. */
static bool add_ip_versions(const cJSON *ips)
{
	cJSON *ip;
	cJSON_ArrayForEach (ip, ips) {
		const cJSON *address = cJSON_GetObjectItemCaseSensitive(ip, "address");
		if (!cJSON_IsObject(ip) || !cJSON_IsString(address) || cJSON_GetObjectItemCaseSensitive(ip, "version"))
			continue;
		if (!cJSON_AddStringToObject(ip, "version", strchr(address->valuestring, ':') ? "6" : "4"))
			return false;
	}
	return true;
}

static void remove_ip_versions(const cJSON *ips)
{
	cJSON *ip;
	cJSON_ArrayForEach (ip, ips) {
		if (cJSON_IsObject(ip))
			cJSON_DeleteItemFromObjectCaseSensitive(ip, "version");
	}
}

/* Moves {"ip": ADDRESS, "gateway": ADDRESS, "routes": [...]} of 0.2.0 into ips and routes. */
static bool move_old_ip(cJSON *result, const char *key, const char *version, cJSON *ips, cJSON *routes)
{
	cleanup_cjson cJSON *old = cJSON_DetachItemFromObjectCaseSensitive(result, key);
	if (!old)
		return true;
	cJSON *ip = cJSON_CreateObject();
	if (!json_append(ips, ip))
		return false;
	const cJSON *address = cJSON_GetObjectItemCaseSensitive(old, "ip"),
		    *gateway = cJSON_GetObjectItemCaseSensitive(old, "gateway");
	if (!cJSON_AddStringToObject(ip, "version", version) ||
	    (cJSON_IsString(address) && !cJSON_AddStringToObject(ip, "address", address->valuestring)) ||
	    (cJSON_IsString(gateway) && !cJSON_AddStringToObject(ip, "gateway", gateway->valuestring)))
		return false;
	cJSON *old_routes = cJSON_GetObjectItemCaseSensitive(old, "routes");
	while (cJSON_GetArraySize(old_routes) > 0)
		if (!json_append(routes, cJSON_DetachItemFromArray(old_routes, 0)))
			return false;
	return true;
}

/* "10.0.0.1/24", or an address alone, as 0.2.0 has it. */
static bool is_address(const char *text)
{
	char address[INET6_ADDRSTRLEN];
	unsigned char bytes[sizeof(struct in6_addr)];
	int family = strchr(text, ':') ? AF_INET6 : AF_INET;
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t)(slash - text) : strlen(text);
	if (length >= sizeof address)
		return false;
	memcpy(address, text, length);
	address[length] = '\0';
	if (inet_pton(family, address, bytes) != 1)
		return false;
	if (!slash)
		return true;
	size_t digits = strspn(slash + 1, "0123456789");
	return digits >= 1 && digits <= 3 && slash[1 + digits] == '\0' && atoi(slash + 1) <= (family == AF_INET6 ? 128 : 32);
}

static int check_objects(const cJSON *result, const char *key, struct error *error)
{
	const cJSON *list = NULL, *item;
	int index = 0;
	if (json_get_array(result, key, "prevResult", error, &list) < 0)
		return -1;
	cJSON_ArrayForEach (item, list) {
		if (!cJSON_IsObject(item))
			return error_set(error, 0, "prevResult.%s[%d]: expected an object, found %s", key, index,
					 json_type_name(item));
		index++;
	}
	return 0;
}

static int check_addresses(const cJSON *result, struct error *error)
{
	const cJSON *ip;
	int index = 0;
	cJSON_ArrayForEach (ip, cJSON_GetObjectItemCaseSensitive(result, "ips")) {
		char where[40];
		const char *address = NULL;
		snprintf(where, sizeof where, "prevResult.ips[%d]", index++);
		if (json_get_string(ip, "address", where, error, &address) < 0)
			return -1;
		if (!address || !is_address(address))
			return error_set(error, 0, "%s.address: expected an address such as 10.0.0.7/24, found %.64s", where,
					 address ? address : "nothing");
	}
	return 0;
}

/* As the Go library writes a result that holds nothing. */
static int make_empty(enum cni_version version, struct error *error, cJSON **ret_result)
{
	cleanup_cjson cJSON *result = cJSON_CreateObject();
	if (!cJSON_AddStringToObject(result, "cniVersion", cni_version_name(version)) ||
	    !cJSON_AddObjectToObject(result, "dns"))
		return error_set(error, ENOMEM, "cannot build the result");
	*ret_result = steal_pointer(result);
	return 0;
}

static bool set_version(cJSON *result, enum cni_version version)
{
	cJSON *item = cJSON_CreateString(cni_version_name(version));
	if (cJSON_GetObjectItemCaseSensitive(result, "cniVersion")
		    ? cJSON_ReplaceItemInObjectCaseSensitive(result, "cniVersion", item)
		    : cJSON_AddItemToObject(result, "cniVersion", item))
		return true;
	cJSON_Delete(item);
	return false;
}

int cni_result_convert(const cJSON *previous, enum cni_version version, struct error *error, cJSON **ret_result)
{
	if (!previous)
		return make_empty(version, error, ret_result);
	if (!cJSON_IsObject(previous))
		return error_set(error, 0, "prevResult: expected an object, found %s", json_type_name(previous));
	const char *text = cni_version_name(version);
	enum cni_version from = version;
	if (json_get_string(previous, "cniVersion", "prevResult", error, &text) < 0)
		return -1;
	bool is_old = text[0] == '\0' || strcmp(text, "0.1.0") == 0 || strcmp(text, "0.2.0") == 0;
	if (!is_old && !cni_version_parse(text, &from))
		return error_set(error, 0, "prevResult.cniVersion: expected a version up to 1.1.0, found \"%.32s\"", text);

	cleanup_cjson cJSON *result = cJSON_Duplicate(previous, true);
	if (!result)
		return error_set(error, ENOMEM, "cannot build the result");
	if (is_old) {
		cJSON_DeleteItemFromObjectCaseSensitive(result, "ips");
		cJSON_DeleteItemFromObjectCaseSensitive(result, "routes");
		cJSON *ips = cJSON_AddArrayToObject(result, "ips"), *routes = cJSON_AddArrayToObject(result, "routes");
		if (!ips || !routes || !move_old_ip(result, "ip4", "4", ips, routes) ||
		    !move_old_ip(result, "ip6", "6", ips, routes))
			return error_set(error, ENOMEM, "cannot build the result");
		from = CNI_0_3_0;
	}
	if (check_objects(result, "ips", error) < 0 || check_objects(result, "interfaces", error) < 0 ||
	    check_objects(result, "routes", error) < 0 || check_addresses(result, error) < 0)
		return -1;
	if (from < CNI_1_0_0 && version >= CNI_1_0_0)
		remove_ip_versions(cJSON_GetObjectItemCaseSensitive(result, "ips"));
	if ((from >= CNI_1_0_0 && version < CNI_1_0_0 && !add_ip_versions(cJSON_GetObjectItemCaseSensitive(result, "ips"))) ||
	    !set_version(result, version))
		return error_set(error, ENOMEM, "cannot build the result");
	*ret_result = steal_pointer(result);
	return 0;
}
