/*
 * parse - strict readers of the small texts that come from outside: settings, query values, header fields.
 *
 * All of a text must fit its grammar: no sign, no blanks, nothing behind it. INVALID otherwise, and out is
 * untouched. Threads: any. Ownership: texts are borrowed. HTTP's own grammars are in parse_http.
 */
#ifndef BLOBD_CORE_TEXT_PARSE_H
#define BLOBD_CORE_TEXT_PARSE_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

/* Decimal digits, min to max. */
enum blob_status parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out) BLOB_MUST_CHECK;
/* A whole number and its unit, ms s m h d: "250ms", "15s", "30d"; "0" needs none. At most 100 years. */
enum blob_status parse_duration_ms(const char *text, int64_t *out) BLOB_MUST_CHECK;
/* Bytes, or with K, M, G, T: powers of 1024, "16K", "8M". At most 2^63-1. */
enum blob_status parse_size_bytes(const char *text, uint64_t *out) BLOB_MUST_CHECK;
/* true, false, 1, 0. */
enum blob_status parse_bool(const char *text, bool *out) BLOB_MUST_CHECK;
/* 0 to 15, of either case; -1: it is none. */
int parse_hex_digit(char c);
/* n bytes out of 2 n digits of either case; looks at nothing behind what is none. */
enum blob_status parse_hex(const char *text, size_t n, uint8_t *out) BLOB_MUST_CHECK;

#endif
