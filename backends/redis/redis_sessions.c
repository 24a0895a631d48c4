/*
 * redis_sessions - a session is one string: its epoch in 8 bytes, then the value. A replace compares those bytes in a
 * script and writes all anew, so value, epoch and TTL change together or not at all.
 *
 * TTLs are given as durations, so that they hold whatever the nodes' clocks say.
 */
#include "backends/redis/redis_sessions.h"

#include "backends/redis/redis_index.h"
#include "backends/redis/redis_node.h"
#include "core/check.h"
#include "core/log.h"
#include "core/node_clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define EPOCH_BYTES 8

struct redis_store {
    struct session_store base;
    struct redis_config config;
    struct redis_pool *pool;
    struct redis_batch *batch;
    struct redis_node *node;
    struct redis_index *index;
    int wake_fd;
};

static struct redis_store *store_of(struct session_store *s)
{
    return (struct redis_store *)s;
}

/* ---- sessions ---- */

/* A login that stopped working while running is an outage like another: it ends when the operator mends it. */
static enum blob_status as_operation(enum blob_status st)
{
    return st == BLOB_E_DENIED ? BLOB_E_UNAVAILABLE : st;
}

static enum blob_status run(struct redis_store *r, const struct redis_call *call, redisReply **reply,
                            struct blob_error *err)
{
    enum blob_status st = redis_node_ready(r->node, err);
    return st == BLOB_OK ? as_operation(redis_batch_run(r->batch, call, reply, err)) : st;
}

static void session_key(const struct redis_store *r, const struct uuid *id, char out[128])
{
    CHECK((size_t)snprintf(out, 128, "%ss:{%s}", r->config.prefix, id->text) < 128);
}

static void encode_epoch(uint64_t epoch, uint8_t out[EPOCH_BYTES])
{
    for (int i = 0; i < EPOCH_BYTES; i++)
        out[i] = (uint8_t)(epoch >> (8 * i));
}

static uint64_t decode_epoch(const char *in)
{
    uint64_t epoch = 0;
    for (int i = 0; i < EPOCH_BYTES; i++)
        epoch |= (uint64_t)(uint8_t)in[i] << (8 * i);
    return epoch;
}

/* As SET's option and its value. What has expired already must not be seen for even a millisecond. */
static void add_expiry(const struct redis_store *r, struct redis_call *call, int64_t expires_ms)
{
    /* A time to live, by Redis' clock: whatever this node's is, other nodes do not suffer by it. */
    int64_t ttl_ms = expires_ms - node_clock_at_most_ms(r->base.clock);
    if (ttl_ms <= 0)
        ttl_ms = expires_ms - node_clock_at_least_ms(r->base.clock);
    redis_call_text(call, ttl_ms > 0 ? "PX" : "PXAT");
    redis_call_number(call, ttl_ms > 0 ? ttl_ms : 1);
}

static size_t encode_session(uint64_t epoch, const void *value, size_t len,
                             uint8_t out[EPOCH_BYTES + SESSION_VALUE_MAX])
{
    encode_epoch(epoch, out);
    if (len)
        memcpy(out + EPOCH_BYTES, value, len);
    return EPOCH_BYTES + len;
}

static enum blob_status redis_insert(struct session_store *s, const struct uuid *id, uint64_t epoch, const void *value,
                                     size_t len, int64_t expires_ms, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct redis_call call;
    redisReply *reply = NULL;
    char key[128];
    uint8_t bytes[EPOCH_BYTES + SESSION_VALUE_MAX];
    session_key(r, id, key);
    redis_call_begin(&call, "SET");
    redis_call_text(&call, key);
    redis_call_bytes(&call, bytes, encode_session(epoch, value, len, bytes));
    redis_call_text(&call, "NX");
    add_expiry(r, &call, expires_ms);
    enum blob_status st = run(r, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type == REDIS_REPLY_NIL)
        st = blob_fail(err, BLOB_E_EXISTS, 0, "session %s is there", id->text);
    freeReplyObject(reply);
    return st;
}

