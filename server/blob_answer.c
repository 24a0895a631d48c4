/*
 * blob_answer - content under its own digest never changes, so where downloads are public every cache may keep it for
 * good; but for an answer that shows the asking identity's own name, which is for that identity's cache alone. Where a
 * bearer is asked for, caches have to come back each time.
 */
#include "server/blob_answer.h"

#include "core/bytebuf.h"
#include "core/check.h"
#include "core/filename.h"
#include "server/exchange.h"
#include "server/response.h"
#include "server/service.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OCTET_STREAM "application/octet-stream"

void *blob_headers_prepare(const struct blob_entry *entry, void *arg)
{
    struct service *svc = arg;
    struct blob_headers *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->svc = svc;
    digest_hex(&entry->digest, h->etag_opaque);
    snprintf(h->etag, sizeof h->etag, "\"%s\"", h->etag_opaque);
    unsigned char base64[4 * ((DIGEST_BYTES + 2) / 3) + 1];
    EVP_EncodeBlock(base64, entry->digest.bytes, DIGEST_BYTES);
    snprintf(h->repr_digest, sizeof h->repr_digest, "sha-256=:%s:", (const char *)base64);
    bool stored = svc->serve_stored_media_type && entry->file.media_type[0] != '\0';
    h->media_type = stored ? entry->file.media_type : OCTET_STREAM;
    struct bytebuf disposition;
    bytebuf_init(&disposition);
    char name[FILENAME_MAX_BYTES + 1];
    filename_shown(entry->file.name, name);
    filename_disposition(name[0] != '\0' ? name : h->etag_opaque, &disposition);
    h->disposition = bytebuf_take(&disposition, NULL);
    bytebuf_release(&disposition);
    if (h->disposition == NULL) {
        free(h);
        return NULL;
    }
    return h;
}

void blob_headers_discard(void *extra, void *arg)
{
    struct blob_headers *h = extra;
    (void)arg;
    if (h == NULL)
        return;
    free(h->disposition);
    free(h);
}

void blob_answer_headers(struct exchange *x, const struct blob_entry *entry, const struct selection *sel)
{
    const struct blob_headers *h = entry->extra;
    response_common_headers(x, x->svc->downloads_need_bearer ? "private, no-cache"
                               : entry->personal             ? "private, max-age=31536000, immutable"
                                                             : "public, max-age=31536000, immutable");
    http_reply_header(x->req, "ETag", h->etag);
    if (sel->status == 304)
        return;
    http_reply_header(x->req, "Content-Type", h->media_type);
    http_reply_header(x->req, "Content-Disposition", h->disposition);
    http_reply_header(x->req, "Repr-Digest", h->repr_digest);
    http_reply_header(x->req, "Accept-Ranges", "bytes");
    if (sel->status == 206) {
        char text[80];
        snprintf(text, sizeof text, "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, sel->first, sel->first + sel->length - 1,
                 entry->size);
        http_reply_header(x->req, "Content-Range", text);
    }
}

void blob_answer_refusal(struct exchange *x, const struct blob_entry *entry, const struct selection *sel)
{
    if (sel->status == 416) {
        char text[40];
        snprintf(text, sizeof text, "bytes */%" PRIu64, entry->size);
        http_reply_header(x->req, "Content-Range", text);
        api_fail(&x->err, API_RANGE_INVALID, "the range lies outside the blob's %" PRIu64 " bytes", entry->size);
    } else {
        CHECK(sel->status == 412);
        api_fail(&x->err, API_PRECONDITION_FAILED, "If-Match names another representation");
    }
    response_error(x, &x->err);
}

void blob_answer_release(void *entry)
{
    struct blob_entry *held = entry;
    const struct blob_headers *h = held->extra;
    blob_cache_release(h->svc->cache, held);
}
