/*
 * upload_session - the ordinary life of a session: who may use it, whether another node is at it, and how it is stored.
 *
 * Epochs start at the wall clock's microseconds, so that a rebuilt session's epoch is beyond any that a forgotten
 * writer may still hold.
 */
#include "core/session/upload_record.h"
#include "core/upload/upload_internal.h"

#include <string.h>

#define LEASE_SKEW_MS 10000 /* nodes do not start whose clocks differ by more than half of it */

bool upload_session_is_shared(const struct upload_service *svc)
{
    return svc->sessions->caps & SESSIONS_SHARED;
}

enum api_code upload_session_fail(struct upload_service *svc, const struct uuid *id, const char *what,
                                  enum blob_status st, const struct blob_error *detail, struct api_error *err)
{
    enum log_level level = st == BLOB_E_UNAVAILABLE || st == BLOB_E_NO_SPACE ? LOG_WARN : LOG_ERROR;
    log_line(svc->log, level, NULL, "upload %s: %s: %s: %s", id->text, what, blob_status_name(st), detail->text);
    return api_fail_status(err, st);
}

enum api_code upload_session_unknown(struct api_error *err)
{
    return api_fail(err, API_UPLOAD_UNKNOWN, "there is no such upload");
}

bool upload_session_may_use(const struct session *s, const struct identity *who)
{
    return !who || !who->known || s->owner[0] == '\0' || strcmp(s->owner, who->name) == 0;
}

bool upload_session_is_contended(const struct upload_service *svc, const struct session *s)
{
    return upload_session_is_shared(svc) && s->append_from != NO_APPEND && strcmp(s->node, svc->node) != 0;
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
    if (s->append_from != NO_APPEND || !upload_session_is_shared(svc))
        memcpy(s->node, svc->node, sizeof s->node);
    if (s->append_from != NO_APPEND && upload_session_is_shared(svc))
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

void upload_session_view(const struct session *s, bool initial, struct upload_view *view)
{
    struct upload_token token = {.appends = s->appends, .initial = initial, .offset = s->mark.offset};
    view->id = s->id;
    view->offset = s->mark.offset;
    view->completed = s->state == SESSION_COMPLETED;
    upload_token_issue(s->token_key, &s->id, &token, view->token);
}
