/* redis_config - a small URL parser of its own: the forms are few, and a wrong one must be named exactly. */
#include "backends/redis/redis_config.h"

#include "core/text/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_PORT          6379
#define DEFAULT_SENTINEL_PORT 26379

void redis_endpoint_text(const struct redis_endpoint *at, char *out, size_t size)
{
    if (*at->socket)
        snprintf(out, size, "%s", at->socket);
    else
        snprintf(out, size, strchr(at->host, ':') ? "[%s]:%d" : "%s:%d", at->host, at->port);
}

bool redis_endpoint_same(const struct redis_endpoint *a, const struct redis_endpoint *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0 && strcmp(a->socket, b->socket) == 0;
}

/* Decodes %XX of text[0..len) into out. False: too long, or a bad escape. */
static bool decode(const char *text, size_t len, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)text[i];
        if (c == '%') {
            if (i + 2 >= len || parse_hex_digit(text[i + 1]) < 0 || parse_hex_digit(text[i + 2]) < 0)
                return false;
            c = parse_hex_digit(text[i + 1]) * 16 + parse_hex_digit(text[i + 2]);
            i += 2;
        }
        if (n + 1 >= size || c == 0)
            return false;
        out[n++] = (char)c;
    }
    out[n] = '\0';
    return true;
}

static bool number(const char *text, size_t len, long max, long *out)
{
    long v = 0;
    if (len == 0 || len > 5)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (text[i] - '0');
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}

/* "host", "host:port", "[v6]:port" */
static bool parse_host(const char *text, size_t len, int default_port, struct redis_endpoint *out)
{
    const char *host = text, *end = text + len, *colon;
    size_t host_len;
    long port = default_port;
    if (len > 0 && *text == '[') {
        const char *close = memchr(text, ']', len);
        if (!close)
            return false;
        host = text + 1;
        host_len = (size_t)(close - host);
        colon = close + 1;
    } else {
        colon = memchr(text, ':', len);
        colon = colon ? colon : end;
        host_len = (size_t)(colon - text);
    }
    if (colon < end && (*colon != ':' || !number(colon + 1, (size_t)(end - colon - 1), 65535, &port) || port == 0))
        return false;
    if (host_len == 0 || host_len >= sizeof out->host)
        return false;
    *out = (struct redis_endpoint){.port = (int)port};
    memcpy(out->host, host, host_len);
    return true;
}

static bool parse_login(const char *text, size_t len, struct redis_config *out)
{
    const char *colon = memchr(text, ':', len);
    if (!colon)
        return false;
    return decode(text, (size_t)(colon - text), out->user, sizeof out->user) &&
           decode(colon + 1, (size_t)(text + len - colon - 1), out->password, sizeof out->password);
}

static bool parse_tcp(const char *text, struct redis_config *out)
{
    long db = 0;
    const char *slash = strrchr(text, '/');
    const char *at = strrchr(text, '@');
    if (slash && at && slash < at) /* a slash of the password's */
        slash = NULL;
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    if (slash && slash[1] && !number(slash + 1, strlen(slash + 1), 99999, &db))
        return false;
    out->db = (unsigned)db;
    if (at && !parse_login(text, (size_t)(at - text), out))
        return false;
    const char *host = at ? at + 1 : text;
    return parse_host(host, len - (size_t)(host - text), DEFAULT_PORT, &out->endpoint);
}

static bool parse_socket(const char *text, struct redis_config *out)
{
    long db = 0;
    const char *query = strchr(text, '?');
    size_t len = query ? (size_t)(query - text) : strlen(text);
    if (query && (strncmp(query, "?db=", 4) != 0 || !number(query + 4, strlen(query + 4), 99999, &db)))
        return false;
    out->db = (unsigned)db;
    return len > 0 && *text == '/' && decode(text, len, out->endpoint.socket, sizeof out->endpoint.socket);
}

