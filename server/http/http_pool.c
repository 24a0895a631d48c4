/*
 * http_pool - who gets which piece of the slab, and when.
 *
 * Invariants, under the lock: flow->out is the capacity of all pieces lent to a flow or granted to it; a flow is in the
 * queue at most once, and while any waits, nobody takes past it. A grant is a piece set aside for a flow that has
 * waited its turn; its next take gets it. A flow lives until it has ended and no piece or posted task refers to it.
 *
 * Open flows lower the slab's limit, by what each costs beside its pieces: it is under few fast requests, not under a
 * thousand slow ones, that more pieces make anything faster. Half of the slab remains, so that those that wait get on.
 */
#include "server/http/http_pool.h"

#include "core/check.h"
#include "core/fault.h"
#include "server/http/piece_slab.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

/* A waiting upload's connection, request and job come to some 28 KiB, of which this much is counted here. */
#define FLOW_UNITS      1
#define FLOWS_IN_A_SLOT (PIECE_SLOT_UNITS / FLOW_UNITS)

struct pool_piece {
    struct http_piece pub; /* first: a piece's address is its pool_piece's */
    struct http_flow *flow;
    enum piece_rank rank;
};

struct http_flow {
    struct http_task task; /* first: posted when waiting is over */
    struct http_pool *pool;
    struct http_loop *loop;
    size_t max_bytes;
    /* Touched on the loop's thread only. */
    void (*resume)(void *arg); /* NULL once ended */
    void *arg;
    /* Under the pool's lock. */
    size_t out;
    unsigned refs; /* the owner's, one a piece, one while the task is posted */
    bool posted, waits_for_own, queued;
    enum piece_rank wanted;
    struct pool_piece *grant;
    struct http_flow *queue_next;
    struct http_flow *wake_next;
};

struct http_pool {
    pthread_mutex_t lock;
    struct piece_slab *slab;
    size_t flows;
    struct http_flow *queue, **queue_end;
    struct pool_piece pieces[]; /* a unit of the slab each; in use where a piece begins */
};

/* ---- the pool -------------------------------------------------------------------------------------------------- */

enum blob_status http_pool_new(size_t max_bytes, struct http_pool **out, struct blob_error *err)
{
    struct piece_slab *slab;
    enum blob_status st = piece_slab_new(max_bytes, &slab, err);
    if (st != BLOB_OK)
        return st;
    size_t units = piece_slab_slots(slab) * PIECE_SLOT_UNITS;
    struct http_pool *pool = calloc(1, sizeof *pool + units * sizeof pool->pieces[0]);
    if (!pool) {
        piece_slab_free(slab);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the body pool");
    }
    pthread_mutex_init(&pool->lock, NULL);
    pool->slab = slab;
    pool->queue_end = &pool->queue;
    *out = pool;
    return BLOB_OK;
}

