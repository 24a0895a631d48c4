/*
 * s3_http_stream - libcurl connects, and does TLS; what is said over the connection is said here, so that the bytes of
 * a body go from the socket to where they are wanted, and only when they are.
 *
 * It speaks as much HTTP as is needed (RFC 9112): one GET without a body, an answer's head of bounded size, and a body
 * of a length that Content-Length tells. The caller asks again with s3_http_send() for any other answer, which knows
 * more of HTTP. Between reads the kernel's buffer fills, and TCP makes the peer wait: a slow reader holds a connection,
 * but neither a thread nor memory.
 *
 * A connection whose answer was read to its end is kept for the next stream, last in first out. One that turns out to
 * be dead before the first byte of an answer is replaced once.
 */
#include "backends/s3/client/s3_http_stream.h"

#include "backends/s3/client/s3_transfer_internal.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/fault.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STREAM_MAGIC  0x53337472u
#define STREAMS_MAGIC 0x53337473u
#define HEAD_MAX      (16u << 10)
#define IDLE_MAX      32
#define IDLE_US       60000000     /* a firewall may have forgotten it by then */
#define POLL_MS       200          /* the gate is looked at so often */
#define RECEIVE_MAX   (512L << 10) /* curl_easy_recv() gives as much at a time; its buffer is never touched */

struct s3_http_streams {
    unsigned magic;
    struct s3_transport transport;
    pthread_mutex_t lock;        /* guards what follows */
    struct s3_http_stream *idle; /* their connections are kept alive */
    unsigned idle_count;
    unsigned open; /* begun, and not ended */
};

struct s3_http_stream {
    unsigned magic;
    struct s3_http_streams *streams;
    CURL *easy;
    curl_socket_t socket;
    struct s3_http_stream *next; /* while idle */
    int64_t since_us;            /* idle */
    int64_t stall_timeout_ms;
    uint64_t left;            /* of the body, not yet read */
    bool lasts;               /* the connection stays after this answer */
    uint8_t *head;            /* HEAD_MAX, while there is something in it */
    size_t head_at, head_end; /* of the body, what came with the head */
    const char *method;       /* for messages */
    char url[256];            /* the beginning of it: the same */
};

/* ---- connections ---- */

static void destroy(struct s3_http_stream *t)
{
    curl_easy_cleanup(t->easy);
    free(t->head);
    t->magic = 0;
    free(t);
}

/* true: nothing has come since the last answer, neither more bytes nor the connection's end. */
static bool is_quiet(const struct s3_http_stream *t)
{
    char byte;
    size_t n;
    return clock_steady_us() - t->since_us < IDLE_US && curl_easy_recv(t->easy, &byte, 1, &n) == CURLE_AGAIN;
}

static struct s3_http_stream *take_idle(struct s3_http_streams *h)
{
    for (;;) {
        pthread_mutex_lock(&h->lock);
        struct s3_http_stream *t = h->idle;
        if (t) {
            h->idle = t->next;
            h->idle_count--;
        }
        pthread_mutex_unlock(&h->lock);
        if (!t || is_quiet(t))
            return t;
        destroy(t);
    }
}

void s3_http_stream_end(struct s3_http_stream *t)
{
    if (!t)
        return;
    MAGIC_OK(t, STREAM_MAGIC);
    struct s3_http_streams *h = t->streams;
    bool read = t->left == 0 && !t->head; /* and nothing came behind the body */
    free(t->head);
    t->head = NULL;
    pthread_mutex_lock(&h->lock);
    h->open--;
    bool keep = read && t->lasts && h->idle_count < IDLE_MAX;
    t->since_us = clock_steady_us();
    if (keep) {
        t->next = h->idle;
        h->idle = t;
        h->idle_count++;
    }
    pthread_mutex_unlock(&h->lock);
    if (!keep)
        destroy(t);
}

