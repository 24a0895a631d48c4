/* blob_upload_contract - the promises about staged uploads. */
#include "core/check.h"
#include "core/clock.h"
#include "core/fault.h"
#include "tests/contract/blob_contract_parts.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1u << 20)

static const struct upload_mark from_start = {0};

void contract_upload_whole(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0};
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 16384, 5000, 7), BLOB_OK);
    CU_ASSERT_EQUAL(w->position, 16384);
    CU_ASSERT_EQUAL(writer_flush(w, 16384, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(mark.offset, 16384);
    content_digest(16384, 7, &digest);
    CU_ASSERT_FALSE(content_intact(s, 16384, 7));
    int64_t before_ms = clock_wall_ms();
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 16384, 7));
    CU_ASSERT_TRUE(upload_gone(s, &id));
    struct blob_info info = {0};
    CU_ASSERT_EQUAL(blob_stat(s, &digest, &info, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(info.size, 16384);
    /* A store's clock may be another machine's, and may count in seconds. */
    CU_ASSERT_TRUE(info.touched_ms > before_ms - 5000 && info.touched_ms < before_ms + 60000);
    blob_store_close(s);
}

void contract_upload_sizes(void)
{
    static const struct {
        uint64_t size;
        size_t piece;
        bool large;
    } cases[] = {
        {1, 1, false},           {4095, 100, false},       {4096, 4096, false},
        {65537, 65536, false},   {131071, 9999, false},    {131072, 8192, false},
        {131073, 131073, false}, {MIB + 1, 33333, false},  {5 * MIB - 1, MIB, true},
        {5 * MIB, 65536, true},  {5 * MIB + 1, MIB, true}, {17 * MIB + 3, 3 * MIB, true},
    };
    struct blob_store *s = blob_contract_start();
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct uuid id;
        struct digest digest;
        uuid_new(&id);
        struct blob_writer *w = writer_at(s, &id, &from_start, 1);
        CU_ASSERT_EQUAL(content_write(w, cases[i].size, cases[i].piece, i), BLOB_OK);
        content_digest(cases[i].size, i, &digest);
        CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, cases[i].size, i));
    }
    blob_store_close(s);
}

void contract_upload_empty(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    CU_ASSERT_EQUAL(content_store(s, 0, 0, 0, &digest), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 0, 0));
    CU_ASSERT_EQUAL(content_store(s, 0, 0, 0, &digest), BLOB_OK);
    /* A flush of nothing is fine too. */
    struct uuid id;
    struct upload_mark mark = {.offset = 99};
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(writer_flush(w, 0, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(mark.offset, 0);
    writer_close(w);
    CU_ASSERT_EQUAL(staged_discard(s, &id, &mark, NULL), BLOB_OK);
    blob_store_close(s);
}

void contract_upload_resume(void)
{
    static const uint64_t ends[] = {1, 10, 5000, 70000, 70001, 400000, 500000};
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0};
    uuid_new(&id);
    for (unsigned i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        struct blob_writer *w = writer_at(s, &id, &mark, i + 1);
        CU_ASSERT_EQUAL(content_write(w, ends[i], 4000, 3), BLOB_OK);
        CU_ASSERT_EQUAL(writer_flush(w, ends[i], NULL, 0, i % 2 ? BLOB_LAZY : 0, &mark, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(mark.offset, ends[i]);
        writer_close(w);
    }
    struct blob_writer *w = writer_at(s, &id, &mark, 20);
    CU_ASSERT_EQUAL(content_write(w, 500100, 4000, 3), BLOB_OK);
    content_digest(500100, 3, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 500100, 3));
    blob_store_close(s);
}

/* Writes seed 1, flushes at each of two offsets, goes back to the first and goes on with other bytes. */
static void rollback_at(struct blob_store *s, uint64_t keep, uint64_t drop)
{
    struct uuid id;
    struct digest digest;
    struct upload_mark first = {0}, second = {0};
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, keep, 50000, 1), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, keep, NULL, 0, 0, &first, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, drop, 50000, 99), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, drop, NULL, 0, 0, &second, NULL), BLOB_OK);
    writer_close(w);
    w = writer_at(s, &id, &first, 2);
    CU_ASSERT_EQUAL(content_write(w, keep + 1000, 50000, 1), BLOB_OK);
    content_digest(keep + 1000, 1, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, keep + 1000, 1));
    CU_ASSERT_EQUAL(blob_remove(s, &digest, INT64_MAX, NULL), BLOB_OK);
}

