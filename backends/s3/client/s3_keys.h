/*
 * s3_keys - the key pair to sign with now: where it comes from, when it is asked for again, and whether S3 takes it.
 *
 * The first place that has any is the one: storage.s3.cred_id and cred_secret; AWS_ACCESS_KEY_ID and its companions;
 * cred_file; then s3_cloud_keys' three. Half a pair is an error, never a reason to look further: an operator who set
 * cred_id and forgot cred_secret must not find blobd working with someone else's key.
 * A pair that ends is renewed before: five minutes, or half its life; a file is read again when it has changed. Both
 * when S3 refuses the pair, and when s3_keys_reload() says so. A pair that cannot be renewed is used until its end.
 *
 * Threads: any; one asks, the others go on with the old pair while it is good, or wait. Ownership: a pair that was
 * given is held until s3_credentials_release(). All holds are returned before s3_keys_free(). Errors: INVALID
 * (settings), UNAVAILABLE (whoever hands them out does not answer, or the pair has ended).
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_KEYS_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_KEYS_H

#include "backends/s3/client/s3_credentials.h"
#include "backends/s3/client/s3_options.h"

struct logger;
struct s3_keys;

/* Gets the first pair. At start only: it reads the environment. log may be NULL. Gives *out. */
enum blob_status s3_keys_open(const struct s3_options *opts, struct logger *log, struct s3_keys **out,
                              struct blob_error *err) BLOB_MUST_CHECK;
void s3_keys_free(struct s3_keys *k); /* NULL is fine */
/* Ends a renewal under way; no other will begin. */
void s3_keys_cancel(struct s3_keys *k);
enum blob_status s3_keys_hold(struct s3_keys *k, struct s3_credentials **out, struct blob_error *err) BLOB_MUST_CHECK;
/* S3 has refused this pair (why: its advice, for the log): true when there is another now, so that it is worth asking
 * again. */
bool s3_keys_refused(struct s3_keys *k, const struct s3_credentials *used, const char *why);
/* S3 has taken the pair. */
void s3_keys_accepted(struct s3_keys *k);
/* On HUP: asks for the pair again. */
void s3_keys_reload(struct s3_keys *k);

#endif
