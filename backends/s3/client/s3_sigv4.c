/*
 * s3_sigv4 - the default driver: S3's REST API over libcurl, every attempt signed anew with Signature V4.
 *
 * One function, sigv4_call(), is the loop around all operations: sign, send, judge, wait, again. A request is described
 * once, so what an operation adds is its query, its headers, and how it accepts the answer. Signing happens at each
 * attempt, since a signature ages and the clock's offset may have been learned meanwhile. A payload in memory, or over
 * plain http, is covered by its real SHA-256 (the endpoint then refuses a damaged one); a stream over TLS goes
 * unsigned, unless its SHA-256 is known.
 *
 * What is not believed: a bare 404 to HEAD (asked again with GET, which has a body), a 200 with an <Error> in it, a
 * range other than the one asked for, an answer without the length it must have.
 */
#include "backends/s3/client/s3_answer.h"
#include "backends/s3/client/s3_error.h"
#include "backends/s3/client/s3_sigv4_internal.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/digest.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOPS_MAX         2
#define PATH_MAX_LEN     (128 + S3_KEY_MAX + 128)
#define ECHO_MAX         (1u << 20)
#define PUT_MAX          (5ull << 30)
#define RANGE_MAX        64
/* How far a refusal may move the clock that signs: summer time set wrong, and a drift; where it is known who says so, a
 * day. */
#define SHIFT_MAX_MS     (2 * 3600 * 1000)
#define SHIFT_MAX_TLS_MS (24 * 3600 * 1000)

struct sigv4 *sigv4_of(void *self)
{
    struct sigv4 *d = self;
    MAGIC_OK(d, SIGV4_MAGIC);
    return d;
}

/* ---- one attempt ---- */

/* Where an attempt goes; a 307 changes it. */
struct place {
    struct s3_endpoint endpoint;
    char path[PATH_MAX_LEN];
};

/* Where a key is, to begin with. */
static struct place place_of(const struct sigv4 *d, const char *key)
{
    struct place place = {.endpoint = d->base.endpoint};
    snprintf(place.path, sizeof place.path, "%s/%s", d->base.endpoint.path, key ? key : "");
    return place;
}

static enum blob_status hash_body(const struct s3_body *body, char out[DIGEST_HEX_CHARS + 1], struct blob_error *err)
{
    struct hash h;
    struct digest d;
    hash_init(&h);
    if (body->data) {
        hash_update(&h, body->data, body->length);
    } else if (body->length > 0) {
        size_t size = 256 * 1024;
        void *buf = malloc(size);
        if (!buf)
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 body");
        for (uint64_t at = 0; at < body->length;) {
            size_t len = body->length - at < size ? (size_t)(body->length - at) : size;
            enum blob_status st = body->read(body->arg, at, buf, len, err);
            if (st != BLOB_OK) {
                free(buf);
                return st;
            }
            hash_update(&h, buf, len);
            at += len;
        }
        free(buf);
    }
    hash_peek(&h, &d);
    digest_hex(&d, out);
    return BLOB_OK;
}

/* The hash goes into the signature: once an operation, not once an attempt. */
static enum blob_status payload_of(const struct sigv4 *d, const struct sigv4_request *rq,
                                   char out[DIGEST_HEX_CHARS + 1], struct blob_error *err)
{
    if (!rq->body || rq->body->length == 0)
        snprintf(out, DIGEST_HEX_CHARS + 1, "%s", S3_EMPTY_SHA256);
    else if (rq->body->sha256)
        digest_hex(rq->body->sha256, out);
    else if (d->base.endpoint.tls && !rq->body->data)
        snprintf(out, DIGEST_HEX_CHARS + 1, "%s", S3_UNSIGNED_PAYLOAD);
    else
        return hash_body(rq->body, out, err);
    return BLOB_OK;
}

static struct s3_sign_key sign_key(const struct sigv4 *d, const struct s3_credentials *cred)
{
    return (struct s3_sign_key){cred->id, cred->secret, cred->token, d->region};
}

/* Adds "name: value" to lines, at most 16 of them. false without memory. */
static bool add_line(char **lines, size_t *count, const char *name, const char *value)
{
    CHECK(*count < 16);
    if (asprintf(&lines[*count], "%s: %s", name, value) < 0)
        return false;
    ++*count;
    return true;
}

