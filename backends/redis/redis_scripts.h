/*
 * redis_scripts - the Lua scripts, each one atomic change of what the nodes share, and their SHA-1 names.
 *
 * Threads: constants; redis_script_sha() from any. Source: https://redis.io/docs/manual/programmability/eval-intro/
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_SCRIPTS_H
#define BLOBD_BACKENDS_REDIS_REDIS_SCRIPTS_H

#define REDIS_SHA_CHARS 40

enum redis_script {
    REDIS_SCRIPT_REPLACE,
    REDIS_SCRIPT_LEASE,
    REDIS_SCRIPT_JOIN,
    REDIS_SCRIPT_INDEX_PUT,
    REDIS_SCRIPT_INDEX_REMOVE,
    REDIS_SCRIPT_INDEX_TEXT,
    REDIS_SCRIPT_INDEX_WHOLE,
    REDIS_SCRIPT_INDEX_BEAT,
    REDIS_SCRIPT_INDEX_SWEEP,
    REDIS_SCRIPT_INDEX_END,
    REDIS_SCRIPT_COUNT,
    REDIS_SCRIPT_NONE = REDIS_SCRIPT_COUNT
};

const char *redis_script_text(enum redis_script script);
/* As SCRIPT LOAD would answer. */
void redis_script_sha(enum redis_script script, char out[REDIS_SHA_CHARS + 1]);

#endif
