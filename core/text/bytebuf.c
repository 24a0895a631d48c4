/*
 * bytebuf - growth by doubling; failure is remembered rather than returned, so that a chain of additions reads as one.
 *
 * Invariant: data[len] is NUL. cap 0 means that data is the shared empty string and must not be written; otherwise
 * data is heap memory of cap + 1 bytes.
 */
#include "core/text/bytebuf.h"

#include "core/check.h"
#include "core/text/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAP 120

static const char empty_text[1] = "";

void bytebuf_init(struct bytebuf *b)
{
    *b = (struct bytebuf){.data = (char *)empty_text};
}

void bytebuf_release(struct bytebuf *b)
{
    if (b->cap > 0)
        free(b->data);
    bytebuf_init(b);
}

void bytebuf_clear(struct bytebuf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->cap > 0)
        b->data[0] = '\0';
}

/* Room for more bytes behind len, and the NUL. */
static bool bytebuf_reserve(struct bytebuf *b, size_t more)
{
    if (b->failed)
        return false;
    if (b->cap > 0 && more <= b->cap - b->len)
        return true;
    size_t cap = b->cap > 0 ? b->cap : FIRST_CAP;
    while (cap - b->len < more && cap <= SIZE_MAX / 4)
        cap *= 2;
    char *data = cap - b->len < more ? NULL : realloc(b->cap > 0 ? b->data : NULL, cap + 1);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->cap = cap;
    b->data[b->len] = '\0';
    return true;
}

void bytebuf_add(struct bytebuf *b, const void *data, size_t len)
{
    if (len == 0 || !bytebuf_reserve(b, len))
        return;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void bytebuf_text(struct bytebuf *b, const char *text)
{
    bytebuf_add(b, text, strlen(text));
}

void bytebuf_vprintf(struct bytebuf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    if (bytebuf_reserve(b, 0)) {
        size_t room = b->cap - b->len;
        int n = vsnprintf(b->data + b->len, room + 1, fmt, ap);
        CHECK(n >= 0);
        if ((size_t)n > room) {
            b->data[b->len] = '\0';
            if (bytebuf_reserve(b, (size_t)n))
                vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        }
        if (!b->failed)
            b->len += (size_t)n;
    }
    va_end(again);
}

void bytebuf_printf(struct bytebuf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    bytebuf_vprintf(b, fmt, ap);
    va_end(ap);
}

static void json_char(struct bytebuf *b, uint32_t cp)
{
    static const char shorthand[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    char raw[UTF8_MAX_BYTES];
    if (cp == '"' || cp == '\\')
        bytebuf_add(b, cp == '"' ? "\\\"" : "\\\\", 2);
    else if (cp < 32 && shorthand[cp])
        bytebuf_add(b, (char[]){'\\', shorthand[cp]}, 2);
    else if (cp < 32 || cp == 127)
        bytebuf_printf(b, "\\u%04x", (unsigned)cp);
    else
        bytebuf_add(b, raw, utf8_put(cp, raw));
}

static bool json_plain(char c)
{
    return (unsigned char)c >= 32 && (unsigned char)c < 127 && c != '"' && c != '\\';
}

void bytebuf_json_string(struct bytebuf *b, const char *text)
{
    const char *end = text + strlen(text);
    bytebuf_add(b, "\"", 1);
    while (text < end) {
        const char *run = text;
        while (text < end && json_plain(*text))
            text++;
        bytebuf_add(b, run, (size_t)(text - run));
        if (text < end) {
            uint32_t cp = utf8_next(&text, end);
            json_char(b, cp == UTF8_INVALID ? UTF8_REPLACEMENT : cp);
        }
    }
    bytebuf_add(b, "\"", 1);
}

void bytebuf_u8(struct bytebuf *b, uint8_t v)
{
    bytebuf_add(b, &v, 1);
}

static void bytebuf_little_endian(struct bytebuf *b, uint64_t v, size_t bytes)
{
    uint8_t raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (uint8_t)(v >> (8 * i));
    bytebuf_add(b, raw, bytes);
}

void bytebuf_u32(struct bytebuf *b, uint32_t v)
{
    bytebuf_little_endian(b, v, 4);
}

void bytebuf_u64(struct bytebuf *b, uint64_t v)
{
    bytebuf_little_endian(b, v, 8);
}

char *bytebuf_take(struct bytebuf *b, size_t *len)
{
    /* An empty buffer has no memory of its own yet. */
    if (b->cap == 0 && !bytebuf_reserve(b, 1))
        b->failed = true;
    if (b->failed) {
        bytebuf_release(b);
        return NULL;
    }
    char *data = b->data;
    if (len)
        *len = b->len;
    bytebuf_init(b);
    return data;
}

const void *byteview_bytes(struct byteview *v, size_t len)
{
    if (v->failed || len > v->len - v->pos) {
        v->failed = true;
        return NULL;
    }
    const void *p = v->data + v->pos;
    v->pos += len;
    return p;
}

static uint64_t byteview_little_endian(struct byteview *v, size_t bytes)
{
    const uint8_t *p = byteview_bytes(v, bytes);
    uint64_t value = 0;
    for (size_t i = 0; p && i < bytes; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

uint8_t byteview_u8(struct byteview *v)
{
    return (uint8_t)byteview_little_endian(v, 1);
}

uint32_t byteview_u32(struct byteview *v)
{
    return (uint32_t)byteview_little_endian(v, 4);
}

uint64_t byteview_u64(struct byteview *v)
{
    return byteview_little_endian(v, 8);
}

void bytebuf_short_text(struct bytebuf *b, const char *text)
{
    size_t len = strlen(text);
    CHECK(len <= UINT8_MAX);
    bytebuf_u8(b, (uint8_t)len);
    bytebuf_add(b, text, len);
}

void byteview_short_text(struct byteview *v, char *out, size_t size)
{
    size_t len = byteview_u8(v);
    const void *bytes = byteview_bytes(v, len);
    if (v->failed || len >= size) {
        v->failed = true;
        return;
    }
    memcpy(out, bytes, len);
    out[len] = '\0';
}
