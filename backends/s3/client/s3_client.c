/*
 * s3_client - the checked wrappers: choose the driver, check what callers pass, put the prefix before keys and take
 * it off again, and look at a finished multipart object before calling it finished.
 */
#include "backends/s3/client/s3_client.h"

#include "backends/s3/client/s3_driver.h"
#include "core/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_MAX   128
#define FULL_KEY_MAX (PREFIX_MAX + S3_KEY_MAX + 2)

struct s3_client {
    const struct s3_driver *driver;
    void *self;
    char prefix[PREFIX_MAX + 2]; /* "" or "path/" */
    size_t prefix_len;
};

static const struct s3_driver *const drivers[] = {
    &s3_driver_sigv4,
#ifdef BLOBD_LIBS3
    &s3_driver_libs3,
#endif
};

static size_t plain_chars(const char *text)
{
    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/");
}

static bool charset_ok(const char *text)
{
    return plain_chars(text) == strlen(text);
}

bool s3_key_ok(const char *key)
{
    return key[0] && key[0] != '/' && strlen(key) <= S3_KEY_MAX && charset_ok(key[0] == '~' ? key + 1 : key);
}

/* ---- open and close ---- */

static enum blob_status set_prefix(struct s3_client *c, const char *prefix, struct blob_error *err)
{
    while (*prefix == '/')
        prefix++;
    size_t len = strlen(prefix);
    while (len > 0 && prefix[len - 1] == '/')
        len--;
    if (len > PREFIX_MAX || !charset_ok(prefix))
        return blob_fail(err, BLOB_E_INVALID, 0,
                         "storage.s3.prefix \"%.64s\" must be at most %d of letters, digits, '.', '_', '-' and '/'",
                         prefix, PREFIX_MAX);
    if (len > 0)
        snprintf(c->prefix, sizeof c->prefix, "%.*s/", (int)len, prefix);
    c->prefix_len = strlen(c->prefix);
    return BLOB_OK;
}

enum blob_status s3_client_open(const struct s3_options *opts, struct s3_client **out, struct blob_error *err)
{
    const char *name = opts->driver && opts->driver[0] ? opts->driver : "sigv4";
    const struct s3_driver *driver = NULL;
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0]; i++) {
        if (strcmp(drivers[i]->name, name) == 0)
            driver = drivers[i];
    }
    if (!driver)
        return blob_fail(err, BLOB_E_INVALID, 0,
                         "storage.s3.driver \"%.32s\" is not one that was built in: sigv4, libs3", name);
    struct s3_client *c = calloc(1, sizeof *c);
    if (!c)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 client");
    c->driver = driver;
    enum blob_status st = set_prefix(c, opts->prefix ? opts->prefix : "", err);
    if (st == BLOB_OK)
        st = driver->open(opts, &c->self, err);
    if (st == BLOB_OK)
        *out = c;
    else
        free(c);
    return st;
}

void s3_client_close(struct s3_client *c)
{
    if (!c)
        return;
    c->driver->close(c->self);
    free(c);
}

void s3_client_cancel(struct s3_client *c)
{
    c->driver->cancel(c->self);
}

unsigned s3_client_caps(const struct s3_client *c)
{
    return c->driver->caps;
}

const char *s3_client_driver(const struct s3_client *c)
{
    return c->driver->name;
}

uint64_t s3_client_max_put(const struct s3_client *c)
{
    return c->driver->max_put;
}

void s3_client_clock(const struct s3_client *c, struct s3_clock_view *out)
{
    *out = (struct s3_clock_view){0};
    if (c->driver->clock)
        c->driver->clock(c->self, out);
}

/* ---- keys ---- */

struct full_key {
    char text[FULL_KEY_MAX];
};

/* The key as the endpoint knows it. "" gives the bare prefix. */
static struct full_key full(const struct s3_client *c, const char *key)
{
    struct full_key k;
    int n = snprintf(k.text, sizeof k.text, "%s%s", c->prefix, key);
    CHECK(n >= 0 && (size_t)n < sizeof k.text);
    return k;
}

/* Back to the caller's key, in place. false: the endpoint listed what was not asked for. */
static bool strip(const struct s3_client *c, char *key)
{
    if (strncmp(key, c->prefix, c->prefix_len) != 0)
        return false;
    memmove(key, key + c->prefix_len, strlen(key + c->prefix_len) + 1);
    return true;
}

static bool has(const struct s3_client *c, unsigned cap)
{
    return (c->driver->caps & cap) == cap;
}

