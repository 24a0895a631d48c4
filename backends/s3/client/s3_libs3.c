/*
 * s3_libs3 - the opt-in driver on libs3 2.0, for gateways that know Signature V2 only.
 *
 * libs3 2.0 says OK too often: to a PUT answered by an empty 503 or a page of HTML, to a body cut short, to a listing
 * cut short. So nothing it says is taken on its word:
 *   PUT     is followed by HEAD, whose size must be the body's and whose ETag its MD5 (where the ETag is an MD5)
 *   GET     needs an ETag and as many bytes as the Content-Length; a short range is checked against HEAD's size
 *   HEAD    needs an ETag; a 404 is asked again with GET, whose body names the error
 *   DELETE  is followed by a look that must not find the object
 *   LIST    must be XML, and its end is believed only when two more requests find nothing behind it
 * What cannot be helped: TLS certificates are not verified, timeouts are fixed (1 KB/s over 15 s), header names must
 * come in their usual case, no multipart, no conditions, no presigning here. The capability bits say so.
 */
#include "backends/s3/client/s3_driver.h"
#include "backends/s3/client/s3_error.h"
#include "core/check.h"

#include <libs3.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIBS3_MAGIC 0x53336c62u
#define CALL_MAGIC  0x53336c63u
#define PUT_MAX     (5ull << 30)
#define MD5_BYTES   16
#define LOOKS_MAX   8 /* requests that the end of one page may cost */

struct libs3 {
    unsigned magic;
    struct s3_driver_base base;
    S3BucketContext context; /* points into base; without a key pair */
};

/* One operation: what goes in, and what libs3's callbacks saw in its last attempt. */
struct call {
    unsigned magic;
    struct libs3 *d;
    S3BucketContext context; /* of the attempt: with the pair that it holds */
    const char *verb;
    const char *key;
    /* put */
    const struct s3_body *body;
    uint64_t sent;
    EVP_MD_CTX *md5;
    struct hash sha256; /* where the body says what it must be */
    enum blob_status body_st;
    struct blob_error *body_err;
    /* get */
    uint8_t *buf;
    size_t size, got;
    uint64_t offset;
    const struct s3_object *whole; /* of which size bytes from offset are asked for */
    bool overflow;
    /* list */
    const char *after;
    unsigned max;
    struct s3_page page;
    size_t page_cap;
    bool more, no_memory;
    /* what came back */
    S3Status status;
    struct s3_object object; /* etag "" when there was none */
    bool is_xml;
};

static struct libs3 *self_of(void *self)
{
    struct libs3 *d = self;
    MAGIC_OK(d, LIBS3_MAGIC);
    return d;
}

/* ---- libs3's callbacks ---- */

static struct call *call_of(void *arg)
{
    struct call *c = arg;
    MAGIC_OK(c, CALL_MAGIC);
    return c;
}

static S3Status on_properties(const S3ResponseProperties *p, void *arg)
{
    struct call *c = call_of(arg);
    c->object =
        (struct s3_object){.size = p->contentLength, .modified_ms = p->lastModified > 0 ? p->lastModified * 1000 : 0};
    if (p->eTag && strlen(p->eTag) < sizeof c->object.etag)
        memcpy(c->object.etag, p->eTag, strlen(p->eTag) + 1);
    c->is_xml = p->contentType && (strncasecmp(p->contentType, "application/xml", 15) == 0 ||
                                   strncasecmp(p->contentType, "text/xml", 8) == 0);
    return S3StatusOK;
}

static void on_complete(S3Status status, const S3ErrorDetails *details, void *arg)
{
    (void)details;
    call_of(arg)->status = status;
}

