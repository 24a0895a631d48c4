/*
 * upload_recover - sessions: loaded, stored, and rebuilt from the blob store when the session store lost them.
 *
 * The store is the truth. A lost session is made again from the record uploads/<id> and the staged bytes; an old one (a
 * shared session store that was restarted with old data) is brought forward to what the store has. Epochs start at the
 * wall clock's microseconds, so that a rebuilt session's epoch is beyond any that a forgotten writer may still hold.
 */
#include "core/session/upload_record.h"
#include "core/upload/upload_internal.h"

#include <stdlib.h>
#include <string.h>

#define LEASE_SKEW_MS 10000 /* nodes do not start whose clocks differ by more than half of it */

static bool sessions_shared(const struct upload_service *svc)
{
    return svc->sessions->caps & SESSIONS_SHARED;
}

enum api_code upload_fail(struct upload_service *svc, const struct uuid *id, const char *what, enum blob_status st,
                          const struct blob_error *detail, struct api_error *err)
{
    enum log_level level = st == BLOB_E_UNAVAILABLE || st == BLOB_E_NO_SPACE ? LOG_WARN : LOG_ERROR;
    log_line(svc->log, level, NULL, "upload %s: %s: %s: %s", id->text, what, blob_status_name(st), detail->text);
    return api_fail_status(err, st);
}

static enum api_code unknown_upload(struct api_error *err)
{
    return api_fail(err, API_UPLOAD_UNKNOWN, "there is no such upload");
}

bool upload_session_may_use(const struct session *s, const struct identity *who)
{
    return !who || !who->known || s->owner[0] == '\0' || strcmp(s->owner, who->name) == 0;
}

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
    if (st != BLOB_OK)
        return upload_fail(svc, &s->id, "rebuilding the session", st, &detail, err);
    if (last_ms + svc->opt.timeout_ms < node_clock_at_least_ms(svc->sessions->clock))
        return unknown_upload(err);
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
        return upload_fail(svc, &s->id, "looking for its file", st, &detail, err);
    if (s->state == SESSION_COMPLETED || committed)
        return s->completed_ms + keep_ms < node_clock_at_least_ms(svc->sessions->clock) ? unknown_upload(err) : API_OK;
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

static enum api_code rebuild(struct upload_service *svc, const struct uuid *id, struct session *s,
                             struct api_error *err)
{
    struct blob_error detail;
    enum blob_status st = read_upload_record(svc, id, s, &detail);
    if (st == BLOB_E_NOT_FOUND)
        return unknown_upload(err);
    if (st != BLOB_OK)
        return upload_fail(svc, id, "reading its record", st, &detail, err);
    return s->state == SESSION_OPEN ? rebuild_progress(svc, s, err) : rebuild_completion(svc, s, err);
}

enum api_code upload_session_load(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                                  struct session *s, struct api_error *err)
{
    struct bytebuf value;
    struct blob_error detail;
    uint64_t epoch = 0;

    bytebuf_init(&value);
    enum blob_status st = session_load(svc->sessions, id, &value, &epoch, &detail);
    if (st == BLOB_OK && session_decode(value.data, value.len, epoch, s) != BLOB_OK) {
        log_line(svc->log, LOG_ERROR, NULL, "upload %s: its session is damaged; rebuilding it", id->text);
        st = session_remove(svc->sessions, id, &detail);
        if (st == BLOB_OK)
            st = BLOB_E_NOT_FOUND;
    }
    bytebuf_release(&value);

    enum api_code code = API_OK;
    if (st == BLOB_E_NOT_FOUND) {
        code = rebuild(svc, id, s, err);
        if (code == API_OK)
            metric_add(svc->metrics.rebuilt, 1);
    } else if (st != BLOB_OK) {
        code = upload_fail(svc, id, "loading its session", st, &detail, err);
    }
    if (code == API_OK && (s->state == SESSION_DESTROYED || !upload_session_may_use(s, who)))
        code = unknown_upload(err);
    return code;
}

bool upload_session_is_contended(const struct upload_service *svc, const struct session *s)
{
    return sessions_shared(svc) && s->append_from != NO_APPEND && strcmp(s->node, svc->node) != 0;
}

bool upload_session_is_busy(const struct upload_service *svc, const struct session *s)
{
    int64_t left_ms = s->lease_until_ms - node_clock_best_ms(svc->sessions->clock);
    /* More than a lease and the nodes' clocks can give: a clock has been set since, and the lease says nothing. */
    return upload_session_is_contended(svc, s) && left_ms > 0 && left_ms <= svc->opt.lease_ms + LEASE_SKEW_MS;
}

void upload_session_count_append(struct session *s)
{
    uint64_t from = s->append_from;
    s->append_from = NO_APPEND;
    if (s->lease_until_ms != 0)
        s->node[0] = '\0';
    s->lease_until_ms = 0;
    if (from == NO_APPEND || s->mark.offset <= from)
        return;
    s->appends++;
    s->chunk.offset = from; /* chunk.before is of it, or its length tells that it is not */
    s->chunk.length = s->mark.offset - from;
}

/* Neither bytes nor a record, which was there before the session was: the upload was destroyed, and the session is one
 * that its store has brought back. */
