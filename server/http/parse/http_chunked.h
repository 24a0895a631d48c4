/*
 * http_chunked - decodes the chunked transfer coding, in place and in any fragments.
 *
 * Strict: sizes are plain hexadecimal, lines end in CRLF. Chunk extensions and trailers are read past, within bounds.
 * Threads: plain values. Source: RFC 9112, section 7.1.
 */
#ifndef BLOBD_SERVER_HTTP_PARSE_HTTP_CHUNKED_H
#define BLOBD_SERVER_HTTP_PARSE_HTTP_CHUNKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_chunked_place {
    CHUNKED_SIZE,
    CHUNKED_BLANK, /* between a size and its extension */
    CHUNKED_EXTENSION,
    CHUNKED_SIZE_LF,
    CHUNKED_DATA,
    CHUNKED_DATA_CR,
    CHUNKED_DATA_LF,
    CHUNKED_TRAILER, /* a trailer line begins */
    CHUNKED_TRAILER_LINE,
    CHUNKED_TRAILER_LF,
    CHUNKED_LAST_LF,
    CHUNKED_END,
    CHUNKED_BROKEN,
};

/* All zero is the beginning. */
struct http_chunked {
    enum http_chunked_place place;
    unsigned digits;        /* of this size */
    unsigned line_bytes;    /* of this extension */
    unsigned trailer_bytes; /* of all trailers */
    uint64_t left;          /* of this chunk */
};

struct http_chunked_run {
    uint8_t *data; /* the decoded bytes: one run within what was fed */
    size_t len;
    size_t used; /* bytes fed that belong to the body; fewer than fed once it has ended */
};

/* Decodes n bytes at bytes, moving what has to move. After CHUNKED_END or CHUNKED_BROKEN it is not called again. */
struct http_chunked_run http_chunked_feed(struct http_chunked *dec, uint8_t *bytes, size_t n);

#endif
