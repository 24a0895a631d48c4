/*
 * redis_config - where Redis is and how to log in: sessions.redis.* understood and checked.
 *
 *     redis://[[user]:password@]host[:port][/db]     unix:///path/to/socket[?db=N]
 *     sentinels: "host:port host:port …" with a master's name; url then only adds user, password and db
 *
 * User, password and path may be percent-encoded. TLS (rediss://) is refused: hiredis 0.14 has none.
 *
 * Threads: plain values, read by any once made. Ownership: owns copies of its texts. Errors: INVALID with a text that
 * never holds the password.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_CONFIG_H
#define BLOBD_BACKENDS_REDIS_REDIS_CONFIG_H

#include "backends/redis/redis_options.h"
#include "core/status.h"

#include <stddef.h>

#define REDIS_SENTINELS_MAX 9

struct redis_endpoint {
    char host[256];   /* "" with a socket */
    char socket[108]; /* "" with a host */
    int port;
};

struct redis_config {
    struct redis_endpoint endpoint; /* not used with sentinels */
    struct redis_endpoint sentinels[REDIS_SENTINELS_MAX];
    unsigned sentinel_count;
    char master_name[128];
    char user[128];     /* "": the default user */
    char password[256]; /* "": none is sent */
    char prefix[64];
    unsigned db;
    unsigned connections;
    int64_t connect_timeout_ms, command_timeout_ms;
};

enum blob_status redis_config_parse(const struct redis_sessions_options *opt, struct redis_config *out,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* "host:port" or the socket's path, for texts. */
void redis_endpoint_text(const struct redis_endpoint *at, char *out, size_t size);
bool redis_endpoint_same(const struct redis_endpoint *a, const struct redis_endpoint *b);

#endif
