/*
 * http_head_check - the strict checks of a request's head, as pure functions. evhttp's parser is lenient (bare LF, NUL,
 * blanks in the target, a blank before the colon), and what two parsers read differently can be smuggled past one of
 * them; so the raw bytes are looked at here before evhttp sees them, and the fields once it has split them.
 *
 * Threads: plain values. Ownership: details are static texts. Errors: struct head_fault.
 * Source: RFC 9112 sections 2.2, 3, 5, 6; RFC 9110 sections 5.3, 5.5, 5.6, 7.2, 8.6, 10.1.1.
 */
#ifndef BLOBD_SERVER_HTTP_PARSE_HTTP_HEAD_CHECK_H
#define BLOBD_SERVER_HTTP_PARSE_HTTP_HEAD_CHECK_H

#include "server/http/parse/http_words.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HEAD_MAX_LINES  100
#define HEAD_METHOD_MAX 23

struct head_fault {
    const char *detail; /* NULL: no fault */
    enum http_fault fault;
};

/* ---- the bytes ------------------------------------------------------------------------------------------------- */

struct head_limits {
    size_t max_head_bytes; /* all of it, line ends included */
    size_t max_uri_bytes;
};

enum head_place {
    HEAD_METHOD,
    HEAD_TARGET,
    HEAD_VERSION,
    HEAD_REQUEST_LF, /* a CR ended the request line */
    HEAD_LINE,       /* a line begins */
    HEAD_NAME,
    HEAD_VALUE,
    HEAD_VALUE_LF,
    HEAD_LAST_LF, /* a CR began the line */
    HEAD_DONE,
    HEAD_FAULTY,
};

/* All zero is the beginning of a head. */
struct head_scan {
    enum head_place place;
    unsigned lines;                   /* header lines begun */
    size_t bytes;                     /* of the head so far */
    size_t uri_bytes;                 /* of the target so far */
    size_t field_bytes;               /* of the method, the version or the name so far */
    char method[HEAD_METHOD_MAX + 1]; /* cut, where it is longer */
    bool version_1_0;
    struct head_fault fault; /* in HEAD_FAULTY */
};

/* Looks at the next n bytes; returns how many of them are the head's: n, unless it is DONE or FAULTY by then. */
size_t head_scan_feed(struct head_scan *scan, const struct head_limits *limits, const void *bytes, size_t n);

/* ---- the fields ------------------------------------------------------------------------------------------------ */

/* All zero before the first field. */
struct head_fields {
    unsigned hosts, lengths, codings, expects; /* lines */
    const char *host, *length;                 /* the last of each */
    struct {
        unsigned count;
        bool empty;        /* an element is */
        bool chunked;      /* the last is chunked */
        bool chunked_amid; /* one before the last is */
    } coding;
    bool expects_continue, expects_other;
    bool asks_close, asks_keep_alive;
};

struct head_framing {
    enum http_body_kind kind;
    uint64_t length;
    bool expects_continue;
    bool keep_alive;
};

/* One line, as evhttp split it and without the blanks around the value; borrows value until head_fields_judge(). Lines
 * of a list are one list. */
void head_fields_add(struct head_fields *fields, const char *name, const char *value);
/* After the last. Fills framing when the returned fault has no detail. */
struct head_fault head_fields_judge(const struct head_fields *fields, bool version_1_0, struct head_framing *framing);

/* The target of a request line: "/…", "http://…", or "*" with OPTIONS. */
struct head_fault head_target_judge(const char *target, enum http_method method);

#endif
