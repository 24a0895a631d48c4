/*
 * blob_store - the checked wrappers that every caller of a blob store goes through.
 *
 * Why they exist: an implementation sees valid arguments only, every operation is counted and timed in one place, and
 * a test can make any of them fail by arming the fault point "store.<operation>". They add nothing to the meaning.
 */
#include "core/blob_store.h"

#include "core/check.h"
#include "core/timed_op.h"

#include <string.h>

enum store_op {
    OP_CHECK,
    OP_ROOM,
    OP_SWEEP,
    OP_SELF_CHECK,
    OP_UPLOAD_OPEN,
    OP_WRITE,
    OP_FLUSH,
    OP_COMMIT,
    OP_UPLOAD_STAT,
    OP_UPLOAD_READ,
    OP_UPLOAD_DISCARD,
    OP_UPLOAD_LIST,
    OP_BLOB_STAT,
    OP_BLOB_OPEN,
    OP_BLOB_READ,
    OP_BLOB_TOUCH,
    OP_BLOB_REMOVE,
    OP_BLOB_SET_ASIDE,
    OP_BLOB_LIST,
    OP_BLOB_URL,
    OP_RECORD_PUT,
    OP_RECORD_GET,
    OP_RECORD_DELETE,
    OP_RECORD_LIST,
    OP_COUNT
};

/* The fault point of each; what stands behind the dot is also its label in the metrics. */
static const char *const fault_names[OP_COUNT] = {
    [OP_CHECK] = "store.check",
    [OP_ROOM] = "store.room",
    [OP_SWEEP] = "store.sweep",
    [OP_SELF_CHECK] = "store.self_check",
    [OP_UPLOAD_OPEN] = "store.upload_open",
    [OP_WRITE] = "store.write",
    [OP_FLUSH] = "store.flush",
    [OP_COMMIT] = "store.commit",
    [OP_UPLOAD_STAT] = "store.upload_stat",
    [OP_UPLOAD_READ] = "store.upload_read",
    [OP_UPLOAD_DISCARD] = "store.upload_discard",
    [OP_UPLOAD_LIST] = "store.upload_list",
    [OP_BLOB_STAT] = "store.blob_stat",
    [OP_BLOB_OPEN] = "store.blob_open",
    [OP_BLOB_READ] = "store.blob_read",
    [OP_BLOB_TOUCH] = "store.blob_touch",
    [OP_BLOB_REMOVE] = "store.blob_remove",
    [OP_BLOB_SET_ASIDE] = "store.blob_set_aside",
    [OP_BLOB_LIST] = "store.blob_list",
    [OP_BLOB_URL] = "store.blob_url",
    [OP_RECORD_PUT] = "store.record_put",
    [OP_RECORD_GET] = "store.record_get",
    [OP_RECORD_DELETE] = "store.record_delete",
    [OP_RECORD_LIST] = "store.record_list",
};

static const struct op_metric_names metric_names = {
    .seconds = "blobd_store_op_seconds",
    .seconds_help = "How long operations on the blob store took.",
    .errors = "blobd_store_errors_total",
    .errors_help = "Operations the blob store could not carry out.",
    .denied = "blobd_store_denied_total",
    .denied_help = "Operations refused to blobd for its credentials, permissions or clock.",
};

void blob_store_attach_metrics(struct blob_store *store, struct metrics *metrics)
{
    CHECK(store && !store->metrics && metrics);
    store->metrics = op_metrics_new(metrics, &metric_names, fault_names, OP_COUNT);
}

static enum blob_status op_begin(struct timed_op *t, struct blob_store *store, enum store_op op, struct blob_error *err)
{
    CHECK(store && store->ops);
    return timed_op_begin(t, store->metrics, op, fault_names[op], err);
}

static bool uuid_whole(const struct uuid *id)
{
    return id && strnlen(id->text, sizeof id->text) == UUID_CHARS;
}

static bool key_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
}

