/*
 * side_hash - a job that is taken over where nobody has begun it.
 *
 * The lane's worker waits for the storage for about as long as hashing takes: one after the other, a single fast upload
 * would get half of what either can do. Where no worker was free meanwhile, the lane hashes after the write.
 *
 * Invariant, under the lock: what is SIDE_READY is taken by whoever comes first, the job or the lane.
 */
#include "core/upload/side_hash.h"

#include "core/check.h"

#include <stddef.h>

#define SIDE_HASH_MAGIC 0x73696468u

void side_hash_parts(struct hash *hash, const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++)
        hash_update(hash, parts[i].iov_base, parts[i].iov_len);
}

void side_hash_init(struct side_hash *side, void (*hold)(void *owner), void (*let)(void *owner), void *owner)
{
    side->magic = SIDE_HASH_MAGIC;
    side->hold = hold;
    side->let = let;
    side->owner = owner;
    pthread_mutex_init(&side->lock, NULL);
    pthread_cond_init(&side->done, NULL);
}

void side_hash_release(struct side_hash *side)
{
    pthread_cond_destroy(&side->done);
    pthread_mutex_destroy(&side->lock);
}

static void side_run(struct worker_job *job)
{
    struct side_hash *side = CONTAINER_OF(job, struct side_hash, job);
    MAGIC_OK(side, SIDE_HASH_MAGIC);
    pthread_mutex_lock(&side->lock);
    side->out = false;
    bool mine = side->state == SIDE_READY;
    if (mine)
        side->state = SIDE_RUNNING;
    pthread_mutex_unlock(&side->lock);
    if (mine) {
        side_hash_parts(&side->hash, side->parts, side->count);
        pthread_mutex_lock(&side->lock);
        side->state = SIDE_IDLE;
        pthread_cond_signal(&side->done);
        pthread_mutex_unlock(&side->lock);
    }
    side->let(side->owner); /* which may free it */
}

void side_hash_begin(struct side_hash *side, struct worker_pool *pool, const struct hash *hash,
                     const struct iovec *parts, int count)
{
    side->hash = *hash;
    side->parts = parts;
    side->count = count;
    pthread_mutex_lock(&side->lock);
    side->state = SIDE_READY;
    bool submit = !side->out;
    side->out = true;
    pthread_mutex_unlock(&side->lock);
    if (!submit)
        return;
    side->hold(side->owner);
    side->job.run = side_run;
    worker_pool_submit(pool, NULL, &side->job);
}

const struct hash *side_hash_end(struct side_hash *side)
{
    pthread_mutex_lock(&side->lock);
    bool mine = side->state == SIDE_READY;
    if (mine)
        side->state = SIDE_IDLE;
    while (side->state != SIDE_IDLE)
        pthread_cond_wait(&side->done, &side->lock);
    pthread_mutex_unlock(&side->lock);
    if (mine)
        side_hash_parts(&side->hash, side->parts, side->count);
    return &side->hash;
}
