/*
 * worker_pool - threads for everything that may block, with order per upload.
 *
 * Jobs with the same lane run one at a time, in order of submission; jobs without a lane run as soon as a thread is
 * free. Lanes take turns, so that one busy upload cannot starve the rest. A job is embedded in what it works on:
 * submitting allocates nothing.
 *
 * Bound: worker_pool_try_submit() refuses once max_queued jobs wait. New requests come by it, and are answered 503
 * then. worker_pool_submit() never refuses. It is for the steps of work already admitted, which the body pool bounds.
 *
 * Threads: any. Ownership: a job is borrowed until its run() is called, a lane until it is idle. A job may free itself,
 * its lane, or both in run() as its last act. For that, the pool does not touch a job after it has called run(), nor a
 * lane after the run() of a job whose release_lane is set (nothing may be queued behind such a job).
 */
#ifndef BLOBD_CORE_WORKER_POOL_H
#define BLOBD_CORE_WORKER_POOL_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

struct worker_pool;

struct worker_job {
    struct worker_job *next;  /* the pool's */
    struct worker_lane *lane; /* the pool's */
    void (*run)(struct worker_job *job);
    bool release_lane; /* the lane's last job: run() may free the lane */
};

/* A zeroed lane is ready for use. Its members are the pool's. */
struct worker_lane {
    struct worker_job *head, *tail; /* behind the one that is ready or running */
    bool active;                    /* one is ready or running */
};

enum blob_status worker_pool_new(unsigned threads, size_t max_queued, struct worker_pool **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* lane may be NULL. job->run and job->release_lane must be set; the rest need not. */
void worker_pool_submit(struct worker_pool *pool, struct worker_lane *lane, struct worker_job *job);
/* UNAVAILABLE: full, or draining. */
enum blob_status worker_pool_try_submit(struct worker_pool *pool, struct worker_lane *lane,
                                        struct worker_job *job) BLOB_MUST_CHECK;
/* Refuses new try_submits; returns when nothing is queued or running, or after timeout_ms (then false). */
bool worker_pool_drain(struct worker_pool *pool, int64_t timeout_ms);
size_t worker_pool_queued(const struct worker_pool *pool);
unsigned worker_pool_threads(const struct worker_pool *pool);
/* Runs what is queued, joins the threads and frees the pool. Nobody but the jobs themselves may still submit. */
void worker_pool_free(struct worker_pool *pool);

#endif
