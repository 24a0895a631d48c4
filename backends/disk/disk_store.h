/*
 * disk_store - the storage contract on a local disk, or on a file system that nodes share.
 *
 * Where things are: disk_layout.h. How small changes become durable together: disk_journal.h. Caps: STORE_READ_STAGED,
 * STORE_HAS_FD; STORE_SHARED when shared.
 *
 * One process has an unshared store: it holds an exclusive lock (flock) on root/lock, and a second one is refused.
 * Shared, all processes hold the lock shared, and there is no journal: what one node acknowledged must be on the disk
 * for the others, not in a journal of the first.
 *
 * Opening recovers: the journal is carried out, temporary files go, everything is synced. A store may be opened with
 * other options than before. Threads, ownership, units, errors: as core/blob_store.h.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_STORE_H
#define BLOBD_BACKENDS_DISK_DISK_STORE_H

#include "core/blob_store.h"

struct logger;

struct disk_options {
    const char *root; /* made where it is missing */
    bool journal;     /* not when shared */
    bool shared;
    uint64_t keep_cached_bytes;     /* of an upload; the rest is written past the page cache or, where that cannot be,
                                       leaves it when it is durable */
    size_t direct_min_bytes;        /* smaller writes go by the page cache, which gathers them; 0: 128 KiB */
    uint64_t reserve_bytes;         /* blob_store_room() leaves so much free */
    uint64_t journal_segment_bytes; /* 0: 16 MiB */
    unsigned journal_segments;      /* 0: 16 at most */
    int64_t checkpoint_ms;          /* 0: 5000 */
    bool probe;                     /* refuse a file system that lacks what the store relies on */
    struct logger *log;             /* may be NULL */
};

/*
 * CONFLICT: another process uses it (the text names its pid), or it is shared and this is not, or the other way round.
 * UNSUPPORTED: the file system lacks something. CORRUPT: store.json is not one. UNSUPPORTED: it is of a later version.
 */
enum blob_status disk_store_open(const struct disk_options *opt, struct blob_store **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;

/* How many names of directories listings of records have read since the store was opened: for tests and measuring. */
uint64_t disk_store_names_read(struct blob_store *store);

#endif
