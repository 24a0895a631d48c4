/*
 * s3_xml - one pass over the text, with the path so far and the own text of each open element on a small stack.
 *
 * A full XML library would bring entity expansion, encodings and network access, none of which an S3 answer needs and
 * all of which a hostile endpoint could use. Invariant: path always spells the open elements, and marks[d] is its
 * length at depth d.
 */
#include "backends/s3/client/s3_xml.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *at, *end;
    s3_xml_fn *fn;
    void *arg;
    char path[S3_XML_PATH_MAX];
    size_t marks[S3_XML_DEPTH + 1];
    unsigned depth;
    bool had_root;
    char text[S3_XML_TEXT_MAX + 1]; /* of the innermost element; what surrounds child elements is dropped */
    size_t text_len;
};

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static bool is_name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
           c == '.' || c == ':';
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && is_space(*r->at))
        r->at++;
}

static bool starts(const struct reader *r, const char *word)
{
    size_t len = strlen(word);
    return (size_t)(r->end - r->at) >= len && memcmp(r->at, word, len) == 0;
}

/* Moves behind the next `word`. */
static bool skip_past(struct reader *r, const char *word)
{
    const char *hit = memmem(r->at, (size_t)(r->end - r->at), word, strlen(word));
    if (!hit)
        return false;
    r->at = hit + strlen(word);
    return true;
}

/* A name without its prefix. */
static bool read_name(struct reader *r, const char **name, size_t *len)
{
    const char *begin = r->at;
    while (r->at < r->end && is_name_char(*r->at)) {
        if (*r->at == ':')
            begin = r->at + 1;
        r->at++;
    }
    *name = begin;
    *len = (size_t)(r->at - begin);
    return *len > 0;
}

static bool add_text(struct reader *r, const char *bytes, size_t len)
{
    if (len > S3_XML_TEXT_MAX - r->text_len)
        return false;
    memcpy(r->text + r->text_len, bytes, len);
    r->text_len += len;
    return true;
}

