/*
 * upload_expire - what the janitor removes of uploads: those whose time is over, and staged bytes that no open upload
 * has.
 *
 * Records are listed in pages; each candidate is looked at again and removed in its own lane, so that expiry cannot
 * meet an append half-way. The listing thread waits for each: expiry is a background matter.
 */
#include "core/clock_watch.h"
#include "core/upload_internal.h"
#include "core/upload_record.h"

#include <stdio.h>
#include <string.h>

#define EXPIRE_PAGE   256
/* A record is written before the first byte: staged bytes without one, this old, are left over from a cut-off removal.
 */
#define ORPHAN_AGE_MS (60 * 60 * 1000)

struct candidates {
    struct upload_service *svc;
    int64_t now_ms;
    struct clock_watch clock; /* since now_ms was right */
    size_t listed, count;
    char last[RECORD_KEY_MAX];
    struct uuid ids[EXPIRE_PAGE];
};

typedef enum blob_status removal_fn(struct upload_service *svc, const struct uuid *id, const struct clock_watch *clock,
                                    struct blob_error *err);

struct removal {
    struct worker_job job;
    struct upload_service *svc;
    removal_fn *fn;
    struct uuid id;
    const struct clock_watch *clock;
    enum blob_status status;
    struct blob_error error;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

static void removal_run(struct worker_job *job)
{
    struct removal *r = (struct removal *)job;
    enum blob_status st = r->fn(r->svc, &r->id, r->clock, &r->error);
    pthread_mutex_lock(&r->lock);
    r->status = st;
    r->done = true;
    pthread_cond_signal(&r->cond);
    pthread_mutex_unlock(&r->lock);
}

static enum blob_status in_lane(const struct candidates *c, const struct uuid *id, removal_fn *fn,
                                struct blob_error *err)
{
    struct upload_service *svc = c->svc;
    struct removal r = {.job.run = removal_run, .svc = svc, .fn = fn, .id = *id, .clock = &c->clock};
    pthread_mutex_init(&r.lock, NULL);
    pthread_cond_init(&r.cond, NULL);
    worker_pool_submit(svc->pool, upload_lane(svc, id), &r.job);
    pthread_mutex_lock(&r.lock);
    while (!r.done)
        pthread_cond_wait(&r.cond, &r.lock);
    pthread_mutex_unlock(&r.lock);
    pthread_cond_destroy(&r.cond);
    pthread_mutex_destroy(&r.lock);
    if (r.status != BLOB_OK && err)
        *err = r.error;
    return r.status;
}

/* Could it be over? By the record's own times; the session and the staged bytes are asked in the lane. */
static bool note_record(const char *key, const void *value, size_t len, void *arg)
{
    struct candidates *c = arg;
    struct session s;
    c->listed++;
    snprintf(c->last, sizeof c->last, "%s", key);
    if (upload_record_decode(value, len, &s) != BLOB_OK) {
        log_line(c->svc->log, LOG_ERROR, NULL, "the record %s is damaged", key);
        return true;
    }
    int64_t since = s.state == SESSION_OPEN ? s.created_ms : s.completed_ms;
    int64_t keep = s.state == SESSION_OPEN ? c->svc->opt.timeout_ms : c->svc->opt.completed_retention_ms;
    if (since + keep < c->now_ms)
        c->ids[c->count++] = s.id;
    return true;
}

/* ---- staged bytes -------------------------------------------------------------------------------------------- */

/* NOT_FOUND: no record. *completed: it has become a file. */
static enum blob_status is_completed(struct upload_service *svc, const struct uuid *id, bool *completed,
                                     struct blob_error *err)
{
    char key[RECORD_KEY_MAX];
    struct bytebuf value;
    struct session s = {0};
    struct file_record file;
    *completed = false;
    upload_record_key(id, key);
    bytebuf_init(&value);
    enum blob_status st = record_get(svc->store, key, &value, err);
    if (st == BLOB_OK && upload_record_decode(value.data, value.len, &s) != BLOB_OK)
        s.state = SESSION_OPEN; /* damaged, and reported where records are listed */
    bytebuf_release(&value);
    if (st != BLOB_OK || s.state == SESSION_OPEN)
        return st;
    st = file_catalog_find(svc->catalog, &s.digest, s.file_number, id, &file, err);
    *completed = st == BLOB_OK;
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

/* In the upload's lane. A completed upload needs nothing that is staged: a node was killed while it cleared that away,
 * or had still written to it. */
static enum blob_status clear_completed(struct upload_service *svc, const struct uuid *id,
                                        const struct clock_watch *clock, struct blob_error *err)
{
    (void)clock; /* it is no matter of time */
    return live_find(svc, id) ? BLOB_OK : upload_discard(svc->store, id, NULL, err);
}

struct staged_walk {
    const struct candidates *c;
    const atomic_bool *stop;
    enum blob_status st;
    struct blob_error err;
};

static bool look_at_staged(const struct uuid *id, uint64_t bytes, int64_t modified_ms, void *arg)
{
    struct staged_walk *w = arg;
    struct upload_service *svc = w->c->svc;
    bool completed;
    (void)bytes;
    int64_t age = svc->opt.timeout_ms > ORPHAN_AGE_MS ? ORPHAN_AGE_MS : svc->opt.timeout_ms;
    w->st = is_completed(svc, id, &completed, &w->err);
    if (w->st == BLOB_OK && completed)
        w->st = in_lane(w->c, id, clear_completed, &w->err);
    else if (w->st == BLOB_E_NOT_FOUND)
        w->st = modified_ms + age < w->c->now_ms ? in_lane(w->c, id, upload_remove_expired, &w->err) : BLOB_OK;
    return w->st == BLOB_OK && !(w->stop && atomic_load(w->stop));
}

static enum blob_status expire_staged(const struct candidates *c, const atomic_bool *stop, struct blob_error *err)
{
    struct staged_walk w = {.c = c, .stop = stop, .st = BLOB_OK};
    enum blob_status st = upload_list(c->svc->store, look_at_staged, &w, err);
    if (st == BLOB_OK && w.st != BLOB_OK) {
        st = w.st;
        if (err)
            *err = w.err;
    }
    return st;
}

enum blob_status upload_service_expire(struct upload_service *svc, int64_t now_ms, const atomic_bool *stop,
                                       struct blob_error *err)
{
    struct candidates c = {.svc = svc, .now_ms = now_ms};
    clock_watch_begin(&c.clock);
    enum blob_status st = session_sweep(svc->sessions, now_ms, err);
    while (st == BLOB_OK) {
        c.listed = c.count = 0;
        st = record_list(svc->store, UPLOAD_RECORD_PREFIX, c.last[0] ? c.last : NULL, EXPIRE_PAGE, true, note_record,
                         &c, err);
        for (size_t i = 0; st == BLOB_OK && i < c.count && !(stop && atomic_load(stop)); i++)
            st = in_lane(&c, &c.ids[i], upload_remove_expired, err);
        if (c.listed < EXPIRE_PAGE || (stop && atomic_load(stop)))
            break;
    }
    if (st == BLOB_OK && !(stop && atomic_load(stop)))
        st = expire_staged(&c, stop, err);
    return st;
}
