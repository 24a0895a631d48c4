/*
 * janitor - the two threads that do it, and when. The work itself is in upload_expire, file_catalog, blob_sweep and
 * scrubber.
 *
 * The tick has a thread of its own because a sweep may take minutes, and a checkpoint that is due must not wait for
 * it. The sweeper's thread wakes every PAUSE_MS for what cannot wait for the next sweep: an index that is not whole,
 * and the next bytes to scrub.
 *
 * Locks: `lock` guards nothing but the sleep; `stopping` is looked at by every step that may take long.
 */
#include "core/upkeep/janitor.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/clock_record.h"
#include "core/files/blob_cache.h"
#include "core/files/file_catalog.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/node_clock.h"
#include "core/upkeep/blob_sweep.h"
#include "core/upkeep/scrubber.h"
#include "core/upload/upload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#define PAUSE_MS      1000
#define FIRST_LOOK_MS 1000
#define TICK_MS       250
#define EXPIRE_BATCH  200
#define RECHECK_BYTES (64u << 20) /* of what downloads have found wrong, at a time */
#define SCRUB_PIECE   (4u << 20)  /* how much is read between two looks at `stopping` */

struct janitor {
    struct janitor_parts parts;
    struct janitor_options opt;
    struct scrubber *scrubber;
    atomic_bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool looked; /* after the index, for the first time */
    bool started;
    pthread_t ticker, sweeper;
    struct node_clock *clock, *own_clock; /* the sessions', or else own_clock */
    /* The sweeper's own. */
    bool leading; /* held the lease at the last sweep */
    bool unwell;  /* the index could not be healed: said once */
    struct metric *sweeps, *errors, *files_expired, *blobs_removed, *bytes_removed;
};

struct janitor *janitor_new(const struct janitor_parts *parts, const struct janitor_options *opt)
{
    CHECK(parts->store && parts->sessions && parts->catalog && opt->sweep_interval_ms >= 1000 && opt->grace_ms >= 1000);
    struct janitor *j = calloc(1, sizeof *j);
    CHECK(j != NULL);
    j->parts = *parts;
    j->opt = *opt;
    if (j->opt.tick_ms == 0)
        j->opt.tick_ms = TICK_MS;
    if (!parts->sessions->clock)
        j->own_clock = node_clock_new(opt->sweep_interval_ms);
    j->clock = j->own_clock ? j->own_clock : parts->sessions->clock;
    j->scrubber = scrubber_new(parts->store, parts->cache, parts->log, parts->metrics);
    atomic_init(&j->stopping, false);
    pthread_condattr_t steady;
    CHECK(pthread_mutex_init(&j->lock, NULL) == 0 && pthread_condattr_init(&steady) == 0);
    CHECK(pthread_condattr_setclock(&steady, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&j->wake, &steady) == 0);
    pthread_condattr_destroy(&steady);
    if (parts->metrics) {
        struct metrics *m = parts->metrics;
        j->sweeps = metrics_counter(m, "blobd_janitor_sweeps_total", "Sweeps begun by this node.", NULL);
        j->errors = metrics_counter(m, "blobd_janitor_errors_total", "Steps of the janitor that failed.", NULL);
        j->files_expired =
            metrics_counter(m, "blobd_janitor_files_expired_total", "Temporary files past their time.", NULL);
        j->blobs_removed =
            metrics_counter(m, "blobd_janitor_blobs_removed_total", "Blobs swept, as no file named them.", NULL);
        j->bytes_removed = metrics_counter(m, "blobd_janitor_bytes_removed_total", "Bytes of swept blobs.", NULL);
    }
    return j;
}

