/*
 * s3_error - what an S3 refusal means: our status, whether another attempt makes sense, what the operator can do.
 *
 * Both drivers judge by it, so that an error reads the same whichever one met it.
 * Threads: any. Ownership: plain values. Source: Amazon S3 API Reference, "Error responses"; the codes that RGW and
 * MinIO add are in the table.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_ERROR_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_ERROR_H

#include "core/status.h"

/* An answer that is not a success. Empty strings: not told. */
struct s3_refusal {
    int http_status;
    char code[64];
    char region[64]; /* where the bucket is */
};

/* What was being done, for the text. */
struct s3_errand {
    const char *verb; /* "PUT" */
    const char *key;  /* NULL: the bucket itself */
    const char *bucket;
    const char *endpoint; /* host */
    const char *region;
    bool create_only; /* If-None-Match: * was sent */
};

/* Fills err and returns the status, never OK; *retry: the same request may succeed in a while. */
enum blob_status s3_refusal_judge(const struct s3_refusal *refusal, const struct s3_errand *errand, bool *retry,
                                  struct blob_error *err);

/* Is it the key pair that is refused, so that another may help? */
bool s3_refusal_is_of_keys(const struct s3_refusal *refusal);

#endif
