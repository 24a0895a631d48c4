/* rfc3339 - times as text: UTC, with milliseconds, "2026-01-31T09:05:00.250Z". Threads: any. Source: RFC 3339. */
#ifndef BLOBD_CORE_TEXT_RFC3339_H
#define BLOBD_CORE_TEXT_RFC3339_H

#include "core/status.h"

#include <stdint.h>

#define RFC3339_CHARS 24

/* Milliseconds since 1970; clamped to the years 0000 to 9999. */
void rfc3339_format(int64_t unix_ms, char out[RFC3339_CHARS + 1]);
/* Only what rfc3339_format() writes; INVALID for any other spelling. */
enum blob_status rfc3339_parse(const char *text, int64_t *unix_ms) BLOB_MUST_CHECK;

#endif