static enum blob_status lacks(const struct s3_client *c, const char *what, struct blob_error *err)
{
    return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "the S3 driver %s has no %s", c->driver->name, what);
}

/* A listing whose pages do not go on beyond where they were to would never end, and what it does not show proves
 * nothing. */
static enum blob_status misled(const char *prefix, struct blob_error *err)
{
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0,
                     "the S3 endpoint listed below %s what was not asked for, not in order, or nothing and yet more to "
                     "come",
                     prefix[0] ? prefix : "its root");
}

/* ---- objects ---- */

enum blob_status s3_put(struct s3_client *c, const char *key, const struct s3_body *body,
                        const struct s3_condition *cond, struct s3_object *out, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && (body->data || body->read));
    if (body->length > c->driver->max_put)
        return blob_fail(err, BLOB_E_TOO_LARGE, 0, "S3 PUT %s: over %llu bytes", key,
                         (unsigned long long)c->driver->max_put);
    if (cond && (cond->absent || cond->etag) && !has(c, S3_CAP_CONDITIONAL_PUT))
        return lacks(c, "conditional writes", err);
    struct full_key k = full(c, key);
    struct s3_object object;
    enum blob_status st = c->driver->put(c->self, k.text, body, cond, &object, err);
    if (st == BLOB_OK && out)
        *out = object;
    return st;
}

static enum blob_status get(struct s3_client *c, const char *key, const struct s3_span *span, void *buf, size_t *got,
                            struct s3_object *out, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && buf && got);
    struct full_key k = full(c, key);
    struct s3_object object;
    size_t n;
    enum blob_status st = c->driver->get(c->self, k.text, span, buf, &n, &object, err);
    if (st != BLOB_OK)
        return st;
    *got = n;
    if (out)
        *out = object;
    return BLOB_OK;
}

enum blob_status s3_get_range(struct s3_client *c, const char *key, uint64_t offset, size_t length, void *buf,
                              size_t *got, struct s3_object *out, struct blob_error *err)
{
    CHECK(length > 0 && offset <= INT64_MAX - length);
    return get(c, key, &(struct s3_span){.offset = offset, .length = length}, buf, got, out, err);
}

enum blob_status s3_get(struct s3_client *c, const char *key, void *buf, size_t size, size_t *got,
                        struct s3_object *out, struct blob_error *err)
{
    return get(c, key, &(struct s3_span){.whole = true, .length = size}, buf, got, out, err);
}

enum blob_status s3_head(struct s3_client *c, const char *key, struct s3_object *out, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && out);
    struct full_key k = full(c, key);
    struct s3_object object;
    enum blob_status st = c->driver->head(c->self, k.text, &object, err);
    if (st == BLOB_OK)
        *out = object;
    return st;
}

enum blob_status s3_delete(struct s3_client *c, const char *key, struct blob_error *err)
{
    CHECK(s3_key_ok(key));
    struct full_key k = full(c, key);
    return c->driver->remove(c->self, k.text, err);
}

enum blob_status s3_delete_once(struct s3_client *c, const char *key, int64_t as_of_ms, struct blob_error *err)
{
    CHECK(s3_key_ok(key));
    struct full_key k = full(c, key);
    return c->driver->remove_once ? c->driver->remove_once(c->self, k.text, as_of_ms, err)
                                  : c->driver->remove(c->self, k.text, err);
}

/* Is it what was asked for? Then its keys are those of the caller. */
static bool page_fits(const struct s3_client *c, const struct s3_page *page, const struct full_key *prefix,
                      const char *after)
{
    for (size_t i = 0; i < page->count; i++) {
        const char *key = page->entries[i].key;
        if (strncmp(key, prefix->text, strlen(prefix->text)) != 0 || strcmp(key, after) <= 0)
            return false;
        after = key;
    }
    for (size_t i = 0; i < page->count; i++) {
        if (!strip(c, page->entries[i].key))
            return false;
    }
    return page->count > 0 || !page->more;
}

enum blob_status s3_list(struct s3_client *c, const char *prefix, const char *after, unsigned max, struct s3_page *out,
                         struct blob_error *err)
{
    CHECK((!prefix[0] || s3_key_ok(prefix)) && (!after || s3_key_ok(after)) && max >= 1 && max <= 1000);
    struct full_key p = full(c, prefix), a = full(c, after ? after : "");
    struct s3_page page;
    enum blob_status st = c->driver->list(c->self, p.text, after ? a.text : NULL, max, &page, err);
    if (st != BLOB_OK)
        return st;
    if (!page_fits(c, &page, &p, after ? a.text : "")) {
        s3_page_release(&page);
        return misled(prefix, err);
    }
    *out = page;
    return BLOB_OK;
}

