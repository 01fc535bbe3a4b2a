/* Errors as values.
 *
 * A function that can fail returns 0 or -1 and takes a `struct error *` just before its `ret_` parameters. The place where
 * the failure happened fills the object once, with the errno that caused it; every caller on the way up wraps it with what it
 * was doing, so that the sentence a person finally reads goes from the step to the object to the cause:
 *
 *     cannot redirect pod shop/cart: cannot commit table inet ambient-cni: rule "outbound": Operation not permitted
 *
 * Library code neither logs nor exits. The message lives inside the object: reporting a failure needs no memory. */
#ifndef AMBIENT_ERROR_H
#define AMBIENT_ERROR_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>

struct error {
	int number;	    /* errno of the cause, 0 where there is none */
	char message[1024]; /* empty: no error */
};

/* Fills the error: the message, then ": " and strerror(number) unless number is 0. An error that is filled already keeps its
 * first cause. Always returns -1, so that `return error_set(...)` reads well. `error` may be NULL. */
int error_set(struct error *error, int number, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The same without the words for `number`: the sentence says it already, and the number is for callers that look at it. */
int error_say(struct error *error, int number, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "message: " in front of what is there. Always returns -1. */
int error_wrap(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What `cause` says, as it says it. Always returns -1. */
static inline int error_copy(struct error *error, const struct error *cause)
{
	return error_say(error, cause->number, "%s", cause->message);
}

/* Whether a cause lies in what there was at the moment (descriptors, memory, buffers, a disk) and not in the thing that was
 * looked at: nothing follows from such an error, neither that something is there nor that it is gone. */
static inline bool error_may_pass(int number)
{
	return number == EMFILE || number == ENFILE || number == ENOMEM || number == ENOBUFS || number == ENOSPC ||
	       number == EIO || number == EINTR || number == EAGAIN;
}

static inline bool error_is_set(const struct error *error)
{
	return error && error->message[0] != '\0';
}

#endif
