/* blob_record_contract - the promises about records. */
#include "core/check.h"
#include "tests/contract/blob_contract_parts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum blob_status put(struct blob_store *s, const char *key, const char *value, unsigned flags)
{
    return record_put(s, key, value, strlen(value), flags, NULL);
}

static bool holds_bytes(struct blob_store *s, const char *key, const void *value, size_t len)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_text(&b, "x"); /* get must append */
    enum blob_status st = record_get(s, key, &b, NULL);
    bool ok = st == BLOB_OK && b.len == len + 1 && b.data[0] == 'x' && memcmp(b.data + 1, value, len) == 0;
    bytebuf_release(&b);
    return ok;
}

static bool holds(struct blob_store *s, const char *key, const char *value)
{
    return holds_bytes(s, key, value, strlen(value));
}

static bool absent(struct blob_store *s, const char *key)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bool missing = record_get(s, key, &b, NULL) == BLOB_E_NOT_FOUND && b.len == 0;
    bytebuf_release(&b);
    return missing;
}

void contract_record_put(void)
{
    struct blob_store *s = blob_contract_start();
    CU_ASSERT_TRUE(absent(s, "files/a/1"));
    CU_ASSERT_EQUAL(put(s, "files/a/1", "{\"one\":1}", 0), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, "files/a/1", "{\"one\":1}"));
    CU_ASSERT_EQUAL(put(s, "files/a/1", "2", 0), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, "files/a/1", "2"));
    CU_ASSERT_TRUE(absent(s, "files/a"));
    CU_ASSERT_TRUE(absent(s, "files/a/11"));
    if (blob_contract()->persists) {
        blob_store_close(s);
        s = blob_contract_open();
        CU_ASSERT_TRUE(holds(s, "files/a/1", "2"));
    }
    blob_store_close(s);
}

