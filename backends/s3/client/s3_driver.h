/*
 * s3_driver - the contract between s3_client (the checked wrappers) and its drivers, and what these have in common.
 * Nobody else includes this.
 *
 * The wrappers have validated keys, numbers and bounds, and give every out pointer. A callback is NULL where the
 * driver's capability bits say so. Semantics, threads and statuses are those of the function of the same name in
 * s3_client.h, but complete(): it need not look at the finished object.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_DRIVER_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_DRIVER_H

#include "backends/s3/client/s3_clock.h"
#include "backends/s3/client/s3_endpoint.h"
#include "backends/s3/client/s3_keys.h"
#include "backends/s3/client/s3_retry.h"
#include "backends/s3/client/s3_types.h"

/* What every driver keeps of the options. */
struct s3_driver_base {
    struct s3_endpoint endpoint;
    struct s3_keys *keys, *own_keys; /* own: NULL where they are shared */
    char bucket[64];
    int64_t retry_timeout_ms;
    unsigned retries;
    struct s3_gate gate;
};

/* INVALID: no endpoint or no credentials are to be had from the options. After a failure there is nothing to release.
 */
enum blob_status s3_driver_base_init(struct s3_driver_base *base, const struct s3_options *opts,
                                     struct blob_error *err) BLOB_MUST_CHECK;
void s3_driver_base_release(struct s3_driver_base *base);
void s3_driver_base_cancel(struct s3_driver_base *base);

/* whole: no range is asked for, and an object over length is TOO_LARGE. */
struct s3_span {
    bool whole;
    uint64_t offset;
    size_t length;
};

struct s3_driver {
    const char *name;
    unsigned caps;
    uint64_t max_put;

    enum blob_status (*open)(const struct s3_options *opts, void **self, struct blob_error *err);
    void (*close)(void *self);
    void (*cancel)(void *self);
    void (*clock)(void *self, struct s3_clock_view *out); /* may be NULL */

    enum blob_status (*put)(void *self, const char *key, const struct s3_body *body, const struct s3_condition *cond,
                            struct s3_object *out, struct blob_error *err);
    enum blob_status (*get)(void *self, const char *key, const struct s3_span *span, void *buf, size_t *got,
                            struct s3_object *out, struct blob_error *err);
    enum blob_status (*head)(void *self, const char *key, struct s3_object *out, struct blob_error *err);
    enum blob_status (*remove)(void *self, const char *key, struct blob_error *err);
    /* May be NULL. */
    enum blob_status (*remove_once)(void *self, const char *key, int64_t as_of_ms, struct blob_error *err);
    enum blob_status (*list)(void *self, const char *prefix, const char *after, unsigned max, struct s3_page *out,
                             struct blob_error *err);

    /* S3_CAP_STREAM */
    enum blob_status (*stream_open)(void *self, const char *key, const struct s3_span *span, void **stream,
                                    struct s3_object *out, struct blob_error *err);
    enum blob_status (*stream_read)(void *stream, void *buf, size_t len, struct blob_error *err);
    void (*stream_close)(void *stream);

    /* S3_CAP_MULTIPART */
    enum blob_status (*create)(void *self, const char *key, char upload_id[S3_UPLOAD_ID_MAX], struct blob_error *err);
    enum blob_status (*put_part)(void *self, const char *key, const char *upload_id, unsigned number,
                                 const struct s3_body *body, struct s3_part *out, struct blob_error *err);
    enum blob_status (*complete)(void *self, const char *key, const char *upload_id, const struct s3_part *parts,
                                 unsigned count, struct blob_error *err);
    enum blob_status (*abort)(void *self, const char *key, const char *upload_id, struct blob_error *err);
    enum blob_status (*parts)(void *self, const char *key, const char *upload_id, unsigned after, struct s3_parts *out,
                              struct blob_error *err);
    enum blob_status (*uploads)(void *self, const char *prefix, const char *after_key, const char *after_id,
                                struct s3_uploads *out, struct blob_error *err);

    /* S3_CAP_PRESIGN */
    enum blob_status (*presign)(void *self, const char *key, int64_t expiry_s, const char *disposition,
                                const char *content_type, char **url, struct blob_error *err);
};

extern const struct s3_driver s3_driver_sigv4;
extern const struct s3_driver s3_driver_libs3; /* only in builds with BLOBD_LIBS3 */

#endif
