/*
 * s3_pointer - the object blobs/<aa>/<digest>.json, which says where the bytes of a blob are, and how it is changed.
 *
 * Every change of a pointer is a compare-and-swap on its ETag (where the driver has conditional writes). So touching,
 * committing and removing exclude each other on all nodes, and a step that comes late changes nothing. There is one
 * exception: the DELETE of a tombstone that says "clearing". The key is always in one of these states:
 *
 *     state      the object                what it means
 *     NONE       there is none             no such blob
 *     LIVE       names a data object       the blob is there
 *     DOUBTED    LIVE with doubted_ms      the blob is there; a late DELETE may still take this pointer, so that a copy
 *                                          of it is kept (s3_doubt.c)
 *     TOMBSTONE  removed                   the blob has ended, and its data are being deleted; with damaged they stay
 *     CLEARING   removed and clearing      the one DELETE of the tombstone is on its way since touched_ms, or was lost
 *
 * Who may change what. All of these are swaps by s3_pointer_write(), but for the two DELETEs:
 *
 *     from       to         who, and when
 *     NONE       LIVE       a commit (s3_commit.c), if there is still no object
 *     NONE       DOUBTED    whoever reads (s3_pointer_read), from the copy, if there is still no object
 *     LIVE       LIVE       a touch; a commit of the same content, which takes the data that are there if they are
 *                           right and puts its own in their place if not (DOUBTED stays DOUBTED)
 *     LIVE       TOMBSTONE  a removal (s3_blobs.c) or setting aside as damaged (s3_damaged.c)
 *     DOUBTED    LIVE       a listing, once S3_DOUBT_MS are over; the copy is deleted before
 *     DOUBTED    TOMBSTONE  a removal, once S3_DOUBT_MS are over and the copy is deleted; setting aside, which deletes
 *                           the copy afterwards
 *     DOUBTED    NONE       the late DELETE
 *     TOMBSTONE  LIVE       a commit, unless the tombstone's data object has the name of the commit's own
 *     TOMBSTONE  CLEARING   a listing, once the tombstone has rested for the sweep's grace time; the DELETE follows
 *     CLEARING   NONE       the DELETE
 *     CLEARING   TOMBSTONE  who sent the DELETE and had it refused, so that it is not on its way
 *     CLEARING   CLEARING   a listing that finds S3_DOUBT_MS over and the tombstone still there; another DELETE follows
 *     CLEARING   DOUBTED    a commit, which waits up to a second for the DELETE first; then it writes the copy
 *     CLEARING   LIVE       a commit that finds S3_DOUBT_MS over: no DELETE is on its way any more
 *
 * A doubted pointer that is touched or committed again stays doubted since the same time; so does a tombstone that was
 * made of one by setting aside, and the pointer that replaces it. A node of an earlier version knows of no doubt, and
 * drops it when it touches.
 *
 * Threads: any. Errors: as s3_client.h, and those named at each function.
 */
#ifndef BLOBD_BACKENDS_S3_S3_POINTER_H
#define BLOBD_BACKENDS_S3_S3_POINTER_H

#include "backends/s3/client/s3_client.h"
#include "backends/s3/s3_staged.h"
#include "core/text/bytebuf.h"

#define S3_POINTER_ENDING      ".json"
#define S3_POINTER_COPY_ENDING ".again.json"
#define S3_DOUBT_MS            (30 * 60 * 1000) /* a signature's life, and the clocks of two nodes and of S3 */

struct s3_store;

struct s3_pointer {
    uint64_t size;
    int64_t touched_ms;
    bool removed;       /* it is a tombstone: the blob is gone since touched_ms, and its data go */
    bool clearing;      /* the tombstone itself is being deleted since touched_ms: it is not to be overwritten */
    bool damaged;       /* with removed: its data were wrong, and stay for whoever looks into it */
    bool own;           /* touched_ms is known to its maker as its own: who touches next must change it */
    int64_t doubted_ms; /* since when the late DELETE of a tombstone may take this pointer; 0: none can */
    char data_key[S3_KEY_MAX + 1];
    char data_etag[S3_ETAG_MAX]; /* of the data object when it was made, without quotes; "": not known */
    char etag[S3_ETAG_MAX];      /* of the pointer object, as last read or written */
    int64_t modified_ms;         /* of the pointer object, as last read; 0: not told */
};

/* The key of the digest's pointer (S3_POINTER_ENDING) or of the copy of it (S3_POINTER_COPY_ENDING). */
struct s3_key s3_pointer_key(const struct digest *digest, const char *ending);
/* Writes the text of a pointer object. Each text has a nonce, so that no two have the same ETag. */
void s3_pointer_text(const struct s3_pointer *p, struct bytebuf *out);
/* Reads the one object at k, a pointer or a copy. NOT_FOUND. CORRUPT: it is not a pointer. */
enum blob_status s3_pointer_get(struct s3_store *s, const struct s3_key *k, struct s3_pointer *out,
                                struct blob_error *err) BLOB_MUST_CHECK;

/* Reads the digest's pointer. A tombstone is given as such. What a late DELETE took is put back from its copy first.
 * NOT_FOUND: there is no pointer object, and no copy. CORRUPT: it is not a pointer. */
enum blob_status s3_pointer_read(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* Reads the digest's pointer in order to replace it, and does not look for a copy. While the tombstone is being cleared
 * away it waits for that, up to a second. A tombstone that still says "clearing" then is given so: what replaces it is
 * doubted (doubted_ms). NOT_FOUND, CORRUPT: as s3_pointer_read(). */
enum blob_status s3_pointer_settled(struct s3_store *s, const struct digest *digest, struct s3_pointer *out,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* Replaces old by p; CONFLICT: the pointer is not old any more. With old NULL creates it; EXISTS: there is one. On OK
 * p->etag is filled. */
enum blob_status s3_pointer_write(struct s3_store *s, const struct digest *digest, const struct s3_pointer *old,
                                  struct s3_pointer *p, struct blob_error *err) BLOB_MUST_CHECK;

/* Can the one DELETE of a tombstone that said "clearing" at since_ms take effect no more? Two clocks must say so, ours
 * and S3's, and they must agree: neither may be trusted alone. modified_ms is the time of the object by S3's clock, or
 * 0 where S3 did not tell. */
bool s3_pointer_doubt_is_over(struct s3_store *s, int64_t since_ms, int64_t modified_ms);

#endif
