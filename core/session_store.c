/*
 * session_store - the checked wrappers that every caller of a session store goes through.
 *
 * Why they exist: an implementation sees valid arguments only, every operation is counted and timed in one place, and
 * a test can make any of them fail by arming the fault point "sessions.<operation>". They add nothing to the meaning.
 */
#include "core/session_store.h"

#include "core/check.h"
#include "core/timed_op.h"

#include <string.h>

enum session_op {
    OP_JOIN,
    OP_CHECK,
    OP_INSERT,
    OP_LOAD,
    OP_REPLACE,
    OP_REMOVE,
    OP_SWEEP,
    OP_LEASE,
    OP_INDEX_PUT,
    OP_REPLACE_LISTED,
    OP_INDEX_REMOVE,
    OP_INDEX_LIST,
    OP_INDEX_EXPIRED,
    OP_INDEX_RECENT,
    OP_INDEX_WHOLE,
    OP_INDEX_REBUILD_BEGIN,
    OP_INDEX_REBUILD_END,
    OP_COUNT
};

/* The fault point of each; what stands behind the dot is also its label in the metrics. */
static const char *const fault_names[OP_COUNT] = {
    [OP_JOIN] = "sessions.join",
    [OP_CHECK] = "sessions.check",
    [OP_INSERT] = "sessions.insert",
    [OP_LOAD] = "sessions.load",
    [OP_REPLACE] = "sessions.replace",
    [OP_REMOVE] = "sessions.remove",
    [OP_SWEEP] = "sessions.sweep",
    [OP_LEASE] = "sessions.lease",
    [OP_INDEX_PUT] = "sessions.index_put",
    [OP_REPLACE_LISTED] = "sessions.replace_listed",
    [OP_INDEX_REMOVE] = "sessions.index_remove",
    [OP_INDEX_LIST] = "sessions.index_list",
    [OP_INDEX_EXPIRED] = "sessions.index_expired",
    [OP_INDEX_RECENT] = "sessions.index_recent",
    [OP_INDEX_WHOLE] = "sessions.index_whole",
    [OP_INDEX_REBUILD_BEGIN] = "sessions.index_rebuild_begin",
    [OP_INDEX_REBUILD_END] = "sessions.index_rebuild_end",
};

static const struct op_metric_names metric_names = {
    .seconds = "blobd_sessions_seconds",
    .seconds_help = "How long operations on the session store took.",
    .errors = "blobd_sessions_failures_total",
    .errors_help = "Operations the session store could not answer.",
};

void session_store_attach_metrics(struct session_store *s, struct metrics *metrics)
{
    CHECK(s && !s->metrics && metrics);
    s->metrics = op_metrics_new(metrics, &metric_names, fault_names, OP_COUNT);
}

static enum blob_status op_begin(struct timed_op *t, struct session_store *s, enum session_op op,
                                 struct blob_error *err)
{
    CHECK(s && s->ops);
    return timed_op_begin(t, s->metrics, op, fault_names[op], err);
}

static bool uuid_whole(const struct uuid *id)
{
    return id && strnlen(id->text, sizeof id->text) == UUID_CHARS;
}

/* ---- the store ---- */

void session_store_close(struct session_store *s)
{
    if (!s)
        return;
    struct op_metrics *metrics = s->metrics;
    s->ops->close(s);
    op_metrics_free(metrics);
}

enum blob_status session_store_join(struct session_store *s, const char *node_id, const char *store_id, int64_t now_ms,
                                    struct blob_error *err)
{
    CHECK(node_id && *node_id && strlen(node_id) <= NODE_ID_CHARS && store_id && *store_id);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_JOIN, err);
    if (st == BLOB_OK)
        st = s->ops->join(s, node_id, store_id, now_ms, err);
    return timed_op_end(&t, st);
}

enum blob_status session_store_check(struct session_store *s, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_CHECK, err);
    if (st == BLOB_OK)
        st = s->ops->check(s, err);
    return timed_op_end(&t, st);
}

/* ---- sessions ---- */

enum blob_status session_insert(struct session_store *s, const struct uuid *id, uint64_t epoch, const void *value,
                                size_t len, int64_t expires_ms, struct blob_error *err)
{
    CHECK(uuid_whole(id) && epoch >= 1 && (value || !len) && len <= SESSION_VALUE_MAX && expires_ms > 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INSERT, err);
    if (st == BLOB_OK)
        st = s->ops->insert(s, id, epoch, value, len, expires_ms, err);
    return timed_op_end(&t, st);
}

enum blob_status session_load(struct session_store *s, const struct uuid *id, struct bytebuf *out, uint64_t *epoch,
                              struct blob_error *err)
{
    CHECK(uuid_whole(id) && out && epoch);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_LOAD, err);
    if (st == BLOB_OK)
        st = s->ops->load(s, id, out, epoch, err);
    return timed_op_end(&t, st);
}

static bool change_fine(const struct uuid *id, uint64_t expected, uint64_t next, const void *value, size_t len,
                        int64_t expires_ms)
{
    return uuid_whole(id) && expected >= 1 && next > expected && (value || !len) && len <= SESSION_VALUE_MAX &&
           expires_ms > 0;
}

enum blob_status session_replace(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                 const void *value, size_t len, int64_t expires_ms, struct blob_error *err)
{
    CHECK(change_fine(id, expected, next, value, len, expires_ms));
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_REPLACE, err);
    if (st == BLOB_OK)
        st = s->ops->replace(s, id, expected, next, value, len, expires_ms, err);
    return timed_op_end(&t, st);
}

