/*
 * s3_transfer - one HTTP request and its answer, as values. Knows nothing of S3 but its header names. Two transports
 * carry them: s3_http takes an answer whole, s3_http_stream lets it be read as it is wanted. What these two share to do
 * so is in s3_transfer_internal.h.
 *
 * Threads: plain values. Ownership: everything in a request is borrowed; an answer is released by its owner. Units:
 * milliseconds, bytes.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_TRANSFER_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_TRANSFER_H

#include "backends/s3/client/s3_retry.h"
#include "backends/s3/client/s3_types.h"
#include "core/text/bytebuf.h"

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

void s3_http_answer_release(struct s3_http_answer *answer);

#endif
