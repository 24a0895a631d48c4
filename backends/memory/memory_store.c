/*
 * memory_store - three sorted tables under one mutex.
 *
 * Each table is an array of pointers in key order, found by bisection: short, and its listings are in order for
 * free. Content is reference-counted, so an open reader keeps the bytes of a removed blob. Listings look up "the next
 * key after the last one" anew for each callback: no lock is held while calling, and the callback may change anything.
 *
 * Invariants: an upload's bytes beyond `flushed` belong to its writer only; a writer holds a reference to its content,
 * so discarding an upload under a writer leaves it writing to something that nobody finds any more.
 */
#include "backends/memory/memory_store.h"

#include "core/check.h"
#include "core/clock.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define STORE_MAGIC 0x6d656d73u
#define STATE_BYTES 8

struct content {
    unsigned refs;
    size_t size, cap;
    char *data;
};

struct item {
    char key[RECORD_KEY_MAX + 1]; /* upload: its id; blob: its hex; record: its key */
    struct content *content;
    int64_t modified_ms;
    uint64_t flushed; /* uploads, as the rest */
    uint64_t epoch;   /* the highest that opened it */
    uint32_t keep_len;
    uint8_t keep[UPLOAD_KEEP_MAX];
};

struct table {
    struct item **items;
    size_t count, cap;
};

struct memory_store {
    struct blob_store base;
    unsigned magic;
    pthread_mutex_t lock;
    uint64_t max_bytes, used_bytes;
    struct table uploads, blobs, records;
};

struct memory_writer {
    struct blob_writer base;
    struct uuid id;
    struct content *content; /* a reference; the upload is this writer's while it holds the same content */
    uint64_t epoch;
};

struct memory_reader {
    struct blob_reader base;
    struct content *content; /* a reference */
};

static struct memory_store *store_of(struct blob_store *base)
{
    struct memory_store *s = (struct memory_store *)base;
    MAGIC_OK(s, STORE_MAGIC);
    return s;
}

/* ---- content and tables; the lock is held ---- */

static void content_drop(struct memory_store *s, struct content *c)
{
    if (--c->refs > 0)
        return;
    s->used_bytes -= c->size;
    free(c->data);
    free(c);
}

static bool content_fits(const struct memory_store *s, uint64_t len)
{
    return !s->max_bytes || (len <= s->max_bytes && s->used_bytes <= s->max_bytes - len);
}

static enum blob_status content_append(struct memory_store *s, struct content *c, const void *data, size_t len,
                                       struct blob_error *err)
{
    if (!content_fits(s, len))
        return blob_fail(err, BLOB_E_NO_SPACE, 0, "memory store: %zu bytes more do not fit", len);
    if (len > c->cap - c->size) {
        size_t cap = c->cap ? c->cap : 256;
        while (cap < c->size + len)
            cap *= 2;
        char *grown = realloc(c->data, cap);
        if (!grown)
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "memory store: %zu bytes", cap);
        c->data = grown;
        c->cap = cap;
    }
    if (len > 0)
        memcpy(c->data + c->size, data, len);
    c->size += len;
    s->used_bytes += len;
    return BLOB_OK;
}

static void content_cut(struct memory_store *s, struct content *c, uint64_t size)
{
    if (c->size > size) {
        s->used_bytes -= c->size - size;
        c->size = (size_t)size;
    }
}

