/*
 * upload_complete - from the last byte to the file: upload record, blob, file record, session, in this order.
 *
 * Each step can be repeated, and each leaves what the next needs to find it done: a crash anywhere in between is
 * healed by the client's own repeat of the complete. The record goes first, so that no moment finds the content without
 * anything that leads from the upload to it. The first two ride on the third's sync (BLOB_LAZY), so that a completion
 * waits for stable storage once. Nothing is answered before it.
 */
#include "core/upload/upload_internal.h"

#include <stdio.h>
#include <string.h>

static void fill_file(const struct session *s, struct file_record *file)
{
    memset(file, 0, sizeof *file);
    memcpy(file->name, s->filename, sizeof file->name);
    memcpy(file->owner, s->owner, sizeof file->owner);
    snprintf(file->media_type, sizeof file->media_type, "%s", media_type_of_name(s->filename));
    file->digest = s->digest;
    file->number = s->file_number;
    file->size = s->mark.offset;
    file->temporary = s->temporary;
    file->created_ms = s->completed_ms;
    file->upload = s->id;
    file_id_make(file);
}

static void complete_result(const struct session *s, struct upload_result *result)
{
    upload_session_view(s, false, &result->view);
    result->has_view = true;
    result->completed = true;
}

enum api_code upload_complete_again(struct upload_service *svc, const struct session *s, struct upload_result *result,
                                    struct api_error *err)
{
    struct blob_error detail;
    struct file_record *file = &result->file;
    enum blob_status st = file_catalog_find(svc->catalog, &s->digest, s->file_number, &s->id, file, &detail);
    if (st == BLOB_E_NOT_FOUND ||
        (st == BLOB_OK && file->expires_ms != 0 && file->expires_ms <= node_clock_at_least_ms(svc->sessions->clock)))
        return api_fail(err, API_UPLOAD_COMPLETED, "the upload was completed, and its file has been destroyed since");
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "looking for its file", st, &detail, err);
    complete_result(s, result);
    return API_OK;
}

static enum api_code wrong_digest(struct upload_append *a, const struct digest *actual, struct api_error *err)
{
    enum api_code code = upload_settle_roll_back(a, err);
    if (code != API_OK)
        return code;
    api_fail_field(err, API_DIGEST_INVALID, "digest",
                   "the content does not have this digest; the upload is kept as it was before "
                   "this request");
    digest_hex(&a->expected, err->expected);
    digest_hex(actual, err->actual);
    return API_DIGEST_INVALID;
}

/* Do the staged bytes, which a late writer may have changed, still hash to what was received? */
static enum api_code verify_staged(struct upload_append *a, struct api_error *err)
{
    struct session probe = a->s;
    struct digest digest;
    hash_init(&probe.hash);
    probe.mark.offset = a->start + a->received;
    enum api_code code = upload_recover_hash(a->svc, &probe, err);
    if (code != API_OK)
        return code;
    hash_peek(&probe.hash, &digest);
    if (digest_equal(&digest, &a->expected))
        return API_OK;
    log_line(a->svc->log, LOG_ERROR, NULL,
             "upload %s: the staged bytes were changed by another writer; starting it over", a->id.text);
    memset(&a->before->mark, 0, sizeof a->before->mark);
    hash_init(&a->before->hash);
    a->before->chunk.length = 0;
    a->before->rehash = false;
    a->before->appends = a->s.appends + 1;
    code = upload_settle_roll_back(a, err);
    if (code != API_OK)
        return code;
    return api_fail(err, API_UPLOAD_OFFSET_MISMATCH, "the stored bytes were damaged; the upload starts again at 0");
}

/* On shared sessions: nobody else may take the upload for open while its bytes become a blob. Where no bytes came, the
 * claim has said so. */
static enum api_code announce_completing(struct upload_append *a, struct session *next, struct api_error *err)
{
    struct blob_error detail;
    a->announced_us = clock_steady_us();
    if (!(a->svc->sessions->caps & SESSIONS_SHARED) || a->s.state == SESSION_COMPLETING)
        return API_OK;
    struct session completing = a->s;
    completing.state = SESSION_COMPLETING;
    completing.digest = a->expected;
    completing.append_from = a->start;
    enum blob_status st = upload_session_persist(a->svc, &completing, &detail);
    if (st == BLOB_OK) {
        pthread_mutex_lock(&a->lock);
        a->s.epoch = completing.epoch;
        pthread_mutex_unlock(&a->lock);
        next->epoch = completing.epoch;
        return API_OK;
    }
    return upload_settle_persist_failed(a, st, "completing it", &detail, err);
}