enum blob_status s3_http_streams_new(const struct s3_http_config *cfg, struct s3_http_streams **out,
                                     struct blob_error *err)
{
    struct s3_http_streams *h = calloc(1, sizeof *h);
    if (!h)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 transport");
    h->magic = STREAMS_MAGIC;
    enum blob_status st = s3_transport_init(&h->transport, cfg, err);
    if (st != BLOB_OK) {
        free(h);
        return st;
    }
    CHECK(pthread_mutex_init(&h->lock, NULL) == 0);
    *out = h;
    return BLOB_OK;
}

void s3_http_streams_free(struct s3_http_streams *h)
{
    if (!h)
        return;
    MAGIC_OK(h, STREAMS_MAGIC);
    CHECK(h->open == 0);
    while (h->idle) {
        struct s3_http_stream *t = h->idle;
        h->idle = t->next;
        destroy(t);
    }
    pthread_mutex_destroy(&h->lock);
    s3_transport_release(&h->transport);
    h->magic = 0;
    free(h);
}

static enum blob_status connect_new(struct s3_http_streams *h, struct s3_transfer *x, struct s3_http_stream **out,
                                    bool *retry)
{
    struct s3_http_stream *t = calloc(1, sizeof *t);
    char detail[CURL_ERROR_SIZE] = "";
    if (t)
        t->easy = curl_easy_init();
    if (!t || !t->easy) {
        free(t);
        return blob_fail(x->err, BLOB_E_NO_MEMORY, 0, "S3 transport");
    }
    t->magic = STREAM_MAGIC;
    t->streams = h;
    s3_transfer_prepare(t->easy, x, NULL);
    curl_easy_setopt(t->easy, CURLOPT_CONNECT_ONLY, 1L);
    curl_easy_setopt(t->easy, CURLOPT_BUFFERSIZE, RECEIVE_MAX);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, detail);
    CURLcode rc = curl_easy_perform(t->easy);
    if (rc == CURLE_OK)
        rc = curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &t->socket);
    curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, NULL); /* it and x are gone soon */
    curl_easy_setopt(t->easy, CURLOPT_NOPROGRESS, 1L);
    if (rc == CURLE_OK) {
        *out = t;
        return BLOB_OK;
    }
    enum blob_status st = s3_transfer_judge(x, t->easy, rc, detail[0] ? detail : curl_easy_strerror(rc), retry);
    destroy(t);
    return st;
}

/* ---- bytes ---- */

/* How long a caller has waited, and how many bytes have moved meanwhile. */
struct patience {
    int64_t since_us;
    size_t moved;
};

/* Waits until the socket is ready for events. Returns CURLE_OK, or what the wait ended with instead. */
static CURLcode wait_for(const struct s3_http_stream *t, short events, struct patience *p)
{
    struct pollfd fd = {.fd = t->socket, .events = events};
    int64_t timeout_us = t->stall_timeout_ms * 1000;
    for (int ready = 0; ready == 0;) {
        ready = poll(&fd, 1, POLL_MS);
        if (s3_gate_is_shut(t->streams->transport.gate))
            return CURLE_ABORTED_BY_CALLBACK;
        int64_t now_us = clock_steady_us();
        if (now_us - p->since_us < timeout_us)
            continue;
        if (p->moved <= (size_t)(timeout_us / 1000000 * S3_HTTP_SLOWEST_RATE))
            return CURLE_OPERATION_TIMEDOUT;
        *p = (struct patience){.since_us = now_us};
    }
    return CURLE_OK;
}

static CURLcode send_all(struct s3_http_stream *t, const char *data, size_t len)
{
    struct patience p = {.since_us = clock_steady_us()};
    while (len > 0) {
        size_t n = 0;
        CURLcode rc = curl_easy_send(t->easy, data, len, &n);
        if (rc == CURLE_AGAIN)
            rc = wait_for(t, POLLOUT, &p);
        if (rc != CURLE_OK)
            return rc;
        data += n;
        len -= n;
        p.moved += n;
    }
    return CURLE_OK;
}