/* The first item whose key is not below key. */
static size_t table_position(const struct table *t, const char *key)
{
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(t->items[mid]->key, key) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct item *table_find(const struct table *t, const char *key)
{
    size_t at = table_position(t, key);
    return at < t->count && strcmp(t->items[at]->key, key) == 0 ? t->items[at] : NULL;
}

/* The first item after key, "" giving the first of all; NULL: none. */
static const struct item *table_next(const struct table *t, const char *key)
{
    size_t at = table_position(t, key);
    if (at < t->count && strcmp(t->items[at]->key, key) == 0)
        at++;
    return at < t->count ? t->items[at] : NULL;
}

static bool table_grow(struct table *t)
{
    if (t->count < t->cap)
        return true;
    size_t cap = t->cap ? 2 * t->cap : 16;
    struct item **grown = realloc(t->items, cap * sizeof *grown);
    if (!grown)
        return false;
    t->items = grown;
    t->cap = cap;
    return true;
}

/* Adds an item that takes the reference to content; NULL, and the reference is the caller's still, without memory. */
static struct item *table_add(struct table *t, const char *key, struct content *content)
{
    struct item *item = table_grow(t) ? calloc(1, sizeof *item) : NULL;
    if (!item)
        return NULL;
    item->content = content;
    item->modified_ms = clock_wall_ms();
    memcpy(item->key, key, strlen(key) + 1);
    size_t at = table_position(t, key);
    memmove(&t->items[at + 1], &t->items[at], (t->count - at) * sizeof *t->items);
    t->items[at] = item;
    t->count++;
    return item;
}

static void table_remove(struct memory_store *s, struct table *t, const char *key)
{
    size_t at = table_position(t, key);
    if (at == t->count || strcmp(t->items[at]->key, key) != 0)
        return;
    content_drop(s, t->items[at]->content);
    free(t->items[at]);
    t->count--;
    memmove(&t->items[at], &t->items[at + 1], (t->count - at) * sizeof *t->items);
}

static void table_release(struct memory_store *s, struct table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        content_drop(s, t->items[i]->content);
        free(t->items[i]);
    }
    free(t->items);
}

static struct content *content_new(void)
{
    struct content *c = calloc(1, sizeof *c);
    if (c)
        c->refs = 1;
    return c;
}

/* ---- the store ---- */

static void memory_close(struct blob_store *base)
{
    struct memory_store *s = store_of(base);
    table_release(s, &s->uploads);
    table_release(s, &s->blobs);
    table_release(s, &s->records);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static enum blob_status memory_check(struct blob_store *base, struct blob_error *err)
{
    (void)base;
    (void)err;
    return BLOB_OK;
}

static enum blob_status memory_room(struct blob_store *base, uint64_t bytes, struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    pthread_mutex_lock(&s->lock);
    bool fits = content_fits(s, bytes);
    pthread_mutex_unlock(&s->lock);
    return fits ? BLOB_OK : blob_fail(err, BLOB_E_NO_SPACE, 0, "memory store: full");
}

static enum blob_status memory_sweep(struct blob_store *base, int64_t before_ms, struct blob_error *err)
{
    (void)base;
    (void)before_ms;
    (void)err;
    return BLOB_OK;
}

/* ---- uploads ---- */

static void mark_set(struct upload_mark *mark, uint64_t offset)
{
    *mark = (struct upload_mark){.offset = offset, .state_len = STATE_BYTES};
    for (int i = 0; i < STATE_BYTES; i++)
        mark->state[i] = (uint8_t)(offset >> (8 * i));
}

/* Core must carry the state bytes together with the offset they came with. */
static bool mark_whole(const struct upload_mark *mark)
{
    struct upload_mark own;
    mark_set(&own, mark->offset);
    return mark->offset == 0 || (mark->state_len == STATE_BYTES && memcmp(own.state, mark->state, STATE_BYTES) == 0);
}

static enum blob_status upload_at(struct memory_store *s, const struct uuid *id, uint64_t offset, struct item **out,
                                  struct blob_error *err)
{
    struct item *upload = table_find(&s->uploads, id->text);
    if (!upload && offset == 0) {
        struct content *c = content_new();
        upload = c ? table_add(&s->uploads, id->text, c) : NULL;
        if (!upload) {
            free(c);
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "upload %s", id->text);
        }
    }
    if (!upload || upload->content->size < offset)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "upload %s has less than %" PRIu64 " bytes", id->text, offset);
    *out = upload;
    return BLOB_OK;
}

/* Drops what is beyond offset, and the keep bytes that came with it. */
static void go_back(struct memory_store *s, struct item *upload, uint64_t offset)
{
    content_cut(s, upload->content, offset);
    if (upload->flushed > offset) {
        upload->flushed = offset;
        upload->keep_len = 0;
    }
}

/* A writer of another node may go on appending: it keeps the content it has, where nobody finds it any more. */
static enum blob_status isolate(struct memory_store *s, struct item *upload, uint64_t offset, struct blob_error *err)
{
    struct content *own = content_new();
    if (!own)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "upload %s", upload->key);
    enum blob_status st = content_append(s, own, upload->content->data, (size_t)offset, err);
    if (st != BLOB_OK) {
        content_drop(s, own);
        return st;
    }
    content_drop(s, upload->content);
    upload->content = own;
    return BLOB_OK;
}