void contract_upload_rollback(void)
{
    struct blob_store *s = blob_contract_start();
    rollback_at(s, 0, 5000);
    rollback_at(s, 5 * MIB, 6 * MIB); /* where a part ends */
    rollback_at(s, 3000, 5000);
    rollback_at(s, 200000, 200001);
    rollback_at(s, 200000, 700000);
    if (!blob_contract()->slow)
        rollback_at(s, 9 * MIB, 17 * MIB);
    blob_store_close(s);
}

void contract_upload_part_flushed(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0};
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 10000, 10000, 4), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 6000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(mark.offset, 6000);
    writer_close(w);
    w = writer_at(s, &id, &mark, 2);
    CU_ASSERT_EQUAL(content_write(w, 8000, 10000, 4), BLOB_OK);
    content_digest(8000, 4, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 8000, 4));
    blob_store_close(s);
}

void contract_upload_beyond(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct upload_mark mark = {0};
    struct blob_writer *none = NULL;
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 1000, 1000, 4), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 1000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    CU_ASSERT_EQUAL(staged_discard(s, &id, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(staged_open(s, &id, &mark, 2, &none, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_PTR_NULL(none);
    blob_store_close(s);
}

void contract_upload_unflushed(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0};
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 3000, 3000, 5), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 3000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, 300000, 3000, 5), BLOB_OK);
    writer_close(w);
    w = writer_at(s, &id, &mark, 2);
    content_digest(3000, 5, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 3000, 5));
    blob_store_close(s);
}

void contract_upload_keep(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct upload_mark mark = {0};
    uint8_t keep[UPLOAD_KEEP_MAX];
    memset(keep, 0xa7, sizeof keep);
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 100, 100, 5), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 100, "one", 3, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, 200, 100, 5), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 200, keep, sizeof keep, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    struct staged_stat stat;
    CU_ASSERT_EQUAL(staged_stat(s, &id, &stat, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(stat.mark.offset, 200);
    if (s->caps & STORE_KEEPS_STATE)
        CU_ASSERT_TRUE(stat.keep_len == sizeof keep && memcmp(stat.keep, keep, sizeof keep) == 0);
    if (!(s->caps & STORE_KEEPS_STATE))
        CU_ASSERT_EQUAL(stat.keep_len, 0);
    blob_store_close(s);
}

void contract_upload_stat(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0};
    struct staged_stat stat;
    uuid_new(&id);
    CU_ASSERT_TRUE(upload_gone(s, &id));
    int64_t before_ms = clock_wall_ms();
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 150000, 40000, 6), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 150000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    CU_ASSERT_EQUAL(staged_stat(s, &id, &stat, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(stat.mark.offset, 150000);
    CU_ASSERT_TRUE(stat.modified_ms > before_ms - 5000 && stat.modified_ms < before_ms + 60000);
    /* Its mark goes on, without the one that the flush gave. */
    w = writer_at(s, &id, &stat.mark, 2);
    CU_ASSERT_EQUAL(content_write(w, 150500, 40000, 6), BLOB_OK);
    content_digest(150500, 6, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 150500, 6));
    blob_store_close(s);
}