void janitor_free(struct janitor *j)
{
    if (!j)
        return;
    CHECK(!j->started);
    scrubber_free(j->scrubber);
    node_clock_free(j->own_clock);
    pthread_cond_destroy(&j->wake);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

/* ---- the steps of a sweep ---- */

static enum blob_status expire_files(struct janitor *j, int64_t now_ms, struct blob_error *err)
{
    size_t done = EXPIRE_BATCH;
    while (done == EXPIRE_BATCH && !atomic_load(&j->stopping)) {
        enum blob_status st = file_catalog_expire(j->parts.catalog, now_ms, EXPIRE_BATCH, &done, err);
        if (st != BLOB_OK)
            return st;
        metric_add(j->files_expired, (int64_t)done);
    }
    return BLOB_OK;
}

static enum blob_status sweep_blobs(struct janitor *j, int64_t now_ms, struct blob_error *err)
{
    int64_t grace_ms = j->opt.grace_ms;
    struct blob_sweep sweep = {.store = j->parts.store,
                               .catalog = j->parts.catalog,
                               .sessions = j->parts.sessions,
                               .cache = j->parts.cache,
                               .log = j->parts.log,
                               .stop = &j->stopping,
                               .before_ms = now_ms - grace_ms,
                               .orphans_before_ms = now_ms - grace_ms - j->opt.upload_timeout_ms};
    enum blob_status st = blob_sweep_run(&sweep, err);
    metric_add(j->blobs_removed, (int64_t)sweep.blobs);
    metric_add(j->bytes_removed, (int64_t)sweep.bytes);
    return st;
}

static enum blob_status expire_uploads(struct janitor *j, int64_t now_ms, struct blob_error *err)
{
    return j->parts.uploads ? upload_service_expire(j->parts.uploads, now_ms, &j->stopping, err) : BLOB_OK;
}

static enum blob_status sweep_sessions(struct janitor *j, int64_t now_ms, struct blob_error *err)
{
    return session_sweep(j->parts.sessions, now_ms, err);
}

static enum blob_status sweep_leftovers(struct janitor *j, int64_t now_ms, struct blob_error *err)
{
    return blob_store_sweep(j->parts.store, now_ms - j->opt.grace_ms, err);
}

static const struct {
    const char *name;
    enum blob_status (*run)(struct janitor *j, int64_t now_ms, struct blob_error *err);
} sweep_steps[] = {
    {"expiring uploads", expire_uploads},
    {"expiring sessions", sweep_sessions},
    {"expiring files", expire_files},
    {"sweeping blobs", sweep_blobs},
    {"sweeping the store's leftovers", sweep_leftovers},
};

/* May this node do the shared work of this interval? The lease is renewed at each step, since a step may take long. If
 * two nodes did the work at once, that would be wasteful but safe. */
static enum blob_status lead(struct janitor *j, bool *leading, struct blob_error *err)
{
    enum blob_status st = session_lease(j->parts.sessions, "janitor", j->opt.sweep_interval_ms, err);
    if (st != BLOB_OK && st != BLOB_E_CONFLICT)
        return st;
    *leading = st == BLOB_OK;
    return BLOB_OK;
}

static void note_failure(struct janitor *j, const char *step, enum blob_status st, const struct blob_error *own,
                         enum blob_status *first, struct blob_error *err)
{
    if (st == BLOB_OK)
        return;
    if (st != BLOB_E_CANCELED) {
        log_line(j->parts.log, LOG_WARN, NULL, "janitor: %s: %s: %s", step, blob_status_name(st), own->text);
        metric_add(j->errors, 1);
    }
    if (*first == BLOB_OK) {
        *first = st;
        if (err)
            *err = *own;
    }
}

enum blob_status janitor_sweep(struct janitor *j, int64_t now_ms, struct blob_error *err)
{
    enum blob_status first = BLOB_OK;
    struct blob_error own = {0};
    note_failure(j, "healing the file index", file_catalog_heal_index(j->parts.catalog, &j->stopping, &own), &own,
                 &first, err);
    bool begun = false;
    for (size_t i = 0; i < sizeof sweep_steps / sizeof sweep_steps[0]; i++) {
        enum blob_status st = lead(j, &j->leading, &own);
        note_failure(j, "asking for the lease", st, &own, &first, err);
        if (st != BLOB_OK || !j->leading || atomic_load(&j->stopping))
            return first;
        if (!begun)
            metric_add(j->sweeps, 1);
        begun = true;
        note_failure(j, sweep_steps[i].name, sweep_steps[i].run(j, now_ms, &own), &own, &first, err);
    }
    return first;
}

/* ---- the threads ---- */

static struct timespec steady_in(int64_t ms)
{
    struct timespec at;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &at) == 0);
    at.tv_sec += ms / 1000;
    at.tv_nsec += ms % 1000 * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

/* Returns early when the janitor is stopped: then false. */
static bool pause_for(struct janitor *j, int64_t ms)
{
    struct timespec until = steady_in(ms);
    int rc = 0;
    pthread_mutex_lock(&j->lock);
    while (!atomic_load(&j->stopping) && rc == 0)
        rc = pthread_cond_timedwait(&j->wake, &j->lock, &until);
    pthread_mutex_unlock(&j->lock);
    return !atomic_load(&j->stopping);
}

static void *ticker_main(void *arg)
{
    struct janitor *j = arg;
    while (pause_for(j, j->opt.tick_ms)) {
        if (j->parts.uploads)
            upload_service_tick(j->parts.uploads, clock_wall_ms());
    }
    return NULL;
}

/* Listings wait for it. A session store that is away is no news every second. */
static void keep_index_well(struct janitor *j)
{
    struct blob_error err;
    enum blob_status st = file_catalog_heal_index(j->parts.catalog, &j->stopping, &err);
    if (st != BLOB_OK && st != BLOB_E_CANCELED && !j->unwell) {
        log_line(j->parts.log, LOG_WARN, NULL, "janitor: the file index cannot be healed now: %s", err.text);
        metric_add(j->errors, 1);
    }
    j->unwell = st != BLOB_OK;
}

