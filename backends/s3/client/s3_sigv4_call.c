/*
 * s3_sigv4_call - one request of the driver sigv4 to its end: sign, send, judge, wait, again.
 *
 * sigv4_call() is the loop around all operations. Each attempt is signed anew, since a signature ages and the clock's
 * offset may have been learned meanwhile. A payload in memory, or over plain http, is covered by its real SHA-256, so
 * that the endpoint refuses a damaged one. A stream over TLS goes unsigned, unless its SHA-256 is known.
 */
#include "backends/s3/client/s3_sigv4_call.h"

#include "backends/s3/client/s3_answer.h"
#include "backends/s3/client/s3_error.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOPS_MAX         2
/* How far a refusal may move the clock that signs: as far as summer time set wrong and a drift do, or a day where TLS
 * tells who says so. */
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
    char path[SIGV4_PATH_MAX];
};

/* The place of the first attempt. */
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

/* Writes what is signed for the body. It is hashed once an operation, not once an attempt. */
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

struct s3_sign_key sigv4_sign_key(const struct sigv4 *d, const struct s3_credentials *cred)
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
    const struct s3_sign_key key = sigv4_sign_key(d, cred);
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
        st = rq->stream ? s3_http_stream_begin(d->streams, &http, answer, rq->stream, retry, err)
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

/* Fills *out with what the answer says went wrong, also where a 200 has an <Error> in it. false: it is a success. */
static bool refused(const struct s3_http_answer *answer, struct s3_refusal *out)
{
    *out = (struct s3_refusal){.http_status = answer->status};
    memcpy(out->region, answer->region, sizeof out->region);
    bool told = answer->text.len > 0 && s3_answer_refusal(answer->text.data, answer->text.len, out);
    return told || answer->status / 100 != 2;
}

/* Follows a temporary redirect, by moving place, if it leads to an endpoint of ours. What is signed for the bucket, its
 * body and its session token go to no stranger, whoever says so: over plain http that may be anybody. */
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

/* Tells of a redirect that is not followed. Of where it leads it tells only the host: the rest is what was signed. */
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

/* Learns from a refusal what may cure it: another place, the server's clock, another key pair. true: something was
 * learned, and the request is to be sent anew at once. */
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

/* Takes an answer that came: OK, or what is wrong with it. *at_once: that has been cured, and the next attempt will
 * do. */
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

/* ---- one attempt alone ---- */

enum blob_status sigv4_call_stream(struct sigv4 *d, const struct sigv4_request *rq, struct s3_http_answer *answer,
                                   struct blob_error *err)
{
    struct place place = place_of(d, rq->key);
    struct s3_credentials *cred;
    bool again;
    *answer = (struct s3_http_answer){0};
    enum blob_status st = s3_keys_hold(d->base.keys, &cred, err);
    if (st != BLOB_OK)
        return st;
    st = attempt(d, rq, &place, cred, S3_EMPTY_SHA256, answer, &again, err);
    s3_credentials_release(cred);
    return st;
}

enum blob_status sigv4_call_once(struct sigv4 *d, const struct sigv4_request *rq, struct blob_error *err)
{
    struct place place = place_of(d, rq->key);
    struct s3_http_answer answer;
    struct s3_refusal refusal;
    struct s3_credentials *cred;
    bool again, moved = true;
    enum blob_status st = s3_keys_hold(d->base.keys, &cred, err);
    if (st != BLOB_OK)
        return st;
    for (unsigned hops = 0; moved; hops++) {
        st = attempt(d, rq, &place, cred, S3_EMPTY_SHA256, &answer, &again, err);
        bool answered = st == BLOB_OK;
        if (answered && refused(&answer, &refusal)) {
            st = judge(d, rq, &refusal, &again, err);
            if (s3_refusal_is_of_keys(&refusal)) /* not done: whoever asks next has another pair */
                (void)s3_keys_refused(d->base.keys, cred, refusal.code);
        }
        /* Where it is moved on, it was not done. */
        moved = answered && st != BLOB_OK && hops < HOPS_MAX && follow(d, &answer, &place);
        s3_http_answer_release(&answer);
    }
    s3_credentials_release(cred);
    return st;
}

enum blob_status sigv4_nonsense(struct blob_error *err, const char *what)
{
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3: %s", what);
}
