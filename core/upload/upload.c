/*
 * upload - the service, and the operations without a body: create, status, destroy.
 *
 * The rules are in upload.h; upload_internal.h says which file holds which part of them.
 */
#include "core/session/upload_record.h"
#include "core/upload/upload_internal.h"

#include <stdlib.h>
#include <string.h>

#define DESTROY_TRIES 8

static void make_metrics(struct upload_metrics *m, struct metrics *registry)
{
    if (!registry)
        return;
    m->created = metrics_counter(registry, "blobd_uploads_created_total", "Uploads initiated.", NULL);
    m->completed = metrics_counter(registry, "blobd_uploads_completed_total", "Uploads completed.", NULL);
    m->destroyed =
        metrics_counter(registry, "blobd_uploads_destroyed_total", "Uploads destroyed by their client.", NULL);
    m->expired = metrics_counter(registry, "blobd_uploads_expired_total", "Uploads removed after their timeout.", NULL);
    m->appends = metrics_counter(registry, "blobd_upload_appends_total", "Appends that ended whole.", NULL);
    m->cut =
        metrics_counter(registry, "blobd_upload_appends_cut_total", "Appends cut off or refused in the middle.", NULL);
    m->superseded =
        metrics_counter(registry, "blobd_upload_appends_superseded_total", "Appends stopped by a newer one.", NULL);
    m->repeats =
        metrics_counter(registry, "blobd_upload_repeats_total", "Chunks sent again after a lost answer.", NULL);
    m->mismatches =
        metrics_counter(registry, "blobd_upload_offset_mismatches_total", "Appends refused for their offset.", NULL);
    m->rebuilt = metrics_counter(registry, "blobd_sessions_rebuilt_total", "Sessions rebuilt from the store.", NULL);
    m->bytes = metrics_counter(registry, "blobd_upload_bytes_total", "Bytes received into uploads.", NULL);
}

struct upload_service *upload_service_new(struct blob_store *store, struct session_store *sessions,
                                          struct file_catalog *catalog, struct worker_pool *pool, struct logger *log,
                                          struct metrics *metrics, const struct upload_options *opt)
{
    struct uuid node;
    struct upload_service *svc = calloc(1, sizeof *svc);
    if (!svc)
        return NULL;
    svc->store = store;
    svc->sessions = sessions;
    svc->catalog = catalog;
    svc->pool = pool;
    svc->log = log;
    svc->opt = *opt;
    uuid_new(&node);
    memcpy(svc->node, node.text, sizeof svc->node);
    make_metrics(&svc->metrics, metrics);
    if (sessions->caps & SESSIONS_SHARED)
        svc->recall = upload_recall_new(); /* without it, sessions are loaded */
    upload_live_init(svc);
    session_listen(sessions, upload_live_notice, svc);
    return svc;
}

void upload_service_free(struct upload_service *svc)
{
    if (!svc)
        return;
    session_listen(svc->sessions, NULL, NULL);
    upload_live_release(svc);
    upload_recall_free(svc->recall);
    free(svc);
}

const char *upload_service_node(const struct upload_service *svc)
{
    return svc->node;
}

enum api_code upload_create(struct upload_service *svc, const struct upload_create *req, struct upload_view *view,
                            struct api_error *err)
{
    struct session s;
    struct blob_error detail = {0};
    size_t name_len = strlen(req->filename);
    CHECK(name_len <= FILE_NAME_MAX);
    session_init(&s, node_clock_at_most_ms(svc->sessions->clock));
    memcpy(s.filename, req->filename, name_len + 1);
    if (req->who && req->who->known)
        memcpy(s.owner, req->who->name, sizeof s.owner);
    s.temporary = req->temporary;

    /* The record first: a session without one would look destroyed. Lazy: the first append's sync carries it. */
    enum blob_status st = upload_session_put_record(svc, &s, BLOB_LAZY, &detail);
    if (st == BLOB_OK)
        st = upload_session_persist(svc, &s, &detail);
    if (st != BLOB_OK)
        return upload_session_fail(svc, &s.id, "creating it", st, &detail, err);
    upload_session_view(&s, true, view);
    metric_add(svc->metrics.created, 1);
    return API_OK;
}

enum api_code upload_status(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                            struct upload_view *view, struct api_error *err)
{
    struct session s;
    enum api_code code = upload_load(svc, id, who, &s, err);
    if (code != API_OK)
        return code;
    /* An append in flight, here or on a node that is alive, has not been counted yet; a dead one's bytes have. */
    if (s.state != SESSION_COMPLETED && !upload_live_find(svc, id)) {
        code = upload_recover_settle_idle(svc, &s, err);
        if (code != API_OK)
            return code;
    }
    upload_session_view(&s, false, view);
    return API_OK;
}

/* Removes every trace. The record goes first: what is left of a removal that was cut short is swept. */
static enum blob_status forget_upload(struct upload_service *svc, const struct uuid *id, struct blob_error *detail)
{
    char key[RECORD_KEY_MAX];
    upload_record_key(id, key);
    enum blob_status st = record_delete(svc->store, key, BLOB_LAZY, detail);
    return st == BLOB_OK ? session_remove(svc->sessions, id, detail) : st;
}

