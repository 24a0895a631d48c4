/*
 * s3_transfer_internal - one transfer on a libcurl handle: what s3_http and s3_http_stream share. Not for anyone else.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_TRANSFER_INTERNAL_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_TRANSFER_INTERNAL_H

#include "backends/s3/client/s3_transfer.h"

#include <curl/curl.h>

#define S3_TRANSFER_MAGIC    0x53336578u
#define S3_HTTP_SLOWEST_RATE 1024L /* bytes a second; less for the stall timeout is a stall */

/* What is the same for every transfer of a pool. */
struct s3_transport {
    char *ca_file;
    int64_t connect_timeout_ms;
    struct s3_gate *gate; /* borrowed */
};

/* After a failure there is nothing to release. */
enum blob_status s3_transport_init(struct s3_transport *t, const struct s3_http_config *cfg,
                                   struct blob_error *err) BLOB_MUST_CHECK;
void s3_transport_release(struct s3_transport *t);

/* One request on its way; all pointers are borrowed. curl's callbacks get it. */
struct s3_transfer {
    unsigned magic;
    const struct s3_transport *transport;
    const struct s3_http_request *req;
    struct s3_http_answer *answer;
    uint64_t sent;            /* position in the body */
    bool overflow;            /* more came than the sink or the text takes */
    enum blob_status body_st; /* what body->read returned */
    struct blob_error *err;
};

/* Sets everything of a request on a handle. x and headers (which may be NULL) stay until it was performed. */
void s3_transfer_prepare(CURL *easy, struct s3_transfer *x, struct curl_slist *headers);
/* Takes one line of an answer's head into x->answer. A CURLOPT_HEADERFUNCTION; arg: the transfer. */
size_t s3_transfer_on_header(char *line, size_t size, size_t n, void *arg);
/* Turns a transfer that failed into a status and an error text. easy may be NULL where nothing was sent. */
enum blob_status s3_transfer_judge(const struct s3_transfer *x, CURL *easy, CURLcode rc, const char *detail,
                                   bool *retry);

#endif
