/*
 * s3_endpoint - the endpoint URL, taken apart once at start, so that a typing error is told then and by its setting.
 */
#include "backends/s3_endpoint.h"

#include "core/parse.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "http://host[:port]" up to the path; *rest is what follows. */
static bool split(const char *url, bool *tls, char *host, size_t size, const char **rest)
{
    const char *at;
    if (strncasecmp(url, "https://", 8) == 0) {
        *tls = true;
        at = url + 8;
    } else if (strncasecmp(url, "http://", 7) == 0) {
        *tls = false;
        at = url + 7;
    } else {
        return false;
    }
    size_t len = strcspn(at, "/?#");
    if (len == 0 || len >= size)
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)at[i];
        if (!isalnum(c) && !strchr(".-:[]_", c))
            return false;
        host[i] = (char)tolower(c);
    }
    host[len] = '\0';
    const char *port = *tls ? ":443" : ":80";
    size_t port_len = strlen(port);
    if (len > port_len && strcmp(host + len - port_len, port) == 0)
        host[len - port_len] = '\0';
    *rest = at + len;
    return true;
}

static bool bucket_ok(const char *bucket)
{
    size_t len = strlen(bucket);
    if (len < 3 || len > 63)
        return false;
    for (const char *p = bucket; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            return false;
    }
    return true;
}

enum blob_status s3_endpoint_from_options(const struct s3_options *opts, struct s3_endpoint *out,
                                          struct blob_error *err)
{
    const char *bucket = opts->bucket ? opts->bucket : "";
    const char *region = opts->region && opts->region[0] ? opts->region : "us-east-1";
    if (!bucket_ok(bucket))
        return blob_fail(err, BLOB_E_INVALID, 0, "storage.s3.bucket \"%.64s\" is not a bucket name", bucket);

    char aws[128];
    snprintf(aws, sizeof aws, "https://s3.%.64s.amazonaws.com", region);
    const char *url = opts->endpoint && opts->endpoint[0] ? opts->endpoint : aws;
    struct s3_endpoint e = {0};
    char host[256];
    const char *rest;
    if (!split(url, &e.tls, host, sizeof host, &rest) || (*rest && strcmp(rest, "/") != 0))
        return blob_fail(err, BLOB_E_INVALID, 0,
                         "storage.s3.endpoint \"%.100s\" must be http(s)://host[:port], no path", url);
    if (opts->path_style) {
        snprintf(e.host, sizeof e.host, "%s", host);
        snprintf(e.path, sizeof e.path, "/%s", bucket);
    } else {
        snprintf(e.host, sizeof e.host, "%s.%s", bucket, host);
    }
    *out = e;
    return BLOB_OK;
}

/* Percent-decodes what stands before '?' or '#'. NULL without memory. */
static char *decoded_path(const char *text)
{
    size_t len = strcspn(text, "?#"), n = 0;
    char *path = malloc(len + 2);
    if (!path)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '%' && i + 2 < len && parse_hex_digit(text[i + 1]) >= 0 && parse_hex_digit(text[i + 2]) >= 0) {
            path[n++] = (char)(parse_hex_digit(text[i + 1]) * 16 + parse_hex_digit(text[i + 2]));
            i += 2;
        } else {
            path[n++] = text[i];
        }
    }
    if (n == 0)
        path[n++] = '/';
    path[n] = '\0';
    return path;
}

bool s3_endpoint_from_location(const char *location, const struct s3_endpoint *from, struct s3_endpoint *out,
                               char **path)
{
    struct s3_endpoint e = {0};
    const char *rest;
    if (!split(location, &e.tls, e.host, sizeof e.host, &rest) || (from->tls && !e.tls))
        return false;
    char *decoded = decoded_path(rest);
    if (!decoded)
        return false;
    *path = decoded;
    *out = e;
    return true;
}

void s3_endpoint_base(const struct s3_endpoint *e, char *out, size_t size)
{
    snprintf(out, size, "%s://%s", e->tls ? "https" : "http", e->host);
}
