/*
 * store_suite - what the S3 store does to the bucket, beyond the storage contract: which objects there are, what a
 * roll-back, a take-over and a lost step leave behind. Parts are 5 MiB, so that a few of them make an upload.
 */
#include "backends/s3_store.h"

#include "backends/s3_client.h"
#include "backends/s3_store_internal.h"
#include "core/clock.h"
#include "tests/unit/unit_main.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB  (1u << 20)
#define PART (5u * MIB)

static char prefix[64];
static unsigned connections; /* 0: as many as usual */

static struct s3_options options(void)
{
    struct s3_options o = s3_options_default();
    o.endpoint = getenv("BLOBD_TEST_S3_ENDPOINT");
    o.bucket = getenv("BLOBD_TEST_S3_BUCKET");
    o.cred_id = getenv("BLOBD_TEST_S3_KEY");
    o.cred_secret = getenv("BLOBD_TEST_S3_SECRET");
    o.driver = getenv("BLOBD_TEST_S3_DRIVER");
    o.part_size_bytes = PART;
    o.prefix = prefix;
    o.redirect = true;
    if (connections > 0)
        o.max_connections = connections;
    return o;
}

/* A store in a place of its own, and a client that looks at it from outside. */
struct rig {
    struct blob_store *store;
    struct s3_client *s3;
};

static struct rig rig_open_with(size_t memory_bytes)
{
    static int serial;
    struct rig r;
    struct blob_error err;
    snprintf(prefix, sizeof prefix, "store-%d-%lld-%d", (int)getpid(), (long long)clock_wall_ms(), serial++);
    struct s3_options o = options();
    if (memory_bytes > 0)
        o.memory_bytes = memory_bytes;
    enum blob_status st = s3_store_open(&o, NULL, &r.store, &err);
    if (st != BLOB_OK)
        fprintf(stderr, "%s\n", err.text);
    CU_ASSERT_EQUAL_FATAL(st, BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(s3_client_open(&o, &r.s3, &err), BLOB_OK);
    return r;
}

static struct rig rig_open(void)
{
    return rig_open_with(0);
}

static void rig_close(struct rig *r)
{
    blob_store_close(r->store);
    s3_client_close(r->s3);
}

static bool multipart(const struct rig *r)
{
    return s3_client_caps(r->s3) & S3_CAP_MULTIPART;
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        struct blob_error err_ = {.text = ""}, *err = &err_;                                                           \
        enum blob_status st_ = (call);                                                                                 \
        if (st_ != BLOB_OK)                                                                                            \
            fprintf(stderr, "%s: %s: %s\n", #call, blob_status_name(st_), err_.text);                                  \
        CU_ASSERT_EQUAL_FATAL(st_, BLOB_OK);                                                                           \
    } while (0)

static unsigned count_below(const struct rig *r, const char *below)
{
    struct s3_page page = {0};
    OK(s3_list(r->s3, below, NULL, 1000, &page, err));
    unsigned n = (unsigned)page.count;
    s3_page_release(&page);
    return n;
}

static unsigned count_multiparts(const struct rig *r)
{
    struct s3_uploads uploads = {0};
    if (!multipart(r))
        return 0;
    OK(s3_multipart_list(r->s3, "data/", NULL, NULL, &uploads, err));
    unsigned n = (unsigned)uploads.count;
    s3_uploads_release(&uploads);
    return n;
}

static uint8_t *content(size_t len, unsigned seed)
{
    uint8_t *buf = malloc(len + 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(buf);
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        buf[i] = (uint8_t)(x >> 24);
    }
    return buf;
}

static struct digest digest_of(const void *data, size_t len)
{
    struct hash h;
    struct digest d;
    hash_init(&h);
    hash_update(&h, data, len);
    hash_peek(&h, &d);
    return d;
}

static void check_blob(const struct rig *r, const uint8_t *want, size_t len, const struct digest *digest)
{
    struct blob_reader *reader = NULL;
    struct blob_info info = {0};
    uint8_t *got = malloc(len + 1);
    OK(blob_open(r->store, digest, &reader, &info, err));
    CU_ASSERT_EQUAL(info.size, len);
    for (size_t at = 0; at < len;) { /* in pieces, as a download goes */
        size_t n = len - at < 200000 ? len - at : 200000;
        OK(reader_read(reader, at, got + at, n, err));
        at += n;
    }
    CU_ASSERT_EQUAL(memcmp(got, want, len), 0);
    reader_close(reader);
    free(got);
}

/* The bucket holds this one blob and nothing else: one data object, its pointer, store.json. */
static void check_only_blob(const struct rig *r, size_t len)
{
    struct s3_page page = {0};
    OK(s3_list(r->s3, "data/", NULL, 1000, &page, err));
    CU_ASSERT_EQUAL(page.count, 1);
    if (page.count == 1)
        CU_ASSERT_EQUAL(page.entries[0].object.size, len);
    s3_page_release(&page);
    CU_ASSERT_EQUAL(count_below(r, ""), 3);
    CU_ASSERT_EQUAL(count_multiparts(r), 0);
}

/* Appends len bytes as one request would: open, write in pieces, flush, close. */
static void append(const struct rig *r, const struct uuid *id, struct upload_mark *mark, uint64_t epoch,
                   const uint8_t *data, size_t len)
{
    struct blob_writer *w = NULL;
    OK(upload_open(r->store, id, mark, epoch, &w, err));
    for (size_t at = 0; at < len;) {
        size_t n = len - at < 262144 ? len - at : 262144;
        OK(writer_write_bytes(w, data + at, n, err));
        at += n;
    }
    OK(writer_flush(w, mark->offset + len, "keep", 4, 0, mark, err));
    writer_close(w);
}

static void commit(const struct rig *r, const struct uuid *id, const struct upload_mark *mark, uint64_t epoch,
                   const struct digest *digest)
{
    struct blob_writer *w = NULL;
    OK(upload_open(r->store, id, mark, epoch, &w, err));
    OK(writer_commit(w, digest, 0, err));
}

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
    struct upload_stat stat = {0};
    OK(upload_stat(r.store, &id, &stat, err));
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
    OK(upload_open(r.store, &id, &mark, 1, &w, err));
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
    OK(upload_open(r.store, &id, &mark, 1, &job.w, err));
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
        OK(upload_open(r.store, &id[i], &mark[i], 1, &w[i], err));
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
    struct upload_stat stat;
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, total);
    wrong = mark;
    append(&r, &id, &wrong, 2, junk, 3 * PART);
    OK(upload_stat(r.store, &id, &stat, err));
    CU_ASSERT_EQUAL(stat.mark.offset, total + 3 * PART);
    OK(upload_open(r.store, &id, &mark, 3, &w, err));
    writer_close(w);
    OK(upload_stat(r.store, &id, &stat, err));
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
    OK(upload_open(r.store, &id, &mark, 2, &late, err));
    OK(writer_write_bytes(late, junk, PART, err));
    mark.contended = true;
    append(&r, &id, &mark, 3, data + mark.offset, 2 * PART);
    OK(writer_write_bytes(late, junk + PART, 2 * PART, err));
    OK(writer_flush(late, PART + 500 + 3 * PART, "late", 4, 0, &late_mark, err));
    writer_close(late);
    struct upload_stat stat;
    OK(upload_stat(r.store, &id, &stat, err));
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
        OK(upload_open(r.store, &id, &none, 1, &w, err));
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
        OK(upload_open(r.store, &id, &none, 1, &w, err));
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
    OK(upload_discard(r.store, &id, NULL, err));
    OK(upload_discard(r.store, &id, NULL, err));
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
    struct s3_key pointer;
    char hex[DIGEST_HEX_CHARS + 1];
    uuid_new(&id);
    digest_hex(&digest, hex);
    snprintf(pointer.text, sizeof pointer.text, "blobs/%.2s/%s.json", hex, hex);

