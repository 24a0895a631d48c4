/*
 * http_body - reads a request's body from the socket into pieces, at the pace at which they come back.
 *
 * evhttp's bufferevent reads 4 KiB at a time; here the socket is read directly, with the bufferevent's own reading off,
 * into pieces as large as the last read filled, never past the end of a body of known length. What the bufferevent had
 * already read comes first; what a chunked body did not own goes back for the next request. Under TLS the same session
 * is read with SSL_read.
 *
 * Invariants while BODY_READING: readable is either pending, or active, or the body waits for memory and its flow will
 * resume it; the flow lives. Neither event nor flow outlives the state. A piece is taken when there is something to
 * read into it, so a thousand idle bodies hold none.
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "server/http/http_tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>

#define PIECE_MIN       (16u * 1024)
#define PIECE_MAX       (256u * 1024)
#define READS_PER_WAKE  4 /* then other connections have their turn */
#define PIECES_PER_READ 4
#define PAGE_BYTES      4096u
#define PLACED_MIN      (64u * 1024) /* smaller ones are written through the page cache anyhow */
#define RATE_WINDOW_MS  10000
#define TLS_TURN_BYTES  (16u * 1024) /* read for what TLS adds */

#define RECV_AGAIN  (-1)
#define RECV_FAILED (-2)

bool http_body_is_unread(const struct http_body *body)
{
    return body->kind != HTTP_BODY_NONE && body->state != BODY_ENDED;
}

/* ---- time ------------------------------------------------------------------------------------------------------ */

/* Counts the time up to now, which was the client's unless we waited for memory. */
static void body_clock(struct http_body *body, int64_t now_ms)
{
    if (!body->waiting)
        body->spent_ms += now_ms - body->swept_ms;
    body->swept_ms = now_ms;
}

static void body_set_waiting(struct http_body *body, bool waiting)
{
    int64_t now_ms = http_now_ms();
    body_clock(body, now_ms);
    body->waiting = waiting;
    body->last_ms = now_ms;
}

/* ---- the end --------------------------------------------------------------------------------------------------- */

static void body_close(struct http_body *body, enum body_state state)
{
    event_del(&body->readable);
    if (body->flow)
        http_flow_end(body->flow);
    body->flow = NULL;
    body->state = state;
}

static void body_end(struct http_request *req, enum http_body_end end)
{
    struct http_body *body = &req->body;
    body_close(body, end == HTTP_BODY_COMPLETE ? BODY_ENDED : BODY_STOPPED);
    body->reader.on_end(req, end, body->reader.arg);
}

void http_body_stop(struct http_request *req)
{
    if (req->body.state == BODY_READING)
        body_close(&req->body, BODY_STOPPED);
}

void http_request_stop_body(struct http_request *req)
{
    http_body_stop(req);
}

void http_body_lose(struct http_request *req)
{
    struct http_body *body = &req->body;
    if (body->state != BODY_READING)
        return;
    /* The descriptor is about to be closed: the event goes off it, and comes once more by itself. */
    event_del(&body->readable);
    event_active(&body->readable, EV_READ, 1);
}

/* ---- receiving ------------------------------------------------------------------------------------------------- */

static ssize_t recv_tls(SSL *ssl, uint8_t *to, size_t max)
{
    size_t got = 0;
    while (got < max) {
        ERR_clear_error();
        int n = SSL_read(ssl, to + got, (int)(max - got));
        if (n > 0) {
            got += (size_t)n;
            continue;
        }
        if (got > 0)
            break;
        int why = SSL_get_error(ssl, n);
        if (why == SSL_ERROR_ZERO_RETURN)
            return 0;
        return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? RECV_AGAIN : RECV_FAILED;
    }
    return (ssize_t)got;
}

