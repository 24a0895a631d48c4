/*
 * redis_listing - two ways. One key and no search: the page is a range of a sorted set, whatever the number of files.
 * Else: the whole search text is read, segment by segment, and offered to a page; the next segment is asked for before
 * this one is looked at. The text has ten times fewer bytes than rows would have, and comes in few large answers,
 * because what a sorted set or a hash costs is not its bytes but its elements.
 *
 * A change made meanwhile may move a row from a segment that was read to one that was not: it may be missed or come
 * twice, as in any listing that is read page by page.
 *
 * A record of the text: length of its body (2 bytes, little-endian), 1 or 0 for live or dead, and the body: owner NUL
 * folded name NUL id NUL created NUL size NUL.
 */
#include "backends/redis_listing.h"

#include "core/check.h"
#include "core/index_order.h"

#include <stdlib.h>
#include <string.h>

#define RECORD_HEAD 3

static enum blob_status no_sense(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_IO, 0, "redis: the file index is not this program's");
}

/* ---- a range of a sorted set --------------------------------------------------------------------------------------
 */

static enum blob_status run_count(struct redis_conn *conn, const char *key, uint64_t *count, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    redis_call_begin(&call, "ZCARD");
    redis_call_text(&call, key);
    enum blob_status st = redis_conn_run(conn, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0)
        *count = (uint64_t)reply->integer;
    else
        st = no_sense(err);
    freeReplyObject(reply);
    return st;
}

/* By name, the id stands behind the folded name and a NUL; else it is the member. */
static enum blob_status add_member(const redisReply *member, enum index_key key, struct bytebuf *ids,
                                   struct blob_error *err)
{
    if (member->type != REDIS_REPLY_STRING)
        return no_sense(err);
    const char *id = member->str, *end = id + member->len;
    if (key == INDEX_BY_NAME) {
        id = memchr(id, 0, member->len);
        if (!id)
            return no_sense(err);
        id++;
    }
    bytebuf_add(ids, id, (size_t)(end - id) + 1);
    return BLOB_OK;
}

static enum blob_status find_range(struct redis_conn *conn, const char *key, const struct index_query *q,
                                   struct bytebuf *ids, unsigned *found, uint64_t *count, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    uint64_t total = 0;
    unsigned n = 0;
    enum blob_status st = run_count(conn, key, &total, err);
    if (st == BLOB_OK && q->skip < total) {
        redis_call_begin(&call, q->order[0].descending ? "ZREVRANGE" : "ZRANGE");
        redis_call_text(&call, key);
        redis_call_number(&call, (int64_t)q->skip);
        redis_call_number(&call, (int64_t)(q->skip + q->top - 1));
        st = redis_conn_run(conn, &call, &reply, err);
        for (; st == BLOB_OK && n < reply->elements; n++)
            st = add_member(reply->element[n], q->order[0].key, ids, err);
        if (reply)
            freeReplyObject(reply);
    }
    if (st != BLOB_OK)
        return st;
    *found = n;
    *count = total;
    return BLOB_OK;
}

/* ---- the search text ----------------------------------------------------------------------------------------------
 */

/* body is NUL-terminated. */
static bool offer_record(struct index_page *page, const char *body, size_t len)
{
    const char *parts[5], *at = body, *end = body + len;
    for (int i = 0; i < 5; i++) {
        const char *nul = memchr(at, 0, (size_t)(end - at));
        if (!nul)
            return false;
        parts[i] = at;
        at = nul + 1;
    }
    const struct index_sort_row row = {.owner = parts[0],
                                       .folded = parts[1],
                                       .id = parts[2],
                                       .created_ms = strtoll(parts[3], NULL, 10),
                                       .size = strtoull(parts[4], NULL, 10)};
    index_page_offer(page, &row, NULL, 0);
    return at == end;
}

static enum blob_status offer_segment(struct index_page *page, const redisReply *segment, struct blob_error *err)
{
    if (segment->type == REDIS_REPLY_NIL) /* it was cleaned up meanwhile */
        return BLOB_OK;
    if (segment->type != REDIS_REPLY_STRING)
        return no_sense(err);
    const char *at = segment->str, *end = at + segment->len;
    while (end - at >= RECORD_HEAD) {
        size_t len = (size_t)(uint8_t)at[0] | (size_t)(uint8_t)at[1] << 8;
        bool live = at[2] == 1;
        at += RECORD_HEAD;
        if ((size_t)(end - at) < len || (live && !offer_record(page, at, len)))
            return no_sense(err);
        at += len;
    }
    return at == end ? BLOB_OK : no_sense(err);
}

