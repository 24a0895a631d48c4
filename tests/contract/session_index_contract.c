/*
 * session_index_contract - the file index's half of the session store's suite. Listings are compared with ids in the
 * order they must have, written as text ("b a c"), so that a failing test shows what came instead.
 */
#include "tests/contract/session_contract_parts.h"

#include "core/check.h"
#include "core/clock.h"

#include <CUnit/CUnit.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row_spec {
    const char *id, *name, *owner;
    uint64_t size;
    int64_t created_ms, expires_ms;
};

static void put(struct session_store *s, const struct row_spec *spec)
{
    struct index_row row = {.size = spec->size, .created_ms = spec->created_ms, .expires_ms = spec->expires_ms};
    char value[FILE_ID_MAX + 16];
    snprintf(row.id, sizeof row.id, "%s", spec->id);
    snprintf(row.name, sizeof row.name, "%s", spec->name);
    snprintf(row.owner, sizeof row.owner, "%s", spec->owner ? spec->owner : "");
    row.value_len = (uint32_t)snprintf(value, sizeof value, "{\"of\":\"%s\"}", spec->id);
    row.value = value;
    CU_ASSERT_EQUAL_FATAL(index_put(s, &row, NULL), BLOB_OK);
}

static bool add_id(const struct index_row *row, void *arg)
{
    struct bytebuf *ids = arg;
    char value[FILE_ID_MAX + 16];
    snprintf(value, sizeof value, "{\"of\":\"%s\"}", row->id);
    bytebuf_printf(ids, ids->len ? " %s" : "%s", row->id);
    if (row->value_len != strlen(value) || memcmp(row->value, value, row->value_len) != 0)
        bytebuf_text(ids, "(with another's value)");
    return true;
}

static void expect_list(struct session_store *s, const struct index_query *q, uint64_t count, const char *ids, int line)
{
    struct bytebuf got;
    uint64_t n = 12345;
    bytebuf_init(&got);
    bytebuf_text(&got, "");
    enum blob_status st = index_list(s, q, &n, add_id, &got, NULL);
    bool ok = st == BLOB_OK && n == count && strcmp(got.data, ids) == 0;
    if (!ok)
        fprintf(stderr, "line %d: %s, count %llu, ids \"%s\"; expected %llu, \"%s\"\n", line, blob_status_name(st),
                (unsigned long long)n, got.data, (unsigned long long)count, ids);
    CU_ASSERT(ok);
    bytebuf_release(&got);
}

#define EXPECT_LIST(s, q, count, ids) expect_list((s), (q), (count), (ids), __LINE__)

static const struct row_spec five[] = {
    {"a", "beta.wav", "pbx", 30, 1000, 0},  {"b", "Alpha.wav", "pbx", 10, 3000, 0},
    {"c", "gamma.wav", "bob", 30, 2000, 0}, {"d", "alpha.wav", "bob", 20, 3000, 0},
    {"e", "delta.wav", "pbx", 10, 5000, 0},
};

static struct session_store *start_with_five(void)
{
    struct session_store *s = contract_start();
    for (size_t i = 0; i < sizeof five / sizeof *five; i++)
        put(s, &five[i]);
    return s;
}

void contract_index_orders(void)
{
    struct session_store *s = start_with_five();
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 100};
    EXPECT_LIST(s, &q, 5, "a c b d e");
    q.order[0].descending = true;
    EXPECT_LIST(s, &q, 5, "e d b c a");
    q.order[0] = (struct index_order){INDEX_BY_NAME, false};
    EXPECT_LIST(s, &q, 5, "b d a e c");
    q.order[0].descending = true;
    EXPECT_LIST(s, &q, 5, "c e a d b");
    q.order[0] = (struct index_order){INDEX_BY_SIZE, false};
    EXPECT_LIST(s, &q, 5, "b e d a c");
    q.order[0].descending = true;
    EXPECT_LIST(s, &q, 5, "c a d e b");

    q.orders = 2;
    q.order[1] = (struct index_order){INDEX_BY_NAME, false};
    EXPECT_LIST(s, &q, 5, "a c d b e");
    q.order[1].descending = true;
    EXPECT_LIST(s, &q, 5, "c a d e b");
    q.order[0] = (struct index_order){INDEX_BY_NAME, false};
    q.order[1] = (struct index_order){INDEX_BY_SIZE, true};
    EXPECT_LIST(s, &q, 5, "d b a e c");
    q.order[0] = (struct index_order){INDEX_BY_CREATED, true};
    q.order[1] = (struct index_order){INDEX_BY_NAME, true};
    q.order[2] = (struct index_order){INDEX_BY_SIZE, true};
    q.orders = 3;
    EXPECT_LIST(s, &q, 5, "e d b c a");
    q.order[2].descending = false;
    EXPECT_LIST(s, &q, 5, "e b d c a");
    session_store_close(s);
}

