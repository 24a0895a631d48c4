/*
 * blob_sweep - mark and sweep: removes blobs that no file names and that nobody has touched for the grace time.
 *
 * One walk over the blobs beside one over the file records, both in order of digest, so that the cost is that of two
 * listings and the memory that of a page. A blob without a record in the walk is looked up once more, and removed by
 * blob_remove(), which refuses when it was touched since. Where the blob was left by a destroyed file, the records of
 * uploads are read too, once for each 1024 of such blobs: an upload that was cut off before its file may come back to
 * it. On any doubt (a listing failed) nothing is removed. Marks of unnamed.h that have done their duty are cleared.
 *
 * Threads: one at a time. Ownership: everything is borrowed. Units: milliseconds, bytes.
 */
#ifndef BLOBD_CORE_UPKEEP_BLOB_SWEEP_H
#define BLOBD_CORE_UPKEEP_BLOB_SWEEP_H

#include "core/blob_store.h"

#include <stdatomic.h>

struct blob_cache;
struct file_catalog;
struct logger;
struct session_store;

struct blob_sweep {
    struct blob_store *store;
    struct file_catalog *catalog;
    struct session_store *sessions; /* may be NULL: then uploads are judged by their records alone */
    struct blob_cache *cache;       /* may be NULL */
    struct logger *log;
    const atomic_bool *stop;   /* CANCELED; may be NULL */
    int64_t before_ms;         /* blobs touched at or after this stay */
    int64_t orphans_before_ms; /* the same for those that no destroyed file has left (unnamed.h) */
    /* Results, also after a failure. */
    uint64_t blobs, bytes; /* removed */
};

enum blob_status blob_sweep_run(struct blob_sweep *sweep, struct blob_error *err) BLOB_MUST_CHECK;

#endif
