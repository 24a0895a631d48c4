/* file_handlers - thin: the catalog decides who sees what; here it becomes JSON. */
#include "server/api/file_handlers.h"

#include "core/files/file_catalog.h"
#include "core/log.h"
#include "core/text/bytebuf.h"
#include "core/text/rfc3339.h"
#include "server/api/exchange.h"
#include "server/api/exchange_hop.h"
#include "server/api/file_query.h"
#include "server/api/response.h"
#include "server/api/service.h"

#include <inttypes.h>

/* The fields of a file, without the closing brace. */
static void add_file(struct bytebuf *b, const struct file_record *file)
{
    char created[RFC3339_CHARS + 1];
    rfc3339_format(file->created_ms, created);
    bytebuf_text(b, "{\"id\":");
    bytebuf_json_string(b, file->id);
    bytebuf_text(b, ",\"name\":");
    bytebuf_json_string(b, file->name);
    bytebuf_printf(b, ",\"size\":%" PRIu64 ",\"media_type\":", file->size);
    bytebuf_json_string(b, file->media_type);
    bytebuf_printf(b, ",\"created_at\":\"%s\"", created);
}

/* Any status of the catalog's but OK. */
static void fail(struct exchange *x, enum blob_status st, const struct blob_error *err)
{
    if (st == BLOB_E_NOT_FOUND || st == BLOB_E_INVALID) {
        api_fail(&x->err, API_FILE_UNKNOWN, "there is no file of this id");
        return;
    }
    log_line(x->svc->log, st == BLOB_E_UNAVAILABLE ? LOG_WARN : LOG_ERROR, http_request_id(x->req), "files: %s",
             err->text);
    api_fail_status(&x->err, st);
}

/* ---- list ---- */

struct list_state {
    struct file_query query;
    uint64_t count;
    struct bytebuf items;
};

static bool add_item(const struct file_record *file, void *arg)
{
    struct bytebuf *items = arg;
    if (items->len > 0)
        bytebuf_text(items, ",");
    add_file(items, file);
    bytebuf_text(items, "}");
    return true;
}

static void list_work(struct exchange *x)
{
    struct list_state *s = x->state;
    struct blob_error err;
    bytebuf_init(&s->items);
    enum blob_status st =
        file_catalog_list(x->svc->catalog, &x->who, &s->query.index, &s->count, add_item, &s->items, &err);
    if (st != BLOB_OK)
        fail(x, st, &err);
}

static void list_done(struct exchange *x)
{
    struct list_state *s = x->state;
    struct bytebuf items = s->items, body;
    bytebuf_init(&body);
    bytebuf_printf(&body, "{\"count\":%" PRIu64 ",\"items\":[%s]}", s->count, items.data);
    body.failed = body.failed || items.failed;
    if (x->err.code != API_OK)
        response_error(x, &x->err);
    else
        response_json(x, 200, &body);
    bytebuf_release(&body);
    bytebuf_release(&items);
}

void handle_file_list(struct exchange *x)
{
    struct list_state *s = exchange_state(x, sizeof *s);
    if (s == NULL)
        return;
    if (file_query_parse(http_request_query(x->req), &s->query, &x->err) != API_OK) {
        response_error(x, &x->err);
        return;
    }
    exchange_hop(x, NULL, list_work, list_done);
}

/* ---- one file ---- */

static void get_work(struct exchange *x)
{
    struct blob_error err;
    enum blob_status st = file_catalog_get(x->svc->catalog, x->param, &x->who, x->state, &err);
    if (st != BLOB_OK)
        fail(x, st, &err);
}

static void get_done(struct exchange *x)
{
    const struct file_record *file = x->state;
    char hex[DIGEST_HEX_CHARS + 1];
    struct bytebuf body;
    if (x->err.code != API_OK) {
        response_error(x, &x->err);
        return;
    }
    digest_hex(&file->digest, hex);
    bytebuf_init(&body);
    add_file(&body, file);
    bytebuf_printf(&body, ",\"digest\":\"%s\",\"file_url\":\"/api/blobs/%s\"}", hex, hex);
    response_json(x, 200, &body);
    bytebuf_release(&body);
}

/* False: answered 400. Any other id that is none is merely unknown, ids being opaque. */
static bool id_is_readable(struct exchange *x)
{
    if (x->param[0] != '\0')
        return true;
    api_fail_field(&x->err, API_VALIDATE_FAILED, "id", "the file id holds broken percent-encoding");
    response_error(x, &x->err);
    return false;
}

void handle_file_get(struct exchange *x)
{
    if (id_is_readable(x) && exchange_state(x, sizeof(struct file_record)) != NULL)
        exchange_hop(x, NULL, get_work, get_done);
}

static void destroy_work(struct exchange *x)
{
    struct digest digest;
    bool last_of_blob;
    struct blob_error err;
    enum blob_status st = file_catalog_destroy(x->svc->catalog, x->param, &x->who, &digest, &last_of_blob, &err);
    if (st != BLOB_OK)
        fail(x, st, &err);
}

static void destroy_done(struct exchange *x)
{
    if (x->err.code != API_OK)
        response_error(x, &x->err);
    else
        response_empty(x, 204);
}

void handle_file_destroy(struct exchange *x)
{
    if (id_is_readable(x))
        exchange_hop(x, NULL, destroy_work, destroy_done);
}
