/*
 * s3_http_internal - what the files of s3_http share: an exchange, and curl's callbacks for it. Not for anyone else.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_INTERNAL_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_INTERNAL_H

#include "backends/s3/client/s3_http.h"

#include <curl/curl.h>
#include <pthread.h>

#define S3_EXCHANGE_MAGIC    0x53336578u
#define S3_HTTP_SLOWEST_RATE 1024L /* bytes a second; less for the stall timeout is a stall */

struct s3_http_stream;

struct s3_http {
    unsigned magic;
    char *ca_file;
    int64_t connect_timeout_ms;
    struct s3_gate *gate;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t returned;
    CURL **idle;
    unsigned idle_count, made, max;
    struct s3_http_stream *idle_streams; /* their connections are kept alive */
    unsigned idle_stream_count;
    unsigned streams; /* begun, and not ended */
};

struct s3_transfer {
    unsigned magic;
    struct s3_http *http;
    const struct s3_http_request *req;
    struct s3_http_answer *answer;
    uint64_t sent;            /* position in the body */
    bool overflow;            /* more than the sink or the text takes */
    enum blob_status body_st; /* what body->read said */
    struct blob_error *err;
};

/* Everything of a request that is set on a handle; x and headers (which may be NULL) stay until it was performed. */
void s3_http_prepare(CURL *easy, struct s3_transfer *x, struct curl_slist *headers);
/* CURLOPT_HEADERFUNCTION: one line of a head, into the answer. arg: the exchange. */
size_t s3_http_on_header(char *line, size_t size, size_t n, void *arg);
/* What a transfer's end means, that did not end with a whole answer. easy may be NULL where nothing was sent. */
enum blob_status s3_http_judge(const struct s3_transfer *x, CURL *easy, CURLcode rc, const char *detail, bool *retry);

/* ---- s3_http_stream.c ---- */

/* Frees the idle ones. */
void s3_http_streams_free(struct s3_http *h);

#endif