/* Parts of key, each checked, joined by '/'; -1 when one is malformed. */
static int key_parts(const char *key, size_t len)
{
    int parts = 0;
    for (size_t at = 0; at <= len; parts++) {
        size_t n = 0;
        while (at + n < len && key_char(key[at + n]))
            n++;
        bool dots = (n == 1 && key[at] == '.') || (n == 2 && key[at] == '.' && key[at + 1] == '.');
        if (n == 0 || dots || (at + n < len && key[at + n] != '/'))
            return -1;
        at += n + 1;
    }
    return parts;
}

bool record_key_valid(const char *key)
{
    if (!key)
        return false;
    size_t len = strnlen(key, RECORD_KEY_MAX + 1);
    return len <= RECORD_KEY_MAX && key_parts(key, len) >= 2;
}

static bool record_prefix_valid(const char *prefix)
{
    if (!prefix)
        return false;
    size_t len = strnlen(prefix, RECORD_KEY_MAX + 1);
    return len >= 2 && len <= RECORD_KEY_MAX && prefix[len - 1] == '/' && key_parts(prefix, len - 1) >= 1;
}

/* ---- the store ---- */

void blob_store_close(struct blob_store *store)
{
    if (!store)
        return;
    struct op_metrics *m = store->metrics;
    store->ops->close(store);
    op_metrics_free(m);
}

void blob_store_reload(struct blob_store *store)
{
    if (store->ops->reload)
        store->ops->reload(store);
}

enum blob_status blob_store_check(struct blob_store *store, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_CHECK, err);
    return timed_op_end(&t, st ? st : store->ops->check(store, err));
}

enum blob_status blob_store_room(struct blob_store *store, uint64_t bytes, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_ROOM, err);
    return timed_op_end(&t, st ? st : store->ops->room(store, bytes, err));
}

enum blob_status blob_store_sweep(struct blob_store *store, int64_t before_ms, struct blob_error *err)
{
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_SWEEP, err);
    return timed_op_end(&t, st ? st : store->ops->sweep(store, before_ms, err));
}

enum blob_status blob_store_self_check(struct blob_store *store, store_report_fn *report, void *arg,
                                       struct blob_error *err)
{
    CHECK(report);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_SELF_CHECK, err);
    if (st == BLOB_OK && store->ops->self_check)
        st = store->ops->self_check(store, report, arg, err);
    return timed_op_end(&t, st);
}

/* ---- uploads ---- */

enum blob_status staged_open(struct blob_store *store, const struct uuid *id, const struct upload_mark *from,
                             uint64_t epoch, struct blob_writer **out, struct blob_error *err)
{
    CHECK(uuid_whole(id) && from && from->state_len <= UPLOAD_STATE_MAX && out);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_UPLOAD_OPEN, err);
    return timed_op_end(&t, st ? st : store->ops->staged_open(store, id, from, epoch, out, err));
}

enum blob_status writer_write(struct blob_writer *w, const struct iovec *parts, int count, struct blob_error *err)
{
    CHECK(w && parts && count > 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, w->store, OP_WRITE, err);
    return timed_op_end(&t, st ? st : w->store->ops->writer_write(w, parts, count, err));
}

size_t parts_bytes(const struct iovec *parts, int count)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += parts[i].iov_len;
    return len;
}

enum blob_status writer_write_bytes(struct blob_writer *w, const void *data, size_t len, struct blob_error *err)
{
    const struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return writer_write(w, &part, 1, err);
}

enum blob_status writer_flush(struct blob_writer *w, uint64_t offset, const void *keep, size_t keep_len, unsigned flags,
                              struct upload_mark *mark, struct blob_error *err)
{
    CHECK(w && offset <= __atomic_load_n(&w->position, __ATOMIC_ACQUIRE));
    CHECK((keep || keep_len == 0) && keep_len <= UPLOAD_KEEP_MAX && (flags & ~BLOB_LAZY) == 0 && mark);
    struct timed_op t;
    enum blob_status st = op_begin(&t, w->store, OP_FLUSH, err);
    return timed_op_end(&t, st ? st : w->store->ops->writer_flush(w, offset, keep, keep_len, flags, mark, err));
}