    /* After a commit, take the pointer away and put the staged state back: as if it had been cut. */
    append(&r, &id, &mark, 1, data, total);
    struct s3_page page = {0};
    OK(s3_list(r.s3, "staging/", NULL, 100, &page, err));
    CU_ASSERT_EQUAL_FATAL(page.count, 1);
    static uint8_t state[STAGED_HEADER_BYTES + PART];
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
    OK(upload_discard(r.store, &id, &mark, err));
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    s3_page_release(&page);
    free(data);
    rig_close(&r);
}

static void test_sweep(void)
{
    struct rig r = rig_open();
    struct s3_object object;
    struct uuid id;
    char key[200], hex[DIGEST_HEX_CHARS + 1], upload_id[S3_UPLOAD_ID_MAX];
    const struct s3_body body = {.data = "x", .length = 1};
    struct digest digest = digest_of("x", 1);
    struct upload_mark mark = {0};
    uint8_t *data = content(PART + 1, 13);
    digest_hex(&digest, hex);
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, PART + 1); /* a live upload, whose parts must stay */
    struct uuid lost;
    uuid_new(&lost);
    snprintf(key, sizeof key, "data/%s.%s", lost.text, hex);
    OK(s3_put(r.s3, key, &body, NULL, NULL, err));
    if (multipart(&r))
        OK(s3_multipart_create(r.s3, staged_data_key(&lost).text, upload_id, err));
    OK(blob_store_sweep(r.store, clock_wall_ms() - 60000, err)); /* within the grace time */
    OK(s3_head(r.s3, key, &object, err));
    OK(blob_store_sweep(r.store, clock_wall_ms() + 5000, err));
    CU_ASSERT_EQUAL(s3_head(r.s3, key, &object, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(count_multiparts(&r), multipart(&r) ? 1 : 0);
    struct digest whole = digest_of(data, PART + 1);
    commit(&r, &id, &mark, 2, &whole);
    OK(blob_store_sweep(r.store, clock_wall_ms() + 5000, err));
    check_blob(&r, data, PART + 1, &whole);
    free(data);
    rig_close(&r);
}

/* What an open writer made is no leftover, however old: nothing in S3 names it before the next flush, or the end. */
static void test_sweep_beside_a_writer(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0};
    struct blob_writer *w = NULL;
    struct s3_object object;
    struct uuid id;
    size_t total = 2 * PART + 5;
    uint8_t *data = content(total, 14);
    struct digest digest = digest_of(data, total), small = digest_of(data, 10);
    const struct s3_body body = {.data = data, .length = 10};
    uuid_new(&id);
    struct s3_key key = staged_whole_key(&id, &small);
    OK(upload_open(r.store, &id, &mark, 1, &w, err));
    OK(writer_write_bytes(w, data, PART + 1, err));
    OK(s3_put(r.s3, key.text, &body, NULL, NULL, err)); /* as if its pointer were to be written next */
    for (int i = 1; i <= 2; i++) {
        OK(blob_store_sweep(r.store, clock_wall_ms() + i * 120000, err));
        CU_ASSERT_EQUAL(count_multiparts(&r), multipart(&r) ? 1 : 0);
        OK(s3_head(r.s3, key.text, &object, err));
    }
    OK(writer_write_bytes(w, data + PART + 1, total - PART - 1, err));
    OK(writer_flush(w, total, "keep", 4, 0, &mark, err));
    writer_close(w);
    OK(blob_store_sweep(r.store, clock_wall_ms() + 360000, err)); /* the writer is gone, and never named it */
    CU_ASSERT_EQUAL(s3_head(r.s3, key.text, &object, NULL), BLOB_E_NOT_FOUND);
    commit(&r, &id, &mark, 2, &digest);
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    free(data);
    rig_close(&r);
}

