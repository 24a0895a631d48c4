/*
 * redis_pool - a stack of idle connections under one lock; the last used is used next, so that the others may go stale
 * without harm: a connection that was hung up on while idle is seen before a command is written to it, and replaced.
 *
 * Invariants: busy + idle <= config->connections. Connections of an older generation are closed when they come back.
 * No connection is made while the lock is held.
 */
#include "backends/redis/redis_pool.h"

#include "backends/redis/redis_sentinel.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BACKOFF_FIRST_US 50000
#define BACKOFF_MAX_US   1000000

struct redis_pool {
    const struct redis_config *config;
    struct logger *log;
    int wake_fd;

    pthread_mutex_t lock;
    pthread_cond_t freed;
    struct redis_conn *idle;
    unsigned idle_count, busy_count;
    bool up, was_up;
    unsigned long generation;
    struct redis_endpoint at; /* without sentinels, config->endpoint */
    struct blob_error why;    /* it is down */
    int64_t probe_due_us, backoff_us;

    unsigned sentinel; /* the one that answered last; the probing thread's */
};

enum blob_status redis_pool_new(const struct redis_config *config, struct logger *log, int wake_fd,
                                struct redis_pool **out, struct blob_error *err)
{
    struct redis_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for redis' connections");
    pool->config = config;
    pool->log = log;
    pool->wake_fd = wake_fd;
    pool->at = config->endpoint;
    pool->backoff_us = BACKOFF_FIRST_US;
    (void)blob_fail(&pool->why, BLOB_E_UNAVAILABLE, 0, "redis: not reached yet");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->freed, &attr);
    pthread_condattr_destroy(&attr);
    *out = pool;
    return BLOB_OK;
}

/* Takes all idle connections off; to be closed without the lock. */
static struct redis_conn *take_idle(struct redis_pool *pool)
{
    struct redis_conn *all = pool->idle;
    pool->idle = NULL;
    pool->idle_count = 0;
    return all;
}

static void close_all(struct redis_conn *conn)
{
    while (conn) {
        struct redis_conn *next = conn->next;
        redis_conn_close(conn);
        conn = next;
    }
}

void redis_pool_free(struct redis_pool *pool)
{
    CHECK(pool->busy_count == 0);
    close_all(take_idle(pool));
    pthread_cond_destroy(&pool->freed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* ---- up and down ---- */

bool redis_pool_up(struct redis_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool up = pool->up;
    pthread_mutex_unlock(&pool->lock);
    return up;
}

int64_t redis_pool_probe_due_us(struct redis_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    int64_t due = pool->probe_due_us;
    pthread_mutex_unlock(&pool->lock);
    return due;
}

void redis_pool_where(struct redis_pool *pool, struct redis_endpoint *at, unsigned long *generation)
{
    pthread_mutex_lock(&pool->lock);
    *at = pool->at;
    *generation = pool->generation;
    pthread_mutex_unlock(&pool->lock);
}

/* generation: of the connection that failed; a late failure of an older one says nothing. */
static void go_down(struct redis_pool *pool, unsigned long generation, const char *why)
{
    static const uint64_t one = 1;
    pthread_mutex_lock(&pool->lock);
    bool news = pool->up && pool->generation == generation;
    struct redis_conn *idle = NULL;
    if (news) {
        pool->up = false;
        pool->generation++;
        pool->backoff_us = BACKOFF_FIRST_US;
        pool->probe_due_us = clock_steady_us();
        (void)blob_fail(&pool->why, BLOB_E_UNAVAILABLE, 0, "%s", why);
        idle = take_idle(pool);
        pthread_cond_broadcast(&pool->freed);
    }
    pthread_mutex_unlock(&pool->lock);
    if (!news)
        return;
    close_all(idle);
    log_line(pool->log, LOG_WARN, NULL, "redis is away: uploads wait until it is back: %s", why);
    if (write(pool->wake_fd, &one, sizeof one) != sizeof one)
        return; /* it has been woken already */
}

static void put_up(struct redis_pool *pool, struct redis_conn *conn, const struct redis_endpoint *at)
{
    char where[300];
    redis_endpoint_text(at, where, sizeof where);
    pthread_mutex_lock(&pool->lock);
    pool->up = true;
    pool->at = *at;
    pool->backoff_us = BACKOFF_FIRST_US;
    conn->generation = ++pool->generation;
    conn->next = NULL;
    CHECK(!pool->idle);
    pool->idle = conn;
    pool->idle_count = 1;
    bool again = pool->was_up;
    pool->was_up = true;
    pthread_mutex_unlock(&pool->lock);
    log_line(pool->log, LOG_INFO, NULL, again ? "redis is back: %s" : "redis is at %s", where);
}

/* Waits a little longer after each failure, by a random share, so that nodes do not come all at once. */
static void set_backoff(struct redis_pool *pool, const struct blob_error *why)
{
    pthread_mutex_lock(&pool->lock);
    int64_t now_us = clock_steady_us();
    pool->probe_due_us = now_us + pool->backoff_us / 2 + now_us % (pool->backoff_us / 2 + 1);
    pool->backoff_us = pool->backoff_us * 2 < BACKOFF_MAX_US ? pool->backoff_us * 2 : BACKOFF_MAX_US;
    pool->why = *why;
    pthread_mutex_unlock(&pool->lock);
}

static enum blob_status find_master(struct redis_pool *pool, struct redis_endpoint *at, struct blob_error *err)
{
    if (pool->config->sentinel_count > 0)
        return redis_sentinel_master(pool->config, &pool->sentinel, at, err);
    *at = pool->config->endpoint;
    return BLOB_OK;
}

enum blob_status redis_pool_probe(struct redis_pool *pool, struct blob_error *err)
{
    if (redis_pool_up(pool))
        return BLOB_OK;
    struct redis_endpoint at;
    struct redis_conn *conn = NULL;
    struct redis_call ping;
    redisReply *reply = NULL;
    struct blob_error why = {0};
    enum blob_status st = find_master(pool, &at, &why);
    if (st == BLOB_OK)
        st = redis_conn_open(pool->config, &at, true, &conn, &why);
    if (st == BLOB_OK) {
        redis_call_begin(&ping, "PING"); /* a server that still loads its data answers so */
        st = redis_conn_run(conn, &ping, &reply, &why);
    }
    if (st != BLOB_OK) {
        redis_conn_close(conn);
        set_backoff(pool, &why);
        return blob_fail(err, st, 0, "%s", why.text);
    }
    freeReplyObject(reply);
    put_up(pool, conn, &at);
    return BLOB_OK;
}

void redis_pool_watch_master(struct redis_pool *pool)
{
    struct redis_endpoint now, used;
    unsigned long generation;
    struct blob_error err;
    if (pool->config->sentinel_count == 0 || !redis_pool_up(pool))
        return;
    redis_pool_where(pool, &used, &generation);
    /* Sentinels that are away change nothing while the master answers. */
    if (redis_sentinel_master(pool->config, &pool->sentinel, &now, &err) == BLOB_OK &&
        !redis_endpoint_same(&now, &used))
        go_down(pool, generation, "the sentinels name another master");
}

/* ---- taking and giving ---- */

/* Waits for a connection or the right to make one (*out NULL). */
static enum blob_status wait_turn(struct redis_pool *pool, struct redis_conn **out, struct redis_endpoint *at,
                                  unsigned long *generation, struct blob_error *err)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(pool->config->command_timeout_ms / 1000);
    until.tv_nsec += (long)(pool->config->command_timeout_ms % 1000) * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    enum blob_status st = BLOB_OK;
    int rc = 0;
    pthread_mutex_lock(&pool->lock);
    while (pool->up && !pool->idle && pool->busy_count >= pool->config->connections && rc == 0)
        rc = pthread_cond_timedwait(&pool->freed, &pool->lock, &until);
    if (!pool->up) {
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "%s", pool->why.text);
    } else if (!pool->idle && pool->busy_count >= pool->config->connections) {
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "redis: all %u connections are busy", pool->config->connections);
    } else {
        *out = pool->idle;
        if (pool->idle) {
            pool->idle = pool->idle->next;
            pool->idle_count--;
        }
        pool->busy_count++;
        *at = pool->at;
        *generation = pool->generation;
    }
    pthread_mutex_unlock(&pool->lock);
    return st;
}

