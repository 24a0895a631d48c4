/*
 * s3_endpoint - the endpoint URL, taken apart once at start, so that a typing error is told then and by its setting.
 */
#include "backends/s3/client/s3_endpoint.h"

#include "core/text/parse.h"

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

/* ---- whose host is it? ---- */

/* The name without the port; *port is what follows it, "" or ":port". */
static size_t name_len(const char *host, const char **port)
{
    size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    *port = host + len;
    return len;
}

/* A host's name, without the bucket before it. */
static void bare_name(const char *host, const char *bucket, char out[S3_HOST_MAX])
{
    const char *port;
    size_t len = name_len(host, &port), bucket_len = strlen(bucket);
    if (len > bucket_len + 1 && strncasecmp(host, bucket, bucket_len) == 0 && host[bucket_len] == '.') {
        host += bucket_len + 1;
        len -= bucket_len + 1;
    }
    snprintf(out, S3_HOST_MAX, "%.*s", (int)len, host);
}

/* What follows "s3." or "s3-WORD."; NULL: it is not called so. */
static const char *after_s3(const char *name)
{
    if (strncmp(name, "s3", 2) != 0 || (name[2] != '.' && name[2] != '-'))
        return NULL;
    const char *dot = strchr(name, '.');
    return dot ? dot + 1 : NULL;
}

static const char *amazon_domain(const char *name)
{
    static const char *const domains[] = {"amazonaws.com", "amazonaws.com.cn"};
    size_t len = strlen(name);
    for (size_t i = 0; i < sizeof domains / sizeof domains[0]; i++) {
        size_t n = strlen(domains[i]);
        if (len > n && name[len - n - 1] == '.' && strcmp(name + len - n, domains[i]) == 0)
            return domains[i];
    }
    return NULL;
}

/* The domain whose regions are one service, of at least two labels; NULL: there is none. */
static const char *domain_of_regions(const char *own, const char *region)
{
    const char *amazon = amazon_domain(own), *rest = after_s3(own);
    size_t len = strlen(region);
    if (amazon || !rest)
        return rest ? amazon : NULL;
    if (len == 0 || strncmp(rest, region, len) != 0 || rest[len] != '.')
        return NULL;
    return strchr(rest + len + 1, '.') ? rest + len + 1 : NULL;
}

/* s3.DOMAIN, s3.REGION.DOMAIN, s3-REGION.DOMAIN, s3.dualstack.REGION.DOMAIN */
static bool is_region_of(const char *name, const char *domain)
{
    const char *rest = after_s3(name);
    for (int labels = 0; rest && labels <= 2; labels++) {
        if (strcmp(rest, domain) == 0)
            return true;
        const char *dot = strchr(rest, '.');
        rest = dot ? dot + 1 : NULL;
    }
    return false;
}

bool s3_endpoint_is_ours(const struct s3_endpoint *own, const char *bucket, const char *region,
                         const struct s3_endpoint *to)
{
    const char *own_port, *to_port;
    char own_name[S3_HOST_MAX], to_name[S3_HOST_MAX];
    name_len(own->host, &own_port);
    name_len(to->host, &to_port);
    if ((own->tls && !to->tls) || (own->tls == to->tls && strcmp(own_port, to_port) != 0))
        return false;
    bare_name(own->host, bucket, own_name);
    bare_name(to->host, bucket, to_name);
    if (strcmp(own_name, to_name) == 0)
        return true;
    const char *domain = domain_of_regions(own_name, region);
    return domain && is_region_of(to_name, domain);
}

void s3_endpoint_base(const struct s3_endpoint *e, char *out, size_t size)
{
    snprintf(out, size, "%s://%s", e->tls ? "https" : "http", e->host);
}