static enum blob_status attempt(struct sigv4 *d, const struct sigv4_request *rq, const struct place *place,
                                const struct s3_credentials *cred, const char *payload, struct s3_http_answer *answer,
                                bool *retry, struct blob_error *err)
{
    const struct s3_signable what = {.method = rq->method,
                                     .host = place->endpoint.host,
                                     .path = place->path,
                                     .query = rq->query,
                                     .query_count = rq->query_count,
                                     .headers = rq->headers,
                                     .header_count = rq->header_count,
                                     .payload = payload};
    const struct s3_sign_key key = sign_key(d, cred);
    struct s3_signed sig = {0};
    char base[S3_HOST_MAX + 8], *url = NULL, *lines[16] = {0};
    size_t count = 0;
    *answer = (struct s3_http_answer){0};
    *retry = false;
    int64_t dated_ms = rq->as_of_ms ? rq->as_of_ms : clock_wall_ms();
    enum blob_status st = s3_sign(&key, &what, (dated_ms + atomic_load(&d->sign_offset_ms)) / 1000, &sig);
    if (st != BLOB_OK)
        return blob_fail(err, st, 0, "S3 request cannot be signed");

    s3_endpoint_base(&place->endpoint, base, sizeof base);
    bool built = asprintf(&url, "%s%s", base, sig.target) >= 0;
    for (size_t i = 0; built && i < rq->header_count; i++)
        built = add_line(lines, &count, rq->headers[i].name, rq->headers[i].value);
    built = built && add_line(lines, &count, "x-amz-content-sha256", payload) &&
            add_line(lines, &count, "x-amz-date", sig.date) &&
            (!cred->token[0] || add_line(lines, &count, "x-amz-security-token", cred->token)) &&
            add_line(lines, &count, "Authorization", sig.authorization);
    if (built) {
        const struct s3_http_request http = {.method = rq->method,
                                             .url = url,
                                             .headers = (const char *const *)lines,
                                             .header_count = count,
                                             .body = rq->body,
                                             .sink = rq->sink,
                                             .sink_size = rq->sink_size,
                                             .stall_timeout_ms =
                                                 rq->stall_timeout_ms ? rq->stall_timeout_ms : d->stall_timeout_ms};
        st = rq->stream ? s3_http_begin(d->http, &http, answer, rq->stream, retry, err)
                        : s3_http_send(d->http, &http, answer, retry, err);
    } else {
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 request");
    }
    for (size_t i = 0; i < count; i++)
        free(lines[i]);
    free(url);
    s3_signed_release(&sig);
    return st;
}

/* ---- the loop ---- */

/*
 * Signs by the server's clock from now on, when its refusal says that ours is too far from it. Not by any: over plain
 * http whoever is on the way could have us sign for a day of his choice. false: that far no clock is corrected.
 */
static bool learn_clock(struct sigv4 *d, const struct s3_http_answer *answer)
{
    int64_t most_ms = d->base.endpoint.tls ? SHIFT_MAX_TLS_MS : SHIFT_MAX_MS;
    int64_t off_ms = answer->date_s * 1000 + 500 - clock_wall_ms() - (clock_steady_us() / 1000 - answer->date_at_ms);
    if (!answer->date_s || off_ms > most_ms || off_ms < -most_ms)
        return false;
    atomic_store(&d->sign_offset_ms, off_ms);
    return true;
}

/* What the answer says went wrong; http_status 200 with an <Error> included. false: it is a success. */
static bool refused(const struct s3_http_answer *answer, struct s3_refusal *out)
{
    *out = (struct s3_refusal){.http_status = answer->status};
    memcpy(out->region, answer->region, sizeof out->region);
    bool told = answer->text.len > 0 && s3_answer_refusal(answer->text.data, answer->text.len, out);
    return told || answer->status / 100 != 2;
}

/* A temporary redirect to an endpoint we may follow: place is moved there. What is signed for the bucket, its body and
 * its session token go to no stranger, whoever says so: over plain http that may be anybody. */
static bool follow(const struct sigv4 *d, const struct s3_http_answer *answer, struct place *place)
{
    struct s3_endpoint to;
    char *path;
    if (answer->status != 307 || !s3_endpoint_from_location(answer->location, &place->endpoint, &to, &path))
        return false;
    bool fits =
        strlen(path) < sizeof place->path && s3_endpoint_is_ours(&d->base.endpoint, d->base.bucket, d->region, &to);
    if (fits) {
        place->endpoint = to;
        memcpy(place->path, path, strlen(path) + 1);
    }
    free(path);
    return fits;
}