void contract_upload_read(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct upload_mark mark = {0};
    char got_bytes[5000], want[5000];
    size_t got = 0;
    if (!(s->caps & STORE_READ_STAGED)) {
        blob_store_close(s);
        return;
    }
    uuid_new(&id);
    CU_ASSERT_EQUAL(staged_read(s, &id, 0, got_bytes, 10, &got, NULL), BLOB_E_NOT_FOUND);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 4000, 4000, 6), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 4000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    content_fill(want, 4000, 0, 6);
    CU_ASSERT_EQUAL(staged_read(s, &id, 0, got_bytes, 4000, &got, NULL), BLOB_OK);
    CU_ASSERT_TRUE(got == 4000 && memcmp(got_bytes, want, 4000) == 0);
    CU_ASSERT_EQUAL(staged_read(s, &id, 3990, got_bytes, 100, &got, NULL), BLOB_OK);
    CU_ASSERT_TRUE(got == 10 && memcmp(got_bytes, want + 3990, 10) == 0);
    CU_ASSERT_EQUAL(staged_read(s, &id, 4000, got_bytes, 100, &got, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(got, 0);
    CU_ASSERT_EQUAL(staged_read(s, &id, 9000, got_bytes, 100, &got, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(got, 0);
    writer_close(w);
    blob_store_close(s);
}

void contract_upload_discard(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct upload_mark mark = {0};
    uuid_new(&id);
    CU_ASSERT_EQUAL(staged_discard(s, &id, NULL, NULL), BLOB_OK);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 400000, 70000, 6), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 400000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    CU_ASSERT_FALSE(upload_gone(s, &id));
    CU_ASSERT_EQUAL(staged_discard(s, &id, &mark, NULL), BLOB_OK);
    CU_ASSERT_TRUE(upload_gone(s, &id));
    CU_ASSERT_EQUAL(staged_discard(s, &id, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(staged_discard(s, &id, NULL, NULL), BLOB_OK);
    blob_store_close(s);
}

void contract_upload_discard_under_writer(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0};
    struct blob_info info;
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 1000, 1000, 6), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 1000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(staged_discard(s, &id, &mark, NULL), BLOB_OK);
    content_digest(1000, 6, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_stat(s, &digest, &info, NULL), BLOB_E_NOT_FOUND);
    writer_close(w);
    CU_ASSERT_TRUE(upload_gone(s, &id));
    blob_store_close(s);
}

struct upload_seen {
    struct blob_store *store;
    unsigned count, stop_at;
    uint64_t bytes;
    bool discard;
};

static bool see_upload(const struct uuid *id, uint64_t bytes, int64_t modified_ms, void *arg)
{
    struct upload_seen *seen = arg;
    seen->count++;
    seen->bytes += bytes;
    CU_ASSERT_TRUE(modified_ms > 0);
    if (seen->discard)
        CU_ASSERT_EQUAL(staged_discard(seen->store, id, NULL, NULL), BLOB_OK);
    return seen->count != seen->stop_at;
}

void contract_upload_list(void)
{
    struct blob_store *s = blob_contract_start();
    struct upload_seen seen = {.store = s};
    CU_ASSERT_EQUAL(staged_list(s, see_upload, &seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen.count, 0);
    for (unsigned i = 1; i <= 5; i++) {
        struct uuid id;
        struct upload_mark mark;
        uuid_new(&id);
        struct blob_writer *w = writer_at(s, &id, &from_start, 1);
        CU_ASSERT_EQUAL(content_write(w, 1000 * i, 1000, i), BLOB_OK);
        CU_ASSERT_EQUAL(writer_flush(w, 1000 * i, NULL, 0, 0, &mark, NULL), BLOB_OK);
        writer_close(w);
    }
    CU_ASSERT_EQUAL(staged_list(s, see_upload, &seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen.count, 5);
    CU_ASSERT_EQUAL(seen.bytes, 15000);
    seen = (struct upload_seen){.store = s, .stop_at = 2};
    CU_ASSERT_EQUAL(staged_list(s, see_upload, &seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen.count, 2);
    seen = (struct upload_seen){.store = s, .discard = true};
    CU_ASSERT_EQUAL(staged_list(s, see_upload, &seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen.count, 5);
    seen = (struct upload_seen){.store = s};
    CU_ASSERT_EQUAL(staged_list(s, see_upload, &seen, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(seen.count, 0);
    blob_store_close(s);
}

void contract_upload_commit_again(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    struct digest digest;
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 2000, 2000, 6), BLOB_OK);
    content_digest(2000, 6, &digest);
    fault_arm("store.commit", EIO, 0, 1);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_E_IO);
    fault_arm("store.write", ENOSPC, 0, 1);
    CU_ASSERT_EQUAL(writer_write_bytes(w, "x", 1, NULL), BLOB_E_NO_SPACE);
    fault_disarm_all();
    CU_ASSERT_EQUAL(w->position, 2000);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 2000, 6));
    blob_store_close(s);
}

/* ---- threads ---- */

struct flusher {
    struct blob_writer *w;
    atomic_bool stop;
    unsigned failures;
    struct upload_mark mark;
};

static void *flush_on(void *arg)
{
    struct flusher *f = arg;
    while (!atomic_load(&f->stop)) {
        uint64_t offset = __atomic_load_n(&f->w->position, __ATOMIC_ACQUIRE);
        f->failures += writer_flush(f->w, offset, NULL, 0, 0, &f->mark, NULL) != BLOB_OK || f->mark.offset != offset;
    }
    return NULL;
}

void contract_upload_flush_beside_write(void)
{
    struct blob_store *s = blob_contract_start();
    uint64_t size = blob_contract()->slow ? MIB : 8 * MIB;
    struct uuid id;
    struct digest digest;
    pthread_t thread;
    uuid_new(&id);
    struct flusher f = {.w = writer_at(s, &id, &from_start, 1)};
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, flush_on, &f), 0);
    CU_ASSERT_EQUAL(content_write(f.w, size, 5000, 9), BLOB_OK);
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(f.failures, 0);
    content_digest(size, 9, &digest);
    CU_ASSERT_EQUAL(writer_commit(f.w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, size, 9));
    blob_store_close(s);
}

struct uploader {
    struct blob_store *store;
    unsigned seed, rounds, failures;
};

static void *upload_on(void *arg)
{
    struct uploader *u = arg;
    for (unsigned i = 0; i < u->rounds; i++) {
        struct digest digest;
        unsigned seed = u->seed * 1000 + i;
        uint64_t size = 1 + (seed * 7919u) % 200000;
        /* Every fourth is the same for all threads. */
        if (i % 4 == 0) {
            seed = 1000000 + i;
            size = 20000 + i;
        }
        u->failures += content_store(u->store, size, seed, i % 3 ? 0 : BLOB_LAZY, &digest) != BLOB_OK;
        u->failures += !content_intact(u->store, size, seed);
    }
    return NULL;
}

#define UPLOADERS 8

void contract_upload_parallel(void)
{
    struct blob_store *s = blob_contract_start();
    struct uploader u[UPLOADERS];
    pthread_t threads[UPLOADERS];
    for (unsigned i = 0; i < UPLOADERS; i++) {
        u[i] = (struct uploader){.store = s, .seed = i, .rounds = blob_contract()->slow ? 4 : 20};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, upload_on, &u[i]), 0);
    }
    for (unsigned i = 0; i < UPLOADERS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(u[i].failures, 0);
    }
    blob_store_close(s);
}