static int on_put_data(int size, char *buffer, void *arg)
{
    struct call *c = call_of(arg);
    uint64_t left = c->body->length - c->sent;
    size_t len = left < (uint64_t)size ? (size_t)left : (size_t)size;
    if (s3_gate_is_shut(&c->d->base.gate))
        return -1;
    if (len == 0)
        return 0;
    if (c->body->data) {
        memcpy(buffer, (const char *)c->body->data + c->sent, len);
    } else {
        c->body_st = c->body->read(c->body->arg, c->sent, buffer, len, c->body_err);
        if (c->body_st != BLOB_OK)
            return -1;
    }
    CHECK(EVP_DigestUpdate(c->md5, buffer, len) == 1);
    if (c->body->sha256)
        hash_update(&c->sha256, buffer, len);
    c->sent += len;
    return (int)len;
}

static S3Status on_get_data(int size, const char *buffer, void *arg)
{
    struct call *c = call_of(arg);
    if ((size_t)size > c->size - c->got) {
        c->overflow = true;
        return S3StatusAbortedByCallback;
    }
    if (s3_gate_is_shut(&c->d->base.gate))
        return S3StatusAbortedByCallback;
    memcpy(c->buf + c->got, buffer, (size_t)size);
    c->got += (size_t)size;
    return S3StatusOK;
}

static bool push_entry(struct call *c, const S3ListBucketContent *content)
{
    struct s3_page *page = &c->page;
    if (page->count == c->page_cap) {
        size_t cap = c->page_cap ? 2 * c->page_cap : 64;
        void *entries = reallocarray(page->entries, cap, sizeof *page->entries);
        if (!entries)
            return false;
        page->entries = entries;
        c->page_cap = cap;
    }
    struct s3_entry e = {
        .key = strdup(content->key),
        .object = {.size = content->size, .modified_ms = content->lastModified > 0 ? content->lastModified * 1000 : 0}};
    if (!e.key)
        return false;
    if (content->eTag && strlen(content->eTag) < sizeof e.object.etag)
        memcpy(e.object.etag, content->eTag, strlen(content->eTag) + 1);
    page->entries[page->count++] = e;
    return true;
}

static S3Status on_list(int truncated, const char *next_marker, int count, const S3ListBucketContent *contents,
                        int prefix_count, const char **prefixes, void *arg)
{
    struct call *c = call_of(arg);
    (void)next_marker;
    (void)prefix_count;
    (void)prefixes;
    c->more = truncated != 0;
    for (int i = 0; i < count; i++) {
        if (!push_entry(c, &contents[i])) {
            c->no_memory = true;
            return S3StatusAbortedByCallback;
        }
    }
    return S3StatusOK;
}

/* ---- judging ---- */

static enum blob_status unconvincing(struct blob_error *err, const struct call *c, const char *what, bool *retry)
{
    *retry = true;
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s %.64s at %.64s: %s", c->verb, c->key ? c->key : "bucket",
                     c->d->base.endpoint.host, what);
}

/* An HTTP status for the refusals that libs3 reports without S3's code. */
static int http_status_of(S3Status status)
{
    switch (status) {
    case S3StatusHttpErrorMovedTemporarily:
        return 307;
    case S3StatusHttpErrorBadRequest:
        return 400;
    case S3StatusHttpErrorForbidden:
        return 403;
    case S3StatusHttpErrorNotFound:
        return 404;
    case S3StatusHttpErrorConflict:
        return 409;
    default:
        return 500;
    }
}

/* The refusal that libs3 reports; its name for S3's code X is ErrorX. */
static struct s3_refusal refusal_of(const struct call *c)
{
    struct s3_refusal refusal = {.http_status = http_status_of(c->status)};
    const char *name = S3_get_status_name(c->status);
    if (strncmp(name, "Error", 5) == 0 && c->status != S3StatusErrorUnknown)
        snprintf(refusal.code, sizeof refusal.code, "%s", name + 5);
    return refusal;
}

