/*
 * s3_http - sends a request and takes the whole answer, on a pool of kept-alive libcurl handles.
 *
 * Threads: s3_http_send() from any. It blocks for a free handle, then until the answer is complete; a shut gate
 * ends both. Ownership: everything in a request is borrowed until return; an answer is released by its owner.
 * Units: milliseconds, bytes. No retry, no redirect, no proxy, no environment; TLS is verified, 1.2 or newer.
 * The process must ignore SIGPIPE.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_H

#include "backends/s3/client/s3_transfer.h"

struct s3_http;

enum blob_status s3_http_new(const struct s3_http_config *cfg, struct s3_http **out,
                             struct blob_error *err) BLOB_MUST_CHECK;
/* No call may be under way. NULL is fine. */
void s3_http_free(struct s3_http *http);

/*
 * OK: a whole answer, whatever its status. TOO_LARGE: a 2xx body over sink_size. CANCELED. INVALID: ca_file. What
 * body->read failed with. UNAVAILABLE: anything the network or the peer did; *retry tells whether it may pass.
 * Fills *answer in any case: s3_http_answer_release().
 */
enum blob_status s3_http_send(struct s3_http *http, const struct s3_http_request *req, struct s3_http_answer *answer,
                              bool *retry, struct blob_error *err) BLOB_MUST_CHECK;

#endif
