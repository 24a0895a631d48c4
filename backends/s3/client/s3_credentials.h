/*
 * s3_credentials - one key pair, and where those that need no network come from: the configuration, the environment
 * (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), a file in the format of ~/.aws/credentials.
 *
 * Which pair is used, and for how long, s3_keys decides.
 * Threads: any; a pair does not change. Ownership: held by counting; the last release wipes and frees it. Units:
 * milliseconds since the epoch. Errors: INVALID with a text that names what is missing, never a value.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_CREDENTIALS_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_CREDENTIALS_H

#include "core/status.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct s3_credentials {
    char *id;
    char *secret;
    char *token;        /* "" without */
    int64_t expires_ms; /* 0: never */
    atomic_uint holds;
};

/* Copies all; where: for the texts of errors. Gives *out, held once. */
enum blob_status s3_credentials_new(const char *id, const char *secret, const char *token, int64_t expires_ms,
                                    const char *where, struct s3_credentials **out,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* The section [default] of such a file. */
enum blob_status s3_credentials_from_file(const char *path, struct s3_credentials **out,
                                          struct blob_error *err) BLOB_MUST_CHECK;
bool s3_credentials_equal(const struct s3_credentials *a, const struct s3_credentials *b);
void s3_credentials_hold(struct s3_credentials *c);
void s3_credentials_release(struct s3_credentials *c); /* NULL is fine */

#endif
