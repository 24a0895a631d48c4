/*
 * upload_decide - what an append may do, decided before its body.
 *
 * An explicit offset decides alone. Otherwise the token does: a client that rotates its tokens means the offset its
 * token was issued at; but for a complete that brings no byte, which adds nothing anywhere: where its framing does not
 * tell, the body's first byte or its end is waited for. Where that is not where the upload stands, it may be a repeat
 * of the last chunk, whose answer was lost: the number of appends in the token tells. After a session was rebuilt from
 * the store, which does not count appends, the number is learnt from the token itself.
 */
#include "core/upload/upload_internal.h"

#include <inttypes.h>
#include <stdio.h>

#define TOKEN_FIELD "PortSIP-Upload-Token"

enum api_code upload_decide_token(const struct upload_request *req, const struct session *s, struct upload_token *token,
                                  struct api_error *err)
{
    if (!req->token)
        return api_fail_field(err, API_VALIDATE_FAILED, TOKEN_FIELD, "the header %s is required", TOKEN_FIELD);
    if (upload_token_verify(s->token_key, &s->id, req->token, token) != BLOB_OK)
        return api_fail_field(err, API_UPLOAD_TOKEN_INVALID, TOKEN_FIELD, "the upload token is not one of this upload");
    return API_OK;
}

static enum api_code mismatch(const struct session *s, bool explicit_offset, uint64_t offset, struct api_error *err)
{
    if (explicit_offset)
        api_fail(err, API_UPLOAD_OFFSET_MISMATCH, "the upload continues at another offset; nothing was written");
    else
        api_fail(err, API_UPLOAD_OFFSET_MISMATCH,
                 "the token is older than the upload and the body is not its last chunk again; nothing was written");
    snprintf(err->expected, sizeof err->expected, "%" PRIu64, s->mark.offset);
    snprintf(err->actual, sizeof err->actual, "%" PRIu64, offset);
    return API_UPLOAD_OFFSET_MISMATCH;
}

/* Brings the session's count in line with an authentic token that knows better. */
static void learn_appends(struct session *s, const struct upload_token *token)
{
    if (token->initial || (s->appends_known && token->appends < s->appends))
        return;
    if (token->offset >= s->mark.offset) {
        s->appends = token->appends;
    } else { /* issued before the last bytes came: its chunk is everything since */
        s->appends = token->appends + 1;
        s->chunk.offset = token->offset;
        s->chunk.length = s->mark.offset - token->offset;
    }
    s->appends_known = true;
}

bool upload_decide_adds_nothing(const struct upload_request *req)
{
    return req->completes && req->body_known && req->body_length == 0;
}

/* A complete whose body may yet turn out to have no byte. */
static bool may_add_nothing(const struct upload_request *req)
{
    return req->completes && !req->body_known && !req->body_begun;
}

static bool may_be_repeat(const struct upload_request *req, const struct session *s, const struct upload_token *token,
                          bool readable)
{
    struct hash from;
    return !req->completes && token->appends + 1 == s->appends && token->offset == s->chunk.offset &&
           s->chunk.length > 0 && (readable || session_knows_chunk(s, &from)) &&
           (!req->body_known || req->body_length == s->chunk.length);
}

enum api_code upload_decide_append(const struct upload_request *req, bool readable, struct session *s,
                                   enum append_mode *mode, struct api_error *err)
{
    struct upload_token token;
    enum api_code code = upload_decide_token(req, s, &token, err);
    if (code != API_OK)
        return code;
    if (req->has_length && req->body_known && req->length != req->body_length)
        return api_fail_field(err, API_VALIDATE_FAILED, "Content-Range",
                              "the range covers %" PRIu64 " bytes and the body has %" PRIu64, req->length,
                              req->body_length);
    learn_appends(s, &token);
    if (!token.initial)
        s->rotating = true;
    *mode = APPEND_WRITE;
    if (req->has_offset)
        return req->offset == s->mark.offset ? API_OK : mismatch(s, true, req->offset, err);
    /* Issued where the upload stands: nothing was added since, though an append in flight then may have been counted.
     */
    if (!s->rotating || token.offset == s->mark.offset || upload_decide_adds_nothing(req))
        return API_OK;
    if (may_add_nothing(req)) {
        *mode = APPEND_WAITS;
        return API_OK;
    }
    if (!may_be_repeat(req, s, &token, readable))
        return mismatch(s, false, token.offset, err);
    *mode = APPEND_REPEAT;
    return API_OK;
}
