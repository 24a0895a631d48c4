/*
 * direct_file - invariants: `page` has the bytes of [from, from + len), from being a multiple of the page and len less
 * than one. Unless `settled`, they are in no file. Whoever wrote since by the page cache is at another position, and
 * the page is then read anew.
 */
#include "backends/disk/file/direct_file.h"

#include "backends/disk/file/durable_file.h"
#include "core/blob_store.h"
#include "core/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)1 << 20)
#define PARTS_MOST   64

struct direct_pool {
    pthread_mutex_t lock;
    unsigned left; /* buffers that may still be made */
    unsigned count;
    uint8_t *idle[];
};

struct direct_file {
    struct direct_pool *pool;
    int direct_fd, cached_fd;
    uint64_t from;
    size_t len;
    bool settled;
    uint8_t *page;
};

/* ---- the pool ---- */

struct direct_pool *direct_pool_new(unsigned count)
{
    struct direct_pool *pool = calloc(1, sizeof *pool + count * sizeof pool->idle[0]);
    if (!pool)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pool->left = count;
    return pool;
}

void direct_pool_free(struct direct_pool *pool)
{
    if (!pool)
        return;
    for (unsigned i = 0; i < pool->count; i++)
        free(pool->idle[i]);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

static uint8_t *pool_take(struct direct_pool *pool)
{
    uint8_t *buffer = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->count > 0)
        buffer = pool->idle[--pool->count];
    else if (pool->left > 0 && (buffer = aligned_alloc(DIRECT_PAGE, BUFFER_BYTES)) != NULL)
        pool->left--;
    pthread_mutex_unlock(&pool->lock);
    return buffer;
}

static void pool_give(struct direct_pool *pool, uint8_t *buffer)
{
    pthread_mutex_lock(&pool->lock);
    pool->idle[pool->count++] = buffer;
    pthread_mutex_unlock(&pool->lock);
}

/* ---- opening ---- */

enum blob_status direct_file_new(struct direct_pool *pool, int direct_fd, int cached_fd, struct direct_file **out,
                                 struct blob_error *err)
{
    struct direct_file *f = calloc(1, sizeof *f);
    uint8_t *page = aligned_alloc(DIRECT_PAGE, DIRECT_PAGE);
    if (!f || !page) {
        free(f);
        free(page);
        close(direct_fd);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "direct file");
    }
    *f = (struct direct_file){
        .pool = pool, .direct_fd = direct_fd, .cached_fd = cached_fd, .settled = true, .page = page};
    *out = f;
    return BLOB_OK;
}

void direct_file_free(struct direct_file *f)
{
    if (!f)
        return;
    close(f->direct_fd);
    free(f->page);
    free(f);
}

/* ---- writing ---- */

/* Copies [at, at + len) of the stream that the held bytes and the parts after them make. */
static void stream_copy(const struct direct_file *f, const struct iovec *parts, int count, size_t at, uint8_t *out,
                        size_t len)
{
    if (at < f->len) {
        size_t n = f->len - at < len ? f->len - at : len;
        memcpy(out, f->page + at, n);
        out += n;
        len -= n;
        at = 0;
    } else {
        at -= f->len;
    }
    for (int i = 0; i < count && len > 0; i++) {
        if (at >= parts[i].iov_len) {
            at -= parts[i].iov_len;
            continue;
        }
        size_t n = parts[i].iov_len - at < len ? parts[i].iov_len - at : len;
        memcpy(out, (const uint8_t *)parts[i].iov_base + at, n);
        out += n;
        len -= n;
        at = 0;
    }
    CHECK(len == 0);
}

/* Can the device take the parts from where they are? */
static bool parts_aligned(const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++) {
        if ((uintptr_t)parts[i].iov_base % DIRECT_PAGE != 0 || (i < count - 1 && parts[i].iov_len % DIRECT_PAGE != 0))
            return false;
    }
    return count <= PARTS_MOST;
}

/* EINVAL: this file system, or its device, wants more than a page's alignment, or does not know O_DIRECT after all. */
static enum blob_status write_run(struct direct_file *f, struct iovec *run, int count, uint64_t offset,
                                  const char *what, struct blob_error *err)
{
    struct blob_error why = {0};
    enum blob_status st = file_write_parts_at(f->direct_fd, run, count, offset, what, &why);
    if (st != BLOB_OK && why.sys_errno == EINVAL)
        st = BLOB_E_UNSUPPORTED;
    if (st != BLOB_OK && err)
        *err = why;
    return st;
}

/* The first `whole` bytes of the parts, from where they are. */
static enum blob_status write_in_place(struct direct_file *f, const struct iovec *parts, int count, size_t whole,
                                       const char *what, struct blob_error *err)
{
    struct iovec run[PARTS_MOST];
    int n = 0;
    for (size_t left = whole; n < count && left > 0; n++) {
        run[n] = parts[n];
        if (run[n].iov_len > left)
            run[n].iov_len = left;
        left -= run[n].iov_len;
    }
    return write_run(f, run, n, f->from, what, err);
}

static enum blob_status write_gathered(struct direct_file *f, const struct iovec *parts, int count, size_t whole,
                                       const char *what, struct blob_error *err)
{
    uint8_t *buffer = pool_take(f->pool);
    if (!buffer)
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "every buffer is in use");
    enum blob_status st = BLOB_OK;
    for (size_t at = 0; at < whole && st == BLOB_OK; at += BUFFER_BYTES) {
        struct iovec run = {.iov_base = buffer, .iov_len = whole - at < BUFFER_BYTES ? whole - at : BUFFER_BYTES};
        stream_copy(f, parts, count, at, buffer, run.iov_len);
        st = write_run(f, &run, 1, f->from + at, what, err);
    }
    pool_give(f->pool, buffer);
    return st;
}

/* The page in which position lies, up to there. */
static enum blob_status load_page(struct direct_file *f, uint64_t position, const char *what, struct blob_error *err)
{
    size_t got = 0, len = (size_t)(position % DIRECT_PAGE);
    enum blob_status st = file_read_at(f->cached_fd, f->page, len, position - len, &got, what, err);
    if (st == BLOB_OK && got < len)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "%s is shorter than what was written", what);
    if (st != BLOB_OK)
        return st;
    f->from = position - len;
    f->len = len;
    f->settled = true;
    return BLOB_OK;
}

enum blob_status direct_file_write(struct direct_file *f, const struct iovec *parts, int count, uint64_t position,
                                   const char *what, struct blob_error *err)
{
    enum blob_status st = f->from + f->len == position ? BLOB_OK : load_page(f, position, what, err);
    if (st != BLOB_OK)
        return st;
    size_t total = f->len + parts_bytes(parts, count);
    size_t rest = total % DIRECT_PAGE, whole = total - rest;
    bool in_place = f->len == 0 && parts_aligned(parts, count);
    st = in_place ? write_in_place(f, parts, count, whole, what, err)
                  : write_gathered(f, parts, count, whole, what, err);
    if (st != BLOB_OK)
        return st;
    stream_copy(f, parts, count, whole, f->page, rest);
    f->from += whole;
    f->len = rest;
    f->settled = rest == 0;
    return BLOB_OK;
}

uint64_t direct_file_in_file(const struct direct_file *f, uint64_t position)
{
    return f->settled ? position : f->from;
}

enum blob_status direct_file_settle(struct direct_file *f, const char *what, struct blob_error *err)
{
    enum blob_status st = f->settled ? BLOB_OK : file_write_at(f->cached_fd, f->page, f->len, f->from, what, err);
    if (st == BLOB_OK)
        f->settled = true;
    return st;
}
