/*
 * s3_sigv4_multipart - the operations of multipart uploads, each a request that s3_sigv4's loop sends.
 *
 * A 200 is not believed before its body is the document that it must be: S3 answers Complete after a while, when its
 * head has long been sent, and then may have an <Error> to tell.
 */
#include "backends/s3/client/s3_answer.h"
#include "backends/s3/client/s3_sigv4_internal.h"

#include <stdio.h>
#include <string.h>

static enum blob_status accept_upload_id(const struct s3_http_answer *answer, void *arg, struct blob_error *err)
{
    enum blob_status st = s3_answer_upload_id(answer->text.data, answer->text.len, arg);
    return st == BLOB_E_INVALID ? sigv4_nonsense(err, "the answer to a new multipart upload names none") : st;
}

enum blob_status sigv4_create(void *self, const char *key, char upload_id[S3_UPLOAD_ID_MAX], struct blob_error *err)
{
    const struct s3_body empty = {.data = ""};
    struct sigv4_request rq = {
        .method = "POST", .key = key, .body = &empty, .accept = accept_upload_id, .accept_arg = upload_id};
    rq.query[rq.query_count++] = (struct s3_pair){"uploads", ""};
    return sigv4_call_only(sigv4_of(self), &rq, err);
}

enum blob_status sigv4_put_part(void *self, const char *key, const char *upload_id, unsigned number,
                                const struct s3_body *body, struct s3_part *out, struct blob_error *err)
{
    char text[16];
    snprintf(text, sizeof text, "%u", number);
    struct sigv4_request rq = {.method = "PUT", .key = key, .body = body, .accept = sigv4_accept_etag};
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

enum blob_status sigv4_complete(void *self, const char *key, const char *upload_id, const struct s3_part *parts,
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

enum blob_status sigv4_abort(void *self, const char *key, const char *upload_id, struct blob_error *err)
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

enum blob_status sigv4_parts(void *self, const char *key, const char *upload_id, unsigned after, struct s3_parts *out,
                             struct blob_error *err)
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

enum blob_status sigv4_uploads(void *self, const char *prefix, const char *after_key, const char *after_id,
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