/* A redirect that is not followed. Of where it leads only the host is told: the rest is what was signed. */
static enum blob_status led_astray(const struct sigv4 *d, const struct sigv4_request *rq,
                                   const struct s3_http_answer *answer, struct blob_error *err)
{
    const char *at = strstr(answer->location, "://");
    int len = at ? (int)strcspn(at + 3, "/?#") : 0;
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0,
                     "S3 %s: %.64s redirects to \"%.*s\", which is not storage.s3.endpoint's and gets nothing: if the "
                     "bucket is there, set it",
                     rq->method, d->base.endpoint.host, len > 64 ? 64 : len, at ? at + 3 : "");
}

static enum blob_status judge(const struct sigv4 *d, const struct sigv4_request *rq, const struct s3_refusal *refusal,
                              bool *retry, struct blob_error *err)
{
    struct s3_errand errand = {.verb = rq->method,
                               .key = rq->key,
                               .bucket = d->base.bucket,
                               .endpoint = d->base.endpoint.host,
                               .region = d->region};
    for (size_t i = 0; i < rq->header_count; i++)
        errand.create_only |= strcmp(rq->headers[i].name, "If-None-Match") == 0;
    return s3_refusal_judge(refusal, &errand, retry, err);
}

/* What an operation learns from one attempt for the next. */
struct course {
    struct place place;
    unsigned hops;
    bool clock_learned, keys_renewed;
};

/* A refusal that something learned from it cures: another place, the server's clock, another key pair. Then the request
 * is sent anew at once. */
static bool cure(struct sigv4 *d, const struct s3_refusal *refusal, const struct s3_http_answer *answer,
                 const struct s3_credentials *cred, struct course *course)
{
    if (course->hops < HOPS_MAX && follow(d, answer, &course->place)) {
        course->hops++;
        return true;
    }
    if (!course->clock_learned && strcmp(refusal->code, "RequestTimeTooSkewed") == 0)
        return course->clock_learned = learn_clock(d, answer);
    if (!course->keys_renewed && s3_refusal_is_of_keys(refusal))
        return course->keys_renewed = s3_keys_refused(d->base.keys, cred, refusal->code);
    return false;
}

/* An answer that came: OK, or what is wrong with it; *at_once: no matter, the next attempt will do. */
static enum blob_status take(struct sigv4 *d, const struct sigv4_request *rq, const struct s3_http_answer *answer,
                             const struct s3_credentials *cred, struct course *course, bool *at_once, bool *again,
                             struct blob_error *err)
{
    struct s3_refusal refusal;
    if (!refused(answer, &refusal)) {
        s3_keys_accepted(d->base.keys);
        if (answer->date_s)
            s3_clock_see(&d->clock, answer->date_s, answer->date_at_ms);
        enum blob_status st = rq->accept ? rq->accept(answer, rq->accept_arg, err) : BLOB_OK;
        *again = st == BLOB_E_UNAVAILABLE;
        return st;
    }
    *at_once = cure(d, &refusal, answer, cred, course);
    if (answer->status == 307 && course->hops < HOPS_MAX)
        return led_astray(d, rq, answer, err);
    return judge(d, rq, &refusal, again, err);
}

enum blob_status sigv4_call(struct sigv4 *d, const struct sigv4_request *rq, struct s3_http_answer *answer,
                            struct blob_error *err)
{
    *answer = (struct s3_http_answer){0};
    char payload[DIGEST_HEX_CHARS + 1];
    enum blob_status st = payload_of(d, rq, payload, err);
    if (st != BLOB_OK)
        return st;
    struct course course = {.place = place_of(d, rq->key)};
    struct s3_retry retries;
    s3_retry_start(&retries, &d->base.gate, d->base.retry_timeout_ms, d->base.retries);

