/*
 * redis_node - this node among the others: its entry in the registry, the take-overs it is told of, and the one thread
 * of a Redis session store, which also reaches for Redis when it is away and follows the master.
 *
 * Threads: any. Ownership: borrows pool, config and log; the thread ends in redis_node_free(). The notice callback and
 * the tick run on that thread, without locks held. Errors: as session_store.h's join.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_NODE_H
#define BLOBD_BACKENDS_REDIS_REDIS_NODE_H

#include "backends/redis/redis_pool.h"
#include "core/session_store.h"

struct redis_node;

/* Called after every heartbeat that Redis answered. */
struct node_clock;

typedef void redis_node_tick_fn(void *arg);

/* wake_fd: the eventfd the pool writes to. */
enum blob_status redis_node_new(const struct redis_config *config, struct redis_pool *pool, int wake_fd,
                                int64_t node_ttl_ms, redis_node_tick_fn *tick, void *tick_arg, struct logger *log,
                                struct redis_node **out, struct blob_error *err) BLOB_MUST_CHECK;
void redis_node_free(struct redis_node *node);

/* As session_store_ops.listen and join. After UNAVAILABLE the thread goes on trying. */
void redis_node_listen(struct redis_node *node, session_notice_fn *fn, void *arg);
/* clock is told, now and then, how far the wall clock is from Redis'; it may be NULL. */
enum blob_status redis_node_join(struct redis_node *node, const char *node_id, const char *store_id,
                                 struct node_clock *clock, int64_t now_ms, struct blob_error *err) BLOB_MUST_CHECK;
/* May operations run? UNAVAILABLE: not joined yet, or refused since. */
enum blob_status redis_node_ready(struct redis_node *node, struct blob_error *err) BLOB_MUST_CHECK;
/* "" before join; then constant. */
const char *redis_node_id(const struct redis_node *node);
void redis_node_announce(struct redis_node *node, const struct uuid *id, uint64_t epoch);

#endif
