/*
 * memory_sessions - one lock, chained tables, nothing clever.
 *
 * Invariants: everything shared lives in the hub, under its lock. Each shared store has a thread that calls its
 * listener with what other stores announced; the callback runs without the lock. close() waits for that thread.
 */
#include "backends/memory/memory_sessions.h"

#include "backends/memory/memory_index.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/node_clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS       4096
#define CLOCK_SKEW_MS 5000

struct memory_value {
    uint64_t epoch;
    int64_t expires_ms;
    size_t len;
    void *bytes;
};

struct memory_session {
    struct memory_session *next;
    struct uuid id;
    struct memory_value now, before; /* before.epoch 0: never replaced */
};

struct memory_lease {
    struct memory_lease *next;
    char *name;
    char node_id[NODE_ID_CHARS + 1];
    int64_t until_ms;
};

struct memory_notice {
    struct memory_notice *next;
    struct uuid id;
    uint64_t epoch;
};

struct memory_hub {
    pthread_mutex_t lock;
    struct memory_session *sessions[BUCKETS];
    struct memory_lease *leases;
    struct memory_index index;
    struct memory_node *stores; /* those open on it */
    char store_id[64];          /* of the nodes that joined; "" while none has */
    bool down;
};

struct memory_node {
    struct session_store base;
    struct memory_hub *hub;
    bool owns_hub;
    struct memory_node *next;
    char node_id[NODE_ID_CHARS + 1];
    session_notice_fn *notice_fn;
    void *notice_arg;
    struct memory_notice *notices, **notices_tail;
    pthread_cond_t wake, called;
    pthread_t thread;
    bool calling, started, stop;
};

static struct memory_node *store_of(struct session_store *s)
{
    return (struct memory_node *)s;
}

/* Locks the hub; on UNAVAILABLE it is not locked. */
static enum blob_status hub_enter(struct memory_hub *hub, struct blob_error *err)
{
    pthread_mutex_lock(&hub->lock);
    if (!hub->down)
        return BLOB_OK;
    pthread_mutex_unlock(&hub->lock);
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the session store in memory was told to be down");
}

static enum blob_status hub_leave(struct memory_hub *hub, enum blob_status st)
{
    pthread_mutex_unlock(&hub->lock);
    return st;
}

/* ---- sessions ---- */

