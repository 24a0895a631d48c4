/*
 * janitor - what has to happen without a request: expiry, sweeping, scrubbing, due checkpoints.
 *
 * Two threads: one ticks upload_service_tick(), which must not wait; the other, every sweep_interval_ms,
 *   1. heals the file index where it is not whole (also when started, and every second),
 *   2. expires uploads, temporary files and sessions whose time is over,
 *   3. removes blobs whose last file was destroyed and that were last touched longer than grace_ms ago; others that no
 *      file names (of uploads cut off while completing) when they are older than an upload may become, too,
 *   4. lets the store remove its own leftovers,
 * and between sweeps reads blobs again that a download has found wrong, and all of them, one after the other, where
 * scrub_bytes_per_s asks for it. On shared sessions, steps 2 to 4 and scrubbing are done by the one node that holds the
 * lease "janitor" for this interval.
 *
 * Steps 2 to 4 go by the wall clock. It is compared with the steady one each second: after it was set, either way, they
 * wait until it has been steady for sweep_interval_ms.
 *
 * What is never removed: a blob that a record names, and one touched within the grace time. A commit or a
 * blob_touch starts that time anew, and blob_remove() looks again at the moment of removal, on any node. So whoever
 * adds a file record has committed or touched the blob less than grace_ms before; a sweep that meets it then keeps it.
 *
 * Threads: janitor_start, _stop and _free from one thread. janitor_sweep may also be called without starting (tests,
 * one-shot maintenance), not beside a started janitor. Ownership: the parts are borrowed until janitor_free().
 * Units: bytes, milliseconds. Errors: a failed step is logged and counted (blobd_janitor_errors_total); the others
 * go on, and the next sweep tries again.
 */
#ifndef BLOBD_CORE_UPKEEP_JANITOR_H
#define BLOBD_CORE_UPKEEP_JANITOR_H

#include "core/blob_store.h"
#include "core/session_store.h"

struct blob_cache;
struct file_catalog;
struct logger;
struct metrics;
struct upload_service;
struct janitor;

struct janitor_parts {
    struct blob_store *store;
    struct session_store *sessions;
    struct file_catalog *catalog;
    struct blob_cache *cache;       /* may be NULL */
    struct upload_service *uploads; /* may be NULL */
    struct logger *log;             /* may be NULL */
    struct metrics *metrics;        /* may be NULL */
};

struct janitor_options {
    int64_t sweep_interval_ms;  /* at least 1000 */
    int64_t grace_ms;           /* at least 1000 */
    int64_t upload_timeout_ms;  /* sessions.timeout: an upload may come back to its blob for as long */
    int64_t tick_ms;            /* 0: 250 */
    uint64_t scrub_bytes_per_s; /* 0: no scrubbing */
};

/* Copies parts and opt. */
struct janitor *janitor_new(const struct janitor_parts *parts, const struct janitor_options *opt);
/* Returns when the index has been looked after once, or after a second. */
enum blob_status janitor_start(struct janitor *j, struct blob_error *err) BLOB_MUST_CHECK;
/* Ends what is under way at its next step and joins; within a second unless a store hangs. Fine when not started. */
void janitor_stop(struct janitor *j);
/* To be called after janitor_stop(). NULL is fine. */
void janitor_free(struct janitor *j);

/* Does one sweep, steps 1 to 4, as of now_ms. A step that fails does not stop the others; the first failure is given.
 */
enum blob_status janitor_sweep(struct janitor *j, int64_t now_ms, struct blob_error *err) BLOB_MUST_CHECK;

#endif
