/*
 * exchange - one request on its way through the server: from the head, by route and bearer, to its handler, and
 * between the loop and the workers.
 *
 * Life: made when the head is there, freed by the layer's on_done after the answer. In between it has at most one hop
 * to the workers under way; while one is, nothing else may answer. So a worker may use the exchange, and whatever the
 * request lends (its headers, path, query), without a lock.
 *
 * Threads: on the loop's thread, but for a hop's work, which runs on a worker and touches the exchange's own members
 * and http_request's headers only.
 */
#ifndef BLOBD_SERVER_API_EXCHANGE_H
#define BLOBD_SERVER_API_EXCHANGE_H

#include "core/api_error.h"
#include "core/files/file_catalog.h"
#include "core/worker_pool.h"
#include "core/worker_share.h"
#include "server/api/router.h"
#include "server/http/http_server.h"
#include "server/limiter.h"

#include <stddef.h>

struct service;
struct telemetry;

struct exchange {
    unsigned magic;
    struct http_request *req;
    struct service *svc;
    struct telemetry *telemetry;
    struct limiter *limiter;   /* NULL: unlimited */
    const struct route *route; /* NULL where none matched */
    struct identity who;
    bool bearer_shown; /* so that a 401 says that the bearer is wrong, not that it is missing */
    char param[ROUTE_PARAM_MAX + 1];
    struct api_error err;             /* for handlers: why this request is refused */
    void *state;                      /* exchange_state()'s */
    bool address_held, identity_held; /* by the limiter, until the answer is out */
    struct limit_key identity_key;

    struct worker_job job;
    struct share_job share_job;
    struct http_task task;
    bool dropped; /* by the share, before it was worked on */
    void (*work)(struct exchange *x);
    void (*then)(struct exchange *x);
};

/* One listener: which routes it has. */
struct endpoint {
    struct service *svc;
    struct telemetry *telemetry;
    const struct route *routes;
    size_t route_count;
    struct limiter *limiter; /* NULL: unlimited */
};

/* The http_config callbacks; arg is a struct endpoint. */
void endpoint_on_request(struct http_request *req, void *arg);
void endpoint_on_fault(struct http_request *req, enum http_fault fault, const char *detail, void *arg);
void endpoint_on_done(struct http_request *req, void *arg);
void endpoint_on_proxy_fault(const char *remote, const char *fault, void *arg);

/* Memory for the handler, zeroed, freed with the exchange; once an exchange. NULL when memory is out: the request has
 * been answered 503 then. */
void *exchange_state(struct exchange *x, size_t bytes);

/* May the client, and the identity, begin another upload now? False: answered 429. */
bool exchange_spend_upload(struct exchange *x);

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
