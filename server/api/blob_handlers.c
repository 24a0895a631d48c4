/*
 * blob_handlers - a blob that is in the cache is answered right here on the loop: its bytes from memory, or its open
 * file. Only a blob that is not there costs a hop to a worker, and only a remote one is read by workers. Where looking
 * costs, whoever asks for what may not exist at all waits in turns for a share of the workers, and for nobody else's.
 */
#include "server/api/blob_handlers.h"

#include "core/files/blob_cache.h"
#include "core/log.h"
#include "core/node_clock.h"
#include "core/text/bytebuf.h"
#include "server/api/blob_answer.h"
#include "server/api/blob_stream.h"
#include "server/api/exchange.h"
#include "server/api/exchange_hop.h"
#include "server/api/response.h"
#include "server/api/service.h"

#include <stdlib.h>

struct get_state {
    struct digest digest;
    struct blob_entry *entry;
    char *url;
};

static struct get_state *get_state(struct exchange *x)
{
    return x->state != NULL ? x->state : exchange_state(x, sizeof(struct get_state));
}

/* ---- redirecting ---- */

static void redirect_work(struct exchange *x)
{
    struct get_state *s = x->state;
    const struct blob_headers *h = s->entry->extra;
    struct blob_error err;
    struct bytebuf url;
    bytebuf_init(&url);
    enum blob_status st = blob_url(x->svc->store, &s->entry->digest, h->disposition, h->media_type,
                                   x->svc->presign_expiry_ms, &url, &err);
    s->url = st == BLOB_OK ? bytebuf_take(&url, NULL) : NULL;
    bytebuf_release(&url);
    if (s->url != NULL)
        return;
    if (st != BLOB_OK)
        log_line(x->svc->log, LOG_ERROR, http_request_id(x->req), "presigning %s: %s", h->etag_opaque, err.text);
    api_fail_status(&x->err, st != BLOB_OK ? st : BLOB_E_NO_MEMORY);
}

static void redirect_done(struct exchange *x)
{
    struct get_state *s = x->state;
    char *url = s->url;
    blob_answer_release(s->entry);
    if (url == NULL) {
        response_error(x, &x->err);
        return;
    }
    http_reply_header(x->req, "Location", url);
    response_empty(x, 307);
    free(url);
}

static void blob_redirect(struct exchange *x, struct blob_entry *entry)
{
    struct get_state *s = get_state(x);
    if (s == NULL) {
        blob_answer_release(entry);
        return;
    }
    s->entry = entry;
    if (!exchange_hop(x, NULL, redirect_work, redirect_done))
        blob_answer_release(entry);
}

/* ---- answering ---- */

/* Takes the hold on entry. */
static void blob_send(struct exchange *x, struct blob_entry *entry, const struct selection *sel)
{
    bool is_get = http_request_method(x->req) == HTTP_GET;
    bool at_hand = entry->content != NULL || entry->fd >= 0;
    if (is_get && !at_hand && sel->length > 0) {
        blob_stream_start(x, entry, sel);
        return;
    }
    if (is_get && entry->content != NULL && !http_reply_reserve(x->req, (size_t)sel->length)) {
        blob_answer_release(entry);
        response_busy(x);
        return;
    }
    blob_answer_headers(x, entry, sel);
    if (!is_get || sel->length == 0) {
        http_reply(x->req, sel->status, NULL, (size_t)sel->length);
        blob_answer_release(entry);
    } else if (entry->content != NULL) {
        http_reply_shared(x->req, sel->status, entry->content + sel->first, (size_t)sel->length, blob_answer_release,
                          entry);
    } else {
        http_reply_file(x->req, sel->status, entry->fd, sel->first, sel->length, blob_answer_release, entry);
    }
}

/* Takes the hold on entry. */
static void blob_serve(struct exchange *x, struct blob_entry *entry)
{
    const struct blob_headers *h = entry->extra;
    if (h == NULL) {
        blob_cache_release(x->svc->cache, entry);
        response_busy(x);
        return;
    }
    bool is_get = http_request_method(x->req) == HTTP_GET;
    const struct conditions conditions = {
        .if_match = http_request_header(x->req, "If-Match"),
        .if_none_match = http_request_header(x->req, "If-None-Match"),
        .range = http_request_header(x->req, "Range"),
        .if_range = http_request_header(x->req, "If-Range"),
    };
    const struct selection sel = conditional_select(&conditions, is_get, h->etag_opaque, entry->size);
    switch (sel.status) {
    case 304:
        blob_answer_headers(x, entry, &sel);
        http_reply(x->req, 304, NULL, 0);
        blob_answer_release(entry);
        break;
    case 412:
    case 416:
        blob_answer_refusal(x, entry, &sel);
        blob_answer_release(entry);
        break;
    default:
        if (x->svc->downloads_redirect && is_get)
            blob_redirect(x, entry);
        else
            blob_send(x, entry, &sel);
        break;
    }
}

/* The name by which the download is asked for; NULL: anybody's. */
static const char *asker_of(const struct exchange *x)
{
    return x->who.known ? x->who.name : NULL;
}

/* By which files end. */
static int64_t now_ms(const struct exchange *x)
{
    return node_clock_at_least_ms(x->svc->sessions->clock);
}

/* ---- loading ---- */

static void fail_unknown(struct exchange *x)
{
    api_fail(&x->err, API_BLOB_UNKNOWN, "there is no blob of this digest");
}

static void load_work(struct exchange *x)
{
    struct get_state *s = x->state;
    struct blob_error err;
    enum blob_status st = blob_cache_load(x->svc->cache, &s->digest, asker_of(x), now_ms(x), &s->entry, &err);
    if (st == BLOB_OK)
        return;
    if (st == BLOB_E_NOT_FOUND) {
        fail_unknown(x);
        return;
    }
    if (st != BLOB_E_CORRUPT)
        log_line(x->svc->log, LOG_ERROR, http_request_id(x->req), "download: %s", err.text);
    api_fail_status(&x->err, st);
}

static void load_done(struct exchange *x)
{
    struct get_state *s = x->state;
    if (s->entry != NULL)
        blob_serve(x, s->entry);
    else
        response_error(x, &x->err);
}

void handle_blob_get(struct exchange *x)
{
    struct digest digest;
    if (digest_parse(x->param, &digest) != BLOB_OK) {
        api_fail_field(&x->err, API_DIGEST_INVALID, "digest",
                       "a digest is 64 hex digits of SHA-256, bare or behind sha256:");
        response_error(x, &x->err);
        return;
    }
    int64_t now = now_ms(x);
    struct blob_entry *entry = blob_cache_get(x->svc->cache, &digest, asker_of(x), now);
    if (entry != NULL) {
        blob_serve(x, entry);
        return;
    }
    enum blob_recall recall = blob_cache_recall(x->svc->cache, &digest, now);
    if (recall == RECALL_ABSENT) {
        fail_unknown(x);
        response_error(x, &x->err);
        return;
    }
    struct get_state *s = get_state(x);
    if (s == NULL)
        return;
    s->digest = digest;
    if (x->svc->lookups != NULL && recall == RECALL_NOTHING)
        exchange_hop_share(x, x->svc->lookups, load_work, load_done);
    else
        exchange_hop(x, NULL, load_work, load_done);
}
