/*
 * s3_doubt - pointers that the late DELETE of a tombstone may yet take, and their copies.
 *
 * A tombstone is cleared away by the one request that is no swap (s3_blobs.c). Where its answer is lost it may take
 * effect for half an hour, and take whatever stands there with it. Who stores the same content meanwhile need not wait:
 * he swaps the tombstone for his pointer, which says that it is doubted, and since when; before it is relied on, the
 * same is written to blobs/<aa>/<digest>.again.json. Whoever finds no pointer looks there, and puts it back, once:
 * there was one DELETE, and what it does it has done. A commit alone does not look: it stores the content anew.
 *
 * A doubted blob is not removed, so that its copy brings back nothing that is gone. When the time is over, the sweep
 * deletes the copy and swaps the doubt away. A copy that a node of an earlier version has outlived (it knows of no
 * doubt, and touching drops it) goes by its age.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <stdio.h>
#include <string.h>

#define COPY_ENDING ".again.json"

bool s3_doubt_is_over(struct s3_store *s, int64_t since_ms, int64_t modified_ms)
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

enum blob_status s3_doubt_copy(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                               struct blob_error *err)
{
    struct bytebuf b;
    struct s3_key k = s3_pointer_key(digest, COPY_ENDING);
    bytebuf_init(&b);
    s3_pointer_text(p, &b);
    const struct s3_body body = {.data = b.data, .length = b.len};
    enum blob_status st = b.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 pointer")
                                   : s3_put(s->client, k.text, &body, NULL, NULL, err);
    bytebuf_release(&b);
    return st;
}

enum blob_status s3_doubt_restore(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                  struct blob_error *err)
{
    struct s3_pointer p;
    struct s3_key copy = s3_pointer_key(digest, COPY_ENDING), k = s3_pointer_key(digest, ".json");
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

enum blob_status s3_doubt_drop(struct s3_store *s, const struct digest *digest, struct blob_error *err)
{
    struct s3_key copy = s3_pointer_key(digest, COPY_ENDING);
    return s3_delete_once(s->client, copy.text, clock_wall_ms(), err);
}

/* Its time is over: the copy goes, then the doubt. Or it is needed: the pointer is put back, for the next listing. */
static enum blob_status end_doubt(struct s3_store *s, const struct digest *digest, struct blob_error *err)
{
    struct s3_pointer p;
    enum blob_status st = s3_pointer_read(s, digest, &p, err);
    if (st != BLOB_OK || (p.doubted_ms && !s3_doubt_is_over(s, p.doubted_ms, 0)))
        return st;
    st = s3_doubt_drop(s, digest, err);
    if (st != BLOB_OK || !p.doubted_ms)
        return st;
    struct s3_pointer sure = p;
    sure.doubted_ms = 0;
    st = s3_pointer_write(s, digest, &p, &sure, err);
    return st == BLOB_E_CONFLICT ? BLOB_OK : st; /* touched just now: the doubt without a copy does no harm */
}

void s3_doubt_see(struct s3_store *s, const struct s3_entry *e)
{
    char hex[DIGEST_HEX_CHARS + 1];
    int end = 0;
    struct digest digest;
    struct blob_error why;
    if (sscanf(e->key, "blobs/%*2[0-9a-f]/%64[0-9a-f]" COPY_ENDING "%n", hex, &end) != 1 || end == 0 || e->key[end] ||
        digest_parse(hex, &digest) != BLOB_OK)
        return;
    if (e->object.modified_ms && s3_doubt_is_over(s, 0, e->object.modified_ms) &&
        end_doubt(s, &digest, &why) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "S3 %s stays for now: %s", e->key, why.text);
}