void http_pool_free(struct http_pool *pool)
{
    if (!pool)
        return;
    piece_slab_free(pool->slab);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

size_t http_piece_capacity(const struct http_piece *piece)
{
    return piece_rank_bytes(((const struct pool_piece *)piece)->rank);
}

/* Under the lock: the bound follows the number of flows. */
static void pool_count_flow(struct http_pool *pool, int change)
{
    size_t slots = piece_slab_slots(pool->slab), most = slots / 2;
    pool->flows += (size_t)change;
    size_t theirs = pool->flows / FLOWS_IN_A_SLOT;
    piece_slab_limit(pool->slab, slots - (theirs < most ? theirs : most));
}

/* Under the lock: a piece of this rank or, as the slab decides, a smaller one. */
static struct pool_piece *pool_cut(struct http_pool *pool, struct http_flow *flow, enum piece_rank rank)
{
    size_t unit = piece_slab_take(pool->slab, &rank);
    if (unit == PIECE_NONE)
        return NULL;
    struct pool_piece *piece = &pool->pieces[unit];
    *piece = (struct pool_piece){.pub.data = piece_slab_memory(pool->slab, unit), .flow = flow, .rank = rank};
    flow->out += piece_rank_bytes(rank);
    return piece;
}

/* Under the lock. */
static void pool_put(struct http_pool *pool, struct pool_piece *piece)
{
    piece->flow->out -= piece_rank_bytes(piece->rank);
    piece_slab_give(pool->slab, (size_t)(piece - pool->pieces), piece->rank);
}

/* ---- flows ----------------------------------------------------------------------------------------------------- */

/* Under the lock. True when flow is nobody's any more: free it after unlocking. */
static bool flow_unref(struct http_flow *flow)
{
    CHECK(flow->refs > 0);
    return --flow->refs == 0;
}

static void flow_run(struct http_task *task)
{
    struct http_flow *flow = (struct http_flow *)task;
    struct http_pool *pool = flow->pool;
    /* Before resuming: what is awaited from here on may come while resume still runs, and needs a task of its own. */
    pthread_mutex_lock(&pool->lock);
    flow->posted = false;
    pthread_mutex_unlock(&pool->lock);
    if (flow->resume)
        flow->resume(flow->arg);
    pthread_mutex_lock(&pool->lock);
    bool last = flow_unref(flow);
    pthread_mutex_unlock(&pool->lock);
    if (last)
        free(flow);
}

struct http_flow *http_flow_new(struct http_pool *pool, struct http_loop *loop, size_t max_bytes,
                                void (*resume)(void *arg), void *arg)
{
    struct http_flow *flow = FAULT_POINT("http.memory") ? NULL : calloc(1, sizeof *flow);
    if (!flow)
        return NULL;
    flow->task.run = flow_run;
    flow->pool = pool;
    flow->loop = loop;
    flow->max_bytes = max_bytes;
    flow->resume = resume;
    flow->arg = arg;
    flow->refs = 1;
    pthread_mutex_lock(&pool->lock);
    pool_count_flow(pool, 1);
    pthread_mutex_unlock(&pool->lock);
    return flow;
}

/* Under the lock: what is to be posted after it. */
static void flow_wake(struct http_flow *flow, struct http_flow **wakes)
{
    if (flow->posted)
        return;
    flow->posted = true;
    flow->refs++;
    flow->wake_next = *wakes;
    *wakes = flow;
}

/* Under the lock: hands free memory to those who wait, first come first. */
static void queue_serve(struct http_pool *pool, struct http_flow **wakes)
{
    struct pool_piece *piece;
    while (pool->queue && (piece = pool_cut(pool, pool->queue, pool->queue->wanted)) != NULL) {
        struct http_flow *flow = pool->queue;
        pool->queue = flow->queue_next;
        if (!pool->queue)
            pool->queue_end = &pool->queue;
        flow->queued = false;
        flow->grant = piece;
        flow_wake(flow, wakes);
    }
}

static void post_wakes(struct http_flow *wakes)
{
    while (wakes) {
        struct http_flow *flow = wakes;
        wakes = flow->wake_next;
        http_loop_post(flow->loop, &flow->task); /* it may be gone by the time this returns */
    }
}

/* Under the lock. */
static void queue_leave(struct http_pool *pool, struct http_flow *flow)
{
    struct http_flow **at = &pool->queue;
    while (*at != flow)
        at = &(*at)->queue_next;
    *at = flow->queue_next;
    if (!*at)
        pool->queue_end = at;
    flow->queued = false;
}

void http_flow_end(struct http_flow *flow)
{
    struct http_pool *pool = flow->pool;
    struct http_flow *wakes = NULL;
    flow->resume = NULL;
    pthread_mutex_lock(&pool->lock);
    if (flow->queued)
        queue_leave(pool, flow);
    if (flow->grant)
        pool_put(pool, flow->grant);
    pool_count_flow(pool, -1);
    queue_serve(pool, &wakes);
    bool last = flow_unref(flow);
    pthread_mutex_unlock(&pool->lock);
    post_wakes(wakes);
    if (last)
        free(flow);
}

static enum piece_rank rank_for(size_t wanted)
{
    enum piece_rank rank = PIECE_SMALL;
    while (rank < PIECE_LARGE && piece_rank_bytes(rank) < wanted)
        rank++;
    return rank;
}

/* Under the lock. */
static void queue_join(struct http_pool *pool, struct http_flow *flow, enum piece_rank wanted)
{
    CHECK(!flow->queued);
    flow->wanted = wanted;
    flow->queued = true;
    flow->queue_next = NULL;
    *pool->queue_end = flow;
    pool->queue_end = &flow->queue_next;
}

/* Under the lock. NULL: the flow waits, for its own pieces or in the queue. */
static struct pool_piece *flow_admit(struct http_flow *flow, enum piece_rank rank)
{
    struct http_pool *pool = flow->pool;
    struct pool_piece *piece = flow->grant;
    if (piece) {
        flow->grant = NULL;
        return piece;
    }
    /* One small piece is always allowed, or a tiny bound would stop the request for good. */
    while (rank > PIECE_SMALL && flow->out + piece_rank_bytes(rank) > flow->max_bytes)
        rank--;
    if (flow->out > 0 && flow->out + piece_rank_bytes(rank) > flow->max_bytes) {
        flow->waits_for_own = true;
        return NULL;
    }
    if (!pool->queue)
        piece = pool_cut(pool, flow, rank);
    if (!piece)
        queue_join(pool, flow, rank);
    return piece;
}

/* Under the lock. False: there is no piece. */
static bool flow_hand_out(struct http_flow *flow, struct pool_piece *piece, struct http_piece **out)
{
    if (!piece)
        return false;
    flow->refs++;
    *out = &piece->pub;
    return true;
}

bool http_flow_take(struct http_flow *flow, size_t wanted, struct http_piece **out)
{
    pthread_mutex_lock(&flow->pool->lock);
    bool taken = flow_hand_out(flow, flow_admit(flow, rank_for(wanted)), out);
    pthread_mutex_unlock(&flow->pool->lock);
    return taken;
}

bool http_flow_take_free(struct http_flow *flow, size_t wanted, struct http_piece **out)
{
    struct http_pool *pool = flow->pool;
    enum piece_rank rank = rank_for(wanted);
    pthread_mutex_lock(&pool->lock);
    bool may = !pool->queue && flow->out + piece_rank_bytes(rank) <= flow->max_bytes;
    bool taken = flow_hand_out(flow, may ? pool_cut(pool, flow, rank) : NULL, out);
    pthread_mutex_unlock(&pool->lock);
    return taken;
}

void http_pool_give(struct http_pool *pool, struct http_piece *pub)
{
    struct pool_piece *piece = (struct pool_piece *)pub;
    struct http_flow *flow = piece->flow;
    struct http_flow *wakes = NULL;
    pthread_mutex_lock(&pool->lock);
    pool_put(pool, piece);
    if (flow->waits_for_own && flow->out <= flow->max_bytes / 2) {
        flow->waits_for_own = false;
        flow_wake(flow, &wakes);
    }
    queue_serve(pool, &wakes);
    bool last = flow_unref(flow);
    pthread_mutex_unlock(&pool->lock);
    post_wakes(wakes);
    if (last)
        free(flow);
}
