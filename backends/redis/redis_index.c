/*
 * redis_index - changes are scripts, one for each file; listings are redis_listing's and one HMGET for the rows.
 *
 * Keys, all in one hash slot (base is <prefix>index:{files}:): rows; all:created, all:size, all:name;
 * owner:<owner>:… the same; expiry; text:<n>, the segments of the search text, text:born, text:last, and text:dead, the
 * dead bytes of each; whole (the run id of the server when a rebuild ended: a restart or failover may have lost rows,
 * so after one the index is not whole), and when that was; owing (a set of the nodes that have rows to make up for);
 * beat:<node> and changes:<node> (how many heartbeats and how many changes of rows the node has made: where there are
 * fewer than it knows of, a server has come back with what it had once, without having been restarted); rebuild (its
 * random name) and fresh (ids put while it runs); recent:<stem>, for a few seconds after a row was put whose id begins
 * so.
 *
 * Locks: lock guards what is remembered, and is held across no call; telling is held around what is told of owing, so
 * that it is told in order.
 */
#include "backends/redis/redis_index.h"

#include "backends/index_row.h"
#include "backends/redis/redis_listing.h"
#include "core/check.h"
#include "core/text/casefold.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REBUILD_TTL_MS    3600000
#define EXPIRED_AT_A_TIME INDEX_TOP_MAX
#define TEXT_KEPT_BYTES   (64 << 20) /* of some 450,000 files */

struct redis_index {
    struct redis_pool *pool;
    struct redis_batch *batch;
    struct redis_text *text;
    char base[96];
    struct uuid node; /* of this life */
    pthread_mutex_t lock;
    bool missed;         /* a change may not have reached Redis */
    int64_t changes;     /* this node's, as Redis has last counted them */
    bool uncounted;      /* Redis has counted fewer since: the next heartbeat tells that its data are old */
    struct uuid rebuild; /* the one this node began last */
    pthread_mutex_t telling;
    bool told;                 /* that this node owes rows */
    int64_t beats, beats_sent; /* answered, and sent; the heartbeat's thread's own, with the next */
    int64_t beat_ms;           /* when the last one was answered, by the server's clock */
};

enum blob_status redis_index_new(const struct redis_config *config, struct redis_pool *pool, struct redis_batch *batch,
                                 struct redis_index **out, struct blob_error *err)
{
    struct redis_index *x = calloc(1, sizeof *x);
    if (!x)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the file index");
    x->pool = pool;
    x->batch = batch;
    snprintf(x->base, sizeof x->base, "%sindex:{files}:", config->prefix);
    enum blob_status st = redis_text_new(x->base, TEXT_KEPT_BYTES, &x->text, err);
    if (st != BLOB_OK) {
        free(x);
        return st;
    }
    uuid_new(&x->node);
    pthread_mutex_init(&x->lock, NULL);
    pthread_mutex_init(&x->telling, NULL);
    *out = x;
    return BLOB_OK;
}

void redis_index_free(struct redis_index *x)
{
    redis_text_free(x->text);
    pthread_mutex_destroy(&x->telling);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* <base><name>, in out. */
static const char *key_named(const struct redis_index *x, const char *name, char out[128])
{
    CHECK((size_t)snprintf(out, 128, "%s%s", x->base, name) < 128);
    return out;
}

static void begin_script(const struct redis_index *x, struct redis_call *call, enum redis_script script)
{
    redis_call_begin_script(call, script, 1);
    redis_call_text(call, x->base);
}

static enum blob_status run_ignored(struct redis_index *x, const struct redis_call *call, struct blob_error *err)
{
    redisReply *reply = NULL;
    enum blob_status st = redis_pool_run(x->pool, call, &reply, err);
    if (st == BLOB_OK)
        freeReplyObject(reply);
    return st;
}

/* ---- changes ---- */

void redis_index_miss(struct redis_index *x)
{
    pthread_mutex_lock(&x->lock);
    x->missed = true;
    pthread_mutex_unlock(&x->lock);
}

int64_t redis_index_changes(struct redis_index *x)
{
    pthread_mutex_lock(&x->lock);
    int64_t changes = x->changes;
    pthread_mutex_unlock(&x->lock);
    return changes;
}

void redis_index_changed(struct redis_index *x, int64_t before, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_INTEGER)
        return;
    pthread_mutex_lock(&x->lock);
    if (reply->integer <= before)
        x->uncounted = true;
    else if (reply->integer > x->changes)
        x->changes = reply->integer;
    pthread_mutex_unlock(&x->lock);
}

