/*
 * http_pool - pieces in three sizes, reused hottest first, so that few pages stay warm however many requests read.
 *
 * Invariants, under the lock: used is the capacity of all pieces lent plus all grants; flow->out the same for one flow;
 * a flow is in the queue at most once, and while any waits, nobody takes past it. A grant is memory set aside for a
 * flow that has waited its turn; its next take uses it. A flow lives until it has ended and no piece or posted task
 * refers to it.
 *
 * Pieces given back are kept while lent and kept ones stay within the bound: mapping a large one anew for every read
 * costs more than the read. The largest are mapped, not allocated, so that one that is let go leaves the process at
 * once. Invariant, under the lock: kept_bytes is the capacity of all kept pieces, and used + kept_bytes is at most
 * max_bytes.
 */
#include "server/http_pool.h"

#include "core/check.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { RANK_SMALL, RANK_MIDDLE, RANK_LARGE, RANK_COUNT };

static const size_t rank_bytes[RANK_COUNT] = {
    [RANK_SMALL] = 16 * 1024,
    [RANK_MIDDLE] = 64 * 1024,
    [RANK_LARGE] = 256 * 1024,
};
#define NO_GRANT (-1)

struct pool_piece {
    struct http_piece pub; /* first: a piece's address is its pool_piece's */
    struct http_flow *flow;
    int rank;
    uint8_t *memory; /* pub.data may point into it, past its beginning */
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
    int wanted, grant;
    struct http_flow *queue_next;
    struct http_flow *wake_next;
};

struct http_pool {
    pthread_mutex_t lock;
    size_t max_bytes, used;
    struct http_piece *kept[RANK_COUNT];
    size_t kept_bytes;
    struct http_flow *queue, **queue_end;
};

/* ---- pieces ---------------------------------------------------------------------------------------------------- */

