/*
 * filename - the fallback of a disposition is plain ASCII without quotes, backslashes and percent signs: browsers
 * disagree on how these are escaped in filename=, and agree on filename*.
 */
#include "core/files/filename.h"

#include "core/text/bytebuf.h"
#include "core/text/utf8.h"

#include <string.h>

enum blob_status filename_clean(const char *raw, char out[FILENAME_MAX_BYTES + 1])
{
    const char *base = raw, *end = raw + strlen(raw);
    for (const char *p = raw; p < end;) {
        uint32_t cp = utf8_next(&p, end);
        if (cp == UTF8_INVALID || cp < 0x20 || (cp >= 0x7f && cp <= 0x9f))
            return BLOB_E_INVALID;
        if (cp == '/' || cp == '\\')
            base = p;
    }
    if (end - base > FILENAME_MAX_BYTES)
        return BLOB_E_INVALID;
    if (strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
        base = end;
    memcpy(out, base, (size_t)(end - base) + 1);
    return BLOB_OK;
}

static bool turns_direction(uint32_t cp)
{
    return cp == 0x061c || cp == 0x200e || cp == 0x200f || (cp >= 0x202a && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069);
}

void filename_shown(const char *name, char out[FILENAME_MAX_BYTES + 1])
{
    size_t len = 0;
    for (const char *p = name, *end = name + strlen(name); p < end;) {
        const char *from = p;
        uint32_t cp = utf8_next(&p, end);
        size_t bytes = (size_t)(p - from);
        if (turns_direction(cp))
            continue;
        if (len + bytes > FILENAME_MAX_BYTES)
            break;
        memcpy(out + len, from, bytes);
        len += bytes;
    }
    out[len] = '\0';
}

static bool fallback_char(uint32_t cp)
{
    return cp >= 0x20 && cp < 0x7f && cp != '"' && cp != '\\' && cp != '%';
}

/* RFC 8187's attr-char. */
static bool attr_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$&+-.^_`|~", c) != NULL);
}

void filename_disposition(const char *stored, struct bytebuf *out)
{
    char name[FILENAME_MAX_BYTES + 1];
    filename_shown(stored, name);
    const char *end = name + strlen(name);
    bool exact = true;
    bytebuf_text(out, "attachment; filename=\"");
    for (const char *p = name; p < end;) {
        uint32_t cp = utf8_next(&p, end);
        char c = fallback_char(cp) ? (char)cp : '_';
        exact = exact && fallback_char(cp);
        bytebuf_add(out, &c, 1);
    }
    bytebuf_text(out, "\"");
    if (exact || !utf8_valid(name, (size_t)(end - name)))
        return;
    bytebuf_text(out, "; filename*=UTF-8''");
    for (const char *p = name; p < end; p++) {
        if (attr_char((unsigned char)*p))
            bytebuf_add(out, p, 1);
        else
            bytebuf_printf(out, "%%%02X", (unsigned char)*p);
    }
}
