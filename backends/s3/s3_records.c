/*
 * s3_records - records are objects under their own keys; those whose first part is one of the store's own names go
 * below records/ instead, so that any record key is possible and none can touch a blob.
 */
#include "backends/s3/s3_below.h"
#include "core/text/bytebuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ELSEWHERE   "records/"
#define FEW_RECORDS 16

static bool is_ours(const char *key)
{
    static const char *const own[] = {"staging/", "data/", "blobs/", ELSEWHERE};
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (strncmp(key, own[i], strlen(own[i])) == 0)
            return true;
    }
    return false;
}

static struct s3_key object_key(const char *key)
{
    struct s3_key k;
    snprintf(k.text, sizeof k.text, "%s%s", is_ours(key) ? ELSEWHERE : "", key);
    return k;
}

/* Back from the key of an object that a listing of prefix gave. */
static const char *record_key(const char *object, const char *prefix)
{
    return is_ours(prefix) ? object + strlen(ELSEWHERE) : object;
}

/* Without conditional writes: a look, then the write. Other nodes may come in between, threads of this one may not. */
static enum blob_status look_and_put(struct s3_store *s, const char *key, const struct s3_body *body,
                                     struct blob_error *err)
{
    struct s3_object object;
    pthread_mutex_lock(&s->swaps);
    enum blob_status st = s3_head(s->client, key, &object, err);
    if (st == BLOB_OK)
        st = blob_fail(err, BLOB_E_EXISTS, 0, "record %s is there", key);
    else if (st == BLOB_E_NOT_FOUND)
        st = s3_put(s->client, key, body, NULL, NULL, err);
    pthread_mutex_unlock(&s->swaps);
    return st;
}

enum blob_status s3_record_put(struct blob_store *base, const char *key, const void *value, size_t len, unsigned flags,
                               struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_key k = object_key(key);
    const struct s3_body body = {.data = value, .length = len};
    const struct s3_condition absent = {.absent = true};
    if (!(flags & BLOB_IF_NONE))
        return s3_put(s->client, k.text, &body, NULL, NULL, err);
    if (!s->conditional)
        return look_and_put(s, k.text, &body, err);
    return s3_put(s->client, k.text, &body, &absent, NULL, err);
}

enum blob_status s3_record_get(struct blob_store *base, const char *key, struct bytebuf *out, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_key k = object_key(key);
    size_t len;
    char *buf = malloc(RECORD_VALUE_MAX);
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key);
    enum blob_status st = s3_get(s->client, k.text, buf, RECORD_VALUE_MAX, &len, NULL, err);
    if (st == BLOB_E_TOO_LARGE)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "record %s is over %d bytes", key, RECORD_VALUE_MAX);
    if (st == BLOB_OK)
        bytebuf_add(out, buf, len);
    free(buf);
    if (st == BLOB_OK && out->failed)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key);
    return st;
}

enum blob_status s3_record_delete(struct blob_store *base, const char *key, unsigned flags, struct blob_error *err)
{
    (void)flags;
    struct s3_key k = object_key(key);
    return s3_delete(s3_store_of(base)->client, k.text, err);
}

enum blob_status s3_record_list(struct blob_store *base, const char *prefix, const char *after, size_t limit,
                                bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    struct s3_key below = object_key(prefix), begin = object_key(after ? after : prefix);
    struct s3_below b;
    struct bytebuf value;
    enum blob_status st = BLOB_OK;
    size_t given = 0;
    bool few = strchr(prefix, '/')[1] != '\0'; /* of one digest */
    bytebuf_init(&value);
    s3_below_begin(&b, s3_store_of(base), below.text, begin.text, limit ? limit : few ? FEW_RECORDS : SIZE_MAX);
    for (bool go_on = true; go_on && st == BLOB_OK && (limit == 0 || given < limit);) {
        const struct s3_entry *e;
        st = s3_below_next(&b, &e, err);
        if (st != BLOB_OK || !e)
            break;
        const char *key = record_key(e->key, prefix);
        bytebuf_clear(&value);
        if (with_values)
            st = s3_record_get(base, key, &value, err);
        if (st == BLOB_E_NOT_FOUND) { /* deleted since the page was made */
            st = BLOB_OK;
            continue;
        }
        if (st != BLOB_OK)
            break;
        given++;
        go_on = fn(key, with_values ? value.data : NULL, value.len, arg);
    }
    s3_below_end(&b);
    bytebuf_release(&value);
    return st;
}
