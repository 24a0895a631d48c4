/*
 * s3_cloud_keys - credentials that a cloud hands to what runs in it, as AWS's own tools find them: by a web identity
 * (AssumeRoleWithWebIdentity with a token file), from a container's agent, from an instance's metadata (IMDSv2).
 *
 * Threads: find at start only (it reads the environment); fetch from any, one at a time. Ownership: the struct owns its
 * texts. Errors: INVALID for settings that make no sense, UNAVAILABLE where nobody answers or no, never with a secret.
 * Source: AWS SDKs and Tools Reference Guide, "Standardized credential providers"; AWS STS API Reference; EC2 User
 * Guide, "Use IMDS".
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_CLOUD_KEYS_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_CLOUD_KEYS_H

#include "backends/s3/client/s3_credentials.h"
#include "backends/s3/client/s3_options.h"
#include "backends/s3/client/s3_retry.h"

enum s3_cloud_kind { S3_CLOUD_NONE, S3_CLOUD_WEB_IDENTITY, S3_CLOUD_CONTAINER, S3_CLOUD_INSTANCE };

struct s3_cloud;

/* The first that the environment tells of. NOT_FOUND: none; the metadata of an instance is only asked where the
 * endpoint is Amazon's, or AWS_EC2_METADATA_SERVICE_ENDPOINT names it. Opens nothing on the network. Gives *out. */
enum blob_status s3_cloud_find(const struct s3_options *opts, struct s3_gate *gate, struct s3_cloud **out,
                               struct blob_error *err) BLOB_MUST_CHECK;
void s3_cloud_free(struct s3_cloud *c); /* NULL is fine */
/* For texts: "the instance's metadata". */
const char *s3_cloud_name(const struct s3_cloud *c);
enum blob_status s3_cloud_fetch(struct s3_cloud *c, struct s3_credentials **out,
                                struct blob_error *err) BLOB_MUST_CHECK;

#endif
