/*
 * s3_sign - Signature Version 4: canonical request, string to sign, chain of HMACs.
 *
 * libcurl's CURLOPT_AWS_SIGV4 of 7.88 signs path and query as they are given, sorts headers together with their
 * values, sends no x-amz-content-sha256 and cannot presign; hence this file. What is signed is built here and sent
 * as it is (s3_signed.target), so that the two cannot differ. Sorting happens after encoding, by name, then value.
 */
#include "backends/s3/client/s3_sign.h"

#include "core/check.h"
#include "core/text/bytebuf.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define PAIRS_MAX  24
#define HASH_BYTES 32
#define HEX_CHARS  (2 * HASH_BYTES)

/* One signature in the making. */
struct signer {
    const struct s3_sign_key *key;
    const struct s3_signable *req;
    char date[20];  /* 20130524T000000Z */
    char scope[96]; /* 20130524/us-east-1/s3/aws4_request */
    struct s3_pair headers[PAIRS_MAX];
    size_t header_count;
    struct s3_pair query[PAIRS_MAX];
    size_t query_count;
};

static bool is_unreserved(unsigned char c)
{
    return isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

static void write_encoded(struct bytebuf *out, const char *text, bool keep_slash)
{
    for (const char *p = text; *p; p++) {
        if (is_unreserved((unsigned char)*p) || (keep_slash && *p == '/'))
            bytebuf_add(out, p, 1);
        else
            bytebuf_printf(out, "%%%02X", (unsigned char)*p);
    }
}

static void write_lower(struct bytebuf *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        char c = (char)tolower((unsigned char)*p);
        bytebuf_add(out, &c, 1);
    }
}

static char *encoded(const char *text)
{
    struct bytebuf b;
    bytebuf_init(&b);
    write_encoded(&b, text, false);
    char *s = bytebuf_take(&b, NULL);
    bytebuf_release(&b);
    return s;
}

static void write_hex(const unsigned char *bytes, size_t len, char *out)
{
    for (size_t i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
}

static void sha256_hex(const char *text, size_t len, char out[HEX_CHARS + 1])
{
    unsigned char md[HASH_BYTES];
    CHECK(EVP_Digest(text, len, md, NULL, EVP_sha256(), NULL) == 1);
    write_hex(md, sizeof md, out);
}

static void hmac(const void *key, size_t key_len, const char *text, unsigned char out[HASH_BYTES])
{
    unsigned len = HASH_BYTES;
    CHECK(HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), out, &len) != NULL);
}

static int by_name_then_value(const void *a, const void *b)
{
    const struct s3_pair *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->value, y->value);
}

static int by_header_name(const void *a, const void *b)
{
    return strcasecmp(((const struct s3_pair *)a)->name, ((const struct s3_pair *)b)->name);
}

static void add_header(struct signer *s, const char *name, const char *value)
{
    CHECK(s->header_count < PAIRS_MAX);
    s->headers[s->header_count++] = (struct s3_pair){name, value};
}

/* The query pairs are held encoded, on the heap. */
static enum blob_status add_query(struct signer *s, const char *name, const char *value)
{
    CHECK(s->query_count < PAIRS_MAX);
    char *n = encoded(name), *v = encoded(value);
    if (!n || !v) {
        free(n);
        free(v);
        return BLOB_E_NO_MEMORY;
    }
    s->query[s->query_count++] = (struct s3_pair){n, v};
    return BLOB_OK;
}

static void signer_release(struct signer *s)
{
    for (size_t i = 0; i < s->query_count; i++) {
        free((char *)s->query[i].name);
        free((char *)s->query[i].value);
    }
}

