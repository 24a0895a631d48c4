/*
 * http_internal - what the files of the HTTP layer share. Nobody else includes it.
 *
 * Three objects with three lives:
 *   struct http_conn     from accept until evhttp frees the connection, which its close callback tells (conn_closed);
 *   struct http_request  from the end of a head until it is answered and the answer is out or dropped; it may outlive
 *                        the connection while a job works on it;
 *   evhttp_request       evhttp makes one ahead for the next request. It is marked as owned by us, so that evhttp frees
 *                        it after a finished answer only; when the connection dies first, it is ours to free.
 *
 * Threads: everything is its loop's own, but for the counters, the pool, the bridge and the TLS context.
 */
#ifndef BLOBD_SERVER_HTTP_HTTP_INTERNAL_H
#define BLOBD_SERVER_HTTP_HTTP_INTERNAL_H

#include "server/http/http_pool.h"
#include "server/http/http_server.h"
#include "server/http/loop_bridge.h"
#include "server/http/parse/http_chunked.h"
#include "server/http/parse/http_head_check.h"
#include "server/http/tls.h"

#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/types.h>

struct bufferevent;
struct evbuffer;
struct evbuffer_cb_entry;
struct evbuffer_file_segment;
struct evhttp;
struct evhttp_bound_socket;
struct evhttp_connection;
struct evhttp_request;
struct evkeyvalq;

#define HTTP_CONN_MAGIC    0x68636f6eu
#define HTTP_REQUEST_MAGIC 0x68726571u
#define HTTP_LOOP_MAGIC    0x686c6f70u

#define HTTP_SEND_BYTES  ((size_t)1 << 20)
#define HTTP_ANSWER_FREE ((size_t)16 << 10) /* of an answer in memory: part of what a connection is reckoned at */

/* ---- the server and its loops ---------------------------------------------------------------------------------- */

struct http_linger;
struct http_tls;
struct http_proxy;
struct http_fetch;

struct http_loop {
    unsigned magic;
    struct http_server *srv;
    struct event_base *base;
    struct evhttp *http;
    struct evhttp_bound_socket *bound; /* NULL once drained */
    struct loop_bridge *bridge;
    struct event *sweep; /* looks for what is overdue */
    struct http_task drain_task, stop_task, doom_task;
    pthread_t thread;
    bool started, draining, stopping;
    bool dooming;              /* doom_task is posted */
    struct http_conn *opening; /* whose next evhttp_request is about to be made */
    TAILQ_HEAD(, http_conn) conns;
    TAILQ_HEAD(, http_linger) lingers;
    int64_t date_at; /* the second that date was made for */
    char date[48];   /* "Date: …\r\n" */
    size_t date_len;
    /* All within one call. */
    uint8_t *send_buffer;      /* HTTP_SEND_BYTES for a file's next bytes; NULL before the first */
    uint8_t *stage, *gathered; /* TLS: what is encrypted next, and what it becomes (http_tls.h) */
    size_t gathered_bytes;
    size_t staged;                /* bytes in stage already: the beginning of an answer … */
    struct http_conn *staged_for; /* … of this connection; NULL: none is begun */
};

struct http_server {
    struct http_config cfg; /* its strings are the server's own */
    struct head_limits head_limits;
    struct http_pool *pool;
    struct tls_server *tls; /* NULL: plain */
    BIO_METHOD *tls_out;    /* NULL: plain */
    struct http_loop *loops;
    unsigned loop_count;
    uint16_t port;
    atomic_uint in_flight, connections;
    atomic_size_t answers;  /* bytes of answers held for those who take them slowly */
    atomic_uint over_share; /* of these, refused for their address */
    atomic_bool draining;
};

/* ---- what a loop and a server give (http_loop.c) ---- */

/* Milliseconds for deadlines: coarse, cheap, steady. */
int64_t http_now_ms(void);

/* Counts bytes that are held of an answer beyond what every connection is reckoned at; false: too much is. */
bool http_answers_take(struct http_server *srv, size_t bytes);
void http_answers_give(struct http_server *srv, size_t bytes);

/* http_listen.c: listeners of all loops on one port, none of them accepting yet. fds has room for count. */
enum blob_status http_listen(const char *listen, unsigned count, int *fds, uint16_t *port,
                             struct blob_error *err) BLOB_MUST_CHECK;

/* ---- connections (http_conn.c) --------------------------------------------------------------------------------- */

enum conn_phase {
    CONN_HEAD, /* evhttp reads: idle, or a head on its way */
    CONN_BUSY, /* a request is worked on or answered */
};

