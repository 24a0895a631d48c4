/*
 * s3_http_stream - an answer whose body is taken as it is wanted, on kept-alive connections of its own.
 *
 * Threads: s3_http_stream_begin() from any; a stream is used by one thread at a time. Ownership: everything in a
 * request is borrowed until return; a stream is the caller's until s3_http_stream_end(). TLS, timeouts, the gate and
 * SIGPIPE are as in s3_http.h. All streams of one struct s3_http_streams go to one endpoint, since they share
 * connections.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_STREAM_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_HTTP_STREAM_H

#include "backends/s3/client/s3_transfer.h"

struct s3_http_streams; /* the connections that wait for their next stream */
struct s3_http_stream;

/* max_connections is not heeded: whoever begins streams bounds them. */
enum blob_status s3_http_streams_new(const struct s3_http_config *cfg, struct s3_http_streams **out,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* No stream may be open. NULL is fine. */
void s3_http_streams_free(struct s3_http_streams *streams);

/*
 * Sends a request without a body, and waits for the answer's head. Only a 2xx that tells its length is a stream. Of any
 * other answer no more is known than its status, in *answer: UNAVAILABLE. There is no stream then, nor where this fails
 * as s3_http_send() does. Release *answer in any case.
 */
enum blob_status s3_http_stream_begin(struct s3_http_streams *streams, const struct s3_http_request *req,
                                      struct s3_http_answer *answer, struct s3_http_stream **out, bool *retry,
                                      struct blob_error *err) BLOB_MUST_CHECK;
/*
 * Reads exactly the next len bytes of the body, and waits for them; the body must have that many left. Between two
 * calls nothing is received beyond what the kernel's buffers take, for as long as one likes and the peer bears.
 * UNAVAILABLE: the body broke off or stalled; CANCELED. After a failure the stream can only be ended.
 */
enum blob_status s3_http_stream_read(struct s3_http_stream *t, void *buf, size_t len,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* At any time; before all was read, its connection is closed. NULL is fine. */
void s3_http_stream_end(struct s3_http_stream *t);

#endif
