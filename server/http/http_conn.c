/*
 * http_conn - one connection: what evhttp does with it, and where we step in.
 *
 * evhttp accepts, parses heads and starts over after each answer. Everything else is ours: the hook on the creation of
 * each evhttp_request puts our functions in place of evhttp's dispatcher, so that neither its handling of bodies nor
 * its error pages nor its header writing ever run; and a callback on the input buffer shows us the raw bytes of a head
 * before evhttp parses them. A head that fails there is made to fail in evhttp too, by a header limit of zero.
 *
 * Invariants: an evhttp_request is in conn->ereq from its making until the answer is out (conn_complete) or the
 * connection is closed (conn_closed), exactly one of which ends it. In CONN_HEAD the bufferevent's callbacks are
 * evhttp's and conn->req is NULL. In CONN_BUSY evhttp waits for us; its reading is off as soon as the handler returned
 * without an answer that went out whole (seized). Nothing is registered for the socket then but what we asked for, so
 * that a peer's close is noticed by reading or writing only, and a half-closed peer still gets its answer. Under TLS
 * the bufferevent never has the socket (http_tls.h).
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "server/http/evhttp_newreqcb.h"
#include "server/http/http_tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/listener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define WRITE_MAX        (1024 * 1024) /* bytes handed to the kernel at a time */
#define READ_AHEAD       (16 * 1024)
#define OVER_LIMIT_MS    2000 /* to ask and be told 503 */
#define RATE_WINDOW_MS   10000
#define FLUSH_MAX_WRITES 8

struct evbuffer *http_conn_output(const struct http_conn *conn)
{
    return conn->tls ? conn->tls->output : bufferevent_get_output(conn->bev);
}

struct evbuffer *http_conn_input(const struct http_conn *conn)
{
    return bufferevent_get_input(conn->bev);
}

int http_conn_fd(const struct http_conn *conn)
{
    return conn->fd;
}

SSL *http_conn_ssl(const struct http_conn *conn)
{
    return conn->tls ? conn->tls->ssl : NULL;
}

/* ---- the raw head ---------------------------------------------------------------------------------------------- */

/* The last fresh bytes of the input. */
static void conn_scan(struct http_conn *conn, struct evbuffer *input, size_t fresh)
{
    struct evbuffer_ptr at;
    struct evbuffer_iovec part;
    if (conn->scan.bytes == 0 && conn->served)
        conn->since_ms = http_now_ms();
    evbuffer_ptr_set(input, &at, evbuffer_get_length(input) - fresh, EVBUFFER_PTR_SET);
    while (fresh > 0 && conn->scan.place < HEAD_DONE && evbuffer_peek(input, (ev_ssize_t)fresh, &at, &part, 1) > 0) {
        size_t n = part.iov_len < fresh ? part.iov_len : fresh;
        head_scan_feed(&conn->scan, &conn->loop->srv->head_limits, part.iov_base, n);
        fresh -= n;
        evbuffer_ptr_set(input, &at, n, EVBUFFER_PTR_ADD);
    }
    conn->scanning = conn->scan.place < HEAD_DONE;
    if (conn->scan.place == HEAD_FAULTY)
        evhttp_connection_set_max_headers_size(conn->evcon, 0);
}

static void conn_input_moved(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    struct http_conn *conn = arg;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    if (info->n_added > 0 && conn->scanning)
        conn_scan(conn, input, info->n_added);
}

void http_conn_progress(struct http_conn *conn, size_t bytes)
{
    if (conn->req)
        conn->req->drained += bytes;
}

static void conn_output_moved(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    struct http_conn *conn = arg;
    (void)output;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    if (info->n_deleted > 0)
        http_conn_progress(conn, info->n_deleted);
}

/* ---- the parsed head ------------------------------------------------------------------------------------------- */

static void headers_remove(struct evkeyvalq *headers, const char *name)
{
    while (evhttp_remove_header(headers, name) == 0)
        continue;
}

/* evhttp's header callback: takes the framing away from evhttp, which then sees no body and calls conn_head_end. */
static int conn_head_parsed(struct evhttp_request *ereq, void *arg)
{
    struct http_conn *conn = arg;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    struct head_fields fields = {0};
    struct evkeyval *header;
    http_fields_trim(ereq->input_headers);
    TAILQ_FOREACH(header, ereq->input_headers, next)
    head_fields_add(&fields, header->key, header->value);
    conn->fault = head_fields_judge(&fields, conn->scan.version_1_0, &conn->framing);
    conn->judged = true;
    if (fields.lengths > 0)
        headers_remove(ereq->input_headers, "Content-Length");
    if (fields.codings > 0)
        headers_remove(ereq->input_headers, "Transfer-Encoding");
    if (fields.expects > 0)
        headers_remove(ereq->input_headers, "Expect");
    headers_remove(ereq->input_headers, "Connection");
    ereq->chunked = 0;
    return 0;
}