static ssize_t recv_plain(int fd, struct iovec *parts, int count)
{
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = (size_t)count};
    ssize_t n;
    do {
        n = recvmsg(fd, &msg, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK ? RECV_AGAIN : RECV_FAILED;
}

/* Fills parts from the first on, with the bytes that the bufferevent had read before those of the socket. 0: the peer
 * has closed. */
static ssize_t conn_recv(struct http_conn *conn, struct iovec *parts, int count)
{
    int held = evbuffer_remove(http_conn_input(conn), parts[0].iov_base, parts[0].iov_len);
    size_t got = held > 0 ? (size_t)held : 0;
    if (got == parts[0].iov_len)
        return (ssize_t)got;
    parts[0] = (struct iovec){.iov_base = (uint8_t *)parts[0].iov_base + got, .iov_len = parts[0].iov_len - got};
    SSL *ssl = http_conn_ssl(conn);
    if (ssl)
        conn->tls->turn = parts[0].iov_len + TLS_TURN_BYTES;
    ssize_t n = ssl ? recv_tls(ssl, parts[0].iov_base, parts[0].iov_len) : recv_plain(http_conn_fd(conn), parts, count);
    if (n > 0)
        return (ssize_t)got + n;
    return got > 0 ? (ssize_t)got : n; /* what was wrong will be so again */
}

/* The next piece is as large as reads are: one that fills its room grows it, a nearly empty one shrinks it. The end of
 * a body says nothing of the next one. */
static void conn_learn(struct http_conn *conn, const struct http_piece *piece, size_t room, size_t got, bool ends)
{
    size_t capacity = http_piece_capacity(piece);
    if (ends && got < room)
        return;
    if (got >= room && capacity < PIECE_MAX)
        conn->piece_bytes = capacity * 4;
    else if (got < capacity / 4)
        conn->piece_bytes = capacity / 4;
    else
        conn->piece_bytes = capacity;
    if (conn->piece_bytes < PIECE_MIN)
        conn->piece_bytes = PIECE_MIN;
}

static size_t body_wanted(const struct http_request *req)
{
    size_t wanted = req->conn->piece_bytes ? req->conn->piece_bytes : PIECE_MIN;
    const struct http_body *body = &req->body;
    return body->kind == HTTP_BODY_LENGTH && body->left < wanted ? (size_t)body->left : wanted;
}

/* ---- decoding and delivering ----------------------------------------------------------------------------------- */

static void body_deliver(struct http_request *req, struct http_piece *piece)
{
    req->body.received += piece->len;
    if (piece->len > 0)
        req->body.reader.on_piece(req, piece, req->body.reader.arg);
    else
        http_piece_release(req->loop->srv, piece);
}

/* What is being read: pieces, and the room in each that the body may fill. */
struct body_read {
    struct http_piece *pieces[PIECES_PER_READ];
    size_t room[PIECES_PER_READ];
    int count;
};

static void body_take_length(struct http_request *req, const struct body_read *read, size_t got)
{
    struct http_body *body = &req->body;
    struct http_piece *const *pieces = read->pieces;
    for (int i = 0; i < read->count; i++) {
        pieces[i]->len = got < read->room[i] ? got : read->room[i];
        got -= pieces[i]->len;
        body->left -= pieces[i]->len;
        if (body->state == BODY_READING)
            body_deliver(req, pieces[i]);
        else
            http_piece_release(req->loop->srv, pieces[i]);
    }
    if (body->left == 0 && body->state == BODY_READING)
        body_end(req, HTTP_BODY_COMPLETE);
}

static void body_take_chunked(struct http_request *req, struct http_piece *piece, size_t got)
{
    struct http_body *body = &req->body;
    uint8_t *bytes = piece->data;
    struct http_chunked_run run = http_chunked_feed(&body->chunked, bytes, got);
    enum http_chunked_place place = body->chunked.place;
    if (place == CHUNKED_END && !http_conn_unread(req->conn, bytes + run.used, got - run.used))
        place = CHUNKED_BROKEN;
    piece->data = run.data;
    piece->len = run.len;
    body_deliver(req, piece);
    if (body->state != BODY_READING)
        return;
    if (place == CHUNKED_END)
        body_end(req, HTTP_BODY_COMPLETE);
    else if (place == CHUNKED_BROKEN)
        body_end(req, HTTP_BODY_MALFORMED);
}

/* Places the first byte of a piece in its page as it will be in the file's. */
static size_t piece_place(const struct http_body *body, struct http_piece *piece)
{
    size_t capacity = http_piece_capacity(piece);
    if (body->kind != HTTP_BODY_LENGTH || capacity < PLACED_MIN)
        return capacity;
    size_t skew = (size_t)((body->reader.offset + body->received) % PAGE_BYTES);
    piece->data += skew;
    return capacity - skew;
}

/*
 * The pieces for one read. Where reads fill the largest piece there are several, if they are to be had at once: every
 * read tells the sender of new room, which costs both sides more than the read itself. (TLS is read record by record
 * anyhow, and what a chunked body brings is decoded piece by piece.) False: there is none, and the flow waits.
 */
static bool body_take_pieces(struct http_request *req, struct body_read *read)
{
    struct http_body *body = &req->body;
    if (!http_flow_take(body->flow, body_wanted(req), &read->pieces[0]))
        return false;
    uint64_t room = read->room[0] = piece_place(body, read->pieces[0]);
    bool several = body->kind == HTTP_BODY_LENGTH && !http_conn_ssl(req->conn) &&
                   http_piece_capacity(read->pieces[0]) == PIECE_MAX;
    read->count = 1;
    while (several && read->count < PIECES_PER_READ && body->left > room &&
           http_flow_take_free(body->flow, PIECE_MAX, &read->pieces[read->count])) {
        read->room[read->count] = http_piece_capacity(read->pieces[read->count]);
        room += read->room[read->count++];
    }
    return true;
}

/* Never past the end of a body of known length. Returns how much is asked for. */
static size_t body_parts(const struct http_body *body, const struct body_read *read,
                         struct iovec parts[PIECES_PER_READ])
{
    size_t max = 0;
    for (int i = 0; i < read->count; i++) {
        size_t part = read->room[i];
        if (body->kind == HTTP_BODY_LENGTH && part > body->left - max)
            part = (size_t)body->left - max;
        parts[i] = (struct iovec){.iov_base = read->pieces[i]->data, .iov_len = part};
        max += part;
    }
    return max;
}

enum body_step { STEP_GO_ON, STEP_SOCKET, STEP_MEMORY, STEP_OVER };

static enum body_step body_step(struct http_request *req)
{
    struct http_body *body = &req->body;
    struct body_read read;
    struct iovec parts[PIECES_PER_READ];
    if (!req->conn || !body->flow || body->kind == HTTP_BODY_NONE) {
        body_end(req, body->kind == HTTP_BODY_NONE ? HTTP_BODY_COMPLETE
                      : !req->conn                 ? HTTP_BODY_CUT
                                                   : HTTP_BODY_NO_MEMORY);
        return STEP_OVER;
    }
    if (!body_take_pieces(req, &read))
        return STEP_MEMORY;
    size_t max = body_parts(body, &read, parts);
    ssize_t got = conn_recv(req->conn, parts, read.count);
    if (got <= 0) {
        for (int i = 0; i < read.count; i++)
            http_piece_release(req->loop->srv, read.pieces[i]);
        if (got == RECV_AGAIN)
            return STEP_SOCKET;
        body_end(req, HTTP_BODY_CUT);
        return STEP_OVER;
    }
    conn_learn(req->conn, read.pieces[0], read.room[0], (size_t)got,
               body->kind == HTTP_BODY_LENGTH && body->left == (uint64_t)got);
    body->last_ms = http_now_ms();
    if (body->kind == HTTP_BODY_LENGTH)
        body_take_length(req, &read, (size_t)got);
    else
        body_take_chunked(req, read.pieces[0], (size_t)got);
    if (body->state != BODY_READING)
        return STEP_OVER;
    return (size_t)got < max ? STEP_SOCKET : STEP_GO_ON;
}

/* Reads on until there is nothing to read, no memory, or others should have their turn. */
static void body_run(struct http_request *req)
{
    struct http_body *body = &req->body;
    enum body_step step = STEP_GO_ON;
    for (int i = 0; i < READS_PER_WAKE && step == STEP_GO_ON; i++)
        step = body_step(req);
    switch (step) {
    case STEP_GO_ON: /* what is already decrypted or buffered would not be announced */
        event_active(&body->readable, EV_READ, 1);
        break;
    case STEP_SOCKET:
        if (!event_pending(&body->readable, EV_READ, NULL))
            event_add(&body->readable, NULL);
        break;
    case STEP_MEMORY:
        event_del(&body->readable);
        body_set_waiting(body, true);
        break;
    case STEP_OVER:
        break;
    }
}

static void body_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_request *req = arg;
    (void)fd;
    (void)what;
    http_request_pin(req);
    body_run(req);
    http_request_unpin(req);
}