static struct memory_session **bucket_of(struct memory_hub *hub, const struct uuid *id)
{
    uint32_t h = 2166136261u;
    for (const char *p = id->text; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    return &hub->sessions[h % BUCKETS];
}

/* Where the pointer to it stands, or would. An expired one is there until it is swept. */
static struct memory_session **find(struct memory_hub *hub, const struct uuid *id)
{
    struct memory_session **at = bucket_of(hub, id);
    while (*at && strcmp((*at)->id.text, id->text) != 0)
        at = &(*at)->next;
    return at;
}

static bool live(const struct memory_session *e, struct node_clock *clock)
{
    return e && e->now.expires_ms > node_clock_at_least_ms(clock);
}

static struct memory_value value_new(uint64_t epoch, int64_t expires_ms, const void *bytes, size_t len)
{
    struct memory_value v = {epoch, expires_ms, len, malloc(len + 1)};
    CHECK(v.bytes);
    if (len)
        memcpy(v.bytes, bytes, len);
    return v;
}

static void unlink_free(struct memory_session **at)
{
    struct memory_session *e = *at;
    *at = e->next;
    free(e->now.bytes);
    free(e->before.bytes);
    free(e);
}

static enum blob_status memory_insert(struct session_store *s, const struct uuid *id, uint64_t epoch, const void *value,
                                      size_t len, int64_t expires_ms, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    struct memory_session **at = find(hub, id);
    if (live(*at, s->clock))
        return hub_leave(hub, blob_fail(err, BLOB_E_EXISTS, 0, "session %s is there", id->text));
    if (*at)
        unlink_free(at);
    struct memory_session *e = calloc(1, sizeof *e);
    CHECK(e);
    e->id = *id;
    e->now = value_new(epoch, expires_ms, value, len);
    at = bucket_of(hub, id);
    e->next = *at;
    *at = e;
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_load(struct session_store *s, const struct uuid *id, struct bytebuf *out,
                                    uint64_t *epoch, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    const struct memory_session *e = *find(hub, id);
    if (!live(e, s->clock))
        return hub_leave(hub, blob_fail(err, BLOB_E_NOT_FOUND, 0, "no session %s", id->text));
    bytebuf_add(out, e->now.bytes, e->now.len);
    *epoch = e->now.epoch;
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_replace(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                       const void *value, size_t len, int64_t expires_ms, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    struct memory_session *e = *find(hub, id);
    if (!live(e, s->clock))
        return hub_leave(hub, blob_fail(err, BLOB_E_NOT_FOUND, 0, "no session %s", id->text));
    if (e->now.epoch != expected)
        return hub_leave(hub, blob_fail(err, BLOB_E_CONFLICT, 0, "session %s has changed", id->text));
    free(e->before.bytes);
    e->before = e->now;
    e->now = value_new(next, expires_ms, value, len);
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_remove(struct session_store *s, const struct uuid *id, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    struct memory_session **at = find(hub, id);
    if (*at)
        unlink_free(at);
    return hub_leave(hub, BLOB_OK);
}

static void drop_sessions(struct memory_hub *hub, int64_t before_ms)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct memory_session **at = &hub->sessions[i];
        while (*at) {
            if ((*at)->now.expires_ms < before_ms)
                unlink_free(at);
            else
                at = &(*at)->next;
        }
    }
}

static enum blob_status memory_sweep(struct session_store *s, int64_t now_ms, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    drop_sessions(hub, now_ms);
    return hub_leave(hub, BLOB_OK);
}

/* ---- nodes, messages, leases ---- */

static enum blob_status memory_join(struct session_store *s, const char *node_id, const char *store_id, int64_t now_ms,
                                    struct blob_error *err)
{
    struct memory_node *m = store_of(s);
    struct memory_hub *hub = m->hub;
    CHECK(strlen(store_id) < sizeof hub->store_id);
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    long long skew_ms = (long long)(now_ms - clock_wall_ms());
    if (*hub->store_id && strcmp(hub->store_id, store_id) != 0)
        return hub_leave(hub, blob_fail(err, BLOB_E_CONFLICT, 0, "another node sees blob store %s, this one %s",
                                        hub->store_id, store_id));
    if (skew_ms > CLOCK_SKEW_MS || skew_ms < -CLOCK_SKEW_MS)
        return hub_leave(hub, blob_fail(err, BLOB_E_CONFLICT, 0, "this node's clock is off by %lld ms", skew_ms));
    memcpy(hub->store_id, store_id, strlen(store_id) + 1);
    memcpy(m->node_id, node_id, strlen(node_id) + 1);
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_check(struct session_store *s, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    return st == BLOB_OK ? hub_leave(hub, BLOB_OK) : st;
}

static void memory_announce(struct session_store *s, const struct uuid *id, uint64_t epoch)
{
    struct memory_node *from = store_of(s);
    if (hub_enter(from->hub, NULL) != BLOB_OK)
        return;
    for (struct memory_node *m = from->hub->stores; m; m = m->next) {
        if (m == from || !m->notice_fn)
            continue;
        struct memory_notice *n = calloc(1, sizeof *n);
        CHECK(n);
        n->id = *id;
        n->epoch = epoch;
        *m->notices_tail = n;
        m->notices_tail = &n->next;
        pthread_cond_signal(&m->wake);
    }
    pthread_mutex_unlock(&from->hub->lock);
}

static void *notice_main(void *arg)
{
    struct memory_node *m = arg;
    pthread_mutex_lock(&m->hub->lock);
    while (!m->stop) {
        struct memory_notice *n = m->notices;
        if (!n) {
            pthread_cond_wait(&m->wake, &m->hub->lock);
            continue;
        }
        m->notices = n->next;
        if (!m->notices)
            m->notices_tail = &m->notices;
        m->calling = m->notice_fn != NULL;
        pthread_mutex_unlock(&m->hub->lock);
        if (m->calling)
            m->notice_fn(&n->id, n->epoch, m->notice_arg);
        free(n);
        pthread_mutex_lock(&m->hub->lock);
        m->calling = false;
        pthread_cond_broadcast(&m->called);
    }
    pthread_mutex_unlock(&m->hub->lock);
    return NULL;
}

static void memory_listen(struct session_store *s, session_notice_fn *fn, void *arg)
{
    struct memory_node *m = store_of(s);
    pthread_mutex_lock(&m->hub->lock);
    CHECK(!fn || !m->started);
    while (m->calling)
        pthread_cond_wait(&m->called, &m->hub->lock);
    m->notice_fn = fn;
    m->notice_arg = arg;
    if (fn) {
        CHECK(pthread_create(&m->thread, NULL, notice_main, m) == 0);
        m->started = true;
    }
    pthread_mutex_unlock(&m->hub->lock);
}

static struct memory_lease *lease_named(struct memory_hub *hub, const char *name)
{
    struct memory_lease *l = hub->leases;
    while (l && strcmp(l->name, name) != 0)
        l = l->next;
    if (l)
        return l;
    l = calloc(1, sizeof *l);
    CHECK(l);
    l->name = strdup(name);
    CHECK(l->name);
    l->next = hub->leases;
    hub->leases = l;
    return l;
}

static enum blob_status memory_lease(struct session_store *s, const char *name, int64_t ttl_ms, struct blob_error *err)
{
    struct memory_node *m = store_of(s);
    enum blob_status st = hub_enter(m->hub, err);
    if (st != BLOB_OK)
        return st;
    int64_t now_ms = clock_wall_ms();
    struct memory_lease *l = lease_named(m->hub, name);
    if (l->until_ms > now_ms && strcmp(l->node_id, m->node_id) != 0)
        return hub_leave(m->hub, blob_fail(err, BLOB_E_CONFLICT, 0, "node %s holds %s", l->node_id, name));
    memcpy(l->node_id, m->node_id, sizeof l->node_id);
    l->until_ms = now_ms + ttl_ms;
    return hub_leave(m->hub, BLOB_OK);
}

/* ---- the file index ---- */

static enum blob_status memory_put(struct session_store *s, const struct index_row *row, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    memory_index_put(&hub->index, row);
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_drop(struct session_store *s, const char *id, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    memory_index_remove(&hub->index, id);
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_list(struct session_store *s, const struct index_query *q, uint64_t *count,
                                    index_row_fn *fn, void *arg, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    struct row_page page;
    row_page_init(&page);
    *count = memory_index_list(&hub->index, q, &page);
    pthread_mutex_unlock(&hub->lock);
    st = row_page_give(&page, fn, arg, err);
    row_page_release(&page);
    return st;
}

static enum blob_status memory_expired(struct session_store *s, int64_t now_ms, size_t limit, index_row_fn *fn,
                                       void *arg, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    struct row_page page;
    row_page_init(&page);
    memory_index_expired(&hub->index, now_ms, limit, &page);
    pthread_mutex_unlock(&hub->lock);
    st = row_page_give(&page, fn, arg, err);
    row_page_release(&page);
    return st;
}

/* Also of rows put earlier. */
static enum blob_status memory_recent(struct session_store *s, const char *stem, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    bool has = memory_index_has(&hub->index, stem);
    return hub_leave(hub, has ? BLOB_OK : blob_fail(err, BLOB_E_NOT_FOUND, 0, "no such row"));
}

static enum blob_status memory_whole(struct session_store *s, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    return hub_leave(hub, hub->index.whole ? BLOB_OK : blob_fail(err, BLOB_E_NOT_FOUND, 0, "no whole file index"));
}

static enum blob_status memory_rebuild_begin(struct session_store *s, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    memory_index_rebuild_begin(&hub->index);
    return hub_leave(hub, BLOB_OK);
}

static enum blob_status memory_rebuild_end(struct session_store *s, struct blob_error *err)
{
    struct memory_hub *hub = store_of(s)->hub;
    enum blob_status st = hub_enter(hub, err);
    if (st != BLOB_OK)
        return st;
    memory_index_rebuild_end(&hub->index);
    return hub_leave(hub, BLOB_OK);
}

/* ---- the hub and its stores ---- */

static void drop_leases(struct memory_hub *hub)
{
    while (hub->leases) {
        struct memory_lease *l = hub->leases;
        hub->leases = l->next;
        free(l->name);
        free(l);
    }
}

struct memory_hub *memory_hub_new(void)
{
    struct memory_hub *hub = calloc(1, sizeof *hub);
    CHECK(hub);
    pthread_mutex_init(&hub->lock, NULL);
    memory_index_init(&hub->index);
    return hub;
}

void memory_hub_free(struct memory_hub *hub)
{
    CHECK(!hub->stores);
    drop_sessions(hub, INT64_MAX);
    drop_leases(hub);
    memory_index_release(&hub->index);
    pthread_mutex_destroy(&hub->lock);
    free(hub);
}

void memory_hub_set_down(struct memory_hub *hub, bool down)
{
    pthread_mutex_lock(&hub->lock);
    hub->down = down;
    pthread_mutex_unlock(&hub->lock);
}

void memory_hub_empty(struct memory_hub *hub)
{
    pthread_mutex_lock(&hub->lock);
    drop_sessions(hub, INT64_MAX);
    drop_leases(hub);
    memory_index_empty(&hub->index);
    hub->store_id[0] = '\0';
    pthread_mutex_unlock(&hub->lock);
}

bool memory_hub_roll_back(struct memory_hub *hub, const struct uuid *id)
{
    pthread_mutex_lock(&hub->lock);
    struct memory_session *e = *find(hub, id);
    bool can = e && e->before.epoch != 0;
    if (can) {
        free(e->now.bytes);
        e->now = e->before;
        e->before = (struct memory_value){0};
    }
    pthread_mutex_unlock(&hub->lock);
    return can;
}

static void memory_close(struct session_store *s)
{
    struct memory_node *m = store_of(s);
    pthread_mutex_lock(&m->hub->lock);
    struct memory_node **at = &m->hub->stores;
    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    if (!m->hub->stores)
        m->hub->store_id[0] = '\0';
    m->stop = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->hub->lock);
    if (m->started)
        pthread_join(m->thread, NULL);
    while (m->notices) {
        struct memory_notice *n = m->notices;
        m->notices = n->next;
        free(n);
    }
    pthread_cond_destroy(&m->called);
    pthread_cond_destroy(&m->wake);
    if (m->owns_hub)
        memory_hub_free(m->hub);
    free(m);
}

static const struct session_store_ops memory_ops = {
    .name = "memory",
    .close = memory_close,
    .join = memory_join,
    .check = memory_check,
    .insert = memory_insert,
    .load = memory_load,
    .replace = memory_replace,
    .remove = memory_remove,
    .sweep = memory_sweep,
    .announce = memory_announce,
    .listen = memory_listen,
    .lease = memory_lease,
    .index_put = memory_put,
    .index_remove = memory_drop,
    .index_list = memory_list,
    .index_expired = memory_expired,
    .index_recent = memory_recent,
    .index_whole = memory_whole,
    .index_rebuild_begin = memory_rebuild_begin,
    .index_rebuild_end = memory_rebuild_end,
};

struct session_store *memory_sessions_open(struct memory_hub *hub)
{
    struct memory_node *m = calloc(1, sizeof *m);
    CHECK(m);
    m->base.ops = &memory_ops;
    m->base.caps = hub ? SESSIONS_SHARED : 0;
    m->owns_hub = !hub;
    m->hub = hub ? hub : memory_hub_new();
    m->notices_tail = &m->notices;
    pthread_cond_init(&m->wake, NULL);
    pthread_cond_init(&m->called, NULL);
    pthread_mutex_lock(&m->hub->lock);
    m->next = m->hub->stores;
    m->hub->stores = m;
    pthread_mutex_unlock(&m->hub->lock);
    return &m->base;
}
