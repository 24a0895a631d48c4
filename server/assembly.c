/*
 * assembly - started from the inside out, so that nobody is asked before it can answer, and stopped the other way
 * round.
 *
 * The admin port opens first and closes last: whoever watches /readyz sees the whole of a start and of a drain.
 */
#include "server/assembly.h"

#include "core/clock.h"
#include "core/config/config.h"
#include "core/files/blob_cache.h"
#include "core/files/file_catalog.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/upkeep/janitor.h"
#include "core/upload/upload.h"
#include "core/worker_pool.h"
#include "core/worker_share.h"
#include "server/api/blob_answer.h"
#include "server/api/cors.h"
#include "server/api/endpoint.h"
#include "server/api/routes.h"
#include "server/api/service.h"
#include "server/api/telemetry.h"
#include "server/api/upload_body.h"
#include "server/auth/auth.h"
#include "server/limiter.h"
#include "server/memory_budget.h"
#include "server/readiness.h"
#include "server/stream_budget.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CACHED_CONTENT_MAX    (32u << 10) /* above, blobs are sent from their open file */
#define CACHED_ENTRY_BYTES    2048        /* an entry without content, for its share of the cache */
#define CACHED_READERS_MAX    1024
#define CLUSTER_MAX_AGE_MS    1000
#define CLUSTER_ABSENT_MS     1000
#define ABSENT_MS             10000
#define LOOKUPS_WAITING       1024
#define LOOKUPS_SHARE(n)      ((n)*3 / 8 > 0 ? (n)*3 / 8 : 1)
#define ADMIN_CONNECTIONS     64
#define ADMIN_BODY_BYTES      (512u << 10)
#define PRESIGN_BEARER_MAX_MS 60000
#define SHARE_KEPT            64
#define DRAIN_LOOK_MS         10
#define DRAIN_CUT_MS          2000

#define CERTIFICATE_TEXT_BYTES 512

struct assembly {
    const struct config *cfg;
    struct logger *log;
    struct memory_budget budget;
    struct service svc;
    struct janitor *janitor;
    struct endpoint api, admin;
    struct limiter *limiter;                  /* of the API */
    struct ip_networks *proxies, *forwarders; /* NULL: none */
    struct http_server *admin_http;           /* NULL: no admin port */
};

/* ---- what the handlers work with ---- */

static struct blob_cache *make_cache(struct assembly *a)
{
    struct service *svc = &a->svc;
    bool shared = (svc->store->caps & STORE_SHARED) != 0 && (svc->sessions->caps & SESSIONS_SHARED) != 0;
    const struct blob_cache_options opt = {
        .max_entries = a->budget.cache / CACHED_ENTRY_BYTES,
        .max_bytes = a->budget.cache,
        .max_readers = CACHED_READERS_MAX,
        .content_max = CACHED_CONTENT_MAX,
        .max_age_ms = shared ? CLUSTER_MAX_AGE_MS : 0,
        .absent_ms = shared ? CLUSTER_ABSENT_MS : ABSENT_MS,
        .shared = shared,
        .prepare = blob_headers_prepare,
        .discard = blob_headers_discard,
        .arg = svc,
    };
    return blob_cache_new(svc->store, svc->catalog, svc->log, svc->metrics, &opt);
}

/* Anybody may ask for a digest that is not there. Where it takes another machine to say so, these questions get three
 * eighths of the workers: the PBX' answers may take half, and something must be left beside both. */
static bool make_lookups(struct service *svc)
{
    if (!(svc->store->caps & (STORE_REMOTE | STORE_SHARED)))
        return true;
    svc->lookups = worker_share_new(svc->pool, LOOKUPS_SHARE(worker_pool_threads(svc->pool)), LOOKUPS_WAITING);
    return svc->lookups != NULL;
}

/* The configuration knows nobody's enums: its words stand in the order of those that they become. */
_Static_assert((int)CONFIG_SYNC_APPEND == UPLOAD_SYNC_APPEND && (int)CONFIG_SYNC_COMPLETE == UPLOAD_SYNC_COMPLETE &&
                   (int)CONFIG_SYNC_NEVER == UPLOAD_SYNC_NEVER,
               "uploads.sync");
