/*
 * upload - whatever operation of the two stores fails, before or after it took effect, and whenever the sessions are
 * lost or old: no offset that a client was told regresses, no byte of an acknowledged chunk is lost or doubled, and the
 * upload ends in one file of the right content.
 *
 * A model client uploads some text in chunks, by explicit offsets or by rotating tokens, and behaves as a real one:
 * after an answer that is not the expected one it sends the chunk again, or asks the status and goes on from there.
 * Some name the digest in their complete, and some leave it out: the content must be the same, and so must a repeat's
 * answer.
 */
#include "core/upkeep/blob_sweep.h"
#include "tests/rig/upload_rig.h"

/* ---- operations that fail on demand ---- */

enum when { BEFORE, AFTER };

struct trouble {
    struct rig *rig;
    struct session_store_ops session_ops;
    const struct session_store_ops *real_sessions;
    const char *op; /* fails at its nth time; NULL: random, one in `odds` of all */
    enum when when;
    unsigned nth, odds;
    uint64_t seed;
    unsigned hits;
    /* A crash instead: from the nth operation on all fail, until the process is started again. */
    bool crashes, dead;
    unsigned ops;
    /* What a commit whose answer is lost has made. */
    const char *content;
    size_t len;
    struct uuid upload;
};

static struct trouble t;

static bool trips(const char *op, enum when when)
{
    if (t.crashes) {
        t.dead = t.dead || (when == BEFORE && t.ops++ == t.nth);
        return t.dead;
    }
    if (t.op) {
        if (strcmp(op, t.op) != 0 || when != t.when)
            return false;
        return t.hits++ == t.nth;
    }
    if (t.odds == 0)
        return false;
    t.seed = t.seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    bool hit = (t.seed >> 33) % t.odds == 0;
    t.hits += hit;
    return hit;
}

static enum blob_status broken(const char *op, struct blob_error *err)
{
    static const enum blob_status kinds[] = {BLOB_E_UNAVAILABLE, BLOB_E_IO, BLOB_E_NO_SPACE};
    /* What took effect and then says so cannot have been for lack of space. */
    return blob_fail(err, kinds[(t.hits + t.nth) % 2], 0, "%s fails in this test", op);
}

#define HOOK(op, call)                                                                                                 \
    do {                                                                                                               \
        if (trips(op, BEFORE))                                                                                         \
            return broken(op, err);                                                                                    \
        enum blob_status st = call;                                                                                    \
        if (st == BLOB_OK && trips(op, AFTER))                                                                         \
            return broken(op, err);                                                                                    \
        return st;                                                                                                     \
    } while (0)

/* Where success hands something out, or changes what the caller holds, a failure after the effect cannot be played. */
#define HOOK_BEFORE(op, call)                                                                                          \
    do {                                                                                                               \
        if (trips(op, BEFORE))                                                                                         \
            return broken(op, err);                                                                                    \
        return call;                                                                                                   \
    } while (0)

static enum blob_status h_open(struct blob_store *s, const struct uuid *id, const struct upload_mark *from,
                               uint64_t epoch, struct blob_writer **out, struct blob_error *err)
{
    HOOK_BEFORE("upload_open", t.rig->real->staged_open(s, id, from, epoch, out, err));
}

static enum blob_status h_write(struct blob_writer *w, const struct iovec *parts, int count, struct blob_error *err)
{
    HOOK_BEFORE("writer_write", t.rig->real->writer_write(w, parts, count, err));
}

static enum blob_status h_flush(struct blob_writer *w, uint64_t offset, const void *keep, size_t keep_len,
                                unsigned flags, struct upload_mark *mark, struct blob_error *err)
{
    HOOK("writer_flush", t.rig->real->writer_flush(w, offset, keep, keep_len, flags, mark, err));
}

static enum blob_status h_commit(struct blob_writer *w, const struct digest *d, unsigned flags, struct blob_error *err)
{
    if (trips("writer_commit", BEFORE))
        return broken("writer_commit", err);
    if (trips("writer_commit", AFTER)) {
        unsigned odds = t.odds;
        t.odds = 0;
        CU_ASSERT_TRUE(rig_try_commit(t.rig, d, t.content, t.len));
        CU_ASSERT_EQUAL(t.rig->real->staged_discard(t.rig->store, &t.upload, NULL, err), BLOB_OK);
        t.odds = odds;
        return broken("writer_commit", err);
    }
    return t.rig->real->writer_commit(w, d, flags, err);
}

