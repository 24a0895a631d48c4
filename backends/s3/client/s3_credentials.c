/* s3_credentials - held by counting, since a request may still be under way with a pair that has been replaced. */
#include "backends/s3/client/s3_credentials.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_MAX 4096 /* session tokens are the longest, about 2 KB */

static void wipe(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

enum blob_status s3_credentials_new(const char *id, const char *secret, const char *token, int64_t expires_ms,
                                    const char *where, struct s3_credentials **out, struct blob_error *err)
{
    if (!id[0] || !secret[0])
        return blob_fail(err, BLOB_E_INVALID, 0, "S3 credentials from %s: %s is missing", where,
                         id[0] ? "the secret" : "the key id");
    if (strlen(id) > 128 || strlen(secret) > SECRET_MAX || strlen(token) > SECRET_MAX || strpbrk(id, "\r\n /") ||
        strpbrk(token, "\r\n"))
        return blob_fail(err, BLOB_E_INVALID, 0, "S3 credentials from %s: malformed", where);
    struct s3_credentials *c = calloc(1, sizeof *c);
    if (c) {
        c->id = strdup(id);
        c->secret = strdup(secret);
        c->token = strdup(token);
        c->expires_ms = expires_ms;
        atomic_init(&c->holds, 1);
    }
    if (!c || !c->id || !c->secret || !c->token) {
        s3_credentials_release(c);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    }
    *out = c;
    return BLOB_OK;
}

bool s3_credentials_equal(const struct s3_credentials *a, const struct s3_credentials *b)
{
    return strcmp(a->id, b->id) == 0 && strcmp(a->secret, b->secret) == 0 && strcmp(a->token, b->token) == 0;
}

void s3_credentials_hold(struct s3_credentials *c)
{
    atomic_fetch_add(&c->holds, 1);
}

void s3_credentials_release(struct s3_credentials *c)
{
    if (!c || atomic_fetch_sub(&c->holds, 1) > 1)
        return;
    wipe(c->id);
    wipe(c->secret);
    wipe(c->token);
    free(c);
}

struct file_values {
    char id[SECRET_MAX + 1], secret[SECRET_MAX + 1], token[SECRET_MAX + 1];
};

static int see_value(void *arg, const char *section, const char *name, const char *value)
{
    struct file_values *v = arg;
    char *slot = NULL;
    if (strcmp(section, "default") != 0 && section[0])
        return 1;
    if (strcmp(name, "aws_access_key_id") == 0)
        slot = v->id;
    else if (strcmp(name, "aws_secret_access_key") == 0)
        slot = v->secret;
    else if (strcmp(name, "aws_session_token") == 0)
        slot = v->token;
    if (slot && strlen(value) <= SECRET_MAX)
        memcpy(slot, value, strlen(value) + 1);
    return 1;
}

enum blob_status s3_credentials_from_file(const char *path, struct s3_credentials **out, struct blob_error *err)
{
    struct file_values *v = calloc(1, sizeof *v);
    if (!v)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    errno = 0;
    int rc = ini_parse(path, see_value, v);
    enum blob_status st;
    if (rc < 0)
        st = blob_fail(err, BLOB_E_INVALID, errno, "storage.s3.cred_file %.150s cannot be read", path);
    else if (rc > 0)
        st = blob_fail(err, BLOB_E_INVALID, 0, "storage.s3.cred_file %.150s: line %d is malformed", path, rc);
    else
        st = s3_credentials_new(v->id, v->secret, v->token, 0, "storage.s3.cred_file", out, err);
    explicit_bzero(v, sizeof *v);
    free(v);
    return st;
}
