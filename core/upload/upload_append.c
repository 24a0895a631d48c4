/*
 * upload_append - one body on its way in: begin, write, end.
 *
 * Everything here runs in the upload's lane, one call at a time. What is received is written and hashed in order; the
 * session follows in checkpoints, and once more at the end. Whatever goes wrong in between, the session stands at
 * durable bytes that belong to it.
 */
#include "core/upload/upload_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_PARTS  16
#define SIDE_BYTES (256u << 10)

static void fill_view(const struct session *s, struct upload_result *result)
{
    upload_session_view(s, false, &result->view);
    result->has_view = true;
}

/* ---- begin ------------------------------------------------------------------------------------------------------ */

/* While its hash is with another worker. */
static void hold_append(void *owner)
{
    upload_append_ref(owner);
}

static void let_append(void *owner)
{
    upload_append_unref(owner);
}

static struct upload_append *append_new(struct upload_service *svc, const struct upload_request *req,
                                        const struct session *s, enum append_mode mode)
{
    struct upload_append *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    if (req->completes || (req->has_length && !req->body_known)) {
        a->before = malloc(sizeof *a->before);
        if (!a->before) {
            free(a);
            return NULL;
        }
        *a->before = *s;
    }
    a->magic = APPEND_MAGIC;
    a->svc = svc;
    a->id = s->id;
    a->mode = mode;
    a->completes = req->completes;
    a->has_length = req->has_length;
    a->length = req->length;
    a->has_expected = req->has_digest;
    a->expected = req->digest;
    a->superseded = req->superseded;
    a->arg = req->arg;
    a->s = *s;
    a->start = s->mark.offset;
    a->by_hash = mode == APPEND_REPEAT && !(svc->store->caps & STORE_READ_STAGED);
    a->written = a->start;
    a->flush_offset = a->start;
    a->flush_us = clock_steady_us();
    a->tick_job.run = upload_checkpoint_tick_run;
    a->refs = 1;
    a->hash = s->hash;
    if (mode == APPEND_REPEAT && (!a->by_hash || !session_knows_chunk(s, &a->hash)))
        hash_init(&a->hash);
    a->keeps_before = mode == APPEND_WRITE && !(svc->store->caps & STORE_READ_STAGED);
    a->before_hash = s->hash;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->flushed, NULL);
    side_hash_init(&a->side, hold_append, let_append, a);
    return a;
}

/* The session to decide on; an older append in flight here is ended first, if the request may do that. */
static enum api_code load_for_append(struct upload_service *svc, const struct upload_request *req, struct session *s,
                                     struct api_error *err)
{
    struct upload_token token;
    enum api_code code = upload_load(svc, &req->id, req->who, s, err);
    if (code != API_OK)
        return code;
    code = upload_decide_token(req, s, &token, err);
    if (code != API_OK)
        return code;
    struct upload_append *old = upload_live_find(svc, &req->id);
    if (!old)
        return API_OK;
    upload_settle_end_older(old);
    return upload_load(svc, &req->id, req->who, s, err);
}

/* An upload whose content is settled: completed, or (its session being lost) cut off just before. The body of a
 * repeated complete is what the content ends with, or its digest is wrong. */
static enum api_code answer_settled(struct upload_service *svc, const struct upload_request *req, struct session *s,
                                    struct upload_result *result, struct api_error *err)
{
    fill_view(s, result);
    if (!req->completes && s->state == SESSION_COMPLETED)
        return api_fail(err, API_UPLOAD_COMPLETED, "the upload is completed and takes no more bytes");
    if (!req->completes)
        return api_fail(err, API_UPLOAD_BUSY, "the upload is being completed; repeat the complete");
    if (req->has_digest && !digest_equal(&req->digest, &s->digest)) {
        api_fail_field(err, API_DIGEST_INVALID, "digest", "the upload was completed with another digest");
        digest_hex(&s->digest, err->expected);
        digest_hex(&req->digest, err->actual);
        return API_DIGEST_INVALID;
    }
    if (s->state != SESSION_COMPLETED)
        return upload_complete_committed(svc, s, result, err);
    return upload_complete_again(svc, s, result, err);
}

