/*
 * s3_reader - downloads by ranged reads, with read-ahead.
 *
 * A reader that is read in order gets its next window fetched while the present one is being sent, by a thread of the
 * store's pool; two windows at most are in memory. Large windows save requests, which is what an S3 server's time goes
 * into; the more readers there are, the smaller their windows, so that all together stay within a share of memory.
 * Anything else (a jump, many threads on one reader) is read straight. Open readers are listed, so that a removal on
 * this node lets them end: S3 keeps nothing open for them, as a disk does. A data object that is gone, or has another
 * size than its pointer says, is an error, never other bytes.
 */
#include "backends/s3_store_internal.h"
#include "core/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define READER_MAGIC 0x53337264u
#define SMALL_BYTES  (256u << 10)

struct window {
    struct worker_job job;
    struct s3_reader *reader;
    bool busy; /* being fetched */
    bool good; /* holds [offset, offset + len) */
    uint64_t offset;
    size_t len;
    uint8_t *buf;
};

struct s3_reader {
    struct blob_reader base;
    unsigned magic;
    struct s3_store *store;
    struct s3_reader *prev, *next_open; /* guarded by the store's lock */
    struct digest digest;
    char data_key[S3_KEY_MAX + 1];
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t fetched;
    uint64_t next; /* where a read in order would begin */
    unsigned in_order;
    size_t window_bytes; /* 0 before the first */
    struct window windows[2];
};

static struct s3_reader *reader_of(struct blob_reader *base)
{
    struct s3_reader *r = (struct s3_reader *)base;
    MAGIC_OK(r, READER_MAGIC);
    return r;
}

static enum blob_status fetch(struct s3_reader *r, uint64_t offset, void *buf, size_t len, struct blob_error *err)
{
    struct s3_object object;
    size_t got;
    enum blob_status st = s3_get_range(r->store->client, r->data_key, offset, len, buf, &got, &object, err);
    if (st == BLOB_E_NOT_FOUND || st == BLOB_E_INVALID)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is gone, or shorter than its blob", r->data_key);
    if (st == BLOB_OK && (got != len || object.size != r->base.size))
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s has %" PRIu64 " bytes instead of %" PRIu64, r->data_key,
                         object.size, r->base.size);
    return st;
}

/* On a thread of the pool. What fails here is read again, and told, by the reader itself. */
static void fetch_window(struct worker_job *job)
{
    struct window *win = (struct window *)((char *)job - offsetof(struct window, job));
    struct s3_reader *r = win->reader;
    enum blob_status st = fetch(r, win->offset, win->buf, win->len, NULL);
    pthread_mutex_lock(&r->lock);
    win->good = st == BLOB_OK;
    win->busy = false;
    pthread_cond_broadcast(&r->fetched);
    pthread_mutex_unlock(&r->lock);
}

/* With the lock held: the window that holds offset, or soon will. */
static struct window *window_with(struct s3_reader *r, uint64_t offset)
{
    for (int i = 0; i < 2; i++) {
        struct window *win = &r->windows[i];
        if ((win->busy || win->good) && offset >= win->offset && offset < win->offset + win->len)
            return win;
    }
    return NULL;
}

/* Readers that came earlier keep their larger windows. */
static size_t window_share(struct s3_store *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned readers = s->reader_count;
    pthread_mutex_unlock(&s->lock);
    return s3_memory_window(&s->memory, readers);
}

/* With the lock held: begins to fetch what follows `offset`, when a window is free for it. */
static void read_ahead(struct s3_reader *r, uint64_t offset)
{
    if (offset >= r->base.size || window_with(r, offset))
        return;
    struct window *win = NULL;
    if (r->window_bytes == 0)
        r->window_bytes = window_share(r->store);
    for (int i = 0; i < 2; i++) {
        struct window *w = &r->windows[i];
        if (!w->busy && (!w->good || w->offset + w->len <= r->next))
            win = w;
    }
    if (win && !win->buf)
        win->buf = s3_memory_block(r->window_bytes);
    if (!win || !win->buf)
        return;
    uint64_t left = r->base.size - offset;
    win->reader = r;
    win->offset = offset;
    win->len = left < r->window_bytes ? (size_t)left : r->window_bytes;
    win->busy = true;
    win->good = false;
    win->job.run = fetch_window;
    worker_pool_submit(r->store->pool, NULL, &win->job);
}

