/*
 * s3_cloud_keys - three ways to ask for a key pair, all a request or a few over the transport that S3 has: no proxy, no
 * redirects, bounded answers, TLS verified.
 *
 * Whoever answers in the place of the metadata could have us work with his keys, so its address is taken from nowhere
 * but the environment, and asked only where it can be expected. Tokens are read anew each time: those who issue them
 * rotate them.
 */
#include "backends/s3/client/s3_cloud_keys.h"

#include "backends/s3/client/s3_answer.h"
#include "backends/s3/client/s3_http.h"
#include "backends/s3/client/s3_xml.h"
#include "core/regular_file.h"
#include "core/text/bytebuf.h"

#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define URL_MAX            1024
#define TOKEN_MAX          16384
#define CONNECT_TIMEOUT_MS 2000
#define STALL_TIMEOUT_MS   5000
#define INSTANCE_ROOT      "/latest/meta-data/iam/security-credentials/"
#define INSTANCE_TOKEN     "/latest/api/token"

struct s3_cloud {
    enum s3_cloud_kind kind;
    struct s3_http *http;
    char url[URL_MAX];        /* of the service */
    char token_file[URL_MAX]; /* a web identity's, or a container's; "": none */
    char *token;              /* a container's, where it is given as such; NULL */
    char role[URL_MAX];       /* of a web identity */
    char session[65];
};