/* ---- other nodes, other times ---- */

void contract_upload_contended(void)
{
    struct blob_store *s = blob_contract_start();
    if (!(s->caps & STORE_SHARED)) {
        blob_store_close(s);
        return;
    }
    struct blob_store *other = blob_contract_open();
    struct uuid id;
    struct digest digest, late_digest;
    struct upload_mark mark = {0}, late_mark;
    uuid_new(&id);
    struct blob_writer *late = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(late, 50000, 9000, 1), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(late, 50000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    mark.contended = true;
    struct blob_writer *w = writer_at(other, &id, &mark, 2);
    CU_ASSERT_EQUAL(content_write(late, 80000, 9000, 66), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, 60000, 9000, 1), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(late, 120000, 9000, 66), BLOB_OK);
    (void)!writer_flush(late, 120000, NULL, 0, 0, &late_mark, NULL);
    content_digest(60000, 1, &digest);
    content_digest(120000, 66, &late_digest);
    CU_ASSERT_NOT_EQUAL(writer_commit(late, &late_digest, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(other, 60000, 1));
    (void)!content_write(late, 150000, 9000, 66);
    CU_ASSERT_TRUE(content_intact(s, 60000, 1));
    writer_close(late);
    CU_ASSERT_TRUE(content_intact(s, 60000, 1));
    blob_store_close(other);
    blob_store_close(s);
}

/* It claimed the upload, was held up, and opens it when its successor has come and gone. */
void contract_upload_late(void)
{
    struct blob_store *s = blob_contract_start();
    if (!(s->caps & STORE_SHARED)) {
        blob_store_close(s);
        return;
    }
    struct blob_store *other = blob_contract_open();
    struct uuid id;
    struct digest digest;
    struct upload_mark mark = {0}, successors = {0};
    struct blob_writer *late = NULL;
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 50000, 9000, 1), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 50000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    struct upload_mark contended = mark;
    contended.contended = true;
    w = writer_at(other, &id, &contended, 3);
    CU_ASSERT_EQUAL(content_write(w, 60000, 9000, 1), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 60000, NULL, 0, 0, &successors, NULL), BLOB_OK);
    writer_close(w);
    /* Refused is best, and where it is not, it must do no harm. */
    if (staged_open(s, &id, &mark, 2, &late, NULL) == BLOB_OK) {
        (void)!content_write(late, 70000, 9000, 66);
        writer_close(late);
    }
    w = writer_at(other, &id, &successors, 4);
    content_digest(60000, 1, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 60000, 1));
    blob_store_close(other);
    blob_store_close(s);
}

