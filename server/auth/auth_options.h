/*
 * auth_options - what authentication is told: [auth] as it stands in the configuration.
 *
 * Units: milliseconds. Ownership: all texts are the caller's; whoever takes the options copies what it keeps.
 */
#ifndef BLOBD_SERVER_AUTH_AUTH_OPTIONS_H
#define BLOBD_SERVER_AUTH_AUTH_OPTIONS_H

#include <stdint.h>

enum auth_mode { AUTH_TOKENS, AUTH_VERIFY, AUTH_NONE };

struct auth_options {
    enum auth_mode mode;
    const char *tokens_file;    /* AUTH_TOKENS */
    const char *verify_url;     /* AUTH_VERIFY */
    const char *verify_ca_file; /* NULL: the system's */
    int64_t verify_timeout_ms;
    int64_t verify_cache_ms; /* how long a yes is believed, and a no */
    int64_t verify_negative_cache_ms;
    unsigned verify_parallel; /* questions under way at once, so that a slow PBX cannot hold every worker */
};

#endif