struct http_conn {
    unsigned magic;
    enum conn_phase phase;
    struct http_loop *loop;
    TAILQ_ENTRY(http_conn) link;
    int fd;                          /* -1 until the first evhttp_request is made */
    struct bufferevent *bev;         /* under TLS it has no descriptor, and only its input is used */
    struct http_tls *tls;            /* NULL: plain */
    struct evhttp_connection *evcon; /* NULL until the first evhttp_request is made */
    struct evhttp_request *ereq;     /* the present one */
    struct http_request *req;        /* NULL in CONN_HEAD */
    struct head_scan scan;
    bool scanning;   /* what arrives is a head's */
    bool judged;     /* fault and framing are this head's */
    bool seized;     /* EV_READ is off and the bufferevent's callbacks are ours */
    bool over_limit; /* accepted only to be told 503 */
    bool over_share; /* accepted only to be told 429 */
    bool counted;    /* by the limiter */
    bool doomed;     /* not even told that, and not counted: closed as soon as evhttp lets it */
    bool served;     /* has had an answer: an idle keep-alive connection */
    bool owing;      /* may not have acknowledged all of that answer yet */
    struct head_fault fault;
    struct head_framing framing;
    size_t piece_bytes; /* how much the last read of a body brought: what the next piece should hold */
    uint64_t acked;     /* by the peer, at the last sweep that asked */
    /* CONN_HEAD: accepted, last answer acknowledged, or first byte of the head; CONN_BUSY: since when the peer has
     * owed an acknowledgement. */
    int64_t since_ms;
    /* Of the answer under way, since rate_from was acknowledged: how long the peer has owed. -1: not looked at yet. */
    int64_t owed_ms, looked_ms;
    uint64_t rate_from;
    struct evbuffer_cb_entry *input_cb, *output_cb;
    struct http_proxy *proxy; /* a PROXY header is awaited; or NULL */
    struct ip_address client; /* the peer, or whom the PROXY header names */
    char remote[64];
};

/* Puts the hook and the callbacks on a loop's evhttp. */
enum blob_status http_conn_attach(struct http_loop *loop) BLOB_MUST_CHECK;
/* Reading begins, with TLS' handshake where there is TLS. */
void http_conn_begin(struct http_conn *conn);
/* Acts on what is overdue by now; conn may be gone afterwards. */
void http_conn_sweep(struct http_conn *conn, int64_t now_ms);
/* An answer begins: what is owed, and how fast it is taken, is counted from now on. */
void http_conn_begin_rate(struct http_conn *conn);
/* True when nothing of a request has arrived: it may be closed without anybody noticing. */
bool http_conn_is_idle(const struct http_conn *conn);
/* Frees the connection at once; its request, if any, learns of it through conn_closed. */
void http_conn_break(struct http_conn *conn);
/* The same with a reset, so that the peer cannot take what it got for the whole. */
void http_conn_reset(struct http_conn *conn);
int http_conn_fd(const struct http_conn *conn);
/* NULL for plain HTTP. */
SSL *http_conn_ssl(const struct http_conn *conn);
/* There is more in the input: evhttp parses it. conn may be gone afterwards. */
void http_conn_received(struct http_conn *conn);
/* The socket takes more: an answer goes on. conn may be gone afterwards. */
void http_conn_has_room(struct http_conn *conn);
/* Stops evhttp's reading and takes the callbacks over, until the answer is out. Idempotent. */
void http_conn_seize(struct http_conn *conn);
/* Writes what it can at once; the rest follows when the socket takes it. False when the connection broke: conn is gone.
 */
bool http_conn_flush(struct http_conn *conn);
/* So many bytes of the answer went out. */
void http_conn_progress(struct http_conn *conn, size_t bytes);
/* Lets the loop write what is in the output. */
void http_conn_arm(struct http_conn *conn);
struct evbuffer *http_conn_output(const struct http_conn *conn);
struct evbuffer *http_conn_input(const struct http_conn *conn);
/* Gives bytes back that were read past a body's end; false without memory. */
bool http_conn_unread(struct http_conn *conn, const void *data, size_t len);
/* The answer is out: evhttp goes on to the next request, or closes. conn may be gone afterwards. */
void http_conn_answered(struct http_conn *conn);

/* http_peer.c. A connection is accepted: who it is, perhaps only after a while; then http_conn_begin(), unless it is
 * one too many. Does not close it at once, as evhttp is at work on it. */
void http_peer_open(struct http_conn *conn);
/* It ends. */
void http_peer_close(struct http_conn *conn);
/* The loop's doom_task: closes those that were one too many. */
void http_peer_doom(struct http_task *task);
/* The head is there: for whom a believed proxy sends this request. */
void http_peer_of_request(struct http_request *req);

/* http_acked.c: does the peer of this TCP socket still have to acknowledge something? *bytes: what it has acknowledged
 * in all; untouched where the kernel does not say. */
bool http_acked(int fd, uint64_t *bytes);

/* http_linger.c: goes on discarding what the peer sends on a socket that is being closed, for a bounded time. Works on
 * a duplicate of fd. */
void http_linger_start(struct http_loop *loop, int fd);
void http_linger_sweep(struct http_loop *loop, int64_t now_ms);
/* Ends the oldest; false: there is none. */
bool http_linger_evict(struct http_loop *loop);
void http_linger_free_all(struct http_loop *loop);

/* ---- bodies (http_body.c) -------------------------------------------------------------------------------------- */

enum body_state { BODY_UNREAD, BODY_READING, BODY_ENDED, BODY_STOPPED };

