/*
 * redis_pool - the connections that operations share, at most so many, and the knowledge whether Redis is there.
 *
 * States: up: operations take connections, which are made as needed. Down: operations are refused at once, so that
 * workers never queue up behind a dead server; redis_pool_probe(), called by one thread, tries to reach it with
 * back-off and puts the pool up again. The first failure of a connection puts it down.
 *
 * Threads: any; probe and watch_master from one thread at a time. Ownership: a connection taken is given back. The
 * pool borrows config and log. Errors: UNAVAILABLE.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_POOL_H
#define BLOBD_BACKENDS_REDIS_REDIS_POOL_H

#include "backends/redis/redis_conn.h"

struct logger;
struct redis_pool;

/* Makes no connection: it begins down. wake_fd: an eventfd that is written to when the pool goes down. */
enum blob_status redis_pool_new(const struct redis_config *config, struct logger *log, int wake_fd,
                                struct redis_pool **out, struct blob_error *err) BLOB_MUST_CHECK;
void redis_pool_free(struct redis_pool *pool);

bool redis_pool_up(struct redis_pool *pool);
/* Tries to reach Redis now, if it is down; OK: it is up. */
enum blob_status redis_pool_probe(struct redis_pool *pool, struct blob_error *err) BLOB_MUST_CHECK;
/* When the next probe is due, as clock_steady_us(); only while down. */
int64_t redis_pool_probe_due_us(struct redis_pool *pool);
/* With sentinels: asks them, and goes down when the master has moved. */
void redis_pool_watch_master(struct redis_pool *pool);
/* Where Redis is, as it was last found. Changes of address and every loss of the server raise the generation. */
void redis_pool_where(struct redis_pool *pool, struct redis_endpoint *at, unsigned long *generation);

enum blob_status redis_pool_take(struct redis_pool *pool, struct redis_conn **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
void redis_pool_give(struct redis_pool *pool, struct redis_conn *conn);
/* May a connection that was taken be used on? Else it is to be given back. */
bool redis_pool_keeps(struct redis_pool *pool, const struct redis_conn *conn);
/* take, run, give. */
enum blob_status redis_pool_run(struct redis_pool *pool, const struct redis_call *call, redisReply **reply,
                                struct blob_error *err) BLOB_MUST_CHECK;

#endif
