/*
 * s3_credentials - half a pair is an error, never a reason to look further: an operator who set cred_id and forgot
 * cred_secret must not find blobd working with someone else's key.
 */
#include "backends/s3_credentials.h"

#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#define SECRET_MAX 4096 /* session tokens are the longest, about 2 KB */

static const char *or_empty(const char *s)
{
    return s ? s : "";
}

static enum blob_status take(const char *id, const char *secret, const char *token, const char *where,
                             struct s3_credentials *out, struct blob_error *err)
{
    if (!id[0] || !secret[0])
        return blob_fail(err, BLOB_E_INVALID, 0, "S3 credentials from %s: %s is missing", where,
                         id[0] ? "the secret" : "the key id");
    if (strlen(id) > 128 || strlen(secret) > SECRET_MAX || strlen(token) > SECRET_MAX || strpbrk(id, "\r\n /") ||
        strpbrk(token, "\r\n"))
        return blob_fail(err, BLOB_E_INVALID, 0, "S3 credentials from %s: malformed", where);
    struct s3_credentials c = {strdup(id), strdup(secret), strdup(token)};
    if (!c.id || !c.secret || !c.token) {
        s3_credentials_release(&c);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    }
    *out = c;
    return BLOB_OK;
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

static enum blob_status from_file(const char *path, struct s3_credentials *out, struct blob_error *err)
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
        st = take(v->id, v->secret, v->token, "storage.s3.cred_file", out, err);
    explicit_bzero(v, sizeof *v);
    free(v);
    return st;
}

enum blob_status s3_credentials_load(const struct s3_options *opts, struct s3_credentials *out, struct blob_error *err)
{
    const char *id = or_empty(opts->cred_id), *secret = or_empty(opts->cred_secret);
    if (id[0] || secret[0])
        return take(id, secret, or_empty(opts->session_token), "storage.s3.cred_id and cred_secret", out, err);
    id = or_empty(getenv("AWS_ACCESS_KEY_ID"));
    secret = or_empty(getenv("AWS_SECRET_ACCESS_KEY"));
    if (id[0] || secret[0])
        return take(id, secret, or_empty(getenv("AWS_SESSION_TOKEN")), "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                    out, err);
    if (opts->cred_file && opts->cred_file[0])
        return from_file(opts->cred_file, out, err);
    return blob_fail(err, BLOB_E_INVALID, 0,
                     "no S3 credentials: set storage.s3.cred_id and cred_secret, or cred_file, or AWS_ACCESS_KEY_ID "
                     "and AWS_SECRET_ACCESS_KEY");
}

static void wipe(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

void s3_credentials_release(struct s3_credentials *c)
{
    wipe(c->id);
    wipe(c->secret);
    wipe(c->token);
    *c = (struct s3_credentials){0};
}