/* After a failure the record is there and its row is not, or the reverse. */
static enum blob_status run_change(struct redis_index *x, const struct redis_call *call, struct blob_error *err)
{
    redisReply *reply = NULL;
    int64_t before = redis_index_changes(x);
    enum blob_status st = redis_batch_run(x->batch, call, &reply, err);
    if (st == BLOB_OK) {
        redis_index_changed(x, before, reply);
        freeReplyObject(reply);
    } else {
        redis_index_miss(x);
    }
    return st;
}

enum blob_status redis_index_make_put(struct redis_index *x, const struct index_row *row, struct redis_call *call,
                                      struct bytebuf *bytes, struct blob_error *err)
{
    casefold_add(row->name, bytes);
    bytebuf_u8(bytes, 0);
    bytebuf_add(bytes, row->owner, strlen(row->owner) + 1);
    bytebuf_printf(bytes, "%lld", (long long)row->created_ms);
    bytebuf_u8(bytes, 0);
    bytebuf_printf(bytes, "%llu", (unsigned long long)row->size);
    bytebuf_u8(bytes, 0);
    index_row_encode(row, bytes);
    if (bytes->failed)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a row");
    begin_script(x, call, REDIS_SCRIPT_INDEX_PUT);
    redis_call_text(call, row->id);
    redis_call_bytes(call, bytes->data, bytes->len);
    redis_call_number(call, row->expires_ms > 0 ? row->expires_ms : 0);
    redis_call_text(call, x->node.text);
    return BLOB_OK;
}

enum blob_status redis_index_put(struct redis_index *x, const struct index_row *row, struct blob_error *err)
{
    struct redis_call call;
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    enum blob_status st = redis_index_make_put(x, row, &call, &bytes, err);
    if (st == BLOB_OK)
        st = run_change(x, &call, err);
    bytebuf_release(&bytes);
    return st;
}

enum blob_status redis_index_remove(struct redis_index *x, const char *id, struct blob_error *err)
{
    struct redis_call call;
    begin_script(x, &call, REDIS_SCRIPT_INDEX_REMOVE);
    redis_call_text(&call, id);
    redis_call_text(&call, x->node.text);
    return run_change(x, &call, err);
}

/* ---- listings ---- */

/* A field of rows: what the scripts need, with five NULs, and the encoded row. A row that went meanwhile is nil. */
static enum blob_status add_row(const redisReply *field, struct row_page *page, struct blob_error *err)
{
    struct index_row row;
    if (field->type == REDIS_REPLY_NIL)
        return BLOB_OK;
    const char *at = field->str, *end = field->type == REDIS_REPLY_STRING ? at + field->len : at;
    for (int i = 0; i < 5 && at; i++) {
        at = memchr(at, 0, (size_t)(end - at));
        at = at ? at + 1 : NULL;
    }
    struct byteview in = {.data = (const uint8_t *)at, .len = at ? (size_t)(end - at) : 0};
    if (!at || index_row_decode(&in, &row) != BLOB_OK)
        return blob_fail(err, BLOB_E_IO, 0, "redis: a row of the file index is not this program's");
    row_page_add(page, &row);
    return BLOB_OK;
}

/* Adds the rows of the ids, each NUL-terminated in ids. */
static enum blob_status fetch_rows(struct redis_index *x, struct redis_conn *conn, const struct bytebuf *ids,
                                   unsigned count, struct row_page *page, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    char key[128];
    if (count == 0)
        return BLOB_OK;
    redis_call_begin(&call, "HMGET");
    redis_call_text(&call, key_named(x, "rows", key));
    const char *id = ids->data;
    for (unsigned i = 0; i < count; i++, id += strlen(id) + 1)
        redis_call_text(&call, id);
    enum blob_status st = redis_conn_run(conn, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type != REDIS_REPLY_ARRAY)
        st = blob_fail(err, BLOB_E_IO, 0, "redis: an answer that makes no sense");
    for (size_t i = 0; st == BLOB_OK && i < reply->elements; i++)
        st = add_row(reply->element[i], page, err);
    freeReplyObject(reply);
    return st;
}

enum blob_status redis_index_list(struct redis_index *x, const struct index_query *q, uint64_t *count, index_row_fn *fn,
                                  void *arg, struct blob_error *err)
{
    struct redis_conn *conn = NULL;
    struct row_page page;
    struct bytebuf ids;
    unsigned found = 0;
    uint64_t matches = 0;
    enum blob_status st = redis_pool_take(x->pool, &conn, err);
    if (st != BLOB_OK)
        return st;
    row_page_init(&page);
    bytebuf_init(&ids);
    st = redis_listing_find(x->text, conn, x->base, q, &ids, &found, &matches, err);
    if (st == BLOB_OK)
        st = fetch_rows(x, conn, &ids, found, &page, err);
    redis_pool_give(x->pool, conn);
    if (st == BLOB_OK) {
        *count = matches;
        st = row_page_give(&page, fn, arg, err);
    }
    bytebuf_release(&ids);
    row_page_release(&page);
    return st;
}

