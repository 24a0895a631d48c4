/*
 * admin_handlers - /readyz fails when the storage cannot be used or the server drains. Lost sessions only degrade it:
 * downloads go on without them, and a balancer that took all nodes away would stop those too.
 */
#include "server/admin_handlers.h"

#include "core/blob_store.h"
#include "core/bytebuf.h"
#include "core/metrics.h"
#include "core/session_store.h"
#include "server/exchange.h"
#include "server/response.h"
#include "server/service.h"

void handle_healthz(struct exchange *x)
{
    struct bytebuf body;
    bytebuf_init(&body);
    bytebuf_text(&body, "{\"status\":\"alive\"}");
    response_json(x, 200, &body);
    bytebuf_release(&body);
}

struct ready_state {
    enum blob_status storage, sessions;
    struct blob_error storage_err, sessions_err;
};

static void ready_work(struct exchange *x)
{
    struct ready_state *s = x->state;
    s->storage = blob_store_check(x->svc->store, &s->storage_err);
    s->sessions = session_store_check(x->svc->sessions, &s->sessions_err);
}

static void add_part(struct bytebuf *b, const char *name, enum blob_status st, const struct blob_error *err)
{
    bytebuf_printf(b, ",\"%s\":", name);
    bytebuf_json_string(b, st == BLOB_OK ? "ok" : err->text);
}

static void ready_done(struct exchange *x)
{
    struct ready_state *s = x->state;
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
    if (exchange_state(x, sizeof(struct ready_state)) != NULL)
        exchange_hop(x, NULL, ready_work, ready_done);
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
