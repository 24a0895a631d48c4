/*
 * s3_credentials - the key pair, from the first place that has one: the configuration, the environment
 * (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), or a file in the format of ~/.aws/credentials.
 *
 * Threads: load at start only (it reads the environment). Ownership: the struct owns its strings; release wipes them.
 * Errors: INVALID with a text that names what is missing, never a value.
 */
#ifndef BLOBD_BACKENDS_S3_CREDENTIALS_H
#define BLOBD_BACKENDS_S3_CREDENTIALS_H

#include "backends/s3_options.h"
#include "core/status.h"

struct s3_credentials {
    char *id;
    char *secret;
    char *token; /* "" without */
};

enum blob_status s3_credentials_load(const struct s3_options *opts, struct s3_credentials *out,
                                     struct blob_error *err) BLOB_MUST_CHECK;
void s3_credentials_release(struct s3_credentials *c);

#endif
