/*
 * embedded_index - a queue in front of embedded_rows.
 *
 * Locks, in this order: write_lock (the rows, the batch being written, whole), queue_lock (the queue). A put takes
 * queue_lock alone, for the time of a memcpy, unless the writer has fallen far behind.
 *
 * Invariants: an entry is in the queue, then in the batch, then in the file, in the order it was put; the queue is
 * moved to the batch only under write_lock and only when the batch is empty, so whoever holds write_lock and has
 * flushed sees all that was put before. A batch that could not be written stays, and is tried again.
 */
#include "backends/embedded/embedded_index.h"

#include "backends/embedded/embedded_rows.h"
#include "core/check.h"
#include "core/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Rows a transaction: many share the pages they change (measured: a third of the time that 500 at a time take). */
#define BATCH_ENTRIES   2048
#define FLUSH_SECONDS   1
/* Above this much waiting, a put waits for the disk itself. */
#define QUEUE_BYTES_MAX (4u << 20)

enum entry_kind { ENTRY_PUT = 1, ENTRY_REMOVE = 2 };

struct embedded_index {
    char *path;
    struct logger *log;

    pthread_mutex_t write_lock;
    struct embedded_rows rows;
    struct bytebuf batch, scratch;
    bool whole;
    bool failing; /* the last flush failed, and it was logged */

    pthread_mutex_t queue_lock;
    pthread_cond_t wake;
    struct bytebuf queue;
    unsigned queued;
    bool stop;
    pthread_t writer;
};

/* ---- writing; write_lock is held ---- */

static enum blob_status write_entry(struct embedded_index *x, struct byteview *in, struct blob_error *err)
{
    struct index_row row;
    enum entry_kind kind = byteview_u8(in);
    if (kind == ENTRY_PUT) {
        CHECK(index_row_decode(in, &row) == BLOB_OK);
        return embedded_rows_put(&x->rows, &row, &x->scratch, err);
    }
    CHECK(kind == ENTRY_REMOVE);
    uint8_t len = byteview_u8(in);
    const void *id = byteview_bytes(in, len);
    CHECK(id && len < sizeof row.id);
    memcpy(row.id, id, len);
    row.id[len] = '\0';
    return embedded_rows_remove(&x->rows, row.id, err);
}

