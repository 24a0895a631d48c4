/* utf8 - strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. Threads: any. */
#ifndef BLOBD_CORE_TEXT_UTF8_H
#define BLOBD_CORE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID     UINT32_C(0xffffffff)
#define UTF8_REPLACEMENT UINT32_C(0xfffd)
#define UTF8_MAX_BYTES   4

/* The code point at *text, which moves behind it; *text < end. UTF8_INVALID moves by one byte. */
uint32_t utf8_next(const char **text, const char *end);
/* Writes cp (a valid code point) to out; the number of bytes, 1 to 4. */
size_t utf8_put(uint32_t cp, char out[UTF8_MAX_BYTES]);
bool utf8_valid(const char *text, size_t len);

#endif
