/*
 * store_suite - what the S3 store does to the bucket, beyond the storage contract: which objects there are, what a
 * roll-back, a take-over and a lost step leave behind.
 */
#include "tests/s3/store_rig.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

static void test_sizes(void)
{
    static const size_t sizes[] = {0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 12345};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct rig r = rig_open();
        struct upload_mark mark = {0};
        struct uuid id;
        size_t len = sizes[i];
        uint8_t *data = content(len, (unsigned)i);
        struct digest digest = digest_of(data, len);
        uuid_new(&id);
        if (len > 0)
            append(&r, &id, &mark, 10, data, len);
        commit(&r, &id, &mark, 20, &digest);
        check_blob(&r, data, len, &digest);
        check_only_blob(&r, len);
        OK(blob_remove(r.store, &digest, clock_wall_ms() + 1000, err));
        CU_ASSERT_EQUAL(count_below(&r, ""), 2); /* store.json and the tombstone, till that has rested */
        OK(blob_list(r.store, NULL, no_blob, NULL, err));
        CU_ASSERT_EQUAL(count_below(&r, ""), 2);
        OK(blob_store_sweep(r.store, clock_wall_ms() + 1000, err));
        OK(blob_list(r.store, NULL, no_blob, NULL, err));
        CU_ASSERT_EQUAL(count_below(&r, ""), 1);
        free(data);
        rig_close(&r);
    }
}
/* Appends of all kinds of sizes, each by a writer of its own. */
static void chunked(const size_t *chunks, size_t count, size_t total)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0};
    struct uuid id;
    uint8_t *data = content(total, 3);
    struct digest digest = digest_of(data, total);
    uuid_new(&id);
    uint64_t epoch = 1;
    for (size_t i = 0; mark.offset < total; i++) {
        size_t n = chunks[i % count];
        if (n > total - mark.offset)
            n = (size_t)(total - mark.offset);
        append(&r, &id, &mark, epoch++, data + mark.offset, n);
    }
    struct staged_stat stat = {0};
    OK(staged_stat(r.store, &id, &stat, err));
    CU_ASSERT_EQUAL(stat.mark.offset, total);
    CU_ASSERT_EQUAL(stat.keep_len, 4);
    CU_ASSERT_TRUE(count_below(&r, "staging/") < 40);
    commit(&r, &id, &stat.mark, epoch, &digest);
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    free(data);
    rig_close(&r);
}

static void test_chunks(void)
{
    static const size_t tiny[] = {1, 2, 3}, mixed[] = {1, MIB, 700000, 3, 2 * MIB}, large[] = {7 * MIB, 100, 16 * MIB};
    chunked(tiny, 3, 120);
    chunked(mixed, 5, 2 * PART + 4321);
    chunked(large, 3, 6 * PART + 1);
}

/* One long request with checkpoints in the middle of parts, and many bytes beyond each. */
static void test_checkpoints(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0}, now;
    struct blob_writer *w = NULL;
    struct uuid id;
    size_t total = 5 * PART + 777, at = 0;
    uint8_t *data = content(total, 4);
    struct digest digest = digest_of(data, total);
    uuid_new(&id);
    OK(staged_open(r.store, &id, &mark, 1, &w, err));
    for (uint64_t flush_at = 3 * MIB; at < total;) {
        size_t n = total - at < 300000 ? total - at : 300000;
        OK(writer_write_bytes(w, data + at, n, err));
        at += n;
        if (at > flush_at + 4 * MIB) { /* the writer is ahead of the checkpoint */
            OK(writer_flush(w, flush_at, "k", 1, 0, &now, err));
            CU_ASSERT_EQUAL(now.offset, flush_at);
            flush_at += 3 * MIB + 17;
        }
    }
    /* A crash: what the last checkpoint said is there, and can be gone on from. */
    writer_close(w);
    uint64_t durable = now.offset;
    CU_ASSERT_TRUE(durable > 2 * PART);
    append(&r, &id, &now, 1000, data + durable, total - (size_t)durable);
    commit(&r, &id, &now, 2000, &digest);
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    free(data);
    rig_close(&r);
}

