/*
 * s3_options - the [storage.s3] section as plain values, filled by the composition root.
 *
 * Ownership: borrowed by whoever is given it, until that call returns; the S3 code copies what it keeps.
 * Units: milliseconds, bytes. A NULL string means the same as "".
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_OPTIONS_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_keys;

struct s3_options {
    const char *driver;        /* "sigv4" (default) or "libs3" */
    const char *endpoint;      /* "https://host[:port]"; "": Amazon's endpoint of the region */
    const char *region;        /* "": us-east-1 */
    const char *bucket;        /* must exist: it is never created */
    const char *prefix;        /* put before every key; "" or a path such as "pbx/blobs" */
    bool path_style;           /* https://host/bucket/key; else https://bucket.host/key */
    const char *cred_id;       /* "": AWS_ACCESS_KEY_ID and its companions, then cred_file */
    const char *cred_secret;   /* never logged */
    const char *session_token; /* never logged */
    const char *cred_file;     /* in the format of ~/.aws/credentials, section [default] */
    struct s3_keys *keys; /* shared with other clients, and outlives them; NULL: the client's own, from the above */
    const char *ca_file;  /* PEM; "": the system's */

    int64_t connect_timeout_ms;  /* 5 s */
    int64_t stall_timeout_ms;    /* no byte moved for so long ends an attempt: 30 s */
    int64_t complete_timeout_ms; /* the same while a multipart upload is put together: 5 min */
    int64_t retry_timeout_ms;    /* no new attempt later than this after the first: 30 s */
    unsigned retries;            /* at most so many more attempts; 0: bounded by the time alone */
    unsigned max_connections;    /* 64 */

    uint64_t part_size_bytes;  /* 8 MiB; at least 5 MiB */
    unsigned parallel_parts;   /* of one upload, at the same time: 4 */
    size_t memory_bytes;       /* for part buffers, of all uploads together: 256 MiB */
    bool unprobed;             /* open although the endpoint may lack what the store relies on: to check it */
    bool redirect;             /* downloads by presigned URL */
    int64_t presign_expiry_ms; /* 1 h */
};

/* The defaults above, every string "". */
struct s3_options s3_options_default(void);
/* How many of the connections may be streams (s3_client.h) at once. */
unsigned s3_streams_max(const struct s3_options *opts);

#endif
