/*
 * s3_blobs - what the store does with whole blobs: stat, touch, remove, list, URLs; and the removal of tombstones.
 *
 * Each of them reads the blob's pointer and, where it changes something, swaps it (s3_pointer.h). No step here deletes
 * a pointer that is in use: S3 has no conditional delete to rely on. So a removal swaps the pointer to a tombstone,
 * which ends the blob, and then deletes the data that the tombstone names. This deletion may take as long as it likes,
 * because a data object has the name of its upload: a commit swaps the tombstone for its own pointer at any time.
 *
 * A tombstone that has rested for the sweep's grace time is cleared away, by the one request that is not a swap. So it
 * must be certain that the DELETE cannot meet a newer pointer, however late it takes effect. It is done in two steps:
 *   1. The tombstone is swapped to "clearing". The sweep leaves it alone for S3_DOUBT_MS from then on.
 *   2. The DELETE is sent, once, under a signature of the time of that swap. Endpoints refuse such a signature after a
 *      quarter of an hour.
 * When it is not known what became of the DELETE, the tombstone stays as it is, should it still be there, until that
 * time is over. A commit of the same content does not wait for that: s3_doubt.c.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <stdio.h>
#include <stdlib.h>

#define SWAPS_MAX 10

/* ---- removal ---- */

/* Sends the one DELETE of a tombstone that says "clearing" since p->touched_ms. */
static enum blob_status delete_cleared(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                                       struct blob_error *err)
{
    struct s3_key k = s3_pointer_key(digest, S3_POINTER_ENDING);
    enum blob_status st = s3_delete_once(s->client, k.text, p->touched_ms, err);
    if (st != BLOB_E_DENIED)
        return st;
    struct blob_error ignored;
    struct s3_pointer back = *p;
    back.clearing = false;
    back.touched_ms = clock_wall_ms_after(p->touched_ms);
    /* The DELETE was refused, so it is not on its way: nobody need wait for it. */
    enum blob_status undone = s3_pointer_write(s, digest, p, &back, &ignored);
    return undone == BLOB_E_CANCELED ? undone : st;
}

/* Deletes the data that a tombstone names; those of a damaged blob stay. */
static enum blob_status delete_removed(struct s3_store *s, const struct s3_pointer *p, struct blob_error *err)
{
    return p->damaged ? BLOB_OK : s3_delete(s->client, p->data_key, err);
}

/* Clears a tombstone away if its time has come. Does nothing otherwise, or if another node has changed it. */
static enum blob_status clear_tombstone(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                                        struct blob_error *err)
{
    pthread_mutex_lock(&s->lock);
    int64_t before_ms = s->tombstones_before_ms;
    pthread_mutex_unlock(&s->lock);
    if (p->clearing ? !s3_pointer_doubt_is_over(s, p->touched_ms, p->modified_ms) : p->touched_ms >= before_ms)
        return BLOB_OK;
    enum blob_status st = delete_removed(s, p, err); /* a crash may have cut its remover off */
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
        int64_t ignored_ms; /* p.touched_ms is by the clock of the node that wrote it, before_ms by ours */
        st = s3_clocks_agree(s, &ignored_ms, err);
        if (st != BLOB_OK)
            return st;
        if (p.touched_ms >= before_ms)
            return blob_fail(err, BLOB_E_CONFLICT, 0, "the blob was touched since");
        if (s3_blob_is_read(s, digest))
            return blob_fail(err, BLOB_E_CONFLICT, 0, "the blob is being read");
        if (p.doubted_ms) { /* its copy would bring it back */
            if (!s3_pointer_doubt_is_over(s, p.doubted_ms, 0))
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

/* Takes the digest out of a listed key. false: the key is not a pointer's. */
static bool digest_of_key(const char *key, struct digest *out)
{
    char hex[DIGEST_HEX_CHARS + 1];
    int end = 0;
    if (sscanf(key, "blobs/%*2[0-9a-f]/%64[0-9a-f].json%n", hex, &end) != 1 || end == 0 || key[end])
        return false;
    return digest_parse(hex, out) == BLOB_OK;
}

/* Clears a listed tombstone away. That this fails is no reason not to list the blobs. */
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
    struct s3_key last = after ? s3_pointer_key(after, S3_POINTER_ENDING) : (struct s3_key){""};
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