static enum blob_status h_upload_stat(struct blob_store *s, const struct uuid *id, struct staged_stat *out,
                                      struct blob_error *err)
{
    HOOK_BEFORE("upload_stat", t.rig->real->staged_stat(s, id, out, err));
}

static enum blob_status h_upload_read(struct blob_store *s, const struct uuid *id, uint64_t offset, void *buf,
                                      size_t len, size_t *got, struct blob_error *err)
{
    HOOK_BEFORE("upload_read", t.rig->real->staged_read(s, id, offset, buf, len, got, err));
}

static enum blob_status h_blob_stat(struct blob_store *s, const struct digest *d, struct blob_info *out,
                                    struct blob_error *err)
{
    HOOK_BEFORE("blob_stat", t.rig->real->blob_stat(s, d, out, err));
}

static enum blob_status h_blob_touch(struct blob_store *s, const struct digest *d, int64_t *ms, struct blob_error *err)
{
    HOOK("blob_touch", t.rig->real->blob_touch(s, d, ms, err));
}

static enum blob_status h_record_put(struct blob_store *s, const char *key, const void *value, size_t len,
                                     unsigned flags, struct blob_error *err)
{
    HOOK("record_put", t.rig->real->record_put(s, key, value, len, flags, err));
}

static enum blob_status h_record_get(struct blob_store *s, const char *key, struct bytebuf *out, struct blob_error *err)
{
    HOOK_BEFORE("record_get", t.rig->real->record_get(s, key, out, err));
}

static enum blob_status h_insert(struct session_store *s, const struct uuid *id, uint64_t epoch, const void *value,
                                 size_t len, int64_t expires_ms, struct blob_error *err)
{
    HOOK("session_insert", t.real_sessions->insert(s, id, epoch, value, len, expires_ms, err));
}

static enum blob_status h_load(struct session_store *s, const struct uuid *id, struct bytebuf *out, uint64_t *epoch,
                               struct blob_error *err)
{
    HOOK_BEFORE("session_load", t.real_sessions->load(s, id, out, epoch, err));
}

static enum blob_status h_replace(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                  const void *value, size_t len, int64_t expires_ms, struct blob_error *err)
{
    HOOK("session_replace", t.real_sessions->replace(s, id, expected, next, value, len, expires_ms, err));
}

static enum blob_status h_index_put(struct session_store *s, const struct index_row *row, struct blob_error *err)
{
    HOOK("index_put", t.real_sessions->index_put(s, row, err));
}

static const char *const failing_ops[] = {
    "upload_open", "writer_write", "writer_flush", "writer_commit",  "upload_stat",  "upload_read",     "blob_stat",
    "blob_touch",  "record_put",   "record_get",   "session_insert", "session_load", "session_replace", "index_put"};
#define OPS (sizeof failing_ops / sizeof failing_ops[0])

static void trouble_open(struct upload_rig *u)
{
    struct blob_store_ops *o = &u->base.ops;
    memset(&t, 0, sizeof t);
    t.rig = &u->base;
    o->staged_open = h_open;
    o->writer_write = h_write;
    o->writer_flush = h_flush;
    o->writer_commit = h_commit;
    o->staged_stat = h_upload_stat;
    o->staged_read = h_upload_read;
    o->blob_stat = h_blob_stat;
    o->blob_touch = h_blob_touch;
    o->record_put = h_record_put;
    o->record_get = h_record_get;
    t.real_sessions = u->base.sessions->ops;
    t.session_ops = *t.real_sessions;
    t.session_ops.insert = h_insert;
    t.session_ops.load = h_load;
    t.session_ops.replace = h_replace;
    t.session_ops.index_put = h_index_put;
    u->base.sessions->ops = &t.session_ops;
}

static void trouble_close(struct upload_rig *u)
{
    u->base.sessions->ops = t.real_sessions;
}

/* ---- the model client ---- */

#define TEXT  "The quick brown fox jumps over the lazy dog, and then does it all over again."
#define CHUNK 20
#define STEPS 60

enum manner {
    BY_OFFSET,
    BY_TOKEN,
    BY_TOKEN_LAST_IN_COMPLETE,
    AT_ONCE, /* all of it in the complete */
    BLIND_BY_OFFSET,
    BLIND_BY_TOKEN,
    BLIND_LAST_IN_COMPLETE,
    BLIND_AT_ONCE,
    MANNERS
};

/* Does it leave out the digest? */
static bool is_blind(enum manner manner)
{
    return manner >= BLIND_BY_OFFSET;
}

