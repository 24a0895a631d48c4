/*
 * exchange_hop - a request's way to the workers and back to its loop.
 *
 * At most one hop of an exchange is under way; while it is, nothing else may answer.
 *
 * Threads: all functions on the request's loop; work(x) runs on a worker, then(x) on the loop.
 */
#ifndef BLOBD_SERVER_API_EXCHANGE_HOP_H
#define BLOBD_SERVER_API_EXCHANGE_HOP_H

#include "server/api/exchange.h"

/* Memory for the handler, zeroed, freed with the exchange; once an exchange. NULL when memory is out: the request has
 * been answered 503 then. */
void *exchange_state(struct exchange *x, size_t bytes);

/*
 * Runs work(x) on a worker (in lane, which may be NULL), then then(x) back on the loop, which answers or hops again.
 * Where the pool is full the request is answered 503 here, and false returned: x is gone.
 */
bool exchange_hop(struct exchange *x, struct worker_lane *lane, void (*work)(struct exchange *x),
                  void (*then)(struct exchange *x));
/* The same on another pool than the requests', which must not queue behind them. */
bool exchange_hop_aside(struct exchange *x, struct worker_pool *pool, void (*work)(struct exchange *x),
                        void (*then)(struct exchange *x));
/* The same in a share of the workers, in turns by who asks. May answer 503 later, in place of then(x). */
bool exchange_hop_share(struct exchange *x, struct worker_share *share, void (*work)(struct exchange *x),
                        void (*then)(struct exchange *x));

#endif
