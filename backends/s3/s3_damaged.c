/*
 * s3_damaged - blobs whose data are not what their digests say: looking, and setting aside.
 *
 * A commit that finds the blob there looks at the data that are there. Of a small blob it reads all bytes, of another
 * one it asks for size and ETag; either costs one request. Bytes are read a second time before they are called wrong:
 * what arrives wrong once may be right. Wrong data are replaced. Right ones stay, for others may be reading them or
 * hold URLs of them.
 *
 * Setting aside first writes damaged/<digest>.<upload>.json, which names the data object, and then swaps the pointer to
 * a tombstone that says "damaged" (s3_pointer.h). The data object stays where it is: nothing here or in the sweep
 * deletes what a name in damaged/ tells of. A crash in between leaves that name beside a pointer in use; it does no
 * harm, and the next to find the damage writes it again.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 2

/* ---- looking ---- */

static enum blob_status other_size(const struct s3_pointer *p, uint64_t size, struct blob_error *err)
{
    return blob_fail(err, BLOB_E_NOT_FOUND, 0, "S3 %s has %" PRIu64 " bytes instead of %" PRIu64, p->data_key, size,
                     p->size);
}

/* Reads all of it, once. NOT_FOUND: it is not there, or cut short, or not what the digest says. */
static enum blob_status read_and_hash(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                                      uint8_t *buf, struct blob_error *err)
{
    struct s3_object object = {0};
    struct digest actual;
    struct hash hash;
    size_t got = 0;
    enum blob_status st = s3_get_range(s->client, p->data_key, 0, (size_t)p->size, buf, &got, &object, err);
    if (st == BLOB_E_INVALID)
        return other_size(p, 0, err);
    if (st != BLOB_OK)
        return st;
    if (object.size != p->size || got != p->size)
        return other_size(p, object.size, err);
    hash_init(&hash);
    hash_update(&hash, buf, got);
    hash_peek(&hash, &actual);
    return digest_equal(&actual, digest)
               ? BLOB_OK
               : blob_fail(err, BLOB_E_NOT_FOUND, 0, "S3 %s does not match its digest", p->data_key);
}

void s3_data_etag(const struct s3_object *object, char out[S3_ETAG_MAX])
{
    size_t skip = object->etag[0] == '"'; /* the ETag comes with quotes or without, depending on who tells it */
    snprintf(out, S3_ETAG_MAX, "%s", object->etag + skip);
    out[strcspn(out, "\"")] = '\0';
    for (const char *p = out; *p; p++) {
        if (*p < '!' || *p > '~' || *p == '\\') /* not to be written in JSON as it is */
            out[0] = '\0';
    }
}

/* Asks for size and ETag alone. If somebody overwrote the object, it has another ETag. If it decayed where it lies, it
 * has the same, and this look does not see it. */
static enum blob_status look_at_head(struct s3_store *s, struct s3_pointer *p, struct blob_error *err)
{
    struct s3_object object;
    char etag[S3_ETAG_MAX];
    enum blob_status st = s3_head(s->client, p->data_key, &object, err);
    if (st == BLOB_OK && object.size != p->size)
        return other_size(p, object.size, err);
    if (st != BLOB_OK)
        return st;
    s3_data_etag(&object, etag);
    if (etag[0] && p->data_etag[0] && strcmp(etag, p->data_etag) != 0) {
        log_line(s->log, LOG_WARN, NULL, "S3 %s was overwritten: an upload of the same content takes its place",
                 p->data_key);
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "S3 %s was overwritten", p->data_key);
    }
    memcpy(p->data_etag, etag, sizeof etag);
    return BLOB_OK;
}

enum blob_status s3_data_verify(struct s3_store *s, const struct digest *digest, struct s3_pointer *p,
                                struct blob_error *err)
{
    enum blob_status st = BLOB_E_NOT_FOUND;
    if (p->size == 0 || p->size > S3_VERIFY_BYTES)
        return look_at_head(s, p, err);
    uint8_t *buf = malloc((size_t)p->size);
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 blob of %" PRIu64 " bytes", p->size);
    for (int i = 0; i < TRIES && st == BLOB_E_NOT_FOUND; i++)
        st = read_and_hash(s, digest, p, buf, err);
    free(buf);
    if (st == BLOB_E_NOT_FOUND)
        log_line(s->log, LOG_ERROR, NULL, "S3 %s is damaged: an upload of the same content takes its place",
                 p->data_key);
    return st;
}

/* ---- setting aside ---- */

/* The name in damaged/ has the digest, and the upload that made the data: a blob that is damaged again later gets a
 * name of its own. */
static struct s3_key damaged_key(const struct digest *digest, const char *data_key)
{
    char hex[DIGEST_HEX_CHARS + 1];
    struct s3_key k;
    const char *name = strrchr(data_key, '/');
    digest_hex(digest, hex);
    snprintf(k.text, sizeof k.text, "damaged/%s.%.*s.json", hex, UUID_CHARS, name ? name + 1 : data_key);
    return k;
}

enum blob_status s3_data_is_damaged(struct s3_store *s, const struct digest *digest, const char *data_key,
                                    bool *damaged, struct blob_error *err)
{
    struct s3_object ignored;
    struct s3_key k = damaged_key(digest, data_key);
    enum blob_status st = s3_head(s->client, k.text, &ignored, err);
    *damaged = st == BLOB_OK;
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

static enum blob_status keep_name(struct s3_store *s, const struct s3_key *k, const struct s3_pointer *p,
                                  struct blob_error *err)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_printf(&b, "{\"size\":%" PRIu64 ",\"touched_ms\":%" PRId64 ",\"data\":\"%s\",\"found_ms\":%" PRId64 "}\n",
                   p->size, p->touched_ms, p->data_key, clock_wall_ms());
    const struct s3_body body = {.data = b.data, .length = b.len};
    enum blob_status st = b.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 damaged blob")
                                   : s3_put(s->client, k->text, &body, NULL, NULL, err);
    bytebuf_release(&b);
    return st;
}

enum blob_status s3_blob_set_aside(struct blob_store *base, const struct digest *digest, int64_t touched_ms,
                                   struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_pointer p;
    enum blob_status st = s3_pointer_read(s, digest, &p, err);
    if (st == BLOB_OK && p.removed)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "no such blob");
    if (st == BLOB_OK && p.touched_ms != touched_ms)
        return blob_fail(err, BLOB_E_CONFLICT, 0, "the blob was touched since");
    struct s3_key k = damaged_key(digest, p.data_key);
    if (st == BLOB_OK)
        st = keep_name(s, &k, &p, err);
    if (st != BLOB_OK)
        return st;
    struct s3_pointer gone = p;
    gone.removed = gone.damaged = true;
    gone.touched_ms = clock_wall_ms_after(p.touched_ms);
    st = s3_pointer_write(s, digest, &p, &gone, err);
    return st == BLOB_OK && p.doubted_ms ? s3_doubt_drop(s, digest, err) : st;
}
