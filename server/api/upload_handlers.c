/*
 * upload_handlers - a head that is malformed is refused on the loop, before a worker hears of it. Whatever concerns one
 * upload runs in its lane, so that status and destroy see an append either not begun or ended.
 */
#include "server/api/upload_handlers.h"

#include "core/files/filename.h"
#include "core/text/parse.h"
#include "core/text/parse_http.h"
#include "core/upload/upload.h"
#include "server/api/exchange.h"
#include "server/api/exchange_hop.h"
#include "server/api/exchange_limits.h"
#include "server/api/response.h"
#include "server/api/service.h"
#include "server/api/upload_answer.h"
#include "server/api/upload_body.h"

/* ---- create ---- */

struct create_state {
    char filename[FILENAME_MAX_BYTES + 1];
    bool temporary;
    struct upload_view view;
};

static enum api_code parse_filename(const char *query, char out[FILENAME_MAX_BYTES + 1], struct api_error *err)
{
    /* Long enough for a path before the name, which filename_clean() drops. */
    char raw[4096];
    enum blob_status st = query_get(query, "filename", raw, sizeof raw);
    if (st == BLOB_E_NOT_FOUND)
        return API_OK;
    if (st == BLOB_OK)
        st = filename_clean(raw, out);
    if (st != BLOB_OK)
        return api_fail_field(err, API_VALIDATE_FAILED, "filename",
                              "a file name is given once, as at most %d bytes of UTF-8 without control characters",
                              FILENAME_MAX_BYTES);
    return API_OK;
}

static enum api_code parse_temporary(const char *query, bool *out, struct api_error *err)
{
    char text[8];
    enum blob_status st = query_get(query, "temporary", text, sizeof text);
    if (st == BLOB_E_NOT_FOUND)
        return API_OK;
    if (st != BLOB_OK || parse_bool(text, out) != BLOB_OK)
        return api_fail_field(err, API_VALIDATE_FAILED, "temporary", "temporary is given once, as true or false");
    return API_OK;
}

static void create_work(struct exchange *x)
{
    struct create_state *s = x->state;
    struct upload_create req = {.who = &x->who, .filename = s->filename, .temporary = s->temporary};
    if (upload_create(x->svc->uploads, &req, &s->view, &x->err) == API_OK)
        x->err.code = API_OK;
}

static void create_done(struct exchange *x)
{
    struct create_state *s = x->state;
    if (x->err.code != API_OK)
        response_error(x, &x->err);
    else
        upload_answer_view(x, 202, &s->view);
}

void handle_upload_create(struct exchange *x)
{
    struct create_state *s = exchange_state(x, sizeof *s);
    if (s == NULL)
        return;
    const char *query = http_request_query(x->req);
    if (parse_filename(query, s->filename, &x->err) != API_OK ||
        parse_temporary(query, &s->temporary, &x->err) != API_OK)
        response_error(x, &x->err);
    else if (exchange_spend_upload(x))
        exchange_hop(x, NULL, create_work, create_done);
}

/* ---- status and destroy ---- */

struct known_state {
    struct uuid id;
    struct upload_view view;
};

static enum api_code parse_upload_id(const struct exchange *x, struct uuid *id, struct api_error *err)
{
    if (uuid_parse(x->param, id) != BLOB_OK)
        return api_fail_field(err, API_VALIDATE_FAILED, "id", "the upload id is not a UUID");
    return API_OK;
}

static void hop_in_lane(struct exchange *x, void (*work)(struct exchange *x), void (*then)(struct exchange *x))
{
    struct known_state *s = exchange_state(x, sizeof *s);
    if (s == NULL)
        return;
    if (parse_upload_id(x, &s->id, &x->err) != API_OK)
        response_error(x, &x->err);
    else
        exchange_hop(x, upload_lane(x->svc->uploads, &s->id), work, then);
}

static void status_work(struct exchange *x)
{
    struct known_state *s = x->state;
    if (upload_status(x->svc->uploads, &s->id, &x->who, &s->view, &x->err) == API_OK)
        x->err.code = API_OK;
}

static void status_done(struct exchange *x)
{
    struct known_state *s = x->state;
    if (x->err.code != API_OK)
        response_error(x, &x->err);
    else
        upload_answer_view(x, 204, &s->view);
}

void handle_upload_status(struct exchange *x)
{
    hop_in_lane(x, status_work, status_done);
}