void contract_record_bounds(void)
{
    struct blob_store *s = blob_contract_start();
    static const char *const keys[] = {"a/b", "a/b/c/d/e/f/g", "Az09._-/Az09._-", "files/..a/.b", "x/-", "x/_/.-."};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        CU_ASSERT_EQUAL(put(s, keys[i], keys[i], 0), BLOB_OK);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        CU_ASSERT_TRUE(holds(s, keys[i], keys[i]));
    char key[RECORD_KEY_MAX + 1];
    memset(key, 'k', RECORD_KEY_MAX);
    key[5] = '/';
    key[RECORD_KEY_MAX] = '\0';
    char *value = malloc(RECORD_VALUE_MAX);
    CU_ASSERT_PTR_NOT_NULL_FATAL(value);
    for (size_t i = 0; i < RECORD_VALUE_MAX; i++)
        value[i] = (char)(i * 31);
    CU_ASSERT_EQUAL(record_put(s, key, value, RECORD_VALUE_MAX, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds_bytes(s, key, value, RECORD_VALUE_MAX));
    CU_ASSERT_EQUAL(record_put(s, key, "\0", 1, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds_bytes(s, key, "\0", 1));
    free(value);
    static const char *const bad[] = {"",     "a",     "/a",     "a/",         "a//b",  "a/./b", "../a",
                                      "a/..", "a/b c", "a/b\nc", "a/\303\244", "a,b/c", NULL};
    for (size_t i = 0; bad[i]; i++)
        CU_ASSERT_FALSE(record_key_valid(bad[i]));
    blob_store_close(s);
}

void contract_record_if_none(void)
{
    struct blob_store *s = blob_contract_start();
    CU_ASSERT_EQUAL(put(s, "files/a/1", "first", BLOB_IF_NONE), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/1", "second", BLOB_IF_NONE), BLOB_E_EXISTS);
    CU_ASSERT_TRUE(holds(s, "files/a/1", "first"));
    CU_ASSERT_EQUAL(put(s, "files/a/1", "third", BLOB_IF_NONE | BLOB_LAZY), BLOB_E_EXISTS);
    CU_ASSERT_EQUAL(put(s, "files/a/2", "lazy", BLOB_IF_NONE | BLOB_LAZY), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/2", "fourth", BLOB_IF_NONE), BLOB_E_EXISTS);
    CU_ASSERT_EQUAL(record_delete(s, "files/a/1", 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/1", "again", BLOB_IF_NONE), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, "files/a/1", "again"));
    CU_ASSERT_TRUE(holds(s, "files/a/2", "lazy"));
    blob_store_close(s);
}

void contract_record_delete(void)
{
    struct blob_store *s = blob_contract_start();
    CU_ASSERT_EQUAL(record_delete(s, "files/a/1", 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/1", "v", 0), BLOB_OK);
    CU_ASSERT_EQUAL(record_delete(s, "files/a/1", 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(absent(s, "files/a/1"));
    CU_ASSERT_EQUAL(record_delete(s, "files/a/1", 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/1", "w", 0), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, "files/a/1", "w"));
    if (blob_contract()->persists) {
        CU_ASSERT_EQUAL(record_delete(s, "files/a/1", 0, NULL), BLOB_OK);
        blob_store_close(s);
        s = blob_contract_open();
        CU_ASSERT_TRUE(absent(s, "files/a/1"));
    }
    blob_store_close(s);
}

/* ---- listing ---- */

/* In byte order; the order of '-' < '.' < '/' < '0' is where mappings to file names or object keys go wrong. */
static const char *const ordered[] = {
    "files/-/x",        "files/.a/1",         "files/a",          "files/a-b/1", "files/a.b/1",  "files/a/-",
    "files/a/1",        "files/a/1-2",        "files/a/1.2",      "files/a/1/2", "files/a/10",   "files/a/2",
    "files/a0/1",       "files/aa/1",         "files/ab",         "files/ab-",   "files/ab.x",   "files/ab/0",
    "files/abc",        "files/abc-d/1",      "files/abc.d/1",    "files/abc/1", "files/abc0/1", "files/abcd/1",
    "files/abcdefgh/1", "files/abcdefgh/1/z", "files/abcdefgh/2", "files/b/1",   "files/z_/1",
};
#define ORDERED (sizeof ordered / sizeof ordered[0])

struct records_seen {
    struct blob_store *store;
    char keys[64][RECORD_KEY_MAX + 1];
    unsigned count, stop_at;
    bool values_wrong, with_values, remove;
};

static bool see_record(const char *key, const void *value, size_t len, void *arg)
{
    struct records_seen *seen = arg;
    CHECK(seen->count < 64);
    if (seen->with_values ? len != strlen(key) || memcmp(value, key, len) != 0 : value != NULL || len != 0)
        seen->values_wrong = true;
    snprintf(seen->keys[seen->count++], RECORD_KEY_MAX + 1, "%s", key);
    if (seen->remove)
        CU_ASSERT_EQUAL(record_delete(seen->store, key, 0, NULL), BLOB_OK);
    return seen->count != seen->stop_at;
}

/* Lists, and compares with what of `ordered` has the prefix and is behind `after`, `limit` of it at most. */
static void expect_list(struct blob_store *s, const char *prefix, const char *after, size_t limit)
{
    struct records_seen *seen = calloc(1, sizeof *seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen);
    CU_ASSERT_EQUAL(record_list(s, prefix, after, limit, false, see_record, seen, NULL), BLOB_OK);
    unsigned at = 0;
    bool same = true;
    for (size_t i = 0; i < ORDERED; i++) {
        if (strncmp(ordered[i], prefix, strlen(prefix)) != 0 || (after && strcmp(ordered[i], after) <= 0) ||
            (limit && at == limit))
            continue;
        same = same && at < seen->count && strcmp(seen->keys[at], ordered[i]) == 0;
        at++;
    }
    if (!same || at != seen->count) {
        fprintf(stderr, "%s: list %s after %s limit %zu:", blob_contract()->name, prefix, after ? after : "-", limit);
        for (unsigned i = 0; i < seen->count; i++)
            fprintf(stderr, " %s", seen->keys[i]);
        fprintf(stderr, "\n");
    }
    CU_ASSERT_TRUE(same && at == seen->count);
    CU_ASSERT_FALSE(seen->values_wrong);
    free(seen);
}

static void put_ordered(struct blob_store *s)
{
    /* Not in their order, and among records of other classes. */
    for (size_t i = 0; i < ORDERED; i++) {
        const char *key = ordered[(i * 11) % ORDERED];
        CU_ASSERT_EQUAL(put(s, key, key, i % 2 ? BLOB_LAZY : 0), BLOB_OK);
    }
    CU_ASSERT_EQUAL(put(s, "file/a/1", "x", 0), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files-/a/1", "x", 0), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "filesa/a/1", "x", 0), BLOB_OK);
}

static void expect_lists(struct blob_store *s)
{
    static const char *const prefixes[] = {"files/",     "files/a/",    "files/ab/",       "files/abc/",
                                           "files/a/1/", "files/abcd/", "files/abcdefgh/", "files/none/",
                                           "none/",      "files/-/",    "files/a-b/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        expect_list(s, prefixes[i], NULL, 0);
}

void contract_record_order(void)
{
    struct blob_store *s = blob_contract_start();
    expect_list(s, "none/", NULL, 0);
    put_ordered(s);
    expect_lists(s);
    if (blob_contract()->persists) {
        blob_store_close(s);
        s = blob_contract_open();
        expect_lists(s);
    }
    blob_store_close(s);
}

void contract_record_pages(void)
{
    struct blob_store *s = blob_contract_start();
    put_ordered(s);
    for (size_t i = 0; i < ORDERED; i++) {
        expect_list(s, "files/", ordered[i], 0);
        expect_list(s, "files/", ordered[i], 3);
    }
    expect_list(s, "files/", "files/a/11", 2);
    expect_list(s, "files/", "a/a", 2);
    expect_list(s, "files/", "g/a", 2);
    expect_list(s, "files/a/", "files/a/1/2", 0);
    expect_list(s, "files/a/", "files/ab", 0);
    expect_list(s, "files/a/", "files/-/x", 1);
    expect_list(s, "files/", NULL, 1);
    expect_list(s, "files/", NULL, 1000);
    blob_store_close(s);
}

void contract_record_list_values(void)
{
    struct blob_store *s = blob_contract_start();
    struct records_seen *seen = calloc(1, sizeof *seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen);
    put_ordered(s);
    seen->with_values = true;
    CU_ASSERT_EQUAL(record_list(s, "files/", NULL, 0, true, see_record, seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen->count, ORDERED);
    CU_ASSERT_FALSE(seen->values_wrong);
    *seen = (struct records_seen){.with_values = true, .stop_at = 4};
    CU_ASSERT_EQUAL(record_list(s, "files/", NULL, 0, true, see_record, seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen->count, 4);
    free(seen);
    blob_store_close(s);
}

void contract_record_list_removing(void)
{
    struct blob_store *s = blob_contract_start();
    struct records_seen *seen = calloc(1, sizeof *seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen);
    put_ordered(s);
    *seen = (struct records_seen){.store = s, .remove = true};
    CU_ASSERT_EQUAL(record_list(s, "files/", NULL, 0, false, see_record, seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen->count, ORDERED);
    *seen = (struct records_seen){.store = s};
    CU_ASSERT_EQUAL(record_list(s, "files/", NULL, 0, false, see_record, seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen->count, 0);
    free(seen);
    blob_store_close(s);
}

void contract_record_lazy(void)
{
    struct blob_store *s = blob_contract_start();
    CU_ASSERT_EQUAL(put(s, "files/a/1", "one", BLOB_LAZY), BLOB_OK);
    CU_ASSERT_TRUE(holds(s, "files/a/1", "one"));
    CU_ASSERT_EQUAL(put(s, "files/a/1", "two", BLOB_LAZY), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/1", "three", BLOB_LAZY), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/2", "x", BLOB_LAZY), BLOB_OK);
    CU_ASSERT_EQUAL(record_delete(s, "files/a/2", BLOB_LAZY, NULL), BLOB_OK);
    CU_ASSERT_TRUE(absent(s, "files/a/2"));
    CU_ASSERT_TRUE(holds(s, "files/a/1", "three"));
    CU_ASSERT_EQUAL(put(s, "files/a/3", "y", BLOB_LAZY), BLOB_OK);
    CU_ASSERT_EQUAL(record_delete(s, "files/a/1", BLOB_LAZY, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(put(s, "files/a/4", "z", BLOB_LAZY), BLOB_OK);
    if (blob_contract()->persists) {
        blob_store_close(s);
        s = blob_contract_open();
    }
    CU_ASSERT_TRUE(absent(s, "files/a/1"));
    CU_ASSERT_TRUE(holds(s, "files/a/3", "y"));
    CU_ASSERT_TRUE(holds(s, "files/a/4", "z"));
    blob_store_close(s);
}

/* ---- threads ---- */

#define RACERS 6

struct racer {
    struct blob_store *store;
    unsigned number, rounds, won, failures;
    pthread_barrier_t *barrier;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    for (unsigned i = 0; i < r->rounds; i++) {
        char key[40], value[20];
        snprintf(key, sizeof key, "done/%u", i);
        snprintf(value, sizeof value, "%u", r->number);
        pthread_barrier_wait(r->barrier);
        enum blob_status st = put(r->store, key, value, BLOB_IF_NONE);
        if (st == BLOB_OK) {
            r->won++;
            r->failures += !holds(r->store, key, value);
        } else {
            r->failures += st != BLOB_E_EXISTS || absent(r->store, key);
        }
    }
    return NULL;
}

/* Starts one thread a racer, on two nodes where the store can be shared; what they won together. */
static unsigned run_racers(struct blob_store *s, void *(*run)(void *), unsigned rounds)
{
    struct blob_store *other = s->caps & STORE_SHARED ? blob_contract_open() : s;
    struct racer racers[RACERS];
    pthread_t threads[RACERS];
    pthread_barrier_t barrier;
    unsigned won = 0;
    pthread_barrier_init(&barrier, NULL, RACERS);
    for (unsigned i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){.store = i % 2 ? other : s, .number = i, .rounds = rounds, .barrier = &barrier};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, run, &racers[i]), 0);
    }
    for (unsigned i = 0; i < RACERS; i++) {
        pthread_join(threads[i], NULL);
        won += racers[i].won;
        CU_ASSERT_EQUAL(racers[i].failures, 0);
    }
    pthread_barrier_destroy(&barrier);
    if (other != s)
        blob_store_close(other);
    return won;
}

void contract_record_if_none_race(void)
{
    struct blob_store *s = blob_contract_start();
    unsigned rounds = blob_contract()->slow ? 5 : 40;
    CU_ASSERT_EQUAL(run_racers(s, race, rounds), rounds);
    blob_store_close(s);
}

/* All write and read the same key; a value is one letter many times. */
static void *write_and_read(void *arg)
{
    struct racer *r = arg;
    char value[6000];
    struct bytebuf b;
    bytebuf_init(&b);
    for (unsigned i = 0; i < r->rounds; i++) {
        size_t len = 1 + (i * 977 + r->number * 1511) % (sizeof value - 1);
        memset(value, (int)('a' + r->number), len);
        r->failures += record_put(r->store, "files/a/1", value, len, i % 2 ? BLOB_LAZY : 0, NULL) != BLOB_OK;
        bytebuf_clear(&b);
        r->failures += record_get(r->store, "files/a/1", &b, NULL) != BLOB_OK || b.len == 0;
        for (size_t k = 1; k < b.len; k++)
            r->failures += b.data[k] != b.data[0];
    }
    bytebuf_release(&b);
    return NULL;
}

void contract_record_whole(void)
{
    struct blob_store *s = blob_contract_start();
    run_racers(s, write_and_read, blob_contract()->slow ? 10 : 100);
    blob_store_close(s);
}

static void *put_many(void *arg)
{
    struct racer *r = arg;
    for (unsigned i = 0; i < r->rounds; i++) {
        char key[60];
        snprintf(key, sizeof key, "files/%02x%u/%u", i * 37 % 256, r->number, i);
        r->failures += put(r->store, key, key, i % 5 ? BLOB_LAZY : 0) != BLOB_OK;
        if (i % 3 == 0)
            r->failures += record_delete(r->store, key, i % 2 ? BLOB_LAZY : 0, NULL) != BLOB_OK;
    }
    return NULL;
}

struct count {
    char last[RECORD_KEY_MAX + 1];
    unsigned count, wrong;
};

static bool count_record(const char *key, const void *value, size_t len, void *arg)
{
    struct count *c = arg;
    c->wrong += strcmp(key, c->last) <= 0 || len != strlen(key) || memcmp(value, key, len) != 0;
    snprintf(c->last, sizeof c->last, "%s", key);
    c->count++;
    return true;
}

void contract_record_many(void)
{
    struct blob_store *s = blob_contract_start();
    unsigned rounds = blob_contract()->slow ? 12 : 150;
    run_racers(s, put_many, rounds);
    struct count c = {.last = ""};
    CU_ASSERT_EQUAL(record_list(s, "files/", NULL, 0, true, count_record, &c, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(c.count, RACERS * (rounds - (rounds + 2) / 3));
    CU_ASSERT_EQUAL(c.wrong, 0);
    blob_store_close(s);
}