struct http_body {
    enum http_body_kind kind;
    enum body_state state;
    uint64_t left; /* HTTP_BODY_LENGTH */
    struct http_chunked chunked;
    struct http_body_reader reader;
    struct http_flow *flow;
    struct event readable; /* while BODY_READING */
    bool waiting;          /* for memory, not for the client */
    uint64_t received;
    /* The rate, over windows of time spent waiting for the client. */
    int64_t last_ms;  /* last byte, or last change of waiting */
    int64_t swept_ms; /* up to where spent_ms counts */
    int64_t spent_ms;
    uint64_t window_from;
};

bool http_body_is_unread(const struct http_body *body);
/* The connection is gone: CUT, from the loop. */
void http_body_lose(struct http_request *req);
/* No callback any more. */
void http_body_stop(struct http_request *req);
void http_body_sweep(struct http_request *req, int64_t now_ms);

/* ---- fields (http_fields.c) ------------------------------------------------------------------------------------ */

/* A field that came on several lines, as RFC 9110, section 5.3, reads them: one list. */
struct http_joined {
    struct http_joined *next;
    const char *name; /* the first line's */
    char value[];
};

/* Takes the spaces and tabs off around every value. */
void http_fields_trim(struct evkeyvalq *headers);
/* Every field of more than one line; false without memory. Borrows their names. */
bool http_fields_join(const struct evkeyvalq *headers, struct http_joined **out);
/* NULL where the field is none of these. */
const char *http_fields_joined(struct http_joined *joined, const char *name);
void http_fields_free(struct http_joined *joined);

/* ---- requests (http_request.c) --------------------------------------------------------------------------------- */

enum reply_kind { REPLY_NONE, REPLY_MEMORY, REPLY_FILE, REPLY_STREAM };

struct http_reply {
    enum reply_kind kind; /* NONE: not answered yet */
    uint64_t left;        /* bytes of FILE and STREAM not yet in the output */
    size_t reserved;      /* taken from http_config.answer_memory_bytes */
    bool filling;         /* the pump runs further up the stack */
    bool wanted;          /* STREAM: a want is outstanding */
    struct http_source source;
    struct evbuffer_file_segment *segment;        /* FILE, plain */
    int fd;                                       /* FILE */
    uint64_t offset;                              /* FILE: of the next byte */
    size_t burst;                                 /* FILE, plain: how much to read and send next */
    uint64_t ahead;                               /* FILE: 0, or not all in memory, and asked for up to here */
    uint64_t fetched;                             /* FILE: from here a worker has brought something; UINT64_MAX */
    bool fetching;                                /* FILE: the answer waits for that */
    void (*fetched_fn)(struct http_request *req); /* FILE: then called, where it waits */
    struct http_fetch *fetch;                     /* FILE: a worker is at it; forgotten when the answer ends */
    void (*release)(void *arg);
    void *release_arg;
};

struct http_request {
    unsigned magic;
    unsigned pins; /* callbacks running with it further up the stack */
    bool dead;     /* free it when the last pin goes */
    struct http_loop *loop;
    struct http_conn *conn; /* NULL once gone */
    struct evhttp_request *ereq;
    bool ereq_ours; /* the connection died first: free it with the request */
    enum http_method method;
    const char *path, *query;   /* within ereq */
    struct http_joined *joined; /* hardly ever any */
    bool version_1_0, expects_continue, keep_alive, is_tls;
    bool close;  /* after the answer */
    bool faulty; /* refused by the layer: what follows the head is not understood */
    struct http_body body;
    struct http_reply reply;
    char *headers; /* of the answer, as they go out */
    size_t headers_len, headers_size;
    size_t head_bytes; /* of the answer */
    uint64_t drained;  /* of the answer, head included */
    int status;
    int64_t start_us;
    void *ctx;
    char id[129];
    char method_name[HEAD_METHOD_MAX + 1];
    struct ip_address client;
    char remote[64];
};

/* Makes the request that conn->ereq stands for and calls the handler, or with a fault on_fault. */
void http_request_dispatch(struct http_conn *conn, struct head_fault fault, const struct head_framing *framing);
/* Around every callback to the layer above. Unpinning may free. */
void http_request_pin(struct http_request *req);
void http_request_unpin(struct http_request *req);
/* Answered, and the answer out or dropped: on_done, and the end of req. */
void http_request_finish(struct http_request *req);
/* The connection is being closed under it; ereq stays with the request if it lives on. Returns true in that case. */
bool http_request_detach(struct http_request *req);

/* http_reply.c: moves an answer on as far as the socket and its source let it. req may be gone afterwards. */
void http_reply_pump(struct http_request *req);
/* Gives back what the answer borrowed. */
void http_reply_release(struct http_request *req);

/* ---- http_file.c ---- */

/* Reads from the reply's offset on, of what is left to be sent; as pread(). EAGAIN: it is not in memory, and a worker
 * brings it (reply.fetching): http_reply_pump() is called when it is there. */
ssize_t http_file_read(struct http_request *req, void *to, size_t len);
/* Can the next len bytes, or what is left, be sent from the file itself? False: as EAGAIN. */
bool http_file_ready(struct http_request *req, size_t len);
/* The answer ends. */
void http_file_forget(struct http_reply *reply);

#endif
