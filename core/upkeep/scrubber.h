/*
 * scrubber - re-reads blobs against their digests, a little at a time, in order of digest, round after round: what a
 * disk loses in silence is noticed while a copy may still exist elsewhere.
 *
 * What does not match is read a second time, from the medium where that can be told; what is wrong then, too, is
 * logged, counted (blobd_corrupt_blobs_total) and set aside in the store (blob_set_aside): an upload of the same
 * content heals it.
 *
 * Threads: one at a time. Ownership: borrows all. Units: bytes.
 */
#ifndef BLOBD_CORE_UPKEEP_SCRUBBER_H
#define BLOBD_CORE_UPKEEP_SCRUBBER_H

#include "core/blob_store.h"

struct blob_cache;
struct logger;
struct metrics;
struct scrubber;

enum scrub_verdict {
    SCRUB_SOUND,
    SCRUB_DAMAGED,    /* and set aside */
    SCRUB_LEFT,       /* damaged, but it could not be set aside */
    SCRUB_UNREADABLE, /* the store could not read it now */
};
/* One blob that was met; text says what is wrong with it ("" if nothing is). */
typedef void scrub_seen_fn(const struct digest *digest, uint64_t size, enum scrub_verdict verdict, const char *text,
                           void *arg);

/* cache, log and metrics may be NULL. */
struct scrubber *scrubber_new(struct blob_store *store, struct blob_cache *cache, struct logger *log,
                              struct metrics *metrics);
void scrubber_free(struct scrubber *s);

/* Reads up to max_bytes more, and tells in *read how many these were (0 at the end of a round). *round_ended says that
 * every blob was met since the last time. After a failure no round has ended: the blob at hand is left out and met
 * again in the next round; if there is none at hand, it was the listing that failed, and the next step tries that
 * again. */
enum blob_status scrubber_step(struct scrubber *s, uint64_t max_bytes, uint64_t *read, bool *round_ended,
                               struct blob_error *err) BLOB_MUST_CHECK;
/* Does the same, but only with the blobs that blob_cache_suspect() was told of. *idle says that there is none. */
enum blob_status scrubber_recheck(struct scrubber *s, uint64_t max_bytes, uint64_t *read, bool *idle,
                                  struct blob_error *err) BLOB_MUST_CHECK;
/* Tells fn of each blob from now on. */
void scrubber_watch(struct scrubber *s, scrub_seen_fn *fn, void *arg);
/* How many damaged blobs were found since the scrubber was made. */
uint64_t scrubber_damaged(const struct scrubber *s);

#endif
