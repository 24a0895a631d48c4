/*
 * worker_pool - one queue of jobs that may run now, under one mutex that is held for a few instructions.
 *
 * The ready queue holds jobs without a lane and, of every active lane, exactly one job; the others wait in the lane.
 * When a lane's job has run, its next one goes to the end of the ready queue. So order within a lane and turns
 * between lanes need no scheduler of their own.
 *
 * Waking is what costs (a system call, often a switch of context), so it is rationed: idle workers stand in a stack,
 * the latest, whose caches are warm, on top, each with a condition of its own; and at most one is on its way at a
 * time. Invariant: while jobs are ready and workers idle, one is on its way; when it takes its job it sends the next
 * one, if there is still need. A burst of short jobs is thus run by the workers that are up, and no herd is woken for
 * it, while a job that blocks holds up nobody.
 *
 * Locks: the pool's mutex only; run() is called without it.
 */
#include "core/worker_pool.h"

#include "core/check.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

struct worker {
    struct worker_pool *pool;
    struct worker *below; /* in the stack of idle workers */
    pthread_cond_t wake;
    pthread_t thread;
    bool woken;
};

struct worker_pool {
    pthread_mutex_t lock;
    struct worker_job *head, *tail; /* ready */
    struct worker *idle;            /* the top of the stack */
    bool waking;                    /* a worker is on its way */
    bool draining, stopping;
    unsigned running, drainers;
    size_t max_queued;
    atomic_size_t queued; /* ready or in a lane; written under the lock */
    pthread_cond_t drained;
    unsigned thread_count;
    struct worker workers[];
};

static void pool_count(struct worker_pool *pool, int change)
{
    size_t queued = atomic_load_explicit(&pool->queued, memory_order_relaxed);
    atomic_store_explicit(&pool->queued, queued + (size_t)change, memory_order_relaxed);
}

static void pool_push_ready(struct worker_pool *pool, struct worker_job *job)
{
    job->next = NULL;
    if (pool->head)
        pool->tail->next = job;
    else
        pool->head = job;
    pool->tail = job;
}

/* The idle worker to send, if one is needed; the caller signals it after unlocking. */
static struct worker *pool_pick_worker(struct worker_pool *pool)
{
    struct worker *worker = pool->idle;
    if (!pool->head || !worker || pool->waking)
        return NULL;
    pool->idle = worker->below;
    worker->woken = true;
    pool->waking = true;
    return worker;
}

static void pool_unlock_and_wake(struct worker_pool *pool)
{
    struct worker *worker = pool_pick_worker(pool);
    pthread_mutex_unlock(&pool->lock);
    if (worker)
        pthread_cond_signal(&worker->wake);
}

static void pool_enqueue(struct worker_pool *pool, struct worker_lane *lane, struct worker_job *job)
{
    CHECK(job->run != NULL);
    job->lane = lane;
    pool_count(pool, 1);
    if (!lane || !lane->active) {
        if (lane)
            lane->active = true;
        pool_push_ready(pool, job);
        return;
    }
    job->next = NULL;
    if (lane->head)
        lane->tail->next = job;
    else
        lane->head = job;
    lane->tail = job;
}

void worker_pool_submit(struct worker_pool *pool, struct worker_lane *lane, struct worker_job *job)
{
    pthread_mutex_lock(&pool->lock);
    pool_enqueue(pool, lane, job);
    pool_unlock_and_wake(pool);
}

enum blob_status worker_pool_try_submit(struct worker_pool *pool, struct worker_lane *lane, struct worker_job *job)
{
    pthread_mutex_lock(&pool->lock);
    if (pool->draining || worker_pool_queued(pool) >= pool->max_queued) {
        pthread_mutex_unlock(&pool->lock);
        return BLOB_E_UNAVAILABLE;
    }
    pool_enqueue(pool, lane, job);
    pool_unlock_and_wake(pool);
    return BLOB_OK;
}

