/*
 * redis_options - what the session store in Redis is told: sessions.redis.* as they stand in the configuration.
 *
 * Ownership: all texts are the caller's; whoever takes the options copies what it keeps, and borrows log.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_OPTIONS_H
#define BLOBD_BACKENDS_REDIS_REDIS_OPTIONS_H

#include <stdint.h>

struct logger;

struct redis_sessions_options {
    const char *url;         /* redis_config.h has the forms; may be NULL with sentinels */
    const char *sentinels;   /* "host:port …"; NULL or "": none */
    const char *master_name; /* as the sentinels call it */
    const char *user;        /* this and password: if not in url; may be NULL */
    const char *password;
    const char *prefix;   /* of every key */
    unsigned connections; /* at most so many for operations (the store's thread has two more) */
    int64_t connect_timeout_ms, command_timeout_ms;
    int64_t node_ttl_ms; /* how long a node that says nothing is taken for alive */
    struct logger *log;  /* may be NULL */
};

#endif
