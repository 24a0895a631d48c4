/*
 * upload_recover - sessions made anew from the blob store, where the session store lost them or has older ones.
 *
 * The store is the truth. A lost session is made again from the record uploads/<id> and the staged bytes. An old one (a
 * shared session store that was restarted with old data) is brought forward to what the store has.
 */
#include "core/session/upload_record.h"
#include "core/upload/upload_internal.h"

#include <stdlib.h>
#include <string.h>

/* Sets progress from what the store says. */
static enum blob_status progress_from_stat(struct session *s, const struct staged_stat *stat)
{
    struct session next = *s;
    if (stat->epoch > next.writer_epoch) /* by a clock that was ahead of ours, maybe: the next writer's is beyond it */
        next.writer_epoch = stat->epoch;
    if (stat->keep_len > 0) {
        enum blob_status st = session_decode_progress(stat->keep, stat->keep_len, &next);
        if (st != BLOB_OK)
            return st;
        if (hash_length(&next.hash) > stat->mark.offset)
            return BLOB_E_CORRUPT;
    }
    next.mark = stat->mark;
    *s = next;
    return BLOB_OK;
}

/* The staged bytes of an open upload whose session is lost. */
static enum api_code rebuild_progress(struct upload_service *svc, struct session *s, struct api_error *err)
{
    struct blob_error detail;
    struct staged_stat stat;
    int64_t last_ms = s->created_ms;
    enum blob_status st = staged_stat(svc->store, &s->id, &stat, &detail);
    if (st == BLOB_OK) {
        s->appends_known = stat.mark.offset == 0;
        st = progress_from_stat(s, &stat);
        if (st != BLOB_OK)
            blob_fail(&detail, st, 0, "the kept progress of the upload cannot be read");
        if (stat.modified_ms > last_ms)
            last_ms = stat.modified_ms;
    } else if (st == BLOB_E_NOT_FOUND) {
        s->appends_known = true;
        st = BLOB_OK;
    }
    if (st == BLOB_E_CORRUPT) /* as it came: it may come whole another time, and nothing is given up before */
        st = BLOB_E_UNAVAILABLE;
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "rebuilding the session", st, &detail, err);
    if (last_ms + svc->opt.timeout_ms < node_clock_at_least_ms(svc->sessions->clock))
        return upload_session_unknown(err);
    return API_OK;
}

/* Bytes that are staged no more, and have become the blob that the record names? gone: that they are no more staged is
 * known. */
static enum blob_status is_committed(struct upload_service *svc, const struct session *s, bool gone, bool *committed,
                                     struct blob_error *detail)
{
    struct staged_stat stat;
    struct blob_info info;
    *committed = false;
    enum blob_status st = gone ? BLOB_E_NOT_FOUND : staged_stat(svc->store, &s->id, &stat, detail);
    if (st == BLOB_E_NOT_FOUND) {
        st = blob_stat(svc->store, &s->digest, &info, detail);
        *committed = st == BLOB_OK && info.size == s->mark.offset && s->mark.offset > 0;
    }
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

/*
 * What became of an upload that was about to complete: that it did, its file tells, or its record where that file has
 * been destroyed since; that it was cut off between its
 * blob and its file, the staged bytes, by being gone: then s stays SESSION_COMPLETING. Otherwise it did not, and is
 * SESSION_OPEN. UPLOAD_UNKNOWN: it did, longer ago than repeats are answered.
 */
static enum api_code judge_completion(struct upload_service *svc, struct session *s, bool gone, struct api_error *err)
{
    struct file_record file;
    struct blob_error detail;
    bool committed = false;
    int64_t keep_ms = svc->opt.timeout_ms;
    enum blob_status st = file_catalog_find(svc->catalog, &s->digest, s->file_number, &s->id, &file, &detail);
    if (st == BLOB_OK) {
        s->state = SESSION_COMPLETED;
        s->file_number = file.number;
        s->completed_ms = file.created_ms;
        keep_ms = svc->opt.completed_retention_ms;
        file_catalog_list_again(svc->catalog, &file);
    } else if (st == BLOB_E_NOT_FOUND && s->file_gone) {
        s->state = SESSION_COMPLETED;
        keep_ms = svc->opt.completed_retention_ms;
        st = BLOB_OK;
    } else if (st == BLOB_E_NOT_FOUND) {
        st = is_committed(svc, s, gone, &committed, &detail);
    }
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "looking for its file", st, &detail, err);
    if (s->state == SESSION_COMPLETED || committed)
        return s->completed_ms + keep_ms < node_clock_at_least_ms(svc->sessions->clock) ? upload_session_unknown(err)
                                                                                        : API_OK;
    s->state = SESSION_OPEN;
    return API_OK;
}