/* In place of evhttp's dispatcher: the head is there, or evhttp could not parse it. */
static void conn_head_end(struct evhttp_request *ereq, void *arg)
{
    struct http_conn *conn = arg;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    CHECK(ereq == conn->ereq && conn->phase == CONN_HEAD);
    struct head_fault fault = conn->fault;
    if (conn->scan.place == HEAD_FAULTY)
        fault = conn->scan.fault;
    else if (!conn->judged || !ereq->uri || conn->scan.place != HEAD_DONE)
        fault = (struct head_fault){.fault = HTTP_FAULT_BAD_REQUEST, .detail = "malformed request"};
    if (conn->over_limit && !fault.detail)
        fault = (struct head_fault){.fault = HTTP_FAULT_TOO_MANY, .detail = "too many connections"};
    if (conn->over_share && !fault.detail)
        fault = (struct head_fault){.fault = HTTP_FAULT_OVER_SHARE, .detail = "too many connections of one address"};
    http_request_dispatch(conn, fault, &conn->framing);
}

/* ---- the end of an answer, and of a connection ----------------------------------------------------------------- */

static void conn_free(struct http_conn *conn)
{
    struct http_loop *loop = conn->loop;
    if (loop->opening == conn)
        loop->opening = NULL;
    if (loop->staged_for == conn)
        loop->staged_for = NULL;
    http_peer_close(conn);
    TAILQ_REMOVE(&loop->conns, conn, link);
    if (!conn->doomed)
        atomic_fetch_sub(&loop->srv->connections, 1);
    http_tls_free(conn->tls);
    conn->magic = 0;
    free(conn);
}

static bool conn_must_linger(const struct http_conn *conn, const struct http_request *req)
{
    return req->faulty || http_body_is_unread(&req->body) || req->keep_alive ||
           evbuffer_get_length(http_conn_input(conn)) > 0;
}

/* evhttp's on_complete callback: ereq has left the connection and is freed when this returns. */
static void conn_complete(struct evhttp_request *ereq, void *arg)
{
    struct http_conn *conn = arg;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    struct http_request *req = conn->req;
    CHECK(req && req->ereq == ereq);
    bool close = req->close;
    if (close) {
        if (http_conn_ssl(conn))
            SSL_shutdown(http_conn_ssl(conn)); /* the close_notify goes out or not; nobody waits for the peer's */
        if (conn_must_linger(conn, req))
            http_linger_start(conn->loop, http_conn_fd(conn));
    }
    conn->req = NULL;
    conn->ereq = NULL;
    http_request_finish(req);
    if (conn->seized)
        bufferevent_setwatermark(conn->bev, EV_WRITE, 0, 0);
    conn->phase = CONN_HEAD;
    conn->seized = false;
    conn->served = true;
    conn->owing = true;
    conn->since_ms = http_now_ms();
    /* evhttp goes on to make the next request, or closes. */
    conn->loop->opening = close ? NULL : conn;
}

/* evhttp's close callback: evhttp frees the connection when this returns, and the request that is in it unless it is
 * marked as owned. */
static void conn_closed(struct evhttp_connection *evcon, void *arg)
{
    struct http_conn *conn = arg;
    (void)evcon;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    struct evhttp_request *ereq = conn->ereq;
    struct http_request *req = conn->req;
    http_peer_close(conn);
    evbuffer_remove_cb_entry(http_conn_input(conn), conn->input_cb);
    if (conn->output_cb)
        evbuffer_remove_cb_entry(http_conn_output(conn), conn->output_cb);
    /* evhttp closes the descriptor before it takes its events back. With a duplicate lingering, epoll would go on
     * telling of the old number, which may be another connection's by then. */
    bufferevent_disable(conn->bev, EV_READ | EV_WRITE);
    conn->req = NULL;
    if (ereq && !(req && http_request_detach(req)))
        ereq->flags &= ~EVHTTP_USER_OWNED;
    conn_free(conn);
}

