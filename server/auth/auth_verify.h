/*
 * auth_verify - asks the PBX whether a bearer is valid: a GET of one URL with the client's own Authorization header.
 * 2xx is yes, 401 and 403 are no, anything else is no answer. Answers are remembered, under the bearer's SHA-256, for a
 * set time each; the memory is bounded.
 *
 * The PBX may say whose the bearer is, in the header X-Auth-Identity of its 2xx. Where it does not, each bearer is an
 * identity of its own, named by its hash: a bearer that is renewed then does not see what the old one made. A name that
 * cannot be used (empty, longer than OWNER_MAX, not UTF-8, with control characters, repeated) is neither cut nor
 * overlooked, but no answer. Nobody is an admin by this way.
 *
 * Threads: any; verifier_ask() blocks, at most for the time-out. Ownership: strings are copied.
 */
#ifndef BLOBD_SERVER_AUTH_AUTH_VERIFY_H
#define BLOBD_SERVER_AUTH_AUTH_VERIFY_H

#include "core/digest.h"
#include "core/identity.h"
#include "server/auth/auth_options.h"

struct logger;
struct metrics;

struct verifier;

enum blob_status verifier_new(const struct auth_options *opt, struct logger *log, struct metrics *metrics,
                              struct verifier **out, struct blob_error *err) BLOB_MUST_CHECK;
void verifier_free(struct verifier *v); /* NULL is fine */

enum verifier_answer { VERIFIER_YES, VERIFIER_NO, VERIFIER_UNKNOWN, VERIFIER_UNUSABLE };

/* From memory. UNKNOWN: not asked, or too long ago. who is set on YES. *renew (may be NULL) is set where that ends soon
 * and is to be asked for again: once a while. */
enum verifier_answer verifier_recall(struct verifier *v, const struct digest *key, struct identity *who, bool *renew);
/* Asks, and remembers. UNKNOWN: no answer, or too many questions under way. UNUSABLE: a yes with a name that cannot be
 * used. Both are logged, and asked again the next time. client: the address of who shows the bearer. again: to renew
 * what is remembered; nothing waits for it. */
enum verifier_answer verifier_ask(struct verifier *v, const char *authorization, const struct digest *key,
                                  const char *client, bool again, struct identity *who);
void verifier_forget(struct verifier *v);

#endif