    for (;;) {
        bool again = false, at_once = false;
        struct s3_credentials *cred;
        s3_http_answer_release(answer);
        *answer = (struct s3_http_answer){0};
        st = s3_keys_hold(d->base.keys, &cred, err);
        if (st != BLOB_OK)
            return st;
        st = attempt(d, rq, &course.place, cred, payload, answer, &again, err);
        if (st == BLOB_OK)
            st = take(d, rq, answer, cred, &course, &at_once, &again, err);
        s3_credentials_release(cred);
        if (st == BLOB_OK)
            return BLOB_OK;
        if (at_once)
            continue;
        if (!again || !s3_retry_wait(&retries, answer->retry_after_ms))
            return s3_gate_is_shut(&d->base.gate) ? blob_fail(err, BLOB_E_CANCELED, 0, "S3 %s stopped", rq->method)
                                                  : st;
        if (rq->repeated)
            *rq->repeated = true;
    }
}

enum blob_status sigv4_call_only(struct sigv4 *d, const struct sigv4_request *rq, struct blob_error *err)
{
    struct s3_http_answer answer;
    enum blob_status st = sigv4_call(d, rq, &answer, err);
    s3_http_answer_release(&answer);
    return st;
}

static void object_of(const struct s3_http_answer *answer, uint64_t size, struct s3_object *out)
{
    *out = (struct s3_object){.size = size, .modified_ms = answer->modified_ms};
    memcpy(out->etag, answer->etag, sizeof out->etag);
}

enum blob_status sigv4_nonsense(struct blob_error *err, const char *what)
{
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3: %s", what);
}

/* ---- objects ---- */

/* arg: the span. The bytes are in the sink already, as many as Content-Length said, or will come. */
static enum blob_status accept_span(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    const struct s3_span *span = arg;
    if (span->whole)
        return answer->status == 200 ? BLOB_OK
                                     : sigv4_nonsense(err, "part of an object came where the whole was asked for");
    if (answer->status != 206 || !answer->has_range)
        return sigv4_nonsense(err, "the endpoint does not heed Range");
    uint64_t last = span->offset + span->length - 1;
    if (last >= answer->range_total)
        last = answer->range_total - 1;
    if (answer->range_first != span->offset || answer->range_last != last || !answer->has_length ||
        answer->length != last - span->offset + 1)
        return sigv4_nonsense(err, "another range came than was asked for");
    return BLOB_OK;
}

static void ask_for_range(struct sigv4_request *rq, const struct s3_span *span, char text[RANGE_MAX])
{
    snprintf(text, RANGE_MAX, "bytes=%" PRIu64 "-%" PRIu64, span->offset, span->offset + span->length - 1);
    rq->headers[rq->header_count++] = (struct s3_pair){"Range", text};
}

static enum blob_status sigv4_get(void *self, const char *key, const struct s3_span *span, void *buf, size_t *got,
                                  struct s3_object *out, struct blob_error *err)
{
    char range[RANGE_MAX];
    struct s3_span asked = *span;
    struct sigv4_request rq = {.method = "GET",
                               .key = key,
                               .sink = buf,
                               .sink_size = span->length,
                               .accept = accept_span,
                               .accept_arg = &asked};
    if (!span->whole)
        ask_for_range(&rq, span, range);
    struct s3_http_answer answer;
    enum blob_status st = sigv4_call(sigv4_of(self), &rq, &answer, err);
    if (st == BLOB_OK) {
        *got = answer.sunk;
        object_of(&answer, span->whole ? answer.length : answer.range_total, out);
    } else if (st == BLOB_E_TOO_LARGE && !span->whole)
        st = sigv4_nonsense(err, "the endpoint does not heed Range");
    s3_http_answer_release(&answer);
    return st;
}

/* One attempt, and no more: s3_get_range() does better what this fails at. */
static enum blob_status sigv4_stream_open(void *self, const char *key, const struct s3_span *span, void **stream,
                                          struct s3_object *out, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    char range[RANGE_MAX];
    struct s3_span asked = *span;
    struct s3_http_stream *body = NULL;
    struct sigv4_request rq = {.method = "GET", .key = key, .stream = &body};
    struct place place = place_of(d, key);
    struct s3_http_answer answer;
    bool again;
    struct s3_credentials *cred;
    ask_for_range(&rq, span, range);
    enum blob_status st = s3_keys_hold(d->base.keys, &cred, err);
    if (st != BLOB_OK)
        return st;
    st = attempt(d, &rq, &place, cred, S3_EMPTY_SHA256, &answer, &again, err);
    s3_credentials_release(cred);
    if (st == BLOB_OK)
        st = accept_span(&answer, &asked, err);
    if (st == BLOB_OK && answer.length != span->length)
        st = blob_fail(err, BLOB_E_INVALID, 0, "S3 %s ends before the bytes that were asked for", key);
    if (st == BLOB_OK) {
        object_of(&answer, answer.range_total, out);
        *stream = body;
    } else {
        s3_http_stream_end(body);
    }
    s3_http_answer_release(&answer);
    return st;
}