enum blob_status writer_commit(struct blob_writer *w, const struct digest *digest, unsigned flags,
                               struct blob_error *err)
{
    CHECK(w && digest && (flags & ~BLOB_LAZY) == 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, w->store, OP_COMMIT, err);
    return timed_op_end(&t, st ? st : w->store->ops->writer_commit(w, digest, flags, err));
}

void writer_close(struct blob_writer *w)
{
    if (w)
        w->store->ops->writer_close(w);
}

enum blob_status staged_stat(struct blob_store *store, const struct uuid *id, struct staged_stat *out,
                             struct blob_error *err)
{
    CHECK(uuid_whole(id) && out);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_UPLOAD_STAT, err);
    return timed_op_end(&t, st ? st : store->ops->staged_stat(store, id, out, err));
}

enum blob_status staged_read(struct blob_store *store, const struct uuid *id, uint64_t offset, void *buf, size_t len,
                             size_t *got, struct blob_error *err)
{
    CHECK(uuid_whole(id) && (buf || len == 0) && got && (store->caps & STORE_READ_STAGED));
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_UPLOAD_READ, err);
    return timed_op_end(&t, st ? st : store->ops->staged_read(store, id, offset, buf, len, got, err));
}

enum blob_status staged_discard(struct blob_store *store, const struct uuid *id, const struct upload_mark *mark,
                                struct blob_error *err)
{
    CHECK(uuid_whole(id));
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_UPLOAD_DISCARD, err);
    return timed_op_end(&t, st ? st : store->ops->staged_discard(store, id, mark, err));
}

enum blob_status staged_list(struct blob_store *store, staged_list_fn *fn, void *arg, struct blob_error *err)
{
    CHECK(fn);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_UPLOAD_LIST, err);
    return timed_op_end(&t, st ? st : store->ops->staged_list(store, fn, arg, err));
}

/* ---- blobs ---- */

enum blob_status blob_stat(struct blob_store *store, const struct digest *digest, struct blob_info *out,
                           struct blob_error *err)
{
    CHECK(digest && out);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_STAT, err);
    return timed_op_end(&t, st ? st : store->ops->blob_stat(store, digest, out, err));
}

enum blob_status blob_open(struct blob_store *store, const struct digest *digest, struct blob_reader **out,
                           struct blob_info *info, struct blob_error *err)
{
    CHECK(digest && out && info);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_OPEN, err);
    return timed_op_end(&t, st ? st : store->ops->blob_open(store, digest, out, info, err));
}

enum blob_status reader_read(struct blob_reader *r, uint64_t offset, void *buf, size_t len, struct blob_error *err)
{
    CHECK(r && (buf || len == 0) && offset <= r->size && len <= r->size - offset);
    struct timed_op t;
    enum blob_status st = op_begin(&t, r->store, OP_BLOB_READ, err);
    return timed_op_end(&t, st ? st : r->store->ops->reader_read(r, offset, buf, len, err));
}

int reader_fd(const struct blob_reader *r)
{
    CHECK(r);
    return r->store->ops->reader_fd ? r->store->ops->reader_fd(r) : -1;
}

void reader_close(struct blob_reader *r)
{
    if (r)
        r->store->ops->reader_close(r);
}

void cursor_begin(struct blob_cursor *c, struct blob_reader *r, uint64_t offset, uint64_t len)
{
    CHECK(r && offset <= r->size && len <= r->size - offset);
    *c = (struct blob_cursor){.reader = r, .at = offset, .end = offset + len};
}