/* OK, or what went wrong by libs3's own word. */
static enum blob_status judge(const struct call *c, bool *retry, struct blob_error *err)
{
    const struct libs3 *d = c->d;
    *retry = false;
    if (s3_gate_is_shut(&d->base.gate))
        return blob_fail(err, BLOB_E_CANCELED, 0, "S3 %s stopped", c->verb);
    if (c->body_st != BLOB_OK)
        return c->body_st;
    if (c->no_memory || c->status == S3StatusOutOfMemory)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 %s", c->verb);
    if (c->overflow)
        return blob_fail(err, BLOB_E_TOO_LARGE, 0, "S3 object is over %zu bytes", c->size);
    switch (c->status) {
    case S3StatusOK:
        return BLOB_OK;
    case S3StatusNameLookupError:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the name of %s cannot be resolved: check storage.s3.endpoint",
                         d->base.endpoint.host);
    case S3StatusFailedToConnect:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "no connection to %s: check storage.s3.endpoint",
                         d->base.endpoint.host);
    case S3StatusInternalError:
    case S3StatusConnectionFailed:
    case S3StatusInterrupted:
    case S3StatusAbortedByCallback:
    case S3StatusXmlParseFailure:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s: exchange with %s broke off (%s)", c->verb,
                         d->base.endpoint.host, S3_get_status_name(c->status));
    default:
        break;
    }
    const struct s3_refusal refusal = refusal_of(c);
    const struct s3_errand errand = {
        .verb = c->verb, .key = c->key, .bucket = d->base.bucket, .endpoint = d->base.endpoint.host, .region = ""};
    return s3_refusal_judge(&refusal, &errand, retry, err);
}

typedef enum blob_status attempt_fn(struct call *c, bool *retry, struct blob_error *err);

/* For one attempt: what libs3 is given points into the pair. */
static enum blob_status hold_keys(struct call *c, struct s3_credentials **out, struct blob_error *err)
{
    enum blob_status st = s3_keys_hold(c->d->base.keys, out, err);
    if (st == BLOB_OK && (*out)->token[0]) {
        s3_credentials_release(*out);
        return blob_fail(err, BLOB_E_INVALID, 0, "storage.s3.driver=libs3 knows no session tokens: use driver=sigv4");
    }
    if (st == BLOB_OK) {
        c->context = c->d->context;
        c->context.accessKeyId = (*out)->id;
        c->context.secretAccessKey = (*out)->secret;
    }
    return st;
}

static enum blob_status repeat(struct call *c, attempt_fn *attempt, struct blob_error *err)
{
    struct s3_retry retries;
    bool renewed = false;
    s3_retry_start(&retries, &c->d->base.gate, c->d->base.retry_timeout_ms, c->d->base.retries);
    for (;;) {
        bool again;
        struct s3_credentials *cred;
        enum blob_status st = hold_keys(c, &cred, err);
        if (st != BLOB_OK)
            return st;
        c->object = (struct s3_object){0};
        c->status = S3StatusInternalError;
        c->is_xml = false;
        st = attempt(c, &again, err);
        const struct s3_refusal refusal = refusal_of(c);
        if (st == BLOB_OK)
            s3_keys_accepted(c->d->base.keys);
        else if (!renewed && s3_refusal_is_of_keys(&refusal))
            again = renewed = s3_keys_refused(c->d->base.keys, cred, refusal.code);
        s3_credentials_release(cred);
        if (st == BLOB_OK || !again)
            return st;
        if (!s3_retry_wait(&retries, 0))
            return s3_gate_is_shut(&c->d->base.gate) ? blob_fail(err, BLOB_E_CANCELED, 0, "S3 %s stopped", c->verb)
                                                     : st;
    }
}

static const S3ResponseHandler response = {on_properties, on_complete};

/* ---- looking at objects ---- */

static enum blob_status get_once(struct call *c, uint64_t offset, size_t length, bool *retry, struct blob_error *err)
{
    S3GetObjectHandler handler = {response, on_get_data};
    S3GetConditions any = {-1, -1, NULL, NULL};
    c->got = 0;
    c->overflow = false;
    S3_get_object(&c->context, c->key, &any, offset, length, NULL, &handler, c);
    enum blob_status st = judge(c, retry, err);
    if (st != BLOB_OK)
        return st;
    if (!c->object.etag[0])
        return unconvincing(err, c, "an answer without ETag", retry);
    if (c->got != c->object.size)
        return unconvincing(err, c, "the answer's length does not fit what it promised", retry);
    return BLOB_OK;
}

