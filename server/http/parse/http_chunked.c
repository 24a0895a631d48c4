/*
 * http_chunked - a state machine. The first run of data in what is fed stays where it is; later ones are moved up to
 * it, so that the usual case, one large chunk across many reads, copies nothing.
 */
#include "server/http/parse/http_chunked.h"

#include "core/text/parse.h"

#include <string.h>

#define EXTENSION_MAX 256u
#define TRAILERS_MAX  8192u

static bool is_line_byte(uint8_t c)
{
    return c == '\t' || (c >= ' ' && c != 0x7f);
}

/* Blanks are no part of the grammar, but put up with before an extension (RFC 9112, section 7.1.1) or at the end, where
 * some senders fill up a field of fixed width. */
static enum http_chunked_place after_blank(struct http_chunked *dec, uint8_t c)
{
    if (c == '\r')
        return CHUNKED_SIZE_LF;
    if (c == ';')
        return CHUNKED_EXTENSION;
    return (c == ' ' || c == '\t') && ++dec->line_bytes <= EXTENSION_MAX ? CHUNKED_BLANK : CHUNKED_BROKEN;
}

static enum http_chunked_place after_size(struct http_chunked *dec, uint8_t c)
{
    int digit = parse_hex_digit((char)c);
    if (digit >= 0) {
        /* Fifteen digits keep every sum of sizes far from overflowing. */
        if (++dec->digits > 15)
            return CHUNKED_BROKEN;
        dec->left = dec->left * 16 + (uint64_t)digit;
        return CHUNKED_SIZE;
    }
    dec->line_bytes = 0;
    return dec->digits > 0 ? after_blank(dec, c) : CHUNKED_BROKEN;
}

static enum http_chunked_place after_extension(struct http_chunked *dec, uint8_t c)
{
    if (c == '\r')
        return CHUNKED_SIZE_LF;
    return is_line_byte(c) && ++dec->line_bytes <= EXTENSION_MAX ? CHUNKED_EXTENSION : CHUNKED_BROKEN;
}

static enum http_chunked_place after_trailer(struct http_chunked *dec, uint8_t c, enum http_chunked_place at_cr)
{
    if (++dec->trailer_bytes > TRAILERS_MAX)
        return CHUNKED_BROKEN;
    if (c == '\r')
        return at_cr;
    return is_line_byte(c) ? CHUNKED_TRAILER_LINE : CHUNKED_BROKEN;
}

static enum http_chunked_place after(struct http_chunked *dec, uint8_t c)
{
    switch (dec->place) {
    case CHUNKED_SIZE:
        return after_size(dec, c);
    case CHUNKED_BLANK:
        return after_blank(dec, c);
    case CHUNKED_EXTENSION:
        return after_extension(dec, c);
    case CHUNKED_SIZE_LF:
        if (c != '\n')
            return CHUNKED_BROKEN;
        return dec->left > 0 ? CHUNKED_DATA : CHUNKED_TRAILER;
    case CHUNKED_DATA_CR:
        return c == '\r' ? CHUNKED_DATA_LF : CHUNKED_BROKEN;
    case CHUNKED_DATA_LF:
        dec->digits = 0;
        return c == '\n' ? CHUNKED_SIZE : CHUNKED_BROKEN;
    case CHUNKED_TRAILER:
        return after_trailer(dec, c, CHUNKED_LAST_LF);
    case CHUNKED_TRAILER_LINE:
        return after_trailer(dec, c, CHUNKED_TRAILER_LF);
    case CHUNKED_TRAILER_LF:
        return c == '\n' ? CHUNKED_TRAILER : CHUNKED_BROKEN;
    case CHUNKED_LAST_LF:
        return c == '\n' ? CHUNKED_END : CHUNKED_BROKEN;
    case CHUNKED_DATA:
    case CHUNKED_END:
    case CHUNKED_BROKEN:
        break;
    }
    return CHUNKED_BROKEN;
}

struct http_chunked_run http_chunked_feed(struct http_chunked *dec, uint8_t *bytes, size_t n)
{
    struct http_chunked_run run = {.data = bytes};
    while (run.used < n && dec->place < CHUNKED_END) {
        if (dec->place != CHUNKED_DATA) {
            dec->place = after(dec, bytes[run.used++]);
            continue;
        }
        size_t len = n - run.used;
        if (len > dec->left)
            len = (size_t)dec->left;
        if (run.len == 0)
            run.data = bytes + run.used;
        else
            memmove(run.data + run.len, bytes + run.used, len);
        run.len += len;
        run.used += len;
        dec->left -= len;
        if (dec->left == 0)
            dec->place = CHUNKED_DATA_CR;
    }
    return run;
}
