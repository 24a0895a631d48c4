/*
 * session_store_contract - each test resets the store, opens one node or two, and tries one promise of the header.
 * The index tests are in session_index_contract.c.
 */
#include "tests/contract/session_store_contract.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/node_clock.h"
#include "tests/contract/session_contract_parts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct session_contract *contract;

void session_contract_use(const struct session_contract *c)
{
    contract = c;
}

struct session_store *contract_open(const char *node_id)
{
    struct session_store *s = NULL;
    struct blob_error err = {0};
    enum blob_status st = contract->open(&s, &err);
    if (st == BLOB_OK)
        st = session_store_join(s, node_id, CONTRACT_STORE_ID, clock_wall_ms(), &err);
    if (st != BLOB_OK) {
        fprintf(stderr, "%s: %s: %s\n", contract->name, blob_status_name(st), err.text);
        CU_FAIL_FATAL("the store does not open");
    }
    return s;
}

struct session_store *contract_start(void)
{
    contract->reset();
    return contract_open("node-a");
}

bool contract_persists(void)
{
    return contract->persists;
}

void contract_sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0)
        ;
}

static int64_t later(void)
{
    return clock_wall_ms() + 60000;
}

/* Is the session there, with this value and epoch? */
static bool holds(struct session_store *s, const struct uuid *id, const void *value, size_t len, uint64_t epoch)
{
    struct bytebuf b;
    uint64_t got = 0;
    bytebuf_init(&b);
    bytebuf_text(&b, "x"); /* load must append */
    enum blob_status st = session_load(s, id, &b, &got, NULL);
    bool ok = st == BLOB_OK && got == epoch && b.len == len + 1 && b.data[0] == 'x' &&
              (len == 0 || memcmp(b.data + 1, value, len) == 0);
    bytebuf_release(&b);
    return ok;
}

static enum blob_status load_status(struct session_store *s, const struct uuid *id)
{
    struct bytebuf b;
    uint64_t epoch = 77;
    bytebuf_init(&b);
    enum blob_status st = session_load(s, id, &b, &epoch, NULL);
    if (st != BLOB_OK) {
        CU_ASSERT_EQUAL(epoch, 77);
        CU_ASSERT_EQUAL(b.len, 0);
    }
    bytebuf_release(&b);
    return st;
}

/* ---- sessions ---- */

static void test_round_trip(void)
{
    struct session_store *s = contract_start();
    struct uuid id, other;
    uuid_new(&id);
    uuid_new(&other);
    char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    CU_ASSERT_EQUAL(load_status(s, &id), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, all, sizeof all, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &id, all, sizeof all, 1));
    CU_ASSERT_EQUAL(session_insert(s, &other, UINT64_C(1) << 40, "", 0, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &other, "", 0, UINT64_C(1) << 40));
    CU_ASSERT_EQUAL(session_insert(s, &id, 9, "no", 2, later(), NULL), BLOB_E_EXISTS);
    CU_ASSERT_TRUE(holds(s, &id, all, sizeof all, 1));
    session_store_close(s);
}

static void test_largest_value(void)
{
    struct session_store *s = contract_start();
    struct uuid id;
    uuid_new(&id);
    char big[SESSION_VALUE_MAX];
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "small", 5, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace(s, &id, 1, 2, big, sizeof big, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &id, big, sizeof big, 2));
    CU_ASSERT_EQUAL(session_replace(s, &id, 2, 3, "small", 5, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &id, "small", 5, 3));
    session_store_close(s);
}