static void destroy_work(struct exchange *x)
{
    struct known_state *s = x->state;
    if (upload_destroy(x->svc->uploads, &s->id, &x->who, &x->err) == API_OK)
        x->err.code = API_OK;
}

static void destroy_done(struct exchange *x)
{
    if (x->err.code != API_OK)
        response_error(x, &x->err);
    else
        response_empty(x, 204);
}

void handle_upload_destroy(struct exchange *x)
{
    hop_in_lane(x, destroy_work, destroy_done);
}

/* ---- append and complete ---- */

/* The value of a header that may stand once; *out stays NULL where it is absent. */
static enum api_code single_header(const struct exchange *x, const char *name, const char **out, struct api_error *err)
{
    if (http_request_header_count(x->req, name) > 1)
        return api_fail_field(err, API_VALIDATE_FAILED, name, "the header %s is repeated", name);
    *out = http_request_header(x->req, name);
    return API_OK;
}

static enum api_code parse_token(struct exchange *x, struct upload_request *req)
{
    if (single_header(x, "PortSIP-Upload-Token", &req->token, &x->err) != API_OK)
        return x->err.code;
    if (req->token == NULL || req->token[0] == '\0')
        return api_fail_field(&x->err, API_VALIDATE_FAILED, "PortSIP-Upload-Token",
                              "the header PortSIP-Upload-Token is missing");
    return API_OK;
}

/* Upload-Offset and Content-Range: one, none, or both saying the same. */
static enum api_code parse_offset(struct exchange *x, struct upload_request *req)
{
    const char *offset = NULL, *content_range = NULL;
    struct content_range range;
    if (single_header(x, "Upload-Offset", &offset, &x->err) != API_OK ||
        single_header(x, "Content-Range", &content_range, &x->err) != API_OK)
        return x->err.code;
    if (offset != NULL && parse_u64(offset, 0, INT64_MAX, &req->offset) != BLOB_OK)
        return api_fail_field(&x->err, API_VALIDATE_FAILED, "Upload-Offset", "Upload-Offset is not a number of bytes");
    req->has_offset = offset != NULL;
    if (content_range == NULL)
        return API_OK;
    if (content_range_parse(content_range, &range) != BLOB_OK)
        return api_fail_field(&x->err, API_VALIDATE_FAILED, "Content-Range",
                              "Content-Range is not of the form bytes N-M/*");
    if (offset != NULL && range.first != req->offset)
        return api_fail_field(&x->err, API_VALIDATE_FAILED, "Content-Range",
                              "Upload-Offset and Content-Range name different offsets");
    req->has_offset = true;
    req->offset = range.first;
    req->has_length = true;
    req->length = range.last - range.first + 1;
    return API_OK;
}

static enum api_code parse_digest(struct exchange *x, struct upload_request *req)
{
    char text[128];
    enum blob_status st = query_get(http_request_query(x->req), "digest", text, sizeof text);
    req->has_digest = st != BLOB_E_NOT_FOUND;
    if (!req->has_digest)
        return API_OK;
    if (st == BLOB_OK)
        st = digest_parse(text, &req->digest);
    if (st != BLOB_OK)
        return api_fail_field(&x->err, API_DIGEST_INVALID, "digest",
                              "digest is left out, or given once, as 64 hex digits of SHA-256, bare or behind sha256:");
    return API_OK;
}

static enum api_code parse_length(struct exchange *x, struct upload_request *req)
{
    enum http_body_kind kind = http_request_body_kind(x->req);
    uint64_t max = x->svc->max_upload_bytes;
    req->body_known = kind != HTTP_BODY_CHUNKED;
    req->body_length = kind == HTTP_BODY_LENGTH ? http_request_body_length(x->req) : 0;
    if (max > 0 && req->body_length > max)
        return api_fail(&x->err, API_SIZE_LIMIT_EXCEEDED, "an upload may have at most %llu bytes",
                        (unsigned long long)max);
    return API_OK;
}

static void receive(struct exchange *x, bool completes)
{
    struct upload_request req = {.who = &x->who, .completes = completes};
    if (parse_upload_id(x, &req.id, &x->err) != API_OK || parse_token(x, &req) != API_OK ||
        parse_offset(x, &req) != API_OK || (completes && parse_digest(x, &req) != API_OK) ||
        parse_length(x, &req) != API_OK)
        response_error(x, &x->err);
    else
        upload_body_start(x, &req);
}

void handle_upload_append(struct exchange *x)
{
    receive(x, false);
}

void handle_upload_complete(struct exchange *x)
{
    receive(x, true);
}
