/* What a plain scalar is. See yaml_scalar.h. */
#include "installer/yaml_scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t digits_in(const char *text, const char *digits)
{
	return strspn(text, digits);
}

/* The integers and floats of the core schema; NAN where the text is neither. */
static double parse_number(const char *text)
{
	static const char decimal[] = "0123456789";
	const char *at = text;
	if (strncmp(at, "0o", 2) == 0 || strncmp(at, "0x", 2) == 0) {
		bool is_octal = at[1] == 'o';
		size_t digits = digits_in(at + 2, is_octal ? "01234567" : "0123456789abcdefABCDEF");
		if (digits == 0 || at[2 + digits] != '\0')
			return NAN;
		double value = 0;
		for (at += 2; *at; at++)
			value = value * (is_octal ? 8 : 16) + (*at <= '9' ? *at - '0' : (*at | 0x20) - 'a' + 10);
		return value;
	}
	if (*at == '-' || *at == '+')
		at++;
	size_t whole = digits_in(at, decimal), fraction = 0;
	at += whole;
	if (*at == '.') {
		fraction = digits_in(++at, decimal);
		at += fraction;
	}
	if (whole == 0 && fraction == 0)
		return NAN;
	if (*at == 'e' || *at == 'E') {
		at++;
		if (*at == '-' || *at == '+')
			at++;
		size_t exponent = digits_in(at, decimal);
		if (exponent == 0)
			return NAN;
		at += exponent;
	}
	return *at == '\0' ? strtod(text, NULL) : NAN;
}

static bool is_one_of(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

enum yaml_scalar yaml_scalar_resolve(const char *text, double *ret_number)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL", NULL };
	static const char *const trues[] = { "true", "True", "TRUE", NULL };
	static const char *const falses[] = { "false", "False", "FALSE", NULL };
	static const char *const infinities[] = { ".inf",  ".Inf",  ".INF", "+.inf", "+.Inf", "+.INF", "-.inf",
						  "-.Inf", "-.INF", ".nan", ".NaN",  ".NAN",  NULL };
	if (is_one_of(text, nulls))
		return YAML_SCALAR_NULL;
	if (is_one_of(text, trues))
		return YAML_SCALAR_TRUE;
	if (is_one_of(text, falses))
		return YAML_SCALAR_FALSE;
	if (is_one_of(text, infinities))
		return YAML_SCALAR_INFINITE;
	double number = parse_number(text);
	if (isnan(number))
		return YAML_SCALAR_STRING;
	*ret_number = number;
	return isinf(number) ? YAML_SCALAR_INFINITE : YAML_SCALAR_NUMBER;
}

bool yaml_scalar_fits(const char *tag, enum yaml_scalar type)
{
	if (strcmp(tag, YAML_TAG_PREFIX "null") == 0)
		return type == YAML_SCALAR_NULL;
	if (strcmp(tag, YAML_TAG_PREFIX "bool") == 0)
		return type == YAML_SCALAR_TRUE || type == YAML_SCALAR_FALSE;
	return (strcmp(tag, YAML_TAG_PREFIX "int") == 0 || strcmp(tag, YAML_TAG_PREFIX "float") == 0) &&
	       type == YAML_SCALAR_NUMBER;
}
