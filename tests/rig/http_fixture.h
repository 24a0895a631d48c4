/*
 * http_fixture - a real HTTP server on a port of the kernel's choice, with handlers that show every side of the layer,
 * and a blocking client on raw sockets that says exactly what goes over the wire.
 *
 * Paths: /hello; /echo (counts and sums the body); /refuse (413 before the body); /hold (keeps the pieces until
 * fixture_release); /first (answers 409 after the first piece); /large (after the first that is as large as they get,
 * or when it is late); /job (answers when fixture_release is called); /shared; /medium; /counted; /file; /short (a file
 * shorter than it says); /stream (pushed by a job); /takeback (which takes back what has not left);
 * /abort; /204; /304; /field (what is read of the field X-Field:
 * lines, and value).
 *
 * Threads: handlers run on the server's loops; the fixture's counters are atomic, its lists are under lock.
 */
#ifndef BLOBD_TESTS_HTTP_FIXTURE_H
#define BLOBD_TESTS_HTTP_FIXTURE_H

#include "core/worker_pool.h"
#include "server/http/http_server.h"

#include <CUnit/CUnit.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define FIXTURE_BYTES  (3u * 1024 * 1024 + 17) /* of /shared, /file and /stream */
#define FIXTURE_MEDIUM (1024u * 1024)          /* of /medium: the kernel takes it whole, and a reader some time */
#define FIXTURE_OFFSET 1234567u                /* of every body, in what it is appended to */
#define FIXTURE_LARGE  40000u                  /* no piece of 16 KiB */

struct fixture {
    struct http_config cfg;
    struct http_server *srv;
    struct worker_pool *pool; /* of one thread */
    uint16_t port;
    uint8_t *bytes;
    int file;
    uint64_t file_bytes; /* of /file, less the first hundred */
    size_t max_in_flight;
    atomic_uint requests, faults, done, released, sources_closed, taken_back, body_ends[6];
    atomic_ulong body_bytes;       /* received, over all requests */
    atomic_uint placed, misplaced; /* large pieces of /echo, by where they lie in their page */
    atomic_int last_status, lent;  /* pushed and not released */
    pthread_mutex_t lock;
    struct http_piece *held;
    struct fixture_job *jobs;
    bool open; /* the gate for /hold and /job */
};

/* What a request of ours carries. */
struct fixture_job {
    struct http_task task; /* first */
    struct fixture *fx;
    struct http_request *req;
    struct fixture_job *next;
    uint64_t sum, pushed, received;
    size_t max;
    bool half;       /* then abort */
    bool takes_back; /* what has not left when more is wanted */
};

static inline void sleep_ms(int ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
}

/* Waits up to five seconds. */
#define WAIT_UNTIL(cond)                                                                                               \
    do {                                                                                                               \
        for (int waited = 0; !(cond) && waited < 5000; waited++)                                                       \
            sleep_ms(1);                                                                                               \
        CU_ASSERT(cond);                                                                                               \
    } while (0)

/* ---- handlers ---- */

static inline struct fixture_job *job_new(struct fixture *fx, struct http_request *req)
{
    struct fixture_job *job = calloc(1, sizeof *job);
    job->fx = fx;
    job->req = req;
    http_request_set_context(req, job);
    return job;
}

static inline void handler_sum(struct http_request *req, struct http_piece *piece, void *arg)
{
    struct fixture *fx = arg;
    struct fixture_job *job = http_request_context(req);
    for (size_t i = 0; i < piece->len; i++)
        job->sum = job->sum * 31 + piece->data[i];
    uint64_t at = FIXTURE_OFFSET + job->received;
    job->received += piece->len;
    if (piece->len >= FIXTURE_LARGE)
        atomic_fetch_add((at - (uintptr_t)piece->data) % 4096 == 0 ? &fx->placed : &fx->misplaced, 1);
    atomic_fetch_add(&fx->body_bytes, piece->len);
    http_piece_release(fx->srv, piece);
}

static inline void handler_body_end(struct http_request *req, enum http_body_end end, void *arg)
{
    struct fixture *fx = arg;
    struct fixture_job *job = http_request_context(req);
    static const int statuses[] = {200, 499, 408, 429, 400, 503};
    char text[96];
    atomic_fetch_add(&fx->body_ends[end], 1);
    int n = snprintf(text, sizeof text, "%llu %llu", (unsigned long long)http_request_bytes_in(req),
                     (unsigned long long)job->sum);
    http_reply(req, statuses[end], text, (size_t)n);
}