/* The store has completed the upload, perhaps but for its file: that is made now, and the session told, so that this
 * and every later request find one and the same. */
static enum api_code finish_cut_off(struct upload_service *svc, const struct upload_request *req, struct session *s,
                                    struct upload_result *result, struct api_error *err)
{
    struct upload_result ignored;
    memset(&ignored, 0, sizeof ignored);
    enum api_code code = upload_complete_committed(svc, s, &ignored, err);
    return code == API_OK ? answer_settled(svc, req, s, result, err) : code;
}

static bool needs_writer(const struct upload_request *req)
{
    return req->completes || !req->body_known || req->body_length > 0;
}

/* Of opening an upload for a body, where nothing failed. */
enum outcome {
    OUTCOME_BEGUN,
    OUTCOME_CHANGED, /* the session was: the rules must be asked again */
    OUTCOME_SETTLED, /* it takes no more bytes: the session is now what the store has made of it */
};

/*
 * The staged bytes are gone or shorter than the session says. A completion that was cut short by a crash explains it:
 * by its record, and the session becomes what that tells; or its blob is there, and the request goes on without
 * writing. Else the store's word is taken. Where the session was changed, the caller decides anew.
 */
static enum api_code explain_missing(struct upload_service *svc, const struct upload_request *req, struct session *s,
                                     enum append_mode *mode, enum outcome *outcome, struct api_error *err)
{
    struct blob_info info;
    struct blob_error detail;
    struct digest digest = req->digest;
    if (s->state == SESSION_OPEN) {
        enum api_code code = upload_recover_settle_gone(svc, s, err);
        if (code != API_OK)
            return code;
        if (s->state != SESSION_OPEN) {
            *outcome = OUTCOME_SETTLED;
            return API_OK;
        }
    }
    if (!req->completes || !req->has_digest)
        hash_peek(&s->hash, &digest);
    enum blob_status st = blob_stat(svc->store, &digest, &info, &detail);
    if (st == BLOB_OK && info.size >= s->mark.offset && hash_length(&s->hash) == s->mark.offset) {
        if (req->completes) {
            *mode = APPEND_REST;
            return API_OK;
        }
        return api_fail(err, API_UPLOAD_BUSY, "the upload is being completed; repeat the complete");
    }
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return upload_session_fail(svc, &s->id, "looking for its blob", st, &detail, err);
    return upload_recover_from_store(svc, s, err);
}

/* Opens the store's writer at the session's offset. */
static enum api_code open_writer(struct upload_append *a, const struct upload_request *req, struct session *s,
                                 bool contended, enum outcome *outcome, struct api_error *err)
{
    struct blob_error detail;
    struct upload_mark from = s->mark;
    from.contended = contended;
    enum blob_status st = staged_open(a->svc->store, &s->id, &from, s->writer_epoch, &a->writer, &detail);
    if (st == BLOB_OK)
        return API_OK;
    if (st == BLOB_E_CONFLICT)
        return api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    if (st != BLOB_E_NOT_FOUND)
        return upload_session_fail(a->svc, &s->id, "opening it", st, &detail, err);
    uint64_t was = s->mark.offset;
    enum api_code code = explain_missing(a->svc, req, s, &a->mode, outcome, err);
    if (code != API_OK || *outcome == OUTCOME_SETTLED || a->mode != APPEND_WRITE)
        return code;
    *outcome = OUTCOME_CHANGED;
    return s->mark.offset != was ? API_OK
                                 : upload_session_fail(a->svc, &s->id, "opening it", BLOB_E_UNAVAILABLE, &detail, err);
}

/* A complete that brings no bytes, and names the digest of what is there, or none. */
static bool completes_as_it_is(const struct upload_request *req, const struct session *s, struct digest *digest)
{
    hash_peek(&s->hash, digest);
    return upload_decide_adds_nothing(req) && (!req->has_digest || digest_equal(digest, &req->digest));
}

/*
 * On shared sessions a writer says so before it writes: that fences its predecessor, wherever it is. Others are told
 * only where there may be one: the session showed an append in flight, or was lost and shows nothing. What they are
 * told is the writer's epoch, which is later than theirs also where the session and its own epoch were lost, and this
 * node's clock is behind. A complete without bytes announces itself in the same change.
 */