static void test_replace(void)
{
    struct session_store *s = contract_start();
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_replace(s, &id, 1, 2, "a", 1, later(), NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(session_insert(s, &id, 5, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace(s, &id, 4, 5, "b", 1, later(), NULL), BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(session_replace(s, &id, 6, 7, "b", 1, later(), NULL), BLOB_E_CONFLICT);
    CU_ASSERT_TRUE(holds(s, &id, "a", 1, 5));
    CU_ASSERT_EQUAL(session_replace(s, &id, 5, 6, "b", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &id, "b", 1, 6));
    CU_ASSERT_EQUAL(session_replace(s, &id, 5, 6, "c", 1, later(), NULL), BLOB_E_CONFLICT);
    session_store_close(s);
}

static void test_remove(void)
{
    struct session_store *s = contract_start();
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_remove(s, &id, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(s, &id, 3, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_remove(s, &id, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(load_status(s, &id), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "b", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &id, "b", 1, 1));
    session_store_close(s);
}

static void test_expiry(void)
{
    struct session_store *s = contract_start();
    struct uuid gone, kept, past;
    uuid_new(&gone);
    uuid_new(&kept);
    uuid_new(&past);
    int64_t now = clock_wall_ms();
    CU_ASSERT_EQUAL(session_insert(s, &gone, 1, "a", 1, now + 150, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(s, &kept, 1, "b", 1, now + 150, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace(s, &kept, 1, 2, "b", 1, now + 60000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(s, &past, 1, "c", 1, now - 1000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(load_status(s, &past), BLOB_E_NOT_FOUND);
    contract_sleep_ms(250);
    CU_ASSERT_EQUAL(load_status(s, &gone), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(session_replace(s, &gone, 1, 2, "z", 1, now + 60000, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_TRUE(holds(s, &kept, "b", 1, 2));
    CU_ASSERT_EQUAL(session_sweep(s, clock_wall_ms(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(load_status(s, &gone), BLOB_E_NOT_FOUND);
    CU_ASSERT_TRUE(holds(s, &kept, "b", 1, 2));
    /* What expired does not stand in the way of a new one. */
    CU_ASSERT_EQUAL(session_insert(s, &past, 7, "d", 1, now + 60000, NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &past, "d", 1, 7));
    session_store_close(s);
}

/* Its wall clock is a day ahead of what it believes: what others see as live is live here, and stays so for them. */
static void test_clock_ahead(void)
{
    struct session_store *s = contract_start();
    int64_t now = clock_wall_ms(), half_a_day_ms = 12 * INT64_C(3600000);
    struct node_clock *clock = node_clock_new(60000);
    struct uuid live, past, other;
    uuid_new(&live);
    uuid_new(&past);
    uuid_new(&other);
    CU_ASSERT_EQUAL(session_insert(s, &live, 1, "a", 1, now + 150, NULL), BLOB_OK);
    node_clock_start_at(clock, now - 2 * half_a_day_ms, 0);
    s->clock = clock;
    CU_ASSERT_EQUAL(session_replace(s, &live, 1, 2, "b", 1, now - half_a_day_ms, NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &live, "b", 1, 2));
    CU_ASSERT_EQUAL(session_insert(s, &live, 3, "c", 1, later(), NULL), BLOB_E_EXISTS);
    CU_ASSERT_EQUAL(session_replace(s, &live, 2, 3, "c", 1, now - half_a_day_ms, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(s, &other, 1, "o", 1, now - half_a_day_ms, NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, &other, "o", 1, 1));
    CU_ASSERT_EQUAL(session_insert(s, &past, 1, "p", 1, now - 3 * half_a_day_ms, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(load_status(s, &past), BLOB_E_NOT_FOUND);
    contract_sleep_ms(250);
    CU_ASSERT_TRUE(holds(s, &live, "c", 1, 3));
    session_store_close(s);
    node_clock_free(clock);
}

#define SWEPT 3000

static void test_sweep_many(void)
{
    struct session_store *s = contract_start();
    struct uuid ids[4];
    int64_t now = clock_wall_ms();
    for (int i = 0; i < SWEPT; i++) {
        struct uuid id;
        uuid_new(&id);
        if (i % (SWEPT / 4) == 0)
            ids[i / (SWEPT / 4)] = id;
        bool keep = i % (SWEPT / 4) == 0;
        CU_ASSERT_EQUAL_FATAL(session_insert(s, &id, 1, "v", 1, keep ? now + 60000 : now - 10, NULL), BLOB_OK);
    }
    CU_ASSERT_EQUAL(session_sweep(s, clock_wall_ms(), NULL), BLOB_OK);
    for (int i = 0; i < 4; i++)
        CU_ASSERT_TRUE(holds(s, &ids[i], "v", 1, 1));
    session_store_close(s);
}

static void test_reopen(void)
{
    if (!contract_persists())
        return;
    struct session_store *s = contract_start();
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace(s, &id, 1, 2, "bb", 2, later(), NULL), BLOB_OK);
    session_store_close(s);
    s = contract_open("node-a");
    CU_ASSERT_TRUE(holds(s, &id, "bb", 2, 2));
    session_store_close(s);
}

/* ---- many threads ---- */

#define RACERS 8
#define ROUNDS 100

struct race {
    struct session_store *s;
    struct uuid id;
    atomic_int wins[ROUNDS + 2]; /* by the epoch that was replaced */
    atomic_int errors;
};

static void *race_main(void *arg)
{
    struct race *r = arg;
    uint64_t epoch = 1;
    while (epoch <= ROUNDS) {
        uint64_t value = epoch;
        enum blob_status st = session_replace(r->s, &r->id, epoch, epoch + 1, &value, sizeof value, later(), NULL);
        if (st == BLOB_OK)
            r->wins[epoch]++;
        else if (st != BLOB_E_CONFLICT)
            r->errors++;
        struct bytebuf b;
        bytebuf_init(&b);
        uint64_t before = epoch;
        if (session_load(r->s, &r->id, &b, &epoch, NULL) != BLOB_OK || epoch <= before || b.len != sizeof value) {
            r->errors++;
            epoch = before + 1;
        } else {
            /* Value and epoch belong together. */
            memcpy(&value, b.data, sizeof value);
            if (value != epoch - 1)
                r->errors++;
        }
        bytebuf_release(&b);
    }
    return NULL;
}

static void test_one_winner(void)
{
    struct race *r = calloc(1, sizeof *r);
    CHECK(r);
    r->s = contract_start();
    uuid_new(&r->id);
    uint64_t zero = 0;
    CU_ASSERT_EQUAL(session_insert(r->s, &r->id, 1, &zero, sizeof zero, later(), NULL), BLOB_OK);
    pthread_t threads[RACERS];
    for (int i = 0; i < RACERS; i++)
        CHECK(pthread_create(&threads[i], NULL, race_main, r) == 0);
    for (int i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    for (int e = 1; e <= ROUNDS; e++)
        CU_ASSERT_EQUAL(r->wins[e], 1);
    CU_ASSERT_EQUAL(r->errors, 0);
    session_store_close(r->s);
    free(r);
}

struct insert_race {
    struct session_store *s;
    struct uuid id;
    atomic_int won, lost, errors;
};

static void *insert_race_main(void *arg)
{
    struct insert_race *r = arg;
    switch (session_insert(r->s, &r->id, 1, "a", 1, later(), NULL)) {
    case BLOB_OK:
        r->won++;
        break;
    case BLOB_E_EXISTS:
        r->lost++;
        break;
    default:
        r->errors++;
    }
    return NULL;
}

static void test_one_insert(void)
{
    struct insert_race r = {.s = contract_start()};
    uuid_new(&r.id);
    pthread_t threads[RACERS];
    for (int i = 0; i < RACERS; i++)
        CHECK(pthread_create(&threads[i], NULL, insert_race_main, &r) == 0);
    for (int i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(r.won, 1);
    CU_ASSERT_EQUAL(r.lost, RACERS - 1);
    CU_ASSERT_EQUAL(r.errors, 0);
    session_store_close(r.s);
}

/* ---- nodes ---- */

static void test_check(void)
{
    struct session_store *s = contract_start();
    CU_ASSERT_EQUAL(session_store_check(s, NULL), BLOB_OK);
    session_store_close(s);
}

static void test_one_process(void)
{
    struct session_store *s = contract_start(), *second = NULL;
    struct blob_error err = {0};
    if (!(s->caps & SESSIONS_SHARED)) {
        enum blob_status st = contract->open(&second, &err);
        if (st == BLOB_OK)
            session_store_close(second); /* a store without a place of its own cannot be opened twice */
        else
            CU_ASSERT_EQUAL(st, BLOB_E_CONFLICT);
        CU_ASSERT(!contract_persists() || st == BLOB_E_CONFLICT);
    }
    session_store_close(s);
}

static void test_nodes_share(void)
{
    struct session_store *a = contract_start();
    if (!(a->caps & SESSIONS_SHARED)) {
        session_store_close(a);
        return;
    }
    struct session_store *b = contract_open("node-b");
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(a, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(b, &id, "a", 1, 1));
    CU_ASSERT_EQUAL(session_replace(b, &id, 1, 2, "b", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace(a, &id, 1, 2, "c", 1, later(), NULL), BLOB_E_CONFLICT);
    CU_ASSERT_TRUE(holds(a, &id, "b", 1, 2));
    session_store_close(a);
    session_store_close(b);
}

static void test_join_refuses(void)
{
    struct session_store *a = contract_start();
    if (!(a->caps & SESSIONS_SHARED)) {
        session_store_close(a);
        return;
    }
    struct session_store *b = NULL;
    struct blob_error err = {0};
    CU_ASSERT_EQUAL_FATAL(contract->open(&b, &err), BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(b, "node-b", "11111111-0000-4000-8000-000000000000", clock_wall_ms(), &err),
                    BLOB_E_CONFLICT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "store"));
    CU_ASSERT_EQUAL(session_store_join(b, "node-b", CONTRACT_STORE_ID, clock_wall_ms() + 60000, &err), BLOB_E_CONFLICT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "clock"));
    CU_ASSERT_EQUAL(session_store_join(b, "node-b", CONTRACT_STORE_ID, clock_wall_ms(), &err), BLOB_OK);
    session_store_close(a);
    session_store_close(b);
}

static void test_join_again(void)
{
    /* A node that stopped does not keep the next from using another blob store. */
    struct session_store *s = contract_start();
    session_store_close(s);
    s = NULL;
    struct blob_error err = {0};
    CU_ASSERT_EQUAL_FATAL(contract->open(&s, &err), BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(s, "node-b", "22222222-0000-4000-8000-000000000000", clock_wall_ms(), &err),
                    BLOB_OK);
    session_store_close(s);
}

struct heard {
    pthread_mutex_t lock;
    struct uuid id;
    uint64_t epoch;
    unsigned count;
};

static void hear(const struct uuid *id, uint64_t epoch, void *arg)
{
    struct heard *h = arg;
    pthread_mutex_lock(&h->lock);
    h->id = *id;
    h->epoch = epoch;
    h->count++;
    pthread_mutex_unlock(&h->lock);
}

static unsigned heard_count(struct heard *h)
{
    pthread_mutex_lock(&h->lock);
    unsigned n = h->count;
    pthread_mutex_unlock(&h->lock);
    return n;
}

static void test_announce(void)
{
    contract->reset();
    struct session_store *a = NULL, *b = NULL;
    struct heard at_a = {.lock = PTHREAD_MUTEX_INITIALIZER}, at_b = {.lock = PTHREAD_MUTEX_INITIALIZER};
    CU_ASSERT_EQUAL_FATAL(contract->open(&a, NULL), BLOB_OK);
    if (!(a->caps & SESSIONS_SHARED)) {
        session_listen(a, hear, &at_a); /* does nothing, and must not crash */
        session_store_close(a);
        return;
    }
    CU_ASSERT_EQUAL_FATAL(contract->open(&b, NULL), BLOB_OK);
    session_listen(a, hear, &at_a);
    session_listen(b, hear, &at_b);
    CU_ASSERT_EQUAL(session_store_join(a, "node-a", CONTRACT_STORE_ID, clock_wall_ms(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(b, "node-b", CONTRACT_STORE_ID, clock_wall_ms(), NULL), BLOB_OK);
    struct uuid id;
    uuid_new(&id);
    session_announce(a, &id, 42);
    for (int i = 0; i < 200 && heard_count(&at_b) == 0; i++)
        contract_sleep_ms(10);
    CU_ASSERT_EQUAL(heard_count(&at_b), 1);
    CU_ASSERT_STRING_EQUAL(at_b.id.text, id.text);
    CU_ASSERT_EQUAL(at_b.epoch, 42);
    contract_sleep_ms(50);
    CU_ASSERT_EQUAL(heard_count(&at_a), 0); /* not its own */
    session_listen(b, NULL, NULL);
    session_announce(a, &id, 43);
    contract_sleep_ms(50);
    CU_ASSERT_EQUAL(heard_count(&at_b), 1); /* it was ended */
    session_store_close(a);
    session_store_close(b);
}

static void test_lease(void)
{
    struct session_store *a = contract_start();
    CU_ASSERT_EQUAL(session_lease(a, "janitor", 300, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_lease(a, "janitor", 300, NULL), BLOB_OK);
    if (a->caps & SESSIONS_SHARED) {
        struct session_store *b = contract_open("node-b");
        CU_ASSERT_EQUAL(session_lease(b, "janitor", 300, NULL), BLOB_E_CONFLICT);
        CU_ASSERT_EQUAL(session_lease(b, "other", 300, NULL), BLOB_OK);
        contract_sleep_ms(400);
        CU_ASSERT_EQUAL(session_lease(b, "janitor", 300, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(session_lease(a, "janitor", 300, NULL), BLOB_E_CONFLICT);
        session_store_close(b);
    }
    session_store_close(a);
}

CU_TestInfo *session_contract_tests(void)
{
    static CU_TestInfo tests[] = {
        {"a session is read back as it was inserted, and inserted once", test_round_trip},
        {"a value of the largest size is kept whole", test_largest_value},
        {"a replace needs the present epoch and raises it by one", test_replace},
        {"a removed session is gone, and its id free", test_remove},
        {"an expired session is not found, and a replace extends", test_expiry},
        {"a live session stays, for all, where the clock is ahead", test_clock_ahead},
        {"a sweep takes what expired and nothing else", test_sweep_many},
        {"sessions outlive the store's closing", test_reopen},
        {"of many replaces on one epoch exactly one wins", test_one_winner},
        {"of many inserts of one id exactly one wins", test_one_insert},
        {"an open store answers its check", test_check},
        {"a store of one process refuses a second", test_one_process},
        {"nodes see each other's changes", test_nodes_share},
        {"join refuses another blob store and a wrong clock, saying so", test_join_refuses},
        {"a node that left does not keep the next out", test_join_again},
        {"a take-over is heard by the other node only", test_announce},
        {"a lease is one node's until it runs out", test_lease},
        {"rows are listed in every order, ties by id", contract_index_orders},
        {"skip and top cut pages that join without gap", contract_index_pages},
        {"search finds parts of names in any case, beyond ASCII too", contract_index_search},
        {"a listing can be of one owner", contract_index_owner},
        {"putting a row again replaces it; removing it twice is fine", contract_index_replace},
        {"a row put with a session's change: each has its own result", contract_index_with_session},
        {"nobody sees a session replaced and its row not yet put", contract_index_before_session},
        {"every field of a row comes back, at its bounds", contract_index_fields},
        {"a listing ends when its callback says so, and may call back", contract_index_callback},
        {"expired rows are told, up to a limit", contract_index_expired},
        {"a blob that got a file lately is known to all nodes", contract_index_recent},
        {"a new index is not whole until a rebuild ended", contract_index_whole},
        {"a rebuild keeps what was put meanwhile and drops the rest", contract_index_rebuild},
        {"a whole index is whole after closing cleanly", contract_index_reopen},
        {"puts, removes and listings from many threads agree", contract_index_threads},
        CU_TEST_INFO_NULL};
    return tests;
}
