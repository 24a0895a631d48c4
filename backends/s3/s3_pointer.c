/* s3_pointer - reads pointers, and swaps them; s3_pointer.h tells the protocol. */
#include "backends/s3/s3_pointer.h"

#include "backends/s3/s3_store_internal.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define POINTER_MAX 1024
#define SETTLE_MS   1000 /* a DELETE that is not held up has been answered by then */

struct s3_key s3_pointer_key(const struct digest *digest, const char *ending)
{
    char hex[DIGEST_HEX_CHARS + 1];
    struct s3_key k;
    digest_hex(digest, hex);
    snprintf(k.text, sizeof k.text, "blobs/%.2s/%s%s", hex, hex, ending);
    return k;
}

/* ---- one object ---- */

static bool parse_pointer(const char *text, size_t len, struct s3_pointer *out)
{
    json_int_t size, touched, doubted = 0;
    const char *key, *etag = "";
    int removing = 0, clearing = 0, damaged = 0, own = 0;
    json_t *root = json_loadb(text, len, 0, NULL);
    bool ok = root &&
              json_unpack(root, "{s:I,s:I,s:s,s?b,s?b,s?b,s?b,s?I,s?s}", "size", &size, "touched_ms", &touched, "data",
                          &key, "removing", &removing, "clearing", &clearing, "damaged", &damaged, "own", &own,
                          "doubted_ms", &doubted, "etag", &etag) == 0 &&
              size >= 0 && s3_key_ok(key) && strlen(etag) < S3_ETAG_MAX;
    if (ok) {
        *out = (struct s3_pointer){.size = (uint64_t)size,
                                   .touched_ms = touched,
                                   .removed = removing != 0,
                                   .clearing = removing != 0 && clearing != 0,
                                   .damaged = removing != 0 && damaged != 0,
                                   .own = own != 0,
                                   .doubted_ms = doubted};
        memcpy(out->data_key, key, strlen(key) + 1);
        memcpy(out->data_etag, etag, strlen(etag) + 1);
    }
    json_decref(root);
    return ok;
}

enum blob_status s3_pointer_get(struct s3_store *s, const struct s3_key *k, struct s3_pointer *out,
                                struct blob_error *err)
{
    char text[POINTER_MAX];
    size_t len;
    struct s3_object object;
    struct s3_pointer p;
    enum blob_status st = s3_get(s->client, k->text, text, sizeof text, &len, &object, err);
    if (st == BLOB_E_TOO_LARGE || (st == BLOB_OK && !parse_pointer(text, len, &p)))
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is not a pointer of blobd's", k->text);
    if (st != BLOB_OK)
        return st;
    memcpy(p.etag, object.etag, sizeof p.etag);
    p.modified_ms = object.modified_ms;
    *out = p;
    return BLOB_OK;
}

/* ---- swapping ---- */

/* Without conditional writes: a look, then the write. Other nodes may come in between, threads of this one may not. */
static enum blob_status look_and_put(struct s3_store *s, const struct s3_pointer *old, const struct s3_key *k,
                                     const struct s3_body *body, struct s3_object *object, struct blob_error *err)
{
    struct s3_pointer now;
    pthread_mutex_lock(&s->swaps);
    enum blob_status st = s3_pointer_get(s, k, &now, err);
    if (st == BLOB_OK)
        st = !old ? BLOB_E_EXISTS : strcmp(now.etag, old->etag) != 0 ? BLOB_E_CONFLICT : BLOB_OK;
    else if (st == BLOB_E_NOT_FOUND)
        st = old ? BLOB_E_CONFLICT : BLOB_OK;
    if (st == BLOB_OK)
        st = s3_put(s->client, k->text, body, NULL, object, err);
    pthread_mutex_unlock(&s->swaps);
    return st;
}

void s3_pointer_text(const struct s3_pointer *p, struct bytebuf *out)
{
    struct uuid nonce; /* makes each version's ETag its own, also where nothing else changes within a millisecond */
    uuid_new(&nonce);
    bytebuf_printf(out, "{\"size\":%" PRIu64 ",\"touched_ms\":%" PRId64 ",\"data\":\"%s\"%s%s%s%s", p->size,
                   p->touched_ms, p->data_key, p->removed ? ",\"removing\":true" : "",
                   p->clearing ? ",\"clearing\":true" : "", p->damaged ? ",\"damaged\":true" : "",
                   p->own ? ",\"own\":true" : "");
    if (p->data_etag[0])
        bytebuf_printf(out, ",\"etag\":\"%s\"", p->data_etag);
    if (p->doubted_ms)
        bytebuf_printf(out, ",\"doubted_ms\":%" PRId64, p->doubted_ms);
    bytebuf_printf(out, ",\"nonce\":\"%s\"}\n", nonce.text);
}

