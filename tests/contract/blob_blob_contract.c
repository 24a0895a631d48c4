/* blob_blob_contract - the promises about finished content. */
#include "core/check.h"
#include "core/clock.h"
#include "tests/contract/blob_contract_parts.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Time between two touches that every store can tell apart. */
static void let_time_pass(void)
{
    blob_contract_sleep_ms(blob_contract()->slow ? 1100 : 20);
}

static enum blob_status stat_of(struct blob_store *s, const struct digest *digest, struct blob_info *info)
{
    *info = (struct blob_info){0};
    return blob_stat(s, digest, info, NULL);
}

void contract_blob_missing(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info info;
    struct blob_reader *r = NULL;
    content_digest(77, 77, &digest);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_open(s, &digest, &r, &info, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_PTR_NULL(r);
    CU_ASSERT_EQUAL(blob_touch(s, &digest, NULL, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, INT64_MAX, NULL), BLOB_OK);
    blob_store_close(s);
}

void contract_blob_ranges(void)
{
    enum { SIZE = 200000 };
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info;
    char *want = malloc(SIZE), *got = malloc(SIZE);
    CU_ASSERT_TRUE_FATAL(want && got);
    content_fill(want, SIZE, 0, 8);
    CU_ASSERT_EQUAL(content_store(s, SIZE, 8, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(blob_open(s, &digest, &r, &info, NULL), BLOB_OK);
    static const size_t ranges[][2] = {{0, 1},         {0, SIZE}, {SIZE - 1, 1}, {1, SIZE - 2},
                                       {65535, 65537}, {SIZE, 0}, {0, 0},        {123456, 7}};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        memset(got, 0, SIZE);
        CU_ASSERT_EQUAL(reader_read(r, ranges[i][0], got, ranges[i][1], NULL), BLOB_OK);
        CU_ASSERT_EQUAL(memcmp(got, want + ranges[i][0], ranges[i][1]), 0);
    }
    reader_close(r);
    free(want);
    free(got);
    blob_store_close(s);
}

/* The next len bytes of a cursor are those of want; len is cut where the cursor ends. */
static void read_on(struct blob_cursor *c, const char *want, char *got, size_t len)
{
    uint64_t at = c->at, left = c->end - at;
    size_t n = left < len ? (size_t)left : len;
    memset(got, 0, n);
    CU_ASSERT_EQUAL(cursor_read(c, got, n, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(c->at, at + n);
    CU_ASSERT_EQUAL(memcmp(got, want + at, n), 0);
}

void contract_blob_cursors(void)
{
    enum { SIZE = 2500000, PIECE = 262144 };
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info;
    struct blob_cursor whole, part, none;
    char *want = malloc(SIZE), *got = malloc(SIZE);
    CU_ASSERT_TRUE_FATAL(want && got);
    content_fill(want, SIZE, 0, 9);
    CU_ASSERT_EQUAL(content_store(s, SIZE, 9, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(blob_open(s, &digest, &r, &info, NULL), BLOB_OK);
    cursor_begin(&whole, r, 0, SIZE);
    cursor_begin(&part, r, 777777, 1234567);
    while (whole.at < whole.end) {
        read_on(&whole, want, got, PIECE);
        read_on(&part, want, got, 1 + PIECE / 3);
        if (whole.at < SIZE / 2)
            CU_ASSERT_EQUAL(reader_read(r, 5, got, 5, NULL), BLOB_OK); /* disturbs neither */
    }
    read_on(&whole, want, got, PIECE); /* nothing any more */
    cursor_end(&whole);
    cursor_end(&part); /* in its middle */
    cursor_begin(&whole, r, 0, SIZE);
    read_on(&whole, want, got, SIZE); /* all at once */
    cursor_end(&whole);
    cursor_begin(&none, r, SIZE, 0);
    read_on(&none, want, got, 0);
    cursor_end(&none);
    cursor_end(&none); /* an ended one is of zeros */
    reader_close(r);
    free(want);
    free(got);
    blob_store_close(s);
}

void contract_blob_fd(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info;
    char want[1000], got[1000];
    CU_ASSERT_EQUAL(content_store(s, sizeof want, 8, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(blob_open(s, &digest, &r, &info, NULL), BLOB_OK);
    int fd = reader_fd(r);
    CU_ASSERT_EQUAL(fd >= 0, (s->caps & STORE_HAS_FD) != 0);
    if (fd >= 0) {
        content_fill(want, sizeof want, 0, 8);
        CU_ASSERT_EQUAL(pread(fd, got, sizeof got, 0), (ssize_t)sizeof got);
        CU_ASSERT_EQUAL(memcmp(got, want, sizeof got), 0);
    }
    reader_close(r);
    blob_store_close(s);
}

static bool count_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    (void)digest;
    (void)info;
    ++*(unsigned *)arg;
    return true;
}

void contract_blob_dedupe(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info first, second;
    unsigned count = 0;
    CU_ASSERT_EQUAL(content_store(s, 30000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &first), BLOB_OK);
    let_time_pass();
    CU_ASSERT_EQUAL(content_store(s, 30000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &second), BLOB_OK);
    CU_ASSERT_TRUE(second.touched_ms > first.touched_ms);
    CU_ASSERT_EQUAL(blob_list(s, NULL, count_blob, &count, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 1);
    CU_ASSERT_TRUE(content_intact(s, 30000, 1));
    blob_store_close(s);
}

void contract_blob_heals(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    if (blob_contract()->damage) {
        CU_ASSERT_EQUAL(content_store(s, 30000, 1, 0, &digest), BLOB_OK);
        blob_contract()->damage(&digest);
        CU_ASSERT_FALSE(content_intact(s, 30000, 1));
        CU_ASSERT_EQUAL(content_store(s, 30000, 1, 0, &digest), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, 30000, 1));
    }
    blob_store_close(s);
}

/* Damage of the same size, that nobody has noticed yet: the upload that brings the right bytes heals it. */
void contract_blob_heals_unnoticed(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info before, after;
    if (blob_contract()->corrupt) {
        unsigned count = 0;
        CU_ASSERT_EQUAL(content_store(s, 30000, 1, 0, &digest), BLOB_OK);
        blob_contract()->corrupt(&digest);
        CU_ASSERT_EQUAL(stat_of(s, &digest, &before), BLOB_OK);
        CU_ASSERT_EQUAL(before.size, 30000);
        CU_ASSERT_FALSE(content_intact(s, 30000, 1));
        CU_ASSERT_EQUAL(content_store(s, 30000, 1, 0, &digest), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, 30000, 1));
        CU_ASSERT_EQUAL(stat_of(s, &digest, &after), BLOB_OK);
        CU_ASSERT_TRUE(after.touched_ms > before.touched_ms);
        CU_ASSERT_EQUAL(blob_list(s, NULL, count_blob, &count, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(count, 1);
    }
    blob_store_close(s);
}

/* Once it is noticed, of any size; also when the store is opened again in between, or afterwards. */
void contract_blob_heals_noticed(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info info;
    for (unsigned round = 0; blob_contract()->corrupt && round < 3; round++) {
        CU_ASSERT_EQUAL(content_store(s, 1500000, 2, 0, &digest), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, 1500000, 2));
        blob_contract()->corrupt(&digest);
        CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
        CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms, NULL), BLOB_OK);
        if (round == 1 && blob_contract()->persists) {
            blob_store_close(s);
            s = blob_contract_open();
        }
        CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_E_NOT_FOUND);
        CU_ASSERT_EQUAL(content_store(s, 1500000, 2, round == 2 ? BLOB_LAZY : 0, &digest), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, 1500000, 2));
    }
    if (blob_contract()->corrupt && blob_contract()->persists) {
        blob_store_close(s);
        s = blob_contract_open();
        CU_ASSERT_TRUE(content_intact(s, 1500000, 2));
    }
    blob_store_close(s);
}

void contract_blob_set_aside(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest, other;
    struct blob_info info, later;
    unsigned count = 0;
    CU_ASSERT_EQUAL(blob_set_aside(s, &(struct digest){{7}}, 1, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(content_store(s, 3000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(content_store(s, 3000, 2, 0, &other), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
    /* What was read may have been another's: touched, or committed, since. */
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms - 1, NULL), BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms + 1, NULL), BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(blob_touch(s, &digest, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms, NULL), BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
    CU_ASSERT_EQUAL(content_store(s, 3000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms, NULL), BLOB_E_CONFLICT);
    CU_ASSERT_TRUE(content_intact(s, 3000, 1));
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &later), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_touch(s, &digest, NULL, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, INT64_MAX, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_list(s, NULL, count_blob, &count, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 1);
    CU_ASSERT_TRUE(content_intact(s, 3000, 2));
    blob_store_close(s);
}

void contract_blob_set_aside_open(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info;
    char want[3000], got[3000];
    content_fill(want, sizeof want, 0, 1);
    CU_ASSERT_EQUAL(content_store(s, sizeof want, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(blob_open(s, &digest, &r, &info, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_set_aside(s, &digest, info.touched_ms, NULL), BLOB_OK);
    if (reader_read(r, 0, got, sizeof got, NULL) == BLOB_OK)
        CU_ASSERT_EQUAL(memcmp(got, want, sizeof got), 0);
    CU_ASSERT_EQUAL(content_store(s, sizeof want, 1, 0, &digest), BLOB_OK);
    if (reader_read(r, 0, got, sizeof got, NULL) == BLOB_OK)
        CU_ASSERT_EQUAL(memcmp(got, want, sizeof got), 0);
    reader_close(r);
    CU_ASSERT_TRUE(content_intact(s, sizeof want, 1));
    blob_store_close(s);
}

/* Whoever set aside what was damaged then has no hold on what came since, on any node. */
void contract_blob_set_aside_again(void)
{
    struct blob_store *s = blob_contract_start();
    struct blob_store *other = s->caps & STORE_SHARED ? blob_contract_open() : s;
    struct digest digest;
    struct blob_info info;
    int64_t last_ms = 0;
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(content_store(s, 3000, 1, 0, &digest), BLOB_OK);
        CU_ASSERT_EQUAL(stat_of(other, &digest, &info), BLOB_OK);
        if (last_ms > 0 && last_ms != info.touched_ms)
            CU_ASSERT_EQUAL(blob_set_aside(other, &digest, last_ms, NULL), BLOB_E_CONFLICT);
        CU_ASSERT_TRUE(content_intact(other, 3000, 1));
        CU_ASSERT_EQUAL(blob_set_aside(other, &digest, info.touched_ms, NULL), BLOB_OK);
        last_ms = info.touched_ms;
        CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_E_NOT_FOUND);
        blob_contract_sleep_ms(2);
    }
    CU_ASSERT_EQUAL(blob_store_sweep(s, clock_wall_ms() + 3600000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_store(other, 3000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 3000, 1));
    if (other != s)
        blob_store_close(other);
    blob_store_close(s);
}

void contract_blob_touch(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info first, second;
    CU_ASSERT_EQUAL(content_store(s, 100, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &first), BLOB_OK);
    let_time_pass();
    CU_ASSERT_EQUAL(blob_touch(s, &digest, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &second), BLOB_OK);
    CU_ASSERT_TRUE(second.touched_ms > first.touched_ms);
    CU_ASSERT_EQUAL(second.size, 100);
    CU_ASSERT_TRUE(content_intact(s, 100, 1));
    blob_store_close(s);
}

/* Each touch and each commit gives a time that nothing had before, also within one millisecond. */
void contract_blob_touch_tells(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info info;
    int64_t last_ms = 0, touched_ms = -1;
    CU_ASSERT_EQUAL(blob_touch(s, &(struct digest){{7}}, &touched_ms, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(touched_ms, -1);
    CU_ASSERT_EQUAL(content_store(s, 100, 1, 0, &digest), BLOB_OK);
    for (int i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(blob_touch(s, &digest, &touched_ms, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
        CU_ASSERT_EQUAL(info.touched_ms, touched_ms);
        CU_ASSERT_TRUE(touched_ms > last_ms);
        last_ms = touched_ms;
        CU_ASSERT_EQUAL(i % 2 ? blob_touch(s, &digest, NULL, NULL) : content_store(s, 100, 1, 0, &digest), BLOB_OK);
        CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
        CU_ASSERT_TRUE(info.touched_ms > touched_ms);
        last_ms = info.touched_ms;
    }
    blob_store_close(s);
}

void contract_blob_remove(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_info info;
    CU_ASSERT_EQUAL(content_store(s, 3000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, info.touched_ms, NULL), BLOB_E_CONFLICT);
    CU_ASSERT_TRUE(content_intact(s, 3000, 1));
    let_time_pass();
    CU_ASSERT_EQUAL(blob_touch(s, &digest, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, info.touched_ms + 1, NULL), BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_OK);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, info.touched_ms + 1, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, INT64_MAX, NULL), BLOB_OK);
    /* And it can come again. */
    CU_ASSERT_EQUAL(content_store(s, 3000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 3000, 1));
    blob_store_close(s);
}

void contract_blob_remove_open(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info;
    char want[3000], got[3000];
    content_fill(want, sizeof want, 0, 1);
    CU_ASSERT_EQUAL(content_store(s, sizeof want, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(blob_open(s, &digest, &r, &info, NULL), BLOB_OK);
    enum blob_status removed = blob_remove(s, &digest, INT64_MAX, NULL);
    CU_ASSERT_TRUE(removed == BLOB_OK || removed == BLOB_E_CONFLICT);
    enum blob_status read = reader_read(r, 0, got, sizeof got, NULL);
    CU_ASSERT_TRUE(read == BLOB_OK || removed == BLOB_OK);
    if (read == BLOB_OK)
        CU_ASSERT_EQUAL(memcmp(got, want, sizeof got), 0);
    reader_close(r);
    CU_ASSERT_EQUAL(blob_remove(s, &digest, INT64_MAX, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(stat_of(s, &digest, &info), BLOB_E_NOT_FOUND);
    blob_store_close(s);
}

/* ---- listing ---- */

#define LISTED 40

struct blobs_seen {
    struct blob_store *store;
    struct digest digests[LISTED + 1];
    unsigned count, stop_at;
    bool in_order, remove;
};

static bool see_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    struct blobs_seen *seen = arg;
    CHECK(seen->count <= LISTED);
    if (seen->count > 0 && memcmp(digest->bytes, seen->digests[seen->count - 1].bytes, DIGEST_BYTES) <= 0)
        seen->in_order = false;
    CU_ASSERT_TRUE(info->size >= 1000 && info->size < 1000 + LISTED);
    CU_ASSERT_TRUE(info->touched_ms > 0);
    seen->digests[seen->count++] = *digest;
    if (seen->remove)
        CU_ASSERT_EQUAL(blob_remove(seen->store, digest, INT64_MAX, NULL), BLOB_OK);
    return seen->count != seen->stop_at;
}

static void list_blobs(struct blob_store *s, const struct digest *after, unsigned stop_at, bool remove,
                       struct blobs_seen *seen)
{
    *seen = (struct blobs_seen){.store = s, .stop_at = stop_at, .in_order = true, .remove = remove};
    CU_ASSERT_EQUAL(blob_list(s, after, see_blob, seen, NULL), BLOB_OK);
    CU_ASSERT_TRUE(seen->in_order);
}

static void store_listed(struct blob_store *s)
{
    for (unsigned i = 0; i < LISTED; i++) {
        struct digest digest;
        CU_ASSERT_EQUAL(content_store(s, 1000 + i, i, i % 2 ? BLOB_LAZY : 0, &digest), BLOB_OK);
    }
}

void contract_blob_list(void)
{
    struct blob_store *s = blob_contract_start();
    struct blobs_seen all, some;
    list_blobs(s, NULL, 0, false, &all);
    CU_ASSERT_EQUAL(all.count, 0);
    store_listed(s);
    list_blobs(s, NULL, 0, false, &all);
    CU_ASSERT_EQUAL(all.count, LISTED);
    for (unsigned i = 0; i < LISTED; i += 7) {
        list_blobs(s, &all.digests[i], 0, false, &some);
        CU_ASSERT_EQUAL(some.count, LISTED - 1 - i);
        if (i + 1 < LISTED)
            CU_ASSERT_TRUE(digest_equal(&some.digests[0], &all.digests[i + 1]));
    }
    /* After a digest that is not there. */
    struct digest between = all.digests[9];
    between.bytes[DIGEST_BYTES - 1]++;
    list_blobs(s, &between, 0, false, &some);
    CU_ASSERT_TRUE(some.count >= LISTED - 11 && some.count <= LISTED - 9);
    list_blobs(s, NULL, 3, false, &some);
    CU_ASSERT_EQUAL(some.count, 3);
    CU_ASSERT_TRUE(digest_equal(&some.digests[2], &all.digests[2]));
    blob_store_close(s);
}

void contract_blob_list_removing(void)
{
    struct blob_store *s = blob_contract_start();
    struct blobs_seen seen;
    store_listed(s);
    list_blobs(s, NULL, 0, true, &seen);
    CU_ASSERT_EQUAL(seen.count, LISTED);
    list_blobs(s, NULL, 0, false, &seen);
    CU_ASSERT_EQUAL(seen.count, 0);
    blob_store_close(s);
}

/* ---- beside each other ---- */

struct remover {
    struct blob_store *store;
    struct digest digest;
    _Atomic int64_t before_ms;
    atomic_bool stop;
    unsigned removed, failures;
};

static void *remove_on(void *arg)
{
    struct remover *r = arg;
    while (!atomic_load(&r->stop)) {
        enum blob_status st = blob_remove(r->store, &r->digest, atomic_load(&r->before_ms), NULL);
        r->failures += st != BLOB_OK && st != BLOB_E_CONFLICT;
    }
    return NULL;
}

/* The sweeper only ever asks with a time before the commit began; so what the commit reports must stay. */
void contract_blob_commit_beside_remove(void)
{
    struct blob_store *s = blob_contract_start();
    struct blob_store *other = s->caps & STORE_SHARED ? blob_contract_open() : s;
    struct remover r = {.store = other};
    pthread_t thread;
    content_digest(2000, 3, &r.digest);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, remove_on, &r), 0);
    unsigned lost = 0, rounds = blob_contract()->slow ? 10 : 150;
    for (unsigned i = 0; i < rounds; i++) {
        struct digest digest;
        blob_contract_sleep_ms(2);
        atomic_store(&r.before_ms, clock_wall_ms() - (blob_contract()->slow ? 2000 : 0));
        CU_ASSERT_EQUAL(content_store(s, 2000, 3, 0, &digest), BLOB_OK);
        lost += !content_intact(s, 2000, 3);
    }
    atomic_store(&r.stop, true);
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(lost, 0);
    CU_ASSERT_EQUAL(r.failures, 0);
    if (other != s)
        blob_store_close(other);
    blob_store_close(s);
}

void contract_blob_nodes(void)
{
    struct blob_store *s = blob_contract_start();
    if (s->caps & STORE_SHARED) {
        struct blob_store *other = blob_contract_open();
        struct digest digest;
        struct bytebuf b;
        bytebuf_init(&b);
        CU_ASSERT_STRING_EQUAL(s->store_id, other->store_id);
        CU_ASSERT_EQUAL(content_store(s, 4000, 3, BLOB_LAZY, &digest), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(other, 4000, 3));
        CU_ASSERT_EQUAL(record_put(other, "files/x/1", "value", 5, BLOB_LAZY, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(record_get(s, "files/x/1", &b, NULL), BLOB_OK);
        CU_ASSERT_STRING_EQUAL(b.data, "value");
        bytebuf_release(&b);
        blob_store_close(other);
    }
    blob_store_close(s);
}

void contract_blob_lazy(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest small, large;
    CU_ASSERT_EQUAL(content_store(s, 4000, 3, BLOB_LAZY, &small), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 4000, 3));
    CU_ASSERT_EQUAL(content_store(s, 1500000, 4, BLOB_LAZY, &large), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 1500000, 4));
    CU_ASSERT_EQUAL(content_store(s, 5000, 5, BLOB_LAZY, &small), BLOB_OK);
    CU_ASSERT_EQUAL(record_put(s, "files/x/1", "value", 5, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 5000, 5));
    CU_ASSERT_EQUAL(content_store(s, 6000, 6, BLOB_LAZY, &small), BLOB_OK);
    if (blob_contract()->persists) {
        blob_store_close(s);
        s = blob_contract_open();
        CU_ASSERT_TRUE(content_intact(s, 4000, 3));
        CU_ASSERT_TRUE(content_intact(s, 1500000, 4));
        CU_ASSERT_TRUE(content_intact(s, 5000, 5));
        CU_ASSERT_TRUE(content_intact(s, 6000, 6));
    }
    blob_store_close(s);
}