void contract_index_pages(void)
{
    struct session_store *s = start_with_five();
    struct index_query q = {.order = {{INDEX_BY_SIZE, false}}, .orders = 1, .top = 2};
    EXPECT_LIST(s, &q, 5, "b e");
    q.skip = 2;
    EXPECT_LIST(s, &q, 5, "d a");
    q.skip = 4;
    EXPECT_LIST(s, &q, 5, "c");
    q.skip = 5;
    EXPECT_LIST(s, &q, 5, "");
    q.skip = UINT64_MAX;
    EXPECT_LIST(s, &q, 5, "");
    q.skip = 1;
    q.search = "alpha";
    EXPECT_LIST(s, &q, 2, "d");
    q.skip = 0;
    q.top = 1;
    q.order[0].descending = true;
    EXPECT_LIST(s, &q, 2, "d");
    q.orders = 2;
    q.order[0] = (struct index_order){INDEX_BY_CREATED, true};
    q.order[1] = (struct index_order){INDEX_BY_SIZE, false};
    q.search = NULL;
    q.skip = 1;
    q.top = 3;
    EXPECT_LIST(s, &q, 5, "b d c");
    q.skip = 3;
    EXPECT_LIST(s, &q, 5, "c a");
    session_store_close(s);
}

void contract_index_search(void)
{
    struct session_store *s = start_with_five();
    put(s, &(struct row_spec){"u", "Sprachmemo für MÜLLER.wav", "", 1, 1, 0});
    put(s, &(struct row_spec){"v", "ПРИВЕТ мир.wav", "", 1, 2, 0});
    put(s, &(struct row_spec){"w", "100%_[done]*?.txt", "", 1, 3, 0});
    put(s, &(struct row_spec){"x", "", "", 1, 4, 0});
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 100};
    q.search = "ALPHA";
    EXPECT_LIST(s, &q, 2, "b d");
    q.search = "a.WAV";
    EXPECT_LIST(s, &q, 5, "a c b d e");
    q.search = "müller";
    EXPECT_LIST(s, &q, 1, "u");
    q.search = "FÜR m";
    EXPECT_LIST(s, &q, 1, "u");
    q.search = "привет МИР";
    EXPECT_LIST(s, &q, 1, "v");
    q.search = "%_[d";
    EXPECT_LIST(s, &q, 1, "w");
    q.search = "]*?.";
    EXPECT_LIST(s, &q, 1, "w");
    q.search = "alpha.wav and more";
    EXPECT_LIST(s, &q, 0, "");
    q.search = "'; DROP TABLE files;--";
    EXPECT_LIST(s, &q, 0, "");
    q.search = "";
    EXPECT_LIST(s, &q, 9, "u v w x a c b d e");
    session_store_close(s);
}

void contract_index_owner(void)
{
    struct session_store *s = start_with_five();
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 100, .owner = "bob"};
    EXPECT_LIST(s, &q, 2, "d c");
    q.search = "GAM";
    EXPECT_LIST(s, &q, 1, "c");
    q.search = NULL;
    q.owner = "Bob";
    EXPECT_LIST(s, &q, 0, "");
    q.owner = "";
    EXPECT_LIST(s, &q, 0, "");
    q.owner = "pbx";
    q.order[0] = (struct index_order){INDEX_BY_SIZE, true};
    EXPECT_LIST(s, &q, 3, "a e b");
    q.skip = 1;
    q.top = 1;
    EXPECT_LIST(s, &q, 3, "e");
    session_store_close(s);
}

