/*
 * scrubber - re-reads blobs against their digests, a little at a time, in order of digest, round after round: what a
 * disk loses in silence is noticed while a copy may still exist elsewhere.
 *
 * Threads: one at a time. Ownership: borrows all. Units: bytes. Damage is logged and counted
 * (blobd_corrupt_blobs_total), nothing is removed: a later upload of the same content heals it.
 */
#ifndef BLOBD_CORE_SCRUBBER_H
#define BLOBD_CORE_SCRUBBER_H

#include "core/blob_store.h"

struct blob_cache;
struct logger;
struct metrics;
struct scrubber;

/* cache, log and metrics may be NULL. */
struct scrubber *scrubber_new(struct blob_store *store, struct blob_cache *cache, struct logger *log,
                              struct metrics *metrics);
void scrubber_free(struct scrubber *s);

/* Reads up to max_bytes more. *read: how many (0 at the end of a round); *round_ended: every blob was met since the
 * last time. A failure leaves the blob at hand out, to be met in the next round. */
enum blob_status scrubber_step(struct scrubber *s, uint64_t max_bytes, uint64_t *read, bool *round_ended,
                               struct blob_error *err) BLOB_MUST_CHECK;
/* Found since it was made. */
uint64_t scrubber_damaged(const struct scrubber *s);

#endif