static uint8_t *memory_new(int rank)
{
    if (rank != RANK_LARGE)
        return malloc(rank_bytes[rank]);
    void *memory = mmap(NULL, rank_bytes[rank], PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void memory_free(int rank, uint8_t *memory)
{
    if (rank != RANK_LARGE)
        free(memory);
    else if (memory)
        munmap(memory, rank_bytes[rank]);
}

static void piece_free(struct pool_piece *piece)
{
    if (!piece)
        return;
    memory_free(piece->rank, piece->memory);
    free(piece);
}

static struct pool_piece *piece_new(int rank)
{
    struct pool_piece *piece = malloc(sizeof *piece);
    uint8_t *memory = memory_new(rank);
    if (!piece || !memory) {
        free(piece);
        memory_free(rank, memory);
        return NULL;
    }
    piece->rank = rank;
    piece->memory = memory;
    return piece;
}

size_t http_piece_capacity(const struct http_piece *piece)
{
    return rank_bytes[((const struct pool_piece *)piece)->rank];
}

/* ---- the pool -------------------------------------------------------------------------------------------------- */

enum blob_status http_pool_new(size_t max_bytes, struct http_pool **out, struct blob_error *err)
{
    if (max_bytes < rank_bytes[RANK_SMALL])
        return blob_fail(err, BLOB_E_INVALID, 0, "body memory must be at least %zu bytes", rank_bytes[RANK_SMALL]);
    struct http_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the body pool");
    pthread_mutex_init(&pool->lock, NULL);
    pool->max_bytes = max_bytes;
    pool->queue_end = &pool->queue;
    *out = pool;
    return BLOB_OK;
}

static void pieces_free(struct http_piece *pieces)
{
    while (pieces) {
        struct http_piece *next = pieces->next;
        piece_free((struct pool_piece *)pieces);
        pieces = next;
    }
}

void http_pool_free(struct http_pool *pool)
{
    if (!pool)
        return;
    for (int rank = 0; rank < RANK_COUNT; rank++)
        pieces_free(pool->kept[rank]);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
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
    struct http_flow *flow = calloc(1, sizeof *flow);
    if (!flow)
        return NULL;
    flow->task.run = flow_run;
    flow->pool = pool;
    flow->loop = loop;
    flow->max_bytes = max_bytes;
    flow->resume = resume;
    flow->arg = arg;
    flow->refs = 1;
    flow->grant = NO_GRANT;
    return flow;
}

/* Under the lock. */
static struct http_piece *kept_take(struct http_pool *pool, int rank)
{
    struct http_piece *piece = pool->kept[rank];
    if (piece) {
        pool->kept[rank] = piece->next;
        pool->kept_bytes -= rank_bytes[rank];
    }
    return piece;
}

/* Under the lock: takes kept pieces of other sizes out until a new one has its place; to be freed after it. */
static struct http_piece *kept_shrink(struct http_pool *pool)
{
    struct http_piece *surplus = NULL;
    for (int rank = RANK_COUNT - 1; rank >= 0; rank--) {
        while (pool->used + pool->kept_bytes > pool->max_bytes && pool->kept[rank]) {
            struct http_piece *piece = kept_take(pool, rank);
            piece->next = surplus;
            surplus = piece;
        }
    }
    return surplus;
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
    while (pool->queue && pool->used + rank_bytes[pool->queue->wanted] <= pool->max_bytes) {
        struct http_flow *flow = pool->queue;
        pool->queue = flow->queue_next;
        if (!pool->queue)
            pool->queue_end = &pool->queue;
        flow->queued = false;
        flow->grant = flow->wanted;
        flow->out += rank_bytes[flow->grant];
        pool->used += rank_bytes[flow->grant];
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

/* Under the lock. */
static void grant_return(struct http_flow *flow)
{
    flow->out -= rank_bytes[flow->grant];
    flow->pool->used -= rank_bytes[flow->grant];
    flow->grant = NO_GRANT;
}

void http_flow_end(struct http_flow *flow)
{
    struct http_pool *pool = flow->pool;
    struct http_flow *wakes = NULL;
    flow->resume = NULL;
    pthread_mutex_lock(&pool->lock);
    if (flow->queued)
        queue_leave(pool, flow);
    if (flow->grant != NO_GRANT)
        grant_return(flow);
    queue_serve(pool, &wakes);
    bool last = flow_unref(flow);
    pthread_mutex_unlock(&pool->lock);
    post_wakes(wakes);
    if (last)
        free(flow);
}

static int rank_for(size_t wanted)
{
    int rank = RANK_SMALL;
    while (rank < RANK_LARGE && rank_bytes[rank] < wanted)
        rank++;
    return rank;
}

/* Under the lock: sets memory aside, or says what to wait for. */
static bool flow_admit(struct http_flow *flow, int rank)
{
    struct http_pool *pool = flow->pool;
    if (flow->grant != NO_GRANT)
        return true;
    /* One small piece is always allowed, or a tiny bound would stop the request for good. */
    while (rank > RANK_SMALL && flow->out + rank_bytes[rank] > flow->max_bytes)
        rank--;
    if (flow->out > 0 && flow->out + rank_bytes[rank] > flow->max_bytes) {
        flow->waits_for_own = true;
        return false;
    }
    while (rank > RANK_SMALL && pool->used + rank_bytes[rank] > pool->max_bytes)
        rank--;
    if (pool->queue || pool->used + rank_bytes[rank] > pool->max_bytes) {
        CHECK(!flow->queued);
        flow->wanted = rank;
        flow->queued = true;
        flow->queue_next = NULL;
        *pool->queue_end = flow;
        pool->queue_end = &flow->queue_next;
        return false;
    }
    flow->grant = rank;
    flow->out += rank_bytes[rank];
    pool->used += rank_bytes[rank];
    return true;
}

enum http_take http_flow_take(struct http_flow *flow, size_t wanted, struct http_piece **out)
{
    struct http_pool *pool = flow->pool;
    pthread_mutex_lock(&pool->lock);
    if (!flow_admit(flow, rank_for(wanted))) {
        pthread_mutex_unlock(&pool->lock);
        return HTTP_TAKE_WAIT;
    }
    int rank = flow->grant;
    struct http_piece *surplus = NULL;
    struct pool_piece *piece = (struct pool_piece *)kept_take(pool, rank);
    if (!piece)
        surplus = kept_shrink(pool);
    flow->grant = NO_GRANT; /* it is this piece's now */
    flow->refs++;
    pthread_mutex_unlock(&pool->lock);
    pieces_free(surplus);
    if (!piece && !(piece = piece_new(rank))) {
        pthread_mutex_lock(&pool->lock);
        flow->out -= rank_bytes[rank];
        pool->used -= rank_bytes[rank];
        (void)flow_unref(flow); /* the owner holds another */
        pthread_mutex_unlock(&pool->lock);
        return HTTP_TAKE_NO_MEMORY;
    }
    piece->flow = flow;
    piece->pub = (struct http_piece){.data = piece->memory};
    *out = &piece->pub;
    return HTTP_TAKE_OK;
}

void http_pool_give(struct http_pool *pool, struct http_piece *pub)
{
    struct pool_piece *piece = (struct pool_piece *)pub;
    struct http_flow *flow = piece->flow;
    struct http_flow *wakes = NULL;
    int rank = piece->rank;
    pthread_mutex_lock(&pool->lock);
    flow->out -= rank_bytes[rank];
    pool->used -= rank_bytes[rank];
    if (pool->used + pool->kept_bytes + rank_bytes[rank] <= pool->max_bytes) {
        pub->next = pool->kept[rank];
        pool->kept[rank] = pub;
        pool->kept_bytes += rank_bytes[rank];
        piece = NULL;
    }
    if (flow->waits_for_own && flow->out <= flow->max_bytes / 2) {
        flow->waits_for_own = false;
        flow_wake(flow, &wakes);
    }
    queue_serve(pool, &wakes);
    bool last = flow_unref(flow);
    pthread_mutex_unlock(&pool->lock);
    post_wakes(wakes);
    piece_free(piece);
    if (last)
        free(flow);
}
