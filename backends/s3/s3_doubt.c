/*
 * s3_doubt - the copies of pointers that the late DELETE of a tombstone may yet take, and how a doubt ends.
 *
 * A tombstone is cleared away by the one request that is no swap (s3_blobs.c). Where its answer is lost, that DELETE
 * may take effect for half an hour, and it takes whatever stands there with it. A commit of the same content need not
 * wait meanwhile. It swaps the tombstone for its pointer, which says that it is doubted, and since when. Before that
 * pointer is relied on, the commit writes the same to blobs/<aa>/<digest>.again.json.
 *
 * Whoever reads and finds no pointer looks at that copy and puts it back (s3_pointer_read). That happens once: there
 * was one DELETE, and what it does it has done. A commit alone does not look: it stores the content anew.
 *
 * A doubted blob is not removed, so its copy brings back nothing that is gone. When the time is over, the sweep deletes
 * the copy and swaps the doubt away. A node of an earlier version knows of no doubt, and drops it by touching; the copy
 * that stays behind then goes by its age.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <stdio.h>
#include <string.h>

enum blob_status s3_doubt_copy(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                               struct blob_error *err)
{
    struct bytebuf b;
    struct s3_key k = s3_pointer_key(digest, S3_POINTER_COPY_ENDING);
    bytebuf_init(&b);
    s3_pointer_text(p, &b);
    const struct s3_body body = {.data = b.data, .length = b.len};
    enum blob_status st = b.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 pointer")
                                   : s3_put(s->client, k.text, &body, NULL, NULL, err);
    bytebuf_release(&b);
    return st;
}

enum blob_status s3_doubt_drop(struct s3_store *s, const struct digest *digest, struct blob_error *err)
{
    struct s3_key copy = s3_pointer_key(digest, S3_POINTER_COPY_ENDING);
    return s3_delete_once(s->client, copy.text, clock_wall_ms(), err);
}

/* If the time of the doubt is over, deletes the copy, then swaps the doubt away. If the pointer is gone, reading it
 * puts it back from the copy first, and the next listing shows it. */
static enum blob_status end_doubt(struct s3_store *s, const struct digest *digest, struct blob_error *err)
{
    struct s3_pointer p;
    enum blob_status st = s3_pointer_read(s, digest, &p, err);
    if (st != BLOB_OK || (p.doubted_ms && !s3_pointer_doubt_is_over(s, p.doubted_ms, 0)))
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
    if (sscanf(e->key, "blobs/%*2[0-9a-f]/%64[0-9a-f]" S3_POINTER_COPY_ENDING "%n", hex, &end) != 1 || end == 0 ||
        e->key[end] || digest_parse(hex, &digest) != BLOB_OK)
        return;
    if (e->object.modified_ms && s3_pointer_doubt_is_over(s, 0, e->object.modified_ms) &&
        end_doubt(s, &digest, &why) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "S3 %s stays for now: %s", e->key, why.text);
}