/* What the clocks disagree about is added: whichever is right, the file has its whole time. */
static int64_t end_of_file(const struct upload_service *svc, const struct session *s)
{
    struct node_clock *clock = svc->sessions->clock;
    int64_t doubt_ms = node_clock_at_most_ms(clock) - node_clock_best_ms(clock);
    return s->completed_ms + svc->opt.temp_file_retention_ms + (doubt_ms > CLOCK_STEP_MS ? doubt_ms : 0);
}

/* Names the blob, which the caller has committed or touched just now; *file is the file, made now or by an earlier try;
 * after OK store_completed() follows. */
static enum blob_status make_file(struct upload_service *svc, struct session *s, struct file_record *file,
                                  struct file_row *row, struct blob_error *detail)
{
    s->file_number = file_number(s->created_ms, &s->id);
    fill_file(s, file);
    if (s->temporary)
        file->expires_ms = end_of_file(svc, s);
    unsigned flags = svc->opt.sync == UPLOAD_SYNC_NEVER ? BLOB_LAZY : 0;
    enum blob_status st = file_catalog_add_begin(svc->catalog, file, flags, row, detail);
    if (st != BLOB_OK)
        return st;
    s->file_number = file->number;
    s->state = SESSION_COMPLETED;
    return BLOB_OK;
}

/* A commit that took so long (a large object, a slow store) that others may have begun to take this node for dead, and
 * have gone on with the upload: the file is made only if none has. */
static enum blob_status still_completing(struct upload_append *a, struct session *next, struct blob_error *detail)
{
    struct upload_service *svc = a->svc;
    if (!(svc->sessions->caps & SESSIONS_SHARED) || clock_steady_us() - a->announced_us < svc->opt.lease_ms * 500)
        return BLOB_OK;
    struct session ours = *next;
    ours.append_from = a->start;
    enum blob_status st = upload_session_persist(svc, &ours, detail);
    if (st == BLOB_OK) {
        next->epoch = ours.epoch;
        pthread_mutex_lock(&a->lock);
        a->s.epoch = ours.epoch;
        pthread_mutex_unlock(&a->lock);
    }
    return st;
}

/* The steps that make it true; each may be repeated. */
static enum blob_status make_true(struct upload_append *a, struct session *next, struct file_record *file,
                                  struct file_row *row, const char **what, struct blob_error *detail)
{
    struct upload_service *svc = a->svc;
    *what = "recording its completion";
    next->state = SESSION_COMPLETING;
    next->file_number = file_number(next->created_ms, &next->id);
    enum blob_status st = upload_session_put_record(svc, next, BLOB_LAZY, detail);
    if (st != BLOB_OK)
        return st;
    *what = "turning it into a blob";
    st = a->mode == APPEND_WRITE ? writer_commit(a->writer, &next->digest, BLOB_LAZY, detail)
                                 : blob_touch(svc->store, &next->digest, NULL, detail);
    if (st != BLOB_OK)
        return st;
    if (a->mode == APPEND_WRITE)
        a->writer = NULL;
    *what = "writing its file record";
    st = still_completing(a, next, detail);
    if (st != BLOB_OK)
        return st;
    return make_file(svc, next, file, row, detail);
}

/* Lists the file and moves the session, in this order or at once: whoever sees it completed asks for no row any more.
 * The records say it all; a session that cannot be moved only makes the next look at it slower. */
static void store_completed(struct upload_service *svc, struct session *s, const struct file_record *file,
                            struct file_row *row)
{
    struct blob_error detail;
    enum blob_status st = upload_session_persist_listed(svc, s, row->put.row ? &row->put : NULL, &detail);
    file_catalog_add_end(svc->catalog, file, row);
    if (st != BLOB_OK) {
        atomic_store(&svc->left_behind, true);
        log_line(svc->log, LOG_WARN, NULL, "upload %s: completed, but its session was not moved: %s: %s", s->id.text,
                 blob_status_name(st), detail.text);
    }
    metric_add(svc->metrics.completed, 1);
}

