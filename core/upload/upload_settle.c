/*
 * upload_settle - how an append ends: what it wrote is flushed and counted, or taken back, or ended by a newer one.
 */
#include "core/upload/upload_internal.h"

#include <string.h>

static void set_session(struct upload_append *a, const struct session *s)
{
    pthread_mutex_lock(&a->lock);
    a->s = *s;
    pthread_mutex_unlock(&a->lock);
}

/* Ends an append at its last checkpoint: what is durable, and all that a status can have told, is counted. */
static enum blob_status end_at_checkpoint(struct upload_append *a, struct blob_error *detail)
{
    struct session next = a->s;
    next.append_from = a->start;
    upload_session_count_append(&next);
    enum blob_status st = upload_session_persist(a->svc, &next, detail);
    if (st == BLOB_OK)
        set_session(a, &next);
    return st;
}

/*
 * What came after the last checkpoint goes: the newer request is from a client that goes on where it was told the
 * upload stands, and must find it there.
 */
void upload_settle_end_older(struct upload_append *old)
{
    struct blob_error detail;
    struct upload_service *svc = old->svc;
    upload_live_notify(old);
    upload_live_remove(old);
    if (old->mode == APPEND_WRITE) {
        upload_checkpoint_wait(old);
        if (!old->fenced && end_at_checkpoint(old, &detail) != BLOB_OK)
            log_line(svc->log, LOG_WARN, NULL, "upload %s: a superseded append was not counted: %s", old->id.text,
                     detail.text);
    }
    writer_close(old->writer);
    old->writer = NULL;
    old->over = true;
    old->failed = api_fail(&old->error, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    metric_add(svc->metrics.superseded, 1);
}

/* A session that could not be moved: lost to another writer, or the upload is gone, or try again. */
enum api_code upload_settle_persist_failed(struct upload_append *a, enum blob_status st, const char *what,
                                           const struct blob_error *detail, struct api_error *err)
{
    if (st == BLOB_E_CONFLICT)
        return api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    if (st == BLOB_E_NOT_FOUND)
        return api_fail(err, API_UPLOAD_UNKNOWN, "the upload was destroyed meanwhile");
    return upload_session_fail(a->svc, &a->id, what, st, detail, err);
}

enum api_code upload_settle(struct upload_append *a, struct api_error *err)
{
    struct blob_error detail = {0};
    upload_checkpoint_wait(a);
    if (a->fenced)
        return api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");

    struct session next = a->s;
    next.append_from = a->start;
    next.hash = a->hash;
    next.mark.offset = a->start + a->received;
    if (a->received > 0)
        upload_checkpoint_note_before(a, &next);
    upload_session_count_append(&next);
    enum blob_status st;
    if (a->received > 0)
        st = upload_checkpoint_flush(a, &next, a->start + a->received, &detail);
    else
        st = upload_session_persist(a->svc, &next, &detail);
    if (st == BLOB_OK) {
        set_session(a, &next);
        return API_OK;
    }
    if (st == BLOB_E_CONFLICT || st == BLOB_E_NOT_FOUND)
        return upload_settle_persist_failed(a, st, "ending an append", &detail, err);

    struct blob_error ignored;
    if (end_at_checkpoint(a, &ignored) != BLOB_OK)
        log_line(a->svc->log, LOG_DEBUG, NULL, "upload %s: %s", a->id.text, ignored.text);
    return upload_settle_persist_failed(a, st, "ending an append", &detail, err);
}

enum api_code upload_settle_roll_back(struct upload_append *a, struct api_error *err)
{
    struct blob_error detail = {0};
    CHECK(a->before != NULL);
    upload_checkpoint_wait(a);
    writer_close(a->writer);
    a->writer = NULL;
    if (a->fenced)
        return api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    struct session next = *a->before;
    next.epoch = a->s.epoch;
    next.writer_epoch = a->s.writer_epoch;
    next.tried_epoch = a->s.tried_epoch;
    next.append_from = NO_APPEND;
    /* The session first: cut off in between, it must not tell of bytes that the store has let go. */
    enum blob_status st = upload_session_persist(a->svc, &next, &detail);
    if (st == BLOB_OK)
        set_session(a, &next);
    if (st == BLOB_OK && a->mode == APPEND_WRITE && a->received > 0) {
        st = staged_open(a->svc->store, &a->id, &next.mark, next.writer_epoch, &a->writer, &detail);
        writer_close(a->writer);
        a->writer = NULL;
    }
    return st == BLOB_OK ? API_OK : upload_settle_persist_failed(a, st, "ending an append", &detail, err);
}
