/*
 * identity - who asks, and what may be a name of one.
 *
 * Threads: any; plain values.
 */
#ifndef BLOBD_CORE_IDENTITY_H
#define BLOBD_CORE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>

#define OWNER_MAX 127

/* An identity sees and destroys its own files, an admin all, and without auth everybody all. */
struct identity {
    char name[OWNER_MAX + 1]; /* "" where unknown (auth.mode=none) */
    bool known;
    bool admin;
};

/* May this be an identity's name: 1 to OWNER_MAX bytes of UTF-8 without control characters, which is what records hold?
 * NULL, or why not. Nothing else is cut or mended into one: what an identity once made is found by its whole name
 * alone, and two long names may begin alike. */
const char *identity_name_fault(const char *name, size_t len);

#endif