static enum api_code claim(struct upload_append *a, const struct upload_request *req, struct session *s, bool contended,
                           struct api_error *err)
{
    struct upload_service *svc = a->svc;
    struct blob_error detail;
    struct digest digest;
    if (!(svc->sessions->caps & SESSIONS_SHARED) || a->mode == APPEND_REPEAT)
        return API_OK;
    bool tell = contended || s->epoch == 0;
    s->append_from = s->mark.offset;
    s->state = completes_as_it_is(req, s, &digest) ? SESSION_COMPLETING : SESSION_OPEN;
    if (s->state == SESSION_COMPLETING)
        s->digest = digest;
    enum blob_status st = upload_session_persist(svc, s, &detail);
    if (st == BLOB_E_CONFLICT) {
        api_fail(err, API_UPLOAD_BUSY, "another request for this upload came at the same moment; try again");
        err->retry_after_s = 1;
        return API_UPLOAD_BUSY;
    }
    if (st != BLOB_OK)
        return upload_settle_persist_failed(a, st, "claiming it", &detail, err);
    if (tell)
        session_announce(svc->sessions, &s->id, s->writer_epoch);
    return API_OK;
}

static enum api_code check_size(const struct upload_service *svc, uint64_t offset, uint64_t more, struct api_error *err)
{
    uint64_t max = svc->opt.max_size;
    if (max == 0 || (more <= max && offset <= max - more))
        return API_OK;
    return api_fail(err, API_SIZE_LIMIT_EXCEEDED, "an upload may have at most %" PRIu64 " bytes", max);
}

/* From a decided mode to an append that takes bytes. */
static enum api_code start_append(struct upload_service *svc, const struct upload_request *req, struct session *s,
                                  enum append_mode mode, bool contended, enum outcome *outcome,
                                  struct upload_append **out, struct api_error *err)
{
    enum api_code code = mode == APPEND_WRITE ? upload_recover_hash(svc, s, err) : API_OK;
    if (code == API_OK && mode == APPEND_WRITE && req->body_known)
        code = check_size(svc, s->mark.offset, req->body_length, err);
    if (code != API_OK)
        return code;
    struct upload_append *a = append_new(svc, req, s, mode);
    if (!a)
        return api_fail_status(err, BLOB_E_NO_MEMORY);
    s->writer_epoch = upload_session_next_epoch(s->writer_epoch);
    code = claim(a, req, s, contended, err);
    if (code == API_OK && mode == APPEND_WRITE && needs_writer(req))
        code = open_writer(a, req, s, contended, outcome, err);
    if (code != API_OK || *outcome != OUTCOME_BEGUN) {
        upload_append_unref(a);
        return code;
    }
    a->s = *s;
    upload_live_add(a);
    *out = a;
    return API_OK;
}

/* For where nothing else stores the session: what its client has shown and is told must not be forgotten. */
static void remember(struct upload_service *svc, struct session *s, bool changed)
{
    struct blob_error detail;
    if (changed && upload_session_persist(svc, s, &detail) != BLOB_OK)
        log_line(svc->log, LOG_DEBUG, NULL, "upload %s: %s", s->id.text, detail.text);
}

/*
 * The store had less than the session said, and its word was taken. That is stored before anybody is told, or the next
 * request would be told the other offset again; and no byte is added, whatever the request showed: what its client
 * sends belongs behind bytes that are not there.
 */
static enum api_code refuse_behind_missing(struct upload_service *svc, struct session *s, uint64_t was_at,
                                           struct api_error *err)
{
    struct blob_error detail;
    enum blob_status st = upload_session_persist(svc, s, &detail);
    if (st == BLOB_E_CONFLICT)
        return api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "taking the store's word", st, &detail, err);
    api_fail(err, API_UPLOAD_OFFSET_MISMATCH, "stored bytes are missing: the upload continues at an earlier offset");
    snprintf(err->expected, sizeof err->expected, "%" PRIu64, s->mark.offset);
    snprintf(err->actual, sizeof err->actual, "%" PRIu64, was_at);
    return API_UPLOAD_OFFSET_MISMATCH;
}

