/*
 * s3_sigv4_call - a request of the driver sigv4, and what sends it until it is answered. For s3_sigv4.c alone.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_SIGV4_CALL_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_SIGV4_CALL_H

#include "backends/s3/client/s3_clock.h"
#include "backends/s3/client/s3_driver.h"
#include "backends/s3/client/s3_http.h"
#include "backends/s3/client/s3_http_stream.h"
#include "backends/s3/client/s3_sign.h"

#include <stdatomic.h>

#define SIGV4_MAGIC     0x53335634u
#define SIGV4_PAIRS_MAX 8
#define SIGV4_PATH_MAX  (128 + S3_KEY_MAX + 128)

struct sigv4 {
    unsigned magic;
    struct s3_driver_base base;
    char region[64];
    int64_t stall_timeout_ms, complete_timeout_ms;
    struct s3_http *http;            /* for answers taken whole */
    struct s3_http_streams *streams; /* for those read as they are wanted */
    /* Added to our clock for signing. It is moved only when a signature was too skewed. */
    atomic_int_least64_t sign_offset_ms;
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
/* One attempt of a request with rq->stream, whatever its answer's status. Release the answer in any case. */
enum blob_status sigv4_call_stream(struct sigv4 *d, const struct sigv4_request *rq, struct s3_http_answer *answer,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* One attempt of a request without a body. It is made again only where a redirect says that it was not done. */
enum blob_status sigv4_call_once(struct sigv4 *d, const struct sigv4_request *rq,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* What signs for this driver with that key pair. It borrows both. */
struct s3_sign_key sigv4_sign_key(const struct sigv4 *d, const struct s3_credentials *cred);
/* UNAVAILABLE, to be tried again: a success that is none. */
enum blob_status sigv4_nonsense(struct blob_error *err, const char *what);

#endif