/* The same, with the digest. */
static enum manner seeing(enum manner manner)
{
    return is_blind(manner) ? (enum manner)(manner - BLIND_BY_OFFSET) : manner;
}

/* What is sent by an offset cannot be taken for something else. */
static bool by_offset(enum manner manner)
{
    return seeing(manner) == BY_OFFSET || seeing(manner) == AT_ONCE;
}

struct model {
    struct client c;
    enum manner manner;
    unsigned turns; /* two nodes: whose turn it is, a bit a step, from the lowest on and round again */
    uint64_t told;  /* the highest offset it was ever told */
    bool completed;
    char file_id[FILE_ID_MAX];
    char why[160]; /* what went wrong; "" so far */
};

static void wrong(struct model *m, const char *what, uint64_t got, uint64_t expected)
{
    if (!m->why[0])
        snprintf(m->why, sizeof m->why, "%s: %llu, not %llu", what, (unsigned long long)got,
                 (unsigned long long)expected);
}

static void note_told(struct model *m)
{
    if (m->c.offset < m->told)
        wrong(m, "a told offset regressed", m->c.offset, m->told);
    m->told = m->c.offset;
}

static bool ask_status(struct model *m)
{
    if (client_status(&m->c) != API_OK)
        return false;
    note_told(m);
    return true;
}

static void send_chunk(struct model *m)
{
    struct client *c = &m->c;
    uint64_t at = c->offset;
    size_t n = strlen(TEXT) - at < CHUNK ? strlen(TEXT) - at : CHUNK;
    char token[UPLOAD_TOKEN_CHARS + 1];
    memcpy(token, c->token, sizeof token);
    struct ask ask = {.data = &TEXT[at], .len = n, .token = token, .has_offset = by_offset(m->manner), .offset = at};
    enum api_code code = client_ask(c, &ask);
    if (code == API_OK) {
        if (c->offset != at + n)
            wrong(m, "an append ended at", c->offset, at + n);
        note_told(m);
        return;
    }
    if (code == API_UPLOAD_OFFSET_MISMATCH && !c->result.has_view)
        wrong(m, "416 without a view", 0, 1);
    if (c->result.has_view)
        note_told(m);
    if (by_offset(m->manner)) {
        (void)ask_status(m);
        return;
    }
    /* Its answer was lost, for all it knows: the same again. */
    code = client_ask(c, &ask);
    if (code == API_OK && c->offset != at + n)
        wrong(m, "a repeat ended at", c->offset, at + n);
    if (code == API_OK || c->result.has_view)
        note_told(m);
    if (code != API_OK)
        (void)ask_status(m);
}

static void send_complete(struct model *m, bool names_digest)
{
    struct client *c = &m->c;
    struct digest d = text_digest(TEXT);
    uint64_t at = c->offset;
    struct ask ask = {
        .completes = true, .digest = names_digest ? &d : NULL, .data = &TEXT[at], .len = strlen(TEXT) - at};
    if (by_offset(m->manner)) {
        ask.has_offset = true;
        ask.offset = at;
    }
    enum api_code code = client_ask(c, &ask);
    if (code == API_DIGEST_INVALID)
        wrong(m, "the content is wrong at", c->offset, strlen(TEXT));
    if (code != API_OK) {
        (void)ask_status(m);
        return;
    }
    m->completed = true;
    if (!digest_equal(&c->result.file.digest, &d))
        wrong(m, "completed with another digest, at", c->offset, strlen(TEXT));
    if (!m->file_id[0])
        memcpy(m->file_id, c->result.file.id, sizeof m->file_id);
    if (strcmp(m->file_id, c->result.file.id) != 0)
        wrong(m, "a repeated complete gave another file", 1, 0);
}

/* One request, and what a client does about its answer. */
static void model_step(struct model *m)
{
    m->c.node = (int)(m->turns & 1);
    m->turns = m->turns >> 1 | m->turns << 31;
    uint64_t left = strlen(TEXT) - m->c.offset;
    bool in_complete = seeing(m->manner) == BY_TOKEN_LAST_IN_COMPLETE && left <= CHUNK;
    if (left == 0 || in_complete || seeing(m->manner) == AT_ONCE)
        send_complete(m, !is_blind(m->manner));
    else
        send_chunk(m);
}

