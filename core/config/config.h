/*
 * config - the settings, from defaults, a file, the environment and the command line, later ones winning.
 *
 *     blobd.conf            [storage.disk]  root = /srv/blobd       (INI; ';' and '#' begin a comment line)
 *     environment           BLOBD_STORAGE_DISK_ROOT=/srv/blobd
 *     command line          --set storage.disk.root=/srv/blobd
 *
 * What can be set is one table (config_options); reading, --help, --print-config and docs/configuration.md all
 * come from it. The values are a plain struct, so that a misspelt name does not compile.
 *
 * Threads: config_load() on one thread at a time (libinih's settings are global); a loaded config is read-only.
 * Ownership: the config owns its texts until config_free(). Units: _ms, _bytes in the names; a text that is not set is
 * NULL. Errors: loading goes on after an error, to report all of them at once.
 */
#ifndef BLOBD_CORE_CONFIG_CONFIG_H
#define BLOBD_CORE_CONFIG_CONFIG_H

#include "core/status.h"
#include "core/text/bytebuf.h"

#include <stddef.h>
#include <stdint.h>

/* In the order of their words in config_options.c. */
enum config_auth_mode { CONFIG_AUTH_TOKENS, CONFIG_AUTH_VERIFY, CONFIG_AUTH_NONE };
enum config_downloads_auth { CONFIG_DOWNLOADS_PUBLIC, CONFIG_DOWNLOADS_BEARER };
enum config_backend { CONFIG_BACKEND_DISK, CONFIG_BACKEND_S3 };
enum config_s3_driver { CONFIG_S3_SIGV4, CONFIG_S3_LIBS3 };
enum config_s3_download { CONFIG_S3_PROXY, CONFIG_S3_REDIRECT };
enum config_session_store { CONFIG_SESSIONS_EMBEDDED, CONFIG_SESSIONS_REDIS };
enum config_sync { CONFIG_SYNC_APPEND, CONFIG_SYNC_COMPLETE, CONFIG_SYNC_NEVER };
enum config_media_type { CONFIG_MEDIA_OCTET_STREAM, CONFIG_MEDIA_STORED };
enum config_log_level { CONFIG_LOG_ERROR, CONFIG_LOG_WARN, CONFIG_LOG_INFO, CONFIG_LOG_DEBUG }; /* as enum log_level */
enum config_log_format { CONFIG_LOG_TEXT, CONFIG_LOG_JSON };                                    /* as enum log_format */

