/*
 * endpoint - the order of checks is the order of their cost, and of what a stranger may learn: path (404), method
 * (405), bearer (401), and only then whatever the handler looks at. All of it happens before a byte of body is read.
 */
#include "server/api/endpoint.h"

#include "core/check.h"
#include "core/log.h"
#include "server/api/exchange_hop.h"
#include "server/api/exchange_limits.h"
#include "server/api/response.h"
#include "server/api/service.h"
#include "server/api/telemetry.h"
#include "server/auth/auth.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* ---- the bearer ---- */

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
    struct renewal *r = CONTAINER_OF(job, struct renewal, job);
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

/* ---- from the head to the handler ---- */

static void handle(struct exchange *x)
{
    if (exchange_identity_enter(x))
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
    enum auth_verdict verdict = AUTH_REFUSED;
    const char *authorization = http_request_header(x->req, "Authorization");
    if (x->route->auth == ROUTE_DOWNLOAD && authorization != NULL &&
        http_request_header_count(x->req, "Authorization") == 1)
        verdict = auth_check(x->svc->auth, authorization, &who, &ignored);
    if (verdict == AUTH_RENEW)
        renew_bearer(x, authorization);
    if (verdict == AUTH_RENEW || verdict == AUTH_GRANTED)
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
        handle(x);
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

/* NULL when memory is out; the request is answered then. */
static struct exchange *begin(struct http_request *req, const struct endpoint *ep, const struct route *route)
{
    struct exchange *x = exchange_new(req, ep, route);
    if (x != NULL)
        response_set_request_id(req);
    return x;
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
    struct exchange *x = begin(req, ep, match.route);
    if (x == NULL || !exchange_address_enter(x))
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
    struct exchange *x = begin(req, arg, NULL);
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
    exchange_limits_leave(x);
    exchange_free(x);
}

/* Only peers that the settings name can cause a line. */
void endpoint_on_proxy_fault(const char *remote, const char *fault, void *arg)
{
    const struct endpoint *ep = arg;
    log_line(ep->svc->log, LOG_WARN, NULL, "%s is in server.proxy_protocol_from, but %s", remote, fault);
}
