/*
 * upload_rig - one node or two of the upload service on memory stores, and a client in miniature.
 *
 * Calls are made one after the other by the test's own thread, which is the order the worker pool's lanes give; only
 * checkpoints run on the pool. Tests of threads submit to the lanes themselves.
 */
#ifndef BLOBD_TESTS_UPLOAD_RIG_H
#define BLOBD_TESTS_UPLOAD_RIG_H

#include "core/upload/upload.h"
#include "core/worker_pool.h"
#include "tests/rig/catalog_rig.h"

#include <unistd.h>

struct node {
    struct session_store *sessions;
    struct file_catalog *catalog;
    struct worker_pool *pool;
    struct upload_service *svc;
};

struct upload_rig {
    struct rig base; /* the store; sessions and catalog of the first node */
    struct memory_hub *hub;
    struct upload_options opt;
    struct node node[2];
};

static const struct upload_options rig_upload_options = {
    .timeout_ms = 3600000,
    .completed_retention_ms = 3600000,
    .temp_file_retention_ms = 86400000,
    .checkpoint_bytes = 8u << 20,
    .checkpoint_interval_ms = 1000,
    .lease_ms = 5000,
};

static inline void node_start(struct upload_rig *u, int n)
{
    struct node *node = &u->node[n];
    node->sessions = n == 0 ? u->base.sessions : memory_sessions_open(u->hub);
    node->catalog = n == 0 ? u->base.catalog : file_catalog_new(u->base.store, node->sessions, NULL);
    CU_ASSERT_EQUAL_FATAL(worker_pool_new(2, 1000, &node->pool, NULL), BLOB_OK);
    node->svc = upload_service_new(u->base.store, node->sessions, node->catalog, node->pool, NULL, NULL, &u->opt);
    CU_ASSERT_EQUAL_FATAL(session_store_join(node->sessions, upload_service_node(node->svc), u->base.store->store_id,
                                             clock_wall_ms(), NULL),
                          BLOB_OK);
}

static inline void node_stop(struct upload_rig *u, int n)
{
    struct node *node = &u->node[n];
    if (!node->svc)
        return;
    worker_pool_free(node->pool);
    upload_service_free(node->svc);
    if (n > 0) {
        file_catalog_free(node->catalog);
        session_store_close(node->sessions);
    }
    memset(node, 0, sizeof *node);
}

/* opt NULL: the usual ones. nodes 1: sessions of its own; 2: on a hub. */
static inline void upload_rig_open(struct upload_rig *u, const struct upload_options *opt, int nodes)
{
    memset(u, 0, sizeof *u);
    u->opt = opt ? *opt : rig_upload_options;
    u->hub = nodes > 1 ? memory_hub_new() : NULL;
    rig_open_on(&u->base, u->hub);
    for (int n = 0; n < nodes; n++)
        node_start(u, n);
}

static inline void upload_rig_close(struct upload_rig *u)
{
    node_stop(u, 1);
    struct node first = u->node[0];
    worker_pool_free(first.pool);
    upload_service_free(first.svc);
    rig_close(&u->base);
    if (u->hub)
        memory_hub_free(u->hub);
}

/* ---- the client ---- */

struct client {
    struct upload_rig *u;
    int node;
    struct uuid id;
    char first[UPLOAD_TOKEN_CHARS + 1];
    char token[UPLOAD_TOKEN_CHARS + 1]; /* the latest it was given */
    uint64_t offset;                    /* the latest it was told */
    struct upload_result result;
    struct api_error err;
};

struct ask {
    const char *token; /* NULL: the latest */
    bool no_token;
    bool has_offset;
    uint64_t offset;
    bool has_length;
    uint64_t length;
    bool length_unknown; /* chunked */
    bool came, empty;    /* with length_unknown: its first byte, or its end without one */
    const char *data;
    size_t len;
    size_t arrives; /* with cut: how much of it comes */
    bool cut;
    bool completes;
    const struct digest *digest;
    const struct identity *who;
    void (*superseded)(void *arg);
    void *arg;
};

static inline void client_learn(struct client *c, const struct upload_view *view)
{
    memcpy(c->token, view->token, sizeof c->token);
    c->offset = view->offset;
}

static inline struct client client_create(struct upload_rig *u, const char *name, bool temporary,
                                          const struct identity *who)
{
    struct client c = {.u = u};
    struct upload_view view;
    struct upload_create req = {.who = who, .filename = name, .temporary = temporary};
    CU_ASSERT_EQUAL_FATAL(upload_create(u->node[0].svc, &req, &view, &c.err), API_OK);
    c.id = view.id;
    client_learn(&c, &view);
    memcpy(c.first, c.token, sizeof c.first);
    CU_ASSERT_EQUAL(c.offset, 0);
    return c;
}

