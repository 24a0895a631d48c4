/*
 * s3_blobs - pointers: blobs/<aa>/<digest>.json says where the bytes of a blob are.
 *
 * Every change of a pointer is a compare-and-swap on its ETag (where the driver has conditional writes), so that
 * touching, committing and removing exclude each other on all nodes, and a step that comes late changes nothing. S3 has
 * no conditional delete to rely on, so a removal deletes no pointer: it swaps it to a tombstone, which ends the blob,
 * and deletes the data that the tombstone names. A data object's name is its upload's, so that this deletion may take
 * as long as it likes: a commit swaps the tombstone for its own pointer at any time.
 *
 * A tombstone that has rested for the sweep's grace time is cleared away, by the one request that is not a swap. So it
 * must be certain that it cannot meet a newer pointer, however late it takes effect. First the tombstone is swapped to
 * "clearing", which the sweep leaves alone for S3_DOUBT_MS. Then the DELETE is sent, once, under a signature of
 * the time of that swap, which endpoints refuse after a quarter of an hour. When it is not known what became of it,
 * the tombstone, should it still be there, stays as it is until that time is over. A commit of the same content does
 * not wait for that: s3_doubt.c.
 *
 * A blob that was read and found wrong ends by a tombstone as well (s3_damaged.c), one that says "damaged": its data
 * stay.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define POINTER_MAX 1024
#define SWAPS_MAX   10
#define SETTLE_MS   1000 /* a DELETE that is not held up has been answered by then */

struct s3_key s3_pointer_key(const struct digest *digest, const char *ending)
{
    char hex[DIGEST_HEX_CHARS + 1];
    struct s3_key k;
    digest_hex(digest, hex);
    snprintf(k.text, sizeof k.text, "blobs/%.2s/%s%s", hex, hex, ending);
    return k;
}

static struct s3_key pointer_key(const struct digest *digest)
{
    return s3_pointer_key(digest, ".json");
}

/* ---- reading and writing one ---- */

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

enum blob_status s3_pointer_read(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                 struct blob_error *err)
{
    struct s3_key k = pointer_key(digest);
    enum blob_status st = s3_pointer_get(s, &k, out, err);
    return st == BLOB_E_NOT_FOUND ? s3_doubt_restore(s, digest, out, err) : st;
}

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
    struct s3_key k = pointer_key(digest);
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

/* ---- removal ---- */

static bool clearing_is_over(struct s3_store *s, const struct s3_pointer *p)
{
    return s3_doubt_is_over(s, p->touched_ms, p->modified_ms);
}

/* Sends the one DELETE of a tombstone that says "clearing" since p->touched_ms. */
static enum blob_status delete_cleared(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                                       struct blob_error *err)
{
    struct s3_key k = pointer_key(digest);
    enum blob_status st = s3_delete_once(s->client, k.text, p->touched_ms, err);
    if (st != BLOB_E_DENIED)
        return st;
    struct blob_error ignored;
    struct s3_pointer back = *p;
    back.clearing = false;
    back.touched_ms = clock_wall_ms_after(p->touched_ms);
    /* It was refused, so that it is not on its way: nobody need wait for it. */
    enum blob_status undone = s3_pointer_write(s, digest, p, &back, &ignored);
    return undone == BLOB_E_CANCELED ? undone : st;
}

/* The data of a tombstone. */
static enum blob_status delete_removed(struct s3_store *s, const struct s3_pointer *p, struct blob_error *err)
{
    return p->damaged ? BLOB_OK : s3_delete(s->client, p->data_key, err);
}

/* Clears a tombstone away if its time has come; else, or where another has changed it, does nothing. */
static enum blob_status clear_tombstone(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                                        struct blob_error *err)
{
    pthread_mutex_lock(&s->lock);
    int64_t before_ms = s->tombstones_before_ms;
    pthread_mutex_unlock(&s->lock);
    if (p->clearing ? !clearing_is_over(s, p) : p->touched_ms >= before_ms)
        return BLOB_OK;
    enum blob_status st = delete_removed(s, p, err); /* its remover may have been cut off */
    if (st != BLOB_OK)
        return st;
    struct s3_pointer clearing = *p;
    clearing.clearing = true;
    clearing.touched_ms = clock_wall_ms_after(p->touched_ms);
    st = s3_pointer_write(s, digest, p, &clearing, err);
    if (st == BLOB_E_CONFLICT)
        return BLOB_OK;
    return st == BLOB_OK ? delete_cleared(s, digest, &clearing, err) : st;
}