static enum blob_status memory_upload_open(struct blob_store *base, const struct uuid *id,
                                           const struct upload_mark *from, uint64_t epoch, struct blob_writer **out,
                                           struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    if (!mark_whole(from))
        return blob_fail(err, BLOB_E_INVALID, 0, "upload %s: not a mark of this store", id->text);
    struct memory_writer *w = calloc(1, sizeof *w);
    if (!w)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "upload %s", id->text);
    pthread_mutex_lock(&s->lock);
    struct item *upload = NULL;
    enum blob_status st = upload_at(s, id, from->offset, &upload, err);
    if (st == BLOB_OK && epoch < upload->epoch)
        st = blob_fail(err, BLOB_E_CONFLICT, 0, "upload %s has a newer writer", id->text);
    if (st == BLOB_OK && from->contended)
        st = isolate(s, upload, from->offset, err);
    if (st == BLOB_OK) {
        upload->epoch = epoch;
        go_back(s, upload, from->offset);
        *w = (struct memory_writer){
            .base = {.store = base, .position = from->offset}, .id = *id, .content = upload->content, .epoch = epoch};
        w->content->refs++;
    }
    pthread_mutex_unlock(&s->lock);
    if (st != BLOB_OK) {
        free(w);
        return st;
    }
    *out = &w->base;
    return BLOB_OK;
}

/* The writer's upload, unless it was discarded meanwhile. */
static struct item *writer_upload(struct memory_store *s, const struct memory_writer *w)
{
    struct item *upload = table_find(&s->uploads, w->id.text);
    return upload && upload->content == w->content ? upload : NULL;
}

static enum blob_status upload_gone(const struct memory_writer *w, struct blob_error *err)
{
    return blob_fail(err, BLOB_E_NOT_FOUND, 0, "upload %s was discarded", w->id.text);
}

static enum blob_status memory_write(struct blob_writer *base, const struct iovec *parts, int count,
                                     struct blob_error *err)
{
    struct memory_writer *w = (struct memory_writer *)base;
    struct memory_store *s = store_of(base->store);
    pthread_mutex_lock(&s->lock);
    uint64_t before = w->content->size;
    enum blob_status st = BLOB_OK;
    for (int i = 0; i < count && st == BLOB_OK; i++)
        st = content_append(s, w->content, parts[i].iov_base, parts[i].iov_len, err);
    if (st != BLOB_OK)
        content_cut(s, w->content, before);
    if (st == BLOB_OK)
        __atomic_store_n(&base->position, w->content->size, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&s->lock);
    return st;
}

static enum blob_status memory_flush(struct blob_writer *base, uint64_t offset, const void *keep, size_t keep_len,
                                     unsigned flags, struct upload_mark *mark, struct blob_error *err)
{
    (void)flags;
    struct memory_writer *w = (struct memory_writer *)base;
    struct memory_store *s = store_of(base->store);
    pthread_mutex_lock(&s->lock);
    struct item *upload = writer_upload(s, w);
    if (upload) {
        upload->flushed = offset;
        upload->keep_len = (uint32_t)keep_len;
        if (keep_len > 0)
            memcpy(upload->keep, keep, keep_len);
        upload->modified_ms = clock_wall_ms();
        mark_set(mark, offset);
    }
    pthread_mutex_unlock(&s->lock);
    return upload ? BLOB_OK : upload_gone(w, err);
}

/* What was not flushed is lost, but for a newer writer's: another node opens one as soon as it is told that this one is
 * done, which may be before it is closed. */
static void memory_writer_close(struct blob_writer *base)
{
    struct memory_writer *w = (struct memory_writer *)base;
    struct memory_store *s = store_of(base->store);
    pthread_mutex_lock(&s->lock);
    struct item *upload = writer_upload(s, w);
    if (upload && upload->epoch == w->epoch)
        content_cut(s, upload->content, upload->flushed);
    content_drop(s, w->content);
    pthread_mutex_unlock(&s->lock);
    free(w);
}

/* Makes content, of which it takes a reference of its own, the blob's. */
static enum blob_status blob_add(struct memory_store *s, const char *hex, struct content *content,
                                 struct blob_error *err)
{
    struct item *blob = table_find(&s->blobs, hex);
    if (!blob && !table_add(&s->blobs, hex, content))
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "blob %s", hex);
    if (!blob) {
        content->refs++;
        return BLOB_OK;
    }
    blob->modified_ms = clock_wall_ms_after(blob->modified_ms);
    content_drop(s, blob->content);
    blob->content = content;
    content->refs++;
    return BLOB_OK;
}