static bool model_create(struct upload_rig *u, struct model *m, enum manner manner)
{
    memset(m, 0, sizeof *m);
    m->manner = manner;
    m->c.u = u;
    struct upload_view view;
    struct upload_create req = {.filename = "fox.txt"};
    for (int i = 0; i < STEPS; i++) {
        if (upload_create(u->node[0].svc, &req, &view, &m->c.err) != API_OK)
            continue;
        m->c.id = view.id;
        client_learn(&m->c, &view);
        memcpy(m->c.first, m->c.token, sizeof m->c.first);
        t.upload = m->c.id;
        t.content = TEXT;
        t.len = strlen(TEXT);
        /* So that the first chunk may be repeated, too. */
        while (!by_offset(manner) && i++ < STEPS && client_status(&m->c) != API_OK)
            continue;
        return true;
    }
    return false;
}

/* To the end, and past it: with no more trouble, everything is as if there had been none. */
static void model_finish(struct upload_rig *u, struct model *m)
{
    for (int i = 0; i < STEPS && !m->completed; i++)
        model_step(m);
    t.op = "none";
    for (int i = 0; i < 5 && !m->completed; i++) {
        (void)ask_status(m);
        model_step(m);
    }
    if (!m->completed)
        wrong(m, "not completed, at", m->c.offset, strlen(TEXT));
    send_complete(m, true);
    send_complete(m, false);
    if (!rig_serves(u, TEXT, strlen(TEXT)))
        wrong(m, "the content cannot be read", 0, 1);
    CU_ASSERT_EQUAL(file_catalog_heal_index(u->base.catalog, NULL, NULL), BLOB_OK);
    if (rig_listed(&u->base, NULL) != 1)
        wrong(m, "files listed", rig_listed(&u->base, NULL), 1);
}

static void verdict(const struct model *m, const char *where)
{
    if (m->why[0])
        printf("\n    manner %d, %s: %s\n    ", m->manner, where, m->why);
    CU_ASSERT_STRING_EQUAL(m->why, "");
}

/* ---- the tests ---- */

static void one_failure(enum manner manner, int nodes, bool readable, const char *op, enum when when, unsigned nth,
                        unsigned *hits)
{
    struct upload_options opt = rig_upload_options;
    struct upload_rig u;
    struct model m;
    char where[96];
    opt.lease_ms = 0;
    upload_rig_open(&u, &opt, nodes);
    if (!readable)
        u.base.store->caps &= ~STORE_READ_STAGED;
    trouble_open(&u);
    t.op = op;
    t.when = when;
    t.nth = nth;
    if (model_create(&u, &m, manner))
        model_finish(&u, &m);
    *hits = t.hits;
    snprintf(where, sizeof where, "%s fails %s its effect at time %u%s%s", op, when == BEFORE ? "before" : "after", nth,
             readable ? "" : ", staged bytes not readable", nodes > 1 ? ", sessions shared" : "");
    verdict(&m, where);
    trouble_close(&u);
    upload_rig_close(&u);
}

static void test_each_operation_failing_once(void)
{
    for (int manner = 0; manner < MANNERS; manner++) {
        for (size_t op = 0; op < OPS; op++) {
            for (int when = BEFORE; when <= AFTER; when++) {
                unsigned hits = 1;
                for (unsigned nth = 0; nth < 20 && hits > 0; nth++) {
                    for (int nodes = 1; nodes <= 2; nodes++) {
                        one_failure((enum manner)manner, nodes, true, failing_ops[op], (enum when)when, nth, &hits);
                        one_failure((enum manner)manner, nodes, false, failing_ops[op], (enum when)when, nth, &hits);
                    }
                    hits = hits > nth ? hits : 0; /* there was such a time */
                }
            }
        }
    }
}

/* On sessions of its own, on shared ones, and moving between two nodes. */
static void test_random_failures(void)
{
    struct upload_options opt = rig_upload_options;
    opt.lease_ms = 0;
    for (unsigned seed = 1; seed <= 600; seed++) {
        struct upload_rig u;
        struct model m;
        char where[64];
        upload_rig_open(&u, &opt, 1 + seed % 2);
        trouble_open(&u);
        t.odds = 5 + seed % 20;
        t.seed = seed * UINT64_C(0x9e3779b97f4a7c15);
        if (model_create(&u, &m, (enum manner)(seed % MANNERS))) {
            if (u.hub && seed % 4 == 1)
                m.turns = (unsigned)t.seed;
            model_finish(&u, &m);
        }
        snprintf(where, sizeof where, "seed %u", seed);
        verdict(&m, where);
        trouble_close(&u);
        upload_rig_close(&u);
    }
}

