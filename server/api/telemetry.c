/*
 * telemetry - every instrument is registered beforehand, for each route and each of its methods, so that counting is an
 * index and an atomic add, and a scrape shows zeros rather than gaps.
 */
#include "server/api/telemetry.h"

#include "core/log.h"
#include "core/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#define METHOD_COUNT (HTTP_OTHER + 1)
#define CLASS_COUNT  4 /* 2xx to 5xx */

struct route_instruments {
    struct metric *requests[METHOD_COUNT][CLASS_COUNT];
    struct metric *seconds;
};

struct telemetry {
    const struct route *routes;
    size_t route_count;
    struct metric *bytes_in, *bytes_out;
    struct route_instruments instruments[]; /* one a route, and a last one for what matched none */
};

static const char *const method_names[METHOD_COUNT] = {
    [HTTP_GET] = "GET",       [HTTP_HEAD] = "HEAD",       [HTTP_POST] = "POST",   [HTTP_PUT] = "PUT",
    [HTTP_DELETE] = "DELETE", [HTTP_OPTIONS] = "OPTIONS", [HTTP_PATCH] = "PATCH", [HTTP_OTHER] = "other",
};

static void register_route(struct metrics *m, const char *listener, const char *name, unsigned methods,
                           struct route_instruments *out)
{
    char labels[128];
    for (unsigned method = 0; method < METHOD_COUNT; method++) {
        for (unsigned class = 0; class < CLASS_COUNT && (methods & METHOD_BIT(method)); class ++) {
            snprintf(labels, sizeof labels, "listener=\"%s\",route=\"%s\",method=\"%s\",status=\"%uxx\"", listener,
                     name, method_names[method], class + 2);
            out->requests[method][class] =
                metrics_counter(m, "blobd_http_requests_total", "Requests answered.", labels);
        }
    }
    snprintf(labels, sizeof labels, "listener=\"%s\",route=\"%s\"", listener, name);
    out->seconds = metrics_histogram(m, "blobd_http_request_duration_seconds",
                                     "From the head's first byte to the answer's last.", labels);
}

struct telemetry *telemetry_new(struct metrics *metrics, const char *listener, const struct route *routes,
                                size_t route_count)
{
    struct telemetry *t = calloc(1, sizeof *t + (route_count + 1) * sizeof t->instruments[0]);
    if (t == NULL)
        return NULL;
    t->routes = routes;
    t->route_count = route_count;
    for (size_t i = 0; i < route_count; i++)
        register_route(metrics, listener, routes[i].name, routes[i].methods, &t->instruments[i]);
    register_route(metrics, listener, "none", (1u << METHOD_COUNT) - 1, &t->instruments[route_count]);
    char labels[64];
    snprintf(labels, sizeof labels, "listener=\"%s\"", listener);
    t->bytes_in = metrics_counter(metrics, "blobd_http_received_bytes_total", "Bytes of request bodies.", labels);
    t->bytes_out = metrics_counter(metrics, "blobd_http_sent_bytes_total", "Bytes of answers' bodies.", labels);
    return t;
}

void telemetry_free(struct telemetry *t)
{
    free(t);
}

void telemetry_count(struct telemetry *t, const struct http_request *req, const struct route *route)
{
    size_t index = route != NULL ? (size_t)(route - t->routes) : t->route_count;
    struct route_instruments *instruments = &t->instruments[index];
    int class = http_request_status(req) / 100 - 2;
    if (class >= 0 && class < CLASS_COUNT)
        metric_add(instruments->requests[http_request_method(req)][class], 1);
    metric_observe_us(instruments->seconds, http_request_duration_us(req));
    metric_add(t->bytes_in, (int64_t)http_request_bytes_in(req));
    metric_add(t->bytes_out, (int64_t)http_request_bytes_out(req));
}

void telemetry_log(struct logger *log, const struct http_request *req, const char *identity)
{
    struct log_access entry = {
        .request_id = http_request_id(req),
        .remote = http_request_remote(req),
        .identity = identity,
        .method = http_request_method_name(req),
        .path = http_request_path(req),
        .status = http_request_status(req),
        .bytes_in = http_request_bytes_in(req),
        .bytes_out = http_request_bytes_out(req),
        .duration_us = http_request_duration_us(req),
    };
    log_access(log, &entry);
}
