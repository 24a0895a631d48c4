/*
 * auth - the three ways behind one question. The tokens are replaced as a whole on reload: readers hold a read lock for
 * the length of one search.
 */
#include "server/auth/auth.h"

#include "core/log.h"
#include "server/auth/auth_tokens.h"
#include "server/auth/auth_verify.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BEARER_MAX 8192

struct auth {
    enum auth_mode mode;
    struct logger *log;
    char *tokens_file;     /* the reloading thread's */
    pthread_rwlock_t lock; /* tokens */
    struct token_list *tokens;
    struct verifier *verifier;
};

/* The bearer's hash; false where the header is not "Bearer" and one word of printable ASCII. */
static bool bearer_hash(const char *authorization, struct digest *out)
{
    static const char scheme[] = "Bearer";
    size_t skip = sizeof scheme - 1;
    if (authorization == NULL || strncasecmp(authorization, scheme, skip) != 0 || authorization[skip] != ' ')
        return false;
    const char *bearer = authorization + skip + strspn(authorization + skip, " ");
    size_t len = 0;
    while (bearer[len] > ' ' && bearer[len] < 0x7f)
        len++;
    if (len == 0 || len > BEARER_MAX || bearer[len + strspn(bearer + len, " \t")] != '\0')
        return false;
    struct hash hash;
    hash_init(&hash);
    hash_update(&hash, bearer, len);
    hash_peek(&hash, out);
    return true;
}

static enum auth_verdict refuse(struct api_error *err, const char *why)
{
    api_fail(err, API_UNAUTHORIZED, "%s", why);
    return AUTH_REFUSED;
}

static enum auth_verdict refuse_bearer(struct api_error *err)
{
    return refuse(err, "the bearer token is not valid");
}

static enum auth_verdict check_tokens(struct auth *a, const struct digest *hash, struct identity *who,
                                      struct api_error *err)
{
    pthread_rwlock_rdlock(&a->lock);
    bool found = token_list_find(a->tokens, hash, who);
    pthread_rwlock_unlock(&a->lock);
    return found ? AUTH_GRANTED : refuse_bearer(err);
}

enum auth_verdict auth_check(struct auth *a, const char *authorization, struct identity *who, struct api_error *err)
{
    struct digest hash;
    if (a->mode == AUTH_NONE) {
        *who = (struct identity){0};
        return AUTH_GRANTED;
    }
    if (!bearer_hash(authorization, &hash))
        return refuse(err, "this needs a bearer token: Authorization: Bearer <token>");
    if (a->mode == AUTH_TOKENS)
        return check_tokens(a, &hash, who, err);
    bool renew = false;
    switch (verifier_recall(a->verifier, &hash, who, &renew)) {
    case VERIFIER_YES:
        return renew ? AUTH_RENEW : AUTH_GRANTED;
    case VERIFIER_NO:
        return refuse_bearer(err);
    case VERIFIER_UNKNOWN:
    case VERIFIER_UNUSABLE:
        break;
    }
    return AUTH_UNDECIDED;
}

void auth_renew(struct auth *a, const char *authorization, const char *client)
{
    struct digest hash;
    struct identity who;
    if (bearer_hash(authorization, &hash))
        (void)verifier_ask(a->verifier, authorization, &hash, client, true, &who);
}

void auth_ask(struct auth *a, const char *authorization, const char *client, struct identity *who,
              struct api_error *err)
{
    struct digest hash;
    if (!bearer_hash(authorization, &hash)) {
        refuse_bearer(err);
        return;
    }
    switch (verifier_ask(a->verifier, authorization, &hash, client, false, who)) {
    case VERIFIER_YES:
        err->code = API_OK;
        break;
    case VERIFIER_NO:
        refuse_bearer(err);
        break;
    case VERIFIER_UNKNOWN:
        api_fail(err, API_UNAVAILABLE, "the bearer token cannot be checked just now; try again");
        err->retry_after_s = 2;
        break;
    case VERIFIER_UNUSABLE:
        api_fail(err, API_UNAVAILABLE, "the PBX names an identity that cannot be used; the log tells its operator why");
        err->retry_after_s = 2;
        break;
    }
}

/* It may be meant so, and may be a file that was cut short: the operator is to hear of it. In the reloading thread. */
static void warn_of_none(const struct auth *a)
{
    if (token_list_count(a->tokens) == 0)
        log_line(a->log, LOG_WARN, NULL, TOKENS_NONE, a->tokens_file);
}

enum blob_status auth_new(const struct auth_options *opt, struct logger *log, struct metrics *metrics,
                          struct auth **out, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    struct auth *a = calloc(1, sizeof *a);
    if (a == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "auth");
    a->mode = opt->mode;
    a->log = log;
    pthread_rwlock_init(&a->lock, NULL);
    if (opt->mode == AUTH_TOKENS) {
        st = token_list_load(opt->tokens_file, &a->tokens, err);
        a->tokens_file = strdup(opt->tokens_file);
        if (st == BLOB_OK && a->tokens_file == NULL)
            st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "auth");
        if (st == BLOB_OK)
            warn_of_none(a);
    } else if (opt->mode == AUTH_VERIFY) {
        st = verifier_new(opt, log, metrics, &a->verifier, err);
    }
    if (st != BLOB_OK) {
        auth_free(a);
        return st;
    }
    *out = a;
    return BLOB_OK;
}

void auth_free(struct auth *a)
{
    if (a == NULL)
        return;
    token_list_free(a->tokens);
    verifier_free(a->verifier);
    free(a->tokens_file);
    pthread_rwlock_destroy(&a->lock);
    free(a);
}

enum blob_status auth_reload(struct auth *a, const char *tokens_file, struct blob_error *err)
{
    if (a->verifier != NULL)
        verifier_forget(a->verifier);
    if (a->mode != AUTH_TOKENS)
        return BLOB_OK;
    struct token_list *fresh, *old;
    char *path = strdup(tokens_file != NULL ? tokens_file : a->tokens_file);
    if (path == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "auth");
    enum blob_status st = token_list_load(path, &fresh, err);
    if (st != BLOB_OK) {
        free(path);
        return st;
    }
    free(a->tokens_file);
    a->tokens_file = path;
    pthread_rwlock_wrlock(&a->lock);
    old = a->tokens;
    a->tokens = fresh;
    pthread_rwlock_unlock(&a->lock);
    token_list_free(old);
    warn_of_none(a);
    return BLOB_OK;
}
