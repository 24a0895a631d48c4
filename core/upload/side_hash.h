/*
 * side_hash - hashes what is being written beside the writing, on another worker.
 *
 *     side_hash_begin(&side, pool, &hash, parts, count);
 *     ... the parts are written ...
 *     hash = *side_hash_end(&side);
 *
 * Threads: begin and end in one thread, in turns; the worker's job may still be in the pool after end, where it finds
 * nothing to do. Ownership: the parts stay the caller's, unchanged, until end. While the job is in the pool it holds
 * whatever contains the side_hash: hold(owner) is called before, let(owner) after.
 */
#ifndef BLOBD_CORE_UPLOAD_SIDE_HASH_H
#define BLOBD_CORE_UPLOAD_SIDE_HASH_H

#include "core/digest.h"
#include "core/worker_pool.h"

#include <pthread.h>
#include <sys/uio.h>

struct side_hash {
    unsigned magic;
    pthread_mutex_t lock; /* guards state and out */
    pthread_cond_t done;
    enum { SIDE_IDLE, SIDE_READY, SIDE_RUNNING } state;
    bool out; /* the job is in the pool */
    struct worker_job job;
    struct hash hash;
    const struct iovec *parts;
    int count;
    void (*hold)(void *owner);
    void (*let)(void *owner);
    void *owner;
};

void side_hash_init(struct side_hash *side, void (*hold)(void *owner), void (*let)(void *owner), void *owner);
/* The job must not be in the pool: so from let() at the earliest. */
void side_hash_release(struct side_hash *side);
/* Begins to hash the parts on another worker, from hash on. */
void side_hash_begin(struct side_hash *side, struct worker_pool *pool, const struct hash *hash,
                     const struct iovec *parts, int count);
/* Waits for the hash over the parts; computes it here where no worker has begun. Borrowed until the next begin. */
const struct hash *side_hash_end(struct side_hash *side);

/* Adds the parts to hash, here and now. */
void side_hash_parts(struct hash *hash, const struct iovec *parts, int count);

#endif