/* ---- streams ---- */

struct s3_stream {
    const struct s3_driver *driver;
    void *self;
    uint64_t left;
};

enum blob_status s3_stream_open(struct s3_client *c, const char *key, uint64_t offset, uint64_t length,
                                struct s3_stream **out, struct s3_object *object, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && length > 0 && offset <= INT64_MAX - length);
    if (!has(c, S3_CAP_STREAM))
        return lacks(c, "streams", err);
    struct s3_stream *s = malloc(sizeof *s);
    if (!s)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 stream");
    struct full_key k = full(c, key);
    const struct s3_span span = {.offset = offset, .length = length};
    struct s3_object seen;
    *s = (struct s3_stream){.driver = c->driver, .left = length};
    enum blob_status st = c->driver->stream_open(c->self, k.text, &span, &s->self, &seen, err);
    if (st != BLOB_OK) {
        free(s);
        return st;
    }
    *out = s;
    *object = seen;
    return BLOB_OK;
}

enum blob_status s3_stream_read(struct s3_stream *s, void *buf, size_t len, struct blob_error *err)
{
    CHECK(len <= s->left);
    s->left -= len;
    return s->driver->stream_read(s->self, buf, len, err);
}

void s3_stream_close(struct s3_stream *s)
{
    if (!s)
        return;
    s->driver->stream_close(s->self);
    free(s);
}

/* ---- multipart uploads ---- */

enum blob_status s3_multipart_create(struct s3_client *c, const char *key, char upload_id[S3_UPLOAD_ID_MAX],
                                     struct blob_error *err)
{
    CHECK(s3_key_ok(key));
    if (!has(c, S3_CAP_MULTIPART))
        return lacks(c, "multipart uploads", err);
    struct full_key k = full(c, key);
    char id[S3_UPLOAD_ID_MAX];
    enum blob_status st = c->driver->create(c->self, k.text, id, err);
    if (st == BLOB_OK)
        memcpy(upload_id, id, sizeof id);
    return st;
}

enum blob_status s3_multipart_put(struct s3_client *c, const char *key, const char *upload_id, unsigned number,
                                  const struct s3_body *body, struct s3_part *out, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && upload_id[0] && number >= 1 && number <= S3_PART_MAX && (body->data || body->read) && out);
    if (!has(c, S3_CAP_MULTIPART))
        return lacks(c, "multipart uploads", err);
    struct full_key k = full(c, key);
    struct s3_part part;
    enum blob_status st = c->driver->put_part(c->self, k.text, upload_id, number, body, &part, err);
    if (st == BLOB_OK)
        *out = part;
    return st;
}

/*
 * After a lost answer the upload is gone and the object there, so the object decides. Some gateways answer an upload
 * that is gone with a 500 (Ceph RGW 16 does): its listing then tells.
 */
static enum blob_status look_after_complete(struct s3_client *c, const char *key, const char *upload_id,
                                            enum blob_status st, struct s3_object *object, struct blob_error *err)
{
    struct s3_parts parts;
    enum blob_status seen = c->driver->head(c->self, key, object, st == BLOB_OK ? err : NULL);
    if (seen == BLOB_OK)
        return BLOB_OK;
    if (seen != BLOB_E_NOT_FOUND)
        return st == BLOB_OK ? seen : st;
    if (st == BLOB_OK)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s was put together and cannot be seen yet", key);
    if (st == BLOB_E_UNAVAILABLE) {
        seen = c->driver->parts(c->self, key, upload_id, 0, &parts, NULL);
        if (seen == BLOB_OK)
            s3_parts_release(&parts);
        if (seen == BLOB_E_NOT_FOUND)
            return blob_fail(err, BLOB_E_NOT_FOUND, 0, "S3 %s: no such multipart upload", key);
    }
    return st;
}

