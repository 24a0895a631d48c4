/*
 * http_reply_tls - what of an answer is encrypted next. Memory that lies in large enough pieces is encrypted where it
 * is. The head, small pieces and what is read of a file come together in the loop's buffer, so that a small answer is
 * one record, and a file's bytes are still in the processor's cache when they are encrypted.
 */
#include "server/http/http_tls.h"

#include "core/check.h"

#include <errno.h>
#include <event2/buffer.h>

static bool file_goes_on(const struct http_request *req)
{
    return req && req->reply.kind == REPLY_FILE && req->reply.left > 0 && !req->reply.fetching;
}

/* Reads of the file, to the end of the stage or of room. False: it cannot be read, or is shorter than was said. */
static bool stage_file(struct http_request *req, uint8_t *stage, size_t room, size_t *len)
{
    struct http_reply *reply = &req->reply;
    while (*len < room && file_goes_on(req)) {
        size_t most = room - *len;
        ssize_t n = http_file_read(req, stage + *len, reply->left < most ? (size_t)reply->left : most);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return reply->fetching;
        *len += (size_t)n;
        reply->offset += (size_t)n;
        reply->left -= (size_t)n;
    }
    return true;
}

/* Does the next of the output lie in a piece that is worth a record of its own, or is it the last? */
static bool piece_of(const struct http_conn *conn, const struct http_request *req, struct evbuffer_iovec *piece)
{
    struct evbuffer *output = conn->tls->output;
    size_t length = evbuffer_get_length(output);
    return length > 0 && evbuffer_peek(output, (ev_ssize_t)length, NULL, piece, 1) > 0 &&
           (piece->iov_len >= HTTP_TLS_RECORD || (piece->iov_len == length && !file_goes_on(req)));
}

/* Encrypts a little of what is there, at most room; the stage has the first *len of it. *len: how much in all, and 0:
 * nothing is there now. */
static bool encrypt_some(struct http_conn *conn, struct http_request *req, size_t room, size_t *len)
{
    struct evbuffer *output = conn->tls->output;
    struct evbuffer_iovec piece = {0};
    uint8_t *stage = conn->loop->stage;
    if (*len == 0 && piece_of(conn, req, &piece)) {
        *len = piece.iov_len < room ? piece.iov_len : room;
        return http_tls_encrypt(conn->tls, piece.iov_base, *len) && evbuffer_drain(output, *len) == 0;
    }
    size_t top = file_goes_on(req) ? HTTP_TLS_STAGE : HTTP_TLS_RECORD;
    if (top > room)
        top = room;
    if (*len < top && evbuffer_get_length(output) > 0)
        *len += (size_t)evbuffer_remove(output, stage + *len, top - *len);
    if (evbuffer_get_length(output) == 0 && !stage_file(req, stage, top, len))
        return false;
    return *len == 0 || http_tls_encrypt(conn->tls, stage, *len);
}

/* How much of the answer's beginning the stage has, and the connection answers for from here on. */
static size_t staged_take(struct http_conn *conn)
{
    struct http_loop *loop = conn->loop;
    size_t staged = loop->staged_for == conn ? loop->staged : 0;
    if (staged > 0)
        loop->staged_for = NULL;
    return staged;
}

/* What of the stage cannot be encrypted now goes before the rest of the output. */
static bool staged_put_off(struct http_conn *conn, size_t from, size_t staged)
{
    return staged <= from || evbuffer_prepend(conn->tls->output, conn->loop->stage + from, staged - from) == 0;
}

enum out { OUT_BROKEN, OUT_NO_ROOM, OUT_SENT };

/* Gathers what there is, as far as there is room, and sends it. */
static enum out gather(struct http_conn *conn, struct http_request *req, bool some)
{
    struct http_tls *tls = conn->tls;
    size_t len = staged_take(conn), room = 0;
    uint64_t left = len + evbuffer_get_length(tls->output) + (file_goes_on(req) ? req->reply.left : 0);
    if (!http_tls_push(tls))
        return OUT_BROKEN;
    if (left == 0 && !http_tls_holds(tls))
        return OUT_SENT;
    if (!http_tls_holds(tls))
        room = http_tls_room(tls, left < HTTP_TLS_GATHER ? (size_t)left : HTTP_TLS_GATHER, some);
    if (!staged_put_off(conn, room, len))
        return OUT_BROKEN;
    if (room == 0)
        return OUT_NO_ROOM;
    if (len > room)
        len = room;
    bool fine = true;
    for (bool more = true; fine && more && room > 0; len = 0) {
        fine = encrypt_some(conn, req, room, &len);
        more = len > 0;
        room -= len;
    }
    return http_tls_send(tls) && fine ? OUT_SENT : OUT_BROKEN;
}

bool http_tls_flush(struct http_conn *conn)
{
    if (gather(conn, NULL, true) == OUT_BROKEN) {
        http_conn_break(conn);
        return false;
    }
    if (http_tls_holds(conn->tls) || evbuffer_get_length(conn->tls->output) > 0)
        http_conn_arm(conn);
    return true;
}

bool http_reply_tls_round(struct http_request *req, bool first)
{
    struct http_conn *conn = req->conn;
    enum out out = gather(conn, req, first);
    if (out == OUT_BROKEN) {
        http_conn_reset(conn);
        return false;
    }
    if (out == OUT_NO_ROOM || http_tls_holds(conn->tls)) {
        http_tls_trim(conn->tls); /* it may take long */
        http_conn_arm(conn);
        return false;
    }
    if (evbuffer_get_length(conn->tls->output) > 0 || file_goes_on(req))
        return true;
    http_tls_rest(conn->tls);
    if (req->reply.left > 0 || req->reply.wanted)
        return req->reply.left > 0 && !req->reply.wanted && !req->reply.fetching;
    http_conn_answered(conn);
    return false;
}