static enum blob_status redis_load(struct session_store *s, const struct uuid *id, struct bytebuf *out, uint64_t *epoch,
                                   struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct redis_call call;
    redisReply *reply = NULL;
    char key[128];
    session_key(r, id, key);
    redis_call_begin(&call, "GET");
    redis_call_text(&call, key);
    enum blob_status st = run(r, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type == REDIS_REPLY_STRING && reply->len >= EPOCH_BYTES) {
        bytebuf_add(out, reply->str + EPOCH_BYTES, reply->len - EPOCH_BYTES);
        *epoch = decode_epoch(reply->str);
    } else if (reply->type == REDIS_REPLY_NIL) {
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "no session %s", id->text);
    } else {
        st = blob_fail(err, BLOB_E_IO, 0, "redis: %s is not a session", key);
    }
    freeReplyObject(reply);
    return st;
}

struct replacing {
    struct redis_call call;
    char key[128];
    uint8_t before[EPOCH_BYTES], bytes[EPOCH_BYTES + SESSION_VALUE_MAX];
};

static void make_replace(const struct redis_store *r, const struct uuid *id, uint64_t expected, uint64_t next,
                         const void *value, size_t len, int64_t expires_ms, struct replacing *to)
{
    session_key(r, id, to->key);
    encode_epoch(expected, to->before);
    redis_call_begin_script(&to->call, REDIS_SCRIPT_REPLACE, 1);
    redis_call_text(&to->call, to->key);
    redis_call_bytes(&to->call, to->before, sizeof to->before);
    redis_call_bytes(&to->call, to->bytes, encode_session(next, value, len, to->bytes));
    add_expiry(r, &to->call, expires_ms);
}

/* Frees the reply. */
static enum blob_status read_replaced(redisReply *reply, const struct uuid *id, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (reply->type != REDIS_REPLY_INTEGER)
        st = blob_fail(err, BLOB_E_IO, 0, "redis: an answer that makes no sense");
    else if (reply->integer == 0)
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "no session %s", id->text);
    else if (reply->integer == 1)
        st = blob_fail(err, BLOB_E_CONFLICT, 0, "session %s has changed", id->text);
    freeReplyObject(reply);
    return st;
}

static enum blob_status redis_replace(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                      const void *value, size_t len, int64_t expires_ms, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct replacing to;
    redisReply *reply = NULL;
    make_replace(r, id, expected, next, value, len, expires_ms, &to);
    enum blob_status st = run(r, &to.call, &reply, err);
    return st == BLOB_OK ? read_replaced(reply, id, err) : st;
}

/* One exchange, in which the row goes first. */
static enum blob_status redis_replace_listed(struct session_store *s, const struct uuid *id, uint64_t expected,
                                             uint64_t next, const void *value, size_t len, int64_t expires_ms,
                                             struct index_put *put, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct redis_call put_call;
    struct replacing to;
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    put->st = redis_node_ready(r->node, &put->err);
    if (put->st == BLOB_OK)
        put->st = redis_index_make_put(r->index, put->row, &put_call, &bytes, &put->err);
    if (put->st != BLOB_OK) {
        redis_index_miss(r->index);
        bytebuf_release(&bytes);
        return redis_replace(s, id, expected, next, value, len, expires_ms, err);
    }
    make_replace(r, id, expected, next, value, len, expires_ms, &to);
    struct redis_asked asked[] = {{.call = &put_call}, {.call = &to.call}};
    int64_t before = redis_index_changes(r->index);
    redis_batch_run_all(r->batch, asked, 2);
    bytebuf_release(&bytes);
    put->st = as_operation(asked[0].st);
    if (put->st == BLOB_OK) {
        redis_index_changed(r->index, before, asked[0].reply);
        freeReplyObject(asked[0].reply);
    } else {
        redis_index_miss(r->index);
        put->err = asked[0].err;
    }
    if (asked[1].st == BLOB_OK)
        return read_replaced(asked[1].reply, id, err);
    if (err)
        *err = asked[1].err;
    return as_operation(asked[1].st);
}

