/*
 * exchange_hop - a hop is a job of a pool whose end is a task of the request's loop.
 */
#include "server/api/exchange_hop.h"

#include "core/check.h"
#include "server/api/response.h"
#include "server/api/service.h"

#include <stddef.h>
#include <stdlib.h>

static struct exchange *exchange_from_job(struct worker_job *job)
{
    struct exchange *x = CONTAINER_OF(job, struct exchange, job);
    MAGIC_OK(x, EXCHANGE_MAGIC);
    return x;
}

static struct exchange *exchange_from_task(struct http_task *task)
{
    struct exchange *x = CONTAINER_OF(task, struct exchange, task);
    MAGIC_OK(x, EXCHANGE_MAGIC);
    return x;
}

void *exchange_state(struct exchange *x, size_t bytes)
{
    CHECK(x->state == NULL);
    x->state = calloc(1, bytes);
    if (x->state == NULL)
        response_busy(x);
    return x->state;
}

static void exchange_task_run(struct http_task *task)
{
    struct exchange *x = exchange_from_task(task);
    if (x->dropped)
        response_busy(x);
    else
        x->then(x);
}

static void exchange_post(struct exchange *x)
{
    x->task.run = exchange_task_run;
    http_loop_post(http_request_loop(x->req), &x->task);
}

static void exchange_job_run(struct worker_job *job)
{
    struct exchange *x = exchange_from_job(job);
    x->work(x);
    exchange_post(x);
}

static bool exchange_submit(struct exchange *x, struct worker_pool *pool, struct worker_lane *lane)
{
    x->job.run = exchange_job_run;
    if (worker_pool_try_submit(pool, lane, &x->job) == BLOB_OK)
        return true;
    response_busy(x);
    return false;
}

bool exchange_hop(struct exchange *x, struct worker_lane *lane, void (*work)(struct exchange *x),
                  void (*then)(struct exchange *x))
{
    x->work = work;
    x->then = then;
    return exchange_submit(x, x->svc->pool, lane);
}

bool exchange_hop_aside(struct exchange *x, struct worker_pool *pool, void (*work)(struct exchange *x),
                        void (*then)(struct exchange *x))
{
    x->work = work;
    x->then = then;
    return exchange_submit(x, pool, NULL);
}

static struct exchange *exchange_from_share_job(struct share_job *job)
{
    struct exchange *x = CONTAINER_OF(job, struct exchange, share_job);
    MAGIC_OK(x, EXCHANGE_MAGIC);
    return x;
}

static void exchange_share_run(struct share_job *job)
{
    exchange_job_run(&exchange_from_share_job(job)->job);
}

static void exchange_share_drop(struct share_job *job)
{
    struct exchange *x = exchange_from_share_job(job);
    x->dropped = true;
    exchange_post(x);
}

/* Who is known asks by his name, from wherever; anybody else by his address, as limits count it. */
static uint64_t exchange_asker(const struct exchange *x)
{
    char client[HTTP_CLIENT_MAX];
    http_request_client_text(x->req, client);
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (const char *from = x->who.known ? x->who.name : client; *from; from++)
        h = (h ^ (unsigned char)*from) * UINT64_C(0x100000001b3);
    return h;
}

bool exchange_hop_share(struct exchange *x, struct worker_share *share, void (*work)(struct exchange *x),
                        void (*then)(struct exchange *x))
{
    x->work = work;
    x->then = then;
    x->share_job.run = exchange_share_run;
    x->share_job.drop = exchange_share_drop;
    if (worker_share_try_submit(share, exchange_asker(x), &x->share_job) == BLOB_OK)
        return true;
    response_busy(x);
    return false;
}