static inline void handler_hold(struct http_request *req, struct http_piece *piece, void *arg)
{
    struct fixture *fx = arg;
    (void)req;
    atomic_fetch_add(&fx->body_bytes, piece->len);
    pthread_mutex_lock(&fx->lock);
    bool open = fx->open;
    if (!open) {
        piece->next = fx->held;
        fx->held = piece;
    }
    pthread_mutex_unlock(&fx->lock);
    if (open)
        http_piece_release(fx->srv, piece);
}

static inline void handler_first(struct http_request *req, struct http_piece *piece, void *arg)
{
    struct fixture *fx = arg;
    http_piece_release(fx->srv, piece);
    http_request_stop_body(req);
    http_reply(req, 409, "first", 5);
}

static inline void handler_large(struct http_request *req, struct http_piece *piece, void *arg)
{
    struct fixture *fx = arg;
    bool late = atomic_fetch_add(&fx->body_bytes, piece->len) + piece->len >= FIXTURE_BYTES / 2;
    if (late || piece->len == 256u << 10)
        handler_first(req, piece, arg);
    else
        http_piece_release(fx->srv, piece);
}

static inline void job_answer(struct http_task *task)
{
    struct fixture_job *job = (struct fixture_job *)task;
    http_reply(job->req, 200, "job", 3);
}

static inline void handler_job(struct fixture *fx, struct http_request *req)
{
    struct fixture_job *job = http_request_context(req);
    job->task.run = job_answer;
    pthread_mutex_lock(&fx->lock);
    bool open = fx->open;
    if (!open) {
        job->next = fx->jobs;
        fx->jobs = job;
    }
    pthread_mutex_unlock(&fx->lock);
    if (open)
        http_loop_post(http_request_loop(req), &job->task);
}

static inline void release_count(void *arg)
{
    atomic_fetch_add(&((struct fixture *)arg)->released, 1);
}

static inline void release_pushed(void *arg)
{
    atomic_fetch_sub(&((struct fixture *)arg)->lent, 1);
}

static inline void source_push(struct http_task *task)
{
    struct fixture_job *job = (struct fixture_job *)task;
    size_t len = job->max < 100000 ? job->max : 100000;
    if (job->half && job->pushed > FIXTURE_BYTES / 2) {
        http_stream_abort(job->req);
        return;
    }
    uint64_t from = job->pushed;
    job->pushed += len;
    atomic_fetch_add(&job->fx->lent, 1);
    http_stream_push(job->req, job->fx->bytes + from, len, release_pushed, job->fx);
}

static inline void source_take_back(struct http_task *task)
{
    struct fixture_job *job = (struct fixture_job *)task;
    uint64_t bytes;
    if (atomic_load(&job->fx->lent) == 0) {
        source_push(task);
    } else if (http_stream_take_back(job->req, &bytes)) {
        job->pushed -= bytes;
        atomic_fetch_add(&job->fx->taken_back, bytes > 0);
    } else { /* the client has gone */
        http_stream_abort(job->req);
    }
}

/* Now and then at once, otherwise later: both are allowed. */
static inline void source_want(struct http_request *req, size_t max, void *arg)
{
    struct fixture_job *job = arg;
    job->max = max;
    job->task.run = job->takes_back ? source_take_back : source_push;
    if (job->pushed % 3 == 0 && !job->takes_back)
        source_push(&job->task);
    else
        http_loop_post(http_request_loop(req), &job->task);
}

static inline void source_closed(void *arg)
{
    struct fixture_job *job = arg;
    atomic_fetch_add(&job->fx->sources_closed, 1);
}

static inline void handler_body(struct fixture *fx, struct http_request *req,
                                void (*on_piece)(struct http_request *, struct http_piece *, void *))
{
    struct http_body_reader reader = {
        .offset = FIXTURE_OFFSET, .on_piece = on_piece, .on_end = handler_body_end, .arg = fx};
    http_request_read_body(req, &reader, fx->max_in_flight);
}

static inline void handler_stream(struct http_request *req, struct fixture_job *job, bool half, bool takes_back)
{
    struct http_source source = {.want = source_want, .closed = source_closed, .arg = job};
    job->half = half;
    job->takes_back = takes_back;
    http_reply_stream(req, 200, FIXTURE_BYTES, &source);
}

static inline void handler_field(struct http_request *req)
{
    char text[512];
    const char *value = http_request_header(req, "x-field");
    int n = snprintf(text, sizeof text, "%u [%s]", http_request_header_count(req, "x-field"), value ? value : "none");
    http_reply(req, 200, text, (size_t)n);
}