/* What an earlier try did not come to clear away. The sweep takes what stays. */
static void drop_staged(struct upload_service *svc, const struct uuid *id)
{
    struct blob_error why;
    if (staged_discard(svc->store, id, NULL, &why) != BLOB_OK)
        log_line(svc->log, LOG_WARN, NULL, "upload %s: completed, and something stays staged for now: %s", id->text,
                 why.text);
}

enum api_code upload_complete_committed(struct upload_service *svc, struct session *s, struct upload_result *result,
                                        struct api_error *err)
{
    struct blob_error detail;
    struct file_row row;
    enum blob_status st = blob_touch(svc->store, &s->digest, NULL, &detail);
    if (st == BLOB_OK)
        st = make_file(svc, s, &result->file, &row, &detail);
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "completing what was cut off", st, &detail, err);
    store_completed(svc, s, &result->file, &row);
    drop_staged(svc, &s->id);
    complete_result(s, result);
    return API_OK;
}

/*
 * A step found that the upload is another request's by now, on another node: the staged bytes, or the right to them,
 * are gone. Where that one completed it with the same content, this answers as it did.
 */
static bool was_overtaken(struct upload_append *a, enum blob_status st, struct upload_result *result,
                          enum api_code *code, struct api_error *err)
{
    struct session now;
    if (!(a->svc->sessions->caps & SESSIONS_SHARED) || (st != BLOB_E_NOT_FOUND && st != BLOB_E_CONFLICT))
        return false;
    *code = upload_load(a->svc, &a->id, NULL, &now, err);
    if (*code != API_OK)
        return true;
    /* CONFLICT is the store's own word for it: that request has the bytes, and is about to move the session. */
    if (now.epoch == a->s.epoch && st != BLOB_E_CONFLICT)
        return false;
    if (now.state == SESSION_COMPLETED && digest_equal(&now.digest, &a->expected))
        *code = upload_complete_again(a->svc, &now, result, err);
    else
        *code = api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    return true;
}

enum api_code upload_complete_finish(struct upload_append *a, struct upload_result *result, struct api_error *err)
{
    struct upload_service *svc = a->svc;
    struct digest actual;
    struct blob_error detail = {0};
    struct file_row row;
    const char *what;

    hash_peek(&a->hash, &actual);
    if (a->has_expected && !digest_equal(&actual, &a->expected))
        return wrong_digest(a, &actual, err);
    a->expected = actual;
    upload_checkpoint_wait(a);
    if (a->fenced)
        return api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    enum api_code code = a->s.rehash && a->mode == APPEND_WRITE ? verify_staged(a, err) : API_OK;
    if (code == API_UNKNOWN && was_overtaken(a, BLOB_E_NOT_FOUND, result, &code, err)) /* who else cut them short */
        return code;
    struct session next = a->s;
    if (code == API_OK)
        code = announce_completing(a, &next, err);
    if (code != API_OK)
        return code;

    next.append_from = a->start;
    next.mark.offset = a->start + a->received;
    upload_session_count_append(&next);
    next.hash = a->hash;
    next.mark.state_len = 0;
    next.digest = actual;
    next.completed_ms = node_clock_best_ms(svc->sessions->clock);
    enum blob_status st = make_true(a, &next, &result->file, &row, &what, &detail);
    if (st != BLOB_OK) {
        struct api_error ignored;
        if (was_overtaken(a, st, result, &code, err))
            return code;
        code = upload_session_fail(svc, &a->id, what, st, &detail, err);
        a->before->tried = true;
        if (upload_settle_roll_back(a, &ignored) != API_OK) {
            atomic_store(&svc->left_behind, true);
            log_line(svc->log, LOG_DEBUG, NULL, "upload %s: %s", a->id.text, ignored.text);
        }
        return code;
    }
    store_completed(svc, &next, &result->file, &row);
    if (a->mode != APPEND_WRITE)
        drop_staged(svc, &a->id);
    pthread_mutex_lock(&a->lock);
    a->s = next;
    pthread_mutex_unlock(&a->lock);
    complete_result(&next, result);
    return API_OK;
}
