/* http_tls_out - what a session writes: gathered, sent, held; and how much it reads (http_tls.h says why). */
#include "server/http/http_tls.h"

#include "core/check.h"

#include <errno.h>
#include <event2/buffer.h>
#include <linux/sock_diag.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ROOM_UNKNOWN (64u * 1024)
#define UNASKED_MAX  (64u * 1024) /* held of what is no answer: handshakes, alerts, new keys */

/* ---- what the socket does not take ----------------------------------------------------------------------------- */

bool http_tls_holds(const struct http_tls *tls)
{
    return tls->held != NULL;
}

static size_t held_bytes(const struct http_tls *tls)
{
    return tls->held ? tls->held_end - tls->held_at : 0;
}

static void held_drop(struct http_tls *tls)
{
    free(tls->held);
    tls->held = NULL;
    tls->held_at = tls->held_end = 0;
}

static bool held_add(struct http_tls *tls, const uint8_t *data, size_t len)
{
    size_t before = held_bytes(tls);
    uint8_t *all = malloc(before + len);
    if (!all)
        return false;
    if (before > 0)
        memcpy(all, tls->held + tls->held_at, before);
    memcpy(all + before, data, len);
    held_drop(tls);
    tls->held = all;
    tls->held_end = before + len;
    return true;
}

