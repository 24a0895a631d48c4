/*
 * s3_reader - an open blob: what its pointer said, and ranges of its data object. Downloads go by s3_cursor.c.
 *
 * Open readers are listed, so that a removal on this node lets them end: S3 keeps nothing open for them, as a disk
 * does. A data object that is gone, or has another size than its pointer says, is an error, never other bytes.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define READER_MAGIC 0x53337264u

struct s3_reader {
    struct blob_reader base;
    unsigned magic;
    struct s3_store *store;
    struct s3_reader *prev, *next_open; /* guarded by the store's lock */
    struct digest digest;
    char data_key[S3_KEY_MAX + 1];
};

static struct s3_reader *reader_of(struct blob_reader *base)
{
    struct s3_reader *r = (struct s3_reader *)base;
    MAGIC_OK(r, READER_MAGIC);
    return r;
}

/* What S3 said of the data object, beside the pointer. */
static enum blob_status same_object(const struct s3_reader *r, enum blob_status st, const struct s3_object *object,
                                    struct blob_error *err)
{
    if (st == BLOB_E_NOT_FOUND || st == BLOB_E_INVALID)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is gone, or shorter than its blob", r->data_key);
    if (st == BLOB_OK && object->size != r->base.size)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s has %" PRIu64 " bytes instead of %" PRIu64, r->data_key,
                         object->size, r->base.size);
    return st;
}

enum blob_status s3_reader_read(struct blob_reader *base, uint64_t offset, void *buf, size_t len,
                                struct blob_error *err)
{
    struct s3_reader *r = reader_of(base);
    struct s3_object object = {0};
    size_t got = 0;
    if (len == 0)
        return BLOB_OK;
    enum blob_status st = s3_get_range(r->store->client, r->data_key, offset, len, buf, &got, &object, err);
    st = same_object(r, st, &object, err);
    if (st == BLOB_OK && got != len) /* though the object has its size: it may come whole the next time */
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s came cut short", r->data_key);
    return st;
}

enum blob_status s3_reader_stream(struct blob_reader *base, uint64_t offset, uint64_t len, struct s3_stream **out,
                                  struct blob_error *err)
{
    struct s3_reader *r = reader_of(base);
    struct s3_object object = {0};
    struct s3_stream *stream = NULL;
    enum blob_status st = s3_stream_open(r->store->client, r->data_key, offset, len, &stream, &object, err);
    st = same_object(r, st, &object, err);
    if (st == BLOB_OK)
        *out = stream;
    else
        s3_stream_close(stream);
    return st;
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
    if (st == BLOB_OK && p.removed)
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
    enlist(r);
    *info = (struct blob_info){.size = p.size, .touched_ms = p.touched_ms};
    *out = &r->base;
    return BLOB_OK;
}

void s3_reader_close(struct blob_reader *base)
{
    struct s3_reader *r = reader_of(base);
    delist(r);
    r->magic = 0;
    free(r);
}