static void body_resume(void *arg)
{
    struct http_request *req = arg;
    http_request_pin(req);
    if (req->body.waiting) {
        body_set_waiting(&req->body, false);
        body_run(req);
    }
    http_request_unpin(req);
}

/* ---- starting -------------------------------------------------------------------------------------------------- */

static void body_send_continue(struct http_request *req)
{
    static const char line[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct http_conn *conn = req->conn;
    if (!req->expects_continue || evbuffer_get_length(http_conn_input(conn)) > 0)
        return;
    req->expects_continue = false;
    evbuffer_add(http_conn_output(conn), line, sizeof line - 1);
    http_conn_flush(conn); /* a failure has told the request already */
}

void http_request_read_body(struct http_request *req, const struct http_body_reader *reader, size_t max_in_flight)
{
    struct http_body *body = &req->body;
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    CHECK(body->state == BODY_UNREAD && req->reply.kind == REPLY_NONE);
    body->reader = *reader;
    body->state = BODY_READING;
    body->flow = http_flow_new(req->loop->srv->pool, req->loop, max_in_flight, body_resume, req);
    body->last_ms = body->swept_ms = http_now_ms();
    event_assign(&body->readable, req->loop->base, req->conn ? http_conn_fd(req->conn) : -1, EV_READ | EV_PERSIST,
                 body_readable, req);
    if (req->conn)
        http_conn_seize(req->conn);
    if (req->conn && body->kind != HTTP_BODY_NONE)
        body_send_continue(req);
    event_active(&body->readable, EV_READ, 1);
}

void http_piece_release(struct http_server *srv, struct http_piece *piece)
{
    http_pool_give(srv->pool, piece);
}

/* ---- deadlines ------------------------------------------------------------------------------------------------- */

void http_body_sweep(struct http_request *req, int64_t now_ms)
{
    const struct http_config *cfg = &req->loop->srv->cfg;
    struct http_body *body = &req->body;
    if (body->state != BODY_READING || body->kind == HTTP_BODY_NONE)
        return;
    body_clock(body, now_ms);
    if (body->waiting)
        return;
    http_request_pin(req);
    if (now_ms - body->last_ms >= cfg->idle_timeout_ms) {
        body_end(req, HTTP_BODY_STALLED);
    } else if (cfg->min_body_rate > 0 && body->spent_ms >= RATE_WINDOW_MS) {
        uint64_t due = cfg->min_body_rate * (uint64_t)body->spent_ms / 1000;
        if (body->received - body->window_from < due)
            body_end(req, HTTP_BODY_TOO_SLOW);
        body->spent_ms = 0;
        body->window_from = body->received;
    }
    http_request_unpin(req);
}