static inline void handler_counted(struct fixture *fx, struct http_request *req)
{
    if (http_reply_reserve(req, FIXTURE_BYTES))
        http_reply(req, 200, fx->bytes, FIXTURE_BYTES);
    else
        http_reply(req, 503, "full", 4);
}

static inline void handler_request(struct http_request *req, void *arg)
{
    struct fixture *fx = arg;
    const char *path = http_request_path(req);
    atomic_fetch_add(&fx->requests, 1);
    struct fixture_job *job = job_new(fx, req);
    http_reply_header(req, "X-Test", "yes");
    if (strcmp(path, "/hello") == 0)
        http_reply(req, 200, "hello", 5);
    else if (strcmp(path, "/echo") == 0)
        handler_body(fx, req, handler_sum);
    else if (strcmp(path, "/refuse") == 0)
        http_reply(req, 413, "refused", 7);
    else if (strcmp(path, "/hold") == 0)
        handler_body(fx, req, handler_hold);
    else if (strcmp(path, "/first") == 0)
        handler_body(fx, req, handler_first);
    else if (strcmp(path, "/large") == 0)
        handler_body(fx, req, handler_large);
    else if (strcmp(path, "/job") == 0)
        handler_job(fx, req);
    else if (strcmp(path, "/shared") == 0)
        http_reply_shared(req, 200, fx->bytes, FIXTURE_BYTES, release_count, fx);
    else if (strcmp(path, "/medium") == 0)
        http_reply_shared(req, 200, fx->bytes, FIXTURE_MEDIUM, release_count, fx);
    else if (strcmp(path, "/counted") == 0)
        handler_counted(fx, req);
    else if (strcmp(path, "/file") == 0)
        http_reply_file(req, 206, fx->file, 100, fx->file_bytes - 100, release_count, fx);
    else if (strcmp(path, "/smallfile") == 0)
        http_reply_file(req, 206, fx->file, 100, 1000, release_count, fx);
    else if (strcmp(path, "/short") == 0)
        http_reply_file(req, 200, fx->file, 0, 2 * FIXTURE_BYTES, release_count, fx);
    else if (strcmp(path, "/stream") == 0)
        handler_stream(req, job, false, false);
    else if (strcmp(path, "/takeback") == 0)
        handler_stream(req, job, false, true);
    else if (strcmp(path, "/abort") == 0)
        handler_stream(req, job, true, false);
    else if (strcmp(path, "/204") == 0)
        http_reply(req, 204, NULL, 0);
    else if (strcmp(path, "/304") == 0)
        http_reply(req, 304, "ignored", 7);
    else if (strcmp(path, "/field") == 0)
        handler_field(req);
    else
        http_reply(req, 404, "none", 4);
}

static inline void handler_fault(struct http_request *req, enum http_fault fault, const char *detail, void *arg)
{
    static const int statuses[] = {400, 408, 414, 417, 431, 501, 503};
    struct fixture *fx = arg;
    atomic_fetch_add(&fx->faults, 1);
    http_reply_header(req, "Content-Type", "application/json");
    http_reply(req, statuses[fault], detail, strlen(detail));
}

static inline void handler_done(struct http_request *req, void *arg)
{
    struct fixture *fx = arg;
    atomic_store(&fx->last_status, http_request_status(req));
    CU_ASSERT_PTR_NOT_NULL(http_request_path(req));
    (void)http_request_header(req, "Host"); /* must still be readable */
    free(http_request_context(req));
    atomic_fetch_add(&fx->done, 1);
}

/* ---- the server ---- */

static inline void fixture_init(struct fixture *fx)
{
    memset(fx, 0, sizeof *fx);
    fx->cfg = (struct http_config){
        .listen = "127.0.0.1:0",
        .loops = 2,
        .max_head_bytes = 4096,
        .max_uri_bytes = 1024,
        .body_memory_bytes = 4 << 20,
        .head_timeout_ms = 5000,
        .idle_timeout_ms = 5000,
        .on_request = handler_request,
        .on_fault = handler_fault,
        .on_done = handler_done,
        .arg = fx,
    };
    CU_ASSERT_EQUAL_FATAL(worker_pool_new(1, 64, &fx->pool, NULL), BLOB_OK);
    fx->cfg.pool = fx->pool;
    fx->max_in_flight = 1 << 20;
    pthread_mutex_init(&fx->lock, NULL);
    fx->bytes = malloc(FIXTURE_BYTES);
    for (size_t i = 0; i < FIXTURE_BYTES; i++)
        fx->bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    fx->file_bytes = FIXTURE_BYTES;
    char path[] = "/tmp/blobd-http-test-XXXXXX";
    fx->file = mkstemp(path);
    unlink(path);
    CU_ASSERT_EQUAL_FATAL(write(fx->file, fx->bytes, FIXTURE_BYTES), FIXTURE_BYTES);
}

