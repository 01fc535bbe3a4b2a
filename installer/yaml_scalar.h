/* What a scalar without quotes is, by the core schema of YAML 1.2. */
#ifndef AMBIENT_INSTALLER_YAML_SCALAR_H
#define AMBIENT_INSTALLER_YAML_SCALAR_H

#include <stdbool.h>

#define YAML_TAG_PREFIX "tag:yaml.org,2002:"

enum yaml_scalar {
	YAML_SCALAR_STRING,
	YAML_SCALAR_NULL,
	YAML_SCALAR_TRUE,
	YAML_SCALAR_FALSE,
	YAML_SCALAR_NUMBER,
	YAML_SCALAR_INFINITE
};

/* `ret_number` is set for YAML_SCALAR_NUMBER. A number too large for a double is infinite. */
enum yaml_scalar yaml_scalar_resolve(const char *text, double *ret_number);

/* Whether an explicit tag of the core schema ("!!int") fits what the text is. */
bool yaml_scalar_fits(const char *tag, enum yaml_scalar type);

#endif
