/*
 * s3_environment - the S3 endpoint that the suites run against, as tests/integration names it in the environment:
 * BLOBD_TEST_S3_ENDPOINT, _BUCKET, _KEY, _SECRET, and _REGION and _DRIVER where they are not the usual ones.
 */
#ifndef BLOBD_TESTS_S3_ENVIRONMENT_H
#define BLOBD_TESTS_S3_ENVIRONMENT_H

#include "backends/s3/client/s3_client.h"

#include <stdlib.h>

static inline const char *s3_setting(const char *name, const char *otherwise)
{
    const char *v = getenv(name);
    return v && v[0] ? v : otherwise;
}

static inline struct s3_options s3_environment(void)
{
    struct s3_options o = s3_options_default();
    o.endpoint = s3_setting("BLOBD_TEST_S3_ENDPOINT", "");
    o.bucket = s3_setting("BLOBD_TEST_S3_BUCKET", "");
    o.cred_id = s3_setting("BLOBD_TEST_S3_KEY", "");
    o.cred_secret = s3_setting("BLOBD_TEST_S3_SECRET", "");
    o.region = s3_setting("BLOBD_TEST_S3_REGION", "us-east-1");
    o.driver = s3_setting("BLOBD_TEST_S3_DRIVER", "sigv4");
    return o;
}

#endif
