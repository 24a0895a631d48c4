/*
 * s3_http - one HTTP exchange on a pool of kept-alive libcurl handles. Knows nothing of S3 but its header names.
 *
 * Threads: s3_http_send() from any. It blocks for a free handle, then until the answer is complete; a shut gate
 * ends both. Ownership: everything in a request is borrowed until return; an answer is released by its owner.
 * Units: milliseconds, bytes. No retry, no redirect, no proxy, no environment; TLS is verified, 1.2 or newer.
 * The process must ignore SIGPIPE.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_H

#include "backends/s3/client/s3_retry.h"
#include "backends/s3/client/s3_types.h"
#include "core/text/bytebuf.h"

struct s3_http;

struct s3_http_config {
    const char *ca_file; /* "": the system's */
    int64_t connect_timeout_ms;
    unsigned max_connections;
    struct s3_gate *gate; /* borrowed until s3_http_free() */
};

struct s3_http_request {
    const char *method;
    const char *url;
    const char *const *headers; /* "name: value" */
    size_t header_count;
    const struct s3_body *body; /* NULL: none is sent */
    void *sink;                 /* a 2xx body goes here; NULL: into answer.text */
    size_t sink_size;
    int64_t stall_timeout_ms;
};

struct s3_http_answer {
    int status; /* 0: there was none */
    bool has_length;
    uint64_t length; /* Content-Length */
    bool has_range;
    uint64_t range_first, range_last, range_total; /* Content-Range */
    char etag[S3_ETAG_MAX];
    int64_t modified_ms;
    int64_t date_s;     /* the server's clock; 0: not told */
    int64_t date_at_ms; /* when that was read, by the steady clock: a body may take long to follow */
    int64_t retry_after_ms;
    char region[64]; /* x-amz-bucket-region */
    char location[512];
    size_t sunk;         /* bytes in the sink */
    struct bytebuf text; /* any other body, at most 8 MiB */
};

enum blob_status s3_http_new(const struct s3_http_config *cfg, struct s3_http **out,
                             struct blob_error *err) BLOB_MUST_CHECK;
/* No call may be under way, and no stream open. NULL is fine. */
void s3_http_free(struct s3_http *http);

/*
 * OK: a whole answer, whatever its status. TOO_LARGE: a 2xx body over sink_size. CANCELED. INVALID: ca_file. What
 * body->read failed with. UNAVAILABLE: anything the network or the peer did; *retry tells whether it may pass.
 * Fills *answer in any case: s3_http_answer_release().
 */
enum blob_status s3_http_send(struct s3_http *http, const struct s3_http_request *req, struct s3_http_answer *answer,
                              bool *retry, struct blob_error *err) BLOB_MUST_CHECK;
void s3_http_answer_release(struct s3_http_answer *answer);

/* ---- an answer that is taken as it is wanted ---- */

struct s3_http_stream;

/*
 * Sends a request without a body, and waits for the answer's head. Only a 2xx whose length is told is a stream; of
 * any other answer no more is known than its status, in *answer: UNAVAILABLE. Then, and where else s3_http_send()
 * fails, there is no stream. Streams are no handles of the pool: whoever begins them bounds them. All of one s3_http
 * go to one endpoint, since they share connections.
 */
enum blob_status s3_http_begin(struct s3_http *http, const struct s3_http_request *req, struct s3_http_answer *answer,
                               struct s3_http_stream **out, bool *retry, struct blob_error *err) BLOB_MUST_CHECK;
/*
 * Exactly the next len bytes of the body, which has them; waits for them. In between nothing is received beyond what
 * the kernel's buffers take, for as long as one likes and the peer bears. From any thread, one at a time. UNAVAILABLE:
 * the body broke off or stalled; CANCELED. After a failure it can only be ended.
 */
enum blob_status s3_http_stream_read(struct s3_http_stream *t, void *buf, size_t len,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* At any time; before all was read, its connection is closed. NULL is fine. */
void s3_http_stream_end(struct s3_http_stream *t);

#endif
