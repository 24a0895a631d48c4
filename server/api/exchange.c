/*
 * exchange - the order of checks is the order of their cost, and of what a stranger may learn: path (404), method
 * (405), bearer (401), and only then whatever the handler looks at. All of it happens before a byte of body is read.
 */
#include "server/api/exchange.h"

#include "core/check.h"
#include "core/log.h"
#include "server/api/response.h"
#include "server/api/service.h"
#include "server/api/telemetry.h"
#include "server/auth/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXCHANGE_MAGIC 0x65786368u

static struct exchange *exchange_from_job(struct worker_job *job)
{
    struct exchange *x = (struct exchange *)(void *)((char *)job - offsetof(struct exchange, job));
    MAGIC_OK(x, EXCHANGE_MAGIC);
    return x;
}

static struct exchange *exchange_from_task(struct http_task *task)
{
    struct exchange *x = (struct exchange *)(void *)((char *)task - offsetof(struct exchange, task));
    MAGIC_OK(x, EXCHANGE_MAGIC);
    return x;
}

/* NULL when memory is out; the request is answered then. */
static struct exchange *exchange_new(struct http_request *req, struct endpoint *ep, const struct route *route)
{
    struct exchange *x = malloc(sizeof *x);
    if (x == NULL) {
        http_reply(req, api_code_http(API_UNAVAILABLE), NULL, 0);
        return NULL;
    }
    /* Neither calloc() nor memset(), which the compiler makes calloc() of: it takes the allocator's lock each time. */
    *x = (struct exchange){.magic = EXCHANGE_MAGIC,
                           .req = req,
                           .svc = ep->svc,
                           .telemetry = ep->telemetry,
                           .limiter = ep->limiter,
                           .route = route};
    http_request_set_context(req, x);
    response_set_request_id(req);
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
    struct exchange *x = (struct exchange *)(void *)((char *)job - offsetof(struct exchange, share_job));
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

static void ask_auth(struct exchange *x)
{
    char client[HTTP_CLIENT_MAX];
    http_request_client_text(x->req, client);
    auth_ask(x->svc->auth, http_request_header(x->req, "Authorization"), client, &x->who, &x->err);
}

/* Of a bearer that is remembered, beside the request that shows it. */
struct renewal {
    struct worker_job job;
    struct auth *auth;
    char client[HTTP_CLIENT_MAX];
    char authorization[];
};

static void renewal_run(struct worker_job *job)
{
    struct renewal *r = (struct renewal *)(void *)((char *)job - offsetof(struct renewal, job));
    auth_renew(r->auth, r->authorization, r->client);
    free(r);
}

/* At worst the next request asks, or the one after. */
static void renew_bearer(struct exchange *x, const char *authorization)
{
    size_t len = strlen(authorization);
    struct renewal *r = calloc(1, sizeof *r + len + 1);
    if (r == NULL)
        return;
    r->job.run = renewal_run;
    r->auth = x->svc->auth;
    http_request_client_text(x->req, r->client);
    memcpy(r->authorization, authorization, len + 1);
    if (worker_pool_try_submit(x->svc->pool, NULL, &r->job) != BLOB_OK)
        free(r);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void refuse_limited(struct exchange *x, enum limit limit, unsigned retry_after_s)
{
    static const char *const texts[LIMIT_COUNT] = {
        [LIMIT_REQUESTS_ADDRESS] = "too many requests of this address are in flight",
        [LIMIT_REQUESTS_IDENTITY] = "too many requests of this identity are in flight",
        [LIMIT_UPLOADS_ADDRESS] = "this address has begun too many uploads",
        [LIMIT_UPLOADS_IDENTITY] = "this identity has begun too many uploads",
    };
    api_fail(&x->err, API_TOO_MANY_REQUESTS, "%s", texts[limit]);
    x->err.retry_after_s = retry_after_s;
    response_error(x, &x->err);
}

static bool address_enter(struct exchange *x)
{
    if (x->limiter == NULL)
        return true;
    struct limit_key key = limit_key_of_address(http_request_client(x->req));
    enum limit_grant grant = limiter_enter(x->limiter, LIMIT_REQUESTS_ADDRESS, &key);
    x->address_held = grant == LIMIT_HELD;
    if (grant == LIMIT_REFUSED)
        refuse_limited(x, LIMIT_REQUESTS_ADDRESS, 1);
    return grant != LIMIT_REFUSED;
}

/* Where nobody has a name, as with auth.mode=none or behind a PBX that tells none, one is who shows the same bearer. */
static bool has_identity(const struct exchange *x)
{
    return x->who.known || x->bearer_shown;
}

static struct limit_key identity_key(const struct exchange *x)
{
    return limit_key_of_text(x->who.name[0] != '\0' ? x->who.name : http_request_header(x->req, "Authorization"));
}

static bool identity_enter(struct exchange *x)
{
    if (x->limiter == NULL || !has_identity(x) || !limiter_is_set(x->limiter, LIMIT_REQUESTS_IDENTITY))
        return true;
    x->identity_key = identity_key(x);
    enum limit_grant grant = limiter_enter(x->limiter, LIMIT_REQUESTS_IDENTITY, &x->identity_key);
    x->identity_held = grant == LIMIT_HELD;
    if (grant == LIMIT_REFUSED)
        refuse_limited(x, LIMIT_REQUESTS_IDENTITY, 1);
    return grant != LIMIT_REFUSED;
}

static void limits_leave(struct exchange *x)
{
    if (x->address_held) {
        struct limit_key key = limit_key_of_address(http_request_client(x->req));
        limiter_leave(x->limiter, LIMIT_REQUESTS_ADDRESS, &key);
    }
    if (x->identity_held)
        limiter_leave(x->limiter, LIMIT_REQUESTS_IDENTITY, &x->identity_key);
}

bool exchange_spend_upload(struct exchange *x)
{
    if (x->limiter == NULL)
        return true;
    enum limit limit = LIMIT_UPLOADS_ADDRESS;
    struct limit_key key = limit_key_of_address(http_request_client(x->req));
    unsigned wait_s = limiter_spend(x->limiter, limit, &key);
    if (wait_s == 0 && has_identity(x) && limiter_is_set(x->limiter, LIMIT_UPLOADS_IDENTITY)) {
        limit = LIMIT_UPLOADS_IDENTITY;
        key = identity_key(x);
        wait_s = limiter_spend(x->limiter, limit, &key);
    }
    if (wait_s > 0)
        refuse_limited(x, limit, wait_s);
    return wait_s == 0;
}

/* ---- from the head to the handler -------------------------------------------------------------------------------- */

static void handle(struct exchange *x)
{
    if (identity_enter(x))
        x->route->handler(x);
}

static void auth_asked(struct exchange *x)
{
    if (x->err.code != API_OK)
        response_error(x, &x->err);
    else
        handle(x);
}

static bool needs_bearer(const struct exchange *x)
{
    return x->route->auth == ROUTE_BEARER || (x->route->auth == ROUTE_DOWNLOAD && x->svc->downloads_need_bearer);
}

/* A public download needs no bearer; one that is shown, and known without asking anybody, says whose names it may show.
 */
static void look_at_bearer(struct exchange *x)
{
    struct identity who;
    struct api_error ignored;
    const char *authorization = http_request_header(x->req, "Authorization");
    if (x->route->auth == ROUTE_DOWNLOAD && authorization != NULL &&
        http_request_header_count(x->req, "Authorization") == 1 &&
        auth_check(x->svc->auth, authorization, &who, &ignored) == AUTH_GRANTED)
        x->who = who;
}

static void exchange_start(struct exchange *x)
{
    if (!needs_bearer(x)) {
        look_at_bearer(x);
        x->route->handler(x);
        return;
    }
    const char *authorization = http_request_header(x->req, "Authorization");
    if (http_request_header_count(x->req, "Authorization") > 1) {
        api_fail_field(&x->err, API_VALIDATE_FAILED, "Authorization", "the Authorization header is repeated");
        response_error(x, &x->err);
        return;
    }
    x->bearer_shown = authorization != NULL;
    switch (auth_check(x->svc->auth, authorization, &x->who, &x->err)) {
    case AUTH_RENEW:
        renew_bearer(x, authorization);
        x->route->handler(x);
        break;
    case AUTH_GRANTED:
        handle(x);
        break;
    case AUTH_REFUSED:
        response_error(x, &x->err);
        break;
    case AUTH_UNDECIDED:
        exchange_hop(x, NULL, ask_auth, auth_asked);
        break;
    }
}

static bool is_preflight(const struct http_request *req)
{
    return http_request_method(req) == HTTP_OPTIONS;
}

void endpoint_on_request(struct http_request *req, void *arg)
{
    struct endpoint *ep = arg;
    struct route_match match;
    const char *path = http_request_path(req);
    enum route_outcome outcome = router_match(ep->routes, ep->route_count, http_request_method(req), path, &match);
    struct exchange *x = exchange_new(req, ep, match.route);
    if (x == NULL || !address_enter(x))
        return;
    bool whole_server = is_preflight(req) && strcmp(path, "*") == 0;
    if (whole_server || (is_preflight(req) && outcome == ROUTE_NO_METHOD)) {
        response_options(x, whole_server ? METHODS_GET | METHODS_POST : match.allowed);
        return;
    }
    switch (outcome) {
    case ROUTE_FOUND:
        memcpy(x->param, match.param, strlen(match.param) + 1);
        exchange_start(x);
        return;
    case ROUTE_NO_PATH:
        api_fail(&x->err, API_NOT_FOUND, "there is nothing at this path");
        break;
    case ROUTE_NO_METHOD:
        api_fail(&x->err, API_METHOD_NOT_ALLOWED, "this path does not take the method %.20s",
                 http_request_method_name(req));
        response_allow(x, match.allowed);
        break;
    case ROUTE_BAD_ESCAPE:
        api_fail_field(&x->err, API_VALIDATE_FAILED, "path", "the path holds broken percent-encoding");
        break;
    }
    response_error(x, &x->err);
}

void endpoint_on_fault(struct http_request *req, enum http_fault fault, const char *detail, void *arg)
{
    static const enum api_code codes[] = {
        [HTTP_FAULT_BAD_REQUEST] = API_BAD_REQUEST,
        [HTTP_FAULT_HEAD_TIMEOUT] = API_REQUEST_TIMEOUT,
        [HTTP_FAULT_URI_TOO_LONG] = API_URI_TOO_LONG,
        [HTTP_FAULT_EXPECTATION] = API_EXPECTATION_FAILED,
        [HTTP_FAULT_HEAD_TOO_LARGE] = API_HEADERS_TOO_LARGE,
        [HTTP_FAULT_NOT_IMPLEMENTED] = API_NOT_IMPLEMENTED,
        [HTTP_FAULT_TOO_MANY] = API_UNAVAILABLE,
        [HTTP_FAULT_OVER_SHARE] = API_TOO_MANY_REQUESTS,
    };
    CHECK((unsigned)fault < sizeof codes / sizeof *codes);
    struct exchange *x = exchange_new(req, arg, NULL);
    if (x == NULL)
        return;
    api_fail(&x->err, codes[fault], "%s", detail);
    if (fault == HTTP_FAULT_TOO_MANY || fault == HTTP_FAULT_OVER_SHARE)
        x->err.retry_after_s = 1;
    response_error(x, &x->err);
}

void endpoint_on_done(struct http_request *req, void *arg)
{
    struct endpoint *ep = arg;
    struct exchange *x = http_request_context(req);
    if (x != NULL)
        MAGIC_OK(x, EXCHANGE_MAGIC);
    telemetry_count(ep->telemetry, req, x != NULL ? x->route : NULL);
    if (atomic_load_explicit(&ep->svc->access_log, memory_order_relaxed))
        telemetry_log(ep->svc->log, req, x != NULL && x->who.known ? x->who.name : NULL);
    if (x == NULL)
        return;
    http_request_set_context(req, NULL);
    limits_leave(x);
    x->magic = 0;
    free(x->state);
    free(x);
}

/* Only peers that the settings name can cause a line. */
void endpoint_on_proxy_fault(const char *remote, const char *fault, void *arg)
{
    const struct endpoint *ep = arg;
    log_line(ep->svc->log, LOG_WARN, NULL, "%s is in server.proxy_protocol_from, but %s", remote, fault);
}