struct writing {
    struct blob_writer *w;
    const uint8_t *data;
    size_t total;
    atomic_size_t written;
};

static void *write_all(void *arg)
{
    struct writing *job = arg;
    for (size_t at = 0; at < job->total; at = atomic_load(&job->written)) {
        size_t n = job->total - at < 100000 ? job->total - at : 100000;
        bool ok = writer_write_bytes(job->w, job->data + at, n, NULL) == BLOB_OK;
        atomic_store(&job->written, ok ? at + n : SIZE_MAX);
    }
    return NULL;
}

/* Checkpoints run beside the writing. Whatever the two set at the same time, nothing is staged afterwards. */
static void test_flush_beside_writing(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0};
    struct writing job = {.total = 4 * PART + 99};
    struct uuid id;
    pthread_t thread;
    uint8_t *data = content(job.total, 16);
    struct digest digest = digest_of(data, job.total);
    job.data = data;
    uuid_new(&id);
    OK(staged_open(r.store, &id, &mark, 1, &job.w, err));
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, write_all, &job), 0);
    for (size_t at = 0; at < job.total;) {
        at = atomic_load(&job.written);
        if (at > mark.offset && at <= job.total)
            OK(writer_flush(job.w, at, "k", 1, 0, &mark, err));
    }
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL_FATAL(job.written, job.total);
    OK(writer_commit(job.w, &digest, 0, err));
    check_blob(&r, data, job.total, &digest);
    check_only_blob(&r, job.total);
    free(data);
    rig_close(&r);
}

/* Writers that are flushed when the store says that memory is short, as core does, hold no more than it says; what they
 * dropped comes back when their parts are sent. */
#define SLOW 3

static void test_short_memory(void)
{
    struct rig r = rig_open_with(MIB);
    struct s3_memory *m = &s3_store_of(r.store)->memory;
    struct blob_writer *w[SLOW] = {NULL};
    struct upload_mark mark[SLOW] = {{0}};
    struct uuid id[SLOW];
    size_t total = PART + 400000, piece = 40000;
    uint8_t *data[SLOW];
    bool was_short = false;
    for (int i = 0; i < SLOW; i++) {
        data[i] = content(total, 70 + (unsigned)i);
        uuid_new(&id[i]);
        OK(staged_open(r.store, &id[i], &mark[i], 1, &w[i], err));
    }
    for (size_t at = 0; at < total; at += piece) {
        size_t n = total - at < piece ? total - at : piece;
        for (int i = 0; i < SLOW; i++) {
            OK(writer_write_bytes(w[i], data[i] + at, n, err));
            size_t most = r.store->dirty_bytes;
            was_short |= most > 0;
            if (most > 0 && at + n - mark[i].offset >= most)
                OK(writer_flush(w[i], at + n, "k", 1, 0, &mark[i], err));
        }
        if (at + n < PART)
            CU_ASSERT_TRUE(m->held <= MIB);
    }
    CU_ASSERT_TRUE(was_short);
    for (int i = 0; i < SLOW; i++) {
        struct digest digest = digest_of(data[i], total);
        OK(writer_flush(w[i], total, "k", 1, 0, &mark[i], err));
        writer_close(w[i]);
        commit(&r, &id[i], &mark[i], 2, &digest);
        check_blob(&r, data[i], total, &digest);
        free(data[i]);
    }
    CU_ASSERT_EQUAL(m->held, 0);
    CU_ASSERT_EQUAL(r.store->dirty_bytes, 0);
    CU_ASSERT_EQUAL(count_below(&r, "staging/"), 0);
    rig_close(&r);
}

/* A body that is rolled back had filled parts; the upload then ends without them. */
static void test_roll_back(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0}, wrong;
    struct blob_writer *w = NULL;
    struct uuid id;
    size_t total = PART + 1000;
    uint8_t *data = content(total, 5), *junk = content(3 * PART, 6);
    struct digest digest = digest_of(data, total);
    struct staged_stat stat;
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, total);
    wrong = mark;
    append(&r, &id, &wrong, 2, junk, 3 * PART);
    OK(staged_stat(r.store, &id, &stat, err));
    CU_ASSERT_EQUAL(stat.mark.offset, total + 3 * PART);
    OK(staged_open(r.store, &id, &mark, 3, &w, err));
    writer_close(w);
    OK(staged_stat(r.store, &id, &stat, err));
    CU_ASSERT_EQUAL(stat.mark.offset, total);
    commit(&r, &id, &mark, 4, &digest);
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    free(data);
    free(junk);
    rig_close(&r);
}