void contract_upload_reopen(void)
{
    if (!blob_contract()->persists)
        return;
    struct blob_store *s = blob_contract_start();
    struct uuid small, large, lazy;
    struct digest digest;
    struct upload_mark at_small = {0}, at_large = {0}, at_lazy = {0};
    uuid_new(&small);
    uuid_new(&large);
    uuid_new(&lazy);
    struct blob_writer *w = writer_at(s, &small, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 5000, 5000, 1), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 5000, NULL, 0, 0, &at_small, NULL), BLOB_OK);
    writer_close(w);
    w = writer_at(s, &large, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, MIB, 65536, 2), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, MIB, NULL, 0, 0, &at_large, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, MIB + 7000, 65536, 2), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, MIB + 7000, NULL, 0, 0, &at_large, NULL), BLOB_OK);
    writer_close(w);
    w = writer_at(s, &lazy, &from_start, 1);
    CU_ASSERT_EQUAL(content_write(w, 300000, 65536, 3), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 300000, NULL, 0, BLOB_LAZY, &at_lazy, NULL), BLOB_OK);
    writer_close(w);
    blob_store_close(s);
    s = blob_contract_open();
    w = writer_at(s, &small, &at_small, 2);
    content_digest(5000, 1, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    w = writer_at(s, &large, &at_large, 2);
    content_digest(MIB + 7000, 2, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    w = writer_at(s, &lazy, &at_lazy, 2);
    content_digest(300000, 3, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, BLOB_LAZY, NULL), BLOB_OK);
    blob_store_close(s);
    s = blob_contract_open();
    CU_ASSERT_TRUE(content_intact(s, 5000, 1));
    CU_ASSERT_TRUE(content_intact(s, MIB + 7000, 2));
    CU_ASSERT_TRUE(content_intact(s, 300000, 3));
    CU_ASSERT_TRUE(upload_gone(s, &lazy));
    blob_store_close(s);
}