enum blob_status s3_multipart_complete(struct s3_client *c, const char *key, const char *upload_id,
                                       const struct s3_part *parts, unsigned count, struct s3_object *out,
                                       struct blob_error *err)
{
    CHECK(s3_key_ok(key) && upload_id[0] && count >= 1 && count <= S3_PART_MAX);
    if (!has(c, S3_CAP_MULTIPART))
        return lacks(c, "multipart uploads", err);
    uint64_t size = 0;
    for (unsigned i = 0; i < count; i++) {
        CHECK(parts[i].number >= 1 && (i == 0 || parts[i].number > parts[i - 1].number));
        size += parts[i].size;
    }
    struct full_key k = full(c, key);
    struct s3_object object;
    enum blob_status st = c->driver->complete(c->self, k.text, upload_id, parts, count, err);
    if (st == BLOB_OK || st == BLOB_E_NOT_FOUND || st == BLOB_E_UNAVAILABLE)
        st = look_after_complete(c, k.text, upload_id, st, &object, err);
    if (st != BLOB_OK)
        return st;
    if (object.size != size)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s has %llu bytes after its parts of %llu were put together", key,
                         (unsigned long long)object.size, (unsigned long long)size);
    if (out)
        *out = object;
    return BLOB_OK;
}

enum blob_status s3_multipart_abort(struct s3_client *c, const char *key, const char *upload_id, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && upload_id[0]);
    if (!has(c, S3_CAP_MULTIPART))
        return lacks(c, "multipart uploads", err);
    struct full_key k = full(c, key);
    return c->driver->abort(c->self, k.text, upload_id, err);
}

enum blob_status s3_multipart_parts(struct s3_client *c, const char *key, const char *upload_id, unsigned after,
                                    struct s3_parts *out, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && upload_id[0] && after <= S3_PART_MAX && out);
    if (!has(c, S3_CAP_MULTIPART))
        return lacks(c, "multipart uploads", err);
    struct full_key k = full(c, key);
    struct s3_parts page;
    enum blob_status st = c->driver->parts(c->self, k.text, upload_id, after, &page, err);
    if (st != BLOB_OK)
        return st;
    bool fits = page.count > 0 || !page.more;
    for (size_t i = 0; i < page.count; i++) {
        fits = fits && page.parts[i].number > after;
        after = page.parts[i].number;
    }
    if (!fits) {
        s3_parts_release(&page);
        return misled(key, err);
    }
    *out = page;
    return BLOB_OK;
}

/* The same for uploads. Those of one key come in an order of the endpoint's own. */
static bool uploads_fit(const struct s3_client *c, const struct s3_uploads *uploads, const struct full_key *prefix,
                        const char *after_key, const char *after_id)
{
    for (size_t i = 0; i < uploads->count; i++) {
        const struct s3_upload *u = &uploads->uploads[i];
        int order = strcmp(u->key, after_key);
        if (strncmp(u->key, prefix->text, strlen(prefix->text)) != 0 || order < 0 ||
            (order == 0 && after_id && strcmp(u->upload_id, after_id) == 0))
            return false;
        after_key = u->key;
        after_id = u->upload_id;
    }
    const char *last = uploads->count > 0 ? after_key : NULL;
    bool fits = last || !uploads->more;
    for (size_t i = 0; i < uploads->count && fits; i++)
        fits = strip(c, uploads->uploads[i].key);
    return fits;
}

enum blob_status s3_multipart_list(struct s3_client *c, const char *prefix, const char *after_key, const char *after_id,
                                   struct s3_uploads *out, struct blob_error *err)
{
    CHECK((!prefix[0] || s3_key_ok(prefix)) && (!after_key || s3_key_ok(after_key)) && out);
    if (!has(c, S3_CAP_MULTIPART))
        return lacks(c, "multipart uploads", err);
    struct full_key p = full(c, prefix), a = full(c, after_key ? after_key : "");
    struct s3_uploads uploads;
    enum blob_status st = c->driver->uploads(c->self, p.text, after_key ? a.text : NULL, after_id, &uploads, err);
    if (st != BLOB_OK)
        return st;
    if (!uploads_fit(c, &uploads, &p, after_key ? a.text : "", after_id)) {
        s3_uploads_release(&uploads);
        return misled(prefix, err);
    }
    *out = uploads;
    return BLOB_OK;
}

/* ---- presigned downloads ---- */

enum blob_status s3_presign(struct s3_client *c, const char *key, int64_t expiry_s, const char *disposition,
                            const char *content_type, char **url, struct blob_error *err)
{
    CHECK(s3_key_ok(key) && expiry_s >= 1 && expiry_s <= 604800 && url);
    if (!has(c, S3_CAP_PRESIGN))
        return lacks(c, "presigned URLs", err);
    struct full_key k = full(c, key);
    return c->driver->presign(c->self, k.text, expiry_s, disposition, content_type, url, err);
}