/* A node that lost its upload goes on writing; nothing of it may come into the blob. */
static void test_fenced_writer(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0}, late_mark;
    struct blob_writer *late = NULL;
    struct uuid id;
    size_t total = 4 * PART + 99;
    uint8_t *data = content(total, 7), *junk = content(3 * PART, 8);
    struct digest digest = digest_of(data, total);
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, PART + 500);
    OK(staged_open(r.store, &id, &mark, 2, &late, err));
    OK(writer_write_bytes(late, junk, PART, err));
    mark.contended = true;
    append(&r, &id, &mark, 3, data + mark.offset, 2 * PART);
    OK(writer_write_bytes(late, junk + PART, 2 * PART, err));
    OK(writer_flush(late, PART + 500 + 3 * PART, "late", 4, 0, &late_mark, err));
    writer_close(late);
    struct staged_stat stat;
    OK(staged_stat(r.store, &id, &stat, err));
    CU_ASSERT_EQUAL(stat.mark.offset, mark.offset);
    append(&r, &id, &mark, 4, data + mark.offset, total - (size_t)mark.offset);
    commit(&r, &id, &mark, 5, &digest);
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    free(data);
    free(junk);
    rig_close(&r);
}

static void test_stored_once(void)
{
    struct rig r = rig_open();
    struct uuid id;
    size_t total = 2 * PART + 7;
    uint8_t *data = content(total, 9);
    struct digest digest = digest_of(data, total);
    for (int i = 0; i < 3; i++) {
        struct upload_mark mark = {0};
        uuid_new(&id);
        append(&r, &id, &mark, 1, data, total);
        commit(&r, &id, &mark, 2, &digest);
        check_only_blob(&r, total);
    }
    /* The same, small, in one request. */
    struct digest small = digest_of(data, 1000);
    for (int i = 0; i < 2; i++) {
        struct upload_mark none = {0};
        struct blob_writer *w = NULL;
        uuid_new(&id);
        OK(staged_open(r.store, &id, &none, 1, &w, err));
        OK(writer_write_bytes(w, data, 1000, err));
        OK(writer_commit(w, &small, 0, err));
        CU_ASSERT_EQUAL(count_below(&r, "data/"), 2);
    }
    free(data);
    rig_close(&r);
}

/* The blob's object was lost or cut by someone else: uploading it again heals it. */
static void test_healing(void)
{
    struct rig r = rig_open();
    uint8_t *data = content(5000, 10);
    struct digest digest = digest_of(data, 5000);
    for (int i = 0; i < 3; i++) {
        struct upload_mark none = {0};
        struct blob_writer *w = NULL;
        struct uuid id;
        struct s3_page page = {0};
        uuid_new(&id);
        OK(staged_open(r.store, &id, &none, 1, &w, err));
        OK(writer_write_bytes(w, data, 5000, err));
        OK(writer_commit(w, &digest, 0, err));
        check_blob(&r, data, 5000, &digest);
        check_only_blob(&r, 5000);
        OK(s3_list(r.s3, "data/", NULL, 10, &page, err));
        const struct s3_body cut = {.data = "", .length = 0};
        if (i == 0)
            OK(s3_put(r.s3, page.entries[0].key, &cut, NULL, NULL, err));
        else
            OK(s3_delete(r.s3, page.entries[0].key, err));
        s3_page_release(&page);
    }
    struct blob_reader *reader = NULL;
    struct blob_info info;
    uint8_t byte;
    OK(blob_open(r.store, &digest, &reader, &info, err));
    CU_ASSERT_EQUAL(reader_read(reader, 0, &byte, 1, NULL), BLOB_E_CORRUPT);
    reader_close(reader);
    free(data);
    rig_close(&r);
}

