/*
 * http_words - what the layer and those above it call the parts of a request: its method, how its body is framed, and
 * what can be wrong with it.
 *
 * Source: RFC 9110 (section 9.1), RFC 9112 (section 6).
 */
#ifndef BLOBD_SERVER_HTTP_PARSE_HTTP_WORDS_H
#define BLOBD_SERVER_HTTP_PARSE_HTTP_WORDS_H

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_DELETE, HTTP_OPTIONS, HTTP_PATCH, HTTP_OTHER };

/* What the layer itself refuses; the callback writes the answer's body, so that it reads like every other error. */
enum http_fault {
    HTTP_FAULT_BAD_REQUEST,     /* 400, framing or syntax */
    HTTP_FAULT_HEAD_TIMEOUT,    /* 408 */
    HTTP_FAULT_URI_TOO_LONG,    /* 414 */
    HTTP_FAULT_EXPECTATION,     /* 417 */
    HTTP_FAULT_HEAD_TOO_LARGE,  /* 431 */
    HTTP_FAULT_NOT_IMPLEMENTED, /* 501: method or transfer coding */
    HTTP_FAULT_TOO_MANY,        /* 503: over max_connections */
    HTTP_FAULT_OVER_SHARE,      /* 429: over what one address may have */
};

enum http_body_kind { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED };

#endif
