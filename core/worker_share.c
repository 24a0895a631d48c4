/*
 * worker_share - who ends one begins the next, so that no thread and no timer belongs to it.
 *
 * Turns are kept by a table of stacks, one for each class of who asks (two who fall into the same one share it), and a
 * hand that goes round. Newest first within one: under more than can be done, first come first served makes everybody
 * wait as long as the queue is, and most answers are late ones to those who have gone.
 *
 * Locks: the share's own, around the table; the pool's is taken within it (try_submit), never the reverse.
 */
#include "core/worker_share.h"

#include "core/check.h"

#include <pthread.h>
#include <stdlib.h>

#define TURNS 256u

struct turn {
    struct share_job *newest, *oldest;
    size_t waiting;
};

struct worker_share {
    struct worker_pool *pool;
    unsigned limit;
    size_t max_waiting;
    pthread_mutex_t lock;
    unsigned running; /* with the pool */
    unsigned hand;    /* the turn that was served last */
    size_t waiting;
    struct turn turns[TURNS];
};

struct worker_share *worker_share_new(struct worker_pool *pool, unsigned limit, size_t max_waiting)
{
    CHECK(limit > 0 && max_waiting > 0);
    struct worker_share *share = calloc(1, sizeof *share);
    if (share == NULL)
        return NULL;
    share->pool = pool;
    share->limit = limit;
    share->max_waiting = max_waiting;
    pthread_mutex_init(&share->lock, NULL);
    return share;
}

void worker_share_free(struct worker_share *share)
{
    if (share == NULL)
        return;
    CHECK(share->running == 0 && share->waiting == 0);
    pthread_mutex_destroy(&share->lock);
    free(share);
}

/* ---- who waits; with the lock held ---- */

static void push(struct worker_share *share, struct share_job *job)
{
    struct turn *turn = &share->turns[job->turn];
    job->newer = NULL;
    job->older = turn->newest;
    *(turn->newest ? &turn->newest->newer : &turn->oldest) = job;
    turn->newest = job;
    turn->waiting++;
    share->waiting++;
}

static struct share_job *take(struct worker_share *share, struct turn *turn, struct share_job *job)
{
    *(job->newer ? &job->newer->older : &turn->newest) = job->older;
    *(job->older ? &job->older->newer : &turn->oldest) = job->newer;
    turn->waiting--;
    share->waiting--;
    return job;
}

/* The next turn's newest. */
static struct share_job *take_next(struct worker_share *share)
{
    for (unsigned i = 1; i <= TURNS; i++) {
        unsigned at = (share->hand + i) % TURNS;
        struct turn *turn = &share->turns[at];
        if (turn->newest == NULL)
            continue;
        share->hand = at;
        return take(share, turn, turn->newest);
    }
    return NULL;
}

/* The oldest of whoever has most waiting. */
static struct share_job *take_excess(struct worker_share *share)
{
    struct turn *most = &share->turns[0];
    if (share->waiting <= share->max_waiting)
        return NULL;
    for (unsigned i = 1; i < TURNS; i++) {
        if (share->turns[i].waiting > most->waiting)
            most = &share->turns[i];
    }
    return take(share, most, most->oldest);
}

/* ---- running ---- */

static void share_run(struct worker_job *pooled)
{
    struct share_job *job = CONTAINER_OF(pooled, struct share_job, job);
    struct worker_share *share = job->share;
    job->run(job); /* it is gone now */
    pthread_mutex_lock(&share->lock);
    struct share_job *next = take_next(share);
    if (next != NULL)
        worker_pool_submit(share->pool, NULL, &next->job);
    else
        share->running--;
    pthread_mutex_unlock(&share->lock);
}

enum blob_status worker_share_try_submit(struct worker_share *share, uint64_t whose, struct share_job *job)
{
    CHECK(job->run != NULL && job->drop != NULL);
    enum blob_status st = BLOB_OK;
    struct share_job *excess = NULL;
    job->job = (struct worker_job){.run = share_run};
    job->share = share;
    job->turn = (unsigned)((whose * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % TURNS;
    pthread_mutex_lock(&share->lock);
    if (share->running < share->limit) {
        st = worker_pool_try_submit(share->pool, NULL, &job->job);
        share->running += st == BLOB_OK;
    } else {
        push(share, job);
        excess = take_excess(share);
    }
    pthread_mutex_unlock(&share->lock);
    if (excess != NULL)
        excess->drop(excess);
    return st;
}

size_t worker_share_waiting(struct worker_share *share)
{
    pthread_mutex_lock(&share->lock);
    size_t waiting = share->waiting;
    pthread_mutex_unlock(&share->lock);
    return waiting;
}