static enum api_code decide_and_start(struct upload_service *svc, const struct upload_request *req, struct session *s,
                                      struct upload_append **out, struct upload_result *result, struct api_error *err)
{
    bool contended = upload_session_is_contended(svc, s), busy = upload_session_is_busy(svc, s),
         was_rotating = s->rotating;
    enum append_mode mode = APPEND_WRITE;
    enum outcome outcome = OUTCOME_BEGUN;
    uint64_t was_at = s->mark.offset;
    enum api_code code = upload_recover_settle(svc, s, err);
    if (code == API_OK && req->completes && s->state == SESSION_OPEN)
        code = upload_recover_settle_completed(svc, s, err);
    if (code != API_OK)
        return code;
    if (s->state != SESSION_OPEN)
        return answer_settled(svc, req, s, result, err);
    bool moved = s->mark.offset != was_at && !busy;
    code = upload_decide_append(req, svc->store->caps & STORE_READ_STAGED, s, &mode, err);
    if (code == API_OK && mode == APPEND_WAITS) {
        result->waits = true;
        return API_OK;
    }
    if (mode == APPEND_REPEAT || code == API_UPLOAD_OFFSET_MISMATCH)
        remember(svc, s, moved || (s->rotating && !was_rotating));
    if (code == API_OK) {
        was_at = s->mark.offset;
        code = start_append(svc, req, s, mode, contended, &outcome, out, err);
        if (code == API_SIZE_LIMIT_EXCEEDED)
            remember(svc, s, moved || (s->rotating && !was_rotating));
    }
    if (code == API_OK && outcome == OUTCOME_SETTLED)
        return finish_cut_off(svc, req, s, result, err);
    if (code == API_OK && outcome == OUTCOME_CHANGED)
        code = refuse_behind_missing(svc, s, was_at, err);
    if (code == API_UPLOAD_OFFSET_MISMATCH || code == API_SIZE_LIMIT_EXCEEDED) {
        metric_add(svc->metrics.mismatches, 1);
        fill_view(s, result);
    }
    return code;
}

/*
 * Goes on from the session as this node stored it last. false: that cannot be, or may not, and nothing was changed:
 * load the session and decide on it. true: its claim was made, whatever came of it.
 */
static bool start_recalled(struct upload_service *svc, const struct upload_request *req, struct upload_append **out,
                           enum api_code *code, struct api_error *err)
{
    struct session s;
    struct upload_append *a = NULL;
    enum append_mode mode;
    enum outcome outcome = OUTCOME_BEGUN;
    if (upload_live_find(svc, &req->id) || !upload_recall_take(svc, &req->id, &s) ||
        !upload_session_may_use(&s, req->who))
        return false;
    if (upload_recover_settle(svc, &s, err) != API_OK || s.state != SESSION_OPEN || s.tried ||
        upload_decide_append(req, svc->store->caps & STORE_READ_STAGED, &s, &mode, err) != API_OK ||
        mode != APPEND_WRITE)
        return false;
    *code = start_append(svc, req, &s, mode, false, &outcome, &a, err);
    if (s.recalled || outcome != OUTCOME_BEGUN)
        return false;
    *out = a;
    return true;
}

enum api_code upload_append_begin(struct upload_service *svc, const struct upload_request *req,
                                  struct upload_append **out, struct upload_result *result, struct api_error *err)
{
    struct session s;
    memset(result, 0, sizeof *result);
    *out = NULL;
    enum api_code code;
    if (start_recalled(svc, req, out, &code, err))
        return code;
    code = load_for_append(svc, req, &s, err);
    if (code != API_OK)
        return code;
    if (s.state == SESSION_COMPLETED || (s.state == SESSION_COMPLETING && s.epoch == 0))
        return answer_settled(svc, req, &s, result, err);
    /* Not even a complete takes it over: the other may have made its blob already, and each would make a file. */
    if (s.state == SESSION_COMPLETING && upload_session_is_busy(svc, &s)) {
        code = upload_recover_completing(svc, &s, err);
        if (code != API_OK)
            return code;
        return s.state == SESSION_COMPLETED || !req->completes ? answer_settled(svc, req, &s, result, err)
                                                               : finish_cut_off(svc, req, &s, result, err);
    }
    s.state = SESSION_OPEN;
    return decide_and_start(svc, req, &s, out, result, err);
}

