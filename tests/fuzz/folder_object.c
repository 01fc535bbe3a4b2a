/* The objects in a file of the folder source, and what the mesh makes of them. */
#include "installer/folder/object.h"

#include <string.h>

#include "installer/object.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error error = { 0 };
	cleanup_folder_objects struct folder_objects objects = { 0 };
	if (folder_objects_read((const char *)data, size, "input", "node", &error, &objects) < 0) {
		HOLDS(error_is_set(&error));
		return 0;
	}
	for (size_t i = 0; i < objects.count; i++) {
		cleanup_pod struct pod *pod = NULL;
		cleanup_namespace struct namespace_object *object = NULL;
		error = (struct error){ 0 };
		if (objects.items[i]->kind == SOURCE_POD ? pod_from_json(objects.items[i]->json, &error, &pod) == 0
							 : namespace_from_json(objects.items[i]->json, &error, &object) == 0)
			HOLDS(pod ? strlen(pod->uid) > 0 : object && strlen(object->name) > 0);
		else
			HOLDS(error_is_set(&error));
	}
	return 0;
}
