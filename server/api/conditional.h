/*
 * conditional - which part of a blob a GET or HEAD asks for, if any, by its conditions and its range.
 *
 * For one representation whose strong ETag is its digest and which never changes. Blobs have no modification date, so
 * If-Modified-Since and If-Unmodified-Since are ignored and a date in If-Range never matches.
 *
 * Threads: plain values. Source: RFC 9110 section 13.2.2 (order of evaluation), 14.2 (Range is for GET), 15.5.17.
 */
#ifndef BLOBD_SERVER_API_CONDITIONAL_H
#define BLOBD_SERVER_API_CONDITIONAL_H

#include <stdbool.h>
#include <stdint.h>

/* Header values, NULL where absent. */
struct conditions {
    const char *if_match, *if_none_match;
    const char *range, *if_range;
};

struct selection {
    int status;             /* 200, 206, 304, 412 or 416 */
    uint64_t first, length; /* for 200 and 206 */
};

/* opaque: our tag's text, without the quotes. */
struct selection conditional_select(const struct conditions *c, bool is_get, const char *opaque, uint64_t size);

#endif