static enum blob_status write_batch(struct embedded_index *x, struct blob_error *err)
{
    struct byteview in = {.data = (const uint8_t *)x->batch.data, .len = x->batch.len};
    enum blob_status st = sqlite_db_exec(x->rows.db, "BEGIN", err);
    if (st != BLOB_OK)
        return st;
    while (st == BLOB_OK && in.pos < in.len)
        st = write_entry(x, &in, err);
    if (st == BLOB_OK)
        st = sqlite_db_exec(x->rows.db, "COMMIT", err);
    if (st == BLOB_OK)
        bytebuf_clear(&x->batch);
    else if (!sqlite3_get_autocommit(x->rows.db))
        (void)!sqlite3_exec(x->rows.db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

static bool take_queue(struct embedded_index *x)
{
    pthread_mutex_lock(&x->queue_lock);
    struct bytebuf empty = x->batch;
    x->batch = x->queue;
    x->queue = empty;
    x->queued = 0;
    pthread_mutex_unlock(&x->queue_lock);
    return x->batch.len > 0;
}

/* A damaged file is replaced by an empty one: the index can be rebuilt, but not from here. */
static void replace_file(struct embedded_index *x, const char *why)
{
    struct blob_error err;
    bool whole;
    enum blob_status st = embedded_rows_close(&x->rows, false, NULL);
    sqlite_db_set_aside(x->path, true, x->log, why);
    x->whole = false;
    st = embedded_rows_open(&x->rows, x->path, x->log, &whole, &err);
    if (st != BLOB_OK)
        log_line(x->log, LOG_ERROR, NULL, "the file index: %s", err.text);
}

/* Unlocks write_lock after a failed or finished operation. */
static enum blob_status leave(struct embedded_index *x, enum blob_status st, struct blob_error *err)
{
    if (st == BLOB_E_CORRUPT) {
        char why[200];
        snprintf(why, sizeof why, "%s", sqlite3_errmsg(x->rows.db));
        replace_file(x, why);
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "%s was damaged (%s) and is made anew", x->path, why);
    }
    pthread_mutex_unlock(&x->write_lock);
    return st;
}

/* Locks write_lock; on failure it is not locked. */
static enum blob_status enter(struct embedded_index *x, struct blob_error *err)
{
    pthread_mutex_lock(&x->write_lock);
    bool whole;
    enum blob_status st = BLOB_OK;
    if (!x->rows.db)
        st = embedded_rows_open(&x->rows, x->path, x->log, &whole, err);
    if (st != BLOB_OK)
        pthread_mutex_unlock(&x->write_lock);
    return st;
}

/* Everything put before the call is in the file when it returns OK. */
static enum blob_status flush(struct embedded_index *x, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (x->batch.len > 0)
        st = write_batch(x, err);
    if (st == BLOB_OK && take_queue(x))
        st = write_batch(x, err);
    return st;
}

/* enter() and flush(): what every reader begins with. */
static enum blob_status enter_flushed(struct embedded_index *x, struct blob_error *err)
{
    enum blob_status st = enter(x, err);
    if (st != BLOB_OK)
        return st;
    st = flush(x, err);
    return st == BLOB_OK ? BLOB_OK : leave(x, st, err);
}

static void *writer_main(void *arg)
{
    struct embedded_index *x = arg;
    struct blob_error err;
    pthread_mutex_lock(&x->queue_lock);
    while (!x->stop) {
        if (x->queued == 0) {
            pthread_cond_wait(&x->wake, &x->queue_lock);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += FLUSH_SECONDS;
        int rc = 0;
        while (!x->stop && rc != ETIMEDOUT && x->queued < BATCH_ENTRIES)
            rc = pthread_cond_timedwait(&x->wake, &x->queue_lock, &until);
        pthread_mutex_unlock(&x->queue_lock);
        enum blob_status st = enter_flushed(x, &err);
        if (st == BLOB_OK) {
            x->failing = false;
            st = leave(x, BLOB_OK, &err);
        } else if (!x->failing) {
            log_line(x->log, LOG_ERROR, NULL, "writing the file index: %s", err.text);
            x->failing = true;
        }
        pthread_mutex_lock(&x->queue_lock);
        /* After a failure the queue may still be long: wait before the next try. */
        if (st != BLOB_OK && !x->stop) {
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_sec += FLUSH_SECONDS;
            pthread_cond_timedwait(&x->wake, &x->queue_lock, &until);
        }
    }
    pthread_mutex_unlock(&x->queue_lock);
    return NULL;
}

/* ---- queueing ---- */

/* entry: one whole entry; released. */
static enum blob_status enqueue(struct embedded_index *x, struct bytebuf *entry, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    pthread_mutex_lock(&x->queue_lock);
    bool full = x->queue.len + entry->len > QUEUE_BYTES_MAX;
    pthread_mutex_unlock(&x->queue_lock);
    if (full && (st = enter_flushed(x, err)) == BLOB_OK)
        st = leave(x, BLOB_OK, err);
    if (st == BLOB_OK && !entry->failed) {
        pthread_mutex_lock(&x->queue_lock);
        bytebuf_add(&x->queue, entry->data, entry->len);
        entry->failed = x->queue.failed;
        x->queue.failed = false;
        if (!entry->failed && (++x->queued == 1 || x->queued == BATCH_ENTRIES))
            pthread_cond_signal(&x->wake);
        pthread_mutex_unlock(&x->queue_lock);
    }
    if (st == BLOB_OK && entry->failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the file index");
    bytebuf_release(entry);
    return st;
}

enum blob_status embedded_index_put(struct embedded_index *x, const struct index_row *row, struct blob_error *err)
{
    struct bytebuf entry;
    bytebuf_init(&entry);
    bytebuf_u8(&entry, ENTRY_PUT);
    index_row_encode(row, &entry);
    return enqueue(x, &entry, err);
}

enum blob_status embedded_index_remove(struct embedded_index *x, const char *id, struct blob_error *err)
{
    struct bytebuf entry;
    size_t len = strlen(id);
    bytebuf_init(&entry);
    bytebuf_u8(&entry, ENTRY_REMOVE);
    bytebuf_u8(&entry, (uint8_t)len);
    bytebuf_add(&entry, id, len);
    return enqueue(x, &entry, err);
}

/* ---- reading ---- */

enum blob_status embedded_index_list(struct embedded_index *x, const struct index_query *q, uint64_t *count,
                                     index_row_fn *fn, void *arg, struct blob_error *err)
{
    struct row_page page;
    uint64_t matches = 0;
    enum blob_status st = enter_flushed(x, err);
    if (st != BLOB_OK)
        return st;
    row_page_init(&page);
    st = leave(x, embedded_rows_list(&x->rows, q, &matches, &page, err), err);
    if (st == BLOB_OK)
        *count = matches;
    if (st == BLOB_OK)
        st = row_page_give(&page, fn, arg, err);
    row_page_release(&page);
    return st;
}

enum blob_status embedded_index_expired(struct embedded_index *x, int64_t now_ms, size_t limit, index_row_fn *fn,
                                        void *arg, struct blob_error *err)
{
    struct row_page page;
    enum blob_status st = enter_flushed(x, err);
    if (st != BLOB_OK)
        return st;
    row_page_init(&page);
    st = leave(x, embedded_rows_expired(&x->rows, now_ms, limit, &page, err), err);
    if (st == BLOB_OK)
        st = row_page_give(&page, fn, arg, err);
    row_page_release(&page);
    return st;
}

/* ---- being whole ---- */

enum blob_status embedded_index_whole(struct embedded_index *x, struct blob_error *err)
{
    pthread_mutex_lock(&x->write_lock);
    bool whole = x->whole;
    pthread_mutex_unlock(&x->write_lock);
    return whole ? BLOB_OK : blob_fail(err, BLOB_E_NOT_FOUND, 0, "%s is new, or blobd did not stop cleanly", x->path);
}

enum blob_status embedded_index_rebuild_begin(struct embedded_index *x, struct blob_error *err)
{
    enum blob_status st = enter_flushed(x, err);
    if (st != BLOB_OK)
        return st;
    x->whole = false;
    return leave(x, embedded_rows_next_generation(&x->rows, err), err);
}

enum blob_status embedded_index_rebuild_end(struct embedded_index *x, struct blob_error *err)
{
    int64_t after = 0;
    enum blob_status st;
    do {
        st = enter_flushed(x, err);
        if (st != BLOB_OK)
            return st;
        st = embedded_rows_drop_old(&x->rows, &after, err);
        if (st == BLOB_OK && after == 0)
            x->whole = true;
        st = leave(x, st, err);
    } while (st == BLOB_OK && after > 0);
    return st;
}

enum blob_status embedded_index_empty(struct embedded_index *x, struct blob_error *err)
{
    enum blob_status st = enter_flushed(x, err);
    if (st != BLOB_OK)
        return st;
    x->whole = false;
    return leave(x, sqlite_db_exec(x->rows.db, "DELETE FROM files", err), err);
}

/* ---- opening and closing ---- */

static void index_free(struct embedded_index *x)
{
    bytebuf_release(&x->batch);
    bytebuf_release(&x->scratch);
    bytebuf_release(&x->queue);
    pthread_cond_destroy(&x->wake);
    pthread_mutex_destroy(&x->queue_lock);
    pthread_mutex_destroy(&x->write_lock);
    free(x->path);
    free(x);
}

enum blob_status embedded_index_open(const char *path, struct logger *log, struct embedded_index **out,
                                     struct blob_error *err)
{
    struct embedded_index *x = calloc(1, sizeof *x);
    char *copy = strdup(path);
    if (!x || !copy) {
        free(x);
        free(copy);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the file index");
    }
    x->path = copy;
    x->log = log;
    bytebuf_init(&x->batch);
    bytebuf_init(&x->scratch);
    bytebuf_init(&x->queue);
    pthread_mutex_init(&x->write_lock, NULL);
    pthread_mutex_init(&x->queue_lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&x->wake, &attr);
    pthread_condattr_destroy(&attr);

    enum blob_status st = embedded_rows_open(&x->rows, path, log, &x->whole, err);
    if (st == BLOB_OK && pthread_create(&x->writer, NULL, writer_main, x) != 0) {
        st = embedded_rows_close(&x->rows, false, NULL);
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no thread for the file index");
    }
    if (st != BLOB_OK) {
        index_free(x);
        return st;
    }
    *out = x;
    return BLOB_OK;
}

enum blob_status embedded_index_close(struct embedded_index *x, struct blob_error *err)
{
    pthread_mutex_lock(&x->queue_lock);
    x->stop = true;
    pthread_cond_signal(&x->wake);
    pthread_mutex_unlock(&x->queue_lock);
    pthread_join(x->writer, NULL);
    enum blob_status st = enter_flushed(x, err);
    if (st == BLOB_OK)
        st = leave(x, x->whole ? embedded_rows_set_whole(&x->rows, true, err) : BLOB_OK, err);
    if (x->rows.db) {
        enum blob_status closed = embedded_rows_close(&x->rows, true, st == BLOB_OK ? err : NULL);
        st = st == BLOB_OK ? closed : st;
    }
    index_free(x);
    return st;
}