/* With the lock held: copies what the windows have of [offset, offset + len); how much that was. */
static size_t from_windows(struct s3_reader *r, uint64_t offset, uint8_t *out, size_t len)
{
    size_t done = 0;
    while (done < len) {
        struct window *win = window_with(r, offset + done);
        while (win && win->busy) {
            pthread_cond_wait(&r->fetched, &r->lock);
            win = window_with(r, offset + done);
        }
        if (!win)
            break;
        uint64_t left = win->offset + win->len - (offset + done);
        size_t n = left < len - done ? (size_t)left : len - done;
        memcpy(out + done, win->buf + (offset + done - win->offset), n);
        done += n;
    }
    return done;
}

enum blob_status s3_reader_read(struct blob_reader *base, uint64_t offset, void *buf, size_t len,
                                struct blob_error *err)
{
    struct s3_reader *r = reader_of(base);
    if (len == 0)
        return BLOB_OK;
    pthread_mutex_lock(&r->lock);
    r->in_order = offset == r->next ? r->in_order + 1 : 0;
    r->next = offset + len;
    size_t done = from_windows(r, offset, buf, len);
    /* The second read in order tells that more will follow. */
    if (r->in_order >= 2 && r->base.size > SMALL_BYTES) {
        uint64_t ahead = offset + len;
        const struct window *win = window_with(r, ahead);
        read_ahead(r, win ? win->offset + win->len : ahead);
    }
    pthread_mutex_unlock(&r->lock);
    if (done == len)
        return BLOB_OK;
    return fetch(r, offset + done, (uint8_t *)buf + done, len - done, err);
}

/* ---- the open readers ---- */

static void enlist(struct s3_reader *r)
{
    struct s3_store *s = r->store;
    pthread_mutex_lock(&s->lock);
    r->next_open = s->readers;
    if (s->readers)
        s->readers->prev = r;
    s->readers = r;
    s->reader_count++;
    pthread_mutex_unlock(&s->lock);
}

static void delist(struct s3_reader *r)
{
    struct s3_store *s = r->store;
    pthread_mutex_lock(&s->lock);
    if (r->prev)
        r->prev->next_open = r->next_open;
    else
        s->readers = r->next_open;
    if (r->next_open)
        r->next_open->prev = r->prev;
    s->reader_count--;
    pthread_mutex_unlock(&s->lock);
}

bool s3_blob_is_read(struct s3_store *s, const struct digest *digest)
{
    pthread_mutex_lock(&s->lock);
    const struct s3_reader *r = s->readers;
    while (r && !digest_equal(&r->digest, digest))
        r = r->next_open;
    pthread_mutex_unlock(&s->lock);
    return r != NULL;
}

/* ---- open and close ---- */

enum blob_status s3_blob_open(struct blob_store *base, const struct digest *digest, struct blob_reader **out,
                              struct blob_info *info, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_pointer p;
    enum blob_status st = s3_pointer_read(s, digest, &p, err);
    if (st == BLOB_OK && p.removing)
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "no such blob");
    if (st != BLOB_OK)
        return st;
    struct s3_reader *r = calloc(1, sizeof *r);
    if (!r)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 reader");
    r->base = (struct blob_reader){.store = base, .size = p.size};
    r->magic = READER_MAGIC;
    r->store = s;
    r->digest = *digest;
    memcpy(r->data_key, p.data_key, sizeof r->data_key);
    CHECK(pthread_mutex_init(&r->lock, NULL) == 0);
    CHECK(pthread_cond_init(&r->fetched, NULL) == 0);
    enlist(r);
    *info = (struct blob_info){.size = p.size, .touched_ms = p.touched_ms};
    *out = &r->base;
    return BLOB_OK;
}

void s3_reader_close(struct blob_reader *base)
{
    struct s3_reader *r = reader_of(base);
    delist(r);
    pthread_mutex_lock(&r->lock);
    while (r->windows[0].busy || r->windows[1].busy)
        pthread_cond_wait(&r->fetched, &r->lock);
    pthread_mutex_unlock(&r->lock);
    free(r->windows[0].buf);
    free(r->windows[1].buf);
    pthread_cond_destroy(&r->fetched);
    pthread_mutex_destroy(&r->lock);
    r->magic = 0;
    free(r);
}
