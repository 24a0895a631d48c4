/*
 * s3_store - opening and closing the S3 store; the table of what it can do.
 *
 * Opening asks with an impatient client first, so that a wrong setting is told within seconds, and makes or reads
 * store.json: whoever creates it first decides the id (If-None-Match), and everybody reads it back.
 */
#include "backends/s3/s3_store.h"

#include "backends/s3/s3_probe.h"
#include "backends/s3/s3_store_internal.h"
#include "core/check.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT            1
#define OPEN_PATIENCE_MS  5000
#define PROBE_PATIENCE_MS 1000
#define POOL_THREADS_MAX  16
#define ONE_PROCESS                                                                                                    \
    "the S3 endpoint or its driver heeds no conditional writes: only one blobd may use the bucket (docs/s3.md)"

/* ---- store.json ---- */

static enum blob_status read_store_json(struct s3_client *c, char id[STORE_ID_CHARS + 1], struct blob_error *err)
{
    char text[512];
    size_t len;
    int format = 0;
    const char *found = "";
    struct uuid uuid;
    enum blob_status st = s3_get(c, S3_STORE_KEY, text, sizeof text, &len, NULL, err);
    if (st != BLOB_OK)
        return st;
    json_t *root = json_loadb(text, len, 0, NULL);
    if (!root || json_unpack(root, "{s:i,s:s}", "format", &format, "store_id", &found) != 0 ||
        uuid_parse(found, &uuid) != BLOB_OK)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "S3 " S3_STORE_KEY " is not blobd's: is storage.s3.prefix right?");
    else if (format != FORMAT)
        st = blob_fail(err, BLOB_E_INVALID, 0, "S3 " S3_STORE_KEY ": format %d is of a newer blobd", format);
    else
        memcpy(id, uuid.text, STORE_ID_CHARS + 1);
    json_decref(root);
    return st;
}

static enum blob_status make_store_json(struct s3_client *c, struct blob_error *err)
{
    char text[128];
    struct uuid id;
    const struct s3_condition absent = {.absent = true};
    uuid_new(&id);
    int n = snprintf(text, sizeof text, "{\"format\":%d,\"store_id\":\"%s\"}\n", FORMAT, id.text);
    const struct s3_body body = {.data = text, .length = (uint64_t)n};
    bool conditional = s3_client_caps(c) & S3_CAP_CONDITIONAL_PUT;
    enum blob_status st = s3_put(c, S3_STORE_KEY, &body, conditional ? &absent : NULL, NULL, err);
    return st == BLOB_E_EXISTS ? BLOB_OK : st;
}

static enum blob_status identify(struct s3_client *c, char id[STORE_ID_CHARS + 1], struct blob_error *err)
{
    enum blob_status st = read_store_json(c, id, err);
    if (st != BLOB_E_NOT_FOUND)
        return st;
    st = make_store_json(c, err);
    return st == BLOB_OK ? read_store_json(c, id, err) : st;
}

/* ---- open and close ---- */

static enum blob_status open_client(const struct s3_options *opts, int64_t patience_ms, struct s3_client **out,
                                    struct blob_error *err)
{
    struct s3_options o = *opts;
    if (patience_ms) {
        o.max_connections = 2;
        o.retry_timeout_ms = patience_ms;
        if (o.stall_timeout_ms > patience_ms)
            o.stall_timeout_ms = patience_ms;
        if (o.connect_timeout_ms > patience_ms)
            o.connect_timeout_ms = patience_ms;
    }
    return s3_client_open(&o, out, err);
}

