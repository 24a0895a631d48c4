/* uuid - version 4 UUIDs (RFC 9562), as 36 lower-case characters. Threads: any. */
#ifndef BLOBD_CORE_UUID_H
#define BLOBD_CORE_UUID_H

#include "core/status.h"

#define UUID_CHARS 36

struct uuid {
    char text[UUID_CHARS + 1];
};

/* From the kernel's random source; failing to read it is fatal (CHECK). */
void uuid_new(struct uuid *out);
/* Any case in, lower case out; INVALID unless 8-4-4-4-12 hex digits (any version). */
enum blob_status uuid_parse(const char *text, struct uuid *out) BLOB_MUST_CHECK;

#endif