static enum blob_status sigv4_stream_read(void *stream, void *buf, size_t len, struct blob_error *err)
{
    return s3_http_stream_read(stream, buf, len, err);
}

static void sigv4_stream_close(void *stream)
{
    s3_http_stream_end(stream);
}

enum blob_status sigv4_accept_etag(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    (void)arg;
    return answer->etag[0] ? BLOB_OK : sigv4_nonsense(err, "the answer to an upload has no ETag");
}

static enum blob_status put_if(struct sigv4 *d, const char *key, const struct s3_body *body, const struct s3_pair *cond,
                               bool *repeated, struct s3_object *out, struct blob_error *err)
{
    struct sigv4_request rq = {
        .method = "PUT", .key = key, .body = body, .accept = sigv4_accept_etag, .repeated = repeated};
    if (cond)
        rq.headers[rq.header_count++] = *cond;
    struct s3_http_answer answer;
    enum blob_status st = sigv4_call(d, &rq, &answer, err);
    if (st == BLOB_OK)
        object_of(&answer, body->length, out);
    s3_http_answer_release(&answer);
    return st;
}

/* Is this body what the key holds? Only small ones from memory are asked about. */
static bool holds_body(struct sigv4 *d, const char *key, const struct s3_body *body, struct s3_object *out)
{
    if (!body->data || body->length > ECHO_MAX)
        return false;
    const struct s3_span span = {.whole = true, .length = (size_t)body->length + 1};
    char *there = malloc(span.length);
    size_t got;
    struct blob_error ignored;
    bool same = there && sigv4_get(d, key, &span, there, &got, out, &ignored) == BLOB_OK && got == body->length &&
                memcmp(there, body->data, got) == 0;
    free(there);
    return same;
}

static enum blob_status create(struct sigv4 *d, const char *key, const struct s3_body *body, struct s3_object *out,
                               struct blob_error *err)
{
    bool repeated = false;
    enum blob_status st = put_if(d, key, body, &(struct s3_pair){"If-None-Match", "*"}, &repeated, out, err);
    /* After a lost answer, the object that is there may be the one that this call has made. */
    if (st == BLOB_E_EXISTS && repeated && holds_body(d, key, body, out))
        return BLOB_OK;
    return st;
}

static enum blob_status sigv4_put(void *self, const char *key, const struct s3_body *body,
                                  const struct s3_condition *cond, struct s3_object *out, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    if (cond && cond->absent)
        return create(d, key, body, out, err);
    if (!cond || !cond->etag)
        return put_if(d, key, body, NULL, NULL, out, err);
    enum blob_status st = put_if(d, key, body, &(struct s3_pair){"If-Match", cond->etag}, NULL, out, err);
    size_t len = strlen(cond->etag);
    if (st != BLOB_E_CONFLICT || len < 2 || cond->etag[0] != '"')
        return st;
    /* Ceph RGW 16 compares with the ETag without its quotes, so that with them nothing ever matches. */
    char bare[S3_ETAG_MAX];
    snprintf(bare, sizeof bare, "%.*s", (int)len - 2, cond->etag + 1);
    return put_if(d, key, body, &(struct s3_pair){"If-Match", bare}, NULL, out, err);
}

static enum blob_status accept_length(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    (void)arg;
    return answer->has_length ? BLOB_OK : sigv4_nonsense(err, "the answer to HEAD has no Content-Length");
}

/* HEAD has no body to name the error: GET of one byte asks again where a 404 must be believed or not, and where the key
 * pair may be refused, so that another is asked for. OK: it is there. */
static enum blob_status name_the_refusal(struct sigv4 *d, const char *key, struct blob_error *err)
{
    char byte;
    struct sigv4_request rq = {.method = "GET", .key = key, .sink = &byte, .sink_size = 1};
    rq.headers[rq.header_count++] = (struct s3_pair){"Range", "bytes=0-0"};
    enum blob_status st = sigv4_call_only(d, &rq, err);
    /* INVALID: and empty; TOO_LARGE: Range is not heeded. */
    return st == BLOB_E_INVALID || st == BLOB_E_TOO_LARGE ? BLOB_OK : st;
}