/* An upload whose commit was cut off after the object had been copied without left-over parts: the copy is all there is
 * of its parts. */
static struct s3_key cut_off_copied(const struct rig *r, const struct uuid *id, struct upload_mark *mark,
                                    const uint8_t *data, size_t len, const struct digest *digest)
{
    static uint8_t state[STAGED_HEADER_BYTES + PART], keep[UPLOAD_KEEP_MAX];
    struct s3_key key = staged_whole_key(id, digest);
    struct s3_page page = {0};
    struct staged staged;
    uint32_t keep_len;
    size_t got;
    append(r, id, mark, 1, data, len);
    OK(s3_list(r->s3, staged_state_prefix(id).text, NULL, 100, &page, err));
    CU_ASSERT_EQUAL_FATAL(page.count, 1);
    OK(s3_get(r->s3, page.entries[0].key, state, sizeof state, &got, NULL, err));
    CU_ASSERT_EQUAL_FATAL(staged_read_header(state, &staged, keep, &keep_len), BLOB_OK);
    staged.committing = true;
    staged.digest = *digest;
    staged_write_header(&staged, keep, keep_len, state);
    const struct s3_body body = {.data = state, .length = got}, whole = {.data = data, .length = len};
    OK(s3_put(r->s3, page.entries[0].key, &body, NULL, NULL, err));
    OK(s3_put(r->s3, key.text, &whole, NULL, NULL, err));
    OK(s3_multipart_abort(r->s3, staged_data_key(id).text, staged.upload_id, err));
    s3_page_release(&page);
    return key;
}

static void test_sweep_beside_a_copy(void)
{
    struct rig r = rig_open();
    size_t total = PART + 5;
    uint8_t *data = content(total, 15);
    struct digest digest = digest_of(data, total);
    for (int i = 0; i < 2 && multipart(&r); i++) {
        struct upload_mark mark = {0};
        struct s3_object object;
        struct uuid id;
        uuid_new(&id);
        struct s3_key key = cut_off_copied(&r, &id, &mark, data, total, &digest);
        OK(blob_store_sweep(r.store, clock_wall_ms() + (i + 1) * 120000, err));
        OK(s3_head(r.s3, key.text, &object, err));
        if (i == 0) {
            OK(upload_discard(r.store, &id, &mark, err));
            CU_ASSERT_EQUAL(count_below(&r, ""), 1);
        } else {
            commit(&r, &id, &mark, 2, &digest);
            check_blob(&r, data, total, &digest);
            check_only_blob(&r, total);
        }
    }
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
        {"the sweeper takes orphans only", test_sweep},
        {"what an open writer has made is no orphan", test_sweep_beside_a_writer},
        {"a copy stays until its upload has become the blob, or goes with it", test_sweep_beside_a_copy},
        {"every node reads the same store id", test_one_store_id},
        {"the self-check passes and clears up", test_self_check},
        {"a wrong setting is told at open", test_wrong_settings},
        CU_TEST_INFO_NULL};
    return unit_main("s3_store", tests);
}