struct config {
    struct {
        const char *listen;
        const char *admin_listen;                         /* NULL: no admin port */
        const char *instance;                             /* NULL: the host's name */
        const char *proxy_protocol_from, *forwarded_from; /* networks; NULL: none */
        const char *cors_origins;                         /* separated by blanks; "*": any; NULL: none */
        uint64_t event_threads;                           /* 0: one for each core */
        uint64_t worker_threads;
        uint64_t worker_queue; /* requests that may wait for a worker */
        uint64_t max_memory_bytes;
        uint64_t max_connections;
        uint64_t max_head_bytes;
        uint64_t max_uri_bytes;
        int64_t head_timeout_ms;
        int64_t idle_timeout_ms;
        int64_t drain_delay_ms, drain_timeout_ms;
    } server;
    struct {
        uint64_t connections_per_address; /* 0: as many as there may be, less a few */
        uint64_t requests_per_address;    /* as above */
        uint64_t requests_per_identity;   /* 0: no limit, as in what follows */
        uint64_t uploads_per_address;     /* a minute */
        uint64_t uploads_per_identity;    /* a minute */
    } limits;
    struct {
        bool enabled;
        const char *cert_file, *key_file; /* both set when enabled */
    } tls;
    struct {
        enum config_auth_mode mode;
        enum config_downloads_auth downloads;
        const char *tokens_file; /* set when mode is tokens */
        const char *verify_url;  /* set when mode is verify */
        const char *verify_ca_file;
        int64_t verify_timeout_ms;
        int64_t verify_cache_ms;
        int64_t verify_negative_cache_ms;
    } auth;
    struct {
        enum config_backend backend;
    } storage;
    struct {
        const char *root; /* set when the backend is disk */
        bool journal;
        bool shared;
        uint64_t keep_cached_bytes;
    } disk; /* [storage.disk] */
    struct {
        const char *endpoint; /* NULL: Amazon's of the region */
        const char *region;
        const char *bucket; /* set when the backend is s3 */
        const char *prefix;
        const char *cred_id, *cred_secret, *session_token, *cred_file;
        const char *ca_file;
        bool path_style;
        enum config_s3_driver driver;
        enum config_s3_download download;
        int64_t presign_expiry_ms;
        uint64_t part_size_bytes;
        uint64_t parallelism;
        uint64_t max_connections;
        int64_t timeout_ms; /* of a stalled transfer */
        int64_t connect_timeout_ms;
        int64_t complete_timeout_ms;
        int64_t retry_timeout_ms;
        uint64_t retries;
    } s3; /* [storage.s3] */
    struct {
        enum config_session_store store;
        int64_t timeout_ms;
        int64_t lease_ms; /* how long a node that says nothing is taken for alive */
        const char *path; /* NULL: under storage.disk.root */
    } sessions;
    struct {
        const char *url; /* this or sentinels is set when the store is redis */
        const char *sentinels, *master_name;
        const char *username, *password;
        const char *key_prefix;
        uint64_t pool_size;
        int64_t connect_timeout_ms, command_timeout_ms;
    } redis; /* [sessions.redis] */
    struct {
        uint64_t max_size_bytes; /* 0: no limit */
        uint64_t min_rate_bytes; /* a second; 0: no limit */
        enum config_sync sync;
        int64_t completed_retention_ms;
        uint64_t checkpoint_bytes;
        int64_t checkpoint_interval_ms;
    } uploads;
    struct {
        int64_t temp_file_retention_ms;
        int64_t sweep_interval_ms;
        int64_t sweep_grace_ms;
        uint64_t scrub_rate_bytes; /* a second; 0: no scrubbing */
    } retention;
    struct {
        enum config_media_type media_type;
        uint64_t cache_bytes;    /* 0: none */
        uint64_t min_rate_bytes; /* a second; 0: no limit */
    } downloads;
    struct {
        enum config_log_level level;
        enum config_log_format format;
        bool access;
        const char *file; /* NULL: standard error */
    } log;
};

/* Where settings come from; zeroed is: defaults only. */
struct config_sources {
    const char *file;         /* NULL: none */
    char *const *environment; /* "NAME=value", NULL at the end; may be NULL */
    const char *const *sets;  /* "section.key=value" each */
    size_t set_count;
};

/* What loading has to say: whole lines, each ending in a newline, made to be shown to the operator. */
struct config_report {
    struct bytebuf errors, warnings;
};

void config_report_init(struct config_report *report);
void config_report_release(struct config_report *report);

/*
 * Gives *out when nothing is wrong; else INVALID (NO_MEMORY) and report->errors says all that is. An unknown key or a
 * bad value is an error that names file and line, variable, or option; an unknown BLOBD_ variable is a warning.
 */
enum blob_status config_load(const struct config_sources *sources, struct config **out,
                             struct config_report *report) BLOB_MUST_CHECK;
void config_free(struct config *cfg);

/* A file that can be read back, with every setting; secrets are masked, and a mask is refused when read. */
void config_print(const struct config *cfg, struct bytebuf *out);
/* The settings part of --help. */
void config_help(struct bytebuf *out);
/* docs/configuration.md. */
void config_markdown(struct bytebuf *out);

/* After HUP: a line for each setting that differs and takes effect only after a restart. */
void config_needs_restart(const struct config *running, const struct config *loaded, struct bytebuf *out);

#endif
