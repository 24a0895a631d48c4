/*
 * auth - who sent a request, by its bearer: an opaque string, checked against a file of hashed tokens, or by asking the
 * PBX, or not at all.
 *
 * A bearer is never kept or compared as such: its SHA-256 is, in constant time. What can be decided from memory is
 * decided on the loop by auth_check(); only a bearer the PBX has not been asked about lately needs a worker, for
 * auth_ask().
 *
 * Threads: any; auth_ask and auth_reload may block. Ownership: opt and its strings are copied; the logger is borrowed.
 * Errors: a bad tokens file names file and line; on reload the old tokens stay.
 * Source: RFC 6750 (sections 2.1, 3), RFC 7235.
 */
#ifndef BLOBD_SERVER_AUTH_AUTH_H
#define BLOBD_SERVER_AUTH_AUTH_H

#include "core/api_error.h"
#include "core/files/file_catalog.h"

struct auth;
struct logger;
struct metrics;

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

/* May this be an identity's name: 1 to OWNER_MAX bytes of UTF-8 without control characters, which is what records hold?
 * NULL, or why not. Nothing else is cut or mended into one: what an identity once made is found by its whole name
 * alone, and two long names may begin alike. */
const char *auth_name_fault(const char *name, size_t len);

/* metrics may be NULL. */
enum blob_status auth_new(const struct auth_options *opt, struct logger *log, struct metrics *metrics,
                          struct auth **out, struct blob_error *err) BLOB_MUST_CHECK;
void auth_free(struct auth *a); /* NULL is fine */
/* HUP: reads the tokens, from where they are now (NULL: from where they were), and forgets what the PBX has said. On
 * failure the old tokens stay, and where they are from. One thread at a time. */
enum blob_status auth_reload(struct auth *a, const char *tokens_file, struct blob_error *err) BLOB_MUST_CHECK;

enum auth_verdict {
    AUTH_GRANTED,   /* who is set */
    AUTH_RENEW,     /* the same, and auth_renew() is to be called on a worker: what is remembered ends soon */
    AUTH_REFUSED,   /* err is set: 401 */
    AUTH_UNDECIDED, /* call auth_ask() on a worker */
};

/* authorization: the header's value, or NULL. Does not block. */
enum auth_verdict auth_check(struct auth *a, const char *authorization, struct identity *who, struct api_error *err);
/* client: its address, as text. Granted: who is set and err->code is API_OK. Else err says 401, or 503 where the PBX
 * does not tell. */
void auth_ask(struct auth *a, const char *authorization, const char *client, struct identity *who,
              struct api_error *err);
void auth_renew(struct auth *a, const char *authorization, const char *client);

#endif
