/*
 * s3_sigv4_internal - what the files of the driver sigv4 share: a request, and the loop around it. Not for anyone else.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_SIGV4_INTERNAL_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_SIGV4_INTERNAL_H

#include "backends/s3/client/s3_clock.h"
#include "backends/s3/client/s3_driver.h"
#include "backends/s3/client/s3_http.h"
#include "backends/s3/client/s3_sign.h"

#include <stdatomic.h>

#define SIGV4_MAGIC     0x53335634u
#define SIGV4_PAIRS_MAX 8

struct sigv4 {
    unsigned magic;
    struct s3_driver_base base;
    char region[64];
    int64_t stall_timeout_ms, complete_timeout_ms;
    struct s3_http *http;
    atomic_int_least64_t
        sign_offset_ms; /* added to our clock for signing; moved only when a signature was too skewed */
    struct s3_clock clock;
};

/* One operation; what varies between attempts is kept elsewhere. */
struct sigv4_request {
    const char *method;
    const char *key; /* NULL: the bucket */
    struct s3_pair query[SIGV4_PAIRS_MAX];
    size_t query_count;
    struct s3_pair headers[SIGV4_PAIRS_MAX];
    size_t header_count;
    const struct s3_body *body;
    void *sink;
    size_t sink_size;
    struct s3_http_stream **stream; /* the body is left to be read from there; NULL: it is not */
    int64_t stall_timeout_ms;       /* 0: the usual one */
    int64_t as_of_ms;               /* what the signature is dated, by our clock; 0: when it is sent */
    /* Is a 2xx what it must be? Anything but OK is tried again. NULL: always. */
    enum blob_status (*accept)(const struct s3_http_answer *answer, void *arg, struct blob_error *err);
    void *accept_arg;
    bool *repeated; /* set when an attempt was made whose outcome is not known; may be NULL */
};

struct sigv4 *sigv4_of(void *self);

/*
 * Sends rq until it succeeds, is refused for good, or time is up. The answer is the last one; release it in any case.
 */
enum blob_status sigv4_call(struct sigv4 *d, const struct sigv4_request *rq, struct s3_http_answer *answer,
                            struct blob_error *err) BLOB_MUST_CHECK;
/* For operations whose answer is not looked at. */
enum blob_status sigv4_call_only(struct sigv4 *d, const struct sigv4_request *rq,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* UNAVAILABLE, to be tried again: a success that is none. */
enum blob_status sigv4_nonsense(struct blob_error *err, const char *what);
/* For sigv4_request.accept. */
enum blob_status sigv4_accept_etag(const struct s3_http_answer *answer, void *arg, struct blob_error *err);

/* ---- s3_sigv4_multipart.c: as s3_driver.h says ---- */

enum blob_status sigv4_create(void *self, const char *key, char upload_id[S3_UPLOAD_ID_MAX], struct blob_error *err);
enum blob_status sigv4_put_part(void *self, const char *key, const char *upload_id, unsigned number,
                                const struct s3_body *body, struct s3_part *out, struct blob_error *err);
enum blob_status sigv4_complete(void *self, const char *key, const char *upload_id, const struct s3_part *parts,
                                unsigned count, struct blob_error *err);
enum blob_status sigv4_abort(void *self, const char *key, const char *upload_id, struct blob_error *err);
enum blob_status sigv4_parts(void *self, const char *key, const char *upload_id, unsigned after, struct s3_parts *out,
                             struct blob_error *err);
enum blob_status sigv4_uploads(void *self, const char *prefix, const char *after_key, const char *after_id,
                               struct s3_uploads *out, struct blob_error *err);

#endif