/* The next ids that expired, skipping those before. */
static enum blob_status find_expired(struct redis_index *x, struct redis_conn *conn, int64_t now_ms, uint64_t skip,
                                     size_t limit, struct bytebuf *ids, unsigned *found, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    char key[128], bound[32];
    snprintf(bound, sizeof bound, "(%lld", (long long)now_ms);
    redis_call_begin(&call, "ZRANGEBYSCORE");
    redis_call_text(&call, key_named(x, "expiry", key));
    redis_call_text(&call, "-inf");
    redis_call_text(&call, bound);
    redis_call_text(&call, "LIMIT");
    redis_call_number(&call, (int64_t)skip);
    redis_call_number(&call, (int64_t)limit);
    enum blob_status st = redis_conn_run(conn, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    bytebuf_clear(ids);
    for (size_t i = 0; i < reply->elements; i++)
        bytebuf_add(ids, reply->element[i]->str, reply->element[i]->len + 1);
    *found = (unsigned)reply->elements;
    freeReplyObject(reply);
    return ids->failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing") : BLOB_OK;
}

enum blob_status redis_index_expired(struct redis_index *x, int64_t now_ms, size_t limit, index_row_fn *fn, void *arg,
                                     struct blob_error *err)
{
    struct redis_conn *conn = NULL;
    struct row_page page;
    struct bytebuf ids;
    enum blob_status st = redis_pool_take(x->pool, &conn, err);
    if (st != BLOB_OK)
        return st;
    row_page_init(&page);
    bytebuf_init(&ids);
    unsigned found = 1;
    for (size_t seen = 0; st == BLOB_OK && seen < limit && found > 0; seen += found) {
        size_t step = limit - seen < EXPIRED_AT_A_TIME ? limit - seen : EXPIRED_AT_A_TIME;
        st = find_expired(x, conn, now_ms, seen, step, &ids, &found, err);
        if (st == BLOB_OK)
            st = fetch_rows(x, conn, &ids, found, &page, err);
    }
    redis_pool_give(x->pool, conn);
    if (st == BLOB_OK)
        st = row_page_give(&page, fn, arg, err);
    bytebuf_release(&ids);
    row_page_release(&page);
    return st;
}

enum blob_status redis_index_recent(struct redis_index *x, const char *stem, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    char key[sizeof x->base + 16 + INDEX_STEM_CHARS];
    snprintf(key, sizeof key, "%srecent:%.*s", x->base, INDEX_STEM_CHARS, stem);
    redis_call_begin(&call, "EXISTS");
    redis_call_text(&call, key);
    enum blob_status st = redis_batch_run(x->batch, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    bool recent = reply->type == REDIS_REPLY_INTEGER && reply->integer > 0;
    freeReplyObject(reply);
    return recent ? BLOB_OK : blob_fail(err, BLOB_E_NOT_FOUND, 0, "no such row was put lately");
}

/* ---- being whole ---- */

enum blob_status redis_index_whole(struct redis_index *x, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    begin_script(x, &call, REDIS_SCRIPT_INDEX_WHOLE);
    enum blob_status st = redis_pool_run(x->pool, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    bool whole = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    freeReplyObject(reply);
    pthread_mutex_lock(&x->lock);
    whole = whole && !x->missed;
    pthread_mutex_unlock(&x->lock);
    return whole ? BLOB_OK
                 : blob_fail(err, BLOB_E_NOT_FOUND, 0,
                             "redis was emptied, restarted or away since the file index was built");
}

/* Forgets that the index was whole. */
static enum blob_status clear_whole(struct redis_index *x, struct blob_error *err)
{
    struct redis_call call;
    char key[128];
    redis_call_begin(&call, "DEL");
    redis_call_text(&call, key_named(x, "whole", key));
    return run_ignored(x, &call, err);
}

static enum blob_status tell_owing(struct redis_index *x, const char *command)
{
    struct redis_call call;
    char key[128];
    redis_call_begin(&call, command);
    redis_call_text(&call, key_named(x, "owing", key));
    redis_call_text(&call, x->node.text);
    return run_ignored(x, &call, NULL);
}

/* So that other nodes do not take the index for whole either, also should this one die before it has caught up. */
static void confess(struct redis_index *x)
{
    pthread_mutex_lock(&x->telling);
    pthread_mutex_lock(&x->lock);
    bool missed = x->missed;
    pthread_mutex_unlock(&x->lock);
    if (missed && !x->told)
        x->told = tell_owing(x, "SADD") == BLOB_OK;
    pthread_mutex_unlock(&x->telling);
}

void redis_index_caught_up(struct redis_index *x)
{
    pthread_mutex_lock(&x->telling);
    pthread_mutex_lock(&x->lock);
    bool missed = x->missed;
    x->missed = false;
    pthread_mutex_unlock(&x->lock);
    /* Whether it was told is not known where the answer was lost. */
    if (missed && tell_owing(x, "SREM") == BLOB_OK)
        x->told = false;
    else if (missed)
        redis_index_miss(x);
    pthread_mutex_unlock(&x->telling);
}

/* Another server, or this one with what it had once, is found by the heartbeats and the changes that it knows of. */
static void beat(struct redis_index *x)
{
    struct redis_call call;
    redisReply *reply = NULL;
    pthread_mutex_lock(&x->lock);
    int64_t changes = x->changes;
    bool uncounted = x->uncounted;
    x->uncounted = false;
    pthread_mutex_unlock(&x->lock);
    begin_script(x, &call, REDIS_SCRIPT_INDEX_BEAT);
    redis_call_text(&call, x->node.text);
    redis_call_number(&call, x->beats);
    redis_call_number(&call, x->beat_ms);
    redis_call_number(&call, ++x->beats_sent);
    redis_call_number(&call, changes);
    redis_call_number(&call, uncounted);
    if (redis_pool_run(x->pool, &call, &reply, NULL) != BLOB_OK) {
        pthread_mutex_lock(&x->lock);
        x->uncounted = x->uncounted || uncounted;
        pthread_mutex_unlock(&x->lock);
        return;
    }
    if (reply->type == REDIS_REPLY_STRING) {
        x->beats = x->beats_sent;
        x->beat_ms = strtoll(reply->str, NULL, 10);
    }
    freeReplyObject(reply);
}

void redis_index_tick(struct redis_index *x)
{
    struct redis_conn *conn = NULL;
    struct blob_error err;
    beat(x);
    confess(x);
    if (redis_pool_take(x->pool, &conn, &err) != BLOB_OK)
        return;
    (void)!redis_text_refresh(x->text, conn, &err); /* else a listing fetches it */
    redis_pool_give(x->pool, conn);
}

enum blob_status redis_index_rebuild_begin(struct redis_index *x, struct blob_error *err)
{
    struct redis_call call;
    struct uuid name;
    char key[128], owing[128];
    uuid_new(&name);
    pthread_mutex_lock(&x->lock);
    x->missed = false; /* what was missed before is read from the records now, also what others missed */
    x->rebuild = name;
    pthread_mutex_unlock(&x->lock);
    enum blob_status st = clear_whole(x, err);
    if (st == BLOB_OK) {
        redis_call_begin(&call, "UNLINK");
        redis_call_text(&call, key_named(x, "fresh", key));
        redis_call_text(&call, key_named(x, "owing", owing));
        st = run_ignored(x, &call, err);
    }
    if (st == BLOB_OK) {
        redis_call_begin(&call, "SET");
        redis_call_text(&call, key_named(x, "rebuild", key));
        redis_call_text(&call, name.text);
        redis_call_text(&call, "PX");
        redis_call_number(&call, REBUILD_TTL_MS);
        st = run_ignored(x, &call, err);
    }
    return st;
}

static enum blob_status not_the_present(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "redis was emptied, or another node began to rebuild the file index");
}

/* One step over the rows; cursor is HSCAN's. */
static enum blob_status sweep_step(struct redis_index *x, const char *name, char cursor[32], struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    begin_script(x, &call, REDIS_SCRIPT_INDEX_SWEEP);
    redis_call_text(&call, name);
    redis_call_text(&call, cursor);
    enum blob_status st = redis_pool_run(x->pool, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type != REDIS_REPLY_STRING || strcmp(reply->str, "-") == 0)
        st = not_the_present(err);
    else
        snprintf(cursor, 32, "%s", reply->str);
    freeReplyObject(reply);
    return st;
}

enum blob_status redis_index_rebuild_end(struct redis_index *x, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    char cursor[32] = "0";
    pthread_mutex_lock(&x->lock);
    struct uuid name = x->rebuild;
    bool missed = x->missed;
    pthread_mutex_unlock(&x->lock);
    if (missed)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "redis was away while the file index was rebuilt");
    enum blob_status st;
    do
        st = sweep_step(x, name.text, cursor, err);
    while (st == BLOB_OK && strcmp(cursor, "0") != 0);
    if (st != BLOB_OK)
        return st;
    begin_script(x, &call, REDIS_SCRIPT_INDEX_END);
    redis_call_text(&call, name.text);
    st = redis_pool_run(x->pool, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer != 1)
        st = not_the_present(err);
    freeReplyObject(reply);
    return st;
}