/* A 404 has no body to name the error: GET of one byte does. */
static enum blob_status name_the_404(struct call *c, bool *retry, struct blob_error *err)
{
    uint8_t byte;
    struct call look = {.magic = CALL_MAGIC,
                        .d = c->d,
                        .context = c->context,
                        .verb = "HEAD",
                        .key = c->key,
                        .buf = &byte,
                        .size = 1,
                        .status = c->status};
    enum blob_status st = get_once(&look, 0, 1, retry, err);
    if (st == BLOB_OK || st == BLOB_E_INVALID || st == BLOB_E_TOO_LARGE)
        return unconvincing(err, c, "the endpoint first had no such object, then had it", retry);
    return st;
}

static enum blob_status head_once(struct call *c, bool *retry, struct blob_error *err)
{
    S3_head_object(&c->context, c->key, NULL, &response, c);
    if (c->status == S3StatusHttpErrorNotFound)
        return name_the_404(c, retry, err);
    enum blob_status st = judge(c, retry, err);
    if (st == BLOB_OK && !c->object.etag[0])
        return unconvincing(err, c, "an answer without ETag", retry);
    return st;
}

static enum blob_status libs3_head(void *self, const char *key, struct s3_object *out, struct blob_error *err)
{
    struct call c = {.magic = CALL_MAGIC, .d = self_of(self), .verb = "HEAD", .key = key};
    enum blob_status st = repeat(&c, head_once, err);
    if (st == BLOB_OK)
        *out = c.object;
    return st;
}

/* ---- put ---- */

