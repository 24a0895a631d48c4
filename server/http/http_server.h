/*
 * http_server - the HTTP layer as the rest of the server sees it. Nothing above this folder's http_*, loop_bridge,
 * tls and evhttp_newreqcb knows evhttp or libevent: replacing the HTTP engine is these files' work alone.
 *
 * Shape: N event loops, each a thread with its own listener (SO_REUSEPORT, after one probing bind without it, so
 * that two servers cannot share a port unnoticed). A request belongs to its loop's thread; every function here that
 * takes a struct http_request is called on that thread, except where it says "any thread".
 *
 * Life of a request:
 *   1. The head is parsed and strictly checked. Malformed: answered by the layer through on_fault.
 *   2. on_request runs, before any body byte is read and before 100 Continue is sent.
 *   3. The handler answers at once, or starts the body with http_request_read_body(), or keeps the request and
 *      answers later (a job's result posted to the loop with http_loop_post()).
 *   4. Exactly one http_reply*() ends it. After that the pointer is dead. A client that went away does not end it:
 *      http_request_gone() says so, and the reply is then dropped in silence.
 * An answer with body left unread closes the connection after a bounded lingering discard.
 *
 * Ownership: strings got from a request are borrowed until it is answered. Units: milliseconds, bytes.
 * Source: RFC 9110, RFC 9112 (framing: section 6; request line: section 3), TLS: RFC 8446.
 */
#ifndef BLOBD_SERVER_HTTP_HTTP_SERVER_H
#define BLOBD_SERVER_HTTP_HTTP_SERVER_H

#include "core/ip_address.h"
#include "core/status.h"
#include "server/http/parse/http_words.h"

#include <stddef.h>
#include <stdint.h>

struct http_server;
struct http_loop;
struct limiter;
struct http_request;
struct worker_pool;
struct bytebuf;

/* ---- the server ------------------------------------------------------------------------------------------------ */

struct http_tls_files {
    const char *cert_file; /* PEM chain; NULL: plain HTTP */
    const char *key_file;
};

struct http_config {
    const char *listen; /* "host:port"; port 0 lets the kernel choose (tests) */
    unsigned loops;     /* event loop threads, at least 1 */
    struct http_tls_files tls;
    size_t max_head_bytes;
    size_t max_uri_bytes;
    size_t body_memory_bytes;   /* bound on body pieces alive at once, over all loops */
    size_t answer_memory_bytes; /* bound on answers held for slow readers beyond their connections' own; 0: none */
    unsigned max_connections;   /* over all loops; 0: unbounded */
    bool evicts;            /* at the limit the oldest that asks nothing is closed for a new one; with one loop only */
    uint64_t min_body_rate; /* bytes a second, over any 10 s of reading; 0: none */
    uint64_t min_answer_rate; /* the same of answers, over 10 s in which the peer owes acknowledgements */
    int64_t head_timeout_ms;  /* absolute: first byte (or accept) to end of head */
    int64_t idle_timeout_ms;  /* keep-alive, a stalled body, a stalled answer */
    /* Peers whose connections begin with a PROXY header (version 2), and those whose X-Forwarded-For is believed; of
     * the latter, connections are not counted by address. Borrowed until http_server_free(); NULL: none. */
    const struct ip_networks *proxies, *forwarders;
    struct limiter *limiter; /* counts connections by address; borrowed likewise; NULL: unlimited */
    /* Brings from the disk what files have not in memory; idle before http_server_free(). NULL: the loops wait for it.
     */
    struct worker_pool *pool;
    /* Required, but for on_proxy_fault. Called on a loop's thread. */
    void (*on_request)(struct http_request *req, void *arg);
    /* Must answer with http_reply(). detail names what is wrong. */
    void (*on_fault)(struct http_request *req, enum http_fault fault, const char *detail, void *arg);
    /* A peer out of proxies (remote: "ip:port") did not send such a header, and is cut off. May be NULL. */
    void (*on_proxy_fault)(const char *remote, const char *fault, void *arg);
    /* After every answer (also dropped ones): for the access log and metrics. req is still readable. */
    void (*on_done)(struct http_request *req, void *arg);
    void *arg;
};

/* Copies cfg and its strings. INVALID with text for a bad address, certificate or key; UNAVAILABLE when the port is
 * taken. Nothing is accepted before http_server_start(). */