/* Bytes that a session still names must not go first, but for one reason: on a full disk even forgetting takes room,
 * and it is these bytes that give it. */
static enum blob_status remove_upload(struct upload_service *svc, const struct uuid *id, const struct upload_mark *mark,
                                      struct blob_error *detail)
{
    enum blob_status st = forget_upload(svc, id, detail);
    if (st != BLOB_OK && st != BLOB_E_NO_SPACE)
        return st;
    bool full = st == BLOB_E_NO_SPACE;
    st = staged_discard(svc->store, id, mark, detail);
    return st == BLOB_OK && full ? forget_upload(svc, id, detail) : st;
}

/* The session of an upload that may be destroyed; *old is its append in flight here, if any. */
static enum api_code load_to_destroy(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                                     struct session *s, struct upload_append **old, struct api_error *err)
{
    memset(s, 0, sizeof *s);
    enum api_code code = upload_load(svc, id, who, s, err);
    *old = upload_live_find(svc, id);
    if (code == API_UPLOAD_UNKNOWN && s->state == SESSION_DESTROYED && upload_session_may_use(s, who))
        return API_OK; /* begun and cut off: what is left goes now */
    if (code != API_OK)
        return code;
    if (s->state == SESSION_COMPLETING && upload_session_is_busy(svc, s)) {
        code = upload_recover_completing(svc, s, err);
        if (code == API_OK && s->state != SESSION_COMPLETED)
            code = api_fail(err, API_UPLOAD_BUSY, "the upload is being completed; repeat the complete");
    }
    if (code != API_OK)
        return code;
    /* An old session may show one open that was completed since, or is destroyed. */
    if (!*old && s->state != SESSION_COMPLETED)
        code = upload_recover_settle(svc, s, err);
    if (code != API_OK)
        return code;
    if (s->state == SESSION_COMPLETED)
        return api_fail(err, API_UPLOAD_COMPLETED, "the upload is completed; destroy its file instead");
    return API_OK;
}

static void end_destroyed(struct upload_append *old)
{
    old->destroyed = true;
    upload_settle_end_older(old);
}

/*
 * On shared sessions another node may be completing the upload at this moment. Both change the session first, and only
 * one can: it is destroyed or completed, never both, and nothing that the loser still has to do can bring it back.
 */
static enum api_code claim_destruction(struct upload_service *svc, const struct identity *who, struct session *s,
                                       struct upload_append *old, struct api_error *err)
{
    struct blob_error detail;
    struct uuid id = s->id;
    enum api_code code = API_OK;
    for (int tries = 0; tries < DESTROY_TRIES; tries++) {
        if (old || tries > 0)
            code = load_to_destroy(svc, &id, who, s, &old, err);
        if (code != API_OK)
            return code;
        s->state = SESSION_DESTROYED;
        s->append_from = NO_APPEND;
        enum blob_status st = upload_session_persist(svc, s, &detail);
        if (st == BLOB_OK)
            return API_OK;
        if (st == BLOB_E_NOT_FOUND)
            return api_fail(err, API_UPLOAD_UNKNOWN, "there is no such upload");
        if (st != BLOB_E_CONFLICT)
            return upload_session_fail(svc, &id, "destroying it", st, &detail, err);
    }
    api_fail(err, API_UPLOAD_BUSY, "other requests for this upload came at the same moment; try again");
    err->retry_after_s = 1;
    return API_UPLOAD_BUSY;
}

enum api_code upload_destroy(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                             struct api_error *err)
{
    struct session s;
    struct blob_error detail = {0};
    struct upload_append *old;
    enum api_code code = load_to_destroy(svc, id, who, &s, &old, err);
    if (code != API_OK)
        return code;
    if (old)
        end_destroyed(old);
    if (svc->sessions->caps & SESSIONS_SHARED)
        code = claim_destruction(svc, who, &s, old, err);
    if (code != API_OK)
        return code;
    enum blob_status st = remove_upload(svc, id, &s.mark, &detail);
    if (st != BLOB_OK)
        return upload_session_fail(svc, id, "destroying it", st, &detail, err);
    session_announce(svc->sessions, id, EPOCH_DESTROYED);
    metric_add(svc->metrics.destroyed, 1);
    return API_OK;
}

enum blob_status upload_remove_expired(struct upload_service *svc, const struct uuid *id,
                                       const struct clock_watch *clock, struct blob_error *detail)
{
    struct session s;
    struct api_error gone;
    /* Looked at again, in the upload's lane: it may have moved since it was listed. */
    if (upload_live_find(svc, id) || upload_load(svc, id, NULL, &s, &gone) != API_UPLOAD_UNKNOWN)
        return BLOB_OK;
    /* It is unknown by the wall clock, which may have been set while that was looked at. */
    if (clock_watch_stepped(clock))
        return BLOB_OK;
    enum blob_status st = remove_upload(svc, id, NULL, detail);
    if (st == BLOB_OK)
        metric_add(svc->metrics.expired, 1);
    return st;
}
