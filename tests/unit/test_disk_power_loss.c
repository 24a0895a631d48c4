/*
 * disk_power_loss - nothing that was acknowledged is lost when the power fails, at any moment and whatever of the
 * unsynced writes got through; and nothing half is seen.
 *
 * Threads use a disk store on the rig's disk, noting what was promised to them and when. Then, for many moments, what
 * might be left of the disk is built (power_rig.h), a store is opened on it, and all that was promised by that moment
 * is looked for. The same is done on a disk whose syncs do nothing: there it must fail, or the test would prove
 * nothing.
 */
#include "tests/unit/power_rig.h"

#include "backends/disk_store.h"
#include "core/clock.h"
#include "tests/contract/blob_contract_parts.h"
#include "tests/unit/temp_dir.h"
#include "tests/unit/unit_main.h"

#define THREADS 4
#define CYCLES  60
#define MOMENTS 60
#define NEVER   SIZE_MAX

/* One upload's life, each step with the moment it began or was acknowledged. */
struct life {
    struct uuid id;
    unsigned seed;
    uint64_t size, flushed_bytes[2];
    size_t flushed[2], commit_began, done, delete_began, deleted;
    struct digest digest;
    char file_key[RECORD_KEY_MAX + 1], blob_key[RECORD_KEY_MAX + 1];
};

struct worker {
    struct blob_store *store;
    unsigned number;
    struct life lives[CYCLES];
    unsigned failures;
};

static char root[TEMP_DIR_CHARS];
static unsigned losses;

static struct disk_options options(const char *at)
{
    return (struct disk_options){
        .root = at, .journal = true, .journal_segment_bytes = 1u << 20, .journal_segments = 4, .checkpoint_ms = 100};
}

/* ---- using the store ---- */

static void plan(struct worker *wk, unsigned i)
{
    static const uint64_t sizes[] = {10, 500, 4096, 16384, 16385, 40000, 131072, 131073, 300000};
    struct life *life = &wk->lives[i];
    unsigned n = wk->number * CYCLES + i;
    *life = (struct life){.seed = n,
                          .flushed = {NEVER, NEVER},
                          .commit_began = NEVER,
                          .done = NEVER,
                          .delete_began = NEVER,
                          .deleted = NEVER};
    uuid_new(&life->id);
    life->size = sizes[n % 9] + n;
    /* Some content is stored by all of them. */
    if (i % 5 == 0) {
        life->seed = 100000 + i;
        life->size = 20000;
    }
    life->flushed_bytes[0] = life->size / 3;
    life->flushed_bytes[1] = life->size;
    content_digest(life->size, life->seed, &life->digest);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&life->digest, hex);
    snprintf(life->file_key, sizeof life->file_key, "files/%s/%u", hex, n);
    snprintf(life->blob_key, sizeof life->blob_key, "blobs/%s", hex);
}

static bool append(struct worker *wk, struct life *life)
{
    struct upload_mark mark = {0};
    for (int part = 0; part < 2; part++) {
        struct blob_writer *w = NULL;
        if (upload_open(wk->store, &life->id, &mark, 1, &w, NULL) != BLOB_OK)
            return false;
        bool ok = content_write(w, life->flushed_bytes[part], 50000, life->seed) == BLOB_OK &&
                  writer_flush(w, life->flushed_bytes[part], NULL, 0, 0, &mark, NULL) == BLOB_OK;
        if (ok)
            life->flushed[part] = rig_now();
        writer_close(w);
        if (!ok)
            return false;
    }
    return true;
}

static bool complete(struct worker *wk, struct life *life)
{
    const struct upload_mark mark = {.offset = life->size};
    struct blob_writer *w = NULL;
    if (upload_open(wk->store, &life->id, &mark, 2, &w, NULL) != BLOB_OK)
        return false;
    life->commit_began = rig_now();
    if (writer_commit(w, &life->digest, BLOB_LAZY, NULL) != BLOB_OK) {
        writer_close(w);
        return false;
    }
    if (record_put(wk->store, life->blob_key, "{\"blob\":1}", 10, BLOB_LAZY, NULL) != BLOB_OK ||
        record_put(wk->store, life->file_key, life->file_key, strlen(life->file_key), 0, NULL) != BLOB_OK)
        return false;
    life->done = rig_now();
    return true;
}

static void *work(void *arg)
{
    struct worker *wk = arg;
    for (unsigned i = 0; i < CYCLES; i++)
        plan(wk, i);
    for (unsigned i = 0; i < CYCLES; i++) {
        struct life *life = &wk->lives[i];
        if (!append(wk, life) || (i % 7 != 6 && !complete(wk, life)))
            wk->failures++;
        /* Of those that nobody shares, some are deleted again. */
        if (life->done != NEVER && i % 5 == 3) {
            life->delete_began = rig_now();
            if (record_delete(wk->store, life->file_key, 0, NULL) == BLOB_OK &&
                blob_remove(wk->store, &life->digest, INT64_MAX, NULL) == BLOB_OK)
                life->deleted = rig_now();
        }
    }
    return NULL;
}

/* ---- looking for what was promised ---- */

static void lost(const struct life *life, size_t moment, const char *what)
{
    if (losses++ < 5 && !rig.lying)
        fprintf(stderr, "moment %zu: upload %u of %llu bytes: %s\n", moment, life->seed, (unsigned long long)life->size,
                what);
}

static bool record_there(struct blob_store *s, const char *key, const char *value)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bool there = record_get(s, key, &b, NULL) == BLOB_OK && strcmp(b.data, value) == 0;
    bytebuf_release(&b);
    return there;
}