void contract_index_replace(void)
{
    struct session_store *s = start_with_five();
    struct index_query q = {.order = {{INDEX_BY_SIZE, false}}, .orders = 1, .top = 100};
    put(s, &(struct row_spec){"a", "zeta", "bob", 5, 9000, 0});
    EXPECT_LIST(s, &q, 5, "a b e d c");
    q.search = "beta";
    EXPECT_LIST(s, &q, 0, "");
    q.search = NULL;
    q.owner = "bob";
    EXPECT_LIST(s, &q, 3, "a d c");
    q.owner = "pbx";
    EXPECT_LIST(s, &q, 2, "b e");
    q.owner = NULL;
    CU_ASSERT_EQUAL(index_remove(s, "a", NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_remove(s, "a", NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_remove(s, "never", NULL), BLOB_OK);
    EXPECT_LIST(s, &q, 4, "b e d c");
    put(s, &five[0]);
    EXPECT_LIST(s, &q, 5, "b e d a c");
    session_store_close(s);
}

static bool keep_row(const struct index_row *row, void *arg)
{
    struct index_row *out = arg;
    *out = *row;
    void *copy = malloc(row->value_len + 1u);
    CHECK(copy);
    if (row->value_len)
        memcpy(copy, row->value, row->value_len);
    out->value = copy;
    return true;
}

static enum blob_status replace_listed(struct session_store *s, const struct uuid *id, uint64_t expected,
                                       const char *row_id)
{
    char value[FILE_ID_MAX + 16];
    struct index_row row = {.size = 1, .created_ms = 1, .value = value};
    struct index_put put = {.row = &row, .st = BLOB_E_IO};
    snprintf(row.id, sizeof row.id, "%s", row_id);
    snprintf(row.name, sizeof row.name, "%s", row_id);
    row.value_len = (uint32_t)snprintf(value, sizeof value, "{\"of\":\"%s\"}", row_id);
    enum blob_status st =
        session_replace_listed(s, id, expected, expected + 1, "v", 1, clock_wall_ms() + 60000, &put, NULL);
    CU_ASSERT_EQUAL(put.st, BLOB_OK);
    return st;
}

void contract_index_with_session(void)
{
    struct session_store *s = contract_start();
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 100};
    struct uuid id;
    struct bytebuf value;
    uint64_t epoch = 0;
    uuid_new(&id);
    CU_ASSERT_EQUAL(replace_listed(s, &id, 1, "a"), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(session_insert(s, &id, 5, "", 0, clock_wall_ms() + 60000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(replace_listed(s, &id, 4, "b"), BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(replace_listed(s, &id, 5, "c"), BLOB_OK);
    CU_ASSERT_EQUAL(replace_listed(s, &id, 6, "c"), BLOB_OK);
    EXPECT_LIST(s, &q, 3, "a b c");
    bytebuf_init(&value);
    CU_ASSERT_EQUAL(session_load(s, &id, &value, &epoch, NULL), BLOB_OK);
    CU_ASSERT(epoch == 7 && value.len == 1);
    bytebuf_release(&value);
    session_store_close(s);
}

#define LOOKS 1000

/* Looks at a session, then at the row that says which epoch it was put with, while both change. */
struct onlooker {
    struct session_store *s;
    struct uuid id;
    atomic_uint looks;
    unsigned failed, late; /* late: the row was behind the session */
};

static bool read_number(const struct index_row *row, void *arg)
{
    char text[24] = "";
    memcpy(text, row->value, row->value_len < sizeof text ? row->value_len : sizeof text - 1);
    *(unsigned long long *)arg = strtoull(text, NULL, 10);
    return true;
}

static void *look_on(void *arg)
{
    struct onlooker *o = arg;
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 1};
    while (atomic_fetch_add(&o->looks, 1) < LOOKS) {
        struct bytebuf value;
        uint64_t epoch = 0, count = 0;
        unsigned long long row = 0;
        bytebuf_init(&value);
        enum blob_status st = session_load(o->s, &o->id, &value, &epoch, NULL);
        bytebuf_release(&value);
        if (st == BLOB_OK)
            st = index_list(o->s, &q, &count, read_number, &row, NULL);
        o->failed += st != BLOB_OK;
        o->late += epoch > 1 && row < epoch;
    }
    return NULL;
}

void contract_index_before_session(void)
{
    struct onlooker o = {.s = contract_start()};
    char value[24];
    struct index_row row = {.id = "a", .name = "a", .size = 1, .created_ms = 1, .value = value};
    struct index_put put = {.row = &row};
    pthread_t thread;
    uuid_new(&o.id);
    CU_ASSERT_EQUAL_FATAL(session_insert(o.s, &o.id, 1, "", 0, clock_wall_ms() + 60000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, look_on, &o), 0);
    for (uint64_t epoch = 1; atomic_load(&o.looks) <= LOOKS; epoch++) {
        row.value_len = (uint32_t)snprintf(value, sizeof value, "%llu", (unsigned long long)epoch + 1);
        enum blob_status st =
            session_replace_listed(o.s, &o.id, epoch, epoch + 1, "v", 1, clock_wall_ms() + 60000, &put, NULL);
        CU_ASSERT(st == BLOB_OK && put.st == BLOB_OK);
    }
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(o.failed, 0);
    CU_ASSERT_EQUAL(o.late, 0);
    session_store_close(o.s);
}

void contract_index_fields(void)
{
    struct session_store *s = contract_start();
    struct index_row row = {.size = UINT64_C(5) << 40, .created_ms = 1700000000123, .expires_ms = 1800000000456},
                     got = {0};
    char *value = malloc(INDEX_VALUE_MAX);
    CHECK(value);
    for (size_t i = 0; i < INDEX_VALUE_MAX; i++)
        value[i] = (char)(i * 31);
    memset(row.id, 'i', sizeof row.id - 1);
    memset(row.name, 'n', sizeof row.name - 1);
    memset(row.owner, 'o', sizeof row.owner - 1);
    row.value = value;
    row.value_len = INDEX_VALUE_MAX;
    CU_ASSERT_EQUAL_FATAL(index_put(s, &row, NULL), BLOB_OK);
    struct index_query q = {
        .order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 1, .owner = row.owner, .search = row.name};
    uint64_t count = 0;
    CU_ASSERT_EQUAL_FATAL(index_list(s, &q, &count, keep_row, &got, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(count, 1);
    CU_ASSERT_STRING_EQUAL(got.id, row.id);
    CU_ASSERT_STRING_EQUAL(got.name, row.name);
    CU_ASSERT_STRING_EQUAL(got.owner, row.owner);
    CU_ASSERT_EQUAL(got.size, row.size);
    CU_ASSERT_EQUAL(got.created_ms, row.created_ms);
    CU_ASSERT_EQUAL(got.expires_ms, row.expires_ms);
    CU_ASSERT_EQUAL_FATAL(got.value_len, row.value_len);
    CU_ASSERT_EQUAL(memcmp(got.value, value, INDEX_VALUE_MAX), 0);
    free((void *)got.value);
    free(value);
    session_store_close(s);
}

struct nested {
    struct session_store *s;
    unsigned calls;
    enum blob_status st;
};

static bool remove_row(const struct index_row *row, void *arg)
{
    struct nested *n = arg;
    n->calls++;
    if (n->st == BLOB_OK)
        n->st = index_remove(n->s, row->id, NULL);
    return n->calls < 3;
}

void contract_index_callback(void)
{
    struct session_store *s = start_with_five();
    struct index_query q = {.order = {{INDEX_BY_SIZE, false}}, .orders = 1, .top = 100};
    struct nested n = {.s = s};
    uint64_t count = 0;
    CU_ASSERT_EQUAL(index_list(s, &q, &count, remove_row, &n, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(n.st, BLOB_OK);
    CU_ASSERT_EQUAL(n.calls, 3);
    CU_ASSERT_EQUAL(count, 5);
    EXPECT_LIST(s, &q, 2, "a c");
    session_store_close(s);
}

static unsigned count_expired(struct session_store *s, int64_t now_ms, size_t limit, struct bytebuf *ids)
{
    bytebuf_clear(ids);
    CU_ASSERT_EQUAL(index_expired(s, now_ms, limit, add_id, ids, NULL), BLOB_OK);
    unsigned n = ids->len ? 1 : 0;
    for (size_t i = 0; i < ids->len; i++)
        n += ids->data[i] == ' ';
    return n;
}

void contract_index_expired(void)
{
    struct session_store *s = start_with_five();
    put(s, &(struct row_spec){"p", "old", "", 1, 1, 100});
    put(s, &(struct row_spec){"q", "older", "", 1, 1, 50});
    put(s, &(struct row_spec){"r", "not yet", "", 1, 1, 200});
    struct bytebuf ids;
    bytebuf_init(&ids);
    CU_ASSERT_EQUAL(count_expired(s, 150, 10, &ids), 2);
    CU_ASSERT(strstr(ids.data, "p") && strstr(ids.data, "q"));
    CU_ASSERT_EQUAL(count_expired(s, 150, 1, &ids), 1);
    CU_ASSERT_EQUAL(count_expired(s, 50, 10, &ids), 0);
    CU_ASSERT_EQUAL(count_expired(s, 51, 10, &ids), 1);
    put(s, &(struct row_spec){"q", "kept after all", "", 1, 1, 0});
    CU_ASSERT_EQUAL(count_expired(s, 1000, 10, &ids), 2);
    CU_ASSERT_EQUAL(index_remove(s, "p", NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count_expired(s, 1000, 10, &ids), 1);
    CU_ASSERT_STRING_EQUAL(ids.data, "r");
    bytebuf_release(&ids);
    session_store_close(s);
}

void contract_index_recent(void)
{
    static const char stem[] = "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDDEE",
                      other[] = "AAAAAAAAAABBBBBBBBBBCCCCCCCCCCDDDDDDDDDDEF";
    struct session_store *s = contract_start();
    bool shared = (s->caps & SESSIONS_SHARED) != 0;
    char id[FILE_ID_MAX];
    CU_ASSERT_EQUAL(index_recent(s, stem, NULL), BLOB_E_NOT_FOUND);
    snprintf(id, sizeof id, "%s%s", stem, "12345678901");
    put(s, &(struct row_spec){id, "n", NULL, 1, 1, 0});
    CU_ASSERT_EQUAL(index_recent(s, stem, NULL), shared ? BLOB_OK : BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(index_recent(s, other, NULL), BLOB_E_NOT_FOUND);
    session_store_close(s);
}

void contract_index_whole(void)
{
    struct session_store *s = contract_start();
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    put(s, &five[0]);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    session_store_close(s);
}

void contract_index_rebuild(void)
{
    struct session_store *s = start_with_five();
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 100};
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put(s, &five[4]);
    put(s, &five[2]);
    put(s, &(struct row_spec){"n", "new", "", 1, 4000, 0});
    EXPECT_LIST(s, &q, 6, "a c b d n e");
    CU_ASSERT_EQUAL(index_remove(s, "c", NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    EXPECT_LIST(s, &q, 2, "n e");
    /* One that was begun and never ended is begun again. */
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put(s, &five[0]);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put(s, &five[1]);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    EXPECT_LIST(s, &q, 1, "b");
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    session_store_close(s);
}

void contract_index_reopen(void)
{
    if (!contract_persists())
        return;
    struct session_store *s = start_with_five();
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put(s, &five[0]);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    put(s, &five[3]);
    session_store_close(s);
    s = contract_open("node-a");
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 100};
    EXPECT_LIST(s, &q, 2, "a d");
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    session_store_close(s);
    s = contract_open("node-a");
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    EXPECT_LIST(s, &q, 2, "a d");
    session_store_close(s);
}

/* ---- many threads ---- */

#define WRITERS       4
#define ROWS_A_WRITER 200

struct index_load {
    struct session_store *s;
    atomic_int next, errors;
};

static bool count_row(const struct index_row *row, void *arg)
{
    (void)row;
    ++*(unsigned *)arg;
    return true;
}

/* Puts its rows, removes every second, and after each asks for its own: what it did must be seen at once. */
static void *index_writer(void *arg)
{
    struct index_load *l = arg;
    struct index_row row = {.size = 1, .value = "v", .value_len = 1};
    int me = l->next++;
    unsigned live = 0;
    snprintf(row.owner, sizeof row.owner, "writer-%d", me);
    for (int i = 0; i < ROWS_A_WRITER; i++) {
        snprintf(row.id, sizeof row.id, "%d-%d", me, i);
        snprintf(row.name, sizeof row.name, "file %d", i % 7);
        row.created_ms = i;
        l->errors += index_put(l->s, &row, NULL) != BLOB_OK;
        live++;
        if (i % 2) {
            l->errors += index_remove(l->s, row.id, NULL) != BLOB_OK;
            live--;
        }
        if (i % 16)
            continue;
        struct index_query q = {.owner = row.owner, .order = {{INDEX_BY_NAME, true}}, .orders = 1, .top = 100};
        uint64_t count = 0;
        unsigned rows = 0;
        l->errors += index_list(l->s, &q, &count, count_row, &rows, NULL) != BLOB_OK;
        l->errors += count != live || rows != (live < 100 ? live : 100);
    }
    return NULL;
}

void contract_index_threads(void)
{
    struct index_load l = {.s = contract_start()};
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        CHECK(pthread_create(&threads[i], NULL, index_writer, &l) == 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(l.errors, 0);
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 1};
    uint64_t count = 0;
    unsigned rows = 0;
    CU_ASSERT_EQUAL(index_list(l.s, &q, &count, count_row, &rows, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, WRITERS * ROWS_A_WRITER / 2);
    session_store_close(l.s);
}
