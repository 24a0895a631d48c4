/*
 * s3_endpoint - where requests go: scheme, host and the path before the key.
 *
 * Threads: plain values. Errors: INVALID, with a text that names the setting. Source: Amazon S3 User Guide, "Virtual
 * hosting of buckets"; RFC 3986 for the URL.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_ENDPOINT_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_ENDPOINT_H

#include "backends/s3/client/s3_options.h"
#include "core/status.h"

#define S3_HOST_MAX 336

struct s3_endpoint {
    bool tls;
    char host[S3_HOST_MAX]; /* "name" or "name:port", without the scheme's default port */
    char path[128];         /* unencoded: "" or "/bucket" */
};

/* The bucket's endpoint by the options: path style, or the bucket before the host. */
enum blob_status s3_endpoint_from_options(const struct s3_options *opts, struct s3_endpoint *out,
                                          struct blob_error *err) BLOB_MUST_CHECK;

/* A redirect's Location: its scheme and host, and the decoded path in *path (gives: free()). false: not one we follow,
 * which includes leaving https. */
bool s3_endpoint_from_location(const char *location, const struct s3_endpoint *from, struct s3_endpoint *out,
                               char **path);

/*
 * May a request, its credentials and its body go to `to`, because an answer says so? To the endpoint's own name, with
 * the bucket before it or not, and to the same service in another region: Amazon's own hosts, or where the endpoint is
 * s3.REGION.DOMAIN of the region that is set, another region's of that domain. Never to another port, but from http to
 * https; never from https to http.
 */
bool s3_endpoint_is_ours(const struct s3_endpoint *own, const char *bucket, const char *region,
                         const struct s3_endpoint *to);

/* "https://host"; size at least S3_HOST_MAX + 8. */
void s3_endpoint_base(const struct s3_endpoint *e, char *out, size_t size);

#endif