static bool staged(struct blob_store *s, const struct life *life, uint64_t bytes)
{
    struct upload_stat stat;
    size_t got = 0;
    char *have = malloc(bytes + 1), *want = malloc(bytes + 1);
    CHECK(have && want);
    content_fill(want, bytes, 0, life->seed);
    bool ok = upload_stat(s, &life->id, &stat, NULL) == BLOB_OK && stat.mark.offset >= bytes &&
              upload_read(s, &life->id, 0, have, bytes, &got, NULL) == BLOB_OK && got == bytes &&
              memcmp(have, want, bytes) == 0;
    free(have);
    free(want);
    return ok;
}

static void look_for(struct blob_store *s, const struct life *life, size_t moment)
{
    bool file = record_there(s, life->file_key, life->file_key);
    uint64_t promised = life->flushed[1] <= moment ? life->flushed_bytes[1] : life->flushed_bytes[0];
    if (life->deleted <= moment) {
        if (file)
            lost(life, moment, "deleted, and back");
    } else if (life->delete_began > moment && file) {
        /* The steps of a completion survive in their order. */
        if (!content_intact(s, life->size, life->seed))
            lost(life, moment, "its record is there, its content is not");
        if (!record_there(s, life->blob_key, "{\"blob\":1}"))
            lost(life, moment, "its record is there, the blob's is not");
    } else if (life->done <= moment && life->delete_began > moment) {
        lost(life, moment, "completed, and its record is gone");
    } else if (life->done > moment && life->flushed[0] <= moment) {
        bool kept = staged(s, life, promised);
        if (!kept && (life->commit_began > moment || !content_intact(s, life->size, life->seed)))
            lost(life, moment, "flushed bytes are gone");
    }
}

static bool blob_whole(const struct digest *digest, const struct blob_info *info, void *arg)
{
    struct blob_store *s = arg;
    struct blob_reader *r = NULL;
    struct blob_info again;
    struct hash h;
    struct digest got;
    char *buf = malloc(info->size + 1);
    CHECK(buf);
    hash_init(&h);
    bool ok = blob_open(s, digest, &r, &again, NULL) == BLOB_OK && reader_read(r, 0, buf, info->size, NULL) == BLOB_OK;
    hash_update(&h, buf, ok ? info->size : 0);
    hash_peek(&h, &got);
    if (!ok || !digest_equal(&got, digest)) {
        losses++;
        if (!rig.lying)
            fprintf(stderr, "a blob of %llu bytes is not what its name says\n", (unsigned long long)info->size);
    }
    reader_close(r);
    free(buf);
    return true;
}

static bool record_whole(const char *key, const void *value, size_t len, void *arg)
{
    (void)arg;
    bool blob = strncmp(key, "blobs/", 6) == 0;
    const char *want = blob ? "{\"blob\":1}" : key;
    if (len != strlen(want) || memcmp(value, want, len) != 0) {
        losses++;
        if (!rig.lying)
            fprintf(stderr, "record %s has %zu other bytes\n", key, len);
    }
    return true;
}

static void look_at(struct worker *workers, size_t moment, enum rig_luck luck, unsigned seed)
{
    char left[TEMP_DIR_CHARS];
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    temp_dir_make_in_memory(left);
    rig_build(left, moment, luck, seed);
    struct disk_options opt = options(left);
    if (disk_store_open(&opt, &s, &err) != BLOB_OK) {
        losses++;
        if (!rig.lying)
            fprintf(stderr, "moment %zu: the store does not open: %s\n", moment, err.text);
        temp_dir_remove(left);
        return;
    }
    for (unsigned t = 0; t < THREADS; t++)
        for (unsigned i = 0; i < CYCLES; i++)
            look_for(s, &workers[t].lives[i], moment);
    CU_ASSERT_EQUAL(blob_list(s, NULL, blob_whole, s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(record_list(s, "blobs/", NULL, 0, true, record_whole, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(record_list(s, "files/", NULL, 0, true, record_whole, NULL, NULL), BLOB_OK);
    blob_store_close(s);
    temp_dir_remove(left);
}

/* Records some work, and looks at many moments of it. The losses found. */
static unsigned lose_power(bool journal, bool lying)
{
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    struct blob_store *s = NULL;
    losses = 0;
    temp_dir_make_in_memory(root);
    rig.lying = lying;
    rig_start(root);
    struct disk_options opt = options(root);
    opt.journal = journal;
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    size_t opened = rig_now();
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.store = s, .number = i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(workers[i].failures, 0);
    }
    size_t ended = rig_now();
    blob_store_close(s);
    rig_stop();
    unsigned seed = (unsigned)clock_wall_ms();
    printf("(%zu changes, seed %u) ", ended - opened, seed);
    for (unsigned i = 0; i < MOMENTS && losses == 0; i++) {
        unsigned draw = seed + i;
        size_t moment = opened + (size_t)rand_r(&draw) % (ended - opened + 1);
        look_at(workers, moment, (enum rig_luck)(i % RIG_LUCKS), draw);
    }
    rig_release();
    temp_dir_remove(root);
    return losses;
}

static void test_journal(void)
{
    CU_ASSERT_EQUAL(lose_power(true, false), 0);
}

static void test_plain(void)
{
    CU_ASSERT_EQUAL(lose_power(false, false), 0);
}

static void test_lying_disk(void)
{
    CU_ASSERT_NOT_EQUAL(lose_power(true, true), 0);
    CU_ASSERT_NOT_EQUAL(lose_power(false, true), 0);
}

int main(void)
{
    CU_TestInfo tests[] = {{"nothing acknowledged is lost, with the journal", test_journal},
                           {"nothing acknowledged is lost, without it", test_plain},
                           {"on a disk that does not sync, losses are seen", test_lying_disk},
                           CU_TEST_INFO_NULL};
    return unit_main("disk power loss", tests);
}
