/*
 * check - assertions that stay on in release builds, and the magic of structs that pass through void *.
 *
 * For bugs of ours only: never for input, disk or network. A failed check logs file, line and condition to standard
 * error and aborts: with a store built for kill -9, a stop is safer than going on wrong.
 *
 * Memory: what is made once, at start, may CHECK that there was memory for it, because without it there is no server.
 * What is made for a request may not: that request is answered 503, and the others go on.
 */
#ifndef BLOBD_CORE_CHECK_H
#define BLOBD_CORE_CHECK_H

#include <stddef.h>

_Noreturn void check_failed(const char *file, int line, const char *cond);

#define CHECK(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))

/* The first member of a struct that callbacks receive as void *; MAGIC_OK on every cast back. */
#define MAGIC_OK(ptr, value) CHECK((ptr) != NULL && (ptr)->magic == (value))

/* The struct of this type whose member is pointed to. MAGIC_OK follows wherever the struct has a magic. */
#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#endif