static bool add_code_point(struct reader *r, unsigned long c)
{
    char utf8[4];
    size_t n;
    if (c == 0 || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return false;
    if (c < 0x80) {
        utf8[0] = (char)c;
        n = 1;
    } else if (c < 0x800) {
        utf8[0] = (char)(0xC0 | c >> 6);
        utf8[1] = (char)(0x80 | (c & 0x3F));
        n = 2;
    } else if (c < 0x10000) {
        utf8[0] = (char)(0xE0 | c >> 12);
        utf8[1] = (char)(0x80 | (c >> 6 & 0x3F));
        utf8[2] = (char)(0x80 | (c & 0x3F));
        n = 3;
    } else {
        utf8[0] = (char)(0xF0 | c >> 18);
        utf8[1] = (char)(0x80 | (c >> 12 & 0x3F));
        utf8[2] = (char)(0x80 | (c >> 6 & 0x3F));
        utf8[3] = (char)(0x80 | (c & 0x3F));
        n = 4;
    }
    return add_text(r, utf8, n);
}

/* At '&'. */
static bool read_reference(struct reader *r)
{
    static const struct {
        const char *name;
        char c;
    } entities[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (size_t i = 0; i < sizeof entities / sizeof entities[0]; i++) {
        if (starts(r, entities[i].name)) {
            r->at += strlen(entities[i].name);
            return add_text(r, &entities[i].c, 1);
        }
    }
    if (!starts(r, "&#"))
        return false;
    r->at += 2;
    unsigned base = 10;
    if (r->at < r->end && *r->at == 'x') {
        base = 16;
        r->at++;
    }
    unsigned long c = 0;
    const char *begin = r->at;
    for (; r->at < r->end && *r->at != ';' && r->at - begin < 8; r->at++) {
        const char *digits = "0123456789abcdef";
        char low = *r->at >= 'A' && *r->at <= 'F' ? (char)(*r->at + 32) : *r->at;
        const char *d = low ? memchr(digits, low, base) : NULL;
        if (!d)
            return false;
        c = c * base + (unsigned long)(d - digits);
    }
    if (r->at == begin || r->at == r->end || *r->at != ';')
        return false;
    r->at++;
    return add_code_point(r, c);
}

static bool open_element(struct reader *r, const char *name, size_t len)
{
    size_t at = r->marks[r->depth];
    bool slash = r->depth > 0;
    if (r->depth == S3_XML_DEPTH || (r->depth == 0 && r->had_root) || at + slash + len >= sizeof r->path)
        return false;
    if (slash)
        r->path[at++] = '/';
    memcpy(r->path + at, name, len);
    r->path[at + len] = '\0';
    r->marks[++r->depth] = at + len;
    r->had_root = true;
    r->text_len = 0;
    return true;
}

static enum blob_status close_element(struct reader *r)
{
    r->text[r->text_len] = '\0';
    if (!r->fn(r->path, r->text, r->arg))
        return BLOB_E_NO_MEMORY;
    r->path[r->marks[--r->depth]] = '\0';
    r->text_len = 0;
    return BLOB_OK;
}

/* At '<', a letter behind it. */
static enum blob_status read_start_tag(struct reader *r)
{
    const char *name;
    size_t len;
    r->at++;
    if (!read_name(r, &name, &len) || !open_element(r, name, len))
        return BLOB_E_INVALID;
    for (;;) {
        skip_space(r);
        if (starts(r, "/>")) {
            r->at += 2;
            return close_element(r);
        }
        if (starts(r, ">")) {
            r->at++;
            return BLOB_OK;
        }
        if (!read_name(r, &name, &len) || !starts(r, "="))
            return BLOB_E_INVALID;
        r->at++;
        const char *quote = starts(r, "\"") ? "\"" : "'";
        if (!starts(r, quote))
            return BLOB_E_INVALID;
        r->at++;
        if (!skip_past(r, quote))
            return BLOB_E_INVALID;
    }
}

/* At "</". */
static enum blob_status read_end_tag(struct reader *r)
{
    const char *name;
    size_t len;
    r->at += 2;
    if (!read_name(r, &name, &len) || r->depth == 0)
        return BLOB_E_INVALID;
    size_t begin = r->depth > 1 ? r->marks[r->depth - 1] + 1 : 0;
    if (r->marks[r->depth] - begin != len || memcmp(r->path + begin, name, len) != 0)
        return BLOB_E_INVALID;
    skip_space(r);
    if (!starts(r, ">"))
        return BLOB_E_INVALID;
    r->at++;
    return close_element(r);
}

/* At '<'. */
static enum blob_status read_markup(struct reader *r)
{
    if (starts(r, "</"))
        return read_end_tag(r);
    if (starts(r, "<!--"))
        return skip_past(r, "-->") ? BLOB_OK : BLOB_E_INVALID;
    if (starts(r, "<![CDATA[") && r->depth > 0) {
        const char *begin = r->at += strlen("<![CDATA[");
        if (!skip_past(r, "]]>"))
            return BLOB_E_INVALID;
        return add_text(r, begin, (size_t)(r->at - begin) - 3) ? BLOB_OK : BLOB_E_INVALID;
    }
    if (starts(r, "<?xml") && !r->had_root)
        return skip_past(r, "?>") ? BLOB_OK : BLOB_E_INVALID;
    return read_start_tag(r);
}

enum blob_status s3_xml_read(const char *text, size_t len, s3_xml_fn *fn, void *arg)
{
    struct reader r = {.at = text, .end = text + len, .fn = fn, .arg = arg};
    while (r.at < r.end) {
        if (*r.at == '<') {
            enum blob_status st = read_markup(&r);
            if (st != BLOB_OK)
                return st;
        } else if (r.depth == 0) {
            /* S3 sends spaces to keep a slow answer alive, also before the declaration. */
            if (!is_space(*r.at++))
                return BLOB_E_INVALID;
        } else if (*r.at == '&') {
            if (!read_reference(&r))
                return BLOB_E_INVALID;
        } else if (*r.at == '\0' || !add_text(&r, r.at++, 1)) {
            return BLOB_E_INVALID;
        }
    }
    return r.had_root && r.depth == 0 ? BLOB_OK : BLOB_E_INVALID;
}
