/*
 * redis_rig - a redis-server of the test's own, and session stores that use it.
 *
 * Threads: one. The server is stopped by stop().
 */
#ifndef BLOBD_TESTS_REDIS_RIG_H
#define BLOBD_TESTS_REDIS_RIG_H

#include "backends/redis/redis_sessions.h"
#include "core/check.h"
#include "core/clock.h"
#include "tests/contract/redis_server.h"
#include "tests/rig/unit_main.h"

#include <signal.h>
#include <string.h>
#include <time.h>

#define STORE_ID   "5f0e0a36-0000-4000-8000-000000000000"
#define TIMEOUT_MS 400

static struct redis_server server;
static char url[128];

static inline struct redis_sessions_options options(void)
{
    return (struct redis_sessions_options){.url = url,
                                           .prefix = "blobd:",
                                           .connections = 16,
                                           .connect_timeout_ms = TIMEOUT_MS,
                                           .command_timeout_ms = TIMEOUT_MS,
                                           .node_ttl_ms = 900};
}

static inline struct session_store *joined(const struct redis_sessions_options *opt, const char *node)
{
    struct session_store *s = NULL;
    struct blob_error err = {0};
    enum blob_status st = redis_sessions_open(opt, &s, &err);
    if (st == BLOB_OK)
        st = session_store_join(s, node, STORE_ID, clock_wall_ms(), &err);
    if (st != BLOB_OK) {
        fprintf(stderr, "%s: %s\n", blob_status_name(st), err.text);
        CU_FAIL_FATAL("join");
    }
    return s;
}

static inline struct session_store *joined_here(void)
{
    struct redis_sessions_options opt = options();
    return joined(&opt, "node-a");
}

static inline void start_with(const char *const *extra)
{
    redis_server_start(&server, extra);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", server.port);
}

static inline int start_plain(void)
{
    start_with(NULL);
    return 0;
}

static inline int stop(void)
{
    redis_server_release(&server);
    return 0;
}

static inline void flush_all(void)
{
    CHECK(redis_server_command(&server, "FLUSHALL"));
}

static inline void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static inline int64_t later(void)
{
    return clock_wall_ms() + 60000;
}

static inline uint64_t epoch_of(struct session_store *s, const struct uuid *id)
{
    struct bytebuf b;
    uint64_t epoch = 0;
    bytebuf_init(&b);
    (void)!session_load(s, id, &b, &epoch, NULL);
    bytebuf_release(&b);
    return epoch;
}

/* Until the store answers again; the milliseconds it took, or -1. */
static inline int64_t wait_for(struct session_store *s, int64_t limit_ms)
{
    int64_t began = clock_steady_us();
    while (clock_steady_us() - began < limit_ms * 1000) {
        if (session_store_check(s, NULL) == BLOB_OK)
            return (clock_steady_us() - began) / 1000;
        sleep_ms(5);
    }
    return -1;
}

static inline void put_row(struct session_store *s, const char *id, enum blob_status expected)
{
    struct index_row row = {.size = 1, .created_ms = 1, .value = "{}", .value_len = 2};
    snprintf(row.id, sizeof row.id, "%s", id);
    CU_ASSERT_EQUAL(index_put(s, &row, NULL), expected);
}

#endif
