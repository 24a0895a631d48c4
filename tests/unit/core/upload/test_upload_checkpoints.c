/* upload - checkpoints come by bytes and by time, what a status tells was flushed before, and the sync modes ask for
 * just as much durability as they promise. */
#include "tests/rig/upload_rig.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the store was asked, by any thread. */
static struct {
    struct rig *rig;
    atomic_uint flushes, lazy_flushes;
    atomic_ullong flushed, most_dirty;
    atomic_uint puts, lazy_puts, commits, lazy_commits;
    atomic_int flush_delay_us;
} seen;

static enum blob_status see_flush(struct blob_writer *w, uint64_t offset, const void *keep, size_t keep_len,
                                  unsigned flags, struct upload_mark *mark, struct blob_error *err)
{
    if (seen.flush_delay_us)
        usleep((useconds_t)seen.flush_delay_us);
    enum blob_status st = seen.rig->real->writer_flush(w, offset, keep, keep_len, flags, mark, err);
    atomic_fetch_add(&seen.flushes, 1);
    atomic_fetch_add(&seen.lazy_flushes, (flags & BLOB_LAZY) != 0);
    if (st == BLOB_OK)
        atomic_store(&seen.flushed, offset);
    return st;
}

static enum blob_status see_write(struct blob_writer *w, const struct iovec *parts, int count, struct blob_error *err)
{
    enum blob_status st = seen.rig->real->writer_write(w, parts, count, err);
    uint64_t dirty = w->position - atomic_load(&seen.flushed);
    if (dirty > atomic_load(&seen.most_dirty))
        atomic_store(&seen.most_dirty, dirty);
    return st;
}

static enum blob_status see_put(struct blob_store *s, const char *key, const void *value, size_t len, unsigned flags,
                                struct blob_error *err)
{
    atomic_fetch_add(&seen.puts, 1);
    atomic_fetch_add(&seen.lazy_puts, (flags & BLOB_LAZY) != 0);
    return seen.rig->real->record_put(s, key, value, len, flags, err);
}

static enum blob_status see_commit(struct blob_writer *w, const struct digest *d, unsigned flags,
                                   struct blob_error *err)
{
    atomic_fetch_add(&seen.commits, 1);
    atomic_fetch_add(&seen.lazy_commits, (flags & BLOB_LAZY) != 0);
    return seen.rig->real->writer_commit(w, d, flags, err);
}

static void watch(struct upload_rig *u)
{
    memset(&seen, 0, sizeof seen);
    seen.rig = &u->base;
    u->base.ops.writer_flush = see_flush;
    u->base.ops.writer_write = see_write;
    u->base.ops.record_put = see_put;
    u->base.ops.writer_commit = see_commit;
}

static char body[1 << 20];

static void test_by_bytes(void)
{
    struct upload_rig u;
    struct upload_append *a;
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_bytes = 64 << 10;
    opt.checkpoint_interval_ms = 3600000;
    upload_rig_open(&u, &opt, 1);
    watch(&u);
    seen.flush_delay_us = 2000; /* slower than the writing: it must wait */
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.data = body, .len = sizeof body}, &a), API_OK);
    uint64_t told = 0;
    for (size_t at = 0; at < sizeof body; at += 8192) {
        CU_ASSERT_EQUAL(upload_append_write_bytes(a, body + at, 8192, &c.err), API_OK);
        uint64_t now = client_peek(&c);
        CU_ASSERT_TRUE(now >= told && now <= atomic_load(&seen.flushed) && now <= at + 8192);
        told = now;
    }
    CU_ASSERT_TRUE(told > 0);
    CU_ASSERT_TRUE(seen.flushes >= sizeof body / (3 * opt.checkpoint_bytes));
    CU_ASSERT_TRUE(seen.flushes <= 2 * sizeof body / opt.checkpoint_bytes);
    CU_ASSERT_TRUE(seen.most_dirty <= opt.checkpoint_bytes + 8192); /* and the write that it waited after */
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
    CU_ASSERT_EQUAL(seen.flushed, sizeof body);
    CU_ASSERT_EQUAL(client_peek(&c), sizeof body);
    upload_rig_close(&u);
}