/* The first contact: every mistake in the settings shows here. */
static enum blob_status first_contact(const struct s3_options *opts, char id[STORE_ID_CHARS + 1], bool *conditional,
                                      struct blob_error *err)
{
    struct s3_client *c;
    struct s3_page page;
    enum blob_status st = open_client(opts, OPEN_PATIENCE_MS, &c, err);
    if (st != BLOB_OK)
        return st;
    st = s3_list(c, "", NULL, 1, &page, err);
    if (st == BLOB_OK) {
        s3_page_release(&page);
        st = identify(c, id, err);
    }
    *conditional = s3_client_caps(c) & S3_CAP_CONDITIONAL_PUT;
    if (st == BLOB_OK && !opts->unprobed)
        st = s3_probe(c, opts, conditional, err);
    struct s3_clock_view clock;
    s3_client_clock(c, &clock);
    s3_client_close(c);
    int64_t off = s3_clock_worst_ms(&clock);
    if (off > S3_CLOCK_LIMIT_MS || off < -S3_CLOCK_LIMIT_MS)
        return blob_fail(err, BLOB_E_DENIED, 0,
                         "this machine's clock is %lld s %s the S3 endpoint's: set it right (NTP)",
                         (long long)(off < 0 ? -off : off) / 1000, off < 0 ? "ahead of" : "behind");
    return st;
}

/* Frees a store that may have been opened only in part. */
static void store_free(struct s3_store *s)
{
    worker_pool_free(s->pool);
    s3_client_close(s->client);
    s3_client_close(s->probe);
    s3_keys_free(s->keys);
    s3_memory_release(&s->memory);
    pthread_mutex_destroy(&s->swaps);
    pthread_mutex_destroy(&s->lock);
    free(s->policy);
    s->magic = 0;
    free(s);
}

static void s3_store_close(struct blob_store *base)
{
    struct s3_store *s = s3_store_of(base);
    s3_client_cancel(s->client);
    s3_client_cancel(s->probe);
    s3_keys_cancel(s->keys);
    store_free(s);
}

static void s3_reload(struct blob_store *base)
{
    s3_keys_reload(s3_store_of(base)->keys);
}

static enum blob_status s3_check(struct blob_store *base, struct blob_error *err)
{
    struct s3_object object;
    return s3_head(s3_store_of(base)->probe, S3_STORE_KEY, &object, err);
}

static enum blob_status s3_room(struct blob_store *base, uint64_t bytes, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    uint64_t most = s->multipart ? (uint64_t)s->part_size * S3_PART_MAX : s3_client_max_put(s->client);
    if (bytes > most)
        return blob_fail(err, BLOB_E_NO_SPACE, 0, "S3 takes at most %llu bytes with this part size",
                         (unsigned long long)most);
    return BLOB_OK;
}

static const struct blob_store_ops s3_ops = {
    .name = "s3",
    .close = s3_store_close,
    .reload = s3_reload,
    .check = s3_check,
    .room = s3_room,
    .sweep = s3_sweep,
    .self_check = s3_self_check,
    .staged_open = s3_upload_open,
    .writer_write = s3_writer_write,
    .writer_flush = s3_writer_flush,
    .writer_commit = s3_writer_commit,
    .writer_close = s3_writer_close,
    .staged_stat = s3_upload_stat,
    .staged_discard = s3_upload_discard,
    .staged_list = s3_upload_list,
    .blob_stat = s3_blob_stat,
    .blob_open = s3_blob_open,
    .reader_read = s3_reader_read,
    .reader_close = s3_reader_close,
    .cursor_read = s3_cursor_read,
    .cursor_end = s3_cursor_end,
    .blob_touch = s3_blob_touch,
    .blob_remove = s3_blob_remove,
    .blob_set_aside = s3_blob_set_aside,
    .blob_list = s3_blob_list,
    .blob_url = s3_blob_url,
    .record_put = s3_record_put,
    .record_get = s3_record_get,
    .record_delete = s3_record_delete,
    .record_list = s3_record_list,
};

static void warn_of_driver(const struct s3_store *s)
{
    if (s->base.limits)
        log_line(s->log, LOG_WARN, NULL, "%s", s->base.limits);
    if (s3_client_caps(s->client) & S3_CAP_VERIFIED_TLS)
        return;
    log_line(
        s->log, LOG_WARN, NULL,
        "storage.s3.driver=%s: TLS certificates are not verified, Amazon is not served, and only one blobd may use "
        "the bucket",
        s3_client_driver(s->client));
}