static enum api_code forget_destroyed(struct upload_service *svc, const struct session *s, struct api_error *err)
{
    struct blob_error detail;
    enum blob_status st = session_remove(svc->sessions, &s->id, &detail);
    log_line(svc->log, LOG_INFO, NULL, "upload %s: it was destroyed, its session is old%s%s", s->id.text,
             st == BLOB_OK ? "" : ", and stays: ", st == BLOB_OK ? "" : detail.text);
    return unknown_upload(err);
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
        return upload_fail(svc, &s->id, "reading its record", st, &detail, err);
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
    if (sessions_shared(svc))
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
        return upload_fail(svc, &s->id, "bringing its session forward", st, &detail, err);
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
    return sessions_shared(svc) ? catch_up(svc, s, err) : API_OK;
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
        return upload_fail(svc, &s->id, "asking the store how far it is", st, &detail, err);
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
    if (st == BLOB_E_NOT_FOUND && sessions_shared(svc)) { /* completed or destroyed since the session was loaded */
        api_fail(err, API_UPLOAD_BUSY, "another request for this upload came at the same moment; try again");
        err->retry_after_s = 1;
        return API_UPLOAD_BUSY;
    }
    if (st != BLOB_OK)
        return upload_fail(svc, &s->id, "hashing it again", st, &detail, err);
    return API_OK;
}

enum blob_status upload_session_put_record(struct upload_service *svc, const struct session *s, unsigned flags,
                                           struct blob_error *err)
{
    char key[RECORD_KEY_MAX];
    struct bytebuf value;
    upload_record_key(&s->id, key);
    bytebuf_init(&value);
    upload_record_encode(s, &value);
    enum blob_status st = value.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for an upload record")
                                       : record_put(svc->store, key, value.data, value.len, flags, err);
    bytebuf_release(&value);
    return st;
}

uint64_t upload_session_next_epoch(uint64_t last)
{
    uint64_t now_us = (uint64_t)clock_wall_us();
    return now_us > last ? now_us : last + 1;
}

static enum blob_status insert(struct upload_service *svc, const struct session *s, const struct bytebuf *value,
                               struct blob_error *err)
{
    enum blob_status st =
        session_insert(svc->sessions, &s->id, s->tried_epoch, value->data, value->len, s->expires_ms, err);
    if (st == BLOB_E_EXISTS)
        st = blob_fail(err, BLOB_E_CONFLICT, 0, "another writer made this session first");
    return st;
}

/* The session is gone from its store: destroyed with its upload, or lost? The record decides. */
static enum blob_status insert_again(struct upload_service *svc, const struct session *s, const struct bytebuf *value,
                                     struct blob_error *err)
{
    char key[RECORD_KEY_MAX];
    struct bytebuf record;
    upload_record_key(&s->id, key);
    bytebuf_init(&record);
    enum blob_status st = record_get(svc->store, key, &record, err);
    bytebuf_release(&record);
    return st == BLOB_OK ? insert(svc, s, value, err) : st;
}

static enum blob_status replace(struct upload_service *svc, const struct session *s, const struct bytebuf *value,
                                struct index_put *put, struct blob_error *err)
{
    enum blob_status st = put ? session_replace_listed(svc->sessions, &s->id, s->epoch, s->tried_epoch, value->data,
                                                       value->len, s->expires_ms, put, err)
                              : session_replace(svc->sessions, &s->id, s->epoch, s->tried_epoch, value->data,
                                                value->len, s->expires_ms, err);
    return st == BLOB_E_NOT_FOUND && !s->recalled ? insert_again(svc, s, value, err) : st;
}

enum blob_status upload_session_persist(struct upload_service *svc, struct session *s, struct blob_error *err)
{
    return upload_session_persist_listed(svc, s, NULL, err);
}

enum blob_status upload_session_persist_listed(struct upload_service *svc, struct session *s, struct index_put *put,
                                               struct blob_error *err)
{
    struct bytebuf value;
    int64_t life_ms = s->state == SESSION_COMPLETED ? svc->opt.completed_retention_ms : svc->opt.timeout_ms;
    if (put)
        put->st = blob_fail(&put->err, BLOB_E_NO_MEMORY, 0, "no memory for a session"); /* till it is put */
    if (put && s->epoch == 0) {
        put->st = index_put(svc->sessions, put->row, &put->err);
        put = NULL;
    }
    s->expires_ms = node_clock_at_most_ms(svc->sessions->clock) + life_ms;
    if (s->append_from != NO_APPEND || !sessions_shared(svc))
        memcpy(s->node, svc->node, sizeof s->node);
    if (s->append_from != NO_APPEND && sessions_shared(svc))
        s->lease_until_ms = node_clock_best_ms(svc->sessions->clock) + svc->opt.lease_ms;
    bytebuf_init(&value);
    session_encode(s, &value);
    enum blob_status st = value.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a session") : BLOB_OK;
    if (st == BLOB_OK) {
        /* Tried under the same epoch until its outcome is known: then there are only two that may be found. */
        bool uncertain = s->tried_epoch != 0;
        if (!uncertain)
            s->tried_epoch = upload_session_next_epoch(s->epoch);
        st = s->epoch == 0 ? insert(svc, s, &value, err) : replace(svc, s, &value, put, err);
        if (st == BLOB_E_CONFLICT && uncertain && s->epoch != 0) {
            s->epoch = s->tried_epoch;
            s->tried_epoch = upload_session_next_epoch(s->epoch);
            st = replace(svc, s, &value, NULL, err);
        }
        if (st == BLOB_OK)
            s->epoch = s->tried_epoch;
        if (st != BLOB_E_UNAVAILABLE)
            s->tried_epoch = 0;
    }
    if (st == BLOB_OK) {
        s->recalled = false;
        upload_recall_keep(svc, s, &value);
    }
    bytebuf_release(&value);
    return st;
}
