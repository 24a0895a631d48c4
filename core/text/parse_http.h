/*
 * parse_http - the grammars of query strings and header fields that blobd reads itself.
 *
 * Threads: any. Ownership: texts are borrowed; NULL stands for a field that is absent, where it says so.
 * Source: RFC 3986 section 2.1, the URL standard's form encoding (+ is a blank), RFC 9110
 * sections 5.6, 8.8.3, 13.1, 14.
 */
#ifndef BLOBD_CORE_TEXT_PARSE_HTTP_H
#define BLOBD_CORE_TEXT_PARSE_HTTP_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- percent-encoding and queries ---- */

/* Decodes len bytes of text into out, with a NUL. INVALID: a broken %XX, or an encoded NUL. TOO_LARGE: more than
 * size - 1 bytes. out may be overwritten on failure. A path segment; with plus_is_blank, a part of a query. */
enum blob_status percent_decode(const char *text, size_t len, bool plus_is_blank, char *out,
                                size_t size) BLOB_MUST_CHECK;

/*
 * The decoded value of key in a query string (what follows '?', undecoded; NULL is an empty one).
 * NOT_FOUND: not there. INVALID: given twice, or broken encoding. TOO_LARGE: does not fit size with its NUL.
 * A key without '=' has an empty value. out may be overwritten on failure, but for NOT_FOUND.
 */
enum blob_status query_get(const char *query, const char *key, char *out, size_t size) BLOB_MUST_CHECK;

/* ---- lists ---- */

/* A part of a field's value. */
struct field_part {
    const char *text;
    size_t len;
};

/* The whole value, to be taken apart; NULL where the field is absent has no elements. */
struct field_part field_whole(const char *value);
/* Takes off rest what stands before the next separator (',' or ';') that is not in a quoted string, and gives it
 * without the blanks around it; it may be empty, and what is empty in a list counts for nothing (section 5.6.1). False:
 * there is no more. The empty value is one empty element. */
bool field_next(struct field_part *rest, char separator, struct field_part *element);
/* Is it this word, in any case? */
bool field_is(const struct field_part *part, const char *word);

/* ---- ranges ---- */

enum range_kind {
    RANGE_WHOLE,         /* absent, or of another unit: answer 200 with everything */
    RANGE_ONE,           /* first and last are set, within the size: 206 */
    RANGE_SEVERAL,       /* more than one asked for, at least one satisfiable */
    RANGE_UNSATISFIABLE, /* 416 with "bytes * /size" (without the blank) */
    RANGE_MALFORMED,     /* "bytes=" and then not the grammar; may be ignored or refused */
};

/* A request's Range field (may be NULL), for a representation of size bytes. first and last are inclusive and set for
 * RANGE_ONE only. Any suffix of an empty representation is the whole of it. */
enum range_kind range_parse(const char *field, uint64_t size, uint64_t *first, uint64_t *last);

struct content_range {
    uint64_t first, last; /* inclusive, first <= last < 2^63 */
    bool has_total;
    uint64_t total; /* > last */
};

/* A request's Content-Range: "bytes N-M/ *" (without the blank), "bytes N-M/total", or OCI's "N-M". */
enum blob_status content_range_parse(const char *field, struct content_range *out) BLOB_MUST_CHECK;

/* ---- entity tags ---- */

/* Does a list of entity-tags (If-None-Match: weak comparison; If-Match: strong) name opaque, the text between the
 * quotes? "*" names anything. NULL or malformed: false. */
bool etag_list_has(const char *field, const char *opaque, bool weak_comparison);
/* If-Range: is it exactly the strong tag of opaque? A date is not. */
bool etag_is(const char *field, const char *opaque);

#endif
