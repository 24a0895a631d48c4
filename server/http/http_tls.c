/* http_tls - the life of a session: handshake, reading for evhttp, end (http_tls.h has the picture). */
#include "server/http/http_tls.h"

#include "core/check.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <sys/socket.h>

#define READ_BYTES (16 * 1024)
#define TURN_BYTES ((size_t)20 * 1024) /* a record, and the beginning of the next */

static void tls_readable(evutil_socket_t fd, short what, void *arg);
static void tls_writable(evutil_socket_t fd, short what, void *arg);

struct http_tls *http_tls_new(struct http_conn *conn, SSL *ssl)
{
    struct http_tls *tls = calloc(1, sizeof *tls);
    struct evbuffer *output = evbuffer_new();
    if (!tls || !output || !ssl) {
        free(tls);
        if (output)
            evbuffer_free(output);
        SSL_free(ssl);
        return NULL;
    }
    tls->magic = HTTP_TLS_MAGIC;
    tls->conn = conn;
    tls->ssl = ssl;
    tls->output = output;
    return tls;
}

void http_tls_begin(struct http_tls *tls, int fd)
{
    struct event_base *base = tls->conn->loop->base;
    event_assign(&tls->readable, base, fd, EV_READ | EV_PERSIST, tls_readable, tls);
    event_assign(&tls->writable, base, fd, EV_WRITE | EV_PERSIST, tls_writable, tls);
    tls->begun = true;
    BIO *bio = http_tls_bio(tls);
    if (!bio) {
        tls->broken = true; /* found out by the first read */
        return;
    }
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_accept_state(tls->ssl);
}

void http_tls_resume(struct http_tls *tls)
{
    if (!tls->begun)
        return;
    if (!event_pending(&tls->readable, EV_READ, NULL))
        event_add(&tls->readable, NULL);
    if (tls->broken || SSL_has_pending(tls->ssl))
        event_active(&tls->readable, EV_READ, 1);
}

void http_tls_seize(struct http_tls *tls)
{
    event_del(&tls->readable);
}

void http_tls_trim(struct http_tls *tls)
{
    if (tls->open && !SSL_has_pending(tls->ssl))
        SSL_free_buffers(tls->ssl);
}

void http_tls_free(struct http_tls *tls)
{
    if (!tls)
        return;
    MAGIC_OK(tls, HTTP_TLS_MAGIC);
    if (tls->begun) {
        event_del(&tls->readable);
        event_del(&tls->writable);
    }
    http_answers_give(tls->conn->loop->srv, tls->reserved);
    SSL_free(tls->ssl);
    evbuffer_free(tls->output);
    free(tls->held);
    tls->magic = 0;
    free(tls);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

enum tls_result { TLS_DONE, TLS_WAIT, TLS_ENDED };

static enum tls_result tls_judge(struct http_tls *tls, int rc)
{
    if (rc > 0)
        return tls->broken ? TLS_ENDED : TLS_DONE;
    int why = SSL_get_error(tls->ssl, rc);
    return why == SSL_ERROR_WANT_READ && !tls->broken ? TLS_WAIT : TLS_ENDED;
}

/*
 * A client that speaks plain HTTP here made a mistake in its URL, and an empty answer would not tell it which. What it
 * has sent is read first: closing over unread bytes resets the connection, and takes the answer along.
 */
static void tell_plain_http(int fd)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 47\r\n"
                                 "Connection: close\r\n\r\nthis port speaks HTTPS: ask it by https://...\r\n";
    char rest[READ_BYTES];
    if (recv(fd, rest, sizeof rest, MSG_DONTWAIT) >= 0 || errno == EAGAIN)
        (void)!send(fd, answer, sizeof answer - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static enum tls_result tls_handshake(struct http_tls *tls)
{
    if (tls->open)
        return TLS_DONE;
    if (tls->broken)
        return TLS_ENDED;
    http_tls_forget_errors();
    enum tls_result result = tls_judge(tls, SSL_accept(tls->ssl));
    if (result == TLS_ENDED && ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST)
        tell_plain_http(event_get_fd(&tls->readable));
    tls->open = result == TLS_DONE;
    return result;
}

/* One record, or less; what the session has beyond it comes in the next turn, since the socket may say no more. */
static enum tls_result tls_read(struct http_tls *tls)
{
    uint8_t bytes[READ_BYTES];
    struct evbuffer *input = http_conn_input(tls->conn);
    http_tls_forget_errors();
    int n = SSL_read(tls->ssl, bytes, sizeof bytes);
    enum tls_result result = tls_judge(tls, n);
    if (result != TLS_DONE)
        return result;
    evbuffer_unfreeze(input, 0);
    bool kept = evbuffer_add(input, bytes, (size_t)n) == 0;
    evbuffer_freeze(input, 0);
    if (kept && SSL_has_pending(tls->ssl))
        event_active(&tls->readable, EV_READ, 1);
    return kept ? TLS_DONE : TLS_ENDED;
}

static void tls_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_tls *tls = arg;
    (void)fd;
    (void)what;
    MAGIC_OK(tls, HTTP_TLS_MAGIC);
    struct http_conn *conn = tls->conn;
    tls->turn = TURN_BYTES;
    enum tls_result result = tls_handshake(tls);
    if (result == TLS_DONE)
        result = tls_read(tls);
    if (result == TLS_ENDED)
        http_conn_break(conn);
    else if (result == TLS_DONE)
        http_conn_received(conn); /* which may take the connection along */
}

static void tls_writable(evutil_socket_t fd, short what, void *arg)
{
    struct http_tls *tls = arg;
    (void)fd;
    (void)what;
    MAGIC_OK(tls, HTTP_TLS_MAGIC);
    if (!http_tls_push(tls))
        http_conn_break(tls->conn);
    else if (!http_tls_holds(tls))
        http_conn_has_room(tls->conn);
}