uint64_t upload_append_offset(const struct upload_append *a)
{
    return a->start; /* set once, in begin */
}

/* ---- write ------------------------------------------------------------------------------------------------------ */

/* Parts that are written together, as far as they reach without crossing the end of one of the store's own. */
struct run {
    struct iovec parts[RUN_PARTS];
    int count;
    size_t len;
};

/* Takes a run of at most `most` bytes off the beginning of parts. */
static void run_take(struct run *run, struct iovec **parts, int *count, uint64_t most)
{
    run->count = 0;
    run->len = 0;
    while (*count > 0 && run->count < RUN_PARTS && run->len < most) {
        struct iovec *from = *parts;
        size_t left = most - run->len < from->iov_len ? (size_t)(most - run->len) : from->iov_len;
        run->parts[run->count++] = (struct iovec){.iov_base = from->iov_base, .iov_len = left};
        run->len += left;
        from->iov_base = (uint8_t *)from->iov_base + left;
        from->iov_len -= left;
        if (from->iov_len > 0)
            return;
        (*parts)++;
        (*count)--;
    }
}

static enum api_code write_new(struct upload_append *a, const struct run *run)
{
    struct blob_error detail;
    bool aside = run->len >= SIDE_BYTES;
    if (aside)
        side_hash_begin(&a->side, a->svc->pool, &a->hash, run->parts, run->count);
    enum blob_status st = writer_write(a->writer, run->parts, run->count, &detail);
    const struct hash *side = aside ? side_hash_end(&a->side) : NULL;
    if (st != BLOB_OK)
        return upload_session_fail(a->svc, &a->id, "writing", st, &detail, &a->error);
    if (side)
        a->hash = *side;
    else
        side_hash_parts(&a->hash, run->parts, run->count);
    return API_OK;
}

static enum api_code check_flush(struct upload_append *a)
{
    pthread_mutex_lock(&a->lock);
    bool fenced = a->fenced;
    enum blob_status st = a->flush_status;
    struct blob_error detail = a->flush_error;
    pthread_mutex_unlock(&a->lock);
    if (fenced)
        return api_fail(&a->error, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    if (st != BLOB_OK)
        return upload_session_fail(a->svc, &a->id, "making a checkpoint", st, &detail, &a->error);
    return API_OK;
}

static enum api_code take(struct upload_append *a, const struct run *run)
{
    if (a->has_length && run->len > a->length - a->received) {
        a->roll_back = true;
        return api_fail_field(&a->error, API_VALIDATE_FAILED, "Content-Range",
                              "the range covers %" PRIu64 " bytes and the body has more", a->length);
    }
    if (a->mode != APPEND_WRITE) {
        side_hash_parts(&a->hash, run->parts, run->count);
        return API_OK;
    }
    enum api_code code = check_size(a->svc, a->start + a->received, run->len, &a->error);
    if (code == API_OK)
        code = write_new(a, run);
    return code;
}

static void write_run(struct upload_append *a, const struct run *run)
{
    a->failed = take(a, run);
    if (a->failed != API_OK)
        return;
    a->received += run->len;
    atomic_store(&a->written, a->start + a->received);
    metric_add(a->svc->metrics.bytes, (int64_t)run->len);
    if (a->mode == APPEND_WRITE) {
        upload_checkpoint_maybe(a);
        a->failed = check_flush(a);
    }
}

enum api_code upload_append_write(struct upload_append *a, struct iovec *parts, int count, struct api_error *err)
{
    MAGIC_OK(a, APPEND_MAGIC);
    size_t part = a->svc->store->part_bytes;
    while (count > 0 && a->failed == API_OK) {
        /* Up to a part's end and on from there, so that there is a hash to make a checkpoint with. */
        struct run run;
        run_take(&run, &parts, &count, part ? part - (a->start + a->received) % part : UINT64_MAX);
        write_run(a, &run);
    }
    if (a->failed != API_OK)
        *err = a->error;
    return a->failed;
}

enum api_code upload_append_write_bytes(struct upload_append *a, const void *data, size_t len, struct api_error *err)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return upload_append_write(a, &part, 1, err);
}