static enum api_code rebuild_completion(struct upload_service *svc, struct session *s, struct api_error *err)
{
    enum api_code code = judge_completion(svc, s, false, err);
    if (code != API_OK || s->state != SESSION_OPEN)
        return code;
    s->mark.offset = 0;
    return rebuild_progress(svc, s, err);
}

/* NOT_FOUND: destroyed, or completed long ago: it is written before the session. */
static enum blob_status read_upload_record(struct upload_service *svc, const struct uuid *id, struct session *s,
                                           struct blob_error *detail)
{
    char key[RECORD_KEY_MAX];
    struct bytebuf value;
    memset(s, 0, sizeof *s);
    upload_record_key(id, key);
    bytebuf_init(&value);
    enum blob_status st = record_get(svc->store, key, &value, detail);
    if (st == BLOB_OK && upload_record_decode(value.data, value.len, s) != BLOB_OK)
        st = blob_fail(detail, BLOB_E_CORRUPT, 0, "the record %s is damaged", key);
    bytebuf_release(&value);
    return st;
}

enum api_code upload_recover_rebuild(struct upload_service *svc, const struct uuid *id, struct session *s,
                                     struct api_error *err)
{
    struct blob_error detail;
    enum blob_status st = read_upload_record(svc, id, s, &detail);
    if (st == BLOB_E_NOT_FOUND)
        return upload_session_unknown(err);
    if (st != BLOB_OK)
        return upload_session_fail(svc, id, "reading its record", st, &detail, err);
    return s->state == SESSION_OPEN ? rebuild_progress(svc, s, err) : rebuild_completion(svc, s, err);
}

/* Neither bytes nor a record, which was there before the session was: the upload was destroyed, and the session is one
 * that its store has brought back. */
static enum api_code forget_destroyed(struct upload_service *svc, const struct session *s, struct api_error *err)
{
    struct blob_error detail;
    enum blob_status st = session_remove(svc->sessions, &s->id, &detail);
    log_line(svc->log, LOG_INFO, NULL, "upload %s: it was destroyed, its session is old%s%s", s->id.text,
             st == BLOB_OK ? "" : ", and stays: ", st == BLOB_OK ? "" : detail.text);
    return upload_session_unknown(err);
}

/* What the record knows beyond the session. UPLOAD_UNKNOWN: there is none. */
static enum api_code settle_by_record(struct upload_service *svc, struct session *s, bool gone, struct api_error *err)
{
    struct blob_error detail;
    struct session made;
    enum blob_status st = read_upload_record(svc, &s->id, &made, &detail);
    if (st == BLOB_E_NOT_FOUND)
        return forget_destroyed(svc, s, err);
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "reading its record", st, &detail, err);
    s->asked = true;
    if (made.state == SESSION_OPEN)
        return API_OK;
    enum api_code code = judge_completion(svc, &made, gone, err);
    if (code != API_OK || made.state == SESSION_OPEN ||
        (made.state == SESSION_COMPLETING && made.mark.offset < s->mark.offset))
        return code;
    log_line(svc->log, LOG_INFO, NULL, "upload %s: the store has completed it, its session is old", s->id.text);
    made.epoch = s->epoch;
    *s = made;
    return API_OK;
}

enum api_code upload_recover_settle_gone(struct upload_service *svc, struct session *s, struct api_error *err)
{
    return settle_by_record(svc, s, true, err);
}

/* Not where this process rebuilt it just now or has stored it last, and nothing went wrong meanwhile. */
static bool may_be_old(const struct upload_service *svc, const struct session *s)
{
    if (s->asked || s->tried || s->epoch == 0)
        return s->tried && !s->asked;
    if (upload_session_is_shared(svc))
        return !s->recalled;
    return atomic_load(&svc->left_behind) || strcmp(s->node, svc->node) != 0;
}

enum api_code upload_recover_completing(struct upload_service *svc, struct session *s, struct api_error *err)
{
    struct session found = *s;
    enum api_code code = settle_by_record(svc, &found, false, err);
    if (code != API_OK)
        return code;
    if (found.state == SESSION_COMPLETED || found.file_number != 0) {
        *s = found;
        return API_OK;
    }
    api_fail(err, API_UPLOAD_BUSY, "the upload is being completed; try again");
    err->retry_after_s = 1;
    return API_UPLOAD_BUSY;
}

enum api_code upload_recover_settle_completed(struct upload_service *svc, struct session *s, struct api_error *err)
{
    return may_be_old(svc, s) ? settle_by_record(svc, s, false, err) : API_OK;
}

/*
 * A store that is ahead of a session: the session is old, or its writer is between a flush and its change of the
 * session, or could not make that change. Whoever asks, on whatever node, the answer is the same.
 */