void http_conn_break(struct http_conn *conn)
{
    evhttp_connection_free(conn->evcon);
}

void http_conn_reset(struct http_conn *conn)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(http_conn_fd(conn), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    http_conn_break(conn);
}

/* ---- the beginning of a connection, and of a request ----------------------------------------------------------- */

static bool is_older(const struct http_conn *conn, const struct http_conn *than)
{
    return !than || conn->since_ms < than->since_ms;
}

/*
 * Closes the connection that a full server can miss most, where a new one matters more: at the admin port, whose
 * question may be the one that decides whether this process lives on. False: none can be missed.
 *
 * First those that are answered and only being closed, then those that have not asked yet or not again (silent, or with
 * a head that does not end), then those that do not take their answer; the oldest of each. One whose request is worked
 * on is never closed. The look at all of them costs little: such a server has few.
 */
static bool evict(struct http_loop *loop)
{
    struct http_conn *conn, *asking = NULL, *answered = NULL;
    if (http_linger_evict(loop))
        return true;
    TAILQ_FOREACH(conn, &loop->conns, link)
    {
        if (!conn->evcon)
            continue;
        if (conn->phase == CONN_HEAD && is_older(conn, asking))
            asking = conn;
        else if (conn->phase == CONN_BUSY && conn->req->reply.kind != REPLY_NONE && is_older(conn, answered))
            answered = conn;
    }
    if (asking)
        http_conn_break(asking);
    else if (answered)
        http_conn_reset(answered);
    return asking || answered;
}

/* Over the limit a connection is served with a 503; well over it, none is accepted until a sweep finds that some have
 * gone. */
static void conn_count(struct http_conn *conn)
{
    struct http_server *srv = conn->loop->srv;
    unsigned limit = srv->cfg.max_connections;
    unsigned open = atomic_fetch_add(&srv->connections, 1) + 1;
    if (limit == 0 || open <= limit || (srv->cfg.evicts && evict(conn->loop)))
        return;
    conn->over_limit = true;
    if (open > limit + limit / 8 + 16 && conn->loop->bound)
        evconnlistener_disable(evhttp_bound_socket_get_listener(conn->loop->bound));
}

/* evhttp's bufferevent callback: called for each connection it accepts, just before its first request is made. */
static struct bufferevent *conn_open(struct event_base *base, void *arg)
{
    struct http_loop *loop = arg;
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    if (loop->opening) /* evhttp gave up on the one before, without memory */
        conn_free(loop->opening);
    struct http_conn *conn = calloc(1, sizeof *conn);
    struct bufferevent *bev = conn ? bufferevent_socket_new(base, -1, 0) : NULL;
    if (bev && loop->srv->tls)
        conn->tls = http_tls_new(conn, tls_session(loop->srv->tls));
    if (!bev || (loop->srv->tls && !conn->tls)) {
        if (bev)
            bufferevent_free(bev);
        free(conn);
        return NULL; /* evhttp goes on without us, and answers 404 to everything */
    }
    bufferevent_set_max_single_write(bev, WRITE_MAX);
    /* Room for any head. A peer that pipelines faster than it is answered waits in its socket; under TLS it is not read
     * from until it is. */
    if (!conn->tls)
        bufferevent_setwatermark(bev, EV_READ, 0, loop->srv->cfg.max_head_bytes + READ_AHEAD);
    conn->magic = HTTP_CONN_MAGIC;
    conn->loop = loop;
    conn->fd = -1;
    conn->bev = bev;
    conn->since_ms = http_now_ms();
    TAILQ_INSERT_TAIL(&loop->conns, conn, link);
    conn_count(conn);
    loop->opening = conn;
    return bev;
}

/* The first request is being made: evhttp's connection exists, and is the argument of its bufferevent callbacks. */
static void conn_adopt(struct http_conn *conn)
{
    void *evcon = NULL;
    bufferevent_getcb(conn->bev, NULL, NULL, NULL, &evcon);
    conn->evcon = evcon;
    CHECK(evhttp_connection_get_bufferevent(conn->evcon) == conn->bev);
    evhttp_connection_set_closecb(conn->evcon, conn_closed, conn);
    conn->input_cb = evbuffer_add_cb(http_conn_input(conn), conn_input_moved, conn);
    if (!conn->tls)
        conn->output_cb = evbuffer_add_cb(http_conn_output(conn), conn_output_moved, conn);
    conn->fd = (int)bufferevent_getfd(conn->bev);
    if (conn->tls)
        bufferevent_setfd(conn->bev, -1);
    http_peer_open(conn);
}

