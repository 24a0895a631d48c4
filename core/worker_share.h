/*
 * worker_share - a bounded share of a worker pool, for work that strangers can ask for and that the rest must not wait
 * behind.
 *
 * At most limit of its jobs are with the pool at a time. The others wait here, and so take neither a worker nor a place
 * in the pool's queue. Each job belongs to somebody (a number, such as the hash of a client's address). Those who wait
 * take turns, and of one's jobs the newest goes first. So a client that asks for a few is served within a turn, however
 * many the others ask for. Once max_waiting wait, more is asked for than can be done: then the oldest job of the client
 * that asks for most is given up (share_job.drop), not the next to come.
 *
 * Threads: any. Ownership: a job is borrowed until run() or drop() is called, and may be freed within. The share
 * outlives its jobs, and is freed once the pool has drained.
 */
#ifndef BLOBD_CORE_WORKER_SHARE_H
#define BLOBD_CORE_WORKER_SHARE_H

#include "core/worker_pool.h"

struct worker_share;

struct share_job {
    struct worker_job job;           /* from here on the share's */
    struct share_job *newer, *older; /* of the same turn, while waiting */
    struct worker_share *share;
    unsigned turn;
    void (*run)(struct share_job *job);  /* on a worker */
    void (*drop)(struct share_job *job); /* instead; on the thread that submits another. No lock is held */
};

/* NULL: no memory. pool is borrowed. */
struct worker_share *worker_share_new(struct worker_pool *pool, unsigned limit, size_t max_waiting);
void worker_share_free(struct worker_share *share); /* NULL is fine */

/* run and drop must be set. UNAVAILABLE: the pool is full, or draining. */
enum blob_status worker_share_try_submit(struct worker_share *share, uint64_t whose,
                                         struct share_job *job) BLOB_MUST_CHECK;
size_t worker_share_waiting(struct worker_share *share);

#endif