static inline void fixture_start(struct fixture *fx)
{
    struct blob_error err = {0};
    enum blob_status st = http_server_new(&fx->cfg, &fx->srv, &err);
    if (st != BLOB_OK)
        fprintf(stderr, "%s\n", err.text);
    CU_ASSERT_EQUAL_FATAL(st, BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(http_server_start(fx->srv, &err), BLOB_OK);
    fx->port = http_server_port(fx->srv);
}

static inline void fixture_begin(struct fixture *fx)
{
    fixture_init(fx);
    fixture_start(fx);
}

/* Opens the gate: pieces go back, jobs answer, from this thread. */
static inline void fixture_release(struct fixture *fx)
{
    pthread_mutex_lock(&fx->lock);
    fx->open = true;
    struct http_piece *piece = fx->held;
    struct fixture_job *job = fx->jobs;
    fx->held = NULL;
    fx->jobs = NULL;
    pthread_mutex_unlock(&fx->lock);
    while (piece) {
        struct http_piece *next = piece->next;
        http_piece_release(fx->srv, piece);
        piece = next;
    }
    while (job) {
        struct fixture_job *next = job->next;
        http_loop_post(http_request_loop(job->req), &job->task);
        job = next;
    }
}

static inline void fixture_end(struct fixture *fx)
{
    fixture_release(fx);
    WAIT_UNTIL(http_server_in_flight(fx->srv) == 0);
    CU_ASSERT(worker_pool_drain(fx->pool, 5000));
    http_server_free(fx->srv);
    worker_pool_free(fx->pool);
    close(fx->file);
    free(fx->bytes);
    pthread_mutex_destroy(&fx->lock);
}

/* ---- the client ---- */

static inline int client_open(const struct fixture *fx)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(fx->port)};
    struct timeval patience = {.tv_sec = 10};
    inet_pton(AF_INET, "127.0.0.1", &addr.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

/* False when the server has closed. */
static inline bool client_send_bytes(int fd, const void *bytes, size_t len)
{
    const char *at = bytes;
    while (len > 0) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static inline bool client_send(int fd, const char *text)
{
    return client_send_bytes(fd, text, strlen(text));
}

struct answer {
    int status; /* 0: none came */
    char head[2048];
    size_t body_len;
    bool whole; /* as long as its Content-Length */
    uint8_t *body;
};

static inline const char *answer_header(const struct answer *answer, const char *name)
{
    static _Thread_local char value[512];
    for (const char *line = strstr(answer->head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
        size_t len = strlen(name);
        if (strncasecmp(line + 2, name, len) == 0 && line[2 + len] == ':') {
            const char *at = line + 2 + len + 1 + strspn(line + 2 + len + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r"), at);
            return value;
        }
    }
    return NULL;
}

/* Takes up to len bytes of what the server sends; not positive at its end. */
typedef ssize_t answer_source(void *from, void *buf, size_t len);

/* Reads one answer, byte by byte to the end of its head, so that what follows stays where it comes from. */
static inline struct answer answer_read(answer_source *take, void *from, bool to_head)
{
    struct answer answer = {0};
    for (size_t len = 0; len < sizeof answer.head - 1 && !strstr(answer.head, "\r\n\r\n"); len++) {
        if (take(from, answer.head + len, 1) != 1)
            return answer;
    }
    answer.status = (int)strtol(answer.head + 9, NULL, 10);
    const char *length = answer_header(&answer, "Content-Length");
    size_t want = length && !to_head ? strtoul(length, NULL, 10) : 0;
    answer.body = malloc(want + 1);
    while (answer.body_len < want) {
        ssize_t n = take(from, answer.body + answer.body_len, want - answer.body_len);
        if (n <= 0)
            break;
        answer.body_len += (size_t)n;
    }
    answer.body[answer.body_len] = '\0';
    answer.whole = answer.body_len == want;
    return answer;
}

static inline ssize_t take_from_socket(void *fd, void *buf, size_t len)
{
    return recv(*(int *)fd, buf, len, 0);
}

static inline struct answer client_read(int fd, bool to_head)
{
    return answer_read(take_from_socket, &fd, to_head);
}

/* The status of the next answer; its body is dropped. */
static inline int client_status(int fd)
{
    struct answer answer = client_read(fd, false);
    free(answer.body);
    return answer.status;
}

/* True when the server has closed, without anything more being sent. */
static inline bool client_closed(int fd)
{
    char c;
    return recv(fd, &c, 1, 0) == 0;
}

#endif