void http_conn_begin(struct http_conn *conn)
{
    if (conn->tls) {
        http_tls_begin(conn->tls, conn->fd);
        http_tls_resume(conn->tls);
    } else if (bufferevent_getfd(conn->bev) < 0) {
        bufferevent_setfd(conn->bev, conn->fd);
    }
}

/* The hook: evhttp has made a request for the connection in loop->opening. */
static int conn_new_request(struct evhttp_request *ereq, void *arg)
{
    struct http_loop *loop = arg;
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    struct http_conn *conn = loop->opening;
    loop->opening = NULL;
    if (!conn)
        return 0;
    if (!conn->evcon)
        conn_adopt(conn);
    ereq->cb = conn_head_end;
    ereq->cb_arg = conn;
    evhttp_request_set_header_cb(ereq, conn_head_parsed);
    evhttp_request_set_on_complete_cb(ereq, conn_complete, conn);
    evhttp_request_own(ereq);
    conn->ereq = ereq;
    conn->judged = false;
    conn->fault = (struct head_fault){0};
    conn->scan = (struct head_scan){0};
    conn->scanning = true;
    size_t pipelined = evbuffer_get_length(http_conn_input(conn));
    if (pipelined > 0)
        conn_scan(conn, http_conn_input(conn), pipelined);
    if (conn->tls)
        http_tls_resume(conn->tls);
    return 0;
}

enum blob_status http_conn_attach(struct http_loop *loop)
{
    /* Neither is ever reached: bodies are not evhttp's, and the raw head is measured first, line ends included. */
    evhttp_set_max_body_size(loop->http, 64);
    evhttp_set_max_headers_size(loop->http, (ev_ssize_t)loop->srv->cfg.max_head_bytes);
    evhttp_set_default_content_type(loop->http, NULL);
    evhttp_set_bevcb(loop->http, conn_open, loop);
    return evhttp_newreqcb_set(loop->http, conn_new_request, loop);
}

/* ---- while a request is worked on ------------------------------------------------------------------------------ */

static void conn_writable(struct bufferevent *bev, void *arg)
{
    struct http_conn *conn = arg;
    (void)bev;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    if (conn->req && conn->req->reply.kind != REPLY_NONE)
        http_reply_pump(conn->req);
}

static void conn_event(struct bufferevent *bev, short what, void *arg)
{
    struct http_conn *conn = arg;
    (void)bev;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
        http_conn_break(conn);
}

void http_conn_received(struct http_conn *conn)
{
    bufferevent_data_cb parse = NULL;
    void *evcon = NULL;
    CHECK(conn->phase == CONN_HEAD);
    bufferevent_getcb(conn->bev, &parse, NULL, NULL, &evcon);
    if (parse)
        parse(conn->bev, evcon);
}

void http_conn_has_room(struct http_conn *conn)
{
    if (conn->req && conn->req->reply.kind != REPLY_NONE)
        http_reply_pump(conn->req);
    else
        http_tls_rest(conn->tls);
}

void http_conn_seize(struct http_conn *conn)
{
    if (conn->seized)
        return;
    conn->seized = true;
    if (conn->tls)
        http_tls_seize(conn->tls);
    bufferevent_disable(conn->bev, EV_READ);
    bufferevent_setcb(conn->bev, NULL, conn_writable, conn_event, conn);
}

void http_conn_arm(struct http_conn *conn)
{
    http_conn_seize(conn);
    if (conn->tls)
        http_tls_watch(conn->tls);
    else
        bufferevent_enable(conn->bev, EV_WRITE);
}

bool http_conn_flush(struct http_conn *conn)
{
    struct evbuffer *output = http_conn_output(conn);
    if (conn->tls)
        return http_tls_flush(conn);
    for (int i = 0; i < FLUSH_MAX_WRITES && evbuffer_get_length(output) > 0; i++) {
        evbuffer_unfreeze(output, 1);
        int n = evbuffer_write_atmost(output, http_conn_fd(conn), -1);
        int saved = errno;
        evbuffer_freeze(output, 1);
        if (n < 0 && saved != EAGAIN && saved != EINTR) {
            http_conn_break(conn);
            return false;
        }
        if (n <= 0)
            break;
    }
    if (evbuffer_get_length(output) > 0)
        http_conn_arm(conn);
    return true;
}