enum blob_status cursor_read(struct blob_cursor *c, void *buf, size_t len, struct blob_error *err)
{
    const struct blob_store_ops *ops = c->reader->store->ops;
    CHECK((buf || len == 0) && len <= c->end - c->at);
    struct timed_op t;
    enum blob_status st = op_begin(&t, c->reader->store, OP_BLOB_READ, err);
    if (st == BLOB_OK)
        st = ops->cursor_read ? ops->cursor_read(c, buf, len, err) : ops->reader_read(c->reader, c->at, buf, len, err);
    if (st == BLOB_OK)
        c->at += len;
    return timed_op_end(&t, st);
}

void cursor_end(struct blob_cursor *c)
{
    if (c->reader && c->reader->store->ops->cursor_end)
        c->reader->store->ops->cursor_end(c);
    *c = (struct blob_cursor){0};
}

enum blob_status blob_touch(struct blob_store *store, const struct digest *digest, int64_t *touched_ms,
                            struct blob_error *err)
{
    CHECK(digest);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_TOUCH, err);
    return timed_op_end(&t, st ? st : store->ops->blob_touch(store, digest, touched_ms, err));
}

enum blob_status blob_remove(struct blob_store *store, const struct digest *digest, int64_t before_ms,
                             struct blob_error *err)
{
    CHECK(digest);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_REMOVE, err);
    return timed_op_end(&t, st ? st : store->ops->blob_remove(store, digest, before_ms, err));
}

enum blob_status blob_set_aside(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                                struct blob_error *err)
{
    CHECK(digest);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_SET_ASIDE, err);
    return timed_op_end(&t, st ? st : store->ops->blob_set_aside(store, digest, touched_ms, err));
}

enum blob_status blob_list(struct blob_store *store, const struct digest *after, blob_list_fn *fn, void *arg,
                           struct blob_error *err)
{
    CHECK(fn);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_LIST, err);
    return timed_op_end(&t, st ? st : store->ops->blob_list(store, after, fn, arg, err));
}

enum blob_status blob_url(struct blob_store *store, const struct digest *digest, const char *content_disposition,
                          const char *content_type, int64_t expiry_ms, struct bytebuf *url, struct blob_error *err)
{
    CHECK(digest && content_disposition && content_type && expiry_ms > 0 && url && (store->caps & STORE_REDIRECT));
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_BLOB_URL, err);
    return timed_op_end(
        &t, st ? st : store->ops->blob_url(store, digest, content_disposition, content_type, expiry_ms, url, err));
}

/* ---- records ---- */

enum blob_status record_put(struct blob_store *store, const char *key, const void *value, size_t len, unsigned flags,
                            struct blob_error *err)
{
    CHECK(record_key_valid(key) && value && len > 0 && len <= RECORD_VALUE_MAX);
    CHECK((flags & ~(BLOB_LAZY | BLOB_IF_NONE)) == 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_RECORD_PUT, err);
    return timed_op_end(&t, st ? st : store->ops->record_put(store, key, value, len, flags, err));
}

enum blob_status record_get(struct blob_store *store, const char *key, struct bytebuf *out, struct blob_error *err)
{
    CHECK(record_key_valid(key) && out);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_RECORD_GET, err);
    return timed_op_end(&t, st ? st : store->ops->record_get(store, key, out, err));
}

enum blob_status record_delete(struct blob_store *store, const char *key, unsigned flags, struct blob_error *err)
{
    CHECK(record_key_valid(key) && (flags & ~BLOB_LAZY) == 0);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_RECORD_DELETE, err);
    return timed_op_end(&t, st ? st : store->ops->record_delete(store, key, flags, err));
}

enum blob_status record_list(struct blob_store *store, const char *prefix, const char *after, size_t limit,
                             bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    CHECK(record_prefix_valid(prefix) && fn);
    CHECK(!after || strnlen(after, RECORD_KEY_MAX + 1) <= RECORD_KEY_MAX);
    struct timed_op t;
    enum blob_status st = op_begin(&t, store, OP_RECORD_LIST, err);
    return timed_op_end(&t, st ? st : store->ops->record_list(store, prefix, after, limit, with_values, fn, arg, err));
}
