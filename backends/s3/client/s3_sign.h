/*
 * s3_sign - AWS Signature Version 4 for S3, as pure functions of their arguments.
 *
 * Threads: any. Ownership: arguments are borrowed; what is given is freed with s3_signed_release() or free().
 * Errors: NO_MEMORY, and INVALID for a time that has no calendar date.
 * Source: Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header" and "Using Query
 * Parameters".
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_SIGN_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_SIGN_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

#define S3_UNSIGNED_PAYLOAD "UNSIGNED-PAYLOAD"
#define S3_EMPTY_SHA256     "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct s3_sign_key {
    const char *id;
    const char *secret;
    const char *token; /* of a session; NULL or "" without */
    const char *region;
};

struct s3_pair {
    const char *name;
    const char *value;
};

struct s3_signable {
    const char *method;
    const char *host;            /* without the default port */
    const char *path;            /* unencoded; begins with '/' */
    const struct s3_pair *query; /* unencoded, any order */
    size_t query_count;
    const struct s3_pair *headers; /* besides host, x-amz-date, x-amz-content-sha256 and x-amz-security-token */
    size_t header_count;
    const char *payload; /* hex SHA-256 of the body, or S3_UNSIGNED_PAYLOAD */
};

struct s3_signed {
    char date[20];       /* the value of x-amz-date */
    char *target;        /* encoded path, and "?query" where there is one: to be sent exactly so */
    char *authorization; /* the value of Authorization */
};

/* At most 16 query parameters and 16 headers. now_s: Unix time. Gives *out. */
enum blob_status s3_sign(const struct s3_sign_key *key, const struct s3_signable *req, int64_t now_s,
                         struct s3_signed *out) BLOB_MUST_CHECK;
void s3_signed_release(struct s3_signed *s);

/* A presigned target: path and query, the signature in it. req->payload is not looked at. Gives *target. */
enum blob_status s3_sign_url(const struct s3_sign_key *key, const struct s3_signable *req, int64_t now_s,
                             int64_t expiry_s, char **target) BLOB_MUST_CHECK;

#endif