enum blob_status http_server_new(const struct http_config *cfg, struct http_server **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* Once, before anything else here and before there are threads. */
void http_server_prepare(void);
/* Starts the loop threads. */
enum blob_status http_server_start(struct http_server *srv, struct blob_error *err) BLOB_MUST_CHECK;
/* The bound port. Any thread. */
uint16_t http_server_port(const struct http_server *srv);
/* Reads certificate and key for new connections, from where files says they are now (NULL, in it too: from where they
 * were); on failure the old ones stay, and where they are from. Any one thread. */
/* When the certificate ends, in seconds since 1970; 0 without TLS. Any thread. */
int64_t http_server_certificate_end_s(const struct http_server *srv);
/* With TLS, has it ended, or will it within two weeks? Then text says so. */
bool http_server_certificate_ends_soon(const struct http_server *srv, char *text, size_t size);
enum blob_status http_server_reload_tls(struct http_server *srv, const struct http_tls_files *files,
                                        struct blob_error *err) BLOB_MUST_CHECK;
/* Closes the listeners; idle keep-alive connections are closed, busy ones after their answer (Connection: close).
 * Any thread; returns at once. */
void http_server_drain(struct http_server *srv);
/* Requests not yet answered. Any thread. */
unsigned http_server_in_flight(const struct http_server *srv);
/* Open connections. Any thread. */
unsigned http_server_connections(const struct http_server *srv);
/* Stops the loops, joins, frees. Requests still open are dropped: their owners must be stopped before. */
void http_server_free(struct http_server *srv);

/* ---- loops: results come back from worker threads -------------------------------------------------------------- */

struct http_task { /* embed it in what is posted: posting allocates nothing and cannot fail */
    struct http_task *next;
    void (*run)(struct http_task *task);
};

/* Any thread. Runs task->run(task) on the loop's thread, in order of posting; borrows task until then. */
void http_loop_post(struct http_loop *loop, struct http_task *task);

/* ---- reading a request ----------------------------------------------------------------------------------------- */

struct http_loop *http_request_loop(const struct http_request *req);
enum http_method http_request_method(const struct http_request *req);
const char *http_request_method_name(const struct http_request *req);
/* As sent: undecoded, without the query. Never empty. */
const char *http_request_path(const struct http_request *req);
/* As sent, without '?'; NULL where there is no '?'. */
const char *http_request_query(const struct http_request *req);
/* The value of a header, name case-insensitive, without the blanks around it; NULL when absent. Several lines of one
 * name are joined by ", " in their order (RFC 9110, section 5.3): that is the whole of a list, and no value at all of a
 * field that may stand once. Content-Length, Transfer-Encoding, Expect and Connection are this layer's own and never
 * there. */
const char *http_request_header(const struct http_request *req, const char *name);
/* How many lines of that name there are: for saying that a field which may stand once is repeated. */
unsigned http_request_header_count(const struct http_request *req, const char *name);
/* "ip:port" of the client, or "ip" where a proxy told it in X-Forwarded-For. */
const char *http_request_remote(const struct http_request *req);
const struct ip_address *http_request_client(const struct http_request *req);
/* The client as limits count it: its address, of an IPv6 one the first 64 bits. */
#define HTTP_CLIENT_MAX 64
void http_request_client_text(const struct http_request *req, char out[HTTP_CLIENT_MAX]);
bool http_request_is_tls(const struct http_request *req);
bool http_request_gone(const struct http_request *req);

/* One pointer and one request id for the layer above. The id is copied (at most 128 bytes). */
void http_request_set_context(struct http_request *req, void *ctx);
void *http_request_context(const struct http_request *req);
void http_request_set_id(struct http_request *req, const char *id);
const char *http_request_id(const struct http_request *req);

/* For on_done. */
int http_request_status(const struct http_request *req);
uint64_t http_request_bytes_in(const struct http_request *req);  /* body bytes received */
uint64_t http_request_bytes_out(const struct http_request *req); /* body bytes written to the socket */
int64_t http_request_duration_us(const struct http_request *req);

/* ---- the request's body ---------------------------------------------------------------------------------------- */

enum http_body_kind http_request_body_kind(const struct http_request *req);
uint64_t http_request_body_length(const struct http_request *req); /* for HTTP_BODY_LENGTH */
/* Does the client wait for 100 Continue before it sends the body? */
bool http_request_expects_continue(const struct http_request *req);

/* A piece of body, at most 256 KiB, out of the bounded pool of body_memory_bytes. Whoever holds pieces must get on
 * with those it has: waiting for more of them may be waiting for ever. */
struct http_piece {
    struct http_piece *next; /* for whoever holds it */
    size_t len;
    uint8_t *data;
};
/* Any thread. Returns the piece to the pool, which lets a paused connection read on. */
void http_piece_release(struct http_server *srv, struct http_piece *piece);

enum http_body_end {
    HTTP_BODY_COMPLETE,
    HTTP_BODY_CUT,       /* the client closed, or the connection was lost; answering is safe and likely in vain */
    HTTP_BODY_STALLED,   /* no byte for idle_timeout: answer 408 */
    HTTP_BODY_TOO_SLOW,  /* under min_body_rate: answer 408 */
    HTTP_BODY_MALFORMED, /* chunked framing broken: answer 400 */
    HTTP_BODY_NO_MEMORY, /* nothing was read: answer 503 */
};

struct http_body_reader {
    /* Where the first byte goes in the end. Larger pieces of a body of known length lie in memory, modulo a page, as
     * they will there, so that they can be written past the page cache from where they are. */
    uint64_t offset;
    /* Takes piece (release it, from any thread). In order; every byte once. */
    void (*on_piece)(struct http_request *req, struct http_piece *piece, void *arg);
    /* Once, last. Whatever the end, the request still has to be answered. */
    void (*on_end)(struct http_request *req, enum http_body_end end, void *arg);
    void *arg;
};

/*
 * Sends 100 Continue where the client waits for it, then reads. max_in_flight bounds the bytes this request may have
 * out in pieces not yet released; beyond it, or with the pool empty, reading pauses and the socket pushes back.
 * Callbacks come only after this has returned. With HTTP_BODY_NONE on_end(COMPLETE) comes from the loop all the same.
 */
void http_request_read_body(struct http_request *req, const struct http_body_reader *reader, size_t max_in_flight);
/* Stops reading for good: no callback comes any more; the rest of the body is discarded after the answer. */
void http_request_stop_body(struct http_request *req);

/* ---- answering ------------------------------------------------------------------------------------------------- */

/* Adds a header to the answer; copies. CR, LF or NUL in value is a bug of the caller (CHECK). */
void http_reply_header(struct http_request *req, const char *name, const char *value);
/* The same in two steps, for headers that many answers have: makes a line of one, and adds lines that were so made. */
void http_header_line(struct bytebuf *lines, const char *name, const char *value);
void http_reply_lines(struct http_request *req, const char *lines, size_t len);
/* The connection closes after this answer. */
void http_reply_close(struct http_request *req);
bool http_reply_is_closing(const struct http_request *req);

/* Before an answer of len bytes that lies in memory until the client has taken it: counts it, until it is out. False:
 * too much is held for slow readers, and this one should be told 503. */
bool http_reply_reserve(struct http_request *req, size_t len);
/* Answers with len bytes, copied; data may be NULL with len 0. 204 and 304 go without Content-Length. To a HEAD
 * request the body is left out and Content-Length is kept. */
void http_reply(struct http_request *req, int status, const void *data, size_t len);
/* The same without a copy: release(arg) when the last byte is out or dropped; called on the loop's thread. */
void http_reply_shared(struct http_request *req, int status, const void *data, size_t len, void (*release)(void *arg),
                       void *arg);
/* length bytes of an open file from offset, as the socket takes them; nothing is kept for a slow reader but, under
 * TLS, what is encrypted already. Borrows fd until release(arg) (any number of answers may share one fd at the same
 * time). A file that turns out too short breaks the connection. */
void http_reply_file(struct http_request *req, int status, int fd, uint64_t offset, uint64_t length,
                     void (*release)(void *arg), void *arg);

/*
 * An answer whose bytes come from elsewhere, piece by piece, at the pace of the client. want() is called on the loop's
 * thread each time there is room (one outstanding want at a time); the source answers it, then or later, on the loop's
 * thread, with http_stream_push() or http_stream_abort(). closed() comes once, last: after the last byte is out, or the
 * connection was lost, or the answer was aborted. It never comes while a want is outstanding (an answer to it is then
 * still due, and is dropped in silence), so the source's memory may go in it, but for pieces that are still borrowed.
 */
struct http_source {
    void (*want)(struct http_request *req, size_t max_bytes, void *arg);
    void (*closed)(void *arg);
    void *arg;
};
void http_reply_stream(struct http_request *req, int status, uint64_t length, const struct http_source *source);
/* len > 0 and at most the max_bytes of the want; exactly length bytes in all end the answer. Borrows data until
 * release(arg), which comes once, on the loop's thread, when the last of it is out or dropped: perhaps before this
 * returns, perhaps after closed(). */
void http_stream_push(struct http_request *req, const void *data, size_t len, void (*release)(void *arg), void *arg);
/* Takes back what was pushed and the socket has not taken: *bytes, the last that were pushed, which have to be pushed
 * again. Their releases have come when this returns. An outstanding want is withdrawn; the next one comes when the
 * socket takes more. Not while the source is called. False, and nothing changes: the client is gone, or there is
 * no memory. */
bool http_stream_take_back(struct http_request *req, uint64_t *bytes);
/* Breaks the connection, so that the client cannot take what it has for the whole. */
void http_stream_abort(struct http_request *req);

#endif