/* Receives at least one byte. */
static CURLcode receive_some(struct s3_http_stream *t, void *buf, size_t len, size_t *got, struct patience *p)
{
    for (;;) {
        if (s3_gate_is_shut(t->streams->transport.gate))
            return CURLE_ABORTED_BY_CALLBACK;
        CURLcode rc = curl_easy_recv(t->easy, buf, len, got);
        if (rc == CURLE_OK && *got == 0)
            return CURLE_PARTIAL_FILE;
        if (rc != CURLE_AGAIN) {
            p->moved += rc == CURLE_OK ? *got : 0;
            return rc;
        }
        rc = wait_for(t, POLLIN, p);
        if (rc != CURLE_OK)
            return rc;
    }
}

/* ---- the request and the answer's head ---- */

static bool write_request(const struct s3_http_request *req, struct bytebuf *b)
{
    const char *host = strstr(req->url, "://");
    CHECK(host);
    host += 3;
    int host_len = (int)strcspn(host, "/");
    bytebuf_printf(b, "%s %s HTTP/1.1\r\nHost: %.*s\r\nAccept: */*\r\n", req->method, host + host_len, host_len, host);
    for (size_t i = 0; i < req->header_count; i++)
        bytebuf_printf(b, "%s\r\n", req->headers[i]);
    bytebuf_text(b, "\r\n");
    return !b->failed;
}

static bool begins_with(const char *line, size_t len, const char *what)
{
    return len >= strlen(what) && strncasecmp(line, what, strlen(what)) == 0;
}

/* Reads all lines of a head. false: Content-Length alone does not tell the body that follows. */
static bool read_lines(struct s3_http_stream *t, struct s3_transfer *x, char *head, size_t len)
{
    bool plain = true;
    t->lasts = begins_with(head, len, "HTTP/1.1 ");
    for (char *line = head; line < head + len;) {
        size_t n = (size_t)((char *)memchr(line, '\n', (size_t)(head + len - line)) + 1 - line);
        if (begins_with(line, n, "transfer-encoding:"))
            plain = false;
        if (begins_with(line, n, "connection:") && !begins_with(line, n, "connection: keep-alive"))
            t->lasts = false;
        s3_transfer_on_header(line, 1, n, x);
        line += n;
    }
    return plain && x->answer->status / 100 == 2 && x->answer->has_length;
}

/* *any becomes true if the peer has said something, or would have had the time to. */
static CURLcode read_head(struct s3_http_stream *t, struct s3_transfer *x, bool *any, bool *suits)
{
    struct patience p = {.since_us = clock_steady_us()};
    size_t have = 0;
    char *end = NULL;
    while (!end) {
        size_t n;
        if (have == HEAD_MAX)
            return CURLE_RECV_ERROR;
        CURLcode rc = receive_some(t, t->head + have, HEAD_MAX - have, &n, &p);
        *any |= rc == CURLE_OK || rc == CURLE_OPERATION_TIMEDOUT;
        if (rc != CURLE_OK)
            return rc;
        have += n;
        end = memmem(t->head, have, "\r\n\r\n", 4);
    }
    if (!begins_with((char *)t->head, have, "HTTP/1."))
        return CURLE_RECV_ERROR;
    t->head_at = (size_t)(end + 4 - (char *)t->head);
    t->head_end = have;
    *suits = read_lines(t, x, (char *)t->head, t->head_at);
    return CURLE_OK;
}

static CURLcode exchange_heads(struct s3_http_stream *t, struct s3_transfer *x, bool *any, bool *suits)
{
    struct bytebuf request;
    bytebuf_init(&request);
    t->head = malloc(HEAD_MAX);
    CURLcode rc = t->head && write_request(x->req, &request) ? CURLE_OK : CURLE_OUT_OF_MEMORY;
    if (rc == CURLE_OK)
        rc = send_all(t, request.data, request.len);
    if (rc == CURLE_OK)
        rc = read_head(t, x, any, suits);
    bytebuf_release(&request);
    return rc;
}

/* ---- a stream ---- */

