/*
 * s3_types - the things of S3 as values: objects and what is sent as one, pages of keys, parts, unfinished uploads.
 * s3_client.h says what is done with them; the drivers and the readers of S3's documents fill them.
 *
 * Threads: plain values. Ownership: a page, parts and uploads own what they point to until their release.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_TYPES_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_TYPES_H

#include "core/digest.h"
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

#define S3_KEY_MAX       512
#define S3_ETAG_MAX      128
#define S3_UPLOAD_ID_MAX 1024
#define S3_PART_MAX      10000 /* highest part number */

enum s3_capability {
    S3_CAP_MULTIPART = 1 << 0,
    S3_CAP_CONDITIONAL_PUT =
        1 << 1, /* the driver sends conditions; whether the endpoint heeds them, a self-check tells */
    S3_CAP_PRESIGN = 1 << 2,
    S3_CAP_VERIFIED_TLS = 1 << 3, /* the server's certificate is checked */
    S3_CAP_STREAM = 1 << 4,
};

struct s3_object {
    uint64_t size;
    int64_t modified_ms;    /* the server's clock, often in whole seconds; 0: not told */
    char etag[S3_ETAG_MAX]; /* with its quotes; "" when not told */
};

/* What is sent: memory, or read() from any offset (again after a retry, so it must answer the same bytes). */
struct s3_body {
    uint64_t length;
    const void *data;            /* NULL: read() */
    const struct digest *sha256; /* of all of it, where it is known: spares hashing it again; NULL */
    enum blob_status (*read)(void *arg, uint64_t offset, void *buf, size_t len, struct blob_error *err);
    void *arg;
};

struct s3_condition {
    bool absent;      /* only if there is no such key: else EXISTS */
    const char *etag; /* only if this is the ETag now: else CONFLICT; NULL: whatever it is */
};

struct s3_entry {
    char *key;
    struct s3_object object;
};

struct s3_page {
    struct s3_entry *entries; /* in byte order of their keys */
    size_t count;
    bool more; /* go on after the last key */
};
void s3_page_release(struct s3_page *page);

struct s3_part {
    unsigned number; /* 1 to S3_PART_MAX */
    uint64_t size;
    char etag[S3_ETAG_MAX];
};

struct s3_parts {
    struct s3_part *parts; /* ascending */
    size_t count;
    bool more;
};
void s3_parts_release(struct s3_parts *parts);

struct s3_upload {
    char *key;
    char *upload_id;
    int64_t initiated_ms; /* the server's clock */
};

struct s3_uploads {
    struct s3_upload *uploads;
    size_t count;
    bool more; /* go on after the last of them */
};
void s3_uploads_release(struct s3_uploads *uploads);

#endif