bool http_conn_unread(struct http_conn *conn, const void *data, size_t len)
{
    return len == 0 || evbuffer_prepend(http_conn_input(conn), data, len) == 0;
}

void http_conn_answered(struct http_conn *conn)
{
    struct http_request *req = conn->req;
    struct evhttp_request *ereq = conn->ereq;
    if (conn->loop->draining)
        req->close = true;
    /* The answer's bytes are ours; this is only how evhttp is told to close. What it would itself conclude from the
     * request's version and kind is taken out of its hands. */
    if (req->close)
        evhttp_add_header(evhttp_request_get_output_headers(ereq), "Connection", "close");
    ereq->major = 1;
    ereq->minor = 1;
    ereq->type = EVHTTP_REQ_GET;
    ereq->flags &= ~EVHTTP_PROXY_REQUEST;
    evhttp_send_reply_end(ereq);
}

/* ---- deadlines ------------------------------------------------------------------------------------------------- */

bool http_conn_is_idle(const struct http_conn *conn)
{
    return conn->phase == CONN_HEAD && conn->scan.bytes == 0;
}

/* Does the peer owe an acknowledgement? Its time runs while it does, and starts anew with each one that comes. */
static bool conn_owes(struct http_conn *conn, int64_t now_ms)
{
    uint64_t acked = conn->acked;
    bool owes = http_acked(http_conn_fd(conn), &acked);
    if (!owes || acked != conn->acked)
        conn->since_ms = now_ms;
    conn->acked = acked;
    return owes;
}

void http_conn_begin_rate(struct http_conn *conn)
{
    conn->since_ms = http_now_ms();
    conn->owed_ms = -1;
}

/* Has the peer taken less than it must, over a window of such time as it could take something in? Who owes nothing
 * waits for us. */
static bool conn_too_slow(struct http_conn *conn, bool owes, int64_t now_ms)
{
    uint64_t rate = conn->loop->srv->cfg.min_answer_rate;
    int64_t passed_ms = now_ms - conn->looked_ms;
    conn->looked_ms = now_ms;
    if (rate == 0)
        return false;
    if (conn->owed_ms < 0) {
        conn->owed_ms = 0;
        conn->rate_from = conn->acked;
        return false;
    }
    if (!owes)
        return false;
    conn->owed_ms += passed_ms;
    if (conn->owed_ms < RATE_WINDOW_MS)
        return false;
    uint64_t due = rate * (uint64_t)conn->owed_ms / 1000, taken = conn->acked - conn->rate_from;
    conn->owed_ms = 0;
    conn->rate_from = conn->acked;
    return taken < due;
}

static void conn_sweep_head(struct http_conn *conn, int64_t now_ms)
{
    const struct http_config *cfg = &conn->loop->srv->cfg;
    bool idle = http_conn_is_idle(conn);
    if (idle && conn->owing) { /* what was answered is still on its way: the next request cannot be expected yet */
        conn->owing = conn_owes(conn, now_ms);
        if (conn_too_slow(conn, conn->owing, now_ms)) {
            http_conn_reset(conn);
            return;
        }
    }
    int64_t limit_ms = idle && conn->served ? cfg->idle_timeout_ms : cfg->head_timeout_ms;
    if ((conn->over_limit || conn->over_share) && limit_ms > OVER_LIMIT_MS)
        limit_ms = OVER_LIMIT_MS;
    if (now_ms - conn->since_ms < limit_ms)
        return;
    if (idle) {
        http_conn_break(conn);
        return;
    }
    conn->scanning = false;
    struct head_fault late = {.fault = HTTP_FAULT_HEAD_TIMEOUT, .detail = "the head took too long"};
    http_request_dispatch(conn, late, &conn->framing);
}

void http_conn_sweep(struct http_conn *conn, int64_t now_ms)
{
    if (conn->tls)
        http_tls_trim(conn->tls);
    if (conn->phase == CONN_HEAD) {
        if (conn->evcon)
            conn_sweep_head(conn, now_ms);
        return;
    }
    struct http_request *req = conn->req;
    if (req->reply.kind == REPLY_NONE) {
        http_body_sweep(req, now_ms);
        return;
    }
    /* With a reset: the kernel would go on offering what it holds to one who takes nothing. */
    bool owes = conn_owes(conn, now_ms);
    bool stalled = owes && now_ms - conn->since_ms >= conn->loop->srv->cfg.idle_timeout_ms;
    if (conn_too_slow(conn, owes, now_ms) || stalled)
        http_conn_reset(conn);
}
