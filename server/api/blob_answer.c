/*
 * blob_answer - content under its own digest never changes, so where downloads are public every cache may keep it for
 * good; but for an answer that shows the asking identity's own name, which is for that identity's cache alone. Where a
 * bearer is asked for, caches have to come back each time.
 */
#include "server/api/blob_answer.h"

#include "core/check.h"
#include "core/files/filename.h"
#include "core/text/bytebuf.h"
#include "server/api/exchange.h"
#include "server/api/response.h"
#include "server/api/service.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OCTET_STREAM "application/octet-stream"

/* False without memory. */
static bool make_lines(struct blob_headers *h, const struct blob_entry *entry)
{
    struct bytebuf lines;
    char text[80];
    unsigned char base64[4 * ((DIGEST_BYTES + 2) / 3) + 1];
    bytebuf_init(&lines);
    snprintf(text, sizeof text, "\"%s\"", h->etag_opaque);
    http_header_line(&lines, "ETag", text);
    h->first_len = lines.len;
    http_header_line(&lines, "Content-Type", h->media_type);
    http_header_line(&lines, "Content-Disposition", h->disposition);
    EVP_EncodeBlock(base64, entry->digest.bytes, DIGEST_BYTES);
    snprintf(text, sizeof text, "sha-256=:%s:", (const char *)base64);
    http_header_line(&lines, "Repr-Digest", text);
    http_header_line(&lines, "Accept-Ranges", "bytes");
    h->lines = bytebuf_take(&lines, &h->lines_len);
    bytebuf_release(&lines);
    return h->lines != NULL;
}

void *blob_headers_prepare(const struct blob_entry *entry, void *arg)
{
    struct service *svc = arg;
    struct blob_headers *h = calloc(1, sizeof *h);
    if (h == NULL)
        return NULL;
    h->svc = svc;
    digest_hex(&entry->digest, h->etag_opaque);
    bool stored = svc->serve_stored_media_type && entry->file.media_type[0] != '\0';
    h->media_type = stored ? entry->file.media_type : OCTET_STREAM;
    struct bytebuf disposition;
    bytebuf_init(&disposition);
    char name[FILENAME_MAX_BYTES + 1];
    filename_shown(entry->file.name, name);
    filename_disposition(name[0] != '\0' ? name : h->etag_opaque, &disposition);
    h->disposition = bytebuf_take(&disposition, NULL);
    bytebuf_release(&disposition);
    if (h->disposition == NULL || !make_lines(h, entry)) {
        blob_headers_discard(h, svc);
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
    free(h->lines);
    free(h);
}

void blob_answer_headers(struct exchange *x, const struct blob_entry *entry, const struct selection *sel)
{
    const struct blob_headers *h = entry->extra;
    response_common_headers(x, x->svc->downloads_need_bearer ? "private, no-cache"
                               : entry->personal             ? "private, max-age=31536000, immutable"
                                                             : "public, max-age=31536000, immutable");
    http_reply_lines(x->req, h->lines, sel->status == 304 ? h->first_len : h->lines_len);
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
