/*
 * http_request - a request as the layer above sees it: made when its head is complete, alive until its answer is out or
 * dropped.
 *
 * Callbacks into the layer above may answer, and an answer may go out at once and take request and connection with it.
 * So every callback runs with the request pinned, and nothing is touched afterwards but the request itself.
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "core/clock.h"

#include <event2/buffer.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- making ---------------------------------------------------------------------------------------------------- */

static enum http_method method_of(const struct evhttp_request *ereq)
{
    switch (ereq->type) {
    case EVHTTP_REQ_GET:
        return HTTP_GET;
    case EVHTTP_REQ_HEAD:
        return HTTP_HEAD;
    case EVHTTP_REQ_POST:
        return HTTP_POST;
    case EVHTTP_REQ_PUT:
        return HTTP_PUT;
    case EVHTTP_REQ_DELETE:
        return HTTP_DELETE;
    case EVHTTP_REQ_OPTIONS:
        return HTTP_OPTIONS;
    case EVHTTP_REQ_PATCH:
        return HTTP_PATCH;
    default:
        return HTTP_OTHER;
    }
}

/* Parts the target where it lies: the evhttp_request is ours as long as the request lives. */
static void request_split_target(struct http_request *req, char *target)
{
    if (!target) {
        req->path = "-";
        return;
    }
    char *query = strchr(target, '?');
    if (query) {
        *query = '\0';
        req->query = query + 1;
    }
    if (target[0] != '/' && target[0] != '*') { /* the absolute form */
        char *authority = strstr(target, "://");
        target = authority ? strchr(authority + 3, '/') : NULL;
    }
    req->path = target && target[0] ? target : "/";
}

static struct http_request *request_new(struct http_conn *conn, const struct head_framing *framing)
{
    struct http_request *req = malloc(sizeof *req);
    if (req) /* not memset(), of which the compiler makes calloc(): that takes the allocator's lock each time */
        *req = (struct http_request){.magic = HTTP_REQUEST_MAGIC};
    if (!req || !http_fields_join(conn->ereq->input_headers, &req->joined)) {
        free(req);
        return NULL;
    }
    req->loop = conn->loop;
    req->conn = conn;
    req->ereq = conn->ereq;
    req->method = method_of(conn->ereq);
    req->version_1_0 = conn->scan.version_1_0;
    req->keep_alive = framing->keep_alive;
    req->expects_continue = framing->expects_continue;
    req->is_tls = conn->loop->srv->tls != NULL;
    req->body.kind = framing->kind;
    req->body.left = framing->length;
    req->start_us = clock_steady_us();
    memcpy(req->method_name, conn->scan.method, sizeof req->method_name);
    req->client = conn->client;
    memcpy(req->remote, conn->remote, sizeof req->remote);
    return req;
}

static struct head_fault request_judge(const struct http_request *req)
{
    if (req->method == HTTP_OTHER)
        return (struct head_fault){.fault = HTTP_FAULT_NOT_IMPLEMENTED, .detail = "an unknown method"};
    return head_target_judge(req->ereq->uri, req->method);
}

void http_request_dispatch(struct http_conn *conn, struct head_fault fault, const struct head_framing *framing)
{
    static const struct head_framing no_framing = {.kind = HTTP_BODY_NONE};
    const struct http_config *cfg = &conn->loop->srv->cfg;
    struct http_request *req = request_new(conn, fault.detail ? &no_framing : framing);
    if (!req) {
        http_conn_break(conn);
        return;
    }
    if (!fault.detail) {
        fault = request_judge(req);
        http_peer_of_request(req);
    }
    request_split_target(req, conn->ereq->uri);
    conn->req = req;
    conn->phase = CONN_BUSY;
    conn->since_ms = http_now_ms();
    atomic_fetch_add(&conn->loop->srv->in_flight, 1);
    http_request_pin(req);
    if (fault.detail) {
        req->faulty = true;
        req->close = true;
        cfg->on_fault(req, fault.fault, fault.detail, cfg->arg);
    } else {
        cfg->on_request(req, cfg->arg);
    }
    if (req->conn)
        http_conn_seize(req->conn);
    http_request_unpin(req);
}

/* ---- ending ---------------------------------------------------------------------------------------------------- */

void http_request_pin(struct http_request *req)
{
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    req->pins++;
}