static enum blob_status signer_init(struct signer *s, const struct s3_sign_key *key, const struct s3_signable *req,
                                    int64_t now_s)
{
    *s = (struct signer){.key = key, .req = req};
    time_t now = (time_t)now_s;
    struct tm tm;
    if (!gmtime_r(&now, &tm) || strftime(s->date, sizeof s->date, "%Y%m%dT%H%M%SZ", &tm) == 0)
        return BLOB_E_INVALID;
    int n = snprintf(s->scope, sizeof s->scope, "%.8s/%s/s3/aws4_request", s->date, key->region);
    if (n < 0 || (size_t)n >= sizeof s->scope)
        return BLOB_E_INVALID;
    add_header(s, "host", req->host);
    for (size_t i = 0; i < req->header_count; i++)
        add_header(s, req->headers[i].name, req->headers[i].value);
    for (size_t i = 0; i < req->query_count; i++) {
        enum blob_status st = add_query(s, req->query[i].name, req->query[i].value);
        if (st != BLOB_OK) {
            signer_release(s);
            return st;
        }
    }
    return BLOB_OK;
}

static bool has_token(const struct signer *s)
{
    return s->key->token && s->key->token[0];
}

static void write_query(const struct signer *s, struct bytebuf *out)
{
    for (size_t i = 0; i < s->query_count; i++)
        bytebuf_printf(out, "%s%s=%s", i ? "&" : "", s->query[i].name, s->query[i].value);
}

static void write_header_names(const struct signer *s, struct bytebuf *out)
{
    for (size_t i = 0; i < s->header_count; i++) {
        if (i)
            bytebuf_text(out, ";");
        write_lower(out, s->headers[i].name);
    }
}

/* Without spaces at the ends, and each run of spaces inside as one. */
static void write_header_value(struct bytebuf *out, const char *value)
{
    bool space = false, any = false;
    for (const char *p = value; *p; p++) {
        if (*p == ' ' || *p == '\t') {
            space = true;
            continue;
        }
        if (space && any)
            bytebuf_text(out, " ");
        bytebuf_add(out, p, 1);
        space = false;
        any = true;
    }
}

static void write_canonical_request(const struct signer *s, const char *payload, struct bytebuf *out)
{
    bytebuf_printf(out, "%s\n", s->req->method);
    write_encoded(out, s->req->path, true);
    bytebuf_text(out, "\n");
    write_query(s, out);
    bytebuf_text(out, "\n");
    for (size_t i = 0; i < s->header_count; i++) {
        write_lower(out, s->headers[i].name);
        bytebuf_text(out, ":");
        write_header_value(out, s->headers[i].value);
        bytebuf_text(out, "\n");
    }
    bytebuf_text(out, "\n");
    write_header_names(s, out);
    bytebuf_printf(out, "\n%s", payload);
}

/* Hashes the canonical request into the string to sign, and signs that. */
static enum blob_status signature(const struct signer *s, const char *payload, char out[HEX_CHARS + 1])
{
    struct bytebuf request, secret, to_sign;
    bytebuf_init(&request);
    bytebuf_init(&secret);
    bytebuf_init(&to_sign);

    write_canonical_request(s, payload, &request);
    char request_hash[HEX_CHARS + 1];
    sha256_hex(request.data, request.len, request_hash);
    bytebuf_printf(&to_sign, "AWS4-HMAC-SHA256\n%s\n%s\n%s", s->date, s->scope, request_hash);
    bytebuf_printf(&secret, "AWS4%s", s->key->secret);

    enum blob_status st = BLOB_E_NO_MEMORY;
    if (!request.failed && !to_sign.failed && !secret.failed) {
        char day[9];
        snprintf(day, sizeof day, "%.8s", s->date);
        unsigned char md[HASH_BYTES];
        hmac(secret.data, secret.len, day, md);
        hmac(md, sizeof md, s->key->region, md);
        hmac(md, sizeof md, "s3", md);
        hmac(md, sizeof md, "aws4_request", md);
        hmac(md, sizeof md, to_sign.data, md);
        write_hex(md, sizeof md, out);
        st = BLOB_OK;
    }
    explicit_bzero(secret.data, secret.len);
    bytebuf_release(&to_sign);
    bytebuf_release(&secret);
    bytebuf_release(&request);
    return st;
}