struct tick_run {
    struct worker_job job;
    atomic_bool ran;
};

static void ran(struct worker_job *job)
{
    atomic_store(&((struct tick_run *)job)->ran, true);
}

/* The tick's job runs in the upload's lane: when one queued behind it has run, it has, too. */
static void tick_and_wait(struct upload_rig *u, const struct client *c)
{
    struct tick_run after = {.job = {.run = ran}};
    upload_service_tick(u->node[0].svc, clock_wall_ms());
    worker_pool_submit(u->node[0].pool, upload_lane(u->node[0].svc, &c->id), &after.job);
    while (!atomic_load(&after.ran))
        usleep(500);
}

static void test_by_time(void)
{
    struct upload_rig u;
    struct upload_append *a;
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_interval_ms = 50;
    upload_rig_open(&u, &opt, 1);
    watch(&u);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.data = body, .len = 100}, &a), API_OK);
    tick_and_wait(&u, &c);
    CU_ASSERT_EQUAL(seen.flushes, 0);
    for (unsigned n = 1; n <= 3; n++) {
        CU_ASSERT_EQUAL(upload_append_write_bytes(a, "x", 1, &c.err), API_OK);
        usleep(60000);
        tick_and_wait(&u, &c);
        for (int i = 0; i < 2000 && client_peek(&c) < n; i++)
            usleep(1000);
        CU_ASSERT_EQUAL(client_peek(&c), n);
        usleep(60000);
        tick_and_wait(&u, &c); /* nothing came: nothing to do */
        CU_ASSERT_EQUAL(seen.flushes, n);
    }
    CU_ASSERT_NOT_EQUAL(upload_append_end(a, UPLOAD_BODY_CUT, &c.result, &c.err), API_OK);
    CU_ASSERT_EQUAL(client_peek(&c), 3);
    tick_and_wait(&u, &c);
    upload_rig_close(&u);
}

/* A store that is short of memory says how much may be unflushed. */
static void test_by_word_of_the_store(void)
{
    struct upload_rig u;
    struct upload_append *a;
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_interval_ms = 3600000;
    upload_rig_open(&u, &opt, 1);
    watch(&u);
    seen.flush_delay_us = 2000;
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.data = body, .len = sizeof body}, &a), API_OK);
    for (size_t at = 0; at < sizeof body; at += 8192) {
        bool is_short = at >= sizeof body / 2;
        CU_ASSERT_TRUE(is_short || seen.flushes == 0);
        atomic_store(&u.base.store->dirty_bytes, is_short ? 32768 : 0);
        if (at == sizeof body / 2 + 131072) /* it has caught up */
            atomic_store(&seen.most_dirty, 0);
        CU_ASSERT_EQUAL(upload_append_write_bytes(a, body + at, 8192, &c.err), API_OK);
    }
    CU_ASSERT_TRUE(seen.flushes >= sizeof body / 2 / (3 * 32768));
    CU_ASSERT_TRUE(seen.most_dirty <= 4 * 32768 + 8192);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
    atomic_store(&u.base.store->dirty_bytes, 0);
    upload_rig_close(&u);
}

struct expected {
    enum upload_sync sync;
    bool lazy_flush;
    unsigned durable_puts; /* of a whole upload */
};

static void test_sync_modes(void)
{
    static const struct expected modes[] = {
        {UPLOAD_SYNC_APPEND, false, 1}, {UPLOAD_SYNC_COMPLETE, true, 1}, {UPLOAD_SYNC_NEVER, true, 0}};
    for (int i = 0; i < 3; i++) {
        struct upload_rig u;
        struct upload_options opt = rig_upload_options;
        struct digest d = text_digest("hello, world");
        opt.sync = modes[i].sync;
        upload_rig_open(&u, &opt, 1);
        watch(&u);
        struct client c = client_new(&u);
        CU_ASSERT_EQUAL(client_append(&c, NULL, "hello, "), API_OK);
        CU_ASSERT_EQUAL(seen.flushes, 1);
        CU_ASSERT_EQUAL(seen.lazy_flushes, modes[i].lazy_flush);
        CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, "world"), API_OK);
        /* One wait for stable storage, by the last step; the steps before ride on it. */
        CU_ASSERT_EQUAL(seen.puts - seen.lazy_puts, modes[i].durable_puts);
        CU_ASSERT_EQUAL(seen.commits, 1);
        CU_ASSERT_EQUAL(seen.lazy_commits, 1);
        CU_ASSERT_EQUAL(seen.puts, 3); /* created, completing, the file */
        upload_rig_close(&u);
    }
}

