/*
 * s3_sigv4 - the default driver: S3's REST API over libcurl, every attempt signed anew with Signature V4.
 *
 * A request is described once and s3_sigv4_call does the rest. So what an operation adds here is its query, its
 * headers, and how it accepts the answer.
 *
 * What is not believed: a bare 404 to HEAD (asked again with GET, which has a body), a 200 with an <Error> in it, a
 * range other than the one asked for, an answer without the length it must have. Nor is any 200 to an operation of a
 * multipart upload, before its body is the document that it must be: S3 answers Complete after a while, when its head
 * has long been sent, and then may have an <Error> to tell.
 */
#include "backends/s3/client/s3_answer.h"
#include "backends/s3/client/s3_sigv4_call.h"
#include "core/clock.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ECHO_MAX  (1u << 20)
#define PUT_MAX   (5ull << 30)
#define RANGE_MAX 64

static void object_of(const struct s3_http_answer *answer, uint64_t size, struct s3_object *out)
{
    *out = (struct s3_object){.size = size, .modified_ms = answer->modified_ms};
    memcpy(out->etag, answer->etag, sizeof out->etag);
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
    char range[RANGE_MAX];
    struct s3_span asked = *span;
    struct s3_http_stream *body = NULL;
    struct sigv4_request rq = {.method = "GET", .key = key, .stream = &body};
    struct s3_http_answer answer;
    ask_for_range(&rq, span, range);
    enum blob_status st = sigv4_call_stream(sigv4_of(self), &rq, &answer, err);
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

/* For sigv4_request.accept. */
static enum blob_status accept_etag(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    (void)arg;
    return answer->etag[0] ? BLOB_OK : sigv4_nonsense(err, "the answer to an upload has no ETag");
}

static enum blob_status put_if(struct sigv4 *d, const char *key, const struct s3_body *body, const struct s3_pair *cond,
                               bool *repeated, struct s3_object *out, struct blob_error *err)
{
    struct sigv4_request rq = {.method = "PUT", .key = key, .body = body, .accept = accept_etag, .repeated = repeated};
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
    const struct sigv4_request rq = {.method = "DELETE", .key = key, .as_of_ms = as_of_ms};
    enum blob_status st = sigv4_call_once(sigv4_of(self), &rq, err);
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

/* ---- multipart uploads ---- */

static enum blob_status accept_upload_id(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    enum blob_status st = s3_answer_upload_id(answer->text.data, answer->text.len, arg);
    return st == BLOB_E_INVALID ? sigv4_nonsense(err, "the answer to a new multipart upload names none") : st;
}

static enum blob_status sigv4_create(void *self, const char *key, char upload_id[S3_UPLOAD_ID_MAX],
                                     struct blob_error *err)
{
    const struct s3_body empty = {.data = ""};
    struct sigv4_request rq = {
        .method = "POST", .key = key, .body = &empty, .accept = accept_upload_id, .accept_arg = upload_id};
    rq.query[rq.query_count++] = (struct s3_pair){"uploads", ""};
    return sigv4_call_only(sigv4_of(self), &rq, err);
}

static enum blob_status sigv4_put_part(void *self, const char *key, const char *upload_id, unsigned number,
                                       const struct s3_body *body, struct s3_part *out, struct blob_error *err)
{
    char text[16];
    snprintf(text, sizeof text, "%u", number);
    struct sigv4_request rq = {.method = "PUT", .key = key, .body = body, .accept = accept_etag};
    rq.query[rq.query_count++] = (struct s3_pair){"partNumber", text};
    rq.query[rq.query_count++] = (struct s3_pair){"uploadId", upload_id};
    struct s3_http_answer answer;
    enum blob_status st = sigv4_call(sigv4_of(self), &rq, &answer, err);
    if (st == BLOB_OK) {
        *out = (struct s3_part){.number = number, .size = body->length};
        memcpy(out->etag, answer.etag, sizeof out->etag);
    }
    s3_http_answer_release(&answer);
    return st;
}

static enum blob_status accept_completed(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    (void)arg;
    if (s3_answer_is_completed(answer->text.data, answer->text.len))
        return BLOB_OK;
    return sigv4_nonsense(err, "the answer to a finished multipart upload is not whole");
}

static enum blob_status sigv4_complete(void *self, const char *key, const char *upload_id, const struct s3_part *parts,
                                       unsigned count, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    struct bytebuf xml;
    bytebuf_init(&xml);
    s3_answer_write_parts(&xml, parts, count);
    if (xml.failed) {
        bytebuf_release(&xml);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part list");
    }
    const struct s3_body body = {.data = xml.data, .length = xml.len};
    struct sigv4_request rq = {.method = "POST",
                               .key = key,
                               .body = &body,
                               .accept = accept_completed,
                               .stall_timeout_ms = d->complete_timeout_ms};
    rq.query[rq.query_count++] = (struct s3_pair){"uploadId", upload_id};
    enum blob_status st = sigv4_call_only(d, &rq, err);
    bytebuf_release(&xml);
    return st;
}

static enum blob_status sigv4_abort(void *self, const char *key, const char *upload_id, struct blob_error *err)
{
    struct sigv4_request rq = {.method = "DELETE", .key = key};
    rq.query[rq.query_count++] = (struct s3_pair){"uploadId", upload_id};
    enum blob_status st = sigv4_call_only(sigv4_of(self), &rq, err);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

static enum blob_status accept_parts(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    enum blob_status st = s3_answer_parts(answer->text.data, answer->text.len, arg);
    return st == BLOB_E_INVALID ? sigv4_nonsense(err, "the listing of parts is not well-formed") : st;
}

static enum blob_status sigv4_parts(void *self, const char *key, const char *upload_id, unsigned after,
                                    struct s3_parts *out, struct blob_error *err)
{
    char marker[16];
    snprintf(marker, sizeof marker, "%u", after);
    struct sigv4_request rq = {.method = "GET", .key = key, .accept = accept_parts, .accept_arg = out};
    rq.query[rq.query_count++] = (struct s3_pair){"uploadId", upload_id};
    if (after)
        rq.query[rq.query_count++] = (struct s3_pair){"part-number-marker", marker};
    return sigv4_call_only(sigv4_of(self), &rq, err);
}

static enum blob_status accept_uploads(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    enum blob_status st = s3_answer_uploads(answer->text.data, answer->text.len, arg);
    return st == BLOB_E_INVALID ? sigv4_nonsense(err, "the listing of multipart uploads is not well-formed") : st;
}

static enum blob_status sigv4_uploads(void *self, const char *prefix, const char *after_key, const char *after_id,
                                      struct s3_uploads *out, struct blob_error *err)
{
    struct sigv4_request rq = {.method = "GET", .accept = accept_uploads, .accept_arg = out};
    rq.query[rq.query_count++] = (struct s3_pair){"uploads", ""};
    rq.query[rq.query_count++] = (struct s3_pair){"prefix", prefix};
    if (after_key)
        rq.query[rq.query_count++] = (struct s3_pair){"key-marker", after_key};
    if (after_key && after_id)
        rq.query[rq.query_count++] = (struct s3_pair){"upload-id-marker", after_id};
    return sigv4_call_only(sigv4_of(self), &rq, err);
}

/* ---- presigned downloads ---- */

static enum blob_status sigv4_presign(void *self, const char *key, int64_t expiry_s, const char *disposition,
                                      const char *content_type, char **url, struct blob_error *err)
{
    struct sigv4 *d = sigv4_of(self);
    char path[SIGV4_PATH_MAX], base[S3_HOST_MAX + 8];
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
    const struct s3_sign_key sign = sigv4_sign_key(d, cred);
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
    st = s3_http_streams_new(&http, &d->streams, err);
    if (st != BLOB_OK)
        goto fail_http;
    *self = d;
    return BLOB_OK;

fail_http:
    s3_http_free(d->http);
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
    s3_http_streams_free(d->streams);
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