static enum blob_status ask_segment(struct redis_conn *conn, const char *base, const redisReply *number,
                                    struct blob_error *err)
{
    struct redis_call call;
    struct bytebuf key;
    bytebuf_init(&key);
    bytebuf_printf(&key, "%stext:%s", base, number->str);
    redis_call_begin(&call, "GET");
    redis_call_bytes(&call, key.data, key.len);
    enum blob_status st =
        key.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing") : redis_conn_send(conn, &call, err);
    bytebuf_release(&key);
    return st;
}

static enum blob_status read_segments(struct redis_conn *conn, const char *base, const redisReply *numbers,
                                      struct index_page *page, struct blob_error *err)
{
    size_t asked = 0;
    enum blob_status st = BLOB_OK;
    if (asked < numbers->elements)
        st = ask_segment(conn, base, numbers->element[asked++], err);
    for (size_t i = 0; st == BLOB_OK && i < numbers->elements; i++) {
        redisReply *segment = NULL;
        st = redis_conn_receive(conn, &segment, err);
        if (st == BLOB_OK && asked < numbers->elements)
            st = ask_segment(conn, base, numbers->element[asked++], err);
        if (st == BLOB_OK)
            st = offer_segment(page, segment, err);
        if (segment)
            freeReplyObject(segment);
    }
    if (st != BLOB_OK)
        conn->broken = true; /* an answer may still be under way */
    return st;
}

static enum blob_status scan_text(struct redis_conn *conn, const char *base, struct index_page *page,
                                  struct blob_error *err)
{
    struct redis_call call;
    struct bytebuf key;
    redisReply *numbers = NULL;
    bytebuf_init(&key);
    bytebuf_printf(&key, "%stext:dead", base);
    redis_call_begin(&call, "HKEYS");
    redis_call_bytes(&call, key.data, key.len);
    enum blob_status st = key.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing")
                                     : redis_conn_run(conn, &call, &numbers, err);
    bytebuf_release(&key);
    if (st != BLOB_OK)
        return st;
    st = numbers->type == REDIS_REPLY_ARRAY ? read_segments(conn, base, numbers, page, err) : no_sense(err);
    freeReplyObject(numbers);
    if (st == BLOB_OK && page->failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    return st;
}

static enum blob_status find_by_text(struct redis_conn *conn, const char *base, const struct index_query *q,
                                     struct bytebuf *ids, unsigned *found, uint64_t *count, struct blob_error *err)
{
    struct index_page page;
    struct index_query near = *q;
    if (near.skip > INDEX_SKIP_MAX) /* nothing is there; and nothing is kept */
        near.skip = INDEX_SKIP_MAX;
    index_page_init(&page, &near);
    enum blob_status st = scan_text(conn, base, &page, err);
    if (st == BLOB_OK) {
        index_page_sort(&page);
        size_t rows = near.skip == q->skip ? index_page_rows(&page) : 0;
        for (size_t i = 0; i < rows; i++) {
            const char *id = index_page_row(&page, i, NULL, NULL)->id;
            bytebuf_add(ids, id, strlen(id) + 1);
        }
        *found = (unsigned)rows;
        *count = page.matches;
    }
    index_page_release(&page);
    return st;
}

/* ---- both -----------------------------------------------------------------------------------------------------------
 */

static const char *const key_names[] = {
    [INDEX_BY_CREATED] = "created", [INDEX_BY_NAME] = "name", [INDEX_BY_SIZE] = "size"};

enum blob_status redis_listing_find(struct redis_conn *conn, const char *base, const struct index_query *q,
                                    struct bytebuf *ids, unsigned *found, uint64_t *count, struct blob_error *err)
{
    struct bytebuf key;
    enum blob_status st;
    if (q->orders > 1 || (q->search && *q->search)) {
        st = find_by_text(conn, base, q, ids, found, count, err);
    } else {
        bytebuf_init(&key);
        if (q->owner)
            bytebuf_printf(&key, "%sowner:%s:%s", base, q->owner, key_names[q->order[0].key]);
        else
            bytebuf_printf(&key, "%sall:%s", base, key_names[q->order[0].key]);
        st = key.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing")
                        : find_range(conn, key.data, q, ids, found, count, err);
        bytebuf_release(&key);
    }
    if (st == BLOB_OK && ids->failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    return st;
}