/* Many appends at once on a pool of two threads, each with slow flushes: none may wait for the others' jobs for ever.
 */
#define CROWD 12

static void *crowd_append(void *arg)
{
    struct client *c = arg;
    static char piece[4096];
    struct upload_append *a;
    if (client_begin(c, &(struct ask){.data = piece, .len = 40 * sizeof piece}, &a) != API_OK)
        return arg;
    bool ok = true;
    for (int i = 0; i < 40; i++)
        ok = ok && upload_append_write_bytes(a, piece, sizeof piece, &c->err) == API_OK;
    return upload_append_end(a, UPLOAD_BODY_WHOLE, &c->result, &c->err) == API_OK && ok ? NULL : arg;
}

static void test_crowd(void)
{
    struct upload_rig u;
    struct client clients[CROWD];
    pthread_t threads[CROWD];
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_bytes = 8192;
    upload_rig_open(&u, &opt, 1);
    watch(&u);
    seen.flush_delay_us = 500;
    for (int i = 0; i < CROWD; i++)
        clients[i] = client_new(&u);
    for (int i = 0; i < CROWD; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, crowd_append, &clients[i]), 0);
    for (int i = 0; i < CROWD; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        CU_ASSERT_PTR_NULL(failed);
        CU_ASSERT_EQUAL(client_peek(&clients[i]), 40 * 4096);
    }
    upload_rig_close(&u);
}

/* Checkpoints that take 20 ms each, due every 10 ms for each of twelve appends, leave half of the workers' time. */
static void test_slow_checkpoints_come_less_often(void)
{
    struct upload_rig u;
    struct client clients[CROWD];
    struct upload_append *a[CROWD];
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_interval_ms = 10;
    upload_rig_open(&u, &opt, 1);
    watch(&u);
    seen.flush_delay_us = 20000;
    for (int i = 0; i < CROWD; i++) {
        clients[i] = client_new(&u);
        CU_ASSERT_EQUAL_FATAL(client_begin(&clients[i], &(struct ask){.data = body, .len = 4096}, &a[i]), API_OK);
    }
    int64_t began_us = clock_steady_us(), took_us = 0;
    while (took_us < 1500000) {
        for (int i = 0; i < CROWD; i++)
            CU_ASSERT_EQUAL(upload_append_write_bytes(a[i], "x", 1, &clients[i].err), API_OK);
        usleep(10000);
        took_us = clock_steady_us() - began_us;
    }
    int64_t room = 2 * took_us / seen.flush_delay_us; /* of two workers */
    CU_ASSERT_TRUE(seen.flushes >= CROWD);
    CU_ASSERT_TRUE(seen.flushes <= room * 3 / 4);
    for (int i = 0; i < CROWD; i++)
        CU_ASSERT_NOT_EQUAL(upload_append_end(a[i], UPLOAD_BODY_CUT, &clients[i].result, &clients[i].err), API_OK);
    upload_rig_close(&u);
}

int main(void)
{
    CU_TestInfo tests[] = {{"checkpoints come by bytes, and what is not durable is bounded", test_by_bytes},
                           {"the bytes of a trickling body are checkpointed by time", test_by_time},
                           {"a store that is short of memory sets the distance", test_by_word_of_the_store},
                           {"slow checkpoints come less often", test_slow_checkpoints_come_less_often},
                           {"each sync mode asks for what it promises, and waits once", test_sync_modes},
                           {"many appends with slow flushes all come through", test_crowd},
                           CU_TEST_INFO_NULL};
    return unit_main("upload_checkpoints", tests);
}
