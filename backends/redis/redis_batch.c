/*
 * redis_batch - a group commit of calls. Who finds no exchange under way leads one: takes all that wait, writes, reads,
 * and wakes those it did it for. Before that it sends what came meanwhile, so that Redis need not wait until somebody
 * has woken up, and the first of those leads that exchange on: it finds the answers there, or nearly.
 *
 * One at a time was better than several: what waits is sent together, and Redis is done with ten calls before the first
 * of their threads runs again.
 *
 * Invariants: there are waiters in the queue only while led, and whoever leads takes from it before it stops. A waiter
 * is on its thread's stack, and is not touched after its semaphore was posted.
 *
 * Lock: guards the queue and led; nobody is asked or woken while it is held.
 */
#include "backends/redis/redis_batch.h"

#include "core/check.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>

#define CALLS_MAX 64 /* of one exchange */

struct waiter {
    struct redis_asked *asked;
    size_t count;
    struct waiter *next; /* in the queue, then in its exchange */
    sem_t wake;
    /* When it wakes up: the exchange is its to lead on, and was written to conn (NULL: not yet); or it is done. */
    bool leads;
    struct redis_conn *conn;
};

struct redis_batch {
    struct redis_pool *pool;
    pthread_mutex_t lock;
    struct waiter *head, **tail;
    bool led; /* an exchange is under way, or about to be */
};

enum blob_status redis_batch_new(struct redis_pool *pool, struct redis_batch **out, struct blob_error *err)
{
    struct redis_batch *batch = calloc(1, sizeof *batch);
    if (!batch)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for redis' calls");
    batch->pool = pool;
    batch->tail = &batch->head;
    pthread_mutex_init(&batch->lock, NULL);
    *out = batch;
    return BLOB_OK;
}

void redis_batch_free(struct redis_batch *batch)
{
    CHECK(!batch->led && !batch->head);
    pthread_mutex_destroy(&batch->lock);
    free(batch);
}

/* ---- the queue ---- */

/* true: it is the first in the queue, and leads. */
static bool enter(struct redis_batch *batch, struct waiter *me)
{
    pthread_mutex_lock(&batch->lock);
    bool leads = !batch->led;
    batch->led = true;
    *batch->tail = me;
    batch->tail = &me->next;
    pthread_mutex_unlock(&batch->lock);
    return leads;
}

/* The waiters of the next exchange, as a list; NULL: there is none, and nobody leads any more. */
static struct waiter *take_waiting(struct redis_batch *batch)
{
    size_t calls = 0;
    pthread_mutex_lock(&batch->lock);
    struct waiter *first = batch->head, **end = &batch->head;
    for (; *end && calls + (*end)->count <= CALLS_MAX; end = &(*end)->next)
        calls += (*end)->count;
    if (first) {
        batch->head = *end;
        *end = NULL;
    }
    if (!batch->head)
        batch->tail = &batch->head;
    batch->led = first != NULL;
    pthread_mutex_unlock(&batch->lock);
    return first;
}

/* ---- an exchange ---- */

static size_t list_calls(struct waiter *first, struct redis_asked *all[CALLS_MAX])
{
    size_t n = 0;
    for (struct waiter *w = first; w; w = w->next)
        for (size_t i = 0; i < w->count; i++)
            all[n++] = &w->asked[i];
    return n;
}

static void post(struct redis_conn *conn, struct waiter *first)
{
    struct redis_asked *all[CALLS_MAX];
    redis_conn_post(conn, all, list_calls(first, all));
}

static void collect(struct redis_conn *conn, struct waiter *first)
{
    struct redis_asked *all[CALLS_MAX];
    redis_conn_collect(conn, all, list_calls(first, all));
}

static void fail_all(struct waiter *first, enum blob_status st, const struct blob_error *why)
{
    struct redis_asked *all[CALLS_MAX];
    for (size_t i = list_calls(first, all); i-- > 0;) {
        all[i]->st = st;
        all[i]->err = *why;
    }
}

/* Sends the next exchange on the connection of this one, if there is one and it may be used on; else it goes back. */
static struct redis_conn *send_next(struct redis_batch *batch, struct redis_conn *conn, struct waiter *next)
{
    if (next && redis_pool_keeps(batch->pool, conn)) {
        post(conn, next);
        return conn;
    }
    redis_pool_give(batch->pool, conn);
    return NULL;
}

static void wake_up(struct waiter *w, bool leads, struct redis_conn *conn)
{
    w->leads = leads;
    w->conn = conn;
    CHECK(sem_post(&w->wake) == 0);
}

/* first is the caller's own. conn: where the exchange was written to; NULL: it was not yet. */
static void lead(struct redis_batch *batch, struct waiter *first, struct redis_conn *conn)
{
    struct blob_error why;
    enum blob_status st = BLOB_OK;
    if (!conn) {
        st = redis_pool_take(batch->pool, &conn, &why);
        if (st == BLOB_OK)
            post(conn, first);
    }
    if (st == BLOB_OK)
        collect(conn, first);
    else
        fail_all(first, st, &why);
    struct waiter *next = take_waiting(batch), *done = first->next;
    if (conn)
        conn = send_next(batch, conn, next);
    if (next)
        wake_up(next, true, conn);
    while (done) {
        struct waiter *after = done->next;
        wake_up(done, false, NULL);
        done = after;
    }
}

void redis_batch_run_all(struct redis_batch *batch, struct redis_asked *asked, size_t count)
{
    struct waiter me = {.asked = asked, .count = count};
    CHECK(count > 0 && count <= REDIS_TOGETHER_MAX);
    CHECK(sem_init(&me.wake, 0, 0) == 0);
    if (enter(batch, &me)) {
        /* Threads that are ready to run may have calls as well: this lets them come along, and is nothing when idle. */
        sched_yield();
        struct waiter *first = take_waiting(batch);
        CHECK(first == &me);
        lead(batch, first, NULL);
    } else {
        while (sem_wait(&me.wake) != 0)
            CHECK(errno == EINTR);
        if (me.leads)
            lead(batch, &me, me.conn);
    }
    sem_destroy(&me.wake);
}

enum blob_status redis_batch_run(struct redis_batch *batch, const struct redis_call *call, redisReply **reply,
                                 struct blob_error *err)
{
    struct redis_asked asked = {.call = call};
    redis_batch_run_all(batch, &asked, 1);
    if (asked.st == BLOB_OK)
        *reply = asked.reply;
    else if (err)
        *err = asked.err;
    return asked.st;
}
