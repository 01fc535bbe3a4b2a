/* CNI versions, arguments and results. See cni.h.
 *
 * A result of 0.3.0 to 0.4.0 has ips[].version; of 1.0.0 and later it does not; of 0.1.0 and 0.2.0 it has ip4 and ip6 instead
 * of ips. Everything else is passed on as it came: a chained plugin changes nothing. */
#include "ambient/cni.h"

#include <errno.h>
#include <string.h>

#include "ambient/cleanup.h"
#include "ambient/json.h"

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

char *cni_args_get(const char *args, const char *key)
{
	size_t key_length = strlen(key);
	while (args && *args) {
		size_t length = strcspn(args, ";");
		if (length > key_length && strncmp(args, key, key_length) == 0 && args[key_length] == '=')
			return strndup(args + key_length + 1, length - key_length - 1);
		args += length;
		args += *args == ';';
	}
	return NULL;
}

/* ips[].version, for results before 1.0.0. */
static bool add_ip_versions(const cJSON *ips)
{
	cJSON *ip;
	cJSON_ArrayForEach(ip, ips)
	{
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
	cJSON_ArrayForEach(ip, ips)
	{
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
	if (!cJSON_AddItemToArray(ips, ip)) {
		cJSON_Delete(ip);
		return false;
	}
	const cJSON *address = cJSON_GetObjectItemCaseSensitive(old, "ip"), *gateway = cJSON_GetObjectItemCaseSensitive(old, "gateway");
	if (!cJSON_AddStringToObject(ip, "version", version) ||
	    (cJSON_IsString(address) && !cJSON_AddStringToObject(ip, "address", address->valuestring)) ||
	    (cJSON_IsString(gateway) && !cJSON_AddStringToObject(ip, "gateway", gateway->valuestring)))
		return false;
	cJSON *old_routes = cJSON_GetObjectItemCaseSensitive(old, "routes");
	while (cJSON_GetArraySize(old_routes) > 0)
		if (!cJSON_AddItemToArray(routes, cJSON_DetachItemFromArray(old_routes, 0)))
			return false;
	return true;
}

int cni_result_convert(const cJSON *previous, enum cni_version version, struct error *error, cJSON **ret_result)
{
	if (previous && !cJSON_IsObject(previous))
		return error_set(error, 0, "prevResult: expected an object, found %s", json_type_name(previous));
	const cJSON *ips = cJSON_GetObjectItemCaseSensitive(previous, "ips");
	if (ips && !cJSON_IsNull(ips) && !cJSON_IsArray(ips))
		return error_set(error, 0, "prevResult.ips: expected a list, found %s", json_type_name(ips));
	const char *text = cni_version_name(version);
	enum cni_version from = version;
	if (json_get_string(previous, "cniVersion", "prevResult", error, &text) < 0)
		return -1;
	bool is_old = text[0] == '\0' || strcmp(text, "0.1.0") == 0 || strcmp(text, "0.2.0") == 0;
	if (!is_old && !cni_version_parse(text, &from))
		return error_set(error, 0, "prevResult.cniVersion: expected a version up to 1.1.0, found \"%.32s\"", text);

	cleanup_cjson cJSON *result = previous ? cJSON_Duplicate(previous, true) : cJSON_CreateObject();
	if (!result)
		return error_set(error, ENOMEM, "cannot build the result");
	if (is_old) {
		cJSON *new_ips = cJSON_AddArrayToObject(result, "ips"), *routes = cJSON_AddArrayToObject(result, "routes");
		if (!new_ips || !routes || !move_old_ip(result, "ip4", "4", new_ips, routes) ||
		    !move_old_ip(result, "ip6", "6", new_ips, routes))
			return error_set(error, ENOMEM, "cannot build the result");
		from = CNI_0_3_0;
	}
	if (from < CNI_1_0_0 && version >= CNI_1_0_0)
		remove_ip_versions(cJSON_GetObjectItemCaseSensitive(result, "ips"));
	if (from >= CNI_1_0_0 && version < CNI_1_0_0 && !add_ip_versions(cJSON_GetObjectItemCaseSensitive(result, "ips")))
		return error_set(error, ENOMEM, "cannot build the result");
	cJSON *item = cJSON_CreateString(cni_version_name(version));
	bool is_set = cJSON_HasObjectItem(result, "cniVersion") ?
			      cJSON_ReplaceItemInObjectCaseSensitive(result, "cniVersion", item) :
			      cJSON_AddItemToObject(result, "cniVersion", item);
	if (!is_set) {
		cJSON_Delete(item);
		return error_set(error, ENOMEM, "cannot build the result");
	}
	*ret_result = steal_pointer(result);
	return 0;
}
