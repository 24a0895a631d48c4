/*
 * blob_answer - the headers of a download. What every answer about a blob repeats is made once, when the blob comes
 * into the cache, and kept with its entry.
 *
 * Threads: prepare and discard on any; the rest on the request's loop. Ownership: an entry's headers live with it.
 * Source: RFC 9110 (8.8.3 ETag, 14.4 Content-Range), RFC 9530 (Repr-Digest), RFC 8246 (immutable), RFC 6266.
 */
#ifndef BLOBD_SERVER_API_BLOB_ANSWER_H
#define BLOBD_SERVER_API_BLOB_ANSWER_H

#include "core/files/blob_cache.h"
#include "server/api/conditional.h"

struct bytebuf;
struct exchange;
struct service;

struct blob_headers {
    struct service *svc;
    char etag_opaque[DIGEST_HEX_CHARS + 1];
    const char *media_type; /* static, or the entry's */
    char *disposition;
    char *lines; /* of every answer with content; the first, of 304 too */
    size_t lines_len, first_len;
};

/* blob_cache_options' callbacks; arg is the service. */
void *blob_headers_prepare(const struct blob_entry *entry, void *arg);
void blob_headers_discard(void *extra, void *arg);

/* Adds the headers of 200, 206 or 304. */
void blob_answer_headers(struct exchange *x, const struct blob_entry *entry, const struct selection *sel);
/* Answers 412 or 416. */
void blob_answer_refusal(struct exchange *x, const struct blob_entry *entry, const struct selection *sel);
/* http_reply_*()'s release: arg is the entry, whose hold is given back. */
void blob_answer_release(void *entry);

#endif
