/*
 * config_options - the table. A line here is all it takes to add a setting, beside its field in config.h: the
 * macros take the field's offset and check its type.
 */
#include "core/config/config_options.h"

#include <ctype.h>
#include <string.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

#define SECOND UINT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)
#define YEAR   (365 * DAY)

#define FIELD(member, ctype, kind)                                                                                     \
    .offset = offsetof(struct config, member), .type = _Generic(((struct config *)0)->member, ctype : kind)
#define TEXT(member)           FIELD(member, const char *, CONFIG_TEXT)
#define BOOL(member)           FIELD(member, bool, CONFIG_BOOL)
#define NUMBER(member, lo, hi) FIELD(member, uint64_t, CONFIG_NUMBER), .min = (lo), .max = (hi)
#define SIZE(member, lo, hi)   FIELD(member, uint64_t, CONFIG_SIZE), .min = (lo), .max = (hi)
#define TIME(member, lo, hi)   FIELD(member, int64_t, CONFIG_DURATION), .min = (lo), .max = (hi)
/* An enum without negative values is an unsigned int to the compiler. */
#define CHOICE(member, words)  FIELD(member, unsigned, CONFIG_CHOICE), .choices = (words)

static const struct config_option options[] = {
    /* ---- server ---- */
    {"server", "listen", TEXT(server.listen), .form = CONFIG_ADDRESS, .initial = "0.0.0.0:8887",
     .text = "Address and port of the API."},
    {"server", "admin_listen", TEXT(server.admin_listen), .form = CONFIG_ADDRESS, .initial = "127.0.0.1:8886",
     .text = "Address and port of /healthz, /readyz and /metrics, always plain HTTP. Empty: none."},
    {"server", "instance", TEXT(server.instance), .initial = "",
     .text = "This node's name in logs and in the cluster. Empty: the host's name."},
    {"server", "event_threads", NUMBER(server.event_threads, 1, 256), .zero = "auto", .initial = "auto",
     .text = "Event loops. auto: one for each core."},
    {"server", "worker_threads", NUMBER(server.worker_threads, 1, 1024), .initial = "16",
     .text = "Threads for what may block: storage, sessions, token checks."},
    {"server", "worker_queue", NUMBER(server.worker_queue, 1, 1000000), .initial = "4096",
     .text = "Requests that may wait for a worker; more are answered 503 with Retry-After."},
    {"server", "max_memory", SIZE(server.max_memory_bytes, 32 * MIB, TIB), .initial = "512M",
     .text = "Bounds what request and response bodies, part buffers and caches take together."},
    {"server", "max_connections", NUMBER(server.max_connections, 1, 1000000), .initial = "10000",
     .text = "Connections open at once; more are answered 503."},
    {"server", "max_head_bytes", SIZE(server.max_head_bytes, KIB, MIB), .initial = "16K",
     .text = "Longest request head; longer is answered 431."},
    {"server", "max_uri_bytes", SIZE(server.max_uri_bytes, 256, MIB), .initial = "8K",
     .text = "Longest request target; longer is answered 414."},
    {"server", "head_timeout", TIME(server.head_timeout_ms, SECOND, HOUR), .initial = "15s",
     .text = "A request head must be there within this time; else 408."},
    {"server", "idle_timeout", TIME(server.idle_timeout_ms, SECOND, DAY), .initial = "60s",
     .text = "A connection on which nothing moves is closed after this time; a body that stalls is answered 408. An "
             "answer moves while the client acknowledges any of it, however slowly."},
    {"server", "drain_delay", TIME(server.drain_delay_ms, 0, HOUR), .initial = "0s",
     .text = "After TERM, /readyz fails for this long before the listener closes, so that a balancer looks elsewhere "
             "first."},
    {"server", "drain_timeout", TIME(server.drain_timeout_ms, SECOND, DAY), .initial = "30s",
     .text = "After TERM, requests in flight have this long to end."},
    {"server", "proxy_protocol_from", TEXT(server.proxy_protocol_from), .form = CONFIG_NETWORKS, .initial = "",
     .text = "Peers that begin each connection with a PROXY protocol header, version 2, which tells the client's "
             "address: addresses and networks, separated by blanks. From others such a header is an error."},
    {"server", "forwarded_from", TEXT(server.forwarded_from), .form = CONFIG_NETWORKS, .initial = "",
     .text = "Peers whose X-Forwarded-For is believed: the client is its last address that is none of theirs. From "
             "others it is ignored."},
    {"server", "cors_origins", TEXT(server.cors_origins), .initial = "",
     .text = "Origins whose pages may call the API, separated by blanks; * for any. Empty: none."},

    /* ---- limits ---- */
    {"limits", "connections_per_address", NUMBER(limits.connections_per_address, 1, 1000000), .zero = "auto",
     .initial = "auto", .reloadable = true,
     .text = "Connections that one client address may have open; more are answered 429. auto: all that there may be, "
             "less one in 64, so that one address cannot keep all others out. An IPv6 client counts by its /64. Read "
             "again on HUP, as all of this section."},
    {"limits", "requests_per_address", NUMBER(limits.requests_per_address, 1, 1000000), .zero = "auto",
     .initial = "auto", .reloadable = true,
     .text = "Requests of one client address that may be in flight; more are answered 429. auto: as above."},
    {"limits", "requests_per_identity", NUMBER(limits.requests_per_identity, 1, 1000000), .zero = "", .initial = "",
     .reloadable = true,
     .text = "Requests of one identity that may be in flight (of one bearer, where it has no name). Empty: no limit."},
    {"limits", "uploads_per_address", NUMBER(limits.uploads_per_address, 1, 10000000), .zero = "", .initial = "",
     .reloadable = true,
     .text = "Uploads that one client address may begin in a minute, all at once or spread. Empty: no limit."},
    {"limits", "uploads_per_identity", NUMBER(limits.uploads_per_identity, 1, 10000000), .zero = "", .initial = "",
     .reloadable = true, .text = "The same for one identity. Empty: no limit."},

    /* ---- tls ---- */
    {"tls", "enabled", BOOL(tls.enabled), .initial = "true", .text = "HTTPS on server.listen; false: plain HTTP."},
    {"tls", "cert_file", TEXT(tls.cert_file), .initial = "", .reloadable = true,
     .text = "Certificate chain (PEM). Read again on HUP, and from another file where this is changed."},
    {"tls", "key_file", TEXT(tls.key_file), .initial = "", .reloadable = true,
     .text = "Private key (PEM). As cert_file."},

    /* ---- auth ---- */
    {"auth", "mode", CHOICE(auth.mode, "tokens|verify|none"), .initial = "tokens",
     .text = "tokens: bearers from tokens_file; verify: ask the PBX at verify_url; none: everybody may do everything."},
    {"auth", "tokens_file", TEXT(auth.tokens_file), .initial = "", .reloadable = true,
     .text = "Lines of: NAME SHA256HEX-of-the-token [admin]. Read again on HUP, and from another file where this is "
             "changed."},
    {"auth", "verify_url", TEXT(auth.verify_url), .form = CONFIG_HTTP_URL, .initial = "", .secret = CONFIG_SECRET_URL,
     .text =
         "Called with the request's Authorization header: 2xx is yes, 401 and 403 are no, anything else is 503. The "
         "yes "
         "may name whose the bearer is, in X-Auth-Identity: at most 127 bytes of UTF-8; a name that cannot be used is "
         "503 too."},
    {"auth", "verify_ca_file", TEXT(auth.verify_ca_file), .form = CONFIG_FILE, .initial = "",
     .text = "Certificates (PEM) that verify_url is trusted by. Empty: the system's."},
    {"auth", "verify_timeout", TIME(auth.verify_timeout_ms, 100, MINUTE), .initial = "5s",
     .text = "How long an answer of verify_url is waited for."},
    {"auth", "verify_cache", TIME(auth.verify_cache_ms, 0, DAY), .initial = "60s",
     .text = "How long a yes is remembered."},
    {"auth", "verify_negative_cache", TIME(auth.verify_negative_cache_ms, 0, DAY), .initial = "5s",
     .text = "How long a no is remembered."},
    {"auth", "downloads", CHOICE(auth.downloads, "public|bearer"), .initial = "public",
     .text = "public: whoever knows a digest may download it; bearer: only with a valid bearer."},

    /* ---- storage ---- */
    {"storage", "backend", CHOICE(storage.backend, "disk|s3"), .initial = "disk", .text = "Where blobs are kept."},
    {"storage.disk", "root", TEXT(disk.root), .form = CONFIG_PATH, .initial = "",
     .text = "Directory of the store, on one file system."},
    {"storage.disk", "journal", BOOL(disk.journal), .initial = "true",
     .text = "Make many small commits durable with one write to a journal, rather than a file sync each."},
    {"storage.disk", "shared", BOOL(disk.shared), .initial = "false",
     .text = "The directory is on a file system shared by several nodes. Needs sessions.store=redis."},
    {"storage.disk", "keep_cached", SIZE(disk.keep_cached_bytes, 0, TIB), .initial = "8M",
     .text = "So much of an upload goes through the page cache, and stays there; the rest is written past it, so that "
             "large uploads do not push out what is downloaded often."},
    {"storage.s3", "endpoint", TEXT(s3.endpoint), .form = CONFIG_HTTP_URL, .initial = "",
     .text = "The S3 service. Empty: Amazon's, of the region."},
    {"storage.s3", "region", TEXT(s3.region), .initial = "us-east-1", .text = "Region that requests are signed for."},
    {"storage.s3", "bucket", TEXT(s3.bucket), .initial = "", .text = "Bucket; it must exist."},
    {"storage.s3", "prefix", TEXT(s3.prefix), .initial = "", .text = "Put before every key, such as pbx/blobs."},
    {"storage.s3", "cred_id", TEXT(s3.cred_id), .initial = "",
     .text = "Access key. Empty: AWS_ACCESS_KEY_ID and its companions from the environment, then cred_file."},
    {"storage.s3", "cred_secret", TEXT(s3.cred_secret), .initial = "", .secret = CONFIG_SECRET, .text = "Secret key."},
    {"storage.s3", "session_token", TEXT(s3.session_token), .initial = "", .secret = CONFIG_SECRET,
     .text = "Session token of temporary credentials."},
    {"storage.s3", "cred_file", TEXT(s3.cred_file), .initial = "",
     .text = "Credentials in the format of ~/.aws/credentials, section [default]."},
    {"storage.s3", "ca_file", TEXT(s3.ca_file), .form = CONFIG_FILE, .initial = "",
     .text = "Certificates (PEM) that the endpoint is trusted by. Empty: the system's."},
    {"storage.s3", "path_style", BOOL(s3.path_style), .initial = "true",
     .text = "https://host/bucket/key; false: https://bucket.host/key."},
    {"storage.s3", "driver", CHOICE(s3.driver, "sigv4|libs3"), .initial = "sigv4",
     .text = "sigv4: blobd's own; libs3: the library, for old gateways."},
    {"storage.s3", "download", CHOICE(s3.download, "proxy|redirect"), .initial = "proxy",
     .text = "proxy: blobd passes the bytes; redirect: 307 to a presigned URL that clients must be able to reach."},
    {"storage.s3", "presign_expiry", TIME(s3.presign_expiry_ms, SECOND, 7 * DAY), .initial = "1h",
     .text =
         "Lifetime of a presigned URL; never longer than that of the credential, and a minute where downloads need a "
         "bearer."},
    {"storage.s3", "part_size", SIZE(s3.part_size_bytes, 5 * MIB, 5 * GIB), .initial = "8M",
     .text = "Size of the parts of a multipart upload. 10000 parts are the most that S3 takes."},
    {"storage.s3", "parallelism", NUMBER(s3.parallelism, 1, 64), .initial = "4",
     .text = "Parts of one upload that are sent at the same time."},
    {"storage.s3", "max_connections", NUMBER(s3.max_connections, 1, 10000), .initial = "64",
     .text = "Connections to the endpoint. Half of them are for downloads under way."},
    {"storage.s3", "timeout", TIME(s3.timeout_ms, SECOND, HOUR), .initial = "30s",
     .text = "An attempt ends when no byte has moved for this time."},
    {"storage.s3", "connect_timeout", TIME(s3.connect_timeout_ms, 100, 10 * MINUTE), .initial = "5s",
     .text = "How long connecting may take."},
    {"storage.s3", "complete_timeout", TIME(s3.complete_timeout_ms, SECOND, DAY), .initial = "5m",
     .text = "How long the service may take to put a multipart upload together."},
    {"storage.s3", "retry_timeout", TIME(s3.retry_timeout_ms, SECOND, HOUR), .initial = "30s",
     .text = "No new attempt is begun later than this after the first."},
    {"storage.s3", "retries", NUMBER(s3.retries, 0, 100), .initial = "5",
     .text = "Attempts after the first. 0: bounded by retry_timeout alone."},

    /* ---- sessions ---- */
    {"sessions", "store", CHOICE(sessions.store, "embedded|redis"), .initial = "embedded",
     .text = "embedded: one node, in SQLite; redis: a cluster."},
    {"sessions", "timeout", TIME(sessions.timeout_ms, SECOND, YEAR), .initial = "24h",
     .text = "An unfinished upload is dropped this long after its last activity."},
    {"sessions", "lease", TIME(sessions.lease_ms, SECOND, HOUR), .initial = "15s",
     .text = "How long a node of a cluster that says nothing is taken for alive."},
    {"sessions", "path", TEXT(sessions.path), .initial = "",
     .text = "Database of the embedded store. Empty: under storage.disk.root."},
    {"sessions.redis", "url", TEXT(redis.url), .form = CONFIG_REDIS_URL, .initial = "", .secret = CONFIG_SECRET_URL,
     .text = "The Redis server, with the password if it needs one."},
    {"sessions.redis", "sentinels", TEXT(redis.sentinels), .initial = "",
     .text = "host:port of each sentinel, separated by blanks; they name the master instead of url."},
    {"sessions.redis", "master_name", TEXT(redis.master_name), .initial = "", .text = "The master's name there."},
    {"sessions.redis", "username", TEXT(redis.username), .initial = "", .text = "ACL user, if not in url."},
    {"sessions.redis", "password", TEXT(redis.password), .initial = "", .secret = CONFIG_SECRET,
     .text = "Password, if not in url."},
    {"sessions.redis", "key_prefix", TEXT(redis.key_prefix),
     .initial = "blobd:", .text = "Put before every key, so that clusters can share a database."},
    {"sessions.redis", "pool_size", NUMBER(redis.pool_size, 1, 1024), .initial = "16", .text = "Connections kept."},
    {"sessions.redis", "connect_timeout", TIME(redis.connect_timeout_ms, 100, MINUTE), .initial = "2s",
     .text = "How long connecting may take."},
    {"sessions.redis", "command_timeout", TIME(redis.command_timeout_ms, 100, MINUTE), .initial = "2s",
     .text = "How long an answer is waited for; then uploads are answered 503."},

    /* ---- uploads, retention, downloads ---- */
    {"uploads", "max_size", SIZE(uploads.max_size_bytes, 1, UINT64_C(1) << 62), .zero = "", .initial = "",
     .text = "Largest upload as a whole; larger is answered 413. Empty: no limit."},
    {"uploads", "min_rate", SIZE(uploads.min_rate_bytes, 1, GIB), .zero = "", .initial = "",
     .text = "A body that arrives slower than so many bytes a second is answered 408. Empty: no limit."},
    {"uploads", "sync", CHOICE(uploads.sync, "append|complete|never"), .initial = "append",
     .text = "When bytes are made durable: before each 203, before the 201 only, or when the system likes to."},
    {"uploads", "completed_retention", TIME(uploads.completed_retention_ms, SECOND, 30 * DAY), .initial = "1h",
     .text = "How long a completed upload answers a repeated complete with the same 201."},
    {"uploads", "checkpoint_bytes", SIZE(uploads.checkpoint_bytes, 64 * KIB, GIB), .initial = "8M",
     .text = "Within a running append, progress is recorded at least this often,"},
    {"uploads", "checkpoint_interval", TIME(uploads.checkpoint_interval_ms, 100, MINUTE), .initial = "1s",
     .text = "and at least this often; less often where that would take more than half of the workers' time."},
    {"retention", "temp_file_retention", TIME(retention.temp_file_retention_ms, SECOND, 10 * YEAR), .initial = "30d",
     .text = "Files uploaded as temporary are removed after this time."},
    {"retention", "sweep_interval", TIME(retention.sweep_interval_ms, SECOND, 30 * DAY), .initial = "10m",
     .text = "Time between two sweeps of expired uploads, files and unused blobs."},
    {"retention", "sweep_grace", TIME(retention.sweep_grace_ms, SECOND, YEAR), .initial = "1h",
     .text = "A blob that no file names is kept for this time."},
    {"retention", "scrub_rate", SIZE(retention.scrub_rate_bytes, KIB, TIB), .zero = "", .initial = "",
     .text = "Stored blobs are re-read against their digests at so many bytes a second. Empty: they are not."},
    {"downloads", "media_type", CHOICE(downloads.media_type, "octet-stream|stored"), .initial = "octet-stream",
     .text = "Content-Type of downloads: application/octet-stream, or the file's own."},
    {"downloads", "cache", SIZE(downloads.cache_bytes, MIB, TIB), .zero = "0", .initial = "16M",
     .text = "Memory for small blobs that are asked for often. 0: none."},
    {"downloads", "min_rate", SIZE(downloads.min_rate_bytes, 1, GIB), .zero = "", .initial = "",
     .text =
         "A client that acknowledges less than so many bytes of an answer a second, over ten seconds in which it could "
         "have, is cut off; what the storage takes is not counted. Empty: no limit but server.idle_timeout."},

    /* ---- log ---- */
    {"log", "level", CHOICE(log.level, "error|warn|info|debug"), .initial = "info", .reloadable = true,
     .text = "What is logged. Read again on HUP."},
    {"log", "format", CHOICE(log.format, "text|json"), .initial = "text", .text = "One line an event in either."},
    {"log", "access", BOOL(log.access), .initial = "true", .reloadable = true,
     .text = "A line for each request. Read again on HUP."},
    {"log", "file", TEXT(log.file), .form = CONFIG_LOG, .initial = "",
     .text = "File that is appended to, and reopened on USR1. Empty: standard error."},
};

const struct config_option *config_option_table(size_t *count)
{
    *count = sizeof options / sizeof options[0];
    return options;
}

const struct config_option *config_option_find(const char *section, const char *key)
{
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (strcmp(options[i].section, section) == 0 && strcmp(options[i].key, key) == 0)
            return &options[i];
    return NULL;
}

bool config_section_known(const char *section)
{
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (strcmp(options[i].section, section) == 0)
            return true;
    return false;
}

static void add_upper(const char *text, struct bytebuf *out)
{
    for (; *text; text++) {
        char c = *text == '.' ? '_' : (char)toupper((unsigned char)*text);
        bytebuf_add(out, &c, 1);
    }
}

void config_option_variable(const struct config_option *option, struct bytebuf *out)
{
    bytebuf_text(out, "BLOBD_");
    add_upper(option->section, out);
    bytebuf_text(out, "_");
    add_upper(option->key, out);
}
