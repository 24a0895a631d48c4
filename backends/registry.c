/* registry - translates settings into the options of each backend. A new backend is a function here and a line in a
 * table. */
#include "backends/registry.h"

#include "backends/disk/disk_store.h"
#include "backends/embedded/embedded_sessions.h"
#include "backends/redis/redis_sessions.h"
#include "backends/s3/s3_store.h"
#include "core/config/config.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

/* Content stops here, so that what is said about it can still be written: sessions, records, the index. */
#define DISK_RESERVE_BYTES (UINT64_C(32) << 20)
#define SESSIONS_FILE      "sessions.db"

typedef enum blob_status open_store_fn(const struct config *cfg, bool to_check, struct logger *log,
                                       struct blob_store **out, struct blob_error *err);
typedef enum blob_status open_sessions_fn(const struct config *cfg, struct logger *log, struct session_store **out,
                                          struct blob_error *err);

/* The store names what it cannot open by its place below the root. */
static enum blob_status explain_denied(const char *root, struct blob_error *err)
{
    struct blob_error why = *err;
    unsigned user = (unsigned)geteuid();
    return blob_fail(err, BLOB_E_DENIED, 0,
                     "storage.disk.root %s: %s; all of it has to belong to the server's user: chown -R %u that "
                     "directory",
                     root, why.text, user);
}

static enum blob_status open_disk(const struct config *cfg, bool to_check, struct logger *log, struct blob_store **out,
                                  struct blob_error *err)
{
    const struct disk_options opt = {
        .root = cfg->disk.root,
        .journal = cfg->disk.journal,
        .shared = cfg->disk.shared,
        .keep_cached_bytes = cfg->disk.keep_cached_bytes,
        .reserve_bytes = DISK_RESERVE_BYTES,
        .probe = !to_check,
        .log = log,
    };
    enum blob_status st = disk_store_open(&opt, out, err);
    return st == BLOB_E_DENIED ? explain_denied(cfg->disk.root, err) : st;
}

static enum blob_status open_s3(const struct config *cfg, bool to_check, struct logger *log, struct blob_store **out,
                                struct blob_error *err)
{
    const struct s3_options opt = {
        .driver = cfg->s3.driver == CONFIG_S3_LIBS3 ? "libs3" : "sigv4",
        .endpoint = cfg->s3.endpoint,
        .region = cfg->s3.region,
        .bucket = cfg->s3.bucket,
        .prefix = cfg->s3.prefix,
        .path_style = cfg->s3.path_style,
        .cred_id = cfg->s3.cred_id,
        .cred_secret = cfg->s3.cred_secret,
        .session_token = cfg->s3.session_token,
        .cred_file = cfg->s3.cred_file,
        .ca_file = cfg->s3.ca_file,
        .connect_timeout_ms = cfg->s3.connect_timeout_ms,
        .stall_timeout_ms = cfg->s3.timeout_ms,
        .complete_timeout_ms = cfg->s3.complete_timeout_ms,
        .retry_timeout_ms = cfg->s3.retry_timeout_ms,
        .retries = (unsigned)cfg->s3.retries,
        .max_connections = (unsigned)cfg->s3.max_connections,
        .part_size_bytes = cfg->s3.part_size_bytes,
        .parallel_parts = (unsigned)cfg->s3.parallelism,
        .memory_bytes = (size_t)(cfg->server.max_memory_bytes / 2),
        .unprobed = to_check,
        .redirect = cfg->s3.download == CONFIG_S3_REDIRECT,
        .presign_expiry_ms = cfg->s3.presign_expiry_ms,
    };
    return s3_store_open(&opt, log, out, err);
}

static enum blob_status open_embedded(const struct config *cfg, struct logger *log, struct session_store **out,
                                      struct blob_error *err)
{
    char path[PATH_MAX];
    struct embedded_sessions_options opt = {.path = cfg->sessions.path, .log = log};
    if (!opt.path) {
        if (!cfg->disk.root)
            return blob_fail(err, BLOB_E_INVALID, 0, "sessions.path must be set: there is no storage.disk.root");
        if (snprintf(path, sizeof path, "%s/" SESSIONS_FILE, cfg->disk.root) >= (int)sizeof path)
            return blob_fail(err, BLOB_E_INVALID, 0, "storage.disk.root is too long");
        opt.path = path;
    }
    return embedded_sessions_open(&opt, out, err);
}

static enum blob_status open_redis(const struct config *cfg, struct logger *log, struct session_store **out,
                                   struct blob_error *err)
{
    const struct redis_sessions_options opt = {.url = cfg->redis.url,
                                               .sentinels = cfg->redis.sentinels,
                                               .master_name = cfg->redis.master_name,
                                               .user = cfg->redis.username,
                                               .password = cfg->redis.password,
                                               .prefix = cfg->redis.key_prefix,
                                               .connections = (unsigned)cfg->redis.pool_size,
                                               .connect_timeout_ms = cfg->redis.connect_timeout_ms,
                                               .command_timeout_ms = cfg->redis.command_timeout_ms,
                                               .node_ttl_ms = cfg->sessions.lease_ms,
                                               .log = log};
    return redis_sessions_open(&opt, out, err);
}

static open_store_fn *const stores[] = {
    [CONFIG_BACKEND_DISK] = open_disk,
    [CONFIG_BACKEND_S3] = open_s3,
};

static open_sessions_fn *const sessions[] = {
    [CONFIG_SESSIONS_EMBEDDED] = open_embedded,
    [CONFIG_SESSIONS_REDIS] = open_redis,
};

enum blob_status registry_open_store(const struct config *cfg, bool to_check, struct logger *log,
                                     struct blob_store **out, struct blob_error *err)
{
    open_store_fn *open_store = stores[cfg->storage.backend];
    if (!open_store)
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "storage.backend: not in this build");
    return open_store(cfg, to_check, log, out, err);
}

enum blob_status registry_open_sessions(const struct config *cfg, struct logger *log, struct session_store **out,
                                        struct blob_error *err)
{
    open_sessions_fn *open_sessions = sessions[cfg->sessions.store];
    if (!open_sessions)
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "sessions.store: not in this build");
    return open_sessions(cfg, log, out, err);
}