static const char *env(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

/* ---- which one ---- */

static enum blob_status set(char *out, size_t size, const char *name, const char *text, struct blob_error *err)
{
    int n = snprintf(out, size, "%s", text);
    if (n < 0 || (size_t)n >= size || strpbrk(text, "\r\n"))
        return blob_fail(err, BLOB_E_INVALID, 0, "%s is malformed", name);
    return BLOB_OK;
}

static enum blob_status set_up_web_identity(struct s3_cloud *c, const struct s3_options *opts, struct blob_error *err)
{
    const char *region = env("AWS_REGION")[0] ? env("AWS_REGION") : opts->region && opts->region[0] ? opts->region : "";
    const char *session = env("AWS_ROLE_SESSION_NAME"), *url = env("AWS_ENDPOINT_URL_STS");
    char regional[256];
    c->kind = S3_CLOUD_WEB_IDENTITY;
    if (!env("AWS_ROLE_ARN")[0] || !env("AWS_WEB_IDENTITY_TOKEN_FILE")[0])
        return blob_fail(err, BLOB_E_INVALID, 0, "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE must both be set");
    snprintf(regional, sizeof regional, "https://sts.%.64s%samazonaws.com%s", region, region[0] ? "." : "",
             strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    enum blob_status st = set(c->role, sizeof c->role, "AWS_ROLE_ARN", env("AWS_ROLE_ARN"), err);
    if (st == BLOB_OK)
        st = set(c->token_file, sizeof c->token_file, "AWS_WEB_IDENTITY_TOKEN_FILE", env("AWS_WEB_IDENTITY_TOKEN_FILE"),
                 err);
    if (st == BLOB_OK)
        st = set(c->session, sizeof c->session, "AWS_ROLE_SESSION_NAME", session[0] ? session : "blobd", err);
    if (st == BLOB_OK)
        st = set(c->url, sizeof c->url, "AWS_ENDPOINT_URL_STS", url[0] ? url : regional, err);
    if (st == BLOB_OK && c->url[strlen(c->url) - 1] == '/')
        c->url[strlen(c->url) - 1] = '\0';
    return st;
}

/* A container's token goes along: over plain http only to this machine and to the agents of ECS and EKS. */
static bool agent_may_be_asked(const char *url)
{
    static const char *const agents[] = {"127.0.0.1",     "localhost",      "[::1]",
                                         "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    if (strncasecmp(url, "https://", 8) == 0)
        return true;
    if (strncasecmp(url, "http://", 7) != 0)
        return false;
    for (size_t i = 0; i < sizeof agents / sizeof agents[0]; i++) {
        size_t n = strlen(agents[i]);
        if (strncasecmp(url + 7, agents[i], n) == 0 && (!url[7 + n] || strchr(":/?", url[7 + n])))
            return true;
    }
    return false;
}

static enum blob_status set_up_container(struct s3_cloud *c, struct blob_error *err)
{
    const char *path = env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), *url = env("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    char ecs[URL_MAX];
    c->kind = S3_CLOUD_CONTAINER;
    if (path[0]) {
        int n = snprintf(ecs, sizeof ecs, "http://169.254.170.2%s%s", path[0] == '/' ? "" : "/", path);
        url = n > 0 && (size_t)n < sizeof ecs ? ecs : "";
    }
    if (!agent_may_be_asked(url))
        return blob_fail(
            err, BLOB_E_INVALID, 0,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or http to this machine or the agent of ECS "
            "or EKS");
    enum blob_status st = set(c->url, sizeof c->url, "AWS_CONTAINER_CREDENTIALS_FULL_URI", url, err);
    if (st == BLOB_OK)
        st = set(c->token_file, sizeof c->token_file, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                 env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"), err);
    if (st == BLOB_OK && !c->token_file[0] && !(c->token = strdup(env("AWS_CONTAINER_AUTHORIZATION_TOKEN"))))
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    return st;
}

static bool is_amazons(const struct s3_options *opts)
{
    return !opts->endpoint || !opts->endpoint[0] || strcasestr(opts->endpoint, ".amazonaws.com");
}

static enum blob_status set_up_instance(struct s3_cloud *c, struct blob_error *err)
{
    const char *url = env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    c->kind = S3_CLOUD_INSTANCE;
    if (!url[0])
        url = strcasecmp(env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"), "ipv6") == 0 ? "http://[fd00:ec2::254]"
                                                                                     : "http://169.254.169.254";
    enum blob_status st = set(c->url, sizeof c->url, "AWS_EC2_METADATA_SERVICE_ENDPOINT", url, err);
    if (st == BLOB_OK && c->url[strlen(c->url) - 1] == '/')
        c->url[strlen(c->url) - 1] = '\0';
    return st;
}

static enum blob_status choose(struct s3_cloud *c, const struct s3_options *opts, struct blob_error *err)
{
    if (env("AWS_WEB_IDENTITY_TOKEN_FILE")[0])
        return set_up_web_identity(c, opts, err);
    if (env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")[0] || env("AWS_CONTAINER_CREDENTIALS_FULL_URI")[0])
        return set_up_container(c, err);
    if (strcasecmp(env("AWS_EC2_METADATA_DISABLED"), "true") != 0 &&
        (is_amazons(opts) || env("AWS_EC2_METADATA_SERVICE_ENDPOINT")[0]))
        return set_up_instance(c, err);
    return blob_fail(err, BLOB_E_NOT_FOUND, 0, "no S3 credentials");
}

enum blob_status s3_cloud_find(const struct s3_options *opts, struct s3_gate *gate, struct s3_cloud **out,
                               struct blob_error *err)
{
    struct s3_cloud *c = calloc(1, sizeof *c);
    if (!c)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    enum blob_status st = choose(c, opts, err);
    const struct s3_http_config http = {
        .ca_file = env("AWS_ENDPOINT_URL_STS")[0] && opts->ca_file ? opts->ca_file : "",
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .max_connections = 1,
        .gate = gate,
    };
    if (st == BLOB_OK)
        st = s3_http_new(&http, &c->http, err);
    if (st == BLOB_OK)
        *out = c;
    else
        s3_cloud_free(c);
    return st;
}

void s3_cloud_free(struct s3_cloud *c)
{
    if (!c)
        return;
    s3_http_free(c->http);
    if (c->token)
        explicit_bzero(c->token, strlen(c->token));
    free(c->token);
    free(c);
}

const char *s3_cloud_name(const struct s3_cloud *c)
{
    static const char *const names[] = {[S3_CLOUD_NONE] = "nowhere",
                                        [S3_CLOUD_WEB_IDENTITY] = "the web identity",
                                        [S3_CLOUD_CONTAINER] = "the container's agent",
                                        [S3_CLOUD_INSTANCE] = "the instance's metadata"};
    return names[c->kind];
}

/* ---- asking ---- */

/* A text file without the line end. */
static enum blob_status read_token(const char *path, struct bytebuf *out, struct blob_error *err)
{
    char buf[TOKEN_MAX + 1];
    FILE *f;
    struct blob_error why;
    if (regular_file_open(path, "the token file", &f, &why) != BLOB_OK)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "%s", why.text);
    size_t n = fread(buf, 1, sizeof buf, f);
    bool failed = ferror(f) != 0;
    (void)fclose(f);
    while (n > 0 && isspace((unsigned char)buf[n - 1]))
        n--;
    if (!failed && n > 0 && n <= TOKEN_MAX && !memchr(buf, '\n', n) && !memchr(buf, '\r', n))
        bytebuf_add(out, buf, n);
    explicit_bzero(buf, sizeof buf);
    return out->len > 0 ? BLOB_OK : blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the token file %.120s holds none", path);
}

/* One request; *answer is to be released. UNAVAILABLE: it was not a 200. */
static enum blob_status ask(struct s3_cloud *c, const char *method, const char *url, const char *header,
                            const struct s3_body *body, struct s3_http_answer *answer, struct blob_error *err)
{
    bool again;
    const struct s3_http_request req = {.method = method,
                                        .url = url,
                                        .headers = &header,
                                        .header_count = header && header[0] ? 1 : 0,
                                        .body = body,
                                        .stall_timeout_ms = STALL_TIMEOUT_MS};
    struct s3_refusal refusal = {.code = ""};
    enum blob_status st = s3_http_send(c->http, &req, answer, &again, err);
    if (st != BLOB_OK || answer->status == 200)
        return st;
    const char *code = answer->text.len ? memmem(answer->text.data, answer->text.len, "<Code>", 6) : NULL;
    if (code)
        sscanf(code, "<Code>%63[A-Za-z0-9.]", refusal.code);
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "it answers %d %s", answer->status, refusal.code);
}

/* ---- what comes back ---- */

/* The agent and the metadata answer alike; the latter says besides whether it went well. */
static enum blob_status from_json(const struct s3_cloud *c, const struct bytebuf *text, struct s3_credentials **out,
                                  struct blob_error *err)
{
    const char *id = "", *secret = "", *token = "", *expires = "", *code = "Success";
    json_t *root = json_loadb(text->data ? text->data : "", text->len, 0, NULL);
    enum blob_status st;
    if (!root || json_unpack(root, "{s?s,s?s,s?s,s?s,s?s}", "AccessKeyId", &id, "SecretAccessKey", &secret, "Token",
                             &token, "Expiration", &expires, "Code", &code) != 0)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "its answer is no JSON of credentials");
    else if (strcmp(code, "Success") != 0)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "it says %.60s", code);
    else
        st = s3_credentials_new(id, secret, token, s3_answer_time(expires), s3_cloud_name(c), out, err);
    json_decref(root);
    return st;
}

struct assumed {
    char id[129], secret[4097], token[4097], expires[40];
};

static bool see_assumed(const char *path, const char *text, void *arg)
{
    struct assumed *a = arg;
    const char *name = strstr(path, "/Credentials/");
    const struct {
        const char *name;
        char *out;
        size_t size;
    } fields[] = {{"AccessKeyId", a->id, sizeof a->id},
                  {"SecretAccessKey", a->secret, sizeof a->secret},
                  {"SessionToken", a->token, sizeof a->token},
                  {"Expiration", a->expires, sizeof a->expires}};
    for (size_t i = 0; name && i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(name + strlen("/Credentials/"), fields[i].name) == 0 && strlen(text) < fields[i].size)
            memcpy(fields[i].out, text, strlen(text) + 1);
    }
    return true;
}

static void add_field(struct bytebuf *b, const char *name, const char *value)
{
    bytebuf_printf(b, "%s%s=", b->len ? "&" : "", name);
    for (const char *p = value; *p; p++) {
        if (isalnum((unsigned char)*p) || strchr("-._~", *p))
            bytebuf_add(b, p, 1);
        else
            bytebuf_printf(b, "%%%02X", (unsigned char)*p);
    }
}

static enum blob_status by_web_identity(struct s3_cloud *c, struct s3_credentials **out, struct blob_error *err)
{
    struct bytebuf token, form;
    struct s3_http_answer answer = {0};
    char url[URL_MAX + 2];
    struct assumed *a = calloc(1, sizeof *a);
    if (!a)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    bytebuf_init(&token);
    bytebuf_init(&form);
    enum blob_status st = read_token(c->token_file, &token, err);
    if (st == BLOB_OK) {
        add_field(&form, "Action", "AssumeRoleWithWebIdentity");
        add_field(&form, "Version", "2011-06-15");
        add_field(&form, "RoleArn", c->role);
        add_field(&form, "RoleSessionName", c->session);
        bytebuf_add(&token, "", 1);
        add_field(&form, "WebIdentityToken", token.data);
        snprintf(url, sizeof url, "%s/", c->url);
        const struct s3_body body = {.data = form.data, .length = form.len};
        st = token.failed || form.failed
                 ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials")
                 : ask(c, "POST", url, "Content-Type: application/x-www-form-urlencoded", &body, &answer, err);
    }
    if (st == BLOB_OK &&
        s3_xml_read(answer.text.data ? answer.text.data : "", answer.text.len, see_assumed, a) != BLOB_OK)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "its answer is not that of AssumeRoleWithWebIdentity");
    if (st == BLOB_OK)
        st = s3_credentials_new(a->id, a->secret, a->token, s3_answer_time(a->expires), s3_cloud_name(c), out, err);
    s3_http_answer_release(&answer);
    bytebuf_release(&form);
    bytebuf_release(&token);
    explicit_bzero(a, sizeof *a);
    free(a);
    return st;
}