_Static_assert((int)CONFIG_AUTH_TOKENS == AUTH_TOKENS && (int)CONFIG_AUTH_VERIFY == AUTH_VERIFY &&
                   (int)CONFIG_AUTH_NONE == AUTH_NONE,
               "auth.mode");
_Static_assert((int)CONFIG_LOG_ERROR == LOG_ERROR && (int)CONFIG_LOG_WARN == LOG_WARN &&
                   (int)CONFIG_LOG_INFO == LOG_INFO && (int)CONFIG_LOG_DEBUG == LOG_DEBUG,
               "log.level");
_Static_assert((int)CONFIG_LOG_TEXT == LOG_TEXT && (int)CONFIG_LOG_JSON == LOG_JSON, "log.format");

static struct upload_service *make_uploads(struct assembly *a)
{
    const struct config *cfg = a->cfg;
    struct service *svc = &a->svc;
    const struct upload_options opt = {
        .timeout_ms = cfg->sessions.timeout_ms,
        .completed_retention_ms = cfg->uploads.completed_retention_ms,
        .temp_file_retention_ms = cfg->retention.temp_file_retention_ms,
        .max_size = cfg->uploads.max_size_bytes,
        .sync = (enum upload_sync)cfg->uploads.sync,
        .checkpoint_bytes = cfg->uploads.checkpoint_bytes,
        .checkpoint_interval_ms = cfg->uploads.checkpoint_interval_ms,
        .lease_ms = cfg->sessions.lease_ms,
    };
    return upload_service_new(svc->store, svc->sessions, svc->catalog, svc->pool, svc->log, svc->metrics, &opt);
}

static enum blob_status make_auth(struct assembly *a, struct blob_error *err)
{
    const struct config *cfg = a->cfg;
    const struct auth_options opt = {
        .mode = (enum auth_mode)cfg->auth.mode,
        .tokens_file = cfg->auth.tokens_file,
        .verify_url = cfg->auth.verify_url,
        .verify_ca_file = cfg->auth.verify_ca_file,
        .verify_timeout_ms = cfg->auth.verify_timeout_ms,
        .verify_cache_ms = cfg->auth.verify_cache_ms,
        .verify_negative_cache_ms = cfg->auth.verify_negative_cache_ms,
        .verify_parallel = (unsigned)(cfg->server.worker_threads + 1) / 2,
    };
    return auth_new(&opt, a->log, a->svc.metrics, &a->svc.auth, err);
}

static struct janitor *make_janitor(struct assembly *a)
{
    const struct service *svc = &a->svc;
    const struct janitor_parts parts = {
        .store = svc->store,
        .sessions = svc->sessions,
        .catalog = svc->catalog,
        .cache = svc->cache,
        .uploads = svc->uploads,
        .log = svc->log,
        .metrics = svc->metrics,
    };
    const struct janitor_options opt = {
        .sweep_interval_ms = a->cfg->retention.sweep_interval_ms,
        .grace_ms = a->cfg->retention.sweep_grace_ms,
        .upload_timeout_ms = a->cfg->sessions.timeout_ms,
        .tick_ms = a->cfg->uploads.checkpoint_interval_ms / 2,
        .scrub_bytes_per_s = a->cfg->retention.scrub_rate_bytes,
    };
    return janitor_new(&parts, &opt);
}

/* A presigned URL asks for no bearer. Where downloads need one, it must not outlive what the bearer was good for by
 * much: there is time to follow it, and who is cut off comes back here. */
static int64_t presign_expiry_ms(const struct assembly *a)
{
    int64_t wanted_ms = a->cfg->s3.presign_expiry_ms;
    if (!a->svc.downloads_redirect || !a->svc.downloads_need_bearer || wanted_ms <= PRESIGN_BEARER_MAX_MS)
        return wanted_ms;
    log_line(a->log, LOG_WARN, NULL,
             "auth.downloads=bearer: presigned URLs end after %d s, not after storage.s3.presign_expiry",
             PRESIGN_BEARER_MAX_MS / 1000);
    return PRESIGN_BEARER_MAX_MS;
}

