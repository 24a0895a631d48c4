/*
 * upload_checkpoint - flushes beside the writing, so that receiving and hashing go on while the disk syncs.
 *
 * A checkpoint takes the offset and the hash of the moment, has the store make the bytes below durable, and then
 * moves the session there: what a status tells is always durable. At most one runs at a time. It begins at half the
 * distance that checkpoints may be apart; where it is not done by the whole, the lane waits for it, which pushes back
 * on the client. (Of a store of parts two may be on their way: their ends are where a checkpoint costs least.)
 *
 * Checkpoints in the middle of bodies may take half of the workers' time. Where making them takes longer, they come
 * less often: nothing in them was acknowledged, and the bytes that follow must not wait for them.
 */
#include "core/upload/upload_internal.h"

#include "core/check.h"
#include <string.h>

#define PART_INTERVALS 4
#define STRETCH_MOST   30 /* intervals: what a link's end may cost has a bound, however slow the store */
#define COST_WEIGHT    8  /* the last so many checkpoints tell what one takes */

static unsigned flush_flags(const struct upload_append *a)
{
    return a->svc->opt.sync == UPLOAD_SYNC_APPEND ? 0 : BLOB_LAZY;
}

static enum blob_status flush(struct upload_append *a, struct session *next, uint64_t offset, struct blob_error *err)
{
    struct bytebuf keep;
    bytebuf_init(&keep);
    if (a->svc->store->caps & STORE_KEEPS_STATE)
        session_encode_progress(next, &keep);
    enum blob_status st = keep.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a checkpoint") : BLOB_OK;
    if (st == BLOB_OK)
        st = writer_flush(a->writer, offset, keep.data, keep.len, flush_flags(a), &next->mark, err);
    bytebuf_release(&keep);
    /* Gone from under this writer: another one took over, and may have finished. */
    return st == BLOB_E_NOT_FOUND ? BLOB_E_CONFLICT : st;
}

void upload_checkpoint_note_before(const struct upload_append *a, struct session *next)
{
    if (a->keeps_before)
        next->chunk.before = a->before_hash;
}

enum blob_status upload_checkpoint_flush(struct upload_append *a, struct session *next, uint64_t offset,
                                         struct blob_error *err)
{
    enum blob_status st = flush(a, next, offset, err);
    if (st == BLOB_OK)
        st = upload_session_persist(a->svc, next, err);
    return st;
}

/* Others may do so at the same time; a measurement lost is no loss. */
static void learn_cost(struct upload_service *svc, int64_t took_us)
{
    int64_t cost_us = atomic_load(&svc->checkpoint_us);
    atomic_store(&svc->checkpoint_us, cost_us ? cost_us + (took_us - cost_us) / COST_WEIGHT : took_us);
}

/* The time between an append's checkpoints. */
static int64_t interval_us(struct upload_service *svc)
{
    int64_t asked_us = svc->opt.checkpoint_interval_ms * 1000;
    int64_t all_us = atomic_load(&svc->checkpoint_us) * (int64_t)atomic_load(&svc->in_flight);
    int64_t fair_us = all_us * 2 / (int64_t)worker_pool_threads(svc->pool);
    int64_t most_us = asked_us * STRETCH_MOST;
    return fair_us < asked_us ? asked_us : fair_us < most_us ? fair_us : most_us;
}

/* What an append may have unflushed while the store's memory is short; 0: it is not. */
static size_t short_bytes(const struct upload_append *a)
{
    return atomic_load(&a->svc->store->dirty_bytes);
}

/* With a->lock held: must the lane wait for the checkpoint under way? */
static bool is_far_behind(const struct upload_append *a, uint64_t written)
{
    uint64_t most = a->svc->opt.checkpoint_bytes, part = a->svc->store->part_bytes, low = short_bytes(a);
    if (part == 0 && low == 0)
        return written - a->s.mark.offset >= most;
    return written - a->flush_offset >= 2 * (low > 0 ? low : most > part ? most : part);
}

/* Does the queued flush; called and returns with a->lock held. */
static void run_queued(struct upload_append *a)
{
    struct blob_error err = {0};
    struct session next = a->s;
    uint64_t offset = a->flush_offset;
    next.hash = a->flush_hash;
    next.append_from = a->start;
    upload_checkpoint_note_before(a, &next);
    a->flush_queued = false;
    a->flushing = true;
    pthread_mutex_unlock(&a->lock);

    int64_t began_us = clock_steady_us();
    enum blob_status st = upload_checkpoint_flush(a, &next, offset, &err);
    learn_cost(a->svc, clock_steady_us() - began_us);

    pthread_mutex_lock(&a->lock);
    if (st == BLOB_OK)
        a->s = next;
    else if (st == BLOB_E_CONFLICT || st == BLOB_E_NOT_FOUND)
        a->fenced = true;
    else
        a->s.tried_epoch = next.tried_epoch;
    a->flush_status = st;
    a->flush_error = err;
    a->flushing = false;
    pthread_cond_broadcast(&a->flushed);
}