static void nap(int64_t ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

enum blob_status s3_pointer_settled(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                    struct blob_error *err)
{
    struct s3_key k = pointer_key(digest);
    for (int64_t wait_ms = 20, waited_ms = 0;; waited_ms += wait_ms, wait_ms *= 2) {
        enum blob_status st = s3_pointer_get(s, &k, out, err);
        if (st != BLOB_OK || !out->clearing)
            return st;
        if (clearing_is_over(s, out)) {
            out->clearing = false;
            return BLOB_OK;
        }
        if (waited_ms + wait_ms > SETTLE_MS)
            return BLOB_OK;
        nap(wait_ms);
    }
}

enum blob_status s3_blob_remove(struct blob_store *base, const struct digest *digest, int64_t before_ms,
                                struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_pointer p;
    enum blob_status st = s3_pointer_read(s, digest, &p, err);
    if (st == BLOB_E_NOT_FOUND)
        return BLOB_OK;
    if (st != BLOB_OK)
        return st;
    if (p.clearing)
        return BLOB_OK;
    if (!p.removed) {
        int64_t ignored_ms; /* touched_ms is by the clock of the node that wrote it, before_ms by ours */
        st = s3_clocks_agree(s, &ignored_ms, err);
        if (st != BLOB_OK)
            return st;
        if (p.touched_ms >= before_ms)
            return blob_fail(err, BLOB_E_CONFLICT, 0, "the blob was touched since");
        if (s3_blob_is_read(s, digest))
            return blob_fail(err, BLOB_E_CONFLICT, 0, "the blob is being read");
        if (p.doubted_ms) { /* its copy would bring it back */
            if (!s3_doubt_is_over(s, p.doubted_ms, 0))
                return blob_fail(err, BLOB_E_CONFLICT, 0, "an earlier removal of the blob may not have ended");
            st = s3_doubt_drop(s, digest, err);
            if (st != BLOB_OK)
                return st;
        }
        struct s3_pointer gone = p;
        gone.removed = true;
        gone.doubted_ms = 0;
        gone.touched_ms = clock_wall_ms_after(p.touched_ms);
        st = s3_pointer_write(s, digest, &p, &gone, err);
        if (st != BLOB_OK)
            return st;
        p = gone;
    }
    return delete_removed(s, &p, err);
}

/* ---- stat, touch, list, url ---- */

static enum blob_status read_live(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                  struct blob_error *err)
{
    enum blob_status st = s3_pointer_read(s, digest, out, err);
    if (st == BLOB_OK && out->removed)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "no such blob");
    return st;
}

enum blob_status s3_blob_stat(struct blob_store *base, const struct digest *digest, struct blob_info *out,
                              struct blob_error *err)
{
    struct s3_pointer p;
    enum blob_status st = read_live(s3_store_of(base), digest, &p, err);
    if (st == BLOB_OK)
        *out = (struct blob_info){.size = p.size, .touched_ms = p.touched_ms};
    return st;
}

enum blob_status s3_blob_touch(struct blob_store *base, const struct digest *digest, int64_t *touched_ms,
                               struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    int64_t began_ms = clock_wall_ms();
    for (int i = 0; i < SWAPS_MAX; i++) {
        struct s3_pointer p;
        enum blob_status st = read_live(s, digest, &p, err);
        if (st != BLOB_OK)
            return st;
        if (p.touched_ms > began_ms && !p.own && !touched_ms) /* another's touch does as well */
            return BLOB_OK;
        struct s3_pointer touched = p;
        touched.touched_ms = clock_wall_ms_after(p.touched_ms);
        touched.own = touched_ms != NULL;
        st = s3_pointer_write(s, digest, &p, &touched, err);
        if (st == BLOB_OK && touched_ms)
            *touched_ms = touched.touched_ms;
        if (st != BLOB_E_CONFLICT)
            return st;
    }
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3: the blob's pointer is changed by many at a time");
}

/* One key of a listing. false: go on with the next. */
static bool digest_of_key(const char *key, struct digest *out)
{
    char hex[DIGEST_HEX_CHARS + 1];
    int end = 0;
    if (sscanf(key, "blobs/%*2[0-9a-f]/%64[0-9a-f].json%n", hex, &end) != 1 || end == 0 || key[end])
        return false;
    return digest_parse(hex, out) == BLOB_OK;
}

/* One that cannot be cleared now is no reason not to list the blobs. */
static void see_tombstone(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p)
{
    struct blob_error why;
    if (clear_tombstone(s, digest, p, &why) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "the tombstone of a removed blob stays for now: %s", why.text);
}

enum blob_status s3_blob_list(struct blob_store *base, const struct digest *after, blob_list_fn *fn, void *arg,
                              struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_key last = after ? pointer_key(after) : (struct s3_key){""};
    for (bool more = true; more;) {
        struct s3_page page;
        enum blob_status st = s3_list(s->client, "blobs/", last.text[0] ? last.text : NULL, 1000, &page, err);
        if (st != BLOB_OK)
            return st;
        more = page.more;
        for (size_t i = 0; i < page.count; i++) {
            struct digest digest;
            struct s3_pointer p;
            snprintf(last.text, sizeof last.text, "%s", page.entries[i].key);
            if (!digest_of_key(last.text, &digest)) {
                s3_doubt_see(s, &page.entries[i]);
                continue;
            }
            st = s3_pointer_read(s, &digest, &p, err);
            if (st == BLOB_OK && p.removed)
                see_tombstone(s, &digest, &p);
            if (st == BLOB_E_NOT_FOUND || (st == BLOB_OK && p.removed))
                continue;
            const struct blob_info info = {.size = p.size, .touched_ms = p.touched_ms};
            if (st != BLOB_OK || !fn(&digest, &info, arg)) {
                s3_page_release(&page);
                return st;
            }
        }
        s3_page_release(&page);
    }
    return BLOB_OK;
}

enum blob_status s3_blob_url(struct blob_store *base, const struct digest *digest, const char *disposition,
                             const char *content_type, int64_t expiry_ms, struct bytebuf *url, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_pointer p;
    enum blob_status st = read_live(s, digest, &p, err);
    if (st != BLOB_OK)
        return st;
    int64_t expiry_s = expiry_ms / 1000;
    char *text;
    if (expiry_s < 1)
        expiry_s = 1;
    if (expiry_s > 604800)
        expiry_s = 604800;
    st = s3_presign(s->client, p.data_key, expiry_s, disposition, content_type, &text, err);
    if (st != BLOB_OK)
        return st;
    bytebuf_text(url, text);
    free(text);
    return url->failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 URL") : BLOB_OK;
}