static enum blob_status parse_url(const char *url, struct redis_config *out, struct blob_error *err)
{
    static const char tcp[] = "redis://", local[] = "unix://", tls[] = "rediss://";
    if (strncmp(url, tls, sizeof tls - 1) == 0)
        return blob_fail(
            err, BLOB_E_INVALID, 0,
            "sessions.redis.url: rediss:// is not supported (the client library has no TLS): use a private "
            "network, a unix socket or a tunnel");
    bool ok = false;
    if (strncmp(url, tcp, sizeof tcp - 1) == 0)
        ok = parse_tcp(url + sizeof tcp - 1, out);
    else if (strncmp(url, local, sizeof local - 1) == 0)
        ok = parse_socket(url + sizeof local - 1, out);
    return ok ? BLOB_OK
              : blob_fail(err, BLOB_E_INVALID, 0,
                          "sessions.redis.url is not of the form redis://[[user]:password@]host[:port][/db] or "
                          "unix:///path[?db=N]");
}

static enum blob_status parse_sentinels(const char *text, struct redis_config *out, struct blob_error *err)
{
    static const char separators[] = " \t,";
    for (text += strspn(text, separators); *text; text += strspn(text, separators)) {
        size_t len = strcspn(text, separators);
        if (out->sentinel_count == REDIS_SENTINELS_MAX)
            return blob_fail(err, BLOB_E_INVALID, 0, "sessions.redis.sentinels: more than %d", REDIS_SENTINELS_MAX);
        if (!parse_host(text, len, DEFAULT_SENTINEL_PORT, &out->sentinels[out->sentinel_count]))
            return blob_fail(err, BLOB_E_INVALID, 0, "sessions.redis.sentinels: \"%.*s\" is not host:port", (int)len,
                             text);
        out->sentinel_count++;
        text += len;
    }
    return BLOB_OK;
}

static bool given(const char *text)
{
    return text && *text;
}

/* Copies a text that must fit. */
static enum blob_status copy_text(const char *text, char *out, size_t size, const char *key, struct blob_error *err)
{
    if (!given(text))
        return BLOB_OK;
    if ((size_t)snprintf(out, size, "%s", text) >= size)
        return blob_fail(err, BLOB_E_INVALID, 0, "%s is too long", key);
    return BLOB_OK;
}

enum blob_status redis_config_parse(const struct redis_sessions_options *opt, struct redis_config *out,
                                    struct blob_error *err)
{
    struct redis_config c = {.connections = opt->connections,
                             .connect_timeout_ms = opt->connect_timeout_ms,
                             .command_timeout_ms = opt->command_timeout_ms};
    enum blob_status st = BLOB_OK;
    if (given(opt->url))
        st = parse_url(opt->url, &c, err);
    if (st == BLOB_OK && given(opt->sentinels))
        st = parse_sentinels(opt->sentinels, &c, err);
    if (st == BLOB_OK)
        st = copy_text(opt->master_name, c.master_name, sizeof c.master_name, "sessions.redis.master_name", err);
    if (st == BLOB_OK)
        st = copy_text(opt->user, c.user, sizeof c.user, "sessions.redis.username", err);
    if (st == BLOB_OK)
        st = copy_text(opt->password, c.password, sizeof c.password, "sessions.redis.password", err);
    if (st == BLOB_OK)
        st = copy_text(opt->prefix, c.prefix, sizeof c.prefix, "sessions.redis.key_prefix", err);
    if (st != BLOB_OK)
        return st;
    if (!given(opt->url) && c.sentinel_count == 0)
        return blob_fail(err, BLOB_E_INVALID, 0, "sessions.redis.url or sessions.redis.sentinels is needed");
    if (c.sentinel_count > 0 && !*c.master_name)
        return blob_fail(err, BLOB_E_INVALID, 0, "sessions.redis.master_name is needed beside sentinels");
    if (*c.user && !*c.password)
        return blob_fail(err, BLOB_E_INVALID, 0, "sessions.redis: a user needs a password");
    if (strpbrk(c.prefix, "{}"))
        return blob_fail(err, BLOB_E_INVALID, 0, "sessions.redis.key_prefix must not hold braces");
    *out = c;
    return BLOB_OK;
}