static void request_free(struct http_request *req)
{
    free(req->headers);
    http_fields_free(req->joined);
    req->magic = 0;
    free(req);
}

void http_request_unpin(struct http_request *req)
{
    CHECK(req->pins > 0);
    if (--req->pins == 0 && req->dead)
        request_free(req);
}

static void request_let_go(struct http_request *req)
{
    atomic_fetch_sub(&req->loop->srv->in_flight, 1);
    if (req->ereq_ours)
        evhttp_request_free(req->ereq);
    req->ereq = NULL;
    req->conn = NULL;
    req->dead = true;
    if (req->pins == 0)
        request_free(req);
}

void http_request_finish(struct http_request *req)
{
    const struct http_config *cfg = &req->loop->srv->cfg;
    CHECK(!req->dead && req->reply.kind != REPLY_NONE);
    http_body_stop(req);
    http_reply_release(req);
    cfg->on_done(req, cfg->arg);
    request_let_go(req);
}

bool http_request_detach(struct http_request *req)
{
    bool awaited = req->reply.kind == REPLY_NONE || req->reply.wanted;
    req->conn = NULL;
    if (!awaited || (req->loop->stopping && req->reply.kind != REPLY_NONE)) {
        http_request_finish(req);
        return false;
    }
    if (req->loop->stopping) { /* nobody is left to answer it */
        http_body_stop(req);
        request_let_go(req);
        return false;
    }
    req->ereq_ours = true;
    http_body_lose(req);
    return true;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

struct http_loop *http_request_loop(const struct http_request *req)
{
    return req->loop;
}

enum http_method http_request_method(const struct http_request *req)
{
    return req->method;
}

const char *http_request_method_name(const struct http_request *req)
{
    return req->method_name[0] ? req->method_name : "-";
}

const char *http_request_path(const struct http_request *req)
{
    return req->path;
}

const char *http_request_query(const struct http_request *req)
{
    return req->query;
}

const char *http_request_header(const struct http_request *req, const char *name)
{
    const char *joined = http_fields_joined(req->joined, name);
    return joined ? joined : evhttp_find_header(req->ereq->input_headers, name);
}

unsigned http_request_header_count(const struct http_request *req, const char *name)
{
    unsigned count = 0;
    struct evkeyval *header;
    TAILQ_FOREACH(header, req->ereq->input_headers, next)
    count += strcasecmp(header->key, name) == 0;
    return count;
}

const char *http_request_remote(const struct http_request *req)
{
    return req->remote;
}

const struct ip_address *http_request_client(const struct http_request *req)
{
    return &req->client;
}

bool http_request_is_tls(const struct http_request *req)
{
    return req->is_tls;
}

bool http_request_gone(const struct http_request *req)
{
    if (!req->conn)
        return true;
    /* A half-closed peer still waits for its answer: POLLHUP means that both directions are shut. */
    struct pollfd socket = {.fd = http_conn_fd(req->conn)};
    return poll(&socket, 1, 0) == 1 && (socket.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

void http_request_set_context(struct http_request *req, void *ctx)
{
    req->ctx = ctx;
}

void *http_request_context(const struct http_request *req)
{
    return req->ctx;
}

void http_request_set_id(struct http_request *req, const char *id)
{
    size_t len = strnlen(id, sizeof req->id - 1);
    memcpy(req->id, id, len);
    req->id[len] = '\0';
}

const char *http_request_id(const struct http_request *req)
{
    return req->id;
}

int http_request_status(const struct http_request *req)
{
    return req->status;
}

uint64_t http_request_bytes_in(const struct http_request *req)
{
    return req->body.received;
}

uint64_t http_request_bytes_out(const struct http_request *req)
{
    return req->drained > req->head_bytes ? req->drained - req->head_bytes : 0;
}

int64_t http_request_duration_us(const struct http_request *req)
{
    return clock_steady_us() - req->start_us;
}

enum http_body_kind http_request_body_kind(const struct http_request *req)
{
    return req->body.kind;
}

bool http_request_expects_continue(const struct http_request *req)
{
    return req->expects_continue;
}

uint64_t http_request_body_length(const struct http_request *req)
{
    return req->body.kind == HTTP_BODY_LENGTH ? req->body.left + req->body.received : 0;
}
