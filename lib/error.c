/* The error object: filled once, wrapped on the way up. */
#include "ambient/error.h"

#include <stdio.h>
#include <string.h>

int error_set(struct error *error, int number, const char *format, ...)
{
	if (!error || error_is_set(error))
		return -1;

	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(error->message, sizeof error->message, format, arguments);
	va_end(arguments);
	error->number = number;
	if (number != 0 && length >= 0 && (size_t)length < sizeof error->message) {
		/* strerrordesc_np needs no buffer and no locale; it knows every errno of this libc. */
		const char *description = strerrordesc_np(number);
		snprintf(error->message + length, sizeof error->message - (size_t)length, ": %s",
			 description ? description : "unknown error");
	}
	return -1;
}

int error_say(struct error *error, int number, const char *format, ...)
{
	if (!error || error_is_set(error))
		return -1;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(error->message, sizeof error->message, format, arguments);
	va_end(arguments);
	error->number = number;
	return -1;
}

int error_wrap(struct error *error, const char *format, ...)
{
	if (!error)
		return -1;

	char inner[sizeof error->message];
	memcpy(inner, error->message, sizeof inner);
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(error->message, sizeof error->message, format, arguments);
	va_end(arguments);
	if (inner[0] == '\0' || length < 0 || (size_t)length >= sizeof error->message)
		return -1;
	/* What does not fit is cut; looking at the result tells gcc that this is meant. */
	if (snprintf(error->message + length, sizeof error->message - (size_t)length, ": %s", inner) < 0)
		error->message[length] = '\0';
	return -1;
}
