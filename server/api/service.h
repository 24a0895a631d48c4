/*
 * service - the parts a handler works with, put together once by main and read-only while serving.
 *
 * Threads: any; each part says what it allows. Ownership: everything is borrowed from main, and outlives the servers
 * and the worker pool.
 */
#ifndef BLOBD_SERVER_API_SERVICE_H
#define BLOBD_SERVER_API_SERVICE_H

#include "core/worker_pool.h"
#include "server/http/http_server.h"

#include <stdatomic.h>
#include <stdint.h>

struct auth;
struct blob_cache;
struct blob_store;
struct cors;
struct file_catalog;
struct logger;
struct metrics;
struct readiness;
struct session_store;
struct stream_budget;
struct upload_calls;
struct upload_service;
struct worker_pool;
struct worker_share;

#define SERVICE_SLOW_LANES 8

struct service {
    struct worker_pool *pool;
    struct worker_lane slow_reads[SERVICE_SLOW_LANES]; /* of the pool: what slow clients' downloads fetch */
    struct worker_share *lookups; /* of the pool: blobs that may not be there, where looking costs; else NULL */
    struct readiness *readiness;
    struct blob_store *store;
    struct session_store *sessions;
    struct file_catalog *catalog;
    struct upload_service *uploads;
    struct blob_cache *cache;
    struct auth *auth;
    struct cors *cors;
    struct upload_calls *upload_calls;
    struct stream_budget *streams;
    struct logger *log;
    struct metrics *metrics;
    struct http_server *http; /* where uploads come in; set before it is started */

    /* Settings. */
    uint64_t max_upload_bytes; /* 0: unbounded */
    size_t body_window_bytes;  /* of one upload's body, between the loop and the disk */
    bool downloads_need_bearer;
    bool downloads_redirect;
    int64_t presign_expiry_ms;
    bool serve_stored_media_type;

    atomic_bool access_log; /* may change on HUP */
    atomic_bool draining;   /* set on TERM: /readyz fails */
};

#endif
