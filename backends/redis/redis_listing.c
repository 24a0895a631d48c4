/*
 * redis_listing - finds a page of the index in one of two ways. If it is ordered by one key and nothing is searched
 * for, the page is a range of a sorted set, whatever the number of files. Otherwise every row of the search text, which
 * redis_text has in memory, is offered to a page. The text has ten times fewer bytes than rows would have, and is
 * fetched in few large answers: what a sorted set or a hash costs is not its bytes but its elements.
 */
#include "backends/redis/redis_listing.h"

#include "core/index_order.h"

#include <string.h>

static enum blob_status no_sense(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_IO, 0, "redis: the file index is not this program's");
}

/* ---- a range of a sorted set ---- */

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

/* ---- the search text ---- */

static enum blob_status find_by_text(struct redis_text *text, struct redis_conn *conn, const struct index_query *q,
                                     struct bytebuf *ids, unsigned *found, uint64_t *count, struct blob_error *err)
{
    struct index_page page;
    struct redis_text_view *view = NULL;
    struct index_query near = *q;
    if (near.skip > INDEX_SKIP_MAX) /* nothing is there; and nothing is kept */
        near.skip = INDEX_SKIP_MAX;
    index_page_init(&page, &near);
    enum blob_status st = redis_text_scan(text, conn, &page, &view, err);
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
    redis_text_close(text, view);
    return st;
}

/* ---- both ---- */

static const char *const key_names[] = {
    [INDEX_BY_CREATED] = "created", [INDEX_BY_NAME] = "name", [INDEX_BY_SIZE] = "size"};

enum blob_status redis_listing_find(struct redis_text *text, struct redis_conn *conn, const char *base,
                                    const struct index_query *q, struct bytebuf *ids, unsigned *found, uint64_t *count,
                                    struct blob_error *err)
{
    struct bytebuf key;
    enum blob_status st;
    if (q->orders > 1 || (q->search && *q->search)) {
        st = find_by_text(text, conn, q, ids, found, count, err);
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