static enum blob_status ask_on(struct s3_http_stream *t, struct s3_transfer *x, bool *any, bool *retry)
{
    bool suits = false;
    t->stall_timeout_ms = x->req->stall_timeout_ms;
    t->left = UINT64_MAX;
    t->method = x->req->method;
    size_t url_len = strnlen(x->req->url, sizeof t->url - 1);
    memcpy(t->url, x->req->url, url_len);
    t->url[url_len] = '\0';
    CURLcode rc = FAULT_POINT("s3.request") ? CURLE_SEND_ERROR : exchange_heads(t, x, any, &suits);
    if (rc == CURLE_OK && FAULT_POINT("s3.answer"))
        rc = CURLE_RECV_ERROR;
    if (rc != CURLE_OK)
        return s3_transfer_judge(x, t->easy, rc, curl_easy_strerror(rc), retry);
    if (!suits)
        return blob_fail(x->err, BLOB_E_UNAVAILABLE, 0, "S3 %s: answered %d, or not as a stream", x->req->method,
                         x->answer->status);
    t->left = x->answer->length;
    return BLOB_OK;
}

/* Begins on the connection *t, or on a new one if *t is NULL. After a failure the connection is closed, and *t NULL. */
static enum blob_status begin_on(struct s3_http_streams *h, struct s3_http_stream **t, struct s3_transfer *x, bool *any,
                                 bool *retry)
{
    enum blob_status st = *t ? BLOB_OK : connect_new(h, x, t, retry);
    if (st != BLOB_OK)
        return st;
    st = ask_on(*t, x, any, retry);
    if (st != BLOB_OK) {
        destroy(*t);
        *t = NULL;
    }
    return st;
}

enum blob_status s3_http_stream_begin(struct s3_http_streams *h, const struct s3_http_request *req,
                                      struct s3_http_answer *answer, struct s3_http_stream **out, bool *retry,
                                      struct blob_error *err)
{
    MAGIC_OK(h, STREAMS_MAGIC);
    CHECK(!req->sink && !req->body);
    *answer = (struct s3_http_answer){0};
    bytebuf_init(&answer->text);
    *retry = false;
    struct s3_transfer x = {
        .magic = S3_TRANSFER_MAGIC, .transport = &h->transport, .req = req, .answer = answer, .err = err};
    if (s3_gate_is_shut(h->transport.gate))
        return s3_transfer_judge(&x, NULL, CURLE_OK, "", retry);
    struct s3_http_stream *t = take_idle(h);
    bool any = false, used = t != NULL;
    enum blob_status st = begin_on(h, &t, &x, &any, retry);
    if (st != BLOB_OK && used && !any && !s3_gate_is_shut(h->transport.gate))
        st = begin_on(h, &t, &x, &any, retry);
    if (st != BLOB_OK)
        return st;
    pthread_mutex_lock(&h->lock);
    h->open++;
    pthread_mutex_unlock(&h->lock);
    *out = t;
    return BLOB_OK;
}

enum blob_status s3_http_stream_read(struct s3_http_stream *t, void *buf, size_t len, struct blob_error *err)
{
    MAGIC_OK(t, STREAM_MAGIC);
    CHECK(len <= t->left);
    struct patience p = {.since_us = clock_steady_us()};
    uint8_t *at = buf;
    if (t->head) {
        size_t kept = t->head_end - t->head_at, n = kept < len ? kept : len;
        memcpy(at, t->head + t->head_at, n);
        t->head_at += n;
        at += n;
        t->left -= n;
        if (t->head_at == t->head_end) {
            free(t->head);
            t->head = NULL;
        }
    }
    for (size_t n; at < (uint8_t *)buf + len; at += n, t->left -= n) {
        CURLcode rc = receive_some(t, at, len - (size_t)(at - (uint8_t *)buf), &n, &p);
        if (rc == CURLE_OK)
            continue;
        bool retry;
        const struct s3_http_request req = {.method = t->method, .url = t->url};
        const struct s3_transfer x = {
            .magic = S3_TRANSFER_MAGIC, .transport = &t->streams->transport, .req = &req, .err = err};
        t->lasts = false;
        return s3_transfer_judge(&x, t->easy, rc, curl_easy_strerror(rc), &retry);
    }
    return BLOB_OK;
}