static enum blob_status by_container(struct s3_cloud *c, struct s3_credentials **out, struct blob_error *err)
{
    struct bytebuf header;
    struct s3_http_answer answer = {0};
    enum blob_status st = BLOB_OK;
    bytebuf_init(&header);
    if (c->token_file[0] || c->token[0])
        bytebuf_text(&header, "Authorization: ");
    if (c->token_file[0]) {
        struct bytebuf token;
        bytebuf_init(&token);
        st = read_token(c->token_file, &token, err);
        bytebuf_add(&header, token.data ? token.data : "", token.len);
        bytebuf_release(&token);
    } else {
        bytebuf_text(&header, c->token);
    }
    bytebuf_add(&header, "", 1);
    if (st == BLOB_OK && header.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    if (st == BLOB_OK)
        st = ask(c, "GET", c->url, header.data, NULL, &answer, err);
    if (st == BLOB_OK)
        st = from_json(c, &answer.text, out, err);
    s3_http_answer_release(&answer);
    bytebuf_release(&header);
    return st;
}

/* Version 2: a token first, which a forged request through some proxy could not get. */
static enum blob_status by_instance(struct s3_cloud *c, struct s3_credentials **out, struct blob_error *err)
{
    char url[URL_MAX + 256], header[512], role[129] = "", token[400] = "";
    const struct s3_body nothing = {.data = ""};
    struct s3_http_answer answer = {0};
    snprintf(url, sizeof url, "%s" INSTANCE_TOKEN, c->url);
    enum blob_status st = ask(c, "PUT", url, "X-aws-ec2-metadata-token-ttl-seconds: 300", &nothing, &answer, err);
    if (st == BLOB_OK &&
        (answer.text.len == 0 || answer.text.len >= sizeof token || memchr(answer.text.data, '\n', answer.text.len) ||
         memchr(answer.text.data, '\r', answer.text.len)))
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "its token is malformed");
    if (st == BLOB_OK)
        snprintf(token, sizeof token, "%.*s", (int)answer.text.len, answer.text.data);
    s3_http_answer_release(&answer);
    snprintf(header, sizeof header, "X-aws-ec2-metadata-token: %s", token);
    snprintf(url, sizeof url, "%s" INSTANCE_ROOT, c->url);
    if (st == BLOB_OK) {
        st = ask(c, "GET", url, header, NULL, &answer, err);
        if (st == BLOB_OK)
            snprintf(role, sizeof role, "%.*s", (int)answer.text.len, answer.text.data ? answer.text.data : "");
        s3_http_answer_release(&answer);
    }
    role[strcspn(role, "\r\n")] = '\0';
    if (st == BLOB_OK && (!role[0] || strpbrk(role, "/?# ")))
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the instance has no role");
    if (st != BLOB_OK)
        return st;
    snprintf(url, sizeof url, "%s" INSTANCE_ROOT "%s", c->url, role);
    st = ask(c, "GET", url, header, NULL, &answer, err);
    if (st == BLOB_OK)
        st = from_json(c, &answer.text, out, err);
    s3_http_answer_release(&answer);
    return st;
}

enum blob_status s3_cloud_fetch(struct s3_cloud *c, struct s3_credentials **out, struct blob_error *err)
{
    struct blob_error why = {.text = ""};
    enum blob_status st = c->kind == S3_CLOUD_WEB_IDENTITY ? by_web_identity(c, out, &why)
                          : c->kind == S3_CLOUD_CONTAINER  ? by_container(c, out, &why)
                                                           : by_instance(c, out, &why);
    if (st == BLOB_OK || st == BLOB_E_CANCELED || st == BLOB_E_NO_MEMORY) {
        if (st != BLOB_OK && err)
            *err = why;
        return st;
    }
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "no S3 credentials from %s (%.60s): %.120s", s3_cloud_name(c), c->url,
                     why.text);
}