/* Sends at once what the socket takes: how much, or -1. */
static ssize_t socket_send(const struct http_tls *tls, const uint8_t *data, size_t len)
{
    size_t sent = 0;
    while (sent < len) {
        ssize_t n = send(http_conn_fd(tls->conn), data + sent, len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK ? (ssize_t)sent : -1;
        sent += (size_t)n;
    }
    return (ssize_t)sent;
}

/* Behind what is held already. */
static bool send_or_hold(struct http_tls *tls, const uint8_t *data, size_t len)
{
    ssize_t sent = tls->held ? 0 : socket_send(tls, data, len);
    if (sent < 0 || ((size_t)sent < len && !held_add(tls, data + sent, len - (size_t)sent))) {
        tls->broken = true;
        return false;
    }
    if (tls->held)
        http_tls_watch(tls);
    return true;
}

/* ---- the account ----------------------------------------------------------------------------------------------- */

/* Takes what a gathering of so much plaintext might leave beyond one record. */
static bool reserve(struct http_tls *tls, size_t room)
{
    size_t bytes = room + room / HTTP_TLS_RECORD * HTTP_TLS_OVERHEAD;
    if (!http_answers_take(tls->conn->loop->srv, bytes))
        return false;
    tls->reserved += bytes;
    return true;
}

/* Gives back what is not held in fact. */
static void settle(struct http_tls *tls)
{
    size_t held = held_bytes(tls);
    size_t keep = held > HTTP_TLS_RECORD + HTTP_TLS_OVERHEAD ? held : 0;
    if (tls->reserved > keep) {
        http_answers_give(tls->conn->loop->srv, tls->reserved - keep);
        tls->reserved = keep;
    }
}

bool http_tls_push(struct http_tls *tls)
{
    if (!tls->held)
        return true;
    ssize_t sent = socket_send(tls, tls->held + tls->held_at, held_bytes(tls));
    if (sent < 0)
        return false;
    tls->held_at += (size_t)sent;
    if (tls->held_at == tls->held_end) {
        held_drop(tls);
        settle(tls);
    }
    return true;
}

/* ---- gathering ------------------------------------------------------------------------------------------------- */

/* An eighth less than what the kernel would still take: it counts its own structures too. */
static size_t socket_room(const struct http_tls *tls)
{
    uint32_t memory[SK_MEMINFO_VARS];
    socklen_t len = sizeof memory;
    if (getsockopt(http_conn_fd(tls->conn), SOL_SOCKET, SO_MEMINFO, memory, &len) != 0 ||
        len < (SK_MEMINFO_WMEM_QUEUED + 1) * sizeof memory[0])
        return ROOM_UNKNOWN;
    uint32_t size = memory[SK_MEMINFO_SNDBUF], used = memory[SK_MEMINFO_WMEM_QUEUED];
    return used < size ? (size - used) / 8 * 7 : 0;
}

size_t http_tls_room(struct http_tls *tls, size_t left, bool some)
{
    struct http_loop *loop = tls->conn->loop;
    CHECK(!tls->held && !tls->gathering);
    size_t room = left;
    if (left > HTTP_TLS_RECORD || !some)
        room = socket_room(tls);
    if (room > HTTP_TLS_GATHER)
        room = HTTP_TLS_GATHER;
    room = room < left ? room - room % HTTP_TLS_RECORD : left;
    if (room > HTTP_TLS_RECORD && !reserve(tls, room))
        room = HTTP_TLS_RECORD;
    if (room == 0 && some)
        room = left < HTTP_TLS_RECORD ? left : HTTP_TLS_RECORD;
    loop->gathered_bytes = 0;
    tls->gathering = room > 0 && left > HTTP_TLS_RECORD; /* a single one goes out as it is made */
    return room;
}

void http_tls_forget_errors(void)
{
    if (ERR_peek_error() != 0) /* clearing what is clear costs more than all else around a small record */
        ERR_clear_error();
}

bool http_tls_encrypt(struct http_tls *tls, const void *data, size_t len)
{
    CHECK(!tls->held && len > 0 && len <= HTTP_TLS_GATHER);
    http_tls_forget_errors();
    if (SSL_write(tls->ssl, data, (int)len) != (int)len)
        tls->broken = true;
    http_conn_progress(tls->conn, len);
    return !tls->broken;
}

bool http_tls_send(struct http_tls *tls)
{
    struct http_loop *loop = tls->conn->loop;
    tls->gathering = false;
    bool sent = !tls->broken && (loop->gathered_bytes == 0 || send_or_hold(tls, loop->gathered, loop->gathered_bytes));
    settle(tls);
    return sent;
}

/* ---- the BIO --------------------------------------------------------------------------------------------------- */

static int bio_write(BIO *bio, const char *data, int len)
{
    struct http_tls *tls = BIO_get_data(bio);
    MAGIC_OK(tls, HTTP_TLS_MAGIC);
    struct http_loop *loop = tls->conn->loop;
    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return 0;
    if (tls->broken)
        return -1;
    if (tls->gathering && loop->gathered_bytes + (size_t)len <= HTTP_TLS_GATHERED_MAX) {
        memcpy(loop->gathered + loop->gathered_bytes, data, (size_t)len);
        loop->gathered_bytes += (size_t)len;
        return len;
    }
    /* A peer that asks for new keys again and again, and takes nothing, is not worth more memory. */
    if (tls->gathering || held_bytes(tls) + (size_t)len > UNASKED_MAX) {
        tls->broken = true;
        return -1;
    }
    return send_or_hold(tls, (const uint8_t *)data, (size_t)len) ? len : -1;
}

/* May the session see this? A handshake record of TLS 1.3 is in clear, so that both ClientHellos are looked at; of TLS
 * 1.2, only what is before the answer to the first is looked at. */
static bool is_bounded(struct http_tls *tls, const uint8_t *data, size_t len)
{
    OSSL_HANDSHAKE_STATE at = SSL_get_state(tls->ssl);
    bool in_clear = at == TLS_ST_BEFORE || at == TLS_ST_SR_CLNT_HELLO || SSL_version(tls->ssl) == TLS1_3_VERSION;
    return tls->open || !in_clear || tls_hello_fits(&tls->hello, data, len);
}

/* No more than the turn allows: SSL_read() goes on by itself over records that are no data, and a peer may send nothing
 * else. */
static int bio_read(BIO *bio, char *to, int len)
{
    struct http_tls *tls = BIO_get_data(bio);
    MAGIC_OK(tls, HTTP_TLS_MAGIC);
    BIO_clear_retry_flags(bio);
    if (len <= 0)
        return 0;
    size_t most = (size_t)len < tls->turn ? (size_t)len : tls->turn;
    ssize_t n = most > 0 ? recv(http_conn_fd(tls->conn), to, most, MSG_DONTWAIT) : -1;
    if (n > 0 && !is_bounded(tls, (const uint8_t *)to, (size_t)n)) {
        tls->broken = true;
        return -1;
    }
    if (n > 0)
        tls->turn -= (size_t)n;
    else if (most == 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
        BIO_set_retry_read(bio);
    return (int)n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *arg)
{
    (void)bio;
    (void)number;
    (void)arg;
    return command == BIO_CTRL_FLUSH ? 1 : 0; /* OpenSSL flushes, and fails where that fails */
}

BIO_METHOD *http_tls_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "blobd connection");
    if (!method)
        return NULL;
    BIO_meth_set_write(method, bio_write);
    BIO_meth_set_read(method, bio_read);
    BIO_meth_set_ctrl(method, bio_ctrl);
    return method;
}

BIO *http_tls_bio(struct http_tls *tls)
{
    BIO *bio = BIO_new(tls->conn->loop->srv->tls_out);
    if (!bio)
        return NULL;
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    return bio;
}

/* ---- waiting for room ------------------------------------------------------------------------------------------ */

void http_tls_watch(struct http_tls *tls)
{
    if (!tls->watching)
        event_add(&tls->writable, NULL);
    tls->watching = true;
}

void http_tls_rest(struct http_tls *tls)
{
    if (tls->watching)
        event_del(&tls->writable);
    tls->watching = false;
}