static enum blob_status redis_remove(struct session_store *s, const struct uuid *id, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct redis_call call;
    redisReply *reply = NULL;
    char key[128];
    session_key(r, id, key);
    redis_call_begin(&call, "DEL");
    redis_call_text(&call, key);
    enum blob_status st = run(r, &call, &reply, err);
    if (st == BLOB_OK)
        freeReplyObject(reply);
    return st;
}

static enum blob_status redis_sweep(struct session_store *s, int64_t now_ms, struct blob_error *err)
{
    (void)s;
    (void)now_ms;
    (void)err;
    return BLOB_OK; /* TTLs do it */
}

/* ---- nodes, messages, leases ---- */

static enum blob_status redis_join(struct session_store *s, const char *node_id, const char *store_id, int64_t now_ms,
                                   struct blob_error *err)
{
    return redis_node_join(store_of(s)->node, node_id, store_id, s->clock, now_ms, err);
}

static enum blob_status redis_check(struct session_store *s, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct redis_call call;
    redisReply *reply = NULL;
    redis_call_begin(&call, "PING");
    enum blob_status st = run(r, &call, &reply, err);
    if (st == BLOB_OK)
        freeReplyObject(reply);
    return st;
}

static void redis_announce(struct session_store *s, const struct uuid *id, uint64_t epoch)
{
    redis_node_announce(store_of(s)->node, id, epoch);
}

static void redis_listen(struct session_store *s, session_notice_fn *fn, void *arg)
{
    redis_node_listen(store_of(s)->node, fn, arg);
}

static enum blob_status redis_lease(struct session_store *s, const char *name, int64_t ttl, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    struct redis_call call;
    redisReply *reply = NULL;
    char key[192];
    if ((size_t)snprintf(key, sizeof key, "%slease:%s", r->config.prefix, name) >= sizeof key)
        return blob_fail(err, BLOB_E_INVALID, 0, "the lease's name is too long");
    redis_call_begin_script(&call, REDIS_SCRIPT_LEASE, 1);
    redis_call_text(&call, key);
    redis_call_text(&call, redis_node_id(r->node));
    redis_call_number(&call, ttl);
    enum blob_status st = run(r, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type != REDIS_REPLY_STRING)
        st = blob_fail(err, BLOB_E_IO, 0, "redis: an answer that makes no sense");
    else if (reply->len > 0)
        st = blob_fail(err, BLOB_E_CONFLICT, 0, "node %s holds %s", reply->str, name);
    freeReplyObject(reply);
    return st;
}

/* ---- the file index: redis_index.c's ---- */

static enum blob_status redis_put(struct session_store *s, const struct index_row *row, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    enum blob_status st = redis_node_ready(r->node, err);
    if (st == BLOB_OK)
        return as_operation(redis_index_put(r->index, row, err));
    redis_index_miss(r->index);
    return st;
}

static enum blob_status redis_drop(struct session_store *s, const char *id, struct blob_error *err)
{
    struct redis_store *r = store_of(s);
    enum blob_status st = redis_node_ready(r->node, err);
    if (st == BLOB_OK)
        return as_operation(redis_index_remove(r->index, id, err));
    redis_index_miss(r->index);
    return st;
}

static enum blob_status redis_list(struct session_store *s, const struct index_query *q, uint64_t *count,
                                   index_row_fn *fn, void *arg, struct blob_error *err)
{
    enum blob_status st = redis_node_ready(store_of(s)->node, err);
    return st == BLOB_OK ? as_operation(redis_index_list(store_of(s)->index, q, count, fn, arg, err)) : st;
}

static enum blob_status redis_expired(struct session_store *s, int64_t now_ms, size_t limit, index_row_fn *fn,
                                      void *arg, struct blob_error *err)
{
    enum blob_status st = redis_node_ready(store_of(s)->node, err);
    return st == BLOB_OK ? as_operation(redis_index_expired(store_of(s)->index, now_ms, limit, fn, arg, err)) : st;
}