static enum blob_status memory_commit(struct blob_writer *base, const struct digest *digest, unsigned flags,
                                      struct blob_error *err)
{
    (void)flags;
    struct memory_writer *w = (struct memory_writer *)base;
    struct memory_store *s = store_of(base->store);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    pthread_mutex_lock(&s->lock);
    enum blob_status st = writer_upload(s, w) ? blob_add(s, hex, w->content, err) : upload_gone(w, err);
    if (st == BLOB_OK) {
        table_remove(s, &s->uploads, w->id.text);
        content_drop(s, w->content);
    }
    pthread_mutex_unlock(&s->lock);
    if (st == BLOB_OK)
        free(w);
    return st;
}

static enum blob_status upload_missing(const struct uuid *id, struct blob_error *err)
{
    return blob_fail(err, BLOB_E_NOT_FOUND, 0, "upload %s", id->text);
}

static enum blob_status memory_upload_stat(struct blob_store *base, const struct uuid *id, struct staged_stat *out,
                                           struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    pthread_mutex_lock(&s->lock);
    const struct item *upload = table_find(&s->uploads, id->text);
    if (upload) {
        *out = (struct staged_stat){
            .modified_ms = upload->modified_ms, .epoch = upload->epoch, .keep_len = upload->keep_len};
        memcpy(out->keep, upload->keep, upload->keep_len);
        mark_set(&out->mark, upload->flushed);
    }
    pthread_mutex_unlock(&s->lock);
    return upload ? BLOB_OK : upload_missing(id, err);
}

static enum blob_status memory_upload_read(struct blob_store *base, const struct uuid *id, uint64_t offset, void *buf,
                                           size_t len, size_t *got, struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    pthread_mutex_lock(&s->lock);
    const struct item *upload = table_find(&s->uploads, id->text);
    if (upload) {
        size_t size = upload->content->size, n = offset < size ? size - (size_t)offset : 0;
        n = n < len ? n : len;
        if (n > 0)
            memcpy(buf, upload->content->data + offset, n);
        *got = n;
    }
    pthread_mutex_unlock(&s->lock);
    return upload ? BLOB_OK : upload_missing(id, err);
}

static enum blob_status memory_upload_discard(struct blob_store *base, const struct uuid *id,
                                              const struct upload_mark *mark, struct blob_error *err)
{
    (void)mark;
    (void)err;
    struct memory_store *s = store_of(base);
    pthread_mutex_lock(&s->lock);
    table_remove(s, &s->uploads, id->text);
    pthread_mutex_unlock(&s->lock);
    return BLOB_OK;
}

static enum blob_status memory_upload_list(struct blob_store *base, staged_list_fn *fn, void *arg,
                                           struct blob_error *err)
{
    (void)err;
    struct memory_store *s = store_of(base);
    struct uuid last = {""};
    bool more = true;
    while (more) {
        uint64_t bytes = 0;
        int64_t modified_ms = 0;
        pthread_mutex_lock(&s->lock);
        const struct item *upload = table_next(&s->uploads, last.text);
        if (upload) {
            memcpy(last.text, upload->key, sizeof last.text);
            bytes = upload->content->size;
            modified_ms = upload->modified_ms;
        }
        pthread_mutex_unlock(&s->lock);
        more = upload && fn(&last, bytes, modified_ms, arg);
    }
    return BLOB_OK;
}

/* ---- blobs ---- */

static enum blob_status blob_missing(const char *hex, struct blob_error *err)
{
    return blob_fail(err, BLOB_E_NOT_FOUND, 0, "blob %s", hex);
}

static struct blob_info info_of(const struct item *blob)
{
    return (struct blob_info){.size = blob->content->size, .touched_ms = blob->modified_ms};
}

static enum blob_status memory_blob_stat(struct blob_store *base, const struct digest *digest, struct blob_info *out,
                                         struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    pthread_mutex_lock(&s->lock);
    const struct item *blob = table_find(&s->blobs, hex);
    if (blob)
        *out = info_of(blob);
    pthread_mutex_unlock(&s->lock);
    return blob ? BLOB_OK : blob_missing(hex, err);
}

