/*
 * http_pool - the bounded memory that request bodies travel in: pieces of 16, 64 or 256 KiB, lent to the request that
 * reads and given back by whoever consumed them.
 *
 * Two bounds hold: all pieces alive together (over all loops), and the pieces of one request. Both count what a piece
 * could hold, not what it holds. The first is lower, down to half, the more requests have a flow: they cost memory too.
 * A request that meets the first bound waits in a queue and is served in its turn; one
 * that meets the second waits for half of its own to come back.
 *
 * Threads: any. Ownership: a taken piece belongs to the taker until http_pool_give(). Lock order: the pool's lock is a
 * leaf; tasks are posted after it is released.
 */
#ifndef BLOBD_SERVER_HTTP_HTTP_POOL_H
#define BLOBD_SERVER_HTTP_HTTP_POOL_H

#include "server/http/http_server.h"

struct http_pool;
struct http_flow;

enum blob_status http_pool_new(size_t max_bytes, struct http_pool **out, struct blob_error *err) BLOB_MUST_CHECK;
/* No piece is lent any more. */
void http_pool_free(struct http_pool *pool);

/* One request's share of the pool. resume(arg) comes on the loop's thread when a take that had to wait may be tried
 * again; never after http_flow_end(). NULL without memory. */
struct http_flow *http_flow_new(struct http_pool *pool, struct http_loop *loop, size_t max_bytes,
                                void (*resume)(void *arg), void *arg);
/* On the loop's thread. Pieces still out keep what they need. */
void http_flow_end(struct http_flow *flow);

/* On the loop's thread. A piece for wanted bytes, or a smaller one where memory is short. False: resume() will come. */
bool http_flow_take(struct http_flow *flow, size_t wanted, struct http_piece **out);
/* The same, if it can be had without waiting. False: it cannot, and nothing will come. */
bool http_flow_take_free(struct http_flow *flow, size_t wanted, struct http_piece **out);
/* How much a piece can hold. */
size_t http_piece_capacity(const struct http_piece *piece);
void http_pool_give(struct http_pool *pool, struct http_piece *piece);

#endif