static void download_on(struct blob_cursor *c, const uint8_t *want, size_t len)
{
    static uint8_t got[MIB];
    uint64_t at = c->at;
    OK(cursor_read(c, got, len, err));
    CU_ASSERT_EQUAL(memcmp(got, want + at, len), 0);
}

/* There is one stream for three downloads: one has it, until it has rested for so long that another may take it. */
static void test_more_downloads_than_streams(void)
{
    connections = 2;
    struct rig r = rig_open();
    connections = 0;
    const struct s3_store *s = s3_store_of(r.store);
    bool streams = s3_client_caps(r.s3) & S3_CAP_STREAM;
    size_t total = 4 * MIB;
    uint8_t *data = content(total, 15);
    struct digest digest = digest_of(data, total);
    struct upload_mark mark = {0};
    struct blob_reader *reader = NULL;
    struct blob_info info;
    struct uuid id;
    struct blob_cursor c[3];
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, total);
    commit(&r, &id, &mark, 2, &digest);
    OK(blob_open(r.store, &digest, &reader, &info, err));
    for (int i = 0; i < 3; i++) {
        cursor_begin(&c[i], reader, 0, total);
        download_on(&c[i], data, MIB);
        CU_ASSERT_EQUAL(s->streams, streams);
    }
    CU_ASSERT_TRUE(!streams || s->rest_oldest == c[0].own);
    usleep(2200000);
    download_on(&c[2], data, MIB);
    CU_ASSERT_TRUE(!streams || s->rest_oldest == c[2].own);
    for (int i = 2; i >= 0; i--) { /* the one that lost its stream gets no other */
        download_on(&c[i], data, MIB);
        download_on(&c[i], data, MIB / 2);
        CU_ASSERT_EQUAL(s->streams, streams && i > 0);
        cursor_end(&c[i]);
    }
    CU_ASSERT_TRUE(s->streams == 0 && !s->rest_oldest);
    reader_close(reader);
    free(data);
    rig_close(&r);
}

static void test_discard(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0};
    struct uuid id;
    uint8_t *data = content(2 * PART + 3, 11);
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, 2 * PART + 3);
    CU_ASSERT_EQUAL(count_multiparts(&r), multipart(&r) ? 1 : 0);
    OK(staged_discard(r.store, &id, NULL, err));
    OK(staged_discard(r.store, &id, NULL, err));
    CU_ASSERT_EQUAL(count_below(&r, ""), 1);
    CU_ASSERT_EQUAL(count_multiparts(&r), 0);
    free(data);
    rig_close(&r);
}

/* A node died between putting the object together and writing the pointer, or just after. */
static void test_cut_commit(void)
{
    struct rig r = rig_open();
    if (!multipart(&r)) {
        rig_close(&r);
        return;
    }
    struct upload_mark mark = {0};
    struct uuid id;
    size_t total = 2 * PART + 3;
    uint8_t *data = content(total, 12);
    struct digest digest = digest_of(data, total);
    struct s3_key pointer = pointer_name(&digest);
    uuid_new(&id);

    /* After a commit, take the pointer away and put the staged state back: as if it had been cut. */
    append(&r, &id, &mark, 1, data, total);
    struct s3_page page = {0};
    OK(s3_list(r.s3, s3_staged_state_prefix(&id).text, NULL, 100, &page, err));
    CU_ASSERT_EQUAL_FATAL(page.count, 1);
    static uint8_t state[S3_STAGED_HEADER_BYTES + PART];
    size_t len = 0;
    OK(s3_get(r.s3, page.entries[0].key, state, sizeof state, &len, NULL, err));
    commit(&r, &id, &mark, 2, &digest);
    const struct s3_body body = {.data = state, .length = len};
    OK(s3_put(r.s3, page.entries[0].key, &body, NULL, NULL, err));
    OK(s3_delete(r.s3, pointer.text, err));

    commit(&r, &id, &mark, 3, &digest); /* repeated: finds the object, writes the pointer */
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);

    /* Repeated once more although all was done; then discarded: the blob stays. */
    OK(s3_put(r.s3, page.entries[0].key, &body, NULL, NULL, err));
    commit(&r, &id, &mark, 4, &digest);
    OK(s3_put(r.s3, page.entries[0].key, &body, NULL, NULL, err));
    OK(staged_discard(r.store, &id, &mark, err));
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    s3_page_release(&page);
    free(data);
    rig_close(&r);
}
static void test_one_store_id(void)
{
    struct rig r = rig_open();
    struct blob_store *again = NULL;
    struct s3_options o = options();
    OK(s3_store_open(&o, NULL, &again, err));
    CU_ASSERT_STRING_EQUAL(r.store->store_id, again->store_id);
    CU_ASSERT_EQUAL(strlen(again->store_id), STORE_ID_CHARS);
    blob_store_close(again);
    rig_close(&r);
}