static enum blob_status memory_blob_open(struct blob_store *base, const struct digest *digest, struct blob_reader **out,
                                         struct blob_info *info, struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    struct memory_reader *r = calloc(1, sizeof *r);
    if (!r)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "blob %s", hex);
    pthread_mutex_lock(&s->lock);
    const struct item *blob = table_find(&s->blobs, hex);
    if (blob) {
        *r = (struct memory_reader){.base = {.store = base, .size = blob->content->size}, .content = blob->content};
        r->content->refs++;
        *info = info_of(blob);
    }
    pthread_mutex_unlock(&s->lock);
    if (!blob) {
        free(r);
        return blob_missing(hex, err);
    }
    *out = &r->base;
    return BLOB_OK;
}

/* Finished content never changes, so reading it needs no lock. */
static enum blob_status memory_reader_read(struct blob_reader *base, uint64_t offset, void *buf, size_t len,
                                           struct blob_error *err)
{
    (void)err;
    const struct memory_reader *r = (const struct memory_reader *)base;
    if (len > 0)
        memcpy(buf, r->content->data + offset, len);
    return BLOB_OK;
}

static void memory_reader_close(struct blob_reader *base)
{
    struct memory_reader *r = (struct memory_reader *)base;
    struct memory_store *s = store_of(base->store);
    pthread_mutex_lock(&s->lock);
    content_drop(s, r->content);
    pthread_mutex_unlock(&s->lock);
    free(r);
}

static enum blob_status memory_blob_touch(struct blob_store *base, const struct digest *digest, int64_t *touched_ms,
                                          struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    pthread_mutex_lock(&s->lock);
    struct item *blob = table_find(&s->blobs, hex);
    if (blob)
        blob->modified_ms = clock_wall_ms_after(blob->modified_ms);
    if (blob && touched_ms)
        *touched_ms = blob->modified_ms;
    pthread_mutex_unlock(&s->lock);
    return blob ? BLOB_OK : blob_missing(hex, err);
}

static enum blob_status memory_blob_remove(struct blob_store *base, const struct digest *digest, int64_t before_ms,
                                           struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    pthread_mutex_lock(&s->lock);
    const struct item *blob = table_find(&s->blobs, hex);
    bool touched = blob && blob->modified_ms >= before_ms;
    if (blob && !touched)
        table_remove(s, &s->blobs, hex);
    pthread_mutex_unlock(&s->lock);
    return touched ? blob_fail(err, BLOB_E_CONFLICT, 0, "blob %s was touched", hex) : BLOB_OK;
}

/* What is wrong in memory tells nobody anything afterwards: it is not kept. */
static enum blob_status memory_blob_set_aside(struct blob_store *base, const struct digest *digest, int64_t touched_ms,
                                              struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    pthread_mutex_lock(&s->lock);
    const struct item *blob = table_find(&s->blobs, hex);
    bool missing = !blob, touched = blob && blob->modified_ms != touched_ms;
    if (blob && !touched)
        table_remove(s, &s->blobs, hex);
    pthread_mutex_unlock(&s->lock);
    if (missing)
        return blob_missing(hex, err);
    return touched ? blob_fail(err, BLOB_E_CONFLICT, 0, "blob %s was touched", hex) : BLOB_OK;
}

static enum blob_status memory_blob_list(struct blob_store *base, const struct digest *after, blob_list_fn *fn,
                                         void *arg, struct blob_error *err)
{
    (void)err;
    struct memory_store *s = store_of(base);
    char last[DIGEST_HEX_CHARS + 1] = "";
    if (after)
        digest_hex(after, last);
    bool more = true;
    while (more) {
        struct blob_info info = {0};
        pthread_mutex_lock(&s->lock);
        const struct item *blob = table_next(&s->blobs, last);
        if (blob) {
            memcpy(last, blob->key, sizeof last);
            info = info_of(blob);
        }
        pthread_mutex_unlock(&s->lock);
        struct digest digest;
        more = blob && digest_parse(last, &digest) == BLOB_OK && fn(&digest, &info, arg);
    }
    return BLOB_OK;
}

/* ---- records ---- */

/* Makes content, whose reference it takes on OK, the record's. */
static enum blob_status record_set(struct memory_store *s, const char *key, struct content *content, unsigned flags,
                                   struct blob_error *err)
{
    struct item *record = table_find(&s->records, key);
    if (record && (flags & BLOB_IF_NONE))
        return blob_fail(err, BLOB_E_EXISTS, 0, "record %s", key);
    if (record) {
        content_drop(s, record->content);
        record->content = content;
    } else if (!table_add(&s->records, key, content)) {
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key);
    }
    return BLOB_OK;
}