/* ---- end -------------------------------------------------------------------------------------------------------- */

static bool same_as_staged(struct upload_append *a, const struct digest *actual, struct blob_error *detail)
{
    struct hash h;
    const struct session_chunk *chunk = &a->s.chunk;
    uint8_t *buf = malloc(HASH_READ_BYTES);
    hash_init(&h);
    bool ok = buf != NULL;
    while (ok && hash_length(&h) < chunk->length) {
        uint64_t left = chunk->length - hash_length(&h);
        size_t got = 0;
        ok = staged_read(a->svc->store, &a->id, chunk->offset + hash_length(&h), buf,
                         left < HASH_READ_BYTES ? (size_t)left : HASH_READ_BYTES, &got, detail) == BLOB_OK &&
             got > 0;
        if (ok)
            hash_update(&h, buf, got);
    }
    free(buf);
    struct digest stored;
    hash_peek(&h, &stored);
    return ok && digest_equal(&stored, actual);
}

/* A repeat has come whole: is it the last chunk again? */
static enum api_code end_repeat(struct upload_append *a, struct api_error *err)
{
    struct digest actual;
    struct blob_error detail = {0};
    struct digest upload;
    hash_peek(&a->hash, &actual);
    hash_peek(&a->s.hash, &upload);
    bool same = a->received == a->s.chunk.length &&
                (a->by_hash ? digest_equal(&actual, &upload) : same_as_staged(a, &actual, &detail));
    if (same) {
        metric_add(a->svc->metrics.repeats, 1);
        return API_OK;
    }
    metric_add(a->svc->metrics.mismatches, 1);
    return api_fail(err, API_UPLOAD_OFFSET_MISMATCH,
                    "the token is older than the upload and the body is not its last chunk again; nothing was written");
}

/* What follows the last byte; a->failed where bytes were refused. */
static enum api_code finish(struct upload_append *a, enum upload_body_end how, struct upload_result *result,
                            struct api_error *err)
{
    bool whole = how == UPLOAD_BODY_WHOLE && a->failed == API_OK;
    if (whole && a->has_length && a->received != a->length) {
        a->roll_back = true;
        a->failed =
            api_fail_field(&a->error, API_VALIDATE_FAILED, "Content-Range",
                           "the range covers %" PRIu64 " bytes and the body has %" PRIu64, a->length, a->received);
        whole = false;
    }
    if (whole && a->completes)
        return upload_complete_finish(a, result, err);
    if (whole && a->mode == APPEND_REPEAT)
        return end_repeat(a, err);

    enum api_code code = API_OK;
    if (a->roll_back)
        code = upload_settle_roll_back(a, err);
    else if (a->mode == APPEND_WRITE)
        code = upload_settle(a, err);
    if (whole || code != API_OK) {
        metric_add(a->svc->metrics.appends, 1);
        return code;
    }
    metric_add(a->svc->metrics.cut, 1);
    if (a->failed == API_OK)
        return api_fail(err, API_BAD_REQUEST, "the body ended early; what arrived is kept");
    *err = a->error;
    return a->failed;
}

enum api_code upload_append_end(struct upload_append *a, enum upload_body_end how, struct upload_result *result,
                                struct api_error *err)
{
    enum api_code code;
    MAGIC_OK(a, APPEND_MAGIC);
    memset(result, 0, sizeof *result);
    if (a->over) {
        *err = a->error;
        code = a->failed;
    } else {
        upload_live_remove(a);
        code = finish(a, how, result, err);
    }
    if (code == API_UPLOAD_SUPERSEDED && a->destroyed) /* nothing continues it */
        code = api_fail(err, API_UPLOAD_UNKNOWN, "the upload was destroyed meanwhile");
    if (!result->completed && code != API_UPLOAD_UNKNOWN && !a->fenced)
        fill_view(&a->s, result);
    writer_close(a->writer);
    a->writer = NULL;
    upload_append_unref(a);
    return code;
}