size_t worker_pool_queued(const struct worker_pool *pool)
{
    return atomic_load_explicit(&pool->queued, memory_order_relaxed);
}

unsigned worker_pool_threads(const struct worker_pool *pool)
{
    return pool->thread_count;
}

/* After a job of lane has run. */
static void lane_advance(struct worker_pool *pool, struct worker_lane *lane)
{
    struct worker_job *job = lane->head;
    if (job) {
        lane->head = job->next;
        pool_push_ready(pool, job);
    } else {
        lane->active = false;
    }
}

/* Waits for a ready job and takes it; NULL when the pool stops and none is left. Under the lock. */
static struct worker_job *worker_take(struct worker *worker)
{
    struct worker_pool *pool = worker->pool;
    while (!pool->head) {
        if (pool->stopping)
            return NULL;
        worker->woken = false;
        worker->below = pool->idle;
        pool->idle = worker;
        if (pool->drainers > 0 && pool->running == 0)
            pthread_cond_broadcast(&pool->drained);
        while (!worker->woken)
            pthread_cond_wait(&worker->wake, &pool->lock);
        pool->waking = false;
    }
    struct worker_job *job = pool->head;
    pool->head = job->next;
    pool_count(pool, -1);
    pool->running++;
    return job;
}

static void *worker_main(void *arg)
{
    struct worker *worker = arg;
    struct worker_pool *pool = worker->pool;
    struct worker_job *job;
    pthread_mutex_lock(&pool->lock);
    while ((job = worker_take(worker)) != NULL) {
        struct worker_lane *lane = job->release_lane ? NULL : job->lane;
        CHECK(!job->release_lane || !job->lane || !job->lane->head);
        pool_unlock_and_wake(pool);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        pool->running--;
        if (lane)
            lane_advance(pool, lane);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

bool worker_pool_drain(struct worker_pool *pool, int64_t timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(timeout_ms / 1000);
    until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&pool->lock);
    pool->draining = true;
    pool->drainers++;
    int rc = 0;
    while (rc == 0 && (worker_pool_queued(pool) > 0 || pool->running > 0))
        rc = pthread_cond_timedwait(&pool->drained, &pool->lock, &until);
    bool empty = worker_pool_queued(pool) == 0 && pool->running == 0;
    pool->drainers--;
    pthread_mutex_unlock(&pool->lock);
    return empty;
}

/* Signals belong to the main thread: workers, and what they start, block them all. */
static int worker_start(struct worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        pthread_setname_np(worker->thread, "blobd-worker");
    return rc;
}

enum blob_status worker_pool_new(unsigned threads, size_t max_queued, struct worker_pool **out, struct blob_error *err)
{
    CHECK(threads > 0);
    struct worker_pool *pool = calloc(1, sizeof *pool + threads * sizeof pool->workers[0]);
    if (!pool)
        return blob_fail(err, BLOB_E_NO_MEMORY, ENOMEM, "worker pool");
    pool->max_queued = max_queued;
    atomic_init(&pool->queued, 0);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->drained, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (unsigned i = 0; i < threads; i++) {
        struct worker *worker = &pool->workers[i];
        worker->pool = pool;
        pthread_cond_init(&worker->wake, NULL);
        int rc = worker_start(worker);
        if (rc != 0) {
            pthread_cond_destroy(&worker->wake);
            worker_pool_free(pool);
            return blob_fail(err, BLOB_E_UNAVAILABLE, rc, "start worker thread %u of %u", i + 1, threads);
        }
        pool->thread_count++;
    }
    *out = pool;
    return BLOB_OK;
}

void worker_pool_free(struct worker_pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    for (; pool->idle; pool->idle = pool->idle->below) {
        pool->idle->woken = true;
        pthread_cond_signal(&pool->idle->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->workers[i].thread, NULL);
    CHECK(worker_pool_queued(pool) == 0);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_cond_destroy(&pool->workers[i].wake);
    pthread_cond_destroy(&pool->drained);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