static enum blob_status head_once(struct sigv4 *d, const char *key, struct s3_object *out, int *status,
                                  struct blob_error *err)
{
    struct sigv4_request rq = {.method = "HEAD", .key = key, .accept = accept_length};
    struct s3_http_answer answer;
    enum blob_status st = sigv4_call(d, &rq, &answer, err);
    if (st == BLOB_OK)
        object_of(&answer, answer.length, out);
    *status = answer.status;
    s3_http_answer_release(&answer);
    return st;
}

static enum blob_status sigv4_head(void *self, const char *key, struct s3_object *out, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    int status;
    enum blob_status st = head_once(d, key, out, &status, err);
    if (st == BLOB_OK || (status != 400 && status != 403 && status != 404))
        return st;
    st = name_the_refusal(d, key, err);
    if (st != BLOB_OK)
        return st;
    if (status == 404) /* it has just been written */
        return sigv4_nonsense(err, "the endpoint first had no such object, then had it");
    return head_once(d, key, out, &status, err);
}

static enum blob_status sigv4_remove(void *self, const char *key, struct blob_error *err)
{
    const struct sigv4_request rq = {.method = "DELETE", .key = key};
    enum blob_status st = sigv4_call_only(sigv4_of(self), &rq, err);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

static enum blob_status sigv4_remove_once(void *self, const char *key, int64_t as_of_ms, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    const struct sigv4_request rq = {.method = "DELETE", .key = key, .as_of_ms = as_of_ms};
    struct place place = place_of(d, key);
    struct s3_http_answer answer;
    struct s3_refusal refusal;
    struct s3_credentials *cred;
    bool again, moved = true;
    enum blob_status st = s3_keys_hold(d->base.keys, &cred, err);
    if (st != BLOB_OK)
        return st;
    for (unsigned hops = 0; moved; hops++) {
        st = attempt(d, &rq, &place, cred, S3_EMPTY_SHA256, &answer, &again, err);
        bool answered = st == BLOB_OK;
        if (answered && refused(&answer, &refusal)) {
            st = judge(d, &rq, &refusal, &again, err);
            if (s3_refusal_is_of_keys(&refusal)) /* not done: whoever asks next has another pair */
                (void)s3_keys_refused(d->base.keys, cred, refusal.code);
        }
        /* Where it is moved on, it was not done. */
        moved = answered && st != BLOB_OK && hops < HOPS_MAX && follow(d, &answer, &place);
        s3_http_answer_release(&answer);
    }
    s3_credentials_release(cred);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

static enum blob_status accept_page(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    enum blob_status st = s3_answer_page(answer->text.data, answer->text.len, arg);
    return st == BLOB_E_INVALID ? sigv4_nonsense(err, "the listing is not well-formed") : st;
}

static enum blob_status sigv4_list(void *self, const char *prefix, const char *after, unsigned max, struct s3_page *out,
                                   struct blob_error *err)
{
    char max_keys[16];
    snprintf(max_keys, sizeof max_keys, "%u", max);
    struct sigv4_request rq = {.method = "GET", .accept = accept_page, .accept_arg = out};
    rq.query[rq.query_count++] = (struct s3_pair){"list-type", "2"};
    rq.query[rq.query_count++] = (struct s3_pair){"max-keys", max_keys};
    rq.query[rq.query_count++] = (struct s3_pair){"prefix", prefix};
    if (after)
        rq.query[rq.query_count++] = (struct s3_pair){"start-after", after};
    return sigv4_call_only(sigv4_of(self), &rq, err);
}

/* ---- presigned downloads ---- */

static enum blob_status sigv4_presign(void *self, const char *key, int64_t expiry_s, const char *disposition,
                                      const char *content_type, char **url, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    char path[PATH_MAX_LEN], base[S3_HOST_MAX + 8];
    struct s3_pair query[2];
    size_t count = 0;
    if (disposition)
        query[count++] = (struct s3_pair){"response-content-disposition", disposition};
    if (content_type)
        query[count++] = (struct s3_pair){"response-content-type", content_type};
    snprintf(path, sizeof path, "%s/%s", d->base.endpoint.path, key);
    const struct s3_signable what = {
        .method = "GET", .host = d->base.endpoint.host, .path = path, .query = query, .query_count = count};
    struct s3_credentials *cred;
    char *target = NULL;
    int64_t now_ms = clock_wall_ms();
    enum blob_status st = s3_keys_hold(d->base.keys, &cred, err);
    if (st != BLOB_OK)
        return st;
    /* It promises no more than the pair can keep. */
    if (cred->expires_ms && expiry_s > (cred->expires_ms - now_ms) / 1000)
        expiry_s = (cred->expires_ms - now_ms) / 1000;
    const struct s3_sign_key sign = sign_key(d, cred);
    st = expiry_s < 1 ? blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the S3 credentials end just now")
                      : s3_sign_url(&sign, &what, (now_ms + atomic_load(&d->sign_offset_ms)) / 1000, expiry_s, &target);
    s3_credentials_release(cred);
    if (st == BLOB_E_UNAVAILABLE)
        return st;
    if (st != BLOB_OK)
        return blob_fail(err, st, 0, "S3 URL cannot be signed");
    s3_endpoint_base(&d->base.endpoint, base, sizeof base);
    char *made;
    int n = asprintf(&made, "%s%s", base, target);
    free(target);
    if (n < 0)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 URL");
    *url = made;
    return BLOB_OK;
}

/* ---- open and close ---- */

static enum blob_status sigv4_open(const struct s3_options *opts, void **self, struct blob_error *err)
{
    struct sigv4 *d = calloc(1, sizeof *d);
    if (!d)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 client");
    d->magic = SIGV4_MAGIC;
    s3_clock_init(&d->clock);
    d->stall_timeout_ms = opts->stall_timeout_ms;
    d->complete_timeout_ms = opts->complete_timeout_ms;
    snprintf(d->region, sizeof d->region, "%s", opts->region && opts->region[0] ? opts->region : "us-east-1");

    enum blob_status st = s3_driver_base_init(&d->base, opts, err);
    if (st != BLOB_OK)
        goto fail;
    const struct s3_http_config http = {.ca_file = opts->ca_file,
                                        .connect_timeout_ms = opts->connect_timeout_ms,
                                        .max_connections = opts->max_connections - s3_streams_max(opts),
                                        .gate = &d->base.gate};
    st = s3_http_new(&http, &d->http, err);
    if (st != BLOB_OK)
        goto fail_base;
    *self = d;
    return BLOB_OK;

fail_base:
    s3_driver_base_release(&d->base);
fail:
    s3_clock_release(&d->clock);
    free(d);
    return st;
}

static void sigv4_close(void *self)
{
    struct sigv4 *d = sigv4_of(self);
    s3_http_free(d->http);
    s3_driver_base_release(&d->base);
    s3_clock_release(&d->clock);
    d->magic = 0;
    free(d);
}

static void sigv4_cancel(void *self)
{
    s3_driver_base_cancel(&sigv4_of(self)->base);
}

static void sigv4_clock(void *self, struct s3_clock_view *out)
{
    s3_clock_look(&sigv4_of(self)->clock, clock_steady_us() / 1000, clock_wall_ms(), out);
}

const struct s3_driver s3_driver_sigv4 = {
    .name = "sigv4",
    .caps = S3_CAP_MULTIPART | S3_CAP_CONDITIONAL_PUT | S3_CAP_PRESIGN | S3_CAP_VERIFIED_TLS | S3_CAP_STREAM,
    .max_put = PUT_MAX,
    .open = sigv4_open,
    .close = sigv4_close,
    .cancel = sigv4_cancel,
    .clock = sigv4_clock,
    .put = sigv4_put,
    .get = sigv4_get,
    .stream_open = sigv4_stream_open,
    .stream_read = sigv4_stream_read,
    .stream_close = sigv4_stream_close,
    .head = sigv4_head,
    .remove = sigv4_remove,
    .remove_once = sigv4_remove_once,
    .list = sigv4_list,
    .create = sigv4_create,
    .put_part = sigv4_put_part,
    .complete = sigv4_complete,
    .abort = sigv4_abort,
    .parts = sigv4_parts,
    .uploads = sigv4_uploads,
    .presign = sigv4_presign,
};