static void hex_of(const unsigned char *md, char *out)
{
    for (int i = 0; i < MD5_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", md[i]);
}

/* An ETag of 32 hex digits is the MD5, but on endpoints that encrypt; theirs are compared by size alone. */
static bool etag_fits(const char *etag, const char *md5_hex)
{
    size_t quote = etag[0] == '"';
    size_t digits = strspn(etag + quote, "0123456789abcdefABCDEF");
    return digits != 2 * MD5_BYTES || strncasecmp(etag + quote, md5_hex, digits) == 0;
}

static enum blob_status put_once(struct call *c, bool *retry, struct blob_error *err)
{
    S3PutObjectHandler handler = {response, on_put_data};
    unsigned char md[MD5_BYTES];
    char md5_hex[2 * MD5_BYTES + 1];
    c->sent = 0;
    c->body_st = BLOB_OK;
    c->body_err = err;
    CHECK(EVP_DigestInit_ex(c->md5, EVP_md5(), NULL) == 1);
    hash_init(&c->sha256);
    S3_put_object(&c->context, c->key, c->body->length, NULL, NULL, &handler, c);
    enum blob_status st = judge(c, retry, err);
    if (st != BLOB_OK)
        return st;
    if (c->sent != c->body->length)
        return unconvincing(err, c, "the body was not sent to its end", retry);
    struct digest sent;
    hash_peek(&c->sha256, &sent);
    if (c->body->sha256 && !digest_equal(&sent, c->body->sha256))
        return unconvincing(err, c, "the body was damaged before it was sent", retry);
    CHECK(EVP_DigestFinal_ex(c->md5, md, NULL) == 1);
    hex_of(md, md5_hex);

    struct call look = {.magic = CALL_MAGIC, .d = c->d, .context = c->context, .verb = "HEAD", .key = c->key};
    st = head_once(&look, retry, err);
    if (st == BLOB_E_NOT_FOUND)
        return unconvincing(err, c, "the object is not there after its upload", retry);
    if (st != BLOB_OK)
        return st;
    if (look.object.size != c->body->length || !etag_fits(look.object.etag, md5_hex))
        return unconvincing(err, c, "another object is there after its upload", retry);
    c->object = look.object;
    return BLOB_OK;
}

static enum blob_status libs3_put(void *self, const char *key, const struct s3_body *body,
                                  const struct s3_condition *cond, struct s3_object *out, struct blob_error *err)
{
    (void)cond; /* S3_CAP_CONDITIONAL_PUT is not ours */
    struct call c = {.magic = CALL_MAGIC, .d = self_of(self), .verb = "PUT", .key = key, .body = body};
    c.md5 = EVP_MD_CTX_new();
    if (!c.md5)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 PUT");
    enum blob_status st = repeat(&c, put_once, err);
    EVP_MD_CTX_free(c.md5);
    if (st == BLOB_OK)
        *out = c.object;
    return st;
}

/* ---- get ---- */

static enum blob_status get_whole(struct call *c, bool *retry, struct blob_error *err)
{
    return get_once(c, 0, 0, retry, err);
}

static enum blob_status get_span(struct call *c, bool *retry, struct blob_error *err)
{
    enum blob_status st = get_once(c, c->offset, c->size, retry, err);
    if (st == BLOB_OK && (c->got != c->size || strcmp(c->object.etag, c->whole->etag) != 0))
        return unconvincing(err, c, "another range came than was asked for", retry);
    if (st == BLOB_E_TOO_LARGE)
        return unconvincing(err, c, "the endpoint does not heed Range", retry);
    return st;
}

static enum blob_status libs3_get(void *self, const char *key, const struct s3_span *span, void *buf, size_t *got,
                                  struct s3_object *out, struct blob_error *err)
{
    struct call c = {
        .magic = CALL_MAGIC, .d = self_of(self), .verb = "GET", .key = key, .buf = buf, .size = span->length};
    enum blob_status st;
    if (span->whole) {
        st = repeat(&c, get_whole, err);
        if (st == BLOB_OK) {
            *got = c.got;
            *out = c.object;
        }
        return st;
    }
    /* libs3 does not show Content-Range: the size comes from HEAD, and the expected length from that. */
    struct s3_object object;
    st = libs3_head(self, key, &object, err);
    if (st != BLOB_OK)
        return st;
    if (span->offset >= object.size)
        return blob_fail(err, BLOB_E_INVALID, 0, "S3 GET %.64s: the range is outside the object", key);
    uint64_t left = object.size - span->offset;
    size_t want = left < span->length ? (size_t)left : span->length;
    c.size = want;
    c.offset = span->offset;
    c.whole = &object;
    st = repeat(&c, get_span, err);
    if (st == BLOB_OK) {
        *got = c.got;
        *out = object;
    }
    return st;
}

/* ---- delete ---- */

static enum blob_status remove_once(struct call *c, bool *retry, struct blob_error *err)
{
    S3_delete_object(&c->context, c->key, NULL, &response, c);
    enum blob_status st = judge(c, retry, err);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return st;
    struct call look = {.magic = CALL_MAGIC, .d = c->d, .context = c->context, .verb = "DELETE", .key = c->key};
    st = head_once(&look, retry, err);
    if (st == BLOB_OK)
        return unconvincing(err, c, "the object is still there", retry);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

static enum blob_status libs3_remove(void *self, const char *key, struct blob_error *err)
{
    struct call c = {.magic = CALL_MAGIC, .d = self_of(self), .verb = "DELETE", .key = key};
    return repeat(&c, remove_once, err);
}

/* ---- list ---- */

static enum blob_status list_once(struct call *c, bool *retry, struct blob_error *err)
{
    S3ListBucketHandler handler = {response, on_list};
    size_t had = c->page.count;
    c->more = false;
    S3_list_bucket(&c->context, c->key, c->after, NULL, (int)c->max, NULL, &handler, c);
    enum blob_status st = judge(c, retry, err);
    if (st == BLOB_OK && !c->is_xml)
        st = unconvincing(err, c, "a listing that is not XML", retry);
    while (st != BLOB_OK && c->page.count > had) /* what a failed attempt brought is asked for again */
        free(c->page.entries[--c->page.count].key);
    return st;
}

/*
 * A listing cut short looks like a shorter listing, and its flag for more like the last page's. So a page that is not
 * marked as truncated is followed by more requests, from its last key, until two in a row find nothing.
 */
static enum blob_status libs3_list(void *self, const char *prefix, const char *after, unsigned max, struct s3_page *out,
                                   struct blob_error *err)
{
    struct call c = {.magic = CALL_MAGIC, .d = self_of(self), .verb = "LIST", .key = prefix, .after = after};
    unsigned empty = 0;
    enum blob_status st = BLOB_OK;
    for (unsigned looks = 0; looks < LOOKS_MAX && c.page.count < max && empty < 2; looks++) {
        size_t had = c.page.count;
        c.max = max - (unsigned)had;
        st = repeat(&c, list_once, err);
        if (st != BLOB_OK)
            break;
        empty = c.page.count == had ? empty + 1 : 0;
        if (c.page.count > 0)
            c.after = c.page.entries[c.page.count - 1].key;
        if (c.more)
            break;
    }
    c.page.more = c.more || empty < 2;
    if (st == BLOB_OK)
        *out = c.page;
    else
        s3_page_release(&c.page);
    return st;
}

/* ---- open and close ---- */

static enum blob_status check_endpoint(struct libs3 *d, const struct s3_options *opts, struct blob_error *err)
{
    if (!opts->endpoint || !opts->endpoint[0] || strstr(d->base.endpoint.host, ".amazonaws.com"))
        return blob_fail(err, BLOB_E_INVALID, 0,
                         "storage.s3.driver=libs3 signs with V2, which Amazon does not take: use driver=sigv4");
    struct call ask = {.d = d};
    struct s3_credentials *cred;
    enum blob_status st = hold_keys(&ask, &cred, err);
    if (st == BLOB_OK)
        s3_credentials_release(cred);
    return st;
}

static enum blob_status libs3_open(const struct s3_options *opts, void **self, struct blob_error *err)
{
    struct libs3 *d = calloc(1, sizeof *d);
    if (!d)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 client");
    d->magic = LIBS3_MAGIC;
    struct s3_options plain = *opts; /* libs3 puts the bucket before the host itself */
    plain.path_style = true;
    enum blob_status st = s3_driver_base_init(&d->base, &plain, err);
    if (st != BLOB_OK)
        goto fail;
    st = check_endpoint(d, opts, err);
    if (st != BLOB_OK)
        goto fail_base;
    if (S3_initialize("blobd", S3_INIT_ALL, d->base.endpoint.host) != S3StatusOK) {
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "libs3 cannot be initialised");
        goto fail_base;
    }
    d->context = (S3BucketContext){.hostName = d->base.endpoint.host,
                                   .bucketName = d->base.bucket,
                                   .protocol = d->base.endpoint.tls ? S3ProtocolHTTPS : S3ProtocolHTTP,
                                   .uriStyle = opts->path_style ? S3UriStylePath : S3UriStyleVirtualHost};
    *self = d;
    return BLOB_OK;

fail_base:
    s3_driver_base_release(&d->base);
fail:
    free(d);
    return st;
}

static void libs3_close(void *self)
{
    struct libs3 *d = self_of(self);
    S3_deinitialize();
    s3_driver_base_release(&d->base);
    d->magic = 0;
    free(d);
}

static void libs3_cancel(void *self)
{
    s3_driver_base_cancel(&self_of(self)->base);
}

const struct s3_driver s3_driver_libs3 = {
    .name = "libs3",
    .caps = 0,
    .max_put = PUT_MAX,
    .open = libs3_open,
    .close = libs3_close,
    .cancel = libs3_cancel,
    .put = libs3_put,
    .get = libs3_get,
    .head = libs3_head,
    .remove = libs3_remove,
    .list = libs3_list,
};
