/*
 * check - assertions that stay on in release builds, and the magic of structs that pass through void *.
 *
 * For bugs of ours only: never for input, disk, network or memory. A failed check logs file, line and condition
 * to standard error and aborts: with a store built for kill -9, a stop is safer than going on wrong.
 */
#ifndef BLOBD_CORE_CHECK_H
#define BLOBD_CORE_CHECK_H

_Noreturn void check_failed(const char *file, int line, const char *cond);

#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))

/* The first member of a struct that callbacks receive as void *; MAGIC_OK on every cast back. */
#define MAGIC_OK(ptr, value) CHECK((ptr) != NULL && (ptr)->magic == (value))

#endif