static enum blob_status redis_recent(struct session_store *s, const char *stem, struct blob_error *err)
{
    enum blob_status st = redis_node_ready(store_of(s)->node, err);
    return st == BLOB_OK ? as_operation(redis_index_recent(store_of(s)->index, stem, err)) : st;
}

static enum blob_status redis_whole(struct session_store *s, struct blob_error *err)
{
    enum blob_status st = redis_node_ready(store_of(s)->node, err);
    return st == BLOB_OK ? as_operation(redis_index_whole(store_of(s)->index, err)) : st;
}

static void redis_caught_up(struct session_store *s)
{
    redis_index_caught_up(store_of(s)->index);
}

static enum blob_status redis_rebuild_begin(struct session_store *s, struct blob_error *err)
{
    enum blob_status st = redis_node_ready(store_of(s)->node, err);
    return st == BLOB_OK ? as_operation(redis_index_rebuild_begin(store_of(s)->index, err)) : st;
}

static enum blob_status redis_rebuild_end(struct session_store *s, struct blob_error *err)
{
    enum blob_status st = redis_node_ready(store_of(s)->node, err);
    return st == BLOB_OK ? as_operation(redis_index_rebuild_end(store_of(s)->index, err)) : st;
}

/* ---- opening and closing ---- */

static void redis_close(struct session_store *s)
{
    struct redis_store *r = store_of(s);
    if (r->node)
        redis_node_free(r->node);
    if (r->index)
        redis_index_free(r->index);
    if (r->batch)
        redis_batch_free(r->batch);
    if (r->pool)
        redis_pool_free(r->pool);
    if (r->wake_fd >= 0)
        close(r->wake_fd);
    free(r);
}

static void tick(void *arg)
{
    redis_index_tick(arg);
}

static const struct session_store_ops redis_ops = {
    .name = "redis",
    .close = redis_close,
    .join = redis_join,
    .check = redis_check,
    .insert = redis_insert,
    .load = redis_load,
    .replace = redis_replace,
    .replace_listed = redis_replace_listed,
    .remove = redis_remove,
    .sweep = redis_sweep,
    .announce = redis_announce,
    .listen = redis_listen,
    .lease = redis_lease,
    .index_put = redis_put,
    .index_remove = redis_drop,
    .index_list = redis_list,
    .index_expired = redis_expired,
    .index_recent = redis_recent,
    .index_whole = redis_whole,
    .index_caught_up = redis_caught_up,
    .index_rebuild_begin = redis_rebuild_begin,
    .index_rebuild_end = redis_rebuild_end,
};

enum blob_status redis_sessions_open(const struct redis_sessions_options *opt, struct session_store **out,
                                     struct blob_error *err)
{
    CHECK(opt->connections > 0 && opt->connect_timeout_ms > 0 && opt->command_timeout_ms > 0 &&
          opt->node_ttl_ms >= 300);
    struct redis_config config;
    enum blob_status st = redis_config_parse(opt, &config, err);
    if (st != BLOB_OK)
        return st;
    struct redis_store *r = calloc(1, sizeof *r);
    if (!r)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the session store");
    r->base.ops = &redis_ops;
    r->base.caps = SESSIONS_SHARED;
    r->config = config;
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->wake_fd < 0)
        st = blob_fail(err, blob_status_from_errno(errno), errno, "eventfd");
    if (st == BLOB_OK)
        st = redis_pool_new(&r->config, opt->log, r->wake_fd, &r->pool, err);
    if (st == BLOB_OK)
        st = redis_batch_new(r->pool, &r->batch, err);
    if (st == BLOB_OK)
        st = redis_index_new(&r->config, r->pool, r->batch, &r->index, err);
    if (st == BLOB_OK)
        st = redis_node_new(&r->config, r->pool, r->wake_fd, opt->node_ttl_ms, tick, r->index, opt->log, &r->node, err);
    if (st != BLOB_OK) {
        redis_close(&r->base);
        return st;
    }
    *out = &r->base;
    return BLOB_OK;
}
