/*
 * admin_handlers - /readyz fails when the storage cannot be used or the server drains. Lost sessions only degrade it:
 * downloads go on without them, and a balancer that took all nodes away would stop those too.
 */
#include "server/api/admin_handlers.h"

#include "core/blob_store.h"
#include "core/clock.h"
#include "core/metrics.h"
#include "core/text/bytebuf.h"
#include "server/api/exchange.h"
#include "server/api/exchange_hop.h"
#include "server/api/response.h"
#include "server/api/service.h"
#include "server/readiness.h"

void handle_healthz(struct exchange *x)
{
    struct bytebuf body;
    bytebuf_init(&body);
    bytebuf_text(&body, "{\"status\":\"alive\"}");
    response_json(x, 200, &body);
    bytebuf_release(&body);
}

struct ready_state {
    int64_t asked_us;
    struct readiness_answer answer;
};

static void ready_work(struct exchange *x)
{
    struct ready_state *s = x->state;
    readiness_ask(x->svc->readiness, s->asked_us, &s->answer);
}

static void add_part(struct bytebuf *b, const char *name, enum blob_status st, const struct blob_error *err)
{
    bytebuf_printf(b, ",\"%s\":", name);
    bytebuf_json_string(b, st == BLOB_OK ? "ok" : err->text);
}

static void ready_done(struct exchange *x)
{
    const struct ready_state *state = x->state;
    const struct readiness_answer *s = &state->answer;
    bool draining = atomic_load(&x->svc->draining);
    const char *status = draining                 ? "draining"
                         : s->storage != BLOB_OK  ? "unavailable"
                         : s->sessions != BLOB_OK ? "degraded"
                                                  : "ready";
    struct bytebuf body;
    bytebuf_init(&body);
    bytebuf_printf(&body, "{\"status\":\"%s\"", status);
    add_part(&body, "storage", s->storage, &s->storage_err);
    add_part(&body, "sessions", s->sessions, &s->sessions_err);
    if (x->svc->store->limits != NULL) {
        bytebuf_text(&body, ",\"storage_limits\":");
        bytebuf_json_string(&body, x->svc->store->limits);
    }
    bytebuf_text(&body, "}");
    response_json(x, draining || s->storage != BLOB_OK ? 503 : 200, &body);
    bytebuf_release(&body);
}

void handle_readyz(struct exchange *x)
{
    struct ready_state *s = exchange_state(x, sizeof *s);
    if (s == NULL)
        return;
    s->asked_us = clock_steady_us();
    exchange_hop_aside(x, readiness_pool(x->svc->readiness), ready_work, ready_done);
}

void handle_metrics(struct exchange *x)
{
    struct bytebuf body;
    bytebuf_init(&body);
    metrics_render(x->svc->metrics, &body);
    if (body.failed) {
        response_busy(x);
    } else {
        response_common_headers(x, CACHE_NEVER);
        http_reply_header(x->req, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
        http_reply(x->req, 200, body.data, body.len);
    }
    bytebuf_release(&body);
}