static enum api_code catch_up(struct upload_service *svc, struct session *s, struct api_error *err)
{
    struct blob_error detail;
    struct staged_stat stat;
    enum blob_status st = staged_stat(svc->store, &s->id, &stat, &detail);
    if (st == BLOB_E_NOT_FOUND)
        return upload_recover_settle_gone(svc, s, err);
    if (st == BLOB_OK && stat.epoch > s->writer_epoch)
        s->writer_epoch = stat.epoch;
    if (st == BLOB_OK && stat.mark.offset <= s->mark.offset)
        return API_OK;
    uint64_t from = s->mark.offset;
    uint32_t appends = s->appends;
    if (st == BLOB_OK)
        st = progress_from_stat(s, &stat);
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "bringing its session forward", st, &detail, err);
    log_line(svc->log, LOG_INFO, NULL, "upload %s: the store has %llu bytes, its session %llu: taking the store's",
             s->id.text, (unsigned long long)s->mark.offset, (unsigned long long)from);
    if (stat.keep_len > 0) {
        upload_session_count_append(s);
        if (s->appends > appends)
            return API_OK;
    }
    s->appends = appends;
    s->append_from = from;
    upload_session_count_append(s);
    return API_OK;
}

enum api_code upload_recover_settle(struct upload_service *svc, struct session *s, struct api_error *err)
{
    if (upload_session_is_contended(svc, s) && (svc->store->caps & STORE_READ_STAGED))
        s->rehash = true;
    upload_session_count_append(s);
    return upload_session_is_shared(svc) ? catch_up(svc, s, err) : API_OK;
}

enum api_code upload_recover_settle_idle(struct upload_service *svc, struct session *s, struct api_error *err)
{
    struct session found = *s;
    struct blob_error detail;
    bool busy = upload_session_is_busy(svc, s);
    enum api_code code = upload_recover_settle(svc, &found, err);
    bool moved = found.mark.offset != s->mark.offset || found.state != s->state;
    /* What is in flight has not been counted yet, and may go on. */
    if (code != API_OK || (busy && !moved))
        return code;
    *s = found;
    if (moved && !busy && s->epoch != 0 && s->state != SESSION_COMPLETING &&
        upload_session_persist(svc, s, &detail) != BLOB_OK)
        log_line(svc->log, LOG_DEBUG, NULL, "upload %s: %s", s->id.text, detail.text);
    return API_OK;
}

enum api_code upload_recover_from_store(struct upload_service *svc, struct session *s, struct api_error *err)
{
    struct blob_error detail;
    struct staged_stat stat;
    enum blob_status st = staged_stat(svc->store, &s->id, &stat, &detail);
    if (st == BLOB_E_NOT_FOUND) {
        memset(&stat, 0, sizeof stat);
        st = BLOB_OK;
    }
    if (st == BLOB_OK) {
        log_line(svc->log, LOG_ERROR, NULL,
                 "upload %s: its session says %llu bytes, the store has %llu: bytes are missing", s->id.text,
                 (unsigned long long)s->mark.offset, (unsigned long long)stat.mark.offset);
        hash_init(&s->hash);
        s->chunk.length = 0;
        s->append_from = NO_APPEND;
        st = progress_from_stat(s, &stat);
    }
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "asking the store how far it is", st, &detail, err);
    return API_OK;
}

enum api_code upload_recover_hash(struct upload_service *svc, struct session *s, struct api_error *err)
{
    struct blob_error detail;
    enum blob_status st = BLOB_OK;
    if (hash_length(&s->hash) == s->mark.offset)
        return API_OK;
    uint8_t *buf = malloc(HASH_READ_BYTES);
    if (!buf)
        st = blob_fail(&detail, BLOB_E_NO_MEMORY, 0, "no memory to hash the upload again");
    while (st == BLOB_OK && hash_length(&s->hash) < s->mark.offset) {
        uint64_t at = hash_length(&s->hash), left = s->mark.offset - at;
        size_t got = 0;
        st = staged_read(svc->store, &s->id, at, buf, left < HASH_READ_BYTES ? (size_t)left : HASH_READ_BYTES, &got,
                         &detail);
        if (st == BLOB_OK && got == 0)
            st = blob_fail(&detail, BLOB_E_CORRUPT, 0, "the staged bytes end at %llu", (unsigned long long)at);
        if (st == BLOB_OK)
            hash_update(&s->hash, buf, got);
    }
    free(buf);
    if (st == BLOB_E_NOT_FOUND &&
        upload_session_is_shared(svc)) { /* completed or destroyed since the session was loaded */
        api_fail(err, API_UPLOAD_BUSY, "another request for this upload came at the same moment; try again");
        err->retry_after_s = 1;
        return API_UPLOAD_BUSY;
    }
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s->id, "hashing it again", st, &detail, err);
    return API_OK;
}