static inline struct client client_new(struct upload_rig *u)
{
    return client_create(u, "greeting.wav", false, NULL);
}

static inline enum api_code client_begin(struct client *c, const struct ask *ask, struct upload_append **out)
{
    struct upload_request req = {.id = c->id,
                                 .who = ask->who,
                                 .token = ask->no_token ? NULL
                                          : ask->token  ? ask->token
                                                        : c->token,
                                 .has_offset = ask->has_offset,
                                 .offset = ask->offset,
                                 .has_length = ask->has_length,
                                 .length = ask->length,
                                 .body_known = !ask->length_unknown || ask->empty,
                                 .body_begun = ask->came,
                                 .body_length = ask->length_unknown ? 0 : ask->len,
                                 .completes = ask->completes,
                                 .superseded = ask->superseded,
                                 .arg = ask->arg};
    req.has_digest = ask->digest != NULL;
    if (ask->digest)
        req.digest = *ask->digest;
    return upload_append_begin(c->u->node[c->node].svc, &req, out, &c->result, &c->err);
}

static inline enum api_code client_write(struct upload_append *a, const char *data, size_t len, struct api_error *err)
{
    enum api_code code = API_OK;
    for (size_t at = 0; code == API_OK && at < len; at += 700)
        code = upload_append_write_bytes(a, data + at, len - at < 700 ? len - at : 700, err);
    return code;
}

static inline enum api_code client_ask(struct client *c, const struct ask *ask)
{
    struct upload_append *a = NULL;
    struct ask seen = *ask;
    enum api_code code = client_begin(c, ask, &a);
    if (code == API_OK && c->result.waits) {
        CU_ASSERT_PTR_NULL_FATAL(a);
        seen.came = (ask->cut ? ask->arrives : ask->len) > 0;
        seen.empty = !seen.came;
        code = client_begin(c, &seen, &a);
        CU_ASSERT_FALSE(c->result.waits);
    }
    if (a) {
        enum api_code wrote = client_write(a, ask->data, ask->cut ? ask->arrives : ask->len, &c->err);
        enum upload_body_end how = wrote != API_OK ? UPLOAD_BODY_FAILED
                                   : ask->cut      ? UPLOAD_BODY_CUT
                                                   : UPLOAD_BODY_WHOLE;
        code = upload_append_end(a, how, &c->result, &c->err);
    }
    if (c->result.has_view)
        client_learn(c, &c->result.view);
    return code;
}

/* The same client, gone over to another node. */
static inline struct client on_node(const struct client *c, int node)
{
    struct client other = *c;
    other.node = node;
    return other;
}

static inline enum api_code append_at(struct client *c, uint64_t offset, const char *data)
{
    return client_ask(c, &(struct ask){.has_offset = true, .offset = offset, .data = data, .len = strlen(data)});
}

static inline enum api_code client_append(struct client *c, const char *token, const char *data)
{
    return client_ask(c, &(struct ask){.token = token, .data = data, .len = strlen(data)});
}

static inline enum api_code client_complete(struct client *c, const char *token, const struct digest *digest,
                                            const char *data)
{
    return client_ask(c, &(struct ask){.token = token,
                                       .completes = true,
                                       .digest = digest,
                                       .data = data ? data : "",
                                       .len = data ? strlen(data) : 0});
}

static inline enum api_code client_status(struct client *c)
{
    struct upload_view view;
    enum api_code code = upload_status(c->u->node[c->node].svc, &c->id, NULL, &view, &c->err);
    if (code == API_OK)
        client_learn(c, &view);
    return code;
}

/* The offset that a status tells, learning nothing. */
static inline uint64_t client_peek(struct client *c)
{
    struct upload_view view = {.offset = UINT64_MAX};
    struct api_error err;
    CU_ASSERT_EQUAL(upload_status(c->u->node[c->node].svc, &c->id, NULL, &view, &err), API_OK);
    return view.offset;
}

static inline struct digest text_digest(const char *text)
{
    return rig_digest(text, strlen(text));
}

/* Does the blob hold exactly this, and does the catalog name it? */
static inline bool rig_serves(struct upload_rig *u, const void *content, size_t len)
{
    struct digest d = rig_digest(content, len);
    struct file_record file;
    struct blob_reader *reader;
    struct blob_info info;
    if (file_catalog_newest(u->base.catalog, &d, &file, NULL) != BLOB_OK || file.size != len ||
        blob_open(u->base.store, &d, &reader, &info, NULL) != BLOB_OK)
        return false;
    char *back = malloc(len + 1);
    bool ok = back && info.size == len && (len == 0 || reader_read(reader, 0, back, len, NULL) == BLOB_OK) &&
              memcmp(back, content, len) == 0;
    free(back);
    reader_close(reader);
    return ok;
}

#endif
