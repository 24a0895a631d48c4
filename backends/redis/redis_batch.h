/*
 * redis_batch - the short calls of many threads in few exchanges with Redis: what comes while one is under way goes
 * with the next, all of it in one write, and the answers come in one read.
 *
 * An exchange costs Redis and this node some system calls and a wake-up on either side, which is more than most calls
 * cost. What is long (listings, scans, a rebuild) is not for here, since all would wait for it: redis_pool has
 * connections for that.
 *
 *     st = redis_batch_run(batch, &call, &reply, err);
 *
 * Threads: any. Ownership: calls are borrowed until return; replies are given (freeReplyObject). Borrows the pool.
 * Errors: each call's own, as redis_conn.h has them; UNAVAILABLE also where no connection could be had. Nobody waits
 * longer than for the exchange before, and for his own.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_BATCH_H
#define BLOBD_BACKENDS_REDIS_REDIS_BATCH_H

#include "backends/redis/redis_pool.h"

#define REDIS_TOGETHER_MAX 4

struct redis_batch;

enum blob_status redis_batch_new(struct redis_pool *pool, struct redis_batch **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
void redis_batch_free(struct redis_batch *batch);

enum blob_status redis_batch_run(struct redis_batch *batch, const struct redis_call *call, redisReply **reply,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* Runs count calls, at most REDIS_TOGETHER_MAX, in one exchange and this order (but for scripts that Redis does not
 * know: their texts follow the rest). */
void redis_batch_run_all(struct redis_batch *batch, struct redis_asked *asked, size_t count);

#endif