/* This second's share. A round that ended early leaves the rest of it unused. */
static void scrub_a_little(struct janitor *j, uint64_t budget)
{
    bool ended = false;
    while (budget > 0 && !ended && !atomic_load(&j->stopping)) {
        struct blob_error err;
        uint64_t read = 0;
        enum blob_status st =
            scrubber_step(j->scrubber, budget < SCRUB_PIECE ? budget : SCRUB_PIECE, &read, &ended, &err);
        if (st != BLOB_OK) {
            log_line(j->parts.log, LOG_WARN, NULL, "janitor: scrubbing: %s", err.text);
            metric_add(j->errors, 1);
            return;
        }
        budget -= read;
    }
}

/* What downloads of this node have found wrong. Nothing is to be read nearly always. */
static void recheck_suspects(struct janitor *j)
{
    uint64_t total = 0;
    for (bool idle = false; !idle && total < RECHECK_BYTES && !atomic_load(&j->stopping);) {
        struct blob_error err;
        uint64_t read = 0;
        enum blob_status st = scrubber_recheck(j->scrubber, SCRUB_PIECE, &read, &idle, &err);
        if (st != BLOB_OK) {
            log_line(j->parts.log, LOG_WARN, NULL, "janitor: reading a blob again: %s", err.text);
            metric_add(j->errors, 1);
            return;
        }
        total += read;
    }
}

/* Can what is old be told now? *now_ms is the time of a clock that has been steady for a sweep's interval. */
static bool clock_is_calm(struct janitor *j, int64_t *now_ms)
{
    int64_t step_ms;
    bool calm = node_clock_calm(j->clock, now_ms, &step_ms);
    if (step_ms != 0)
        log_line(j->parts.log, LOG_WARN, NULL,
                 "janitor: the wall clock has moved by %lld ms at once; nothing expires, nor is swept, before it has "
                 "been steady for %lld s",
                 (long long)step_ms, (long long)(j->opt.sweep_interval_ms / 1000));
    return calm;
}

/* For the next start, by whichever node swept. */
static void keep_time(struct janitor *j)
{
    int64_t now_ms;
    struct blob_error err;
    if (!j->leading || !node_clock_calm(j->clock, &now_ms, NULL))
        return;
    if (clock_record_keep(j->parts.store, now_ms, node_clock_lead_ms(j->clock), &err) != BLOB_OK)
        log_line(j->parts.log, LOG_WARN, NULL, "janitor: keeping the time: %s", err.text);
}

static void *sweeper_main(void *arg)
{
    struct janitor *j = arg;
    int64_t now_ms;
    int64_t due_us = clock_steady_us() + j->opt.sweep_interval_ms * 1000;
    keep_index_well(j);
    pthread_mutex_lock(&j->lock);
    j->looked = true;
    pthread_cond_broadcast(&j->wake);
    pthread_mutex_unlock(&j->lock);
    while (pause_for(j, PAUSE_MS)) {
        keep_index_well(j);
        recheck_suspects(j);
        if (j->opt.scrub_bytes_per_s > 0 && j->leading)
            scrub_a_little(j, j->opt.scrub_bytes_per_s * PAUSE_MS / 1000);
        if (!clock_is_calm(j, &now_ms) || clock_steady_us() < due_us || atomic_load(&j->stopping))
            continue;
        struct blob_error ignored; /* logged where it failed */
        if (janitor_sweep(j, now_ms, &ignored) == BLOB_OK)
            log_line(j->parts.log, LOG_DEBUG, NULL, "janitor: swept");
        keep_time(j);
        due_us = clock_steady_us() + j->opt.sweep_interval_ms * 1000;
    }
    return NULL;
}

/* A small index is whole before the first request comes; a large one takes its time beside them. */
static void await_first_look(struct janitor *j)
{
    struct timespec until = steady_in(FIRST_LOOK_MS);
    int rc = 0;
    pthread_mutex_lock(&j->lock);
    while (!j->looked && rc == 0)
        rc = pthread_cond_timedwait(&j->wake, &j->lock, &until);
    pthread_mutex_unlock(&j->lock);
}

static void stop_threads(struct janitor *j)
{
    pthread_mutex_lock(&j->lock);
    atomic_store(&j->stopping, true);
    pthread_cond_broadcast(&j->wake);
    pthread_mutex_unlock(&j->lock);
}

enum blob_status janitor_start(struct janitor *j, struct blob_error *err)
{
    CHECK(!j->started);
    atomic_store(&j->stopping, false);
    j->looked = false;
    int rc = pthread_create(&j->ticker, NULL, ticker_main, j);
    if (rc != 0)
        return blob_fail(err, BLOB_E_NO_MEMORY, rc, "janitor thread");
    j->started = true;
    rc = pthread_create(&j->sweeper, NULL, sweeper_main, j);
    if (rc == 0) {
        await_first_look(j);
        return BLOB_OK;
    }
    stop_threads(j);
    pthread_join(j->ticker, NULL);
    j->started = false;
    return blob_fail(err, BLOB_E_NO_MEMORY, rc, "janitor thread");
}

void janitor_stop(struct janitor *j)
{
    if (!j->started)
        return;
    stop_threads(j);
    pthread_join(j->ticker, NULL);
    pthread_join(j->sweeper, NULL);
    j->started = false;
}