enum blob_status s3_pointer_write(struct s3_store *s, const struct digest *digest, const struct s3_pointer *old,
                                  struct s3_pointer *p, struct blob_error *err)
{
    struct bytebuf b;
    struct s3_object object;
    struct s3_key k = s3_pointer_key(digest, S3_POINTER_ENDING);
    bytebuf_init(&b);
    s3_pointer_text(p, &b);
    const struct s3_body body = {.data = b.data, .length = b.len};
    const struct s3_condition cond = {.absent = !old, .etag = old ? old->etag : NULL};
    enum blob_status st;
    if (b.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 pointer");
    else if (s->conditional)
        st = s3_put(s->client, k.text, &body, &cond, &object, err);
    else
        st = look_and_put(s, old, &k, &body, &object, err);
    bytebuf_release(&b);
    if (st == BLOB_E_NOT_FOUND) /* some endpoints say so when If-Match finds nothing */
        return BLOB_E_CONFLICT;
    if (st == BLOB_OK)
        memcpy(p->etag, object.etag, sizeof p->etag);
    return st;
}

/* ---- reading ---- */

bool s3_pointer_doubt_is_over(struct s3_store *s, int64_t since_ms, int64_t modified_ms)
{
    struct blob_error ignored;
    int64_t offset_ms;
    if (s3_clocks_agree(s, &offset_ms, &ignored) != BLOB_OK)
        return false;
    int64_t now_ms = clock_wall_ms();
    int64_t age_ms = now_ms - since_ms;
    int64_t by_s3_ms = modified_ms ? now_ms + offset_ms - modified_ms : age_ms;
    return age_ms > S3_DOUBT_MS && by_s3_ms > S3_DOUBT_MS;
}

/* The pointer from its copy, put back. NOT_FOUND: there is none. */
static enum blob_status restore_from_copy(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                          struct blob_error *err)
{
    struct s3_pointer p;
    struct s3_key copy = s3_pointer_key(digest, S3_POINTER_COPY_ENDING), k = s3_pointer_key(digest, S3_POINTER_ENDING);
    enum blob_status st = s3_pointer_get(s, &copy, &p, err);
    if (st != BLOB_OK)
        return st;
    p.touched_ms = clock_wall_ms_after(p.touched_ms); /* it may have been touched, and that is lost */
    p.own = false;
    p.modified_ms = 0;
    st = s3_pointer_write(s, digest, NULL, &p, err);
    if (st == BLOB_E_EXISTS)
        return s3_pointer_get(s, &k, out, err);
    if (st != BLOB_OK)
        return st;
    log_line(s->log, LOG_WARN, NULL, "S3 %s was taken by a late request, and is put back from its copy", k.text);
    *out = p;
    return BLOB_OK;
}

enum blob_status s3_pointer_read(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                 struct blob_error *err)
{
    struct s3_key k = s3_pointer_key(digest, S3_POINTER_ENDING);
    enum blob_status st = s3_pointer_get(s, &k, out, err);
    return st == BLOB_E_NOT_FOUND ? restore_from_copy(s, digest, out, err) : st;
}

static void nap(int64_t ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

enum blob_status s3_pointer_settled(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                    struct blob_error *err)
{
    struct s3_key k = s3_pointer_key(digest, S3_POINTER_ENDING);
    for (int64_t wait_ms = 20, waited_ms = 0;; waited_ms += wait_ms, wait_ms *= 2) {
        enum blob_status st = s3_pointer_get(s, &k, out, err);
        if (st != BLOB_OK || !out->clearing)
            return st;
        if (s3_pointer_doubt_is_over(s, out->touched_ms, out->modified_ms)) {
            out->clearing = false;
            return BLOB_OK;
        }
        if (waited_ms + wait_ms > SETTLE_MS)
            return BLOB_OK;
        nap(wait_ms);
    }
}