static enum blob_status memory_record_put(struct blob_store *base, const char *key, const void *value, size_t len,
                                          unsigned flags, struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    struct content *c = content_new();
    if (!c)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key);
    pthread_mutex_lock(&s->lock);
    enum blob_status st = content_append(s, c, value, len, err);
    if (st == BLOB_OK)
        st = record_set(s, key, c, flags, err);
    if (st != BLOB_OK)
        content_drop(s, c);
    pthread_mutex_unlock(&s->lock);
    return st;
}

static enum blob_status memory_record_get(struct blob_store *base, const char *key, struct bytebuf *out,
                                          struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    pthread_mutex_lock(&s->lock);
    const struct item *record = table_find(&s->records, key);
    if (record)
        bytebuf_add(out, record->content->data, record->content->size);
    pthread_mutex_unlock(&s->lock);
    if (!record)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "record %s", key);
    return out->failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key) : BLOB_OK;
}

static enum blob_status memory_record_delete(struct blob_store *base, const char *key, unsigned flags,
                                             struct blob_error *err)
{
    (void)flags;
    (void)err;
    struct memory_store *s = store_of(base);
    pthread_mutex_lock(&s->lock);
    table_remove(s, &s->records, key);
    pthread_mutex_unlock(&s->lock);
    return BLOB_OK;
}

static enum blob_status memory_record_list(struct blob_store *base, const char *prefix, const char *after, size_t limit,
                                           bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    struct memory_store *s = store_of(base);
    struct bytebuf value;
    bytebuf_init(&value);
    char last[RECORD_KEY_MAX + 1];
    const char *from = after && strcmp(after, prefix) > 0 ? after : prefix;
    memcpy(last, from, strlen(from) + 1);
    bool more = true;
    for (size_t given = 0; more && (limit == 0 || given < limit); given++) {
        bytebuf_clear(&value);
        pthread_mutex_lock(&s->lock);
        const struct item *record = table_next(&s->records, last);
        if (record && strncmp(record->key, prefix, strlen(prefix)) != 0)
            record = NULL;
        if (record) {
            memcpy(last, record->key, sizeof last);
            if (with_values)
                bytebuf_add(&value, record->content->data, record->content->size);
        }
        pthread_mutex_unlock(&s->lock);
        more = record && !value.failed && fn(last, with_values ? value.data : NULL, value.len, arg);
    }
    enum blob_status st = value.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "records %s", prefix) : BLOB_OK;
    bytebuf_release(&value);
    return st;
}

static const struct blob_store_ops memory_ops = {
    .name = "memory",
    .close = memory_close,
    .check = memory_check,
    .room = memory_room,
    .sweep = memory_sweep,
    .staged_open = memory_upload_open,
    .writer_write = memory_write,
    .writer_flush = memory_flush,
    .writer_commit = memory_commit,
    .writer_close = memory_writer_close,
    .staged_stat = memory_upload_stat,
    .staged_read = memory_upload_read,
    .staged_discard = memory_upload_discard,
    .staged_list = memory_upload_list,
    .blob_stat = memory_blob_stat,
    .blob_open = memory_blob_open,
    .reader_read = memory_reader_read,
    .reader_close = memory_reader_close,
    .blob_touch = memory_blob_touch,
    .blob_remove = memory_blob_remove,
    .blob_set_aside = memory_blob_set_aside,
    .blob_list = memory_blob_list,
    .record_put = memory_record_put,
    .record_get = memory_record_get,
    .record_delete = memory_record_delete,
    .record_list = memory_record_list,
};

enum blob_status memory_store_open(const struct memory_options *opt, struct blob_store **out, struct blob_error *err)
{
    struct memory_store *s = calloc(1, sizeof *s);
    if (!s)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "memory store");
    struct uuid id;
    uuid_new(&id);
    s->base.ops = &memory_ops;
    s->base.caps = STORE_READ_STAGED | STORE_KEEPS_STATE;
    memcpy(s->base.store_id, id.text, sizeof id.text);
    s->magic = STORE_MAGIC;
    s->max_bytes = opt ? opt->max_bytes : 0;
    pthread_mutex_init(&s->lock, NULL);
    *out = &s->base;
    return BLOB_OK;
}