enum blob_status session_remove(struct session_store *s, const struct uuid *id, struct blob_error *err)
{
    CHECK(uuid_whole(id));
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_REMOVE, err);
    if (st == BLOB_OK)
        st = s->ops->remove(s, id, err);
    return timed_op_end(&t, st);
}

enum blob_status session_sweep(struct session_store *s, int64_t now_ms, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_SWEEP, err);
    if (st == BLOB_OK)
        st = s->ops->sweep(s, now_ms, err);
    return timed_op_end(&t, st);
}

/* ---- messages and leases ---- */

void session_announce(struct session_store *s, const struct uuid *id, uint64_t epoch)
{
    CHECK(s && uuid_whole(id));
    if (s->caps & SESSIONS_SHARED)
        s->ops->announce(s, id, epoch);
}

void session_listen(struct session_store *s, session_notice_fn *fn, void *arg)
{
    CHECK(s);
    if (s->caps & SESSIONS_SHARED)
        s->ops->listen(s, fn, arg);
}

enum blob_status session_lease(struct session_store *s, const char *name, int64_t ttl_ms, struct blob_error *err)
{
    CHECK(name && *name && ttl_ms > 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_LEASE, err);
    if (st == BLOB_OK && (s->caps & SESSIONS_SHARED))
        st = s->ops->lease(s, name, ttl_ms, err);
    return timed_op_end(&t, st);
}

/* ---- the file index ---- */

static bool row_fine(const struct index_row *row)
{
    return row && *row->id && memchr(row->id, 0, sizeof row->id) && memchr(row->name, 0, sizeof row->name) &&
           memchr(row->owner, 0, sizeof row->owner) && row->value_len <= INDEX_VALUE_MAX &&
           (row->value || !row->value_len);
}

enum blob_status index_put(struct session_store *s, const struct index_row *row, struct blob_error *err)
{
    CHECK(row_fine(row));
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_PUT, err);
    if (st == BLOB_OK)
        st = s->ops->index_put(s, row, err);
    return timed_op_end(&t, st);
}

enum blob_status session_replace_listed(struct session_store *s, const struct uuid *id, uint64_t expected,
                                        uint64_t next, const void *value, size_t len, int64_t expires_ms,
                                        struct index_put *put, struct blob_error *err)
{
    CHECK(change_fine(id, expected, next, value, len, expires_ms) && row_fine(put->row));
    if (!s->ops->replace_listed) {
        put->st = index_put(s, put->row, &put->err);
        return session_replace(s, id, expected, next, value, len, expires_ms, err);
    }
    struct timed_op t;
    enum blob_status st = put->st = op_begin(&t, s, OP_REPLACE_LISTED, &put->err);
    if (st == BLOB_OK)
        st = s->ops->replace_listed(s, id, expected, next, value, len, expires_ms, put, err);
    else if (err)
        *err = put->err;
    return timed_op_end(&t, st);
}

enum blob_status index_recent(struct session_store *s, const char *stem, struct blob_error *err)
{
    CHECK(strlen(stem) == INDEX_STEM_CHARS);
    if (!(s->caps & SESSIONS_SHARED))
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "there is no other node");
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_RECENT, err);
    if (st == BLOB_OK)
        st = s->ops->index_recent(s, stem, err);
    return timed_op_end(&t, st);
}

enum blob_status index_remove(struct session_store *s, const char *id, struct blob_error *err)
{
    CHECK(id && *id && strlen(id) < FILE_ID_MAX);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_REMOVE, err);
    if (st == BLOB_OK)
        st = s->ops->index_remove(s, id, err);
    return timed_op_end(&t, st);
}

enum blob_status index_list(struct session_store *s, const struct index_query *q, uint64_t *count, index_row_fn *fn,
                            void *arg, struct blob_error *err)
{
    CHECK(q && count && fn && q->orders >= 1 && q->orders <= INDEX_ORDER_MAX && q->top >= 1 && q->top <= INDEX_TOP_MAX);
    for (unsigned i = 0; i < q->orders; i++)
        CHECK(q->order[i].key <= INDEX_BY_SIZE);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_LIST, err);
    if (st == BLOB_OK)
        st = s->ops->index_list(s, q, count, fn, arg, err);
    return timed_op_end(&t, st);
}

enum blob_status index_expired(struct session_store *s, int64_t now_ms, size_t limit, index_row_fn *fn, void *arg,
                               struct blob_error *err)
{
    CHECK(fn && limit > 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_EXPIRED, err);
    if (st == BLOB_OK)
        st = s->ops->index_expired(s, now_ms, limit, fn, arg, err);
    return timed_op_end(&t, st);
}

enum blob_status index_whole(struct session_store *s, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_WHOLE, err);
    if (st == BLOB_OK)
        st = s->ops->index_whole(s, err);
    return timed_op_end(&t, st);
}

void index_caught_up(struct session_store *s)
{
    if (s->ops->index_caught_up)
        s->ops->index_caught_up(s);
}

enum blob_status index_rebuild_begin(struct session_store *s, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_REBUILD_BEGIN, err);
    if (st == BLOB_OK)
        st = s->ops->index_rebuild_begin(s, err);
    return timed_op_end(&t, st);
}

enum blob_status index_rebuild_end(struct session_store *s, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, s, OP_INDEX_REBUILD_END, err);
    if (st == BLOB_OK)
        st = s->ops->index_rebuild_end(s, err);
    return timed_op_end(&t, st);
}
