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
#include "core/identity.h"
#include "server/auth/auth_options.h"

struct auth;
struct logger;
struct metrics;

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
