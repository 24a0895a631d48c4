/*
 * upload_hash - hashes what is being written beside the writing, on another worker.
 *
 * The lane's worker waits for the storage for about as long as hashing takes: one after the other, a single fast upload
 * would get half of what either can do. Where no worker was free meanwhile, the lane hashes after the write.
 *
 * Invariants, under the lock: what is SIDE_READY is taken by whoever comes first, the job or the lane. The job holds a
 * reference to the append while it is in the pool, and may find nothing to do.
 */
#include "core/upload/upload_internal.h"

void upload_hash_parts(struct hash *hash, const struct iovec *parts, int count)
{
    for (int i = 0; i < count; i++)
        hash_update(hash, parts[i].iov_base, parts[i].iov_len);
}

void upload_side_hash_init(struct side_hash *side)
{
    pthread_mutex_init(&side->lock, NULL);
    pthread_cond_init(&side->done, NULL);
}

void upload_side_hash_release(struct side_hash *side)
{
    pthread_cond_destroy(&side->done);
    pthread_mutex_destroy(&side->lock);
}

static void side_run(struct worker_job *job)
{
    struct upload_append *a = (struct upload_append *)((char *)job - offsetof(struct upload_append, side.job));
    struct side_hash *side = &a->side;
    MAGIC_OK(a, APPEND_MAGIC);
    pthread_mutex_lock(&side->lock);
    side->out = false;
    bool mine = side->state == SIDE_READY;
    if (mine)
        side->state = SIDE_RUNNING;
    pthread_mutex_unlock(&side->lock);
    if (mine) {
        upload_hash_parts(&side->hash, side->parts, side->count);
        pthread_mutex_lock(&side->lock);
        side->state = SIDE_IDLE;
        pthread_cond_signal(&side->done);
        pthread_mutex_unlock(&side->lock);
    }
    upload_append_unref(a);
}

void upload_side_hash_begin(struct upload_append *a, const struct iovec *parts, int count)
{
    struct side_hash *side = &a->side;
    side->hash = a->hash;
    side->parts = parts;
    side->count = count;
    pthread_mutex_lock(&side->lock);
    side->state = SIDE_READY;
    bool submit = !side->out;
    side->out = true;
    pthread_mutex_unlock(&side->lock);
    if (!submit)
        return;
    upload_append_ref(a);
    side->job.run = side_run;
    worker_pool_submit(a->svc->pool, NULL, &side->job);
}

const struct hash *upload_side_hash_end(struct upload_append *a)
{
    struct side_hash *side = &a->side;
    pthread_mutex_lock(&side->lock);
    bool mine = side->state == SIDE_READY;
    if (mine)
        side->state = SIDE_IDLE;
    while (side->state != SIDE_IDLE)
        pthread_cond_wait(&side->done, &side->lock);
    pthread_mutex_unlock(&side->lock);
    if (mine)
        upload_hash_parts(&side->hash, side->parts, side->count);
    return &side->hash;
}