static void count_steps(bool ok, const char *what, const char *meaning, void *arg)
{
    if (!ok)
        fprintf(stderr, "self-check: %s: %s\n", what, meaning);
    unsigned *steps = arg;
    if (ok)
        ++*steps;
}

static void test_self_check(void)
{
    struct rig r = rig_open();
    unsigned steps = 0;
    OK(blob_store_self_check(r.store, count_steps, &steps, err));
    CU_ASSERT_TRUE(steps >= 8);
    CU_ASSERT_EQUAL(count_below(&r, ""), 1);
    rig_close(&r);
}

static void test_wrong_settings(void)
{
    struct blob_store *store;
    struct blob_error err = {.text = ""};
    struct s3_options o = options();
    o.cred_secret = "wrong";
    CU_ASSERT_EQUAL(s3_store_open(&o, NULL, &store, &err), BLOB_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "cred_secret"));
    o = options();
    o.bucket = "not-there";
    CU_ASSERT_EQUAL(s3_store_open(&o, NULL, &store, &err), BLOB_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "storage.s3.bucket"));
}

/* An object of over a MiB that somebody has overwritten with as many other bytes: the next upload of the content heals
 * it. What is right stays where it is. */
static void test_overwritten(void)
{
    struct rig r = rig_open();
    const size_t sizes[] = {3 * MIB, PART + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t len = sizes[i];
        uint8_t *data = content(len, 50 + (unsigned)i);
        struct digest digest = digest_of(data, len);
        struct s3_pointer first, now;
        for (int round = 0; round < 3; round++) {
            struct upload_mark mark = {0};
            struct uuid id;
            uuid_new(&id);
            append(&r, &id, &mark, 1, data, len);
            commit(&r, &id, &mark, 2, &digest);
            OK(s3_pointer_read(s3_store_of(r.store), &digest, &now, err));
            if (round == 0)
                first = now;
            CU_ASSERT_EQUAL(strcmp(first.data_key, now.data_key) == 0, round < 2);
            check_blob(&r, data, len, &digest);
            if (round == 1) {
                data[len / 2] ^= 1;
                const struct s3_body body = {.data = data, .length = len};
                OK(s3_put(r.s3, now.data_key, &body, NULL, NULL, err));
                data[len / 2] ^= 1;
            }
        }
        CU_ASSERT_EQUAL(count_below(&r, "data/"), i + 1);
        free(data);
    }
    rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {
        {"one native object a blob, and nothing after its removal", test_sizes},
        {"appends of any size end in the same object", test_chunks},
        {"checkpoints within parts can be gone on from", test_checkpoints},
        {"a flush may run beside the writing", test_flush_beside_writing},
        {"where memory is short, writers that are flushed hold no more than they may", test_short_memory},
        {"parts of a body that is rolled back are not in the blob", test_roll_back},
        {"a fenced writer cannot change the blob", test_fenced_writer},
        {"equal content is stored once", test_stored_once},
        {"a damaged blob is healed by uploading it again", test_healing},
        {"more downloads than streams share them, and all get their bytes", test_more_downloads_than_streams},
        {"a discarded upload leaves nothing, parts included", test_discard},
        {"a commit that was cut can be repeated, and never loses the blob", test_cut_commit},
        {"every node reads the same store id", test_one_store_id},
        {"the self-check passes and clears up", test_self_check},
        {"a wrong setting is told at open", test_wrong_settings},
        {"what was overwritten is healed by an upload of its content", test_overwritten},
        CU_TEST_INFO_NULL};
    return unit_main("s3_store", tests);
}