/* Redis is there for several nodes. On a store without conditional writes they would overwrite each other. */
static enum blob_status refuse_cluster(const struct service *svc, struct blob_error *err)
{
    if (!(svc->sessions->caps & SESSIONS_SHARED) || !(svc->store->caps & STORE_REMOTE) ||
        (svc->store->caps & STORE_SHARED))
        return BLOB_OK;
    return blob_fail(err, BLOB_E_UNSUPPORTED, 0,
                     "sessions.store=redis is for several nodes, and %s; set it to embedded",
                     svc->store->limits != NULL ? svc->store->limits : "the store is for one");
}

static enum blob_status make_service(struct assembly *a, struct blob_error *err)
{
    const struct config *cfg = a->cfg;
    struct service *svc = &a->svc;
    enum blob_status st = refuse_cluster(svc, err);
    if (st == BLOB_OK)
        st = worker_pool_new((unsigned)cfg->server.worker_threads, cfg->server.worker_queue, &svc->pool, err);
    if (st == BLOB_OK)
        st = readiness_new(svc->store, svc->sessions, &svc->readiness, err);
    if (st != BLOB_OK)
        return st;
    svc->catalog = file_catalog_new(svc->store, svc->sessions, svc->log);
    if (!make_lookups(svc) || svc->catalog == NULL || (svc->cache = make_cache(a)) == NULL ||
        (svc->uploads = make_uploads(a)) == NULL || (svc->cors = cors_new(cfg->server.cors_origins)) == NULL ||
        (svc->upload_calls = upload_calls_new()) == NULL ||
        (svc->streams = stream_budget_new(a->budget.streams)) == NULL || (a->janitor = make_janitor(a)) == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    st = make_auth(a, err);
    if (st != BLOB_OK)
        return st;
    svc->max_upload_bytes = cfg->uploads.max_size_bytes;
    svc->body_window_bytes = a->budget.body_window;
    svc->downloads_need_bearer = cfg->auth.downloads == CONFIG_DOWNLOADS_BEARER;
    svc->downloads_redirect = (svc->store->caps & STORE_REDIRECT) && cfg->s3.download == CONFIG_S3_REDIRECT;
    svc->presign_expiry_ms = presign_expiry_ms(a);
    svc->serve_stored_media_type = cfg->downloads.media_type == CONFIG_MEDIA_STORED;
    atomic_init(&svc->access_log, cfg->log.access);
    /* After the service has begun to listen for other nodes' announcements, before anybody is served. */
    st = session_store_join(svc->sessions, upload_service_node(svc->uploads), svc->store->store_id, clock_wall_ms(),
                            err);
    if (st == BLOB_E_UNAVAILABLE) {
        /* Downloads need no sessions. The store joins by itself when it is back; until then uploads are answered 503.
         */
        log_line(svc->log, LOG_WARN, NULL, "starting without the session store: %s", err->text);
        st = BLOB_OK;
    }
    return st;
}

/* ---- the listeners ---- */

static unsigned core_count(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

/* What one client may have where the settings leave it to us: all but a few, which are kept for others. 0: no limit, as
 * there are so few that none can be kept. */
static uint64_t share(uint64_t limit, uint64_t all)
{
    uint64_t kept = all / SHARE_KEPT;
    return limit > 0 ? limit : kept > 0 ? all - kept : 0;
}

static void set_limits(struct assembly *a, const struct config *cfg)
{
    limiter_set(a->limiter, LIMIT_CONNECTIONS_ADDRESS,
                share(cfg->limits.connections_per_address, a->budget.max_connections));
    limiter_set(a->limiter, LIMIT_REQUESTS_ADDRESS, share(cfg->limits.requests_per_address, a->budget.max_connections));
    limiter_set(a->limiter, LIMIT_REQUESTS_IDENTITY, cfg->limits.requests_per_identity);
    limiter_set(a->limiter, LIMIT_UPLOADS_ADDRESS, cfg->limits.uploads_per_address);
    limiter_set(a->limiter, LIMIT_UPLOADS_IDENTITY, cfg->limits.uploads_per_identity);
}

static enum blob_status read_networks(const char *name, const char *text, struct ip_networks **out,
                                      struct blob_error *err)
{
    enum blob_status st = text != NULL ? ip_networks_parse(text, out) : BLOB_OK;
    return st == BLOB_OK ? st : blob_fail(err, st, 0, "%s: %s", name, text);
}

static enum blob_status make_limits(struct assembly *a, struct blob_error *err)
{
    const struct config *cfg = a->cfg;
    a->limiter = limiter_new(2 * (size_t)a->budget.max_connections, a->svc.metrics);
    if (a->limiter == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    set_limits(a, cfg);
    enum blob_status st =
        read_networks("server.proxy_protocol_from", cfg->server.proxy_protocol_from, &a->proxies, err);
    return st == BLOB_OK ? read_networks("server.forwarded_from", cfg->server.forwarded_from, &a->forwarders, err) : st;
}

static enum blob_status make_api(struct assembly *a, struct blob_error *err)
{
    const struct config *cfg = a->cfg;
    a->api =
        (struct endpoint){.svc = &a->svc, .routes = api_routes, .route_count = api_route_count, .limiter = a->limiter};
    a->api.telemetry = telemetry_new(a->svc.metrics, "api", api_routes, api_route_count);
    if (a->api.telemetry == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    const struct http_config http = {
        .listen = cfg->server.listen,
        .loops = cfg->server.event_threads > 0 ? (unsigned)cfg->server.event_threads : core_count(),
        .tls = {.cert_file = cfg->tls.enabled ? cfg->tls.cert_file : NULL,
                .key_file = cfg->tls.enabled ? cfg->tls.key_file : NULL},
        .max_head_bytes = cfg->server.max_head_bytes,
        .max_uri_bytes = cfg->server.max_uri_bytes,
        .body_memory_bytes = a->budget.bodies,
        .answer_memory_bytes = a->budget.answers,
        .max_connections = a->budget.max_connections,
        .min_body_rate = cfg->uploads.min_rate_bytes,
        .min_answer_rate = cfg->downloads.min_rate_bytes,
        .head_timeout_ms = cfg->server.head_timeout_ms,
        .idle_timeout_ms = cfg->server.idle_timeout_ms,
        .proxies = a->proxies,
        .forwarders = a->forwarders,
        .limiter = a->limiter,
        .pool = a->svc.pool,
        .on_proxy_fault = endpoint_on_proxy_fault,
        .on_request = endpoint_on_request,
        .on_fault = endpoint_on_fault,
        .on_done = endpoint_on_done,
        .arg = &a->api,
    };
    return http_server_new(&http, &a->svc.http, err);
}

static enum blob_status make_admin(struct assembly *a, struct blob_error *err)
{
    const struct config *cfg = a->cfg;
    if (cfg->server.admin_listen == NULL)
        return BLOB_OK;
    a->admin = (struct endpoint){.svc = &a->svc, .routes = admin_routes, .route_count = admin_route_count};
    a->admin.telemetry = telemetry_new(a->svc.metrics, "admin", admin_routes, admin_route_count);
    if (a->admin.telemetry == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    const struct http_config http = {
        .listen = cfg->server.admin_listen,
        .loops = 1,
        .max_head_bytes = cfg->server.max_head_bytes,
        .max_uri_bytes = cfg->server.max_uri_bytes,
        .body_memory_bytes = ADMIN_BODY_BYTES,
        .max_connections = ADMIN_CONNECTIONS,
        .evicts = true,
        .head_timeout_ms = cfg->server.head_timeout_ms,
        .idle_timeout_ms = cfg->server.idle_timeout_ms,
        .on_request = endpoint_on_request,
        .on_fault = endpoint_on_fault,
        .on_done = endpoint_on_done,
        .arg = &a->admin,
    };
    return http_server_new(&http, &a->admin_http, err);
}

static int64_t read_in_flight(void *arg)
{
    return http_server_in_flight(arg);
}

static int64_t read_connections(void *arg)
{
    return http_server_connections(arg);
}

static int64_t read_queued(void *arg)
{
    return (int64_t)worker_pool_queued(arg);
}

static int64_t read_log_dropped(void *arg)
{
    return (int64_t)log_dropped(arg);
}

static int64_t read_certificate_end(void *arg)
{
    return http_server_certificate_end_s(arg);
}

static void add_gauges(struct assembly *a)
{
    struct metrics *m = a->svc.metrics;
    metrics_gauge_fn(m, "blobd_http_requests_in_flight", "Requests not yet answered.", NULL, read_in_flight,
                     a->svc.http);
    metrics_gauge_fn(m, "blobd_http_connections", "Open connections.", NULL, read_connections, a->svc.http);
    metrics_gauge_fn(m, "blobd_worker_queue", "Jobs that wait for a worker.", NULL, read_queued, a->svc.pool);
    metrics_gauge_fn(m, "blobd_log_lines_dropped", "Log lines that could not be written.", NULL, read_log_dropped,
                     a->log);
    if (a->cfg->tls.enabled)
        metrics_gauge_fn(m, "blobd_tls_certificate_expiry_timestamp_seconds",
                         "When the certificate ends, in seconds since 1970.", NULL, read_certificate_end, a->svc.http);
}

/* ---- start and stop ---- */

enum blob_status assembly_new(const struct config *cfg, struct blob_store *store, struct session_store *sessions,
                              struct logger *log, struct metrics *metrics, struct assembly **out,
                              struct blob_error *err)
{
    struct assembly *a = calloc(1, sizeof *a);
    if (a == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    a->cfg = cfg;
    a->log = log;
    a->budget = memory_budget_split(cfg->server.max_memory_bytes, cfg->server.max_connections,
                                    cfg->downloads.cache_bytes, cfg->tls.enabled);
    a->svc.store = store;
    a->svc.sessions = sessions;
    a->svc.log = log;
    a->svc.metrics = metrics;
    enum blob_status st = make_service(a, err);
    if (st == BLOB_OK)
        st = make_limits(a, err);
    if (st == BLOB_OK)
        st = make_api(a, err);
    if (st == BLOB_OK)
        st = make_admin(a, err);
    if (st != BLOB_OK) {
        assembly_free(a);
        return st;
    }
    add_gauges(a);
    *out = a;
    return BLOB_OK;
}

/* The setting may leave the port to the system. */
static void log_address(struct assembly *a, const char *what, const char *listen, const struct http_server *http)
{
    int host = (int)(strrchr(listen, ':') - listen);
    log_line(a->log, LOG_INFO, NULL, "%s%.*s:%u", what, host, listen, http_server_port(http));
}

static void warn_of_certificate(struct assembly *a)
{
    char text[CERTIFICATE_TEXT_BYTES];
    if (http_server_certificate_ends_soon(a->svc.http, text, sizeof text))
        log_line(a->log, LOG_WARN, NULL, "%s", text);
}

/* What is right on a loopback or behind a proxy, and wrong where anybody can come by. */
static void tell_what_is_open(struct assembly *a)
{
    if (a->cfg->auth.mode == CONFIG_AUTH_NONE)
        log_line(a->log, LOG_WARN, NULL, "auth.mode=none: whoever reaches %s may upload, list and destroy everything",
                 a->cfg->server.listen);
    if (!a->cfg->tls.enabled)
        log_line(a->log, LOG_INFO, NULL,
                 "tls.enabled=false: bearers and content pass %s in clear; a proxy before it has to speak TLS",
                 a->cfg->server.listen);
    warn_of_certificate(a);
}

enum blob_status assembly_start(struct assembly *a, struct blob_error *err)
{
    enum blob_status st = janitor_start(a->janitor, err);
    if (st == BLOB_OK)
        st = http_server_start(a->svc.http, err);
    if (st == BLOB_OK && a->admin_http != NULL)
        st = http_server_start(a->admin_http, err);
    if (st != BLOB_OK)
        return st;
    log_address(a, a->cfg->tls.enabled ? "listening on https://" : "listening on http://", a->cfg->server.listen,
                a->svc.http);
    if (a->admin_http != NULL)
        log_address(a, "admin port on http://", a->cfg->server.admin_listen, a->admin_http);
    tell_what_is_open(a);
    return BLOB_OK;
}

bool assembly_reload(struct assembly *a, const struct config *fresh)
{
    struct blob_error err;
    struct http_tls_files files = {0};
    bool whole = true;
    if (fresh != NULL) {
        files = (struct http_tls_files){.cert_file = fresh->tls.cert_file, .key_file = fresh->tls.key_file};
        atomic_store(&a->svc.access_log, fresh->log.access);
        set_limits(a, fresh);
    }
    if (a->cfg->tls.enabled && http_server_reload_tls(a->svc.http, &files, &err) != BLOB_OK) {
        log_line(a->log, LOG_ERROR, NULL, "the old certificate stays: %s", err.text);
        whole = false;
    }
    warn_of_certificate(a);
    if (auth_reload(a->svc.auth, fresh != NULL ? fresh->auth.tokens_file : NULL, &err) != BLOB_OK) {
        log_line(a->log, LOG_ERROR, NULL, "the old tokens stay: %s", err.text);
        whole = false;
    }
    return whole;
}

static void sleep_ms(int64_t ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* Are all requests answered? Waits for it until the steady clock says until_us. */
static bool await_idle(struct http_server *http, int64_t until_us)
{
    while (http_server_in_flight(http) > 0) {
        if (clock_steady_us() >= until_us)
            return false;
        sleep_ms(DRAIN_LOOK_MS);
    }
    return true;
}

bool assembly_drain(struct assembly *a, int64_t delay_ms, int64_t timeout_ms)
{
    atomic_store(&a->svc.draining, true);
    sleep_ms(delay_ms);
    int64_t until_us = clock_steady_us() + timeout_ms * 1000;
    http_server_drain(a->svc.http);
    bool idle = await_idle(a->svc.http, until_us);
    if (!idle) {
        log_line(a->log, LOG_WARN, NULL, "%u requests have not ended in time and are cut",
                 http_server_in_flight(a->svc.http));
        upload_calls_stop(a->svc.upload_calls);
        stream_budget_shut(a->svc.streams);
        idle = await_idle(a->svc.http, clock_steady_us() + DRAIN_CUT_MS * 1000);
    }
    janitor_stop(a->janitor);
    return worker_pool_drain(a->svc.pool, DRAIN_CUT_MS) && idle;
}

void assembly_free(struct assembly *a)
{
    if (a == NULL)
        return;
    struct service *svc = &a->svc;
    if (a->janitor != NULL)
        janitor_stop(a->janitor);
    if (svc->streams != NULL)
        stream_budget_shut(svc->streams);
    if (a->admin_http != NULL)
        http_server_free(a->admin_http);
    if (svc->http != NULL)
        http_server_free(svc->http);
    limiter_free(a->limiter);
    free(a->proxies);
    free(a->forwarders);
    janitor_free(a->janitor);
    if (svc->pool != NULL)
        worker_pool_free(svc->pool);
    worker_share_free(svc->lookups);
    readiness_free(svc->readiness);
    telemetry_free(a->api.telemetry);
    telemetry_free(a->admin.telemetry);
    auth_free(svc->auth);
    cors_free(svc->cors);
    upload_calls_free(svc->upload_calls);
    stream_budget_free(svc->streams);
    if (svc->uploads != NULL)
        upload_service_free(svc->uploads);
    blob_cache_free(svc->cache);
    if (svc->catalog != NULL)
        file_catalog_free(svc->catalog);
    free(a);
}
