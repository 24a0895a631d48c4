/*
 * bytebuf - a byte string that grows. Always NUL-terminated behind its length, so text can be borrowed as a C string.
 *
 * Threads: one at a time. Ownership: the buffer owns its memory; bytebuf_take() gives it. Errors: running out of
 * memory sets failed and drops what did not fit; callers check once, at the end.
 */
#ifndef BLOBD_CORE_TEXT_BYTEBUF_H
#define BLOBD_CORE_TEXT_BYTEBUF_H

#include "core/status.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct bytebuf {
    char *data; /* never NULL after init */
    size_t len, cap;
    bool failed;
};

void bytebuf_init(struct bytebuf *b);
void bytebuf_release(struct bytebuf *b);
void bytebuf_clear(struct bytebuf *b);
void bytebuf_add(struct bytebuf *b, const void *data, size_t len);
void bytebuf_text(struct bytebuf *b, const char *text);
void bytebuf_printf(struct bytebuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bytebuf_vprintf(struct bytebuf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* A JSON string with its quotes; input must be valid UTF-8 (what is not becomes U+FFFD). */
void bytebuf_json_string(struct bytebuf *b, const char *text);
/* Little-endian, for our own encodings. */
void bytebuf_u8(struct bytebuf *b, uint8_t v);
void bytebuf_u32(struct bytebuf *b, uint32_t v);
void bytebuf_u64(struct bytebuf *b, uint64_t v);
/* A text of at most 255 bytes, behind its length in one byte. */
void bytebuf_short_text(struct bytebuf *b, const char *text);
/* Gives the memory (free()); the buffer is empty afterwards. NULL when failed. */
char *bytebuf_take(struct bytebuf *b, size_t *len);

/* Reading such an encoding back: a cursor that stops at the first short read and remembers it. */
struct byteview {
    const uint8_t *data;
    size_t len, pos;
    bool failed;
};

uint8_t byteview_u8(struct byteview *v);
uint32_t byteview_u32(struct byteview *v);
uint64_t byteview_u64(struct byteview *v);
/* A short text into out; fails where it does not fit into size with its NUL. */
void byteview_short_text(struct byteview *v, char *out, size_t size);
/* Borrowed; NULL when failed. */
const void *byteview_bytes(struct byteview *v, size_t len);

#endif