/* sig NULL: it goes into a header instead. */
static char *target_text(const struct signer *s, const char *sig)
{
    struct bytebuf b;
    bytebuf_init(&b);
    write_encoded(&b, s->req->path, true);
    if (s->query_count) {
        bytebuf_text(&b, "?");
        write_query(s, &b);
    }
    if (sig)
        bytebuf_printf(&b, "&X-Amz-Signature=%s", sig);
    char *text = bytebuf_take(&b, NULL);
    bytebuf_release(&b);
    return text;
}

static char *authorization_text(const struct signer *s, const char *sig)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_printf(&b, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=", s->key->id, s->scope);
    write_header_names(s, &b);
    bytebuf_printf(&b, ",Signature=%s", sig);
    char *text = bytebuf_take(&b, NULL);
    bytebuf_release(&b);
    return text;
}

enum blob_status s3_sign(const struct s3_sign_key *key, const struct s3_signable *req, int64_t now_s,
                         struct s3_signed *out)
{
    CHECK(req->query_count <= 16 && req->header_count <= 16);
    struct signer s;
    enum blob_status st = signer_init(&s, key, req, now_s);
    if (st != BLOB_OK)
        return st;
    add_header(&s, "x-amz-content-sha256", req->payload);
    add_header(&s, "x-amz-date", s.date);
    if (has_token(&s))
        add_header(&s, "x-amz-security-token", key->token);
    qsort(s.headers, s.header_count, sizeof s.headers[0], by_header_name);
    qsort(s.query, s.query_count, sizeof s.query[0], by_name_then_value);

    char sig[HEX_CHARS + 1];
    struct s3_signed made = {0};
    memcpy(made.date, s.date, sizeof made.date);
    st = signature(&s, req->payload, sig);
    if (st == BLOB_OK) {
        made.target = target_text(&s, NULL);
        made.authorization = authorization_text(&s, sig);
        if (!made.target || !made.authorization)
            st = BLOB_E_NO_MEMORY;
    }
    if (st == BLOB_OK)
        *out = made;
    else
        s3_signed_release(&made);
    signer_release(&s);
    return st;
}

void s3_signed_release(struct s3_signed *s)
{
    free(s->target);
    free(s->authorization);
    *s = (struct s3_signed){0};
}

enum blob_status s3_sign_url(const struct s3_sign_key *key, const struct s3_signable *req, int64_t now_s,
                             int64_t expiry_s, char **target)
{
    CHECK(req->query_count <= 16 && req->header_count == 0);
    struct signer s;
    enum blob_status st = signer_init(&s, key, req, now_s);
    if (st != BLOB_OK)
        return st;
    char credential[256], expires[24], sig[HEX_CHARS + 1];
    snprintf(expires, sizeof expires, "%lld", (long long)expiry_s);
    int n = snprintf(credential, sizeof credential, "%s/%s", key->id, s.scope);
    if (n < 0 || (size_t)n >= sizeof credential)
        st = BLOB_E_INVALID;
    const struct s3_pair own[] = {
        {"X-Amz-Algorithm", "AWS4-HMAC-SHA256"},
        {"X-Amz-Credential", credential},
        {"X-Amz-Date", s.date},
        {"X-Amz-Expires", expires},
        {"X-Amz-SignedHeaders", "host"},
    };
    for (size_t i = 0; i < sizeof own / sizeof own[0] && st == BLOB_OK; i++)
        st = add_query(&s, own[i].name, own[i].value);
    if (st == BLOB_OK && has_token(&s))
        st = add_query(&s, "X-Amz-Security-Token", key->token);
    if (st == BLOB_OK) {
        qsort(s.query, s.query_count, sizeof s.query[0], by_name_then_value);
        st = signature(&s, S3_UNSIGNED_PAYLOAD, sig);
    }
    if (st == BLOB_OK) {
        char *text = target_text(&s, sig);
        if (text)
            *target = text;
        else
            st = BLOB_E_NO_MEMORY;
    }
    signer_release(&s);
    return st;
}