/* ---- crashes ---- */

enum crash { KILLED, POWER_LOST }; /* the latter loses the sessions, too, as the embedded store does */

static void restart(struct upload_rig *u, const struct model *m, enum crash how)
{
    t.crashes = t.dead = false;
    t.op = "none";
    worker_pool_free(u->node[0].pool);
    upload_service_free(u->node[0].svc);
    if (how == POWER_LOST)
        CU_ASSERT_EQUAL(session_remove(u->base.sessions, &m->c.id, NULL), BLOB_OK);
    node_start(u, 0);
}

/* A sweep that comes before the client is back. */
static void sweep_blobs(struct upload_rig *u)
{
    int64_t now = clock_wall_ms();
    struct blob_sweep s = {.store = u->base.store,
                           .catalog = u->base.catalog,
                           .before_ms = now + 1000,
                           .orphans_before_ms = now - u->opt.timeout_ms};
    CU_ASSERT_EQUAL(blob_sweep_run(&s, NULL), BLOB_OK);
}

static void test_crash_at_each_operation(void)
{
    for (int manner = 0; manner < MANNERS; manner++) {
        for (int how = KILLED; how <= POWER_LOST; how++) {
            bool crashed = true;
            for (unsigned nth = 0; nth < 200 && crashed; nth++) {
                struct upload_rig u;
                struct model m;
                char where[64];
                upload_rig_open(&u, NULL, 1);
                trouble_open(&u);
                CU_ASSERT_TRUE_FATAL(model_create(&u, &m, (enum manner)manner));
                t.crashes = true;
                t.nth = nth;
                for (int i = 0; i < STEPS && !m.completed && !t.dead; i++)
                    model_step(&m);
                crashed = t.dead;
                restart(&u, &m, (enum crash)how);
                sweep_blobs(&u);
                model_finish(&u, &m);
                snprintf(where, sizeof where, "%s at operation %u", how == KILLED ? "killed" : "power lost", nth);
                verdict(&m, where);
                trouble_close(&u);
                upload_rig_close(&u);
            }
        }
    }
}

/* ---- sessions lost, or old ---- */

enum loss { EMPTIED, ROLLED_BACK };

/* In turn, one alone, two steps each, and as it comes. */
static const unsigned all_turns[] = {0xaaaaaaaa, 0x00000000, 0xcccccccc, 0x9d2c5680};

static void lose(struct upload_rig *u, const struct model *m, enum loss how)
{
    if (how == EMPTIED)
        memory_hub_empty(u->hub);
    else
        (void)memory_hub_roll_back(u->hub, &m->c.id);
}

static void lose_sessions(enum manner manner, enum loss how, unsigned at, unsigned turns)
{
    struct upload_options opt = rig_upload_options;
    struct upload_rig u;
    struct model m;
    char where[96];
    opt.lease_ms = 0;
    upload_rig_open(&u, &opt, 2);
    trouble_open(&u);
    CU_ASSERT_TRUE_FATAL(model_create(&u, &m, manner));
    m.turns = turns;
    for (unsigned step = 0; step < 8; step++) {
        if (step == at || at == 7)
            lose(&u, &m, how);
        model_step(&m);
    }
    lose(&u, &m, how);
    CU_ASSERT_EQUAL(file_catalog_heal_index(u.base.catalog, NULL, NULL), BLOB_OK);
    model_finish(&u, &m);
    snprintf(where, sizeof where, "sessions %s at step %u, turns %x", how == EMPTIED ? "emptied" : "rolled back", at,
             turns);
    verdict(&m, where);
    trouble_close(&u);
    upload_rig_close(&u);
}

static void test_sessions_lost(void)
{
    for (int manner = 0; manner < MANNERS; manner++)
        for (int how = EMPTIED; how <= ROLLED_BACK; how++)
            for (unsigned at = 0; at < 8; at++)
                for (size_t i = 0; i < sizeof all_turns / sizeof all_turns[0]; i++)
                    lose_sessions((enum manner)manner, (enum loss)how, at, all_turns[i]);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"any one operation failing, at any time, before or after its effect", test_each_operation_failing_once},
        {"many operations failing at random", test_random_failures},
        {"a crash at any operation, with and without the sessions", test_crash_at_each_operation},
        {"sessions emptied or rolled back at any step, on two nodes", test_sessions_lost},
        CU_TEST_INFO_NULL};
    return unit_main("upload_faults", tests);
}