/* A place among the busy is free again; conn (may be NULL) goes to the idle if it is still good. */
static void end_turn(struct redis_pool *pool, struct redis_conn *conn)
{
    pthread_mutex_lock(&pool->lock);
    pool->busy_count--;
    if (conn && !conn->broken && pool->up && conn->generation == pool->generation) {
        conn->next = pool->idle;
        pool->idle = conn;
        pool->idle_count++;
        conn = NULL;
    }
    pthread_cond_signal(&pool->freed);
    pthread_mutex_unlock(&pool->lock);
    redis_conn_close(conn);
}

enum blob_status redis_pool_take(struct redis_pool *pool, struct redis_conn **out, struct blob_error *err)
{
    struct redis_conn *conn = NULL;
    struct redis_endpoint at;
    unsigned long generation = 0;
    struct blob_error why;
    enum blob_status st = wait_turn(pool, &conn, &at, &generation, err);
    if (st != BLOB_OK)
        return st;
    /* Also if it was used just now: once a command is written, nobody can tell whether it ran. */
    if (conn && redis_conn_stale(conn)) {
        redis_conn_close(conn);
        conn = NULL;
    }
    if (!conn) {
        st = redis_conn_open(pool->config, &at, true, &conn, &why);
        if (st != BLOB_OK) {
            end_turn(pool, NULL);
            go_down(pool, generation, why.text);
            return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "%s", why.text);
        }
        conn->generation = generation;
    }
    *out = conn;
    return BLOB_OK;
}

void redis_pool_give(struct redis_pool *pool, struct redis_conn *conn)
{
    unsigned long generation = conn->generation;
    bool broken = conn->broken, demoted = conn->demoted;
    end_turn(pool, conn);
    if (broken)
        go_down(pool, generation,
                demoted ? "the server became a replica" : "a connection failed or an answer did not come in time");
}

bool redis_pool_keeps(struct redis_pool *pool, const struct redis_conn *conn)
{
    pthread_mutex_lock(&pool->lock);
    bool keeps = !conn->broken && pool->up && conn->generation == pool->generation;
    pthread_mutex_unlock(&pool->lock);
    return keeps;
}

enum blob_status redis_pool_run(struct redis_pool *pool, const struct redis_call *call, redisReply **reply,
                                struct blob_error *err)
{
    struct redis_conn *conn = NULL;
    enum blob_status st = redis_pool_take(pool, &conn, err);
    if (st != BLOB_OK)
        return st;
    st = redis_conn_run(conn, call, reply, err);
    redis_pool_give(pool, conn);
    return st;
}
