/*
 * upload_expire - what the janitor removes of uploads: those whose time is over, and staged bytes that no open upload
 * has.
 *
 * Records are listed in pages; each candidate is looked at again and removed in its own lane, so that expiry cannot
 * meet an append half-way. The listing thread waits for each: expiry is a background matter. What cannot be removed
 * holds up nothing else. Only when several in a row find the store unavailable is it taken for away, and the rest left
 * to the next round: a single upload may be unavailable for good, as one whose state S3 does not list. The first
 * failure is told.
 */
#include "core/clock_watch.h"
#include "core/session/upload_record.h"
#include "core/upload/upload_internal.h"

#include <stdio.h>
#include <string.h>

#define EXPIRE_PAGE   256
#define AWAY_IN_A_ROW 4
/* A record is written before the first byte: staged bytes without one, this old, are left over from a cut-off removal.
 */
#define ORPHAN_AGE_MS (60 * 60 * 1000)

struct candidates {
    struct upload_service *svc;
    const atomic_bool *stop;
    enum blob_status st; /* the first failure */
    unsigned away;       /* so many in a row, the last among them, have found the store unavailable */
    struct blob_error err;
    int64_t now_ms;
    struct clock_watch clock; /* since now_ms was right */
    size_t listed, count;     /* of this page */
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

static void note_failure(struct candidates *c, enum blob_status st, const struct blob_error *err)
{
    c->away = st == BLOB_E_UNAVAILABLE ? c->away + 1 : 0;
    if (st == BLOB_OK || c->st != BLOB_OK)
        return;
    c->st = st;
    c->err = *err;
}

static bool may_go_on(const struct candidates *c)
{
    return c->away < AWAY_IN_A_ROW && !(c->stop && atomic_load(c->stop));
}

static void in_lane(struct candidates *c, const struct uuid *id, removal_fn *fn)
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
    note_failure(c, r.status, &r.error);
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
    return upload_live_find(svc, id) ? BLOB_OK : staged_discard(svc->store, id, NULL, err);
}

/* At once, not collected: however many uploads idle, what is left over among them is found. */
static bool look_at_staged(const struct uuid *id, uint64_t bytes, int64_t modified_ms, void *arg)
{
    struct candidates *c = arg;
    struct blob_error err;
    bool completed;
    (void)bytes;
    int64_t age = c->svc->opt.timeout_ms > ORPHAN_AGE_MS ? ORPHAN_AGE_MS : c->svc->opt.timeout_ms;
    enum blob_status st = is_completed(c->svc, id, &completed, &err);
    if (st == BLOB_OK && completed)
        in_lane(c, id, clear_completed);
    else if (st == BLOB_E_NOT_FOUND && modified_ms + age < c->now_ms)
        in_lane(c, id, upload_remove_expired);
    else if (st != BLOB_E_NOT_FOUND)
        note_failure(c, st, &err);
    return may_go_on(c);
}

static void expire_staged(struct candidates *c)
{
    struct blob_error err;
    enum blob_status st = staged_list(c->svc->store, look_at_staged, c, &err);
    note_failure(c, st, &err);
}

static void expire_recorded(struct candidates *c)
{
    struct blob_error err;
    enum blob_status st;
    do {
        c->listed = c->count = 0;
        st = record_list(c->svc->store, UPLOAD_RECORD_PREFIX, c->last[0] ? c->last : NULL, EXPIRE_PAGE, true,
                         note_record, c, &err);
        note_failure(c, st, &err);
        for (size_t i = 0; st == BLOB_OK && i < c->count && may_go_on(c); i++)
            in_lane(c, &c->ids[i], upload_remove_expired);
    } while (st == BLOB_OK && c->listed == EXPIRE_PAGE && may_go_on(c));
}

enum blob_status upload_service_expire(struct upload_service *svc, int64_t now_ms, const atomic_bool *stop,
                                       struct blob_error *err)
{
    struct candidates c = {.svc = svc, .stop = stop, .st = BLOB_OK, .now_ms = now_ms};
    clock_watch_begin(&c.clock);
    enum blob_status st = session_sweep(svc->sessions, now_ms, err);
    if (st != BLOB_OK)
        return st;
    expire_recorded(&c);
    if (may_go_on(&c))
        expire_staged(&c);
    if (c.st != BLOB_OK && err)
        *err = c.err;
    return c.st;
}