static char *policy_text(const struct s3_options *opts)
{
    struct bytebuf b;
    bytebuf_init(&b);
    const char *prefix = opts->prefix ? opts->prefix : "";
    size_t len = strlen(prefix);
    while (len > 0 && prefix[len - 1] == '/')
        len--;
    const char *slash = len > 0 ? "/" : "";
    bytebuf_printf(&b,
                   "{\n"
                   "  \"Version\": \"2012-10-17\",\n"
                   "  \"Statement\": [\n"
                   "    {\n"
                   "      \"Effect\": \"Allow\",\n"
                   "      \"Action\": [\"s3:ListBucket\", \"s3:ListBucketMultipartUploads\"],\n"
                   "      \"Resource\": \"arn:aws:s3:::%s\"\n"
                   "    },\n"
                   "    {\n"
                   "      \"Effect\": \"Allow\",\n"
                   "      \"Action\": [\"s3:GetObject\", \"s3:PutObject\", \"s3:DeleteObject\",\n"
                   "                 \"s3:AbortMultipartUpload\", \"s3:ListMultipartUploadParts\"],\n"
                   "      \"Resource\": \"arn:aws:s3:::%s/%.*s%s*\"\n"
                   "    }\n"
                   "  ]\n"
                   "}\n",
                   opts->bucket ? opts->bucket : "", opts->bucket ? opts->bucket : "", (int)len, prefix, slash);
    char *text = bytebuf_take(&b, NULL);
    bytebuf_release(&b);
    return text;
}

enum blob_status s3_store_open(const struct s3_options *opts, struct logger *log, struct blob_store **out,
                               struct blob_error *err)
{
    struct s3_store *s = calloc(1, sizeof *s);
    if (!s)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 store");
    s->magic = S3_STORE_MAGIC;
    s->log = log;
    s->part_size = (uint32_t)(opts->part_size_bytes > UINT32_MAX ? UINT32_MAX : opts->part_size_bytes);
    s->parallel_parts = opts->parallel_parts ? opts->parallel_parts : 1;
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    CHECK(pthread_mutex_init(&s->swaps, NULL) == 0);
    s3_memory_init(&s->memory, opts->memory_bytes, s->part_size, &s->base.dirty_bytes);
    unsigned threads = opts->max_connections - s3_streams_max(opts);
    if (threads > POOL_THREADS_MAX)
        threads = POOL_THREADS_MAX;

    struct s3_options shared = *opts;
    enum blob_status st = s3_keys_open(opts, log, &s->keys, err);
    shared.keys = s->keys;
    if (st == BLOB_OK)
        st = first_contact(&shared, s->base.store_id, &s->conditional, err);
    if (st == BLOB_OK)
        st = open_client(&shared, 0, &s->client, err);
    if (st == BLOB_OK)
        st = open_client(&shared, PROBE_PATIENCE_MS, &s->probe, err);
    if (st == BLOB_OK)
        st = worker_pool_new(threads ? threads : 1, 1024, &s->pool, err);
    if (st == BLOB_OK && !(s->policy = policy_text(opts)))
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 store");
    if (st != BLOB_OK) {
        store_free(s);
        return st;
    }
    unsigned caps = s3_client_caps(s->client);
    s->multipart = caps & S3_CAP_MULTIPART;
    s->base.ops = &s3_ops;
    s->base.part_bytes = s->part_size;
    s->base.caps = STORE_KEEPS_STATE | STORE_REMOTE;
    if (s->conditional)
        s->base.caps |= STORE_SHARED;
    else
        s->base.limits = ONE_PROCESS;
    if (opts->redirect && (caps & S3_CAP_PRESIGN))
        s->base.caps |= STORE_REDIRECT;
    s->streams_max = caps & S3_CAP_STREAM ? s3_streams_max(opts) : 0;
    warn_of_driver(s);
    *out = &s->base;
    return BLOB_OK;
}
