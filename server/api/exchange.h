/*
 * exchange - one request on its way through the server: what is known of it, from the head to the answer. endpoint
 * makes it and leads it, by route and bearer, to its handler; exchange_hop takes it to the workers and back.
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

#define EXCHANGE_MAGIC 0x65786368u

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

/* Made when the head is there, and the request's context from then on. NULL when memory is out: the request has been
 * answered 503 then. */
struct exchange *exchange_new(struct http_request *req, const struct endpoint *ep, const struct route *route);
/* After the answer, and when nothing of it is under way. */
void exchange_free(struct exchange *x);

#endif