static void flush_run(struct worker_job *job)
{
    struct upload_append *a = CONTAINER_OF(job, struct upload_append, flush_job);
    MAGIC_OK(a, APPEND_MAGIC);
    pthread_mutex_lock(&a->lock);
    a->flush_out = false;
    if (a->flush_queued && !a->flushing)
        run_queued(a);
    pthread_mutex_unlock(&a->lock);
    upload_append_unref(a);
}

/* With a->lock held. A queued flush is done here: were all workers to wait for jobs in the queue, none would run them.
 */
static void wait_idle(struct upload_append *a)
{
    if (a->flush_queued && !a->flushing)
        run_queued(a);
    while (a->flushing)
        pthread_cond_wait(&a->flushed, &a->lock);
}

/*
 * A store of parts is flushed at their ends, where that costs next to nothing; by time only what comes so slowly that
 * its part would not be full for a while; by bytes where the operator wants them closer than parts are, or memory is
 * short.
 */
uint64_t upload_checkpoint_target(const struct upload_append *a, uint64_t written, int64_t now_us)
{
    const struct upload_options *opt = &a->svc->opt;
    size_t part = a->svc->store->part_bytes, most = short_bytes(a);
    uint64_t dirty = written - a->flush_offset;
    int64_t waited_us = now_us - a->flush_us, after_us = interval_us(a->svc);
    if (part > 0 && dirty >= part / 4)
        after_us *= PART_INTERVALS;
    bool far =
        part == 0 ? dirty >= opt->checkpoint_bytes / 2 : opt->checkpoint_bytes < part && dirty >= opt->checkpoint_bytes;
    if (dirty > 0 && (far || (most > 0 && dirty >= most) || waited_us >= after_us))
        return written;
    uint64_t parts_end = part > 0 ? written - written % part : 0;
    return parts_end > a->flush_offset ? parts_end : a->flush_offset;
}

void upload_checkpoint_maybe(struct upload_append *a)
{
    uint64_t written = a->start + a->received;
    int64_t now_us = clock_steady_us();
    bool submit = false;

    if (a->svc->store->part_bytes > 0 && written % a->svc->store->part_bytes == 0)
        a->part_hash = a->hash;
    pthread_mutex_lock(&a->lock);
    uint64_t target = upload_checkpoint_target(a, written, now_us);
    bool due = target > a->flush_offset;
    if (is_far_behind(a, written))
        wait_idle(a);
    if (due && !a->flushing && !a->flush_queued && a->flush_status == BLOB_OK && !a->fenced) {
        a->flush_queued = true;
        a->flush_offset = target;
        a->flush_hash = target == written ? a->hash : a->part_hash;
        a->flush_us = now_us;
        submit = !a->flush_out;
        a->flush_out = true;
    }
    pthread_mutex_unlock(&a->lock);
    if (!submit)
        return;
    upload_append_ref(a);
    a->flush_job.run = flush_run;
    worker_pool_submit(a->svc->pool, NULL, &a->flush_job);
}

void upload_checkpoint_wait(struct upload_append *a)
{
    pthread_mutex_lock(&a->lock);
    wait_idle(a);
    pthread_mutex_unlock(&a->lock);
}

void upload_checkpoint_tick_run(struct worker_job *job)
{
    struct upload_append *a = CONTAINER_OF(job, struct upload_append, tick_job);
    MAGIC_OK(a, APPEND_MAGIC);
    pthread_mutex_lock(&a->svc->live);
    a->tick_queued = false;
    bool ended = a->ended;
    pthread_mutex_unlock(&a->svc->live);
    if (!ended && a->writer)
        upload_checkpoint_maybe(a);
    upload_append_unref(a);
}

void upload_service_tick(struct upload_service *svc, int64_t now_ms)
{
    (void)now_ms;
    upload_checkpoint_tick(svc);
}

static bool checkpoint_due(struct upload_append *a, int64_t now_us)
{
    pthread_mutex_lock(&a->lock);
    bool due = !a->flushing && !a->flush_queued &&
               upload_checkpoint_target(a, atomic_load(&a->written), now_us) > a->flush_offset;
    pthread_mutex_unlock(&a->lock);
    return due;
}

void upload_checkpoint_tick(struct upload_service *svc)
{
    int64_t now_us = clock_steady_us();
    pthread_mutex_lock(&svc->live);
    for (unsigned i = 0; i < LIVE_BUCKETS; i++) {
        for (struct upload_append *a = svc->table[i]; a; a = a->next) {
            if (a->tick_queued || !checkpoint_due(a, now_us))
                continue;
            a->tick_queued = true;
            a->refs++;
            worker_pool_submit(svc->pool, upload_lane(svc, &a->id), &a->tick_job);
        }
    }
    pthread_mutex_unlock(&svc->live);
}
